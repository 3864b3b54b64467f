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

static enum step_verdict next(struct job *job, enum job_step step)
{
    job->attempts = 0;
    job->locked_since_ms = 0;
    job->step = step;
    return STEP_NEXT;
}

/* The step changed nothing. To verify belongs to it: its attempts go on counting. */
static enum step_verdict verify(struct job *job, enum job_step step, bool held)
{
    job->verifies = step;
    job->held = held;
    job->step = JOB_VERIFY;
    return STEP_NEXT;
}

static enum step_verdict finish(struct job *job, enum outcome outcome)
{
    job->outcome = outcome;
    if (outcome == OUTCOME_STORED || outcome == OUTCOME_DUPLICATE) {
        free(job->failure); /* of an earlier attempt, whose answer had never come */
        job->failure = NULL;
    }
    return STEP_FINISHED;
}

/* The step is done again: because of something that held the rows, or by and by, when their lock is gone. */
static enum step_verdict again(struct job *job, enum job_step step, bool held, struct pg_error *why, const char *text)
{
    job->step = step;
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

static void keep_failure(struct job *job, const struct pg_error *failure)
{
    if (!job->failure)
        job->failure = failure_copy(failure);
}

/* Step 1 failed. An earlier attempt, whose answer never came, may have inserted the prompt all the same; or an earlier
 * process. */
static enum step_verdict fail_insert(struct job *job, const struct pg_error *failure, int statement)
{
    (void)statement;
    keep_failure(job, failure);
    job->outcome = OUTCOME_NOT_STORED;
    bool may_be_there = job->inserted || job->redelivered;
    return may_be_there ? verify(job, job->step, true) : next(job, JOB_MARK);
}

/* Step 2 failed. */
static enum step_verdict fail_settle(struct job *job, const struct pg_error *failure, int statement)
{
    (void)statement;
    keep_failure(job, failure);
    job->outcome = OUTCOME_ROLLED_BACK;
    return next(job, JOB_UNDO);
}

/* Step 2 of a transaction failed: the server has undone step 1 by itself. */
static enum step_verdict fail_move(struct job *job, const struct pg_error *failure)
{
    keep_failure(job, failure);
    job->outcome = OUTCOME_ROLLED_BACK;
    return next(job, JOB_MARK);
}

static enum step_verdict fail_transact(struct job *job, const struct pg_error *failure, int statement)
{
    return statement == 0 ? fail_insert(job, failure, statement) : fail_move(job, failure);
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

static enum step_verdict after_insert(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    job->inserted = job->inserted || facts->write.changed;
    if (facts->settle.changed)
        return finish(job, OUTCOME_STORED);
    if (!facts->write.changed)
        return verify(job, JOB_INSERT, facts->write.held);
    (void)next(job, JOB_SETTLE);
    return facts->settle_ran ? verify(job, JOB_SETTLE, facts->settle.held) : STEP_NEXT;
}

static enum step_verdict after_transact(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    return facts->write.changed ? finish(job, OUTCOME_STORED) : verify(job, JOB_TRANSACT, facts->write.held);
}

static enum step_verdict after_settle(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    return facts->write.changed ? finish(job, OUTCOME_STORED) : verify(job, job->step, facts->write.held);
}

static enum step_verdict after_undo(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    if (!facts->write.changed)
        return verify(job, JOB_UNDO, facts->write.held);
    job->undone = true;
    job->outcome = OUTCOME_ROLLED_BACK;
    return next(job, JOB_MARK);
}

static enum step_verdict after_mark(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    (void)why;
    job->is_failed = facts->write.changed;
    return facts->write.changed ? finish(job, job->outcome) : verify(job, JOB_MARK, facts->write.held);
}

/* --- after a look ----------------------------------------------------------------------------------------------- */

static enum step_verdict verified_unsettled(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    bool waits = facts->is_ready || (facts->is_awaiting && !(job->kind == JOB_RECOVERY && facts->is_failed));
    if (job->verifies == JOB_UNDO)
        return again(job, JOB_UNDO, job->held, why, "the delete changed no row");
    if (!waits) {
        const struct pg_error failure = no_longer_awaiting(facts);
        return fail_settle(job, &failure, 0);
    }
    if (step_of(job->verifies)->inserts)
        return next(job, JOB_SETTLE); /* inserted before, by whomever */
    return again(job, job->verifies, job->held, why, "the update changed no row");
}

/* Evidence without a prompt: somebody else has deleted it. The undo takes the evidence away. */
static enum step_verdict give_up_absent(struct job *job, const struct job_facts *facts, enum outcome outcome)
{
    job->outcome = outcome;
    return next(job, facts->unsettled ? JOB_UNDO : JOB_MARK);
}

/* What we inserted is gone before it was settled. A server that crashes loses an insert whose commit did not wait for
 * the disk: that is an outage, and nobody's failure. Somebody who deletes it again and again makes step 2 fail. */
static enum step_verdict insert_anew(struct job *job)
{
    enum { VANISHED_MAX = 3 };
    const struct pg_error vanished = {.text = "somebody else deletes the prompt before it is settled"};
    if (!job->settle_unanswered && ++job->vanished == VANISHED_MAX)
        return fail_settle(job, &vanished, 0);
    job->inserted = false;
    job->settle_unanswered = false;
    return next(job, job->in_transaction ? JOB_TRANSACT : JOB_INSERT);
}

static enum step_verdict verified_absent(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    if (job->verifies == JOB_UNDO)
        return next(job, JOB_MARK);
    if (job->kind == JOB_RECOVERY)
        return facts->unsettled ? next(job, JOB_UNDO) : finish(job, OUTCOME_NONE);
    if (job->content.reject != REJECT_NONE)
        return give_up_absent(job, facts, OUTCOME_REJECTED);
    const struct pg_error gone = no_longer_awaiting(facts);
    if (!facts->interview_there)
        keep_failure(job, &gone);
    if (job->failure)
        return give_up_absent(job, facts, OUTCOME_NOT_STORED);
    if (job->in_transaction && !facts->is_awaiting && !facts->is_ready)
        return fail_move(job, &gone);
    if (!step_of(job->verifies)->inserts)
        return insert_anew(job);
    return again(job, job->verifies, job->held, why, "the insert changed no row");
}

static enum step_verdict verified_mark(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    if (facts->is_awaiting && !facts->is_failed)
        return again(job, JOB_MARK, job->held, why, "the update changed no row");
    job->is_failed = facts->interview_there && facts->is_failed;
    return finish(job, job->outcome);
}

static enum step_verdict after_verify(struct job *job, const struct job_facts *facts, struct pg_error *why)
{
    if (job->verifies == JOB_MARK)
        return verified_mark(job, facts, why);
    if (!facts->prompt_there)
        return verified_absent(job, facts, why);
    if (facts->unsettled)
        return verified_unsettled(job, facts, why);
    return finish(job, job->inserted && job->settle_unanswered ? OUTCOME_STORED : OUTCOME_DUPLICATE);
}

/* --- failures --------------------------------------------------------------------------------------------------- */

/* Why the prompt is left behind matters more than why it had to go. */
static enum step_verdict fail_undo(struct job *job, const struct pg_error *failure, int statement)
{
    (void)statement;
    struct job_failure *cause = job->failure;
    job->failure = failure_copy(failure);
    free(cause);
    job->outcome = OUTCOME_ORPHANED;
    return next(job, JOB_MARK);
}

static enum step_verdict fail_mark(struct job *job, const struct pg_error *failure, int statement)
{
    (void)statement;
    job->stuck = true;
    if (!job->mark_failure)
        job->mark_failure = failure_copy(failure);
    return finish(job, job->outcome);
}

/* To verify is part of the step that changed nothing. */
static enum step_verdict fail_verify(struct job *job, const struct pg_error *failure, int statement)
{
    if (!step_of(job->verifies)->inserts)
        return step_of(job->verifies)->failed(job, failure, statement);
    keep_failure(job, failure);
    job->outcome = job->content.reject != REJECT_NONE ? OUTCOME_REJECTED : OUTCOME_NOT_STORED;
    return next(job, job->inserted && !job->in_transaction ? JOB_UNDO : JOB_MARK);
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

void step_start(struct job *job, bool in_transaction)
{
    job->in_transaction = in_transaction;
    job->step = in_transaction ? JOB_TRANSACT : JOB_INSERT;
    if (job->kind == JOB_RECOVERY) {
        job->step = JOB_RECOVER;
    } else if (job->kind == JOB_MARKING) {
        job->step = JOB_MARK;
    } else if (job->content.reject != REJECT_NONE) {
        /* Before a restart with other limits its prompt may have been inserted. */
        job->outcome = OUTCOME_REJECTED;
        job->step = job->may_have_prompt ? JOB_VERIFY : JOB_MARK;
        job->verifies = JOB_INSERT;
    }
}

void step_unanswered(struct job *job, bool with_settle)
{
    const struct step *step = step_of(job->step);
    job->inserted = job->inserted || step->inserts;
    job->settle_unanswered = job->settle_unanswered || step->settles || with_settle;
}

bool step_may_be_unsettled(const struct job *job)
{
    const struct step *step = step_of(job->step == JOB_VERIFY ? job->verifies : job->step);
    return job->kind == JOB_MESSAGE &&
           (step->leaves_unsettled || (step->inserts && job->inserted && !job->in_transaction));
}
