/* SPDX-License-Identifier: MIT */
/*
 * The life of a job in the database. Looks (in brackets) happen only when a statement returned nothing for the job.
 *
 *     insert ─▶ [confirm] ─▶ update ─▶ [judge] ─▶ stored, duplicate
 *        │                      │         │
 *        │                      └────┬────┘ fails
 *        │                           ▼
 *        │ fails                  delete ─▶ [prove]      rolled back, or orphaned if it fails
 *        │                           │
 *        └──────────▶ mark ◀─────────┘
 *                      └─▶ [witness] ─▶ done: not stored, rolled back, orphaned, rejected
 *
 *     transact ─▶ [settle] stands for the first row with atomicity = transaction.
 *
 * A lone message's update goes with its insert; whatever fails of the two, it is the insert that goes again, or fails.
 *
 * Only what is ours is deleted: inserted by a confirmed answer, or found present after an insert whose answer was lost.
 */
#include "store_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_look(enum job_step step)
{
    return step == JOB_CONFIRM || step == JOB_JUDGE || step == JOB_SETTLE || step == JOB_PROVE || step == JOB_WITNESS;
}

/* A look belongs to the step before it: its attempts go on counting. */
static enum step_verdict go_on(struct job *job, enum job_step next)
{
    if (!is_look(next))
        job->attempts = 0;
    job->step = next;
    return STEP_ON;
}

static enum step_verdict done(struct job *job, enum outcome outcome)
{
    job->outcome = outcome;
    return STEP_DONE;
}

static enum step_verdict again(struct job *job, enum job_step step, struct job_failure *why, const char *text)
{
    job->step = step;
    why->sqlstate[0] = '\0';
    (void)snprintf(why->text, sizeof why->text, "%s", text);
    return STEP_AGAIN;
}

/* Without memory the outcome stands all the same; only its explanation is missing from the log. */
static struct job_failure *failure_copy(const struct job_failure *failure)
{
    struct job_failure *copy = malloc(sizeof *copy);
    if (copy)
        *copy = *failure;
    return copy;
}

static void keep_failure(struct job *job, const struct job_failure *failure)
{
    if (!job->failure)
        job->failure = failure_copy(failure);
}

/* Step 1 failed, or step 2 of a prompt that is not ours. */
static enum step_verdict fail_not_stored(struct job *job, const struct job_failure *failure)
{
    keep_failure(job, failure);
    job->outcome = OUTCOME_NOT_STORED;
    return go_on(job, job->maybe_inserted && !job->inserted ? JOB_DELETE : JOB_MARK);
}

/* Step 2 failed: what is ours is deleted again. */
static enum step_verdict fail_update(struct job *job, const struct job_failure *failure)
{
    if (!job->inserted)
        return fail_not_stored(job, failure);
    keep_failure(job, failure);
    job->outcome = OUTCOME_ROLLED_BACK;
    return go_on(job, JOB_DELETE);
}

static enum step_verdict fail_rolled_back_by_server(struct job *job, const struct job_failure *failure)
{
    keep_failure(job, failure);
    job->outcome = OUTCOME_ROLLED_BACK;
    return go_on(job, job->maybe_inserted ? JOB_DELETE : JOB_MARK);
}

static struct job_failure no_longer_awaiting(const struct job_facts *facts)
{
    struct job_failure failure = {.sqlstate = ""};
    if (facts->interview_there)
        (void)snprintf(failure.text, sizeof failure.text,
                       "the interview is no longer awaiting its prompt (status %.64s)", facts->status);
    else
        (void)snprintf(failure.text, sizeof failure.text, "there is no such interview");
    return failure;
}

/* Of a lone message the update has run, too. It looks for the prompt: if it has moved the interview, the prompt is
 * there. */
static enum step_verdict after_insert(struct job *job, const struct job_facts *facts)
{
    job->inserted = job->inserted || facts->changed;
    job->moved = facts->moved;
    if (facts->moved)
        return done(job, OUTCOME_STORED);
    if (!facts->changed)
        return go_on(job, JOB_CONFIRM);
    (void)go_on(job, JOB_UPDATE);
    return facts->update_ran ? go_on(job, JOB_JUDGE) : STEP_ON;
}

static enum step_verdict after_confirm(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    if (!facts->prompt_there) {
        job->inserted = false;
        return again(job, JOB_INSERT, why, "the insert changed no row");
    }
    job->inserted = job->inserted || job->maybe_inserted;
    return go_on(job, JOB_UPDATE);
}

/* The server has crashed before a lone insert was on disk, or somebody has deleted the prompt. Once it goes again for
 * that, which is no failure of its own. */
static enum step_verdict after_vanishing(struct job *job)
{
    const struct job_failure failure = {.text = "the prompt is gone again"};
    if (job->vanished)
        return fail_update(job, &failure);
    job->vanished = true;
    job->inserted = false;
    return go_on(job, JOB_INSERT);
}

static enum step_verdict after_judge(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    if (!facts->prompt_there)
        return after_vanishing(job);
    if (facts->is_ready)
        return done(job, job->inserted ? OUTCOME_STORED : OUTCOME_DUPLICATE);
    if (facts->is_awaiting)
        return again(job, JOB_UPDATE, why, "the update changed no row");
    if (!job->inserted)
        return done(job, OUTCOME_DUPLICATE);
    const struct job_failure failure = no_longer_awaiting(facts);
    return fail_update(job, &failure);
}

