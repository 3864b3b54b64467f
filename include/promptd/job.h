/* SPDX-License-Identifier: MIT */
/*
 * A job: one message on its way from arrival to outcome, and all that is known of it.
 *
 *     pipeline ──admit──▶ inbox ──take──▶ store ──outcome──▶ pipeline ──finish──▶ freed
 *
 * A job has one owner at a time. The sections below say who writes what; the queue link belongs to the owner.
 */
#ifndef PROMPTD_JOB_H
#define PROMPTD_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "promptd/message.h"
#include "promptd/source.h"
#include "promptd/text.h"

/* What is done next for a job. What each is in the database is in statements_sql.c, what comes after it in steps.c. */
enum job_step {
    JOB_INSERT,   /* insert the prompt and its row in promptd_unsettled; where it can be, settle in the same flush */
    JOB_TRANSACT, /* atomicity = transaction: insert the prompt and move the interview in one transaction */
    JOB_SETTLE,   /* move the interview to ready, and take the row out of promptd_unsettled */
    JOB_RECOVER,  /* the same for what was left behind: an interview that is failed waits no longer */
    JOB_UNDO,     /* take the row out of promptd_unsettled, and delete the prompt */
    JOB_MARK,     /* mark the interview failed, if it is awaiting */
    JOB_VERIFY,   /* a step changed nothing: look at prompt, evidence and interview */
    JOB_STEP_COUNT
};

enum job_kind {
    JOB_MESSAGE,
    JOB_RECOVERY, /* no message: a prompt that stands in promptd_unsettled for too long */
    JOB_MARKING   /* no message: an interview that could not be marked failed */
};

/* What ends a message. Each message gets exactly one. */
enum outcome {
    OUTCOME_NONE, /* not yet */
    OUTCOME_STORED,
    OUTCOME_DUPLICATE,
    OUTCOME_NOT_STORED,
    OUTCOME_ROLLED_BACK,
    OUTCOME_ORPHANED,
    OUTCOME_REJECTED,
    OUTCOME_DROPPED,
    OUTCOME_COUNT
};

/* What made an outcome, fit for the log: log lines, events and dead letters have both as they are. */
struct job_failure {
    char sqlstate[6]; /* the database's word for it; "" where it gave none */
    char text[820];   /* 200 characters of at most four bytes, and some room */
};

struct job {
    TAILQ_ENTRY(job) link; /* in the one queue that its owner keeps it in */

    /* set by the pipeline, constant from then on */
    struct message_content content;
    uint8_t prompt_id[UUID_SIZE];
    size_t payload_bytes;
    int64_t arrived_us;      /* clock_monotonic_us */
    struct receipt *receipt; /* the source keeps the message until it comes back; NULL: it is in memory only */
    bool redelivered;        /* it was taken in before, by an earlier process or by another */
    bool may_have_prompt; /* rejected by today's rules, but perhaps not by those of then: prompt_id was its prompt's */
    enum job_kind kind;

    /* inbox */
    struct interview *interview; /* its place in the table */
    struct job *behind;          /* the next job of the same interview, waiting for this one's outcome */

    /* store */
    bool in_transaction; /* atomicity = transaction */
    enum job_step step;
    enum job_step verifies;  /* JOB_VERIFY: the step that changed nothing */
    bool held;               /* that step had all rows that it needed, so that something keeps them as they are */
    unsigned batch_limit;    /* most jobs that may share a statement with it; 0: no limit of its own */
    unsigned attempts;       /* failures of its own in this step */
    unsigned outages;        /* in a row, met by statements with this job in them */
    int64_t locked_since_ms; /* on the loop's clock: when this step first met a lock of somebody else; 0: it has not */
    int64_t due_ms;          /* on the loop's clock: when the next attempt may start */
    unsigned vanished;      /* how often its inserted prompt was gone before it was settled, and no crash explains it */
    bool inserted;          /* our insert returned the prompt, or its answer never came */
    bool settle_unanswered; /* a settle was sent, and its answer never came */
    bool undone;            /* our undo has deleted the prompt */
    bool stuck;             /* the interview could not be marked failed */
    bool is_failed;         /* the interview is marked failed, by us or from before */
    enum outcome outcome;   /* as it will be, once the remaining steps are done */
    struct job_failure *failure;      /* owned; what made the outcome, NULL for stored and duplicate */
    struct job_failure *mark_failure; /* owned; what kept the interview from being marked */
};

TAILQ_HEAD(job_queue, job);

/* A job that is no message. NULL when out of memory. */
struct job *job_new_recovery(const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE]);
struct job *job_new_marking(const uint8_t interview_id[UUID_SIZE]);

/* Takes the content over (also on failure, when it is freed). NULL when out of memory. */
struct job *job_new(struct message_content *content, size_t payload_bytes, int64_t arrived_us);
void job_free(struct job *job);

/* Bytes that the job holds, as counted against queue_max_bytes. */
size_t job_size(const struct job *job);

const char *outcome_name(enum outcome outcome); /* "rolled back" */

#endif
