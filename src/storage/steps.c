/* SPDX-License-Identifier: MIT */
/*
 * The life of a job in the database.
 *
 *     insert ─▶ settle ─▶ stored                       undo ─▶ mark ─▶ rolled back, not stored
 *       │          │                                    ▲│        │
 *       └ nothing ─┴─▶ verify ── prompt & unsettled, ───┘└ fails: orphaned ─▶ mark
 *                         │      no longer awaiting
 *                         ├ prompt & settled ─▶ stored (ours), or duplicate
 *                         ├ no prompt ─▶ insert again, or not stored
 *                         └ locked ─▶ the same step later
 *
 * Whoever takes the prompt's row out of promptd_unsettled, by settle or undo, decides over it: this job, another
 * promptd, or the recovery. What this process remembers decides only how an outcome is counted.
 */
#include "steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- edges ------------------------------------------------------------------------------------------------------ */

static enum step_verdict next(struct task *task, enum job_step step)
{
    task->attempts = 0;
    task->locked_since_ms = 0;
    task->step = step;
    return STEP_NEXT;
}

/* The step changed nothing. To verify belongs to it: its attempts go on counting. */
static enum step_verdict verify(struct task *task, enum job_step step, bool held)
{
    task->verifies = step;
    task->held = held;
    task->step = JOB_VERIFY;
    return STEP_NEXT;
}

static enum step_verdict finish(struct task *task, enum outcome outcome)
{
    task->job.outcome = outcome;
    if (outcome == OUTCOME_STORED || outcome == OUTCOME_DUPLICATE) {
        free(task->job.failure); /* of an earlier attempt, whose answer had never come */
        task->job.failure = NULL;
    }
    return STEP_FINISHED;
}

/* The step is done again: because of something that held the rows, or by and by, when their lock is gone. */
static enum step_verdict again(struct task *task, enum job_step step, bool held, struct pg_error *why, const char *text)
{
    task->step = step;
    why->sqlstate[0] = '\0';
    (void)snprintf(why->text, sizeof why->text, "%s", text);
    return held ? STEP_RETRY : STEP_LOCKED;
}

/* Out of memory the outcome stands all the same; only its explanation is missing from the log. */
static struct job_failure *failure_copy(const struct pg_error *error)
{
    struct job_failure *copy = malloc(sizeof *copy);
    if (!copy)
        return NULL;
    (void)snprintf(copy->sqlstate, sizeof copy->sqlstate, "%s", error->sqlstate);
    (void)snprintf(copy->text, sizeof copy->text, "%s", error->text);
    return copy;
}

static void keep_failure(struct task *task, const struct pg_error *failure)
{
    if (!task->job.failure)
        task->job.failure = failure_copy(failure);
}

/* Step 1 failed. An earlier attempt, whose answer never came, may have inserted the prompt all the same; or an earlier
 * process. */
static enum step_verdict fail_insert(struct task *task, const struct pg_error *failure, int statement)
{
    (void)statement;
    keep_failure(task, failure);
    task->job.outcome = OUTCOME_NOT_STORED;
    bool may_be_there = task->inserted || task->job.redelivered;
    return may_be_there ? verify(task, task->step, true) : next(task, JOB_MARK);
}

/* Step 2 failed. */
static enum step_verdict fail_settle(struct task *task, const struct pg_error *failure, int statement)
{
    (void)statement;
    keep_failure(task, failure);
    task->job.outcome = OUTCOME_ROLLED_BACK;
    return next(task, JOB_UNDO);
}

/* Step 2 of a transaction failed: the server has undone step 1 by itself. */
static enum step_verdict fail_move(struct task *task, const struct pg_error *failure)
{
    keep_failure(task, failure);
    task->job.outcome = OUTCOME_ROLLED_BACK;
    return next(task, JOB_MARK);
}

static enum step_verdict fail_transact(struct task *task, const struct pg_error *failure, int statement)
{
    return statement == 0 ? fail_insert(task, failure, statement) : fail_move(task, failure);
}

static struct pg_error no_longer_awaiting(const struct job_facts *facts)
{
    struct pg_error failure = {.sqlstate = ""};
    if (facts->interview_there)
        (void)snprintf(failure.text, sizeof failure.text,
                       "the interview is no longer awaiting its prompt (status %.64s)", facts->status);
    else
        (void)snprintf(failure.text, sizeof failure.text, "there is no such interview");
    return failure;
}

/* --- after each step -------------------------------------------------------------------------------------------- */

