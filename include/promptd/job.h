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
#include "promptd/text.h"

/* Where the store is with a job. Each name says what is done next; the statements are in statements.c. */
enum job_step {
    JOB_INSERT,   /* insert the prompt; leaves with the insert confirmed, in doubt, or failed */
    JOB_CONFIRM,  /* the insert returned nothing: look whether the prompt is there */
    JOB_UPDATE,   /* move the interview to ready */
    JOB_JUDGE,    /* the update changed nothing: look at the interview's status */
    JOB_TRANSACT, /* update and insert in one transaction, instead of the four above */
    JOB_SETTLE,   /* the transaction did not insert: look at prompt and interview */
    JOB_DELETE,   /* the update failed: delete our prompt again */
    JOB_PROVE,    /* the delete returned nothing: look whether the prompt is gone */
    JOB_UNREADY,  /* the transaction moved the interview, yet its insert was suppressed: mark it failed */
    JOB_MARK,     /* the message failed: mark the interview failed, if it is awaiting */
    JOB_WITNESS,  /* the mark changed nothing: look whether the interview is still awaiting */
    JOB_STEP_COUNT
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

enum { SQLSTATE_SIZE = 6, JOB_ERROR_SIZE = 820 }; /* 200 characters of at most four bytes, and some room */

/* Why a step failed. The text is fit for the log: the server's primary message, shortened, or a sentence of ours. */
struct job_failure {
    char sqlstate[SQLSTATE_SIZE]; /* "" where no server said it */
    char text[JOB_ERROR_SIZE];
};

struct job {
    TAILQ_ENTRY(job) link; /* in the one queue that its owner keeps it in */

    /* set by the pipeline, constant from then on */
    struct message_content content;
    uint8_t prompt_id[UUID_SIZE];
    size_t payload_bytes;
    int64_t arrived_us; /* clock_monotonic_us */
    int64_t sequence;   /* the spool's number; 0: in memory only */
    bool is_cleanup;    /* no message: another attempt to delete the orphan prompt_id of this interview */

    /* inbox: the next job of the same interview, waiting for this one's outcome */
    struct job *behind;

    /* store */
    enum job_step step;
    unsigned batch_limit;             /* most jobs that may share a statement with it; halved by each failure */
    unsigned attempts;                /* failures of its own in this step */
    unsigned outages;                 /* in a row, met by statements with this job in them */
    bool told_refused;                /* the log says that the database refuses just this job */
    int64_t due_ms;                   /* when the next attempt may start, on the loop's clock */
    bool maybe_inserted;              /* an insert was sent and its answer never came */
    int64_t unsettled_since_us;       /* clock_monotonic_us of the first insert; 0: none was sent */
    bool inserted;                    /* the prompt's row is ours: by the answer, or found after such an insert. A lone
                                       * message's row may yet go in a crash of the server: see statements.c */
    bool vanished;                    /* the prompt was gone once, before its interview was moved */
    bool moved;                       /* we moved the interview from awaiting to ready */
    bool deleted;                     /* our prompt is gone again */
    bool stuck;                       /* the interview could not be marked failed */
    enum outcome outcome;             /* as it will be, once the remaining steps are done */
    struct job_failure *failure;      /* owned; what made the outcome, NULL for stored and duplicate */
    struct job_failure *mark_failure; /* owned; what kept the interview from being marked */
};

TAILQ_HEAD(job_queue, job);

/* A job for the next attempt to delete an orphan. NULL when memory is out. */
struct job *job_new_cleanup(const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE]);

/* Takes the content over (also on failure, when it is freed). NULL when memory is out. */
struct job *job_new(struct message_content *content, size_t payload_bytes, int64_t arrived_us);
void job_free(struct job *job);

/* Bytes that the job holds, as counted against queue_max_bytes. */
size_t job_size(const struct job *job);

const char *outcome_name(enum outcome outcome); /* "rolled back" */
const char *job_step_name(enum job_step step);  /* "insert" */

#endif
