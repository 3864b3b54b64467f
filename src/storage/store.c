/* SPDX-License-Identifier: MIT */
/*
 * A queue for each step, and one rule: an idle session takes a batch from the latest step that has jobs. (Of the
 * recovery's an undo comes last.)
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
#include "answers.h"
#include "promptd/log.h"
#include "promptd/pg_pool.h"

enum {
    STORE_BATCH_TIMEOUT_MS = 1000 /* of several messages: then each goes alone, with the whole statement_timeout_ms */
};

/* A batch of the store's, on its way or free. */
struct slot {
    struct run run; /* the first: a run's slot has its address */
    struct store *store;
    struct slot *next_free;
    bool is_recovery; /* its jobs are no messages */
};

struct store {
    struct store_options options;
    void (*on_closed)(void *context);
    void *closed_context;
    struct statements *statements;
    struct pg_pool *pool;
    struct recovery *recovery;
    struct step_queues *queues;
    struct answers answers;
    struct slot *slots; /* one a connection */
    struct slot *free_slots;
    size_t slots_out;       /* sent, not answered */
    bool recovery_out;      /* one of them is no messages: one at a time, in turn with those of messages */
    bool recovery_was_last; /* the last that was sent was one, or a page of promptd_unsettled */
    uv_idle_t work;         /* runs before the loop waits again */
    bool pool_closed;       /* and freed */
    bool was_up;            /* at least once */
    bool closing;
};

static void kick(void *context);

/* --- sending -------------------------------------------------------------------------------------------------- */

static void take_jobs(struct store *store)
{
    while (store->queues->messages.count < store->options.tuning.batch_max) {
        struct job *job = pipeline_take(store->options.pipeline);
        if (!job)
            return;
        step_start(task_of(job), store->options.in_transaction);
        step_queues_add(store->queues, task_of(job));
    }
}

/* Recoveries may be many, and each may be refused again: they must not keep messages from their turn. */
static struct step_queue *choose_queue(struct store *store)
{
    struct step_queues *queues = store->queues;
    bool is_turn = queues->messages.count == 0 || !store->recovery_was_last;
    if (queues->recoveries.count > 0 && !store->recovery_out && is_turn)
        return &queues->recoveries;
    return queues->messages.count > 0 ? &queues->messages : NULL;
}

static void release_slot(struct slot *slot)
{
    batch_reset(&slot->run.batch);
    slot->next_free = slot->store->free_slots;
    slot->store->free_slots = slot;
}

static void on_run_over(struct run *run)
{
    struct slot *slot = (struct slot *)run;
    struct store *store = slot->store;
    if (slot->is_recovery)
        store->recovery_out = false;
    release_slot(slot);
    store->slots_out--;
    kick(store);
}

/* Two transactions in one flush ask more of a pooler than it may give. */
static bool may_settle_at_once(enum job_step step, const struct pg_session *session)
{
    return step == JOB_INSERT && pg_session_is_direct(session);
}

/* One slow message must not hold up the others of its batch. */
static int64_t timeout_of(const struct store *store, const struct batch *batch)
{
    int64_t timeout_ms = store->options.tuning.pool.statement_timeout_ms;
    return batch->count > 1 && timeout_ms > STORE_BATCH_TIMEOUT_MS ? STORE_BATCH_TIMEOUT_MS : timeout_ms;
}

/* false when out of memory: then the jobs wait. */
static bool send_batch(struct store *store, struct step_queue *queue, struct pg_session *session)
{
    struct slot *slot = store->free_slots;
    struct run *run = &slot->run;
    struct batch *batch = &run->batch;
    run->step = step_queues_take(store->queues, queue, batch, store->options.tuning.batch_max);
    batch->settles = may_settle_at_once(run->step, session);
    batch->has_evidence = pg_pool_has_evidence(store->pool);
    struct pg_statement statements[PG_STATEMENTS_MAX];
    int count = step_of(run->step)->build(store->statements, batch, statements);
    if (count == 0) {
        log_error(LOG_FIELDS(log_number("messages", batch->count)), "out of memory for a batch; it waits");
        step_queues_put_back(store->queues, batch);
        return false;
    }
    store->free_slots = slot->next_free;
    store->slots_out++;
    slot->is_recovery = batch->jobs[0]->kind != JOB_MESSAGE;
    store->recovery_out = store->recovery_out || slot->is_recovery;
    store->recovery_was_last = slot->is_recovery;
    pg_session_run(session, statements, count, timeout_of(store, batch), run_answered, run);
    return true;
}

static void send_batches(struct store *store)
{
    for (;;) {
        struct pg_session *session = pg_pool_idle(store->pool);
        if (!session || !store->free_slots)
            return;
        take_jobs(store);
        bool is_turn = store->queues->messages.count == 0 || !store->recovery_was_last;
        if (is_turn && pg_pool_has_evidence(store->pool) && recovery_start(store->recovery, session)) {
            store->recovery_was_last = true;
            continue;
        }
        struct step_queue *queue = choose_queue(store);
        if (!queue)
            return;
        if (!send_batch(store, queue, session)) {
            step_queues_look_again(store->queues, STORE_BACKOFF_BASE_MS);
            return;
        }
    }
}

