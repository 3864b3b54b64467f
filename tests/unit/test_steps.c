/* SPDX-License-Identifier: MIT */
/* The steps' decisions: from each step, what each answer leads to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "steps_facts.h"

static void test_stored(void **state)
{
    (void)state;
    expect_end(job_at(JOB_INSERT), &both_hit, OUTCOME_STORED);
    expect_end(job_at(JOB_INSERT), &settle_hit, OUTCOME_STORED); /* inserted before, by whomever */
    expect_end(job_at(JOB_TRANSACT), &hit, OUTCOME_STORED);

    struct task *task = job_at(JOB_INSERT); /* without the settle in its flush */
    expect_next(task, &hit, JOB_SETTLE);
    expect_end(task, &hit, OUTCOME_STORED);
}

static void test_duplicate(void **state)
{
    (void)state;
    const struct job_facts *const seen[] = {&settled_ready, &settled_moved_on, &settled_awaiting};
    const enum job_step steps[] = {JOB_INSERT, JOB_TRANSACT};
    for (size_t i = 0; i < 6; i++) {
        struct task *task = job_at(steps[i / 3]);
        expect_next(task, &kept, JOB_VERIFY);
        expect_end(task, seen[i % 3], OUTCOME_DUPLICATE);
    }
    struct task *task = job_at(JOB_INSERT); /* inserted here, settled by somebody else */
    expect_next(task, &settle_passed, JOB_VERIFY);
    expect_end(task, &settled_ready, OUTCOME_DUPLICATE);
}

/* Whoever gets no answer to its settle, and finds its own insert settled, counts it. */
static void test_unanswered(void **state)
{
    (void)state;
    struct task *task = job_at(JOB_INSERT);
    step_unanswered(task, true);
    assert_true(step_may_be_unsettled(task));
    expect_next(task, &kept, JOB_VERIFY);
    expect_end(task, &settled_moved_on, OUTCOME_STORED);

    task = job_at(JOB_INSERT); /* its insert alone was sent: the settle was not ours */
    step_unanswered(task, false);
    expect_next(task, &kept, JOB_VERIFY);
    expect_end(task, &settled_ready, OUTCOME_DUPLICATE);

    task = job_at(JOB_SETTLE);
    task->inserted = true;
    step_unanswered(task, false);
    expect_next(task, &passed, JOB_VERIFY);
    expect_end(task, &settled_ready, OUTCOME_STORED);

    task = job_at(JOB_TRANSACT);
    step_unanswered(task, false);
    assert_false(step_may_be_unsettled(task));
    expect_next(task, &kept, JOB_VERIFY);
    expect_end(task, &settled_moved_on, OUTCOME_STORED);
}

static void test_conflict_with_an_unsettled_prompt(void **state)
{
    (void)state;
    struct task *task = job_at(JOB_INSERT);
    expect_next(task, &kept, JOB_VERIFY);
    expect_next(task, &unsettled_awaiting, JOB_SETTLE);
    expect_end(task, &hit, OUTCOME_STORED);

    task = job_at(JOB_TRANSACT); /* left by one that compensates */
    expect_next(task, &kept, JOB_VERIFY);
    expect_next(task, &unsettled_ready, JOB_SETTLE);
    expect_end(task, &hit, OUTCOME_STORED);

    task = job_at(JOB_INSERT);
    expect_next(task, &kept, JOB_VERIFY);
    expect_next(task, &unsettled_moved_on, JOB_UNDO);
    expect_rolled_back(task);
}

static void test_late(void **state)
{
    (void)state;
    const struct job_facts *const seen[] = {&unsettled_moved_on, &unsettled_missing};
    for (int i = 0; i < 2; i++) {
        struct task *task = job_at(JOB_INSERT);
        expect_next(task, &settle_passed, JOB_VERIFY);
        expect_next(task, seen[i], JOB_UNDO);
        assert_non_null(task->job.failure);
        expect_rolled_back(task);
    }
    struct task *task = job_at(JOB_TRANSACT);
    expect_next(task, &passed, JOB_VERIFY);
    expect_next(task, &absent_moved_on, JOB_MARK);
    expect_next(task, &passed, JOB_VERIFY);
    expect_end(task, &absent_moved_on, OUTCOME_ROLLED_BACK);
}

