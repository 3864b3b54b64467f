/* SPDX-License-Identifier: MIT */
/* The store's decisions: from each step, what each answer leads to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store_steps.h"

/* Facts, from what a statement returned or a look saw. */
static const struct job_facts hit = {.changed = true};
static const struct job_facts miss = {.changed = false};
static const struct job_facts absent_missing = {.prompt_there = false};
static const struct job_facts there_ready = {.prompt_there = true, .interview_there = true, .is_ready = true};
static const struct job_facts there_awaiting = {.prompt_there = true, .interview_there = true, .is_awaiting = true};
static const struct job_facts there_other = {.prompt_there = true, .interview_there = true, .status = "completed"};
static const struct job_facts absent_awaiting = {.interview_there = true, .is_awaiting = true};
static const struct job_facts absent_ready = {.interview_there = true, .is_ready = true};
static const struct job_facts absent_other = {.interview_there = true, .status = "completed"};
static const struct job_facts seen_failed = {.interview_there = true, .is_awaiting = true, .is_failed = true};
static const struct job_facts transacted = {.changed = true, .inserted = true};

/* Of a lone message, whose update has run as well. */
static const struct job_facts both_hit = {.changed = true, .update_ran = true, .moved = true};
static const struct job_facts insert_hit = {.changed = true, .update_ran = true};
static const struct job_facts update_hit = {.update_ran = true, .moved = true};
static const struct job_facts both_miss = {.update_ran = true};

static const struct job_failure denied = {.sqlstate = "42501", .text = "permission denied"};

static struct job *job_at(enum job_step step)
{
    struct message_content content = {.has_interview_id = true};
    struct job *job = job_new(&content, 0, 0);
    assert_non_null(job);
    job->step = step;
    return job;
}

static void expect_on(struct job *job, const struct job_facts *facts, enum job_step next)
{
    struct job_failure why;
    assert_int_equal(step_succeeded(job, facts, &why), STEP_ON);
    assert_string_equal(job_step_name(job->step), job_step_name(next));
}

static void expect_done(struct job *job, const struct job_facts *facts, enum outcome outcome)
{
    struct job_failure why;
    assert_int_equal(step_succeeded(job, facts, &why), STEP_DONE);
    assert_string_equal(outcome_name(job->outcome), outcome_name(outcome));
    job_free(job);
}

static void expect_again(struct job *job, const struct job_facts *facts, enum job_step step)
{
    struct job_failure why;
    assert_int_equal(step_succeeded(job, facts, &why), STEP_AGAIN);
    assert_string_equal(job_step_name(job->step), job_step_name(step));
    assert_true(why.text[0] != '\0');
}

static void expect_fail(struct job *job, int statement, enum job_step next)
{
    bool orphaned;
    assert_int_equal(step_failed(job, &denied, statement, &orphaned), STEP_ON);
    assert_string_equal(job_step_name(job->step), job_step_name(next));
    assert_int_equal(orphaned, job->outcome == OUTCOME_ORPHANED);
}

static void test_stored(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    expect_on(job, &hit, JOB_UPDATE);
    assert_true(job->inserted);
    expect_done(job, &hit, OUTCOME_STORED);

    job = job_at(JOB_INSERT); /* a second prompt for a ready interview */
    expect_on(job, &hit, JOB_UPDATE);
    expect_on(job, &miss, JOB_JUDGE);
    expect_done(job, &there_ready, OUTCOME_STORED);

    job = job_at(JOB_INSERT); /* there from before, but the interview had not moved yet */
    expect_on(job, &miss, JOB_CONFIRM);
    expect_on(job, &there_awaiting, JOB_UPDATE);
    expect_done(job, &hit, OUTCOME_STORED);

    expect_done(job_at(JOB_TRANSACT), &transacted, OUTCOME_STORED);
    job = job_at(JOB_TRANSACT);
    expect_on(job, &hit, JOB_SETTLE);
    expect_done(job, &there_ready, OUTCOME_STORED);
}

static void test_duplicate(void **state)
{
    (void)state;
    const struct job_facts *statuses[] = {&there_ready, &there_other};
    for (int i = 0; i < 2; i++) {
        struct job *job = job_at(JOB_INSERT);
        expect_on(job, &miss, JOB_CONFIRM);
        expect_on(job, statuses[i], JOB_UPDATE);
        expect_on(job, &miss, JOB_JUDGE);
        expect_done(job, statuses[i], OUTCOME_DUPLICATE);

        job = job_at(JOB_TRANSACT);
        expect_on(job, &miss, JOB_SETTLE);
        expect_done(job, statuses[i], OUTCOME_DUPLICATE);
    }
}

