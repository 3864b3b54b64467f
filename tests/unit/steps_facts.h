/* SPDX-License-Identifier: MIT */
/* What the store may have seen, and what is expected of the step that sees it. */
#ifndef PROMPTD_TESTS_STEPS_FACTS_H
#define PROMPTD_TESTS_STEPS_FACTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "steps.h"

/* What a write returned for the job's row. */
static const struct job_facts hit = {.write = {.held = true, .changed = true}};
static const struct job_facts kept = {.write = {.held = true}};
static const struct job_facts passed = {.write = {.held = false}};

/* The same for an insert whose settle went with it. */
static const struct job_facts both_hit = {
    .write = {.held = true, .changed = true}, .settle = {.held = true, .changed = true}, .settle_ran = true};
static const struct job_facts settle_hit = {
    .write = {.held = true}, .settle = {.held = true, .changed = true}, .settle_ran = true};
static const struct job_facts settle_kept = {
    .write = {.held = true, .changed = true}, .settle = {.held = true}, .settle_ran = true};
static const struct job_facts settle_passed = {.write = {.held = true, .changed = true}, .settle_ran = true};

/* What a look saw: prompt, evidence, interview. */
#define SEEN(prompt, evidence, ...)                                                                                    \
    {                                                                                                                  \
        .prompt_there = prompt, .unsettled = evidence, __VA_ARGS__                                                     \
    }
#define AWAITING .interview_there = true, .is_awaiting = true, .status = "enhancing"
#define READY .interview_there = true, .is_ready = true, .status = "ready"
#define FAILED .interview_there = true, .is_awaiting = true, .is_failed = true, .status = "failed"
#define MOVED_ON .interview_there = true, .status = "in_progress"
#define MISSING .interview_there = false

static const struct job_facts settled_awaiting = SEEN(true, false, AWAITING);
static const struct job_facts settled_ready = SEEN(true, false, READY);
static const struct job_facts settled_moved_on = SEEN(true, false, MOVED_ON);
static const struct job_facts unsettled_awaiting = SEEN(true, true, AWAITING);
static const struct job_facts unsettled_ready = SEEN(true, true, READY);
static const struct job_facts unsettled_failed = SEEN(true, true, FAILED);
static const struct job_facts unsettled_moved_on = SEEN(true, true, MOVED_ON);
static const struct job_facts unsettled_missing = SEEN(true, true, MISSING);
static const struct job_facts evidence_awaiting = SEEN(false, true, AWAITING);
static const struct job_facts evidence_missing = SEEN(false, true, MISSING);
static const struct job_facts absent_awaiting = SEEN(false, false, AWAITING);
static const struct job_facts absent_ready = SEEN(false, false, READY);
static const struct job_facts absent_failed = SEEN(false, false, FAILED);
static const struct job_facts absent_moved_on = SEEN(false, false, MOVED_ON);
static const struct job_facts absent_missing = SEEN(false, false, MISSING);

static const struct pg_error denied = {.sqlstate = "42501", .text = "permission denied"};
static const uint8_t some_id[UUID_SIZE] = {1};

static inline struct task *job_at(enum job_step step)
{
    struct message_content content = {.has_interview_id = true};
    struct task *task = task_of(job_new(sizeof(struct task), &content, 0, 0));
    assert_non_null(task);
    step_start(task, step == JOB_TRANSACT);
    task->step = step;
    return task;
}

static inline enum step_verdict succeed(struct task *task, const struct job_facts *facts)
{
    struct pg_error why = {.text = ""};
    enum step_verdict verdict = step_of(task->step)->succeeded(task, facts, &why);
    if (verdict == STEP_RETRY || verdict == STEP_LOCKED)
        assert_true(why.text[0] != '\0');
    return verdict;
}

static inline void expect_step(struct task *task, enum step_verdict verdict, enum step_verdict expected,
                               enum job_step step)
{
    assert_int_equal(verdict, expected);
    assert_string_equal(step_of(task->step)->name, step_of(step)->name);
}

static inline void expect_next(struct task *task, const struct job_facts *facts, enum job_step step)
{
    expect_step(task, succeed(task, facts), STEP_NEXT, step);
}

static inline void expect_retry(struct task *task, const struct job_facts *facts, enum job_step step)
{
    expect_step(task, succeed(task, facts), STEP_RETRY, step);
}

static inline void expect_locked(struct task *task, const struct job_facts *facts, enum job_step step)
{
    expect_step(task, succeed(task, facts), STEP_LOCKED, step);
}

static inline void expect_end(struct task *task, const struct job_facts *facts, enum outcome outcome)
{
    assert_int_equal(succeed(task, facts), STEP_FINISHED);
    assert_string_equal(outcome_name(task->job.outcome), outcome_name(outcome));
    job_free(&task->job);
}

static inline void expect_failure(struct task *task, int statement, enum job_step step)
{
    expect_step(task, step_of(task->step)->failed(task, &denied, statement), STEP_NEXT, step);
}

/* From here to the end the interview is marked, and is not awaiting any more. */
static inline void expect_marked(struct task *task, enum outcome outcome)
{
    assert_string_equal(step_of(task->step)->name, "mark");
    assert_int_equal(succeed(task, &hit), STEP_FINISHED);
    assert_true(task->job.is_failed);
    assert_string_equal(outcome_name(task->job.outcome), outcome_name(outcome));
    job_free(&task->job);
}

/* To undo, which takes the prompt away. */
static inline void expect_rolled_back(struct task *task)
{
    assert_false(task->job.undone);
    expect_next(task, &hit, JOB_MARK);
    assert_true(task->job.undone);
    expect_marked(task, OUTCOME_ROLLED_BACK);
}

#endif