static void test_locked(void **state)
{
    (void)state;
    struct task *task = job_at(JOB_INSERT);
    expect_next(task, &passed, JOB_VERIFY);
    expect_locked(task, &absent_awaiting, JOB_INSERT);
    expect_next(task, &settle_passed, JOB_VERIFY);
    expect_locked(task, &unsettled_awaiting, JOB_SETTLE);
    expect_next(task, &passed, JOB_VERIFY);
    expect_locked(task, &unsettled_failed, JOB_SETTLE); /* for a message, failed may become ready */
    expect_failure(task, 0, JOB_UNDO);                  /* out of patience */
    expect_next(task, &passed, JOB_VERIFY);
    expect_locked(task, &unsettled_awaiting, JOB_UNDO);
    expect_rolled_back(task);

    task = job_at(JOB_TRANSACT);
    expect_next(task, &passed, JOB_VERIFY);
    expect_locked(task, &absent_ready, JOB_TRANSACT);
    expect_failure(task, 0, JOB_MARK);
    expect_next(task, &passed, JOB_VERIFY);
    expect_locked(task, &absent_awaiting, JOB_MARK);
    expect_marked(task, OUTCOME_NOT_STORED);
}

/* Something has the rows and keeps them as they are: a trigger, a policy. */
static void test_suppressed(void **state)
{
    (void)state;
    struct task *task = job_at(JOB_INSERT);
    expect_next(task, &kept, JOB_VERIFY);
    expect_retry(task, &absent_awaiting, JOB_INSERT);
    expect_failure(task, 0, JOB_MARK);
    expect_marked(task, OUTCOME_NOT_STORED);

    task = job_at(JOB_INSERT);
    expect_next(task, &settle_kept, JOB_VERIFY);
    expect_retry(task, &unsettled_awaiting, JOB_SETTLE);
    expect_failure(task, 0, JOB_UNDO);
    expect_next(task, &kept, JOB_VERIFY);
    expect_retry(task, &unsettled_awaiting, JOB_UNDO);
    expect_failure(task, 0, JOB_MARK);
    assert_int_equal(task->job.outcome, OUTCOME_ORPHANED);
    expect_next(task, &kept, JOB_VERIFY);
    expect_retry(task, &unsettled_awaiting, JOB_MARK);
    assert_int_equal(step_of(task->step)->failed(task, &denied, 0), STEP_FINISHED);
    assert_true(task->job.stuck);
    assert_string_equal(task->job.mark_failure->sqlstate, "42501");
    job_free(&task->job);

    task = job_at(JOB_TRANSACT);
    const struct pg_error suppressed = {
        .sqlstate = "22P02",
        .text =
            "invalid input syntax for type boolean: \"the interview was not made ready: a trigger or a rule keeps it, "
            "in status enhancing\""};
    assert_true(statements_is_suppressed(suppressed.sqlstate, suppressed.text));
    assert_false(statements_is_suppressed("22P02", "invalid input syntax for type boolean: \"maybe\""));
    expect_step(task, step_of(task->step)->failed(task, &suppressed, 1), STEP_NEXT, JOB_MARK);
    expect_marked(task, OUTCOME_ROLLED_BACK);
}

static void test_failures(void **state)
{
    (void)state;
    struct task *task = job_at(JOB_INSERT);
    expect_failure(task, 0, JOB_MARK);
    expect_marked(task, OUTCOME_NOT_STORED);

    task = job_at(JOB_SETTLE);
    expect_failure(task, 0, JOB_UNDO);
    expect_rolled_back(task);

    task = job_at(JOB_TRANSACT);
    expect_failure(task, 0, JOB_MARK);
    expect_marked(task, OUTCOME_NOT_STORED);

    task = job_at(JOB_TRANSACT);
    expect_failure(task, 1, JOB_MARK);
    assert_string_equal(task->job.failure->text, "permission denied");
    expect_marked(task, OUTCOME_ROLLED_BACK);

    task = job_at(JOB_UNDO); /* why it is left behind matters more than why it had to go */
    task->job.failure = calloc(1, sizeof *task->job.failure);
    expect_failure(task, 0, JOB_MARK);
    assert_string_equal(task->job.failure->text, "permission denied");
    expect_marked(task, OUTCOME_ORPHANED);
}

/* An attempt fails, and an earlier one, whose answer never came, has inserted the prompt. */
/* An earlier process may have stored it. */
static void test_failures_of_what_was_redelivered(void **state)
{
    (void)state;
    static const enum job_step steps[] = {JOB_INSERT, JOB_TRANSACT};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct task *task = job_at(steps[i]);
        task->job.redelivered = true;
        expect_failure(task, 0, JOB_VERIFY);
        expect_end(task, &settled_moved_on, OUTCOME_DUPLICATE);

        task = job_at(steps[i]);
        task->job.redelivered = true;
        expect_failure(task, 0, JOB_VERIFY);
        expect_next(task, &absent_awaiting, JOB_MARK);
        expect_marked(task, OUTCOME_NOT_STORED);
    }
}

