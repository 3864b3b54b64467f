/* SPDX-License-Identifier: MIT */
/*
 * A queue for each step, and one rule: an idle session takes a batch from the latest step that has jobs.
 *
 *     take ─▶ [insert] ─▶ [settle] ─▶ outcome       what has begun is finished first
 *                 ▲            │
 *                 │            ▼
 *              [delayed]    [undo] ─▶ [mark] ─▶ outcome
 *
 * No two jobs in here are of the same interview, so batches never wait for each other's rows, on any connection.
 */
#include "promptd/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "store"
#include "promptd/log.h"
#include "promptd/pg_pool.h"
#include "steps.h"
#include "store_private.h"

enum {
    STORE_BATCH_BYTES = 768 * 1024, /* a statement's texts; one job may have more */
    STORE_BATCH_TIMEOUT_MS = 1000   /* of several messages: then each goes alone, with the whole statement_timeout_ms */
};

/* --- queues --------------------------------------------------------------------------------------------------- */

static struct step_queues *queues_of(struct store *store, const struct job *job)
{
    return job->kind == JOB_MESSAGE ? &store->messages : &store->recoveries;
}

void store_queue_last(struct store *store, struct job *job)
{
    struct step_queues *queues = queues_of(store, job);
    TAILQ_INSERT_TAIL(&queues->of[job->step], job, link);
    queues->count++;
}

static void queue_first(struct store *store, struct job *job)
{
    struct step_queues *queues = queues_of(store, job);
    TAILQ_INSERT_HEAD(&queues->of[job->step], job, link);
    queues->count++;
}

static void on_delay(uv_timer_t *timer)
{
    struct store *store = timer->data;
    int64_t now = (int64_t)uv_now(store->options.loop);
    struct job *job;
    while ((job = TAILQ_FIRST(&store->delayed)) && job->due_ms <= now) {
        TAILQ_REMOVE(&store->delayed, job, link);
        store->delayed_count--;
        store_queue_last(store, job);
    }
    if (job)
        (void)uv_timer_start(&store->delay, on_delay, (uint64_t)(job->due_ms - now), 0);
    store_kick(store);
}

void store_queue_delayed(struct store *store, struct job *job, int64_t wait_ms)
{
    uv_update_time(store->options.loop);
    int64_t now = (int64_t)uv_now(store->options.loop);
    job->due_ms = now + wait_ms;
    store->delayed_count++;
    struct job *before = TAILQ_LAST(&store->delayed, job_queue);
    while (before && before->due_ms > job->due_ms)
        before = TAILQ_PREV(before, job_queue, link);
    if (before) {
        TAILQ_INSERT_AFTER(&store->delayed, before, job, link);
        return;
    }
    TAILQ_INSERT_HEAD(&store->delayed, job, link);
    (void)uv_timer_start(&store->delay, on_delay, (uint64_t)wait_ms, 0);
}

/* --- sending -------------------------------------------------------------------------------------------------- */

static void take_jobs(struct store *store)
{
    while (store->taking && store->messages.count < store->options.tuning.batch_max) {
        struct job *job = pipeline_take(store->options.pipeline);
        if (!job)
            return;
        step_start(job, store->options.in_transaction);
        store_queue_last(store, job);
    }
}

/* Recoveries may be many, and each may be refused again: they must not keep messages from their turn. */
static struct step_queues *choose_queues(struct store *store)
{
    bool is_turn = store->messages.count == 0 || !store->recovery_was_last;
    if (store->recoveries.count > 0 && !store->recovery_out && is_turn)
        return &store->recoveries;
    return store->messages.count > 0 ? &store->messages : NULL;
}

/* Moves jobs from the queue of the latest step into the batch, within the limits of the batch and of each job. */
static bool fill_batch(struct store *store, struct batch *batch)
{
    struct step_queues *queues = choose_queues(store);
    if (!queues)
        return false;
    int step = JOB_STEP_COUNT - 1;
    while (TAILQ_EMPTY(&queues->of[step]))
        step--;
    batch->step = (enum job_step)step;
    size_t limit = store->options.tuning.batch_max < batch->capacity ? store->options.tuning.batch_max
                                                                     : batch->capacity;
    size_t bytes = 0;
    struct job *job;
    while ((job = TAILQ_FIRST(&queues->of[step]))) {
        if (job->batch_limit && job->batch_limit < limit)
            limit = job->batch_limit;
        bytes += job->content.prompt_bytes;
        if (batch->count > 0 && (batch->count >= limit || bytes > STORE_BATCH_BYTES))
            break;
        TAILQ_REMOVE(&queues->of[step], job, link);
        queues->count--;
        batch->jobs[batch->count++] = job;
    }
    return true;
}

void store_requeue_batch(struct store *store, struct batch *batch)
{
    for (size_t i = batch->count; i > 0; i--)
        queue_first(store, batch->jobs[i - 1]);
    batch_reset(batch);
}

