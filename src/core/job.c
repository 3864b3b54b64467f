/* SPDX-License-Identifier: MIT */
/* Making and freeing jobs, and the names of outcomes. */
#include "promptd/job.h"

#include <stdlib.h>
#include <string.h>

struct job *job_new(size_t size, struct message_content *content, size_t payload_bytes, int64_t arrived_us)
{
    struct job *job = calloc(1, size);
    if (!job) {
        message_content_free(content);
        return NULL;
    }
    job->content = *content;
    *content = (struct message_content){0};
    job->payload_bytes = payload_bytes;
    job->held_bytes = size + (job->content.prompt ? job->content.prompt_bytes + 1 : 0);
    job->arrived_us = arrived_us;
    return job;
}

static struct job *job_new_without_message(size_t size, enum job_kind kind, const uint8_t interview_id[UUID_SIZE])
{
    struct job *job = calloc(1, size);
    if (!job)
        return NULL;
    job->held_bytes = size;
    job->kind = kind;
    job->content.has_interview_id = true;
    memcpy(job->content.interview_id, interview_id, UUID_SIZE);
    return job;
}

struct job *job_new_recovery(size_t size, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE])
{
    struct job *job = job_new_without_message(size, JOB_RECOVERY, interview_id);
    if (job)
        memcpy(job->prompt_id, prompt_id, UUID_SIZE);
    return job;
}

struct job *job_new_marking(size_t size, const uint8_t interview_id[UUID_SIZE])
{
    return job_new_without_message(size, JOB_MARKING, interview_id);
}

void job_free(struct job *job)
{
    if (!job)
        return;
    message_content_free(&job->content);
    free(job->failure);
    free(job->mark_failure);
    free(job);
}

const char *outcome_name(enum outcome outcome)
{
    static const char *const names[OUTCOME_COUNT] = {
        [OUTCOME_NONE] = "none",
        [OUTCOME_STORED] = "stored",
        [OUTCOME_DUPLICATE] = "duplicate",
        [OUTCOME_NOT_STORED] = "not stored",
        [OUTCOME_ROLLED_BACK] = "rolled back",
        [OUTCOME_ORPHANED] = "orphaned",
        [OUTCOME_REJECTED] = "rejected",
        [OUTCOME_DROPPED] = "dropped",
    };
    return names[outcome];
}
