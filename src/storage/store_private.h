/* SPDX-License-Identifier: MIT */
/* The store's own: its state, and what store.c and store_outage.c have in common. */
#ifndef PROMPTD_STORE_PRIVATE_H
#define PROMPTD_STORE_PRIVATE_H

#include "promptd/store.h"
#include "reconciler.h"

enum { STORE_BACKOFF_BASE_MS = 1000 };

struct store_batch {
    struct store *store;
    struct batch batch;
    struct store_batch *next_free;
};

struct store {
    struct store_options options;
    struct statements *statements;
    struct pg_pool *pool;
    struct reconciler *reconciler;
    struct store_batch *batches; /* one a connection */
    struct store_batch *free_batches;
    struct job_queue queues[JOB_STEP_COUNT];
    size_t queued;            /* in all of them */
    struct job_queue delayed; /* by due time */
    uv_timer_t delay;
    uv_timer_t settle; /* looks once a second, while the database is away, for jobs unsettled too long */
    uv_idle_t wake;    /* with it the loop does not wait, so that `work` runs soon */
    uv_check_t work;
    int open_handles;
    bool pool_closed; /* and freed */
    bool taking;
    bool closing;
    size_t batches_out; /* sent, not answered */
    char setup_reported[SQLSTATE_SIZE];
    void (*unfinished)(void *context, struct job *job);
};

void store_queue_last(struct store *store, struct job *job);
void store_queue_delayed(struct store *store, struct job *job, int64_t wait_ms);

/* All of it to the head of the queue of its step, in the same order. */
void store_requeue_batch(struct store *store, struct batch *batch);

/* The job's step failed for good. failed_statement as in struct pg_answer. */
void store_fail_job(struct store *store, struct job *job, const struct job_failure *failure, int failed_statement);

/* An error that quotes the prompt stays out of the log; and so does one about a prompt that is not there to compare. */
struct job_failure store_failure_for_log(const struct job *job, const struct job_failure *failure);

/* store_outage.c */

/* The run of this batch ended in an outage that the server reported: all go again, and the pool hears of it. */
void store_meet_outage(struct store *store, struct pg_session *session, struct batch *batch,
                       const struct job_failure *failure);
/* The same for a connection that is lost already. */
void store_put_back(struct store *store, struct batch *batch);
/* Once a second: whoever has waited for too long between its insert and its outcome. */
void store_on_settle(uv_timer_t *timer);

#endif
