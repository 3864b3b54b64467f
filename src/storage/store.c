/* SPDX-License-Identifier: MIT */
/*
 * A queue for each step, and one rule: an idle session takes a batch from the latest step that has jobs.
 *
 *     take ─▶ [insert] ─▶ [update] ─▶ outcome       what has begun is finished first
 *                 ▲            │
 *                 │            ▼
 *              [delayed]    [delete] ─▶ [mark] ─▶ outcome
 *
 * No two jobs in here are of the same interview, so batches never wait for each other's rows, on any connection.
 */
#include "promptd/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "store"
#include "promptd/backoff.h"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/pg_pool.h"
#include "promptd/sqlstate.h"
#include "reconciler.h"
#include "store_private.h"
#include "store_steps.h"

enum {
    STORE_SETTLE_LOOK_MS = 1000,
    STORE_BATCH_BYTES = 768 * 1024, /* a statement's texts; one job may have more */
    STORE_QUOTE_CHARACTERS = 12     /* so many characters of a prompt in an error keep it out of the log */
};

static void on_answer(void *context, struct pg_session *session, const struct pg_answer *answer);

/* --- queues --------------------------------------------------------------------------------------------------- */

void store_queue_last(struct store *store, struct job *job)
{
    TAILQ_INSERT_TAIL(&store->queues[job->step], job, link);
    store->queued++;
}

static void queue_first(struct store *store, struct job *job)
{
    TAILQ_INSERT_HEAD(&store->queues[job->step], job, link);
    store->queued++;
}