static enum step_verdict after_insert(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    task->inserted = task->inserted || facts->write.changed;
    if (facts->settle.changed)
        return finish(task, OUTCOME_STORED);
    if (!facts->write.changed)
        return verify(task, JOB_INSERT, facts->write.held);
    (void)next(task, JOB_SETTLE);
    return facts->settle_ran ? verify(task, JOB_SETTLE, facts->settle.held) : STEP_NEXT;
}

static enum step_verdict after_transact(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    return facts->write.changed ? finish(task, OUTCOME_STORED) : verify(task, JOB_TRANSACT, facts->write.held);
}

static enum step_verdict after_settle(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    return facts->write.changed ? finish(task, OUTCOME_STORED) : verify(task, task->step, facts->write.held);
}

static enum step_verdict after_undo(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    if (!facts->write.changed)
        return verify(task, JOB_UNDO, facts->write.held);
    task->job.undone = true;
    task->job.outcome = OUTCOME_ROLLED_BACK;
    return next(task, JOB_MARK);
}

static enum step_verdict after_mark(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    task->job.is_failed = facts->write.changed;
    return facts->write.changed ? finish(task, task->job.outcome) : verify(task, JOB_MARK, facts->write.held);
}

/* --- after a look ----------------------------------------------------------------------------------------------- */

static enum step_verdict verified_unsettled(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    bool waits = facts->is_ready || (facts->is_awaiting && !(task->job.kind == JOB_RECOVERY && facts->is_failed));
    if (task->verifies == JOB_UNDO)
        return again(task, JOB_UNDO, task->held, why, "the delete changed no row");
    if (!waits) {
        const struct pg_error failure = no_longer_awaiting(facts);
        return fail_settle(task, &failure, 0);
    }
    if (step_of(task->verifies)->inserts)
        return next(task, JOB_SETTLE); /* inserted before, by whomever */
    return again(task, task->verifies, task->held, why, "the update changed no row");
}

/* Evidence without a prompt: somebody else has deleted it. The undo takes the evidence away. */
static enum step_verdict give_up_absent(struct task *task, const struct job_facts *facts, enum outcome outcome)
{
    task->job.outcome = outcome;
    return next(task, facts->unsettled ? JOB_UNDO : JOB_MARK);
}

/* What we inserted is gone before it was settled. A server that crashes loses an insert whose commit did not wait for
 * the disk: that is an outage, and nobody's failure. Somebody who deletes it again and again makes step 2 fail. */
static enum step_verdict insert_anew(struct task *task)
{
    enum { VANISHED_MAX = 3 };
    const struct pg_error vanished = {.text = "somebody else deletes the prompt before it is settled"};
    if (!task->settle_unanswered && ++task->vanished == VANISHED_MAX)
        return fail_settle(task, &vanished, 0);
    task->inserted = false;
    task->settle_unanswered = false;
    return next(task, task->in_transaction ? JOB_TRANSACT : JOB_INSERT);
}

static enum step_verdict verified_absent(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    if (task->verifies == JOB_UNDO)
        return next(task, JOB_MARK);
    if (task->job.kind == JOB_RECOVERY)
        return facts->unsettled ? next(task, JOB_UNDO) : finish(task, OUTCOME_NONE);
    if (task->job.content.reject != REJECT_NONE)
        return give_up_absent(task, facts, OUTCOME_REJECTED);
    const struct pg_error gone = no_longer_awaiting(facts);
    if (!facts->interview_there)
        keep_failure(task, &gone);
    if (task->job.failure)
        return give_up_absent(task, facts, OUTCOME_NOT_STORED);
    if (task->in_transaction && !facts->is_awaiting && !facts->is_ready)
        return fail_move(task, &gone);
    if (!step_of(task->verifies)->inserts)
        return insert_anew(task);
    return again(task, task->verifies, task->held, why, "the insert changed no row");
}

static enum step_verdict verified_mark(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    if (facts->is_awaiting && !facts->is_failed)
        return again(task, JOB_MARK, task->held, why, "the update changed no row");
    task->job.is_failed = facts->interview_there && facts->is_failed;
    return finish(task, task->job.outcome);
}

static enum step_verdict after_verify(struct task *task, const struct job_facts *facts, struct pg_error *why)
{
    if (task->verifies == JOB_MARK)
        return verified_mark(task, facts, why);
    if (!facts->prompt_there)
        return verified_absent(task, facts, why);
    if (facts->unsettled)
        return verified_unsettled(task, facts, why);
    return finish(task, task->inserted && task->settle_unanswered ? OUTCOME_STORED : OUTCOME_DUPLICATE);
}