static void release_batch(struct store_batch *slot)
{
    batch_reset(&slot->batch);
    slot->next_free = slot->store->free_batches;
    slot->store->free_batches = slot;
}

void store_finish_run(struct store_batch *slot)
{
    struct store *store = slot->store;
    if (slot->is_recovery)
        store->recovery_out = false;
    release_batch(slot);
    store->batches_out--;
    store_kick(store);
}

/* Two transactions in one flush ask more of a pooler than it may give. */
static bool may_settle_at_once(const struct batch *batch, const struct pg_session *session)
{
    return batch->step == JOB_INSERT && pg_session_is_direct(session);
}

/* One slow message must not hold up the others of its batch. */
static int64_t timeout_of(const struct store *store, const struct batch *batch)
{
    int64_t timeout_ms = store->options.tuning.pool.statement_timeout_ms;
    return batch->count > 1 && timeout_ms > STORE_BATCH_TIMEOUT_MS ? STORE_BATCH_TIMEOUT_MS : timeout_ms;
}

static void send_batches(struct store *store)
{
    for (;;) {
        struct pg_session *session = pg_pool_idle(store->pool);
        struct store_batch *slot = store->free_batches;
        if (!session || !slot)
            return;
        statements_set_evidence(store->statements, pg_pool_has_evidence(store->pool));
        take_jobs(store);
        bool is_turn = store->messages.count == 0 || !store->recovery_was_last;
        if (is_turn && pg_pool_has_evidence(store->pool) && recovery_start(store->recovery, session)) {
            store->recovery_was_last = true;
            continue;
        }
        struct batch *batch = &slot->batch;
        if (!fill_batch(store, batch))
            return;
        batch->settles = may_settle_at_once(batch, session);
        struct pg_statement statements[PG_STATEMENTS_MAX];
        int count = step_of(batch->step)->build(store->statements, batch, statements);
        if (count == 0) {
            log_error(LOG_FIELDS(log_number("messages", batch->count)), "out of memory for a batch; it waits");
            store_requeue_batch(store, batch);
            (void)uv_timer_start(&store->delay, on_delay, STORE_BACKOFF_BASE_MS, 0);
            return;
        }
        store->free_batches = slot->next_free;
        store->batches_out++;
        slot->is_recovery = batch->jobs[0]->kind != JOB_MESSAGE;
        slot->had_evidence = pg_pool_has_evidence(store->pool);
        store->recovery_out = store->recovery_out || slot->is_recovery;
        store->recovery_was_last = slot->is_recovery;
        pg_session_run(session, statements, count, timeout_of(store, batch), store_on_answer, slot);
    }
}

static void hand_out_unfinished(struct store *store);

static void on_work(uv_check_t *check)
{
    struct store *store = check->data;
    (void)uv_check_stop(&store->work);
    (void)uv_idle_stop(&store->wake);
    if (store->closing)
        hand_out_unfinished(store);
    else
        send_batches(store);
}

static void on_wake(uv_idle_t *idle)
{
    (void)idle;
}

void store_kick(struct store *store)
{
    if (uv_is_active((uv_handle_t *)&store->work) || store->pool_closed)
        return;
    (void)uv_check_start(&store->work, on_work); /* cannot fail: the callback is not NULL */
    (void)uv_idle_start(&store->wake, on_wake);
}

static void on_kick(void *context)
{
    store_kick(context);
}

static void on_pool_up(void *context)
{
    struct store *store = context;
    store->up_since_ms = (int64_t)uv_now(store->options.loop);
    recovery_begin(store->recovery);
    if (store->was_up)
        store->options.metrics->database_reconnections++;
    store->was_up = true;
    pipeline_demand(store->options.pipeline);
}