static void hand_out_unfinished(struct store *store);

static void on_work(uv_idle_t *work)
{
    struct store *store = work->data;
    (void)uv_idle_stop(work);
    if (store->closing)
        hand_out_unfinished(store);
    else
        send_batches(store);
}

/* Sends what can be sent, soon, from the loop. */
static void kick(void *context)
{
    struct store *store = context;
    if (!store->pool_closed)
        (void)uv_idle_start(&store->work, on_work); /* cannot fail: the callback is not NULL */
}

void store_kick(struct store *store)
{
    kick(store);
}

static void on_pool_up(void *context)
{
    struct store *store = context;
    store->answers.up_since_ms = (int64_t)uv_now(store->options.loop);
    recovery_begin(store->recovery);
    if (store->was_up)
        store->options.metrics->database_reconnections++;
    store->was_up = true;
    pipeline_demand(store->options.pipeline);
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static void hand_out_all(struct store *store)
{
    struct job *job;
    while ((job = step_queues_pop(store->queues)))
        pipeline_abandon(store->options.pipeline, job);
}

/* As soon as the runs in flight are answered; a dial still under way may take longer, and holds no job. */
static void hand_out_unfinished(struct store *store)
{
    if (store->slots_out == 0)
        hand_out_all(store);
}

void store_abandon(struct store *store)
{
    for (size_t i = 0; i < store->options.connections; i++) {
        struct run *run = &store->slots[i].run;
        run_note_unanswered(run);
        step_queues_put_back(store->queues, &run->batch);
    }
    hand_out_all(store);
}

static void on_work_closed(uv_handle_t *work)
{
    struct store *store = work->data;
    void (*on_closed)(void *) = store->on_closed;
    void *context = store->closed_context;
    for (size_t i = 0; i < store->options.connections; i++)
        batch_free(&store->slots[i].run.batch);
    free(store->slots);
    statements_free(store->statements);
    free(store);
    on_closed(context);
}

static void on_pool_closed(void *context)
{
    struct store *store = context;
    store->pool_closed = true;
    recovery_close(store->recovery);
    hand_out_unfinished(store);
    step_queues_close(store->queues);
    uv_close((uv_handle_t *)&store->work, on_work_closed);
}

void store_trim_memory(struct store *store)
{
    for (struct slot *slot = store->free_slots; slot; slot = slot->next_free)
        batch_trim_memory(&slot->run.batch);
}

void store_close(struct store *store, void (*on_closed)(void *context), void *context)
{
    store->on_closed = on_closed;
    store->closed_context = context;
    store->closing = true;
    pg_pool_close(store->pool);
    kick(store);
}

void store_set_tuning(struct store *store, const struct store_tuning *tuning)
{
    bool other_interval = tuning->reconcile_interval_ms != store->options.tuning.reconcile_interval_ms;
    store->options.tuning = *tuning;
    pg_pool_set_tuning(store->pool, &tuning->pool);
    if (other_interval)
        recovery_interval_changed(store->recovery);
}

size_t store_job_size(void)
{
    return sizeof(struct task);
}

bool store_may_be_unsettled(const struct job *job)
{
    return step_may_be_unsettled((const struct task *)job);
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

static bool slots_new(struct store *store)
{
    store->slots = calloc(store->options.connections, sizeof *store->slots);
    if (!store->slots)
        return false;
    for (size_t i = 0; i < store->options.connections; i++) {
        struct slot *slot = &store->slots[i];
        slot->store = store;
        slot->run.answers = &store->answers;
        slot->run.on_over = on_run_over;
        if (!batch_init(&slot->run.batch, STORE_BATCH_CAPACITY))
            return false;
        release_slot(slot);
    }
    return true;
}

struct store *store_new(const struct store_options *options)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->options = *options;
    (void)uv_idle_init(options->loop, &store->work); /* always 0 */
    store->work.data = store;
    store->statements = statements_new(&options->statuses);
    store->queues = step_queues_new(options->loop, kick, store);
    store->recovery = recovery_new(&store->options, kick, store);
    if (!store->statements || !store->queues || !store->recovery || !slots_new(store))
        return NULL; /* at start, out of memory: the process ends */
    store->pool = pg_pool_new(&(struct pg_pool_options){
        .loop = options->loop,
        .database_url = options->database_url,
        .connections = options->connections,
        .source = options->source,
        .tuning = options->tuning.pool,
        .on_idle = kick,
        .on_up = on_pool_up,
        .on_closed = on_pool_closed,
        .context = store,
    });
    if (!store->pool)
        return NULL;
    store->answers = (struct answers){.options = &store->options,
                                      .statements = store->statements,
                                      .pool = store->pool,
                                      .recovery = store->recovery,
                                      .queues = store->queues};
    return store;
}