static void test_failures_after_a_lost_answer(void **state)
{
    (void)state;
    struct task *task = job_at(JOB_INSERT);
    step_unanswered(task, true);
    expect_failure(task, 0, JOB_VERIFY);
    expect_end(task, &settled_ready, OUTCOME_STORED);

    task = job_at(JOB_INSERT);
    step_unanswered(task, true);
    expect_failure(task, 0, JOB_VERIFY);
    expect_next(task, &unsettled_awaiting, JOB_SETTLE);
    expect_end(task, &hit, OUTCOME_STORED);

    task = job_at(JOB_INSERT);
    step_unanswered(task, true);
    expect_failure(task, 0, JOB_VERIFY);
    expect_next(task, &absent_awaiting, JOB_MARK);
    expect_marked(task, OUTCOME_NOT_STORED);

    task = job_at(JOB_INSERT); /* nor can it be verified */
    step_unanswered(task, true);
    expect_failure(task, 0, JOB_VERIFY);
    expect_failure(task, 0, JOB_UNDO);
    expect_rolled_back(task);

    task = job_at(JOB_TRANSACT);
    step_unanswered(task, false);
    expect_failure(task, 0, JOB_VERIFY);
    expect_failure(task, 0, JOB_MARK);
    expect_marked(task, OUTCOME_NOT_STORED);
}

static void test_gone(void **state)
{
    (void)state;
    const enum job_step steps[] = {JOB_INSERT, JOB_TRANSACT};
    for (int i = 0; i < 2; i++) { /* no such interview */
        struct task *task = job_at(steps[i]);
        expect_next(task, &passed, JOB_VERIFY);
        expect_next(task, &absent_missing, JOB_MARK);
        expect_next(task, &passed, JOB_VERIFY);
        expect_end(task, &absent_missing, OUTCOME_NOT_STORED);
    }
    struct task *task = job_at(
        JOB_SETTLE); /* somebody has deleted the prompt; or it was another promptd's, and undone */
    expect_next(task, &passed, JOB_VERIFY);
    expect_next(task, &absent_awaiting, JOB_INSERT);
    expect_end(task, &both_hit, OUTCOME_STORED);

    task = job_at(JOB_SETTLE); /* again and again, and the evidence is left over */
    expect_next(task, &passed, JOB_VERIFY);
    for (int i = 0; i < 2; i++) {
        expect_next(task, &evidence_awaiting, JOB_INSERT);
        expect_next(task, &settle_kept, JOB_VERIFY);
    }
    expect_next(task, &evidence_awaiting, JOB_UNDO);
    expect_rolled_back(task);

    task = job_at(JOB_INSERT); /* the server has lost it in a crash, as often as it likes */
    for (int i = 0; i < 5; i++) {
        task->inserted = true;
        task->step = JOB_SETTLE;
        step_unanswered(task, false);
        expect_next(task, &passed, JOB_VERIFY);
        expect_next(task, &absent_awaiting, JOB_INSERT);
    }
    expect_next(task, &passed, JOB_VERIFY); /* and then another one has inserted and settled it */
    expect_end(task, &settled_ready, OUTCOME_DUPLICATE);

    task = job_at(JOB_SETTLE); /* and its interview is gone, too */
    expect_next(task, &passed, JOB_VERIFY);
    expect_next(task, &evidence_missing, JOB_UNDO);
    expect_rolled_back(task);

    task = job_at(JOB_UNDO); /* somebody else was faster */
    task->job.outcome = OUTCOME_ROLLED_BACK;
    expect_next(task, &passed, JOB_VERIFY);
    expect_next(task, &absent_awaiting, JOB_MARK);
    expect_marked(task, OUTCOME_ROLLED_BACK);

    task = job_at(JOB_UNDO); /* somebody else has settled it */
    task->job.outcome = OUTCOME_ROLLED_BACK;
    expect_next(task, &passed, JOB_VERIFY);
    expect_end(task, &settled_ready, OUTCOME_DUPLICATE);
}

static void test_rejected(void **state)
{
    (void)state;
    struct message_content content = {.reject = REJECT_PROMPT_TOO_LONG, .has_interview_id = true};
    struct task *task = task_of(job_new(sizeof(struct task), &content, 0, 0));
    step_start(task, false);
    expect_marked(task, OUTCOME_REJECTED);

    const struct {
        const struct job_facts *seen;
        enum job_step next;
    } earlier[] = {{&unsettled_awaiting, JOB_SETTLE}, {&unsettled_moved_on, JOB_UNDO}, {&absent_awaiting, JOB_MARK}};
    for (int i = 0; i < 3; i++) { /* taken in before a restart, when it was no fault yet */
        content = (struct message_content){.reject = REJECT_PROMPT_TOO_LONG, .has_interview_id = true};
        task = task_of(job_new(sizeof(struct task), &content, 0, 0));
        task->job.may_have_prompt = true;
        step_start(task, false);
        assert_string_equal(step_of(task->step)->name, "verify");
        expect_next(task, earlier[i].seen, earlier[i].next);
        if (earlier[i].next == JOB_SETTLE)
            expect_end(task, &hit, OUTCOME_STORED);
        else if (earlier[i].next == JOB_UNDO)
            expect_rolled_back(task);
        else
            expect_marked(task, OUTCOME_REJECTED);
    }
}

