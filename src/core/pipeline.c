/* SPDX-License-Identifier: MIT */
/* Every message that is received here ends in exactly one outcome; this file sees to it. */
#include "pipeline_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "pipeline"
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

void pipeline_receive(struct pipeline *pipeline, const char *bytes, size_t length)
{
    pipeline->options.record.metrics->received++;
    if (pipeline->spool) {
        pipeline_spool_receive(pipeline, bytes, length);
        return;
    }
    struct job *job = pipeline_validate(pipeline, bytes, length, false);
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

void pipeline_finish(struct pipeline *pipeline, struct job *job)
{
    inbox_finish(pipeline->inbox, job);
    if (job->kind != JOB_MESSAGE)
        pipeline->recoveries--;
    else
        pipeline_record(pipeline, job);
    job_free(job);
    pipeline_pump(pipeline);
}

bool pipeline_admit_recovery(struct pipeline *pipeline, struct job *job)
{
    if (pipeline->stopped || inbox_has_message(pipeline->inbox, job->content.interview_id) ||
        !inbox_admit(pipeline->inbox, job))
        return false;
    pipeline->recoveries++;
    pipeline->options.on_ready(pipeline->options.context);
    return true;
}

/* --- giving up -------------------------------------------------------------------------------------------------- */

static void abandon(void *context, struct job *job)
{
    struct pipeline *pipeline = context;
    if (job->kind != JOB_MESSAGE) {
        pipeline->recoveries--;
        job_free(job);
        return;
    }
    bool is_unsettled = pipeline->options.may_be_unsettled(job);
    if (is_unsettled)
        outcome_report_unsettled(job);
    if (job->sequence > 0 && job->outcome != OUTCOME_ORPHANED) {
        outcome_report_left_in_spool(job);
        pipeline->in_spool--;
        pipeline->on_disk_only++;
    } else if (is_unsettled) {
        pipeline->left_unsettled++;
    } else if (job->outcome != OUTCOME_NONE) {
        job->stuck = true;
        pipeline_record(pipeline, job);
    } else {
        pipeline_end(pipeline, job, OUTCOME_DROPPED, "promptd had to stop before the message was stored");
        return;
    }
    job_free(job);
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
    return inbox_messages(pipeline->inbox) - pipeline->recoveries + pipeline->puts + pipeline->unspooled_count;
}

size_t pipeline_waiting(const struct pipeline *pipeline)
{
    return pipeline_in_memory(pipeline) + pipeline->on_disk_only + pipeline->left_unsettled;
}

size_t pipeline_memory_bytes(const struct pipeline *pipeline)
{
    return inbox_bytes(pipeline->inbox) + pipeline->put_bytes + pipeline->unspooled_bytes;
}
