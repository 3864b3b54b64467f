/* SPDX-License-Identifier: MIT */
/* Log lines and counters of outcomes. Ids, lengths and reasons only: never a message's content. */
#include "promptd/outcome.h"

#include <stdio.h>
#include <string.h>

#define LOG_COMPONENT "store"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/log_rate.h"

static struct log_rate dropped_lines = {.burst = 10000, .per_second = 1000};
static struct log_rate rejected_lines = {.burst = 10000, .per_second = 1000};

struct names {
    char interview[UUID_TEXT_SIZE];
    char prompt[UUID_TEXT_SIZE];
};

static struct names names_of(const struct job *job)
{
    struct names names;
    uuid_format(job->content.interview_id, names.interview);
    uuid_format(job->prompt_id, names.prompt);
    return names;
}

static const char *sqlstate_of(const struct job_failure *failure)
{
    return failure && failure->sqlstate[0] ? failure->sqlstate : NULL;
}

static const char *text_of(const struct job_failure *failure)
{
    return failure ? failure->text : NULL;
}

static void set_interview(struct recent_failure *failure, const uint8_t interview_id[UUID_SIZE])
{
    failure->has_interview_id = true;
    memcpy(failure->interview_id, interview_id, UUID_SIZE);
}

static int64_t duration_ms(const struct job *job)
{
    return (clock_monotonic_us() - job->arrived_us) / 1000;
}

void outcome_report_orphan(const struct job *job)
{
    const struct names names = names_of(job);
    log_critical(LOG_FIELDS(log_text("sqlstate", sqlstate_of(job->failure)), log_text("error", text_of(job->failure))),
                 "ORPHANED PROMPT DETECTED for interview %s. Prompt ID: %s. Manual cleanup required.", names.interview,
                 names.prompt);
}

void outcome_report_resolved(const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE])
{
    struct names names;
    uuid_format(interview_id, names.interview);
    uuid_format(prompt_id, names.prompt);
    log_info(NULL, "ORPHANED PROMPT RESOLVED for interview %s. Prompt ID: %s.", names.interview, names.prompt);
}

void outcome_report_recovered(const struct job *job)
{
    const struct names names = names_of(job);
    log_info(LOG_FIELDS(log_text("prompt_id", names.prompt), log_text("error", text_of(job->failure))),
             "unsettled prompt %s for interview %s", job->undone ? "rolled back" : "settled", names.interview);
}

void outcome_report_unstuck(const struct job *job)
{
    log_info(NULL, "INTERVIEW NO LONGER STUCK: %s", names_of(job).interview);
}

void outcome_report_unsettled(const struct job *job)
{
    const struct names names = names_of(job);
    log_warning(LOG_FIELDS(log_text("interview_id", names.interview), log_text("prompt_id", names.prompt)),
                "stopping before the prompt for interview %s is settled; the recovery of the next promptd sees to it",
                names.interview);
}

void outcome_report_left_waiting(const struct job *job)
{
    const struct names names = names_of(job);
    log_info(NULL, "message for interview %s is left for the next start", names.interview);
}

static void log_success(const struct job *job, const char *text)
{
    if (!log_wants(LOG_LEVEL_INFO))
        return;
    const struct names names = names_of(job);
    log_info(LOG_FIELDS(log_text("prompt_id", names.prompt), log_text("source", job->content.source),
                        log_number("bytes", job->content.prompt_bytes), log_number("duration_ms", duration_ms(job))),
             "%s for interview %s", text, names.interview);
}

static void log_failure(const struct job *job, const char *text)
{
    const struct names names = names_of(job);
    log_error(LOG_FIELDS(log_text("prompt_id", job->content.prompt ? names.prompt : NULL),
                         log_text("sqlstate", sqlstate_of(job->failure)), log_text("error", text_of(job->failure)),
                         log_number("duration_ms", duration_ms(job))),
              "%s for interview %s", text, names.interview);
}

static void log_rejected(const struct message_content *content, size_t payload_bytes)
{
    char interview[UUID_TEXT_SIZE];
    if (!log_rate_allows(&rejected_lines, clock_monotonic_us()))
        return;
    uuid_format(content->interview_id, interview);
    log_error(
        LOG_FIELDS(log_text("reason", reject_name(content->reject)), log_number("bytes", payload_bytes),
                   content->reject == REJECT_NOT_JSON ? log_number("at", content->not_json_at) : log_text("at", NULL),
                   log_text("hint", message_hint(content)),
                   log_text("interview_id", content->has_interview_id ? interview : NULL)),
        "message rejected: %s", reject_meaning(content->reject));
}

void outcome_sum_up(void)
{
    uint64_t dropped = log_rate_take_held_back(&dropped_lines);
    uint64_t rejected = log_rate_take_held_back(&rejected_lines);
    if (dropped > 0)
        log_error(LOG_FIELDS(log_number("messages", dropped)), "more messages dropped than lines are written");
    if (rejected > 0)
        log_error(LOG_FIELDS(log_number("messages", rejected)), "more messages rejected than lines are written");
}