static struct task *recovery(void)
{
    struct task *task = task_of(job_new_recovery(sizeof(struct task), some_id, some_id));
    assert_non_null(task);
    step_start(task, true);
    assert_string_equal(step_of(task->step)->name, "recover");
    return task;
}

static void test_recovery(void **state)
{
    (void)state;
    expect_end(recovery(), &hit, OUTCOME_STORED);

    const struct job_facts *const over[] = {&unsettled_failed, &unsettled_moved_on, &unsettled_missing};
    for (int i = 0; i < 3; i++) { /* what was told as failed does not become ready behind anyone's back */
        struct task *task = recovery();
        expect_next(task, &passed, JOB_VERIFY);
        expect_next(task, over[i], JOB_UNDO);
        expect_rolled_back(task);
    }
    const struct job_facts *const locked[] = {&unsettled_awaiting, &unsettled_ready};
    for (int i = 0; i < 2; i++) {
        struct task *task = recovery();
        expect_next(task, &passed, JOB_VERIFY);
        expect_locked(task, locked[i], JOB_RECOVER);
        job_free(&task->job);
    }
    struct task *task = recovery(); /* its prompt was deleted by somebody */
    expect_next(task, &passed, JOB_VERIFY);
    expect_next(task, &evidence_awaiting, JOB_UNDO);
    expect_rolled_back(task);

    task = recovery(); /* somebody else was faster */
    expect_next(task, &passed, JOB_VERIFY);
    expect_end(task, &absent_awaiting, OUTCOME_NONE);

    task = recovery();
    expect_next(task, &passed, JOB_VERIFY);
    expect_end(task, &settled_ready, OUTCOME_DUPLICATE);

    task = recovery();
    expect_failure(task, 0, JOB_UNDO);
    expect_failure(task, 0, JOB_MARK);
    expect_marked(task, OUTCOME_ORPHANED);
    assert_false(step_may_be_unsettled(&(struct task){.job.kind = JOB_RECOVERY, .step = JOB_SETTLE}));
}

static void test_marking(void **state)
{
    (void)state;
    struct task *task = task_of(job_new_marking(sizeof(struct task), some_id));
    step_start(task, false);
    expect_end(task, &hit, OUTCOME_NONE);

    task = task_of(job_new_marking(sizeof(struct task), some_id));
    step_start(task, false);
    expect_next(task, &passed, JOB_VERIFY);
    assert_int_equal(succeed(task, &absent_failed), STEP_FINISHED);
    assert_true(task->job.is_failed); /* from before, or by a mark whose answer never came */
    job_free(&task->job);

    const struct job_facts *const not_failed[] = {&absent_moved_on, &absent_missing, &absent_ready};
    for (size_t i = 0; i < sizeof not_failed / sizeof not_failed[0]; i++) {
        task = task_of(job_new_marking(sizeof(struct task), some_id));
        step_start(task, false);
        expect_next(task, &kept, JOB_VERIFY);
        assert_int_equal(succeed(task, not_failed[i]), STEP_FINISHED);
        assert_false(task->job.is_failed);
        job_free(&task->job);
    }
}

static void test_given_up(void **state)
{
    (void)state;
    const struct {
        enum job_step step;
        bool unsettled;
    } steps[] = {{JOB_INSERT, false}, {JOB_TRANSACT, false}, {JOB_SETTLE, true}, {JOB_UNDO, true}, {JOB_MARK, false}};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct task *task = job_at(steps[i].step);
        assert_int_equal(step_may_be_unsettled(task), steps[i].unsettled);
        task->verifies = task->step;
        task->step = JOB_VERIFY;
        assert_int_equal(step_may_be_unsettled(task), steps[i].unsettled);
        job_free(&task->job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_duplicate),
        cmocka_unit_test(test_unanswered),
        cmocka_unit_test(test_conflict_with_an_unsettled_prompt),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_suppressed),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_failures_of_what_was_redelivered),
        cmocka_unit_test(test_failures_after_a_lost_answer),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_rejected),
        cmocka_unit_test(test_recovery),
        cmocka_unit_test(test_marking),
        cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