static enum step_verdict after_settle_present(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    job->inserted = job->maybe_inserted; /* by an earlier transaction of ours that was committed, answer lost */
    if (facts->is_awaiting)
        return again(job, JOB_TRANSACT, why, "the update changed no row");
    return done(job, job->moved || job->inserted ? OUTCOME_STORED : OUTCOME_DUPLICATE);
}

/* The interview was made ready, but a trigger kept the prompt out: it must not stay ready. */
static enum step_verdict fail_suppressed(struct job *job, const struct job_failure *failure)
{
    keep_failure(job, failure);
    job->outcome = OUTCOME_NOT_STORED;
    return go_on(job, JOB_UNREADY);
}

static enum step_verdict after_settle_absent(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    if (job->moved) {
        const struct job_failure suppressed = {.text = "the insert changed no row"};
        return fail_suppressed(job, &suppressed);
    }
    if (facts->is_ready)
        return again(job, JOB_TRANSACT, why, "the insert changed no row");
    if (facts->is_awaiting)
        return again(job, JOB_TRANSACT, why, "the update changed no row");
    const struct job_failure failure = no_longer_awaiting(facts);
    job->maybe_inserted = false; /* seen absent */
    return facts->interview_there ? fail_rolled_back_by_server(job, &failure) : fail_not_stored(job, &failure);
}

static enum step_verdict after_delete(struct job *job)
{
    job->deleted = true;
    if (job->outcome == OUTCOME_NOT_STORED) /* the insert was in doubt, and has been found */
        job->outcome = OUTCOME_ROLLED_BACK;
    return go_on(job, JOB_MARK);
}

static enum step_verdict after_prove(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    if (!facts->prompt_there) {
        job->deleted = true;
        return go_on(job, JOB_MARK);
    }
    if (facts->is_ready) {
        free(job->failure);
        job->failure = NULL;
        return done(job, OUTCOME_STORED);
    }
    return again(job, JOB_DELETE, why, "the delete changed no row");
}

static enum step_verdict after_witness(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    if (facts->is_awaiting && !facts->is_failed)
        return again(job, JOB_MARK, why, "the update changed no row");
    return done(job, job->outcome);
}

enum step_verdict step_succeeded(struct job *job, const struct job_facts *facts, struct job_failure *why)
{
    switch (job->step) {
    case JOB_INSERT:
        return after_insert(job, facts);
    case JOB_CONFIRM:
        return after_confirm(job, facts, why);
    case JOB_UPDATE:
        job->moved = facts->changed;
        return facts->changed ? done(job, OUTCOME_STORED) : go_on(job, JOB_JUDGE);
    case JOB_JUDGE:
        return after_judge(job, facts, why);
    case JOB_TRANSACT:
        job->moved = job->moved || facts->changed;
        job->inserted = facts->inserted;
        return facts->inserted ? done(job, OUTCOME_STORED) : go_on(job, JOB_SETTLE);
    case JOB_SETTLE:
        return facts->prompt_there ? after_settle_present(job, facts, why) : after_settle_absent(job, facts, why);
    case JOB_DELETE:
        return facts->changed ? after_delete(job) : go_on(job, JOB_PROVE);
    case JOB_PROVE:
        return after_prove(job, facts, why);
    case JOB_MARK:
        return facts->changed ? done(job, job->outcome) : go_on(job, JOB_WITNESS);
    case JOB_WITNESS:
        return after_witness(job, facts, why);
    case JOB_UNREADY:
        return go_on(job, JOB_MARK);
    case JOB_STEP_COUNT:
        break;
    }
    return done(job, job->outcome);
}

static enum step_verdict fail_transact(struct job *job, const struct job_failure *failure, int failed_statement)
{
    if (job->moved && !job->inserted)
        return fail_suppressed(job, failure);
    return failed_statement == 0 ? fail_rolled_back_by_server(job, failure) : fail_not_stored(job, failure);
}

static enum step_verdict fail_delete(struct job *job, const struct job_failure *failure, bool *orphaned)
{
    struct job_failure *cause = job->failure;
    job->failure = failure_copy(failure); /* why the prompt is left behind matters more than why it had to go */
    free(cause);
    job->outcome = OUTCOME_ORPHANED;
    *orphaned = true;
    return go_on(job, JOB_MARK);
}

static enum step_verdict fail_mark(struct job *job, const struct job_failure *failure)
{
    job->stuck = true;
    if (!job->mark_failure)
        job->mark_failure = failure_copy(failure);
    return done(job, job->outcome);
}

enum step_verdict step_failed(struct job *job, const struct job_failure *failure, int failed_statement, bool *orphaned)
{
    *orphaned = false;
    switch (job->step) {
    case JOB_INSERT: /* of a lone message, it may have been the update that failed */
    case JOB_CONFIRM:
    case JOB_UPDATE:
    case JOB_JUDGE:
        return fail_update(job, failure);
    case JOB_TRANSACT:
    case JOB_SETTLE:
        return fail_transact(job, failure, failed_statement);
    case JOB_DELETE:
    case JOB_PROVE:
        return fail_delete(job, failure, orphaned);
    case JOB_UNREADY:
    case JOB_MARK:
    case JOB_WITNESS:
    case JOB_STEP_COUNT:
        break;
    }
    return fail_mark(job, failure);
}

enum job_step step_first(const struct job *job, bool in_transaction)
{
    if (job->is_cleanup)
        return JOB_DELETE;
    if (job->content.reject != REJECT_NONE)
        return JOB_MARK;
    return in_transaction ? JOB_TRANSACT : JOB_INSERT;
}
