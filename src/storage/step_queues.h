/* SPDX-License-Identifier: MIT */
/*
 * What waits in the store: a queue for each step, and the jobs that come back later.
 *
 *     add ─▶ [insert] [settle] [undo] [mark] … ─▶ take: from the first step in line that has jobs
 *               ▲
 *            [later]
 *
 * What is no message has queues of its own.
 */
#ifndef PROMPTD_STEP_QUEUES_H
#define PROMPTD_STEP_QUEUES_H

#include <uv.h>

#include "steps.h"

struct step_queue {
    struct job_queue of[JOB_STEP_COUNT];
    size_t count; /* in all of them */
};

struct step_queues {
    uv_timer_t timer;
    struct step_queue messages;
    struct step_queue recoveries;
    struct job_queue later; /* by due time */
    size_t later_count;
    void (*on_due)(void *context);
    void *context;
};

/* on_due: some have come back, or step_queues_look_again was asked to. NULL when out of memory. */
struct step_queues *step_queues_new(uv_loop_t *loop, void (*on_due)(void *context), void *context);
void step_queues_close(struct step_queues *queues); /* frees them in the loop; nothing is called back any more */

void step_queues_add(struct step_queues *queues, struct task *task);
void step_queues_add_later(struct step_queues *queues, struct task *task, int64_t wait_ms);
void step_queues_look_again(struct step_queues *queues, int64_t wait_ms);

/* Fills the batch from `queue`, one of the two and not empty: with jobs of the step that is first in line, which is
 * returned, at most `max`, and as many as each of them allows. */
enum job_step step_queues_take(struct step_queues *queues, struct step_queue *queue, struct batch *batch, size_t max);
/* All of the batch, to the head of the queues, in the same order. */
void step_queues_put_back(struct step_queues *queues, struct batch *batch);

/* Any job, as long as there is one; for the end. */
struct job *step_queues_pop(struct step_queues *queues);

#endif