static struct recent_failure *count_rejected(const struct outcome_record *record, enum reject_reason reason)
{
    record->metrics->rejected++;
    record->metrics->rejected_by[reason]++;
    struct recent_failure *failure = recent_failures_add(record->recent_failures, OUTCOME_REJECTED);
    strncpy(failure->why.text, reject_name(reason), sizeof failure->why.text - 1);
    return failure;
}

static void report(const struct outcome_record *record, const struct job *job)
{
    if (record->on_outcome)
        record->on_outcome(record->context, job);
}

void outcome_report_recovery(const struct outcome_record *record, const struct job *job)
{
    bool is_settled = job->kind == JOB_RECOVERY && job->outcome == OUTCOME_STORED;
    if (is_settled || job->undone || (job->kind == JOB_MARKING && job->is_failed))
        report(record, job);
}

void outcome_record_lost_memory(const struct outcome_record *record, size_t payload_bytes)
{
    static const char reason[] = "out of memory";
    record->metrics->dropped++;
    memcpy(recent_failures_add(record->recent_failures, OUTCOME_DROPPED)->why.text, reason, sizeof reason);
    log_error(LOG_FIELDS(log_number("bytes", payload_bytes)), "message dropped: out of memory");
    struct job_failure failure = {.sqlstate = ""};
    memcpy(failure.text, reason, sizeof reason);
    report(record, &(struct job){.outcome = OUTCOME_DROPPED, .failure = &failure});
}

void outcome_report_stuck(const struct job *job)
{
    const struct names names = names_of(job);
    log_critical(
        LOG_FIELDS(log_text("sqlstate", sqlstate_of(job->mark_failure)), log_text("error", text_of(job->mark_failure))),
        "INTERVIEW STUCK: %s could not be marked failed.", names.interview);
}

static void log_dropped(const struct job *job)
{
    if (!log_rate_allows(&dropped_lines, clock_monotonic_us()))
        return;
    if (job->content.has_interview_id)
        log_failure(job, "message dropped");
    else
        log_error(LOG_FIELDS(log_text("error", text_of(job->failure)), log_number("bytes", job->payload_bytes)),
                  "message dropped");
}

static void record_rejected_job(const struct outcome_record *record, const struct job *job)
{
    struct recent_failure *failure = count_rejected(record, job->content.reject);
    if (job->content.has_interview_id)
        set_interview(failure, job->content.interview_id);
    log_rejected(&job->content, job->payload_bytes);
}

static void note_failure(const struct outcome_record *record, const struct job *job)
{
    struct recent_failure *failure = recent_failures_add(record->recent_failures, job->outcome);
    if (job->content.has_interview_id)
        set_interview(failure, job->content.interview_id);
    failure->has_prompt_id = job->content.prompt;
    memcpy(failure->prompt_id, job->prompt_id, UUID_SIZE);
    if (job->failure)
        failure->why = *job->failure;
}

/* Of an operation that was begun and has ended. What was rejected or dropped never was one. */
static void note_duration(struct metrics *metrics, const struct job *job)
{
    int64_t duration_us = clock_monotonic_us() - job->arrived_us;
    histogram_add(&metrics->durations, duration_us);
    samples_add(&metrics->samples, duration_us);
}

static void count(struct metrics *metrics, const struct job *job)
{
    switch (job->outcome) {
    case OUTCOME_STORED:
        metrics->success++;
        break;
    case OUTCOME_DUPLICATE:
        metrics->duplicate++;
        break;
    case OUTCOME_NOT_STORED:
        metrics->failure++;
        break;
    case OUTCOME_ROLLED_BACK:
        metrics->failure++;
        metrics->rollback++;
        break;
    case OUTCOME_ORPHANED:
        metrics->failure++;
        metrics->orphaned++;
        break;
    case OUTCOME_REJECTED:
    case OUTCOME_DROPPED:
    case OUTCOME_NONE:
    case OUTCOME_COUNT:
        return;
    }
    note_duration(metrics, job);
}

void outcome_record(const struct outcome_record *record, const struct job *job)
{
    count(record->metrics, job);
    switch (job->outcome) {
    case OUTCOME_STORED:
        log_success(job, "prompt stored");
        break;
    case OUTCOME_DUPLICATE:
        log_success(job, "duplicate prompt, nothing changed,");
        break;
    case OUTCOME_NOT_STORED:
        note_failure(record, job);
        log_failure(job, "prompt not stored");
        break;
    case OUTCOME_ROLLED_BACK:
        note_failure(record, job);
        log_failure(job, "prompt rolled back");
        break;
    case OUTCOME_ORPHANED: /* its line stands in the log already */
        note_failure(record, job);
        break;
    case OUTCOME_REJECTED:
        record_rejected_job(record, job);
        break;
    case OUTCOME_DROPPED:
    case OUTCOME_NONE:
    case OUTCOME_COUNT:
        record->metrics->dropped++;
        note_failure(record, job);
        log_dropped(job);
        break;
    }
    if (job->stuck) {
        record->metrics->stuck++;
        outcome_report_stuck(job);
    }
    report(record, job);
}
