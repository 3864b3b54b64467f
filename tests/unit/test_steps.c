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

static struct job *job_at(enum job_step step)
{
    struct message_content content = {.has_interview_id = true};
    struct job *job = job_new(&content, 0, 0);
    assert_non_null(job);
    step_start(job, step == JOB_TRANSACT);
    job->step = step;
    return job;
}

static enum step_verdict succeed(struct job *job, const struct job_facts *facts)
{
    struct pg_error why = {.text = ""};
    enum step_verdict verdict = step_of(job->step)->succeeded(job, facts, &why);
    if (verdict == STEP_RETRY || verdict == STEP_LOCKED)
        assert_true(why.text[0] != '\0');
    return verdict;
}

static void expect_step(struct job *job, enum step_verdict verdict, enum step_verdict expected, enum job_step step)
{
    assert_int_equal(verdict, expected);
    assert_string_equal(step_of(job->step)->name, step_of(step)->name);
}

static void expect_next(struct job *job, const struct job_facts *facts, enum job_step step)
{
    expect_step(job, succeed(job, facts), STEP_NEXT, step);
}

static void expect_retry(struct job *job, const struct job_facts *facts, enum job_step step)
{
    expect_step(job, succeed(job, facts), STEP_RETRY, step);
}

static void expect_locked(struct job *job, const struct job_facts *facts, enum job_step step)
{
    expect_step(job, succeed(job, facts), STEP_LOCKED, step);
}

static void expect_end(struct job *job, const struct job_facts *facts, enum outcome outcome)
{
    assert_int_equal(succeed(job, facts), STEP_FINISHED);
    assert_string_equal(outcome_name(job->outcome), outcome_name(outcome));
    job_free(job);
}

static void expect_failure(struct job *job, int statement, enum job_step step)
{
    expect_step(job, step_of(job->step)->failed(job, &denied, statement), STEP_NEXT, step);
}

/* From here to the end the interview is marked, and is not awaiting any more. */
static void expect_marked(struct job *job, enum outcome outcome)
{
    assert_string_equal(step_of(job->step)->name, "mark");
    assert_int_equal(succeed(job, &hit), STEP_FINISHED);
    assert_true(job->is_failed);
    assert_string_equal(outcome_name(job->outcome), outcome_name(outcome));
    job_free(job);
}

/* To undo, which takes the prompt away. */
static void expect_rolled_back(struct job *job)
{
    assert_false(job->undone);
    expect_next(job, &hit, JOB_MARK);
    assert_true(job->undone);
    expect_marked(job, OUTCOME_ROLLED_BACK);
}

static void test_stored(void **state)
{
    (void)state;
    expect_end(job_at(JOB_INSERT), &both_hit, OUTCOME_STORED);
    expect_end(job_at(JOB_INSERT), &settle_hit, OUTCOME_STORED); /* inserted before, by whomever */
    expect_end(job_at(JOB_TRANSACT), &hit, OUTCOME_STORED);

    struct job *job = job_at(JOB_INSERT); /* without the settle in its flush */
    expect_next(job, &hit, JOB_SETTLE);
    expect_end(job, &hit, OUTCOME_STORED);
}

static void test_duplicate(void **state)
{
    (void)state;
    const struct job_facts *const seen[] = {&settled_ready, &settled_moved_on, &settled_awaiting};
    const enum job_step steps[] = {JOB_INSERT, JOB_TRANSACT};
    for (size_t i = 0; i < 6; i++) {
        struct job *job = job_at(steps[i / 3]);
        expect_next(job, &kept, JOB_VERIFY);
        expect_end(job, seen[i % 3], OUTCOME_DUPLICATE);
    }
    struct job *job = job_at(JOB_INSERT); /* inserted here, settled by somebody else */
    expect_next(job, &settle_passed, JOB_VERIFY);
    expect_end(job, &settled_ready, OUTCOME_DUPLICATE);
}