/* --- failures --------------------------------------------------------------------------------------------------- */

/* Why the prompt is left behind matters more than why it had to go. */
static enum step_verdict fail_undo(struct task *task, const struct pg_error *failure, int statement)
{
    (void)statement;
    struct job_failure *cause = task->job.failure;
    task->job.failure = failure_copy(failure);
    free(cause);
    task->job.outcome = OUTCOME_ORPHANED;
    return next(task, JOB_MARK);
}

static enum step_verdict fail_mark(struct task *task, const struct pg_error *failure, int statement)
{
    (void)statement;
    task->job.stuck = true;
    if (!task->job.mark_failure)
        task->job.mark_failure = failure_copy(failure);
    return finish(task, task->job.outcome);
}

/* To verify is part of the step that changed nothing. */
static enum step_verdict fail_verify(struct task *task, const struct pg_error *failure, int statement)
{
    if (!step_of(task->verifies)->inserts)
        return step_of(task->verifies)->failed(task, failure, statement);
    keep_failure(task, failure);
    task->job.outcome = task->job.content.reject != REJECT_NONE ? OUTCOME_REJECTED : OUTCOME_NOT_STORED;
    return next(task, task->inserted && !task->in_transaction ? JOB_UNDO : JOB_MARK);
}

/* --- the table -------------------------------------------------------------------------------------------------- */

const struct step *step_of(enum job_step step)
{
    static const struct step steps[JOB_STEP_COUNT] = {
        [JOB_INSERT] = {.name = "insert",
                        .build = statements_build_insert,
                        .read = statements_read_write,
                        .succeeded = after_insert,
                        .failed = fail_insert,
                        .inserts = true},
        [JOB_TRANSACT] = {.name = "transact",
                          .build = statements_build_transact,
                          .read = statements_read_write,
                          .succeeded = after_transact,
                          .failed = fail_transact,
                          .inserts = true,
                          .settles = true},
        [JOB_SETTLE] = {.name = "settle",
                        .build = statements_build_settle,
                        .read = statements_read_write,
                        .succeeded = after_settle,
                        .failed = fail_settle,
                        .settles = true,
                        .leaves_unsettled = true},
        [JOB_RECOVER] = {.name = "recover",
                         .build = statements_build_recover,
                         .read = statements_read_write,
                         .succeeded = after_settle,
                         .failed = fail_settle,
                         .settles = true,
                         .leaves_unsettled = true},
        [JOB_UNDO] = {.name = "undo",
                      .build = statements_build_undo,
                      .read = statements_read_write,
                      .succeeded = after_undo,
                      .failed = fail_undo,
                      .leaves_unsettled = true},
        [JOB_MARK] = {.name = "mark",
                      .build = statements_build_mark,
                      .read = statements_read_write,
                      .succeeded = after_mark,
                      .failed = fail_mark},
        [JOB_VERIFY] = {.name = "verify",
                        .build = statements_build_verify,
                        .read = statements_read_verify,
                        .succeeded = after_verify,
                        .failed = fail_verify},
    };
    return &steps[step];
}

void step_start(struct task *task, bool in_transaction)
{
    task->in_transaction = in_transaction;
    task->step = in_transaction ? JOB_TRANSACT : JOB_INSERT;
    if (task->job.kind == JOB_RECOVERY) {
        task->step = JOB_RECOVER;
    } else if (task->job.kind == JOB_MARKING) {
        task->step = JOB_MARK;
    } else if (task->job.content.reject != REJECT_NONE) {
        /* Before a restart with other limits its prompt may have been inserted. */
        task->job.outcome = OUTCOME_REJECTED;
        task->step = task->job.may_have_prompt ? JOB_VERIFY : JOB_MARK;
        task->verifies = JOB_INSERT;
    }
}

void step_unanswered(struct task *task, bool with_settle)
{
    const struct step *step = step_of(task->step);
    task->inserted = task->inserted || step->inserts;
    task->settle_unanswered = task->settle_unanswered || step->settles || with_settle;
}

bool step_may_be_unsettled(const struct task *task)
{
    const struct step *step = step_of(task->step == JOB_VERIFY ? task->verifies : task->step);
    return task->job.kind == JOB_MESSAGE &&
           (step->leaves_unsettled || (step->inserts && task->inserted && !task->in_transaction));
}
