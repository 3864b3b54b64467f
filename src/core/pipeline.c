/* SPDX-License-Identifier: MIT */
/* Every message that is received here ends in exactly one outcome; this file sees to it. */
#include "pipeline_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "pipeline"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/outcome.h"

struct pipeline *pipeline_new(const struct pipeline_options *options, struct error *error)
{
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    pipeline->options = *options;
    TAILQ_INIT(&pipeline->unspooled);
    pipeline->ids = prompt_id_maker_new(error);
    pipeline->inbox = inbox_new(&options->limits);
    if (pipeline->ids && pipeline->inbox)
        return pipeline;
    if (!pipeline->inbox)
        error_set(error, ERROR_INTERNAL, "the inbox: %s", strerror(errno));
    pipeline_free(pipeline);
    return NULL;
}

void pipeline_free(struct pipeline *pipeline)
{
    if (!pipeline)
        return;
    inbox_free(pipeline->inbox);
    prompt_id_maker_free(pipeline->ids);
    orphans_free(&pipeline->orphans);
    free(pipeline);
}

void pipeline_set_rules(struct pipeline *pipeline, const struct message_rules *rules)
{
    pipeline->options.rules = *rules;
}

void pipeline_set_limits(struct pipeline *pipeline, const struct inbox_limits *limits)
{
    pipeline->options.limits = *limits;
    inbox_set_limits(pipeline->inbox, limits);
}

/* --- the beginning ---------------------------------------------------------------------------------------------- */

static bool make_prompt_id(struct pipeline *pipeline, struct job *job)
{
    const struct message_content *content = &job->content;
    return content->reject != REJECT_NONE || prompt_id_make(pipeline->ids, content->interview_id, content->source,
                                                            content->prompt, content->prompt_bytes, job->prompt_id);
}

void pipeline_trace(const struct job *job, const char *stage)
{
    if (!log_wants(LOG_LEVEL_DEBUG))
        return;
    char interview[UUID_TEXT_SIZE];
    char prompt[UUID_TEXT_SIZE];
    uuid_format(job->content.interview_id, interview);
    uuid_format(job->prompt_id, prompt);
    log_debug(LOG_FIELDS(log_text("interview_id", job->content.has_interview_id ? interview : NULL),
                         log_text("prompt_id", job->content.reject == REJECT_NONE ? prompt : NULL),
                         log_number("bytes", job->payload_bytes), log_number("sequence", job->sequence),
                         log_text("outcome", job->outcome != OUTCOME_NONE ? outcome_name(job->outcome) : NULL)),
              "message %s", stage);
}

struct job *pipeline_judge(struct pipeline *pipeline, const char *bytes, size_t length)
{
    struct message_content content;
    struct job *job = NULL;
    if (message_parse(&pipeline->options.rules, bytes, length, &content))
        job = job_new(&content, length, clock_monotonic_us());
    if (job && make_prompt_id(pipeline, job))
        return job;
    job_free(job);
    outcome_record_lost_memory(&pipeline->options.record, length);
    return NULL;
}

bool pipeline_has_bytes(const struct pipeline *pipeline, size_t bytes)
{
    size_t max_bytes = pipeline->options.limits.max_bytes;
    size_t used = inbox_bytes(pipeline->inbox) + pipeline->put_bytes + pipeline->unspooled_bytes;
    return used <= max_bytes && bytes <= max_bytes - used;
}

bool pipeline_has_room(const struct pipeline *pipeline, size_t bytes)
{
    size_t messages = inbox_messages(pipeline->inbox) + pipeline->puts + pipeline->unspooled_count;
    return messages < pipeline->options.limits.max_messages && pipeline_has_bytes(pipeline, bytes);
}

void pipeline_admit(struct pipeline *pipeline, struct job *job)
{
    if (job->content.reject != REJECT_NONE && !job->content.has_interview_id)
        pipeline_end(pipeline, job, OUTCOME_REJECTED, NULL);
    else if (!inbox_admit(pipeline->inbox, job))
        pipeline_end(pipeline, job, OUTCOME_DROPPED, "the queue is full (queue_max_messages, queue_max_bytes)");
    else
        pipeline->options.on_ready(pipeline->options.context);
}

void pipeline_receive(struct pipeline *pipeline, const char *bytes, size_t length)
{
    pipeline->options.record.metrics->received++;
    if (pipeline->spool) {
        pipeline_spool_receive(pipeline, bytes, length);
        return;
    }
    struct job *job = pipeline_judge(pipeline, bytes, length);
    if (!job)
        return;
    pipeline_trace(job, "received");
    pipeline_admit(pipeline, job);
}

void pipeline_refuse_oversize(struct pipeline *pipeline, size_t bytes)
{
    pipeline->options.record.metrics->received++;
    outcome_record_rejected(&pipeline->options.record, REJECT_TOO_LARGE, bytes);
}