/* Whoever gets no answer to its settle, and finds its own insert settled, counts it. */
static void test_unanswered(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    step_unanswered(job, true);
    assert_true(step_may_be_unsettled(job));
    expect_next(job, &kept, JOB_VERIFY);
    expect_end(job, &settled_moved_on, OUTCOME_STORED);

    job = job_at(JOB_INSERT); /* its insert alone was sent: the settle was not ours */
    step_unanswered(job, false);
    expect_next(job, &kept, JOB_VERIFY);
    expect_end(job, &settled_ready, OUTCOME_DUPLICATE);

    job = job_at(JOB_SETTLE);
    job->inserted = true;
    step_unanswered(job, false);
    expect_next(job, &passed, JOB_VERIFY);
    expect_end(job, &settled_ready, OUTCOME_STORED);

    job = job_at(JOB_TRANSACT);
    step_unanswered(job, false);
    assert_false(step_may_be_unsettled(job));
    expect_next(job, &kept, JOB_VERIFY);
    expect_end(job, &settled_moved_on, OUTCOME_STORED);
}

static void test_conflict_with_an_unsettled_prompt(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    expect_next(job, &kept, JOB_VERIFY);
    expect_next(job, &unsettled_awaiting, JOB_SETTLE);
    expect_end(job, &hit, OUTCOME_STORED);

    job = job_at(JOB_TRANSACT); /* left by one that compensates */
    expect_next(job, &kept, JOB_VERIFY);
    expect_next(job, &unsettled_ready, JOB_SETTLE);
    expect_end(job, &hit, OUTCOME_STORED);

    job = job_at(JOB_INSERT);
    expect_next(job, &kept, JOB_VERIFY);
    expect_next(job, &unsettled_moved_on, JOB_UNDO);
    expect_rolled_back(job);
}

static void test_late(void **state)
{
    (void)state;
    const struct job_facts *const seen[] = {&unsettled_moved_on, &unsettled_missing};
    for (int i = 0; i < 2; i++) {
        struct job *job = job_at(JOB_INSERT);
        expect_next(job, &settle_passed, JOB_VERIFY);
        expect_next(job, seen[i], JOB_UNDO);
        assert_non_null(job->failure);
        expect_rolled_back(job);
    }
    struct job *job = job_at(JOB_TRANSACT);
    expect_next(job, &passed, JOB_VERIFY);
    expect_next(job, &absent_moved_on, JOB_MARK);
    expect_next(job, &passed, JOB_VERIFY);
    expect_end(job, &absent_moved_on, OUTCOME_ROLLED_BACK);
}

static void test_locked(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    expect_next(job, &passed, JOB_VERIFY);
    expect_locked(job, &absent_awaiting, JOB_INSERT);
    expect_next(job, &settle_passed, JOB_VERIFY);
    expect_locked(job, &unsettled_awaiting, JOB_SETTLE);
    expect_next(job, &passed, JOB_VERIFY);
    expect_locked(job, &unsettled_failed, JOB_SETTLE); /* for a message, failed may become ready */
    expect_failure(job, 0, JOB_UNDO);                  /* out of patience */
    expect_next(job, &passed, JOB_VERIFY);
    expect_locked(job, &unsettled_awaiting, JOB_UNDO);
    expect_rolled_back(job);

    job = job_at(JOB_TRANSACT);
    expect_next(job, &passed, JOB_VERIFY);
    expect_locked(job, &absent_ready, JOB_TRANSACT);
    expect_failure(job, 0, JOB_MARK);
    expect_next(job, &passed, JOB_VERIFY);
    expect_locked(job, &absent_awaiting, JOB_MARK);
    expect_marked(job, OUTCOME_NOT_STORED);
}