static void test_lone(void **state)
{
    (void)state;
    expect_done(job_at(JOB_INSERT), &both_hit, OUTCOME_STORED);
    expect_done(job_at(JOB_INSERT), &update_hit, OUTCOME_STORED); /* there from before, or from an attempt of ours */

    struct job *job = job_at(JOB_INSERT); /* a second prompt for a ready interview */
    expect_on(job, &insert_hit, JOB_JUDGE);
    expect_done(job, &there_ready, OUTCOME_STORED);

    job = job_at(JOB_INSERT); /* late */
    expect_on(job, &insert_hit, JOB_JUDGE);
    expect_on(job, &there_other, JOB_DELETE);
    expect_on(job, &hit, JOB_MARK);
    expect_on(job, &miss, JOB_WITNESS);
    expect_done(job, &absent_other, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_INSERT);
    expect_on(job, &both_miss, JOB_CONFIRM);
    expect_on(job, &there_ready, JOB_UPDATE);
    expect_on(job, &miss, JOB_JUDGE);
    expect_done(job, &there_ready, OUTCOME_DUPLICATE);

    job = job_at(JOB_INSERT); /* inserted, but its update failed: both go again, and fail for good */
    job->inserted = true;
    expect_fail(job, 1, JOB_DELETE);
    expect_on(job, &miss, JOB_PROVE); /* the delete's answer was lost, and it went again */
    expect_on(job, &absent_awaiting, JOB_MARK);
    expect_done(job, &hit, OUTCOME_ROLLED_BACK);
}

static void test_vanished(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT); /* the server crashed before the insert was on disk: that is no failure */
    expect_on(job, &insert_hit, JOB_JUDGE);
    expect_on(job, &absent_awaiting, JOB_INSERT);
    assert_false(job->inserted);
    assert_int_equal(job->attempts, 0);
    expect_done(job, &both_hit, OUTCOME_STORED);

    job = job_at(JOB_INSERT); /* the same when it was found once */
    job->inserted = true;
    expect_on(job, &both_miss, JOB_CONFIRM);
    expect_again(job, &absent_awaiting, JOB_INSERT);
    assert_false(job->inserted);
    job_free(job);

    job = job_at(JOB_INSERT); /* another promptd's, which has rolled it back meanwhile */
    expect_on(job, &both_miss, JOB_CONFIRM);
    expect_on(job, &there_awaiting, JOB_UPDATE);
    expect_on(job, &miss, JOB_JUDGE);
    expect_on(job, &absent_ready, JOB_INSERT);
    job_free(job);

    job = job_at(JOB_INSERT); /* somebody deletes it, again and again */
    expect_on(job, &insert_hit, JOB_JUDGE);
    expect_on(job, &absent_awaiting, JOB_INSERT);
    expect_on(job, &insert_hit, JOB_JUDGE);
    expect_on(job, &absent_awaiting, JOB_DELETE);
    expect_on(job, &miss, JOB_PROVE);
    expect_on(job, &absent_awaiting, JOB_MARK);
    expect_done(job, &hit, OUTCOME_ROLLED_BACK);
}

static void test_lost_answer_makes_it_ours(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    job->maybe_inserted = true;
    expect_on(job, &miss, JOB_CONFIRM);
    expect_on(job, &there_awaiting, JOB_UPDATE);
    assert_true(job->inserted);
    expect_on(job, &miss, JOB_JUDGE);
    expect_on(job, &there_other, JOB_DELETE);
    expect_on(job, &hit, JOB_MARK);
    expect_on(job, &miss, JOB_WITNESS);
    expect_done(job, &absent_other, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_TRANSACT);
    job->maybe_inserted = true;
    expect_on(job, &miss, JOB_SETTLE);
    expect_done(job, &there_ready, OUTCOME_STORED);

    job = job_at(JOB_INSERT); /* in doubt, and now the insert fails for good: look before leaving */
    job->maybe_inserted = true;
    expect_fail(job, 0, JOB_DELETE);
    expect_on(job, &hit, JOB_MARK);
    expect_done(job, &hit, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_INSERT);
    job->maybe_inserted = true;
    expect_fail(job, 0, JOB_DELETE);
    expect_on(job, &miss, JOB_PROVE);
    expect_on(job, &absent_awaiting, JOB_MARK);
    expect_done(job, &hit, OUTCOME_NOT_STORED);
}

static void test_not_stored(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    expect_fail(job, 0, JOB_MARK);
    assert_string_equal(job->failure->sqlstate, "42501");
    expect_done(job, &hit, OUTCOME_NOT_STORED);

    job = job_at(JOB_CONFIRM); /* a trigger keeps the row out */
    expect_again(job, &absent_awaiting, JOB_INSERT);
    job_free(job);

    job = job_at(JOB_UPDATE); /* the prompt is somebody else's: it stays */
    expect_fail(job, 0, JOB_MARK);
    expect_done(job, &hit, OUTCOME_NOT_STORED);

    job = job_at(JOB_TRANSACT);
    expect_fail(job, 1, JOB_MARK);
    expect_done(job, &hit, OUTCOME_NOT_STORED);
    job = job_at(JOB_TRANSACT);
    expect_fail(job, 2, JOB_MARK); /* the commit */
    expect_done(job, &hit, OUTCOME_NOT_STORED);
    job = job_at(JOB_SETTLE);
    expect_on(job, &absent_missing, JOB_MARK);
    expect_on(job, &miss, JOB_WITNESS);
    expect_done(job, &absent_missing, OUTCOME_NOT_STORED);
}

