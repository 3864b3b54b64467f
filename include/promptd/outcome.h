/* SPDX-License-Identifier: MIT */
/* The only place where the fate of a message is recorded: its log line, its counters, the list of recent failures. */
#ifndef PROMPTD_OUTCOME_H
#define PROMPTD_OUTCOME_H

#include "promptd/job.h"
#include "promptd/metrics.h"
#include "promptd/recent_failures.h"

/* Where it is recorded, besides the log. All are borrowed. */
struct outcome_record {
    struct metrics *metrics;
    struct recent_failures *recent_failures;
    void (*on_outcome)(void *context, const struct job *job); /* it is final, and recorded. NULL: nobody listens */
    void *context;
};

/* Records job->outcome, and the interview that is stuck if it is. Exactly once a job. */
void outcome_record(const struct outcome_record *record, const struct job *job);

/* A job that is no message has ended: where the recovery has changed something, on_outcome is told of it as well. */
void outcome_report_recovery(const struct outcome_record *record, const struct job *job);

/* An orphan that was reported and is not known to be gone. */
struct open_orphan {
    uint8_t interview_id[UUID_SIZE];
    uint8_t prompt_id[UUID_SIZE];
    int64_t since_ms; /* monotonic */
};

/* The CRITICAL line of an orphan, at the moment when it is one. The outcome is recorded later. */
void outcome_report_orphan(const struct job *job);

/* An orphan that was reported before is gone, or has become its interview's prompt after all. */
void outcome_report_resolved(const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE]);

/* The recovery has settled a prompt, or undone it. */
void outcome_report_recovered(const struct job *job);

/* The interview of a job could not be marked failed; outcome_record says so by itself. */
void outcome_report_stuck(const struct job *job);

/* It is marked now, or needs no marking any more. */
void outcome_report_unstuck(const struct job *job);

/* promptd stops, and the job's prompt may be there without its interview: whoever comes next settles it. */
void outcome_report_unsettled(const struct job *job);

/* promptd stops; the source keeps the message for the next start. No outcome. */
void outcome_report_left_waiting(const struct job *job);

/* A flood of messages that are dropped or rejected must not fill the disk: beyond a bound their lines are held back.
 * This sums them up: now and then, and at the end. */
void outcome_sum_up(void);

/* A message that could not even be looked at, for lack of memory. */
void outcome_record_lost_memory(const struct outcome_record *record, size_t payload_bytes);

#endif