/* Something has the rows and keeps them as they are: a trigger, a policy. */
static void test_suppressed(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    expect_next(job, &kept, JOB_VERIFY);
    expect_retry(job, &absent_awaiting, JOB_INSERT);
    expect_failure(job, 0, JOB_MARK);
    expect_marked(job, OUTCOME_NOT_STORED);

    job = job_at(JOB_INSERT);
    expect_next(job, &settle_kept, JOB_VERIFY);
    expect_retry(job, &unsettled_awaiting, JOB_SETTLE);
    expect_failure(job, 0, JOB_UNDO);
    expect_next(job, &kept, JOB_VERIFY);
    expect_retry(job, &unsettled_awaiting, JOB_UNDO);
    expect_failure(job, 0, JOB_MARK);
    assert_int_equal(job->outcome, OUTCOME_ORPHANED);
    expect_next(job, &kept, JOB_VERIFY);
    expect_retry(job, &unsettled_awaiting, JOB_MARK);
    assert_int_equal(step_of(job->step)->failed(job, &denied, 0), STEP_FINISHED);
    assert_true(job->stuck);
    assert_string_equal(job->mark_failure->sqlstate, "42501");
    job_free(job);

    job = job_at(JOB_TRANSACT);
    const struct pg_error suppressed = {
        .sqlstate = "22P02",
        .text =
            "invalid input syntax for type boolean: \"the interview was not made ready: a trigger or a rule keeps it, "
            "in status enhancing\""};
    assert_true(statements_is_suppressed(suppressed.sqlstate, suppressed.text));
    assert_false(statements_is_suppressed("22P02", "invalid input syntax for type boolean: \"maybe\""));
    expect_step(job, step_of(job->step)->failed(job, &suppressed, 1), STEP_NEXT, JOB_MARK);
    expect_marked(job, OUTCOME_ROLLED_BACK);
}

static void test_failures(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    expect_failure(job, 0, JOB_MARK);
    expect_marked(job, OUTCOME_NOT_STORED);

    job = job_at(JOB_SETTLE);
    expect_failure(job, 0, JOB_UNDO);
    expect_rolled_back(job);

    job = job_at(JOB_TRANSACT);
    expect_failure(job, 0, JOB_MARK);
    expect_marked(job, OUTCOME_NOT_STORED);

    job = job_at(JOB_TRANSACT);
    expect_failure(job, 1, JOB_MARK);
    assert_string_equal(job->failure->text, "permission denied");
    expect_marked(job, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_UNDO); /* why it is left behind matters more than why it had to go */
    job->failure = calloc(1, sizeof *job->failure);
    expect_failure(job, 0, JOB_MARK);
    assert_string_equal(job->failure->text, "permission denied");
    expect_marked(job, OUTCOME_ORPHANED);
}

/* An attempt fails, and an earlier one, whose answer never came, has inserted the prompt. */
/* An earlier process may have stored it. */
static void test_failures_of_what_was_redelivered(void **state)
{
    (void)state;
    static const enum job_step steps[] = {JOB_INSERT, JOB_TRANSACT};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct job *job = job_at(steps[i]);
        job->redelivered = true;
        expect_failure(job, 0, JOB_VERIFY);
        expect_end(job, &settled_moved_on, OUTCOME_DUPLICATE);

        job = job_at(steps[i]);
        job->redelivered = true;
        expect_failure(job, 0, JOB_VERIFY);
        expect_next(job, &absent_awaiting, JOB_MARK);
        expect_marked(job, OUTCOME_NOT_STORED);
    }
}