static void test_rolled_back(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_UPDATE);
    job->inserted = true;
    expect_fail(job, 0, JOB_DELETE);
    expect_on(job, &hit, JOB_MARK);
    expect_done(job, &hit, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_JUDGE);
    job->inserted = true;
    expect_on(job, &there_other, JOB_DELETE);
    assert_non_null(strstr(job->failure->text, "completed"));
    expect_on(job, &miss, JOB_PROVE);
    expect_on(job, &absent_other, JOB_MARK);
    expect_on(job, &miss, JOB_WITNESS);
    expect_done(job, &absent_other, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_TRANSACT);
    expect_fail(job, 0, JOB_MARK);
    expect_done(job, &hit, OUTCOME_ROLLED_BACK);
    job = job_at(JOB_SETTLE);
    expect_on(job, &absent_other, JOB_MARK);
    expect_on(job, &miss, JOB_WITNESS);
    expect_done(job, &absent_other, OUTCOME_ROLLED_BACK);
}

static void test_orphaned(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_DELETE);
    job->inserted = true;
    job->outcome = OUTCOME_ROLLED_BACK;
    expect_fail(job, 0, JOB_MARK);
    assert_string_equal(job->failure->sqlstate, "42501");
    expect_done(job, &hit, OUTCOME_ORPHANED);

    job = job_at(JOB_PROVE); /* row security hides it from the delete */
    expect_again(job, &there_awaiting, JOB_DELETE);
    expect_fail(job, 0, JOB_MARK);
    expect_done(job, &hit, OUTCOME_ORPHANED);
}

static void test_ready_interview_keeps_its_prompt(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_DELETE);
    job->inserted = true;
    job->outcome = OUTCOME_ROLLED_BACK;
    expect_on(job, &miss, JOB_PROVE);
    expect_done(job, &there_ready, OUTCOME_STORED);
}

static void test_ready_without_prompt_is_taken_back(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_TRANSACT);
    expect_on(job, &hit, JOB_SETTLE);
    expect_on(job, &absent_ready, JOB_UNREADY);
    expect_on(job, &hit, JOB_MARK);
    expect_on(job, &miss, JOB_WITNESS);
    expect_done(job, &seen_failed, OUTCOME_NOT_STORED);
}

static void test_suppressed_update_is_tried_again(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_JUDGE);
    job->inserted = true;
    expect_again(job, &there_awaiting, JOB_UPDATE);
    expect_fail(job, 0, JOB_DELETE);
    job_free(job);
    job = job_at(JOB_SETTLE);
    expect_again(job, &absent_awaiting, JOB_TRANSACT);
    job_free(job);
}

static void test_stuck(void **state)
{
    (void)state;
    bool orphaned;
    struct job *job = job_at(JOB_MARK);
    job->outcome = OUTCOME_REJECTED;
    assert_int_equal(step_failed(job, &denied, 0, &orphaned), STEP_DONE);
    assert_true(job->stuck);
    assert_int_equal(job->outcome, OUTCOME_REJECTED);
    assert_string_equal(job->mark_failure->sqlstate, "42501");
    job_free(job);

    job = job_at(JOB_WITNESS); /* seen awaiting although it was marked: a trigger keeps it so */
    job->outcome = OUTCOME_REJECTED;
    expect_again(job, &absent_awaiting, JOB_MARK);
    job_free(job);

    job = job_at(JOB_WITNESS);
    job->outcome = OUTCOME_REJECTED;
    expect_done(job, &seen_failed, OUTCOME_REJECTED);
}

static void test_attempts_are_counted_per_step(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    job->attempts = 2;
    expect_on(job, &miss, JOB_CONFIRM); /* a look belongs to its step */
    assert_int_equal(job->attempts, 2);
    expect_on(job, &there_awaiting, JOB_UPDATE);
    assert_int_equal(job->attempts, 0);
    job_free(job);
}

static void test_first_step(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    assert_int_equal(step_first(job, false), JOB_INSERT);
    assert_int_equal(step_first(job, true), JOB_TRANSACT);
    job->content.reject = REJECT_NOT_OBJECT;
    assert_int_equal(step_first(job, true), JOB_MARK);
    job_free(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_duplicate),
        cmocka_unit_test(test_lone),
        cmocka_unit_test(test_vanished),
        cmocka_unit_test(test_lost_answer_makes_it_ours),
        cmocka_unit_test(test_not_stored),
        cmocka_unit_test(test_rolled_back),
        cmocka_unit_test(test_orphaned),
        cmocka_unit_test(test_ready_interview_keeps_its_prompt),
        cmocka_unit_test(test_ready_without_prompt_is_taken_back),
        cmocka_unit_test(test_suppressed_update_is_tried_again),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_attempts_are_counted_per_step),
        cmocka_unit_test(test_first_step),
    };
    return cmocka_run_group_tests_name("store_steps", tests, NULL, NULL);
}
