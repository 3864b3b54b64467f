/* SPDX-License-Identifier: MIT */
/* The store's own: its state, and what store.c (queues and batches) and store_answers.c (what an answer means) share.
 */
#ifndef PROMPTD_STORE_PRIVATE_H
#define PROMPTD_STORE_PRIVATE_H

#include "promptd/store.h"
#include "recovery.h"

enum { STORE_BACKOFF_BASE_MS = 1000 };

/* A batch, on its way or free. */
struct store_batch {
    struct store *store;
    struct batch batch;
    struct store_batch *next_free;
    bool is_recovery;        /* its jobs are no messages */
    bool had_evidence;       /* promptd_unsettled was there when its statements were made */
    bool sent_with_others;   /* the run that failed was of several jobs, of which some may have left the batch */
    struct pg_error failure; /* a probe finds out whether it is an outage */
    int failed_statement;
};

/* A queue for each step. */
struct step_queues {
    struct job_queue of[JOB_STEP_COUNT];
    size_t count; /* in all of them */
};

struct store {
    struct store_options options;
    void (*on_closed)(void *context);
    void *closed_context;
    struct statements *statements;
    struct pg_pool *pool;
    struct recovery *recovery;
    struct store_batch *batches; /* one a connection */
    struct store_batch *free_batches;
    struct step_queues messages;
    struct step_queues recoveries; /* what is no message: one batch at a time, in turn with those of messages */
    bool recovery_out;             /* such a batch is sent, not answered */
    bool recovery_was_last;        /* the last that was sent was one, or a page of promptd_unsettled */
    struct job_queue delayed;      /* by due time */
    size_t delayed_count;
    uv_timer_t delay;
    uv_idle_t wake; /* with it the loop does not wait, so that `work` runs soon */
    uv_check_t work;
    int open_handles;
    bool pool_closed;    /* and freed */
    bool was_up;         /* at least once */
    int64_t up_since_ms; /* on the loop's clock: when the database was last there again */
    bool taking;
    bool closing;
    size_t batches_out; /* sent, not answered */
    char setup_reported[SQLSTATE_SIZE];
};

/* store.c */

void store_queue_last(struct store *store, struct job *job);
void store_queue_delayed(struct store *store, struct job *job, int64_t wait_ms);
/* All of it to the head of the queues, in the same order. */
void store_requeue_batch(struct store *store, struct batch *batch);
/* The batch's run, and whatever came of it, is over. */
void store_finish_run(struct store_batch *slot);

/* store_answers.c */

/* The answer to a batch's run: pg_answered. */
void store_on_answer(void *context, struct pg_session *session, const struct pg_answer *answer);
/* No answer will come: whoever's statements were under way may or may not have been committed. */
void store_note_unanswered(struct batch *batch);

#endif