static void test_failures_after_a_lost_answer(void **state)
{
    (void)state;
    struct job *job = job_at(JOB_INSERT);
    step_unanswered(job, true);
    expect_failure(job, 0, JOB_VERIFY);
    expect_end(job, &settled_ready, OUTCOME_STORED);

    job = job_at(JOB_INSERT);
    step_unanswered(job, true);
    expect_failure(job, 0, JOB_VERIFY);
    expect_next(job, &unsettled_awaiting, JOB_SETTLE);
    expect_end(job, &hit, OUTCOME_STORED);

    job = job_at(JOB_INSERT);
    step_unanswered(job, true);
    expect_failure(job, 0, JOB_VERIFY);
    expect_next(job, &absent_awaiting, JOB_MARK);
    expect_marked(job, OUTCOME_NOT_STORED);

    job = job_at(JOB_INSERT); /* nor can it be verified */
    step_unanswered(job, true);
    expect_failure(job, 0, JOB_VERIFY);
    expect_failure(job, 0, JOB_UNDO);
    expect_rolled_back(job);

    job = job_at(JOB_TRANSACT);
    step_unanswered(job, false);
    expect_failure(job, 0, JOB_VERIFY);
    expect_failure(job, 0, JOB_MARK);
    expect_marked(job, OUTCOME_NOT_STORED);
}

static void test_gone(void **state)
{
    (void)state;
    const enum job_step steps[] = {JOB_INSERT, JOB_TRANSACT};
    for (int i = 0; i < 2; i++) { /* no such interview */
        struct job *job = job_at(steps[i]);
        expect_next(job, &passed, JOB_VERIFY);
        expect_next(job, &absent_missing, JOB_MARK);
        expect_next(job, &passed, JOB_VERIFY);
        expect_end(job, &absent_missing, OUTCOME_NOT_STORED);
    }
    struct job *job = job_at(JOB_SETTLE); /* somebody has deleted the prompt; or it was another promptd's, and undone */
    expect_next(job, &passed, JOB_VERIFY);
    expect_next(job, &absent_awaiting, JOB_INSERT);
    expect_end(job, &both_hit, OUTCOME_STORED);

    job = job_at(JOB_SETTLE); /* again and again, and the evidence is left over */
    expect_next(job, &passed, JOB_VERIFY);
    for (int i = 0; i < 2; i++) {
        expect_next(job, &evidence_awaiting, JOB_INSERT);
        expect_next(job, &settle_kept, JOB_VERIFY);
    }
    expect_next(job, &evidence_awaiting, JOB_UNDO);
    expect_rolled_back(job);

    job = job_at(JOB_INSERT); /* the server has lost it in a crash, as often as it likes */
    for (int i = 0; i < 5; i++) {
        job->inserted = true;
        job->step = JOB_SETTLE;
        step_unanswered(job, false);
        expect_next(job, &passed, JOB_VERIFY);
        expect_next(job, &absent_awaiting, JOB_INSERT);
    }
    expect_next(job, &passed, JOB_VERIFY); /* and then another one has inserted and settled it */
    expect_end(job, &settled_ready, OUTCOME_DUPLICATE);

    job = job_at(JOB_SETTLE); /* and its interview is gone, too */
    expect_next(job, &passed, JOB_VERIFY);
    expect_next(job, &evidence_missing, JOB_UNDO);
    expect_rolled_back(job);

    job = job_at(JOB_UNDO); /* somebody else was faster */
    job->outcome = OUTCOME_ROLLED_BACK;
    expect_next(job, &passed, JOB_VERIFY);
    expect_next(job, &absent_awaiting, JOB_MARK);
    expect_marked(job, OUTCOME_ROLLED_BACK);

    job = job_at(JOB_UNDO); /* somebody else has settled it */
    job->outcome = OUTCOME_ROLLED_BACK;
    expect_next(job, &passed, JOB_VERIFY);
    expect_end(job, &settled_ready, OUTCOME_DUPLICATE);
}

