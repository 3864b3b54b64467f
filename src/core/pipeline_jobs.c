/* SPDX-License-Identifier: MIT */
/* The first and the last of a message in the pipeline, on whatever way: checked and made a job, admitted, recorded. */
#include "pipeline_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "pipeline"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/outcome.h"

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

/* Before a restart with other limits it may have been accepted, and its prompt inserted. */
static bool find_earlier_prompt(struct pipeline *pipeline, const char *bytes, size_t length, struct job *job)
{
    const struct message_rules any = {.max_bytes = SIZE_MAX,
                                      .prompt_max_chars = SIZE_MAX,
                                      .default_source = pipeline->options.rules.default_source,
                                      .any_source = true};
    struct message_content content;
    if (!message_parse(&any, bytes, length, &content))
        return false;
    job->may_have_prompt = content.reject == REJECT_NONE;
    bool made = !job->may_have_prompt || prompt_id_make(pipeline->ids, content.interview_id, content.source,
                                                        content.prompt, content.prompt_bytes, job->prompt_id);
    if (job->may_have_prompt && !job->content.has_interview_id) { /* too_large: it was not looked at */
        job->content.has_interview_id = true;
        memcpy(job->content.interview_id, content.interview_id, UUID_SIZE);
    }
    message_content_free(&content);
    return made;
}

struct job *pipeline_validate(struct pipeline *pipeline, const char *bytes, size_t length, bool redelivered)
{
    struct message_content content;
    struct job *job = NULL;
    if (message_parse(&pipeline->options.rules, bytes, length, &content))
        job = job_new(&content, length, clock_monotonic_us());
    bool made = job && make_prompt_id(pipeline, job);
    if (made && redelivered && job->content.reject != REJECT_NONE)
        made = find_earlier_prompt(pipeline, bytes, length, job);
    if (made) {
        job->redelivered = redelivered;
        return job;
    }
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

/* --- the end ---------------------------------------------------------------------------------------------------- */

/* The row goes, or becomes a dead letter. */
static void end_in_spool(struct pipeline *pipeline, const struct job *job)
{
    if (!pipeline->spool || job->sequence == 0)
        return;
    pipeline->in_spool--;
    log_flush(); /* its line comes first: what is gone from the disk has one, should the process be killed now */
    if (job->outcome == OUTCOME_STORED || job->outcome == OUTCOME_DUPLICATE) {
        spool_finish(pipeline->spool, job->sequence);
        return;
    }
    const struct message_content *content = &job->content;
    bool rejected = content->reject != REJECT_NONE;
    struct spool_disposition disposition = {
        .outcome = outcome_name(job->outcome),
        .reason = rejected ? reject_name(content->reject) : NULL,
        .sqlstate = job->failure && job->failure->sqlstate[0] ? job->failure->sqlstate : NULL,
        .error = job->failure && job->failure->text[0] ? job->failure->text : NULL,
        .has_interview_id = content->has_interview_id,
        .has_prompt_id = !rejected,
    };
    memcpy(disposition.interview_id, content->interview_id, UUID_SIZE);
    memcpy(disposition.prompt_id, job->prompt_id, UUID_SIZE);
    spool_set_dead(pipeline->spool, job->sequence, &disposition);
}

void pipeline_record(struct pipeline *pipeline, struct job *job)
{
    outcome_record(&pipeline->options.record, job);
    pipeline_trace(job, "ended");
    end_in_spool(pipeline, job);
}

/* The failure lives on this stack: a job that ends here must not need memory for it. */
void pipeline_end(struct pipeline *pipeline, struct job *job, enum outcome outcome, const char *why)
{
    struct job_failure failure = {.sqlstate = ""};
    (void)snprintf(failure.text, sizeof failure.text, "%s", why ? why : "");
    free(job->failure);
    job->failure = &failure;
    job->outcome = outcome;
    pipeline_record(pipeline, job);
    job->failure = NULL;
    job_free(job);
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