struct job *pipeline_take(struct pipeline *pipeline)
{
    return inbox_take(pipeline->inbox);
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

static void end_message(struct pipeline *pipeline, struct job *job)
{
    outcome_record(&pipeline->options.record, job);
    pipeline_trace(job, "ended");
    pipeline_spool_ended(pipeline, job);
}

/* The failure lives on this stack: a job that ends here must not need memory for it. */
void pipeline_end(struct pipeline *pipeline, struct job *job, enum outcome outcome, const char *why)
{
    struct job_failure failure = {.sqlstate = ""};
    (void)snprintf(failure.text, sizeof failure.text, "%s", why ? why : "");
    free(job->failure);
    job->failure = &failure;
    job->outcome = outcome;
    if (outcome == OUTCOME_ORPHANED)
        outcome_report_orphan(job);
    end_message(pipeline, job);
    job->failure = NULL;
    job_free(job);
}

void pipeline_report_orphan(struct pipeline *pipeline, const struct job *job)
{
    if (job->is_cleanup)
        return; /* it is known already */
    outcome_report_orphan(job);
    if (!orphans_add(&pipeline->orphans, job->content.interview_id, job->prompt_id, clock_wall_ms()))
        log_warning(NULL, "too many open orphans to try this one again");
}

static void finish_cleanup(struct pipeline *pipeline, struct job *job)
{
    bool resolved = job->deleted || job->outcome == OUTCOME_STORED;
    pipeline->cleanups--;
    if (resolved)
        outcome_report_resolved(job);
    if (resolved && job->stuck)
        outcome_report_stuck(job);
    if (resolved && pipeline->spool) {
        log_flush();
        spool_resolve(pipeline->spool, job->prompt_id);
    }
    orphans_attempted(&pipeline->orphans, job->prompt_id, resolved);
}

void pipeline_finish(struct pipeline *pipeline, struct job *job)
{
    inbox_finish(pipeline->inbox, job);
    if (job->is_cleanup)
        finish_cleanup(pipeline, job);
    else
        end_message(pipeline, job);
    job_free(job);
    pipeline_spool_pump(pipeline);
}

/* --- orphans ---------------------------------------------------------------------------------------------------- */

void pipeline_retry_orphans(struct pipeline *pipeline)
{
    struct orphan *orphan;
    while (!pipeline->stopped && (orphan = orphans_next(&pipeline->orphans))) {
        struct job *job = job_new_cleanup(orphan->interview_id, orphan->prompt_id);
        if (!job || !inbox_admit(pipeline->inbox, job)) {
            job_free(job);
            return; /* no room: the next round tries again */
        }
        orphan->in_work = true;
        pipeline->cleanups++;
        pipeline->options.on_ready(pipeline->options.context);
    }
}

void pipeline_resume(struct pipeline *pipeline)
{
    pipeline_retry_orphans(pipeline);
    pipeline_spool_pump(pipeline);
}

void pipeline_pump(struct pipeline *pipeline)
{
    pipeline_spool_pump(pipeline);
}

/* --- giving up -------------------------------------------------------------------------------------------------- */

static bool only_mark_is_left(const struct job *job)
{
    return job->step == JOB_MARK || job->step == JOB_WITNESS || job->step == JOB_UNREADY;
}

static bool may_leave_orphan(const struct job *job)
{
    bool in_transaction = job->step == JOB_TRANSACT || job->step == JOB_SETTLE;
    return (job->inserted || job->maybe_inserted) && !in_transaction;
}

static void abandon(void *context, struct job *job)
{
    struct pipeline *pipeline = context;
    if (job->is_cleanup) {
        pipeline->cleanups--;
        job_free(job);
    } else if (job->outcome == OUTCOME_ORPHANED || (only_mark_is_left(job) && job->sequence == 0)) {
        job->stuck = true;
        end_message(pipeline, job);
        job_free(job);
    } else if (job->sequence > 0) {
        outcome_report_left_in_spool(job);
        pipeline->in_spool--;
        pipeline->on_disk_only++;
        job_free(job);
    } else if (may_leave_orphan(job)) {
        pipeline_end(pipeline, job, OUTCOME_ORPHANED, "promptd had to stop before the prompt was settled");
    } else {
        pipeline_end(pipeline, job, OUTCOME_DROPPED, "promptd had to stop before the message was settled");
    }
}

void pipeline_abandon(struct pipeline *pipeline, struct job *job)
{
    inbox_finish(pipeline->inbox, job);
    abandon(pipeline, job);
}

void pipeline_abandon_rest(struct pipeline *pipeline)
{
    struct job *job;
    inbox_evict(pipeline->inbox, abandon, pipeline);
    while ((job = TAILQ_FIRST(&pipeline->unspooled))) {
        TAILQ_REMOVE(&pipeline->unspooled, job, link);
        pipeline->unspooled_count--;
        abandon(pipeline, job);
    }
}

/* --- figures ---------------------------------------------------------------------------------------------------- */

size_t pipeline_in_memory(const struct pipeline *pipeline)
{
    return inbox_messages(pipeline->inbox) - pipeline->cleanups + pipeline->puts + pipeline->unspooled_count;
}

size_t pipeline_waiting(const struct pipeline *pipeline)
{
    return pipeline_in_memory(pipeline) + pipeline->on_disk_only;
}

size_t pipeline_memory_bytes(const struct pipeline *pipeline)
{
    return inbox_bytes(pipeline->inbox) + pipeline->put_bytes + pipeline->unspooled_bytes;
}

size_t pipeline_open_orphans(const struct pipeline *pipeline)
{
    return pipeline->orphans.count;
}

size_t pipeline_list_orphans(const struct pipeline *pipeline, struct open_orphan *list, size_t max)
{
    size_t count = pipeline->orphans.count < max ? pipeline->orphans.count : max;
    for (size_t i = 0; i < count; i++) {
        const struct orphan *orphan = &pipeline->orphans.list[i];
        list[i].since_ms = orphan->since_ms;
        memcpy(list[i].interview_id, orphan->interview_id, UUID_SIZE);
        memcpy(list[i].prompt_id, orphan->prompt_id, UUID_SIZE);
    }
    return count;
}