static void test_rejected(void **state)
{
    (void)state;
    struct message_content content = {.reject = REJECT_PROMPT_TOO_LONG, .has_interview_id = true};
    struct job *job = job_new(&content, 0, 0);
    step_start(job, false);
    expect_marked(job, OUTCOME_REJECTED);

    const struct {
        const struct job_facts *seen;
        enum job_step next;
    } earlier[] = {{&unsettled_awaiting, JOB_SETTLE}, {&unsettled_moved_on, JOB_UNDO}, {&absent_awaiting, JOB_MARK}};
    for (int i = 0; i < 3; i++) { /* taken in before a restart, when it was no fault yet */
        content = (struct message_content){.reject = REJECT_PROMPT_TOO_LONG, .has_interview_id = true};
        job = job_new(&content, 0, 0);
        job->may_have_prompt = true;
        step_start(job, false);
        assert_string_equal(step_of(job->step)->name, "verify");
        expect_next(job, earlier[i].seen, earlier[i].next);
        if (earlier[i].next == JOB_SETTLE)
            expect_end(job, &hit, OUTCOME_STORED);
        else if (earlier[i].next == JOB_UNDO)
            expect_rolled_back(job);
        else
            expect_marked(job, OUTCOME_REJECTED);
    }
}

static struct job *recovery(void)
{
    struct job *job = job_new_recovery(some_id, some_id);
    assert_non_null(job);
    step_start(job, true);
    assert_string_equal(step_of(job->step)->name, "recover");
    return job;
}

static void test_recovery(void **state)
{
    (void)state;
    expect_end(recovery(), &hit, OUTCOME_STORED);

    const struct job_facts *const over[] = {&unsettled_failed, &unsettled_moved_on, &unsettled_missing};
    for (int i = 0; i < 3; i++) { /* what was told as failed does not become ready behind anyone's back */
        struct job *job = recovery();
        expect_next(job, &passed, JOB_VERIFY);
        expect_next(job, over[i], JOB_UNDO);
        expect_rolled_back(job);
    }
    const struct job_facts *const locked[] = {&unsettled_awaiting, &unsettled_ready};
    for (int i = 0; i < 2; i++) {
        struct job *job = recovery();
        expect_next(job, &passed, JOB_VERIFY);
        expect_locked(job, locked[i], JOB_RECOVER);
        job_free(job);
    }
    struct job *job = recovery(); /* its prompt was deleted by somebody */
    expect_next(job, &passed, JOB_VERIFY);
    expect_next(job, &evidence_awaiting, JOB_UNDO);
    expect_rolled_back(job);

    job = recovery(); /* somebody else was faster */
    expect_next(job, &passed, JOB_VERIFY);
    expect_end(job, &absent_awaiting, OUTCOME_NONE);

    job = recovery();
    expect_next(job, &passed, JOB_VERIFY);
    expect_end(job, &settled_ready, OUTCOME_DUPLICATE);

    job = recovery();
    expect_failure(job, 0, JOB_UNDO);
    expect_failure(job, 0, JOB_MARK);
    expect_marked(job, OUTCOME_ORPHANED);
    assert_false(step_may_be_unsettled(&(struct job){.kind = JOB_RECOVERY, .step = JOB_SETTLE}));
}

static void test_marking(void **state)
{
    (void)state;
    struct job *job = job_new_marking(some_id);
    step_start(job, false);
    expect_end(job, &hit, OUTCOME_NONE);

    job = job_new_marking(some_id);
    step_start(job, false);
    expect_next(job, &passed, JOB_VERIFY);
    assert_int_equal(succeed(job, &absent_failed), STEP_FINISHED);
    assert_true(job->is_failed); /* from before, or by a mark whose answer never came */
    job_free(job);

    const struct job_facts *const not_failed[] = {&absent_moved_on, &absent_missing, &absent_ready};
    for (size_t i = 0; i < sizeof not_failed / sizeof not_failed[0]; i++) {
        job = job_new_marking(some_id);
        step_start(job, false);
        expect_next(job, &kept, JOB_VERIFY);
        assert_int_equal(succeed(job, not_failed[i]), STEP_FINISHED);
        assert_false(job->is_failed);
        job_free(job);
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
        struct job *job = job_at(steps[i].step);
        assert_int_equal(step_may_be_unsettled(job), steps[i].unsettled);
        job->verifies = job->step;
        job->step = JOB_VERIFY;
        assert_int_equal(step_may_be_unsettled(job), steps[i].unsettled);
        job_free(job);
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
