/* SPDX-License-Identifier: MIT */
/* Queues in the order of arrival, and one in the order of time. */
#include "step_queues.h"

#include <stdlib.h>

enum { BATCH_BYTES_MAX = 768 * 1024 }; /* a statement's texts; one job may have more */

static void init_queue(struct step_queue *queue)
{
    for (int step = 0; step < JOB_STEP_COUNT; step++)
        TAILQ_INIT(&queue->of[step]);
}

struct step_queues *step_queues_new(uv_loop_t *loop, void (*on_due)(void *context), void *context)
{
    struct step_queues *queues = calloc(1, sizeof *queues);
    if (!queues)
        return NULL;
    init_queue(&queues->messages);
    init_queue(&queues->recoveries);
    TAILQ_INIT(&queues->later);
    queues->on_due = on_due;
    queues->context = context;
    (void)uv_timer_init(loop, &queues->timer); /* always 0 */
    queues->timer.data = queues;
    return queues;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void step_queues_close(struct step_queues *queues)
{
    uv_close((uv_handle_t *)&queues->timer, on_closed);
}

static struct step_queue *queue_of(struct step_queues *queues, const struct job *job)
{
    return job->kind == JOB_MESSAGE ? &queues->messages : &queues->recoveries;
}

void step_queues_add(struct step_queues *queues, struct task *task)
{
    struct step_queue *queue = queue_of(queues, &task->job);
    TAILQ_INSERT_TAIL(&queue->of[task->step], &task->job, link);
    queue->count++;
}

void step_queues_put_back(struct step_queues *queues, struct batch *batch)
{
    for (size_t i = batch->count; i > 0; i--) {
        struct job *job = batch->jobs[i - 1];
        struct step_queue *queue = queue_of(queues, job);
        TAILQ_INSERT_HEAD(&queue->of[task_of(job)->step], job, link);
        queue->count++;
    }
    batch_reset(batch);
}

/* --- later ------------------------------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer)
{
    struct step_queues *queues = timer->data;
    int64_t now_ms = (int64_t)uv_now(timer->loop);
    struct job *job;
    while ((job = TAILQ_FIRST(&queues->later)) && task_of(job)->due_ms <= now_ms) {
        TAILQ_REMOVE(&queues->later, job, link);
        queues->later_count--;
        step_queues_add(queues, task_of(job));
    }
    if (job)
        step_queues_look_again(queues, task_of(job)->due_ms - now_ms);
    queues->on_due(queues->context);
}

void step_queues_look_again(struct step_queues *queues, int64_t wait_ms)
{
    bool comes_sooner = uv_is_active((const uv_handle_t *)&queues->timer) &&
                        uv_timer_get_due_in(&queues->timer) <= (uint64_t)wait_ms;
    if (!comes_sooner)
        (void)uv_timer_start(&queues->timer, on_timer, (uint64_t)wait_ms, 0);
}

void step_queues_add_later(struct step_queues *queues, struct task *task, int64_t wait_ms)
{
    struct job *job = &task->job;
    uv_update_time(queues->timer.loop);
    task->due_ms = (int64_t)uv_now(queues->timer.loop) + wait_ms;
    queues->later_count++;
    struct job *before = TAILQ_LAST(&queues->later, job_queue);
    while (before && task_of(before)->due_ms > task->due_ms)
        before = TAILQ_PREV(before, job_queue, link);
    if (before) {
        TAILQ_INSERT_AFTER(&queues->later, before, job, link);
        return;
    }
    TAILQ_INSERT_HEAD(&queues->later, job, link);
    step_queues_look_again(queues, wait_ms);
}

/* --- out of them ------------------------------------------------------------------------------------------------ */

/* What has begun is finished first. But for the recovery an undo comes last: orphans are undone and refused again in
 * each round, and what can be settled must not wait for the last of them. */
static enum job_step first_step(const struct step_queue *queue, bool is_recovery)
{
    static const enum job_step orders[][JOB_STEP_COUNT] = {
        {JOB_VERIFY, JOB_MARK, JOB_UNDO, JOB_RECOVER, JOB_SETTLE, JOB_TRANSACT, JOB_INSERT},
        {JOB_VERIFY, JOB_MARK, JOB_RECOVER, JOB_SETTLE, JOB_TRANSACT, JOB_INSERT, JOB_UNDO},
    };
    const enum job_step *step = orders[is_recovery];
    while (TAILQ_EMPTY(&queue->of[*step]))
        step++;
    return *step;
}

enum job_step step_queues_take(struct step_queues *queues, struct step_queue *queue, struct batch *batch, size_t max)
{
    enum job_step step = first_step(queue, queue == &queues->recoveries);
    size_t limit = max < batch->capacity ? max : batch->capacity;
    size_t bytes = 0;
    struct job *job;
    while ((job = TAILQ_FIRST(&queue->of[step]))) {
        unsigned own_limit = task_of(job)->batch_limit;
        if (own_limit && own_limit < limit)
            limit = own_limit;
        bytes += job->content.prompt_bytes;
        if (batch->count > 0 && (batch->count >= limit || bytes > BATCH_BYTES_MAX))
            break;
        TAILQ_REMOVE(&queue->of[step], job, link);
        queue->count--;
        batch->jobs[batch->count++] = job;
    }
    return step;
}

static struct job *pop(struct job_queue *queue, size_t *count)
{
    struct job *job = TAILQ_FIRST(queue);
    if (!job)
        return NULL;
    TAILQ_REMOVE(queue, job, link);
    --*count;
    return job;
}

struct job *step_queues_pop(struct step_queues *queues)
{
    struct job *job = NULL;
    for (int step = 0; step < JOB_STEP_COUNT && !job; step++) {
        job = pop(&queues->messages.of[step], &queues->messages.count);
        if (!job)
            job = pop(&queues->recoveries.of[step], &queues->recoveries.count);
    }
    return job ? job : pop(&queues->later, &queues->later_count);
}
