/* SPDX-License-Identifier: MIT */
/* When the database is away: who goes again and when, and who has waited for too long. */
#include "store_private.h"

#include <stdlib.h>

#define LOG_COMPONENT "store"
#include "promptd/backoff.h"
#include "promptd/clock.h"
#include "promptd/log.h"

/* --- outages ---------------------------------------------------------------------------------------------------- */

enum {
    OUTAGES_BEFORE_WAITING = 2, /* in a row, and alone: a third may well be the job's own doing */
};

/* Half of them at a time: whose doing it is must come out, should it not be an outage. */
static void halve_batch(struct store *store, struct batch *batch)
{
    unsigned limit = (unsigned)(batch->count + 1) / 2;
    for (size_t i = 0; i < batch->count; i++) {
        batch->jobs[i]->batch_limit = limit;
        store_queue_last(store, batch->jobs[i]);
    }
    batch_reset(batch);
}

static void wait_alone(struct store *store, struct job *job)
{
    struct backoff backoff = {.base_ms = STORE_BACKOFF_BASE_MS,
                              .max_ms = store->options.tuning.pool.backoff_max_ms,
                              .failures = job->outages - OUTAGES_BEFORE_WAITING - 1};
    store_queue_delayed(store, job, backoff_fail(&backoff, backoff_chance()));
}

/*
 * An outage is nobody's failure, so that all go again. But a statement that ends in one each time may be what makes it
 * (a trigger that raises such a code, a row that crashes the server): the others must not wait for that one. So the
 * batch is halved from its second time on, and what meets outages alone, again and again, waits longer and longer.
 */
void store_put_back(struct store *store, struct batch *batch)
{
    bool is_first = true;
    for (size_t i = 0; i < batch->count; i++)
        if (batch->jobs[i]->outages++ > 0)
            is_first = false;
    struct job *job = batch->jobs[0];
    bool is_alone = batch->count == 1;
    if (is_first || (is_alone && job->outages <= OUTAGES_BEFORE_WAITING)) {
        store_requeue_batch(store, batch);
    } else if (!is_alone) {
        halve_batch(store, batch);
    } else {
        batch_reset(batch);
        wait_alone(store, job);
    }
}

/* True where everyone else gets on: then it is no outage, whatever the server says. Told once. */
static bool is_refused_alone(struct store *store, const struct batch *batch, const struct job_failure *failure)
{
    struct job *job = batch->jobs[0];
    if (batch->count > 1 || job->outages < OUTAGES_BEFORE_WAITING || !pg_pool_is_up(store->pool))
        return false;
    char id[UUID_TEXT_SIZE];
    uuid_format(job->content.interview_id, id);
    if (!job->told_refused)
        log_warning(LOG_FIELDS(log_text("sqlstate", failure->sqlstate), log_text("error", failure->text)),
                    "the database refuses the message for interview %s again and again, and takes others; it waits",
                    id);
    job->told_refused = true;
    return true;
}

static struct job_failure batch_failure_for_log(const struct batch *batch, const struct job_failure *failure)
{
    struct job_failure shown = *failure;
    for (size_t i = 0; i < batch->count; i++)
        shown = store_failure_for_log(batch->jobs[i], &shown);
    return shown;
}

void store_meet_outage(struct store *store, struct pg_session *session, struct batch *batch,
                       const struct job_failure *failure)
{
    const struct job_failure shown = batch_failure_for_log(batch, failure);
    bool refused_alone = is_refused_alone(store, batch, &shown);
    store_put_back(store, batch);
    if (!refused_alone)
        pg_pool_report_outage(store->pool, session, &shown);
}

/* --- unsettled -------------------------------------------------------------------------------------------------- */

static bool is_unsettled(const struct job *job, int64_t since_us)
{
    return (job->inserted || job->maybe_inserted) && job->unsettled_since_us != 0 && job->unsettled_since_us < since_us;
}

static void give_up_settling(struct store *store, struct job *job)
{
    const struct job_failure failure = {.text = "not settled within settle_timeout_s; the database is away"};
    free(job->failure);
    job->failure = malloc(sizeof failure);
    if (job->failure)
        *job->failure = failure;
    job->outcome = OUTCOME_ORPHANED;
    store->options.on_orphan(store->options.context, job);
    store->options.on_outcome(store->options.context, job);
}

/* The steps in which a prompt may stand there without its interview. A transaction leaves no orphan. */
static bool may_be_orphan(enum job_step step)
{
    return step == JOB_INSERT || step == JOB_CONFIRM || step == JOB_UPDATE || step == JOB_JUDGE || step == JOB_DELETE ||
           step == JOB_PROVE;
}

/* Takes what is unsettled too long out of a queue. Returns how many. */
static size_t give_up_unsettled(struct store *store, struct job_queue *queue, int64_t since_us)
{
    size_t count = 0;
    struct job *job = TAILQ_FIRST(queue);
    while (job) {
        struct job *next = TAILQ_NEXT(job, link);
        if (may_be_orphan(job->step) && is_unsettled(job, since_us)) {
            TAILQ_REMOVE(queue, job, link);
            give_up_settling(store, job);
            count++;
        }
        job = next;
    }
    return count;
}

/* The database is there and refuses just these: an outage can no longer be what it is. */
static void fail_refused(struct store *store, int64_t since_us)
{
    const struct job_failure failure = {.text = "not settled within settle_timeout_s; the database refuses it"};
    struct job *job = TAILQ_FIRST(&store->delayed);
    while (job) {
        struct job *next = TAILQ_NEXT(job, link);
        if (job->told_refused && is_unsettled(job, since_us)) {
            TAILQ_REMOVE(&store->delayed, job, link);
            store_fail_job(store, job, &failure, 0);
        }
        job = next;
    }
    store_kick(store);
}

/* Only what is waiting in a queue: a statement under way has its own deadline. */
void store_on_settle(uv_timer_t *timer)
{
    struct store *store = timer->data;
    if (store->closing)
        return;
    int64_t since_us = clock_monotonic_us() - store->options.tuning.settle_timeout_ms * 1000;
    if (pg_pool_is_up(store->pool)) {
        fail_refused(store, since_us);
        return;
    }
    for (int step = 0; step < JOB_STEP_COUNT; step++)
        store->queued -= give_up_unsettled(store, &store->queues[step], since_us);
    (void)give_up_unsettled(store, &store->delayed, since_us);
}
