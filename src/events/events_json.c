/* SPDX-License-Identifier: MIT */
/* An outcome as JSON. */
#include "promptd/events.h"
#include "promptd/json.h"

static const char *word_of(const struct job *job)
{
    if (job->kind == JOB_MARKING)
        return "no longer stuck";
    if (job->kind == JOB_RECOVERY && job->outcome == OUTCOME_STORED)
        return "settled";
    return outcome_name(job->outcome);
}

static const char *status_of(const struct job *job, const struct events_statuses *statuses)
{
    if (job->outcome == OUTCOME_STORED)
        return statuses->ready;
    return job->is_failed ? statuses->failed : NULL;
}

static const char *reason_of(const struct job *job)
{
    if (job->content.reject != REJECT_NONE)
        return reject_name(job->content.reject);
    return job->failure && job->failure->text[0] ? job->failure->text : NULL;
}

static void append_if_known(struct buffer *buffer, const char *key, const char *text)
{
    if (text)
        json_text(buffer, key, text);
}

void events_append(struct buffer *buffer, const struct job *job, const struct events_statuses *statuses,
                   int64_t wall_ms)
{
    const struct message_content *content = &job->content;
    bool has_prompt_id = content->prompt || job->kind == JOB_RECOVERY;
    json_open(buffer, NULL, '{');
    if (content->has_interview_id)
        json_uuid(buffer, "interview_id", content->interview_id);
    json_text(buffer, "outcome", word_of(job));
    append_if_known(buffer, "status", status_of(job, statuses));
    if (has_prompt_id)
        json_uuid(buffer, "prompt_id", job->prompt_id);
    append_if_known(buffer, "source", content->prompt ? content->source : NULL);
    append_if_known(buffer, "reason", reason_of(job));
    append_if_known(buffer, "sqlstate", job->failure && job->failure->sqlstate[0] ? job->failure->sqlstate : NULL);
    json_time(buffer, "at", wall_ms);
    json_close(buffer, '}');
}
