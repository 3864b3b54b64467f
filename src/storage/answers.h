/* SPDX-License-Identifier: MIT */
/*
 * What the answer to a batch means: for each of its jobs the next step, a wait or the outcome; for the server whether
 * it is away. The jobs leave the batch for the queues or for the pipeline.
 */
#ifndef PROMPTD_ANSWERS_H
#define PROMPTD_ANSWERS_H

#include "promptd/store.h"
#include "recovery.h"
#include "step_queues.h"

enum { STORE_BACKOFF_BASE_MS = 1000 };

/* Who hears of answers; all of them are borrowed. */
struct answers {
    const struct store_options *options;
    const struct statements *statements;
    struct pg_pool *pool;
    struct recovery *recovery;
    struct step_queues *queues;
    int64_t up_since_ms; /* on the loop's clock: when the database was last there again */
    char setup_reported[SQLSTATE_SIZE];
};

/* A batch that was sent. */
struct run {
    struct answers *answers;
    struct batch batch;
    enum job_step step;
    bool sent_with_others; /* the run that failed was of several jobs, of which some may have left the batch */
    struct pg_error error; /* a probe finds out whether it is an outage */
    int failed_statement;
    void (*on_over)(struct run *run); /* its batch is empty, and may be used again */
};

/* The answer to its statements: pg_answered. Others may be asked before it is over, on the same session. */
void run_answered(void *context, struct pg_session *session, const struct pg_answer *answer);

/* No answer will come: the statements that were under way may have been committed, or not. */
void run_note_unanswered(struct run *run);

#endif