static void on_delay(uv_timer_t *timer)
{
    struct store *store = timer->data;
    int64_t now = (int64_t)uv_now(store->options.loop);
    struct job *job;
    while ((job = TAILQ_FIRST(&store->delayed)) && job->due_ms <= now) {
        TAILQ_REMOVE(&store->delayed, job, link);
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
    while (store->taking && store->queued < store->options.tuning.batch_max) {
        struct job *job = store->options.take(store->options.context);
        if (!job)
            return;
        job->step = step_first(job, store->options.in_transaction);
        if (job->step == JOB_MARK)
            job->outcome = OUTCOME_REJECTED;
        store_queue_last(store, job);
    }
}

/* Moves jobs from the queue of the latest step into the batch, within the limits of the batch and of each job. */
static bool fill_batch(struct store *store, struct batch *batch)
{
    int step = JOB_STEP_COUNT - 1;
    while (step >= 0 && TAILQ_EMPTY(&store->queues[step]))
        step--;
    if (step < 0)
        return false;
    batch->step = (enum job_step)step;
    size_t limit = store->options.tuning.batch_max < batch->capacity ? store->options.tuning.batch_max
                                                                     : batch->capacity;
    size_t bytes = 0;
    struct job *job;
    while ((job = TAILQ_FIRST(&store->queues[step]))) {
        if (job->batch_limit && job->batch_limit < limit)
            limit = job->batch_limit;
        bytes += job->content.prompt_bytes;
        if (batch->count > 0 && (batch->count >= limit || bytes > STORE_BATCH_BYTES))
            break;
        TAILQ_REMOVE(&store->queues[step], job, link);
        store->queued--;
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

static bool is_insert(enum job_step step)
{
    return step == JOB_INSERT || step == JOB_TRANSACT;
}

/* From the first insert on, the database being away is not only waiting: there may be a prompt without its interview.
 */
static void note_insert(struct batch *batch)
{
    int64_t now_us = clock_monotonic_us();
    for (size_t i = 0; i < batch->count && is_insert(batch->step); i++)
        if (batch->jobs[i]->unsettled_since_us == 0)
            batch->jobs[i]->unsettled_since_us = now_us;
}

/* Two transactions in one run ask more of a pooler than it may give. */
static bool is_lone(const struct batch *batch, const struct pg_session *session)
{
    return batch->step == JOB_INSERT && batch->count == 1 && pg_session_is_direct(session);
}

static void send_batches(struct store *store)
{
    for (;;) {
        struct pg_session *session = pg_pool_idle(store->pool);
        struct store_batch *slot = store->free_batches;
        if (!session || !slot)
            return;
        if (reconciler_start(store->reconciler, session))
            continue;
        take_jobs(store);
        if (!fill_batch(store, &slot->batch))
            return;
        slot->batch.is_lone = is_lone(&slot->batch, session);
        struct pg_statement statements[PG_STATEMENTS_MAX];
        int count = statements_build(store->statements, &slot->batch, statements);
        if (count == 0) {
            log_error(LOG_FIELDS(log_number("messages", slot->batch.count)), "out of memory for a batch; it waits");
            store_requeue_batch(store, &slot->batch);
            (void)uv_timer_start(&store->delay, on_delay, STORE_BACKOFF_BASE_MS, 0);
            return;
        }
        store->free_batches = slot->next_free;
        store->batches_out++;
        note_insert(&slot->batch);
        pg_session_run(session, statements, count, on_answer, slot);
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

/* --- answers -------------------------------------------------------------------------------------------------- */

struct job_failure store_failure_for_log(const struct job *job, const struct job_failure *failure)
{
    struct job_failure shown = *failure;
    const struct message_content *content = &job->content;
    if (job->is_cleanup && failure->sqlstate[0])
        (void)snprintf(shown.text, sizeof shown.text, "(withheld: it may quote the prompt)");
    if (content->prompt && text_quotes(failure->text, content->prompt, content->prompt_bytes, STORE_QUOTE_CHARACTERS))
        (void)snprintf(shown.text, sizeof shown.text, "(withheld: it quotes the prompt)");
    return shown;
}

static void report_setup(struct store *store, const struct job_failure *failure)
{
    if (strcmp(store->setup_reported, failure->sqlstate) == 0)
        return;
    memcpy(store->setup_reported, failure->sqlstate, SQLSTATE_SIZE);
    log_critical(LOG_FIELDS(log_text("sqlstate", failure->sqlstate), log_text("error", failure->text)),
                 "the database refuses a statement because of its set-up; every message like this one will fail");
}

static void dispatch(struct store *store, struct job *job, enum step_verdict verdict)
{
    if (verdict == STEP_DONE) {
        if (job->outcome == OUTCOME_STORED)
            store->setup_reported[0] = '\0';
        store->options.on_outcome(store->options.context, job);
        return;
    }
    job->batch_limit = 0;
    job->outages = 0;
    job->told_refused = false;
    store_queue_last(store, job);
}

/* A failure of the job's own that may go away: a later attempt, or the end of its attempts. */
static void retry_job(struct store *store, struct job *job, const struct job_failure *failure, int failed_statement)
{
    if (++job->attempts >= store->options.tuning.retry_attempts) {
        store_fail_job(store, job, failure, failed_statement);
        return;
    }
    struct backoff backoff = {.base_ms = store->options.tuning.retry_base_ms,
                              .max_ms = store->options.tuning.retry_max_ms,
                              .failures = job->attempts - 1};
    int64_t wait_ms = backoff_fail(&backoff, backoff_chance());
    store->options.metrics->retries++;
    if (log_wants(LOG_LEVEL_DEBUG)) {
        const struct job_failure shown = store_failure_for_log(job, failure);
        char id[UUID_TEXT_SIZE];
        uuid_format(job->content.interview_id, id);
        bool is_lone_update = job->step == JOB_INSERT && failed_statement == 1;
        log_debug(LOG_FIELDS(log_text("step", job_step_name(is_lone_update ? JOB_UPDATE : job->step)),
                             log_number("attempt", job->attempts), log_number("wait_ms", wait_ms),
                             log_text("sqlstate", shown.sqlstate), log_text("error", shown.text)),
                  "transient failure for interview %s", id);
    }
    store_queue_delayed(store, job, wait_ms);
}

void store_fail_job(struct store *store, struct job *job, const struct job_failure *failure, int failed_statement)
{
    const struct job_failure shown = store_failure_for_log(job, failure);
    if (sqlstate_judge(shown.sqlstate) == SQLSTATE_SETUP)
        report_setup(store, &shown);
    bool orphaned;
    enum step_verdict verdict = step_failed(job, &shown, failed_statement, &orphaned);
    if (orphaned)
        store->options.on_orphan(store->options.context, job);
    dispatch(store, job, verdict);
}

static void apply_success(struct store *store, struct batch *batch)
{
    log_hold();
    for (size_t i = 0; i < batch->count; i++) {
        struct job *job = batch->jobs[i];
        struct job_failure why;
        enum step_verdict verdict = step_succeeded(job, &batch->facts[i], &why);
        if (verdict == STEP_AGAIN)
            retry_job(store, job, &why, 0);
        else
            dispatch(store, job, verdict);
    }
    log_release();
}

/* Nobody's fault yet: the batch goes again, in halves. Alone, a job answers for itself. */
static void apply_failure(struct store *store, struct batch *batch, const struct pg_answer *answer)
{
    if (batch->count > 1) {
        unsigned limit = (unsigned)(batch->count + 1) / 2;
        for (size_t i = 0; i < batch->count; i++)
            batch->jobs[i]->batch_limit = limit;
        log_debug(LOG_FIELDS(log_text("step", job_step_name(batch->step)), log_number("messages", batch->count),
                             log_text("sqlstate", answer->failure.sqlstate)),
                  "batch failed; sent again in halves");
        store_requeue_batch(store, batch);
        return;
    }
    struct job *job = batch->jobs[0];
    if (sqlstate_judge(answer->failure.sqlstate) == SQLSTATE_TRANSIENT)
        retry_job(store, job, &answer->failure, answer->failed_statement);
    else
        store_fail_job(store, job, &answer->failure, answer->failed_statement);
}

/* A lone message of which not all went well. What did, counts, and may be all that it takes: then true. */
static bool is_stored_all_the_same(struct store *store, struct batch *batch, const struct pg_answer *answer)
{
    if (!batch->is_lone || !statements_read(store->statements, batch, answer))
        return false;
    if (batch->facts[0].moved) {
        apply_success(store, batch);
        return true;
    }
    struct job *job = batch->jobs[0];
    job->inserted = job->inserted || (batch->facts[0].changed && answer->status == PG_FAILED);
    job->batch_limit = 1;
    return false;
}

/* A lone insert has found the prompt there: whatever comes of it now, the row is not ours for it. */
static bool found_conflict(const struct batch *batch, const struct pg_answer *answer)
{
    return batch->is_lone && pg_answer_is_committed(answer, 0) && !batch->facts[0].changed;
}

/* The inserts may have been committed. */
static void note_doubt(struct batch *batch)
{
    for (size_t i = 0; i < batch->count && is_insert(batch->step); i++)
        batch->jobs[i]->maybe_inserted = true;
}

static bool is_write(enum job_step step)
{
    return step == JOB_INSERT || step == JOB_UPDATE || step == JOB_TRANSACT || step == JOB_DELETE || step == JOB_MARK;
}

static void on_answer(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    struct store_batch *slot = context;
    struct store *store = slot->store;
    struct batch *batch = &slot->batch;
    if (batch->count == 0) {
        /* store_abandon was faster: its jobs are gone */
    } else if (answer->status == PG_OK && statements_read(store->statements, batch, answer)) {
        if (is_write(batch->step))
            pg_pool_report_write(store->pool);
        apply_success(store, batch);
    } else if (answer->status == PG_OK) {
        pg_session_drop(session, "an answer did not have the expected form");
        note_doubt(batch);
        store_requeue_batch(store, batch);
    } else if (is_stored_all_the_same(store, batch, answer)) {
        pg_pool_report_write(store->pool);
    } else if (answer->status == PG_LOST) {
        if (!found_conflict(batch, answer))
            note_doubt(batch);
        store_put_back(store, batch);
    } else if (sqlstate_judge(answer->failure.sqlstate) == SQLSTATE_OUTAGE) {
        store_meet_outage(store, session, batch, &answer->failure);
    } else {
        apply_failure(store, batch, answer);
    }
    release_batch(slot);
    store->batches_out--;
    store_kick(store);
}

static void on_kick(void *context)
{
    store_kick(context);
}

static void on_pool_up(void *context)
{
    struct store *store = context;
    reconciler_run(store->reconciler);
    store->options.on_up(store->options.context);
}

static void on_orphan_found(void *context, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE])
{
    struct store *store = context;
    store->options.metrics->orphans_found++;
    store->options.on_found(store->options.context, interview_id, prompt_id);
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static void hand_out(struct store *store, struct job_queue *queue)
{
    struct job *job;
    while ((job = TAILQ_FIRST(queue))) {
        TAILQ_REMOVE(queue, job, link);
        store->unfinished(store->options.context, job);
    }
}

/* As soon as the runs in flight are answered; a dial still under way may take longer, and holds no job. */
static void hand_out_unfinished(struct store *store)
{
    if (store->batches_out > 0)
        return;
    for (int step = 0; step < JOB_STEP_COUNT; step++)
        hand_out(store, &store->queues[step]);
    hand_out(store, &store->delayed);
}

void store_abandon(struct store *store)
{
    for (size_t i = 0; i < store->options.connections; i++) {
        struct batch *batch = &store->batches[i].batch;
        note_doubt(batch);
        store_requeue_batch(store, batch);
    }
    for (int step = 0; step < JOB_STEP_COUNT; step++)
        hand_out(store, &store->queues[step]);
    hand_out(store, &store->delayed);
}

static void free_store(struct store *store)
{
    void (*on_closed)(void *) = store->options.on_closed;
    void *context = store->options.context;
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
    reconciler_close(store->reconciler);
    hand_out_unfinished(store);
    uv_close((uv_handle_t *)&store->delay, on_handle_closed);
    uv_close((uv_handle_t *)&store->settle, on_handle_closed);
    uv_close((uv_handle_t *)&store->wake, on_handle_closed);
    uv_close((uv_handle_t *)&store->work, on_handle_closed);
}

void store_give_back(struct store *store)
{
    for (struct store_batch *slot = store->free_batches; slot; slot = slot->next_free)
        batch_give_back(&slot->batch);
}

void store_stop_taking(struct store *store)
{
    store->taking = false;
}

void store_close(struct store *store, void (*unfinished)(void *context, struct job *job))
{
    store->unfinished = unfinished;
    store->taking = false;
    store->closing = true;
    pg_pool_close(store->pool);
    store_kick(store);
}

void store_set_tuning(struct store *store, const struct store_tuning *tuning)
{
    store->options.tuning = *tuning;
    if (store->pool_closed)
        return;
    pg_pool_set_tuning(store->pool, &tuning->pool);
    reconciler_set_interval(store->reconciler, tuning->reconcile_interval_ms);
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
    (void)uv_timer_init(loop, &store->settle);
    (void)uv_idle_init(loop, &store->wake);
    (void)uv_check_init(loop, &store->work);
    store->delay.data = store;
    store->settle.data = store;
    store->wake.data = store;
    store->work.data = store;
    store->open_handles = 4;
    (void)uv_timer_start(&store->settle, store_on_settle, STORE_SETTLE_LOOK_MS, STORE_SETTLE_LOOK_MS);
}

struct store *store_new(const struct store_options *options)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->options = *options;
    store->taking = true;
    for (int step = 0; step < JOB_STEP_COUNT; step++)
        TAILQ_INIT(&store->queues[step]);
    TAILQ_INIT(&store->delayed);
    handles_init(store);
    store->statements = statements_new(&options->statuses);
    if (!store->statements || !batches_new(store))
        return NULL; /* at start, out of memory: the process ends */
    store->pool = pg_pool_new(&(struct pg_pool_options){
        .loop = options->loop,
        .database_url = options->database_url,
        .connections = options->connections,
        .backoff_base_ms = STORE_BACKOFF_BASE_MS,
        .tuning = options->tuning.pool,
        .on_idle = on_kick,
        .on_up = on_pool_up,
        .on_closed = on_pool_closed,
        .context = store,
    });
    if (!store->pool)
        return NULL;
    store->reconciler = reconciler_new(&(struct reconciler_options){
        .loop = options->loop,
        .statements = store->statements,
        .interval_ms = options->tuning.reconcile_interval_ms,
        .on_found = on_orphan_found,
        .on_wake = on_kick,
        .context = store,
    });
    return store->reconciler ? store : NULL;
}