static bool on_admit(void *context, struct job *job)
{
    struct store *store = context;
    return store->taking && pipeline_admit_recovery(store->options.pipeline, job);
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static void hand_out(struct store *store, struct job_queue *queue)
{
    struct job *job;
    while ((job = TAILQ_FIRST(queue))) {
        TAILQ_REMOVE(queue, job, link);
        pipeline_abandon(store->options.pipeline, job);
    }
}

static void hand_out_all(struct store *store)
{
    for (int step = 0; step < JOB_STEP_COUNT; step++) {
        hand_out(store, &store->messages.of[step]);
        hand_out(store, &store->recoveries.of[step]);
    }
    hand_out(store, &store->delayed);
}

/* As soon as the runs in flight are answered; a dial still under way may take longer, and holds no job. */
static void hand_out_unfinished(struct store *store)
{
    if (store->batches_out > 0)
        return;
    hand_out_all(store);
}

void store_abandon(struct store *store)
{
    for (size_t i = 0; i < store->options.connections; i++) {
        struct batch *batch = &store->batches[i].batch;
        store_note_unanswered(batch);
        store_requeue_batch(store, batch);
    }
    hand_out_all(store);
}

static void free_store(struct store *store)
{
    void (*on_closed)(void *) = store->on_closed;
    void *context = store->closed_context;
    for (size_t i = 0; i < store->options.connections; i++)
        batch_free(&store->batches[i].batch);
    free(store->batches);
    statements_free(store->statements);
    free(store);
    on_closed(context);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct store *store = handle->data;
    if (--store->open_handles == 0 && store->pool_closed)
        free_store(store);
}

static void on_pool_closed(void *context)
{
    struct store *store = context;
    store->pool_closed = true;
    recovery_close(store->recovery);
    hand_out_unfinished(store);
    uv_close((uv_handle_t *)&store->delay, on_handle_closed);
    uv_close((uv_handle_t *)&store->wake, on_handle_closed);
    uv_close((uv_handle_t *)&store->work, on_handle_closed);
}

void store_trim_memory(struct store *store)
{
    for (struct store_batch *slot = store->free_batches; slot; slot = slot->next_free)
        batch_trim_memory(&slot->batch);
}

void store_close(struct store *store, void (*on_closed)(void *context), void *context)
{
    store->on_closed = on_closed;
    store->closed_context = context;
    store->taking = false;
    store->closing = true;
    pg_pool_close(store->pool);
    store_kick(store);
}

static struct recovery_tuning recovery_tuning_of(const struct store_tuning *tuning)
{
    return (struct recovery_tuning){.interval_ms = tuning->reconcile_interval_ms,
                                    .older_than_s = tuning->recover_after_s};
}

void store_set_tuning(struct store *store, const struct store_tuning *tuning)
{
    const struct recovery_tuning recovery = recovery_tuning_of(tuning);
    store->options.tuning = *tuning;
    if (store->pool_closed)
        return;
    pg_pool_set_tuning(store->pool, &tuning->pool);
    recovery_set_tuning(store->recovery, &recovery);
}

bool store_may_be_unsettled(const struct job *job)
{
    return step_may_be_unsettled(job);
}

size_t store_open_orphans(const struct store *store)
{
    return store->pool_closed ? 0 : recovery_open_orphans(store->recovery);
}

size_t store_list_orphans(const struct store *store, struct open_orphan *list, size_t max)
{
    return store->pool_closed ? 0 : recovery_list_orphans(store->recovery, list, max);
}

bool store_is_up(const struct store *store)
{
    return !store->pool_closed && pg_pool_is_up(store->pool);
}

size_t store_connections(const struct store *store)
{
    return store->pool_closed ? 0 : pg_pool_open_count(store->pool);
}

bool store_circuit_is_open(const struct store *store)
{
    return !store->pool_closed && pg_pool_circuit_is_open(store->pool);
}

bool store_close_circuit(struct store *store)
{
    return !store->pool_closed && pg_pool_close_circuit(store->pool);
}

enum { STORE_BATCH_CAPACITY = 10000 }; /* the largest batch_max that the settings allow */

static bool batches_new(struct store *store)
{
    store->batches = calloc(store->options.connections, sizeof *store->batches);
    if (!store->batches)
        return false;
    for (size_t i = 0; i < store->options.connections; i++) {
        store->batches[i].store = store;
        if (!batch_init(&store->batches[i].batch, STORE_BATCH_CAPACITY))
            return false;
        release_batch(&store->batches[i]);
    }
    return true;
}

static void handles_init(struct store *store)
{
    uv_loop_t *loop = store->options.loop;
    (void)uv_timer_init(loop, &store->delay); /* these always return 0 */
    (void)uv_idle_init(loop, &store->wake);
    (void)uv_check_init(loop, &store->work);
    store->delay.data = store;
    store->wake.data = store;
    store->work.data = store;
    store->open_handles = 3;
}

struct store *store_new(const struct store_options *options)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->options = *options;
    store->taking = true;
    for (int step = 0; step < JOB_STEP_COUNT; step++) {
        TAILQ_INIT(&store->messages.of[step]);
        TAILQ_INIT(&store->recoveries.of[step]);
    }
    TAILQ_INIT(&store->delayed);
    handles_init(store);
    store->statements = statements_new(&options->statuses);
    if (!store->statements || !batches_new(store))
        return NULL; /* at start, out of memory: the process ends */
    store->recovery = recovery_new(&(struct recovery_options){
        .loop = options->loop,
        .tuning = recovery_tuning_of(&options->tuning),
        .metrics = options->metrics,
        .admit = on_admit,
        .on_wake = on_kick,
        .context = store,
    });
    if (!store->recovery)
        return NULL;
    store->pool = pg_pool_new(&(struct pg_pool_options){
        .loop = options->loop,
        .database_url = options->database_url,
        .connections = options->connections,
        .backoff_base_ms = STORE_BACKOFF_BASE_MS,
        .source = options->source,
        .tuning = options->tuning.pool,
        .on_idle = on_kick,
        .on_up = on_pool_up,
        .on_closed = on_pool_closed,
        .context = store,
    });
    if (!store->pool)
        return NULL;
    return store;
}
