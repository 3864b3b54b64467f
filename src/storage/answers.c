/* SPDX-License-Identifier: MIT */
/* What an answer means: for each job its next step, and for the server whether it is away. */
#include "answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "store"
#include "promptd/backoff.h"
#include "promptd/log.h"
#include "promptd/pg_pool.h"
#include "promptd/schema_check.h"
#include "promptd/sqlstate.h"

enum {
    QUOTE_CHARACTERS = 12,     /* so many characters of a prompt in an error keep it out of the log */
    LOSSES_BEFORE_WAITING = 2, /* of a connection, in a row, alone: a third may well be the job's own doing */
    LOCK_WAIT_MIN_MS = 50,
    LOCK_WAITS_A_MS = 8, /* at most so many come back within a millisecond */
    LOCK_WAIT_MAX_MS = 2000
};

/* --- failures --------------------------------------------------------------------------------------------------- */

/* An error that quotes the prompt stays out of the log; and so does one about a prompt that is not there to compare. */
static struct pg_error failure_for_log(const struct job *job, const struct pg_error *failure)
{
    struct pg_error shown = *failure;
    const struct message_content *content = &job->content;
    if ((job->kind == JOB_RECOVERY || job->may_have_prompt) && failure->sqlstate[0])
        (void)snprintf(shown.text, sizeof shown.text, "(withheld: it may quote the prompt)");
    if (content->prompt && text_quotes(failure->text, content->prompt, content->prompt_bytes, QUOTE_CHARACTERS))
        (void)snprintf(shown.text, sizeof shown.text, "(withheld: it quotes the prompt)");
    return shown;
}

static void report_setup(struct answers *answers, const struct pg_error *failure)
{
    if (strcmp(answers->setup_reported, failure->sqlstate) == 0)
        return;
    memcpy(answers->setup_reported, failure->sqlstate, SQLSTATE_SIZE);
    log_critical(LOG_FIELDS(log_text("sqlstate", failure->sqlstate), log_text("error", failure->text)),
                 "the database refuses a statement because of its set-up; every message like this one will fail");
}

static void finish_job(struct answers *answers, struct task *task)
{
    if (task->job.outcome == OUTCOME_STORED)
        answers->setup_reported[0] = '\0';
    if (task->job.kind != JOB_MESSAGE)
        recovery_finish(answers->recovery, &task->job);
    else if (task->job.stuck)
        recovery_add_stuck(answers->recovery, &task->job);
    pipeline_finish(answers->options->pipeline, &task->job);
}

static void dispatch(struct answers *answers, struct task *task, enum step_verdict verdict)
{
    if (verdict == STEP_FINISHED) {
        finish_job(answers, task);
        return;
    }
    /* To verify, or to insert anew what a crash has taken, is no progress: it is still to be found out who meets it. */
    bool is_progress = task->step != JOB_VERIFY && !step_of(task->step)->inserts;
    if (is_progress || task->outages == 0) {
        task->batch_limit = 0;
        task->outages = 0;
    }
    step_queues_add(answers->queues, task);
}

static void fail_job(struct answers *answers, struct task *task, const struct pg_error *failure, int statement)
{
    const struct pg_error shown = failure_for_log(&task->job, failure);
    bool was_orphaned = task->job.outcome == OUTCOME_ORPHANED;
    if (sqlstate_classify(shown.sqlstate) == SQLSTATE_SETUP)
        report_setup(answers, &shown);
    enum step_verdict verdict = step_of(task->step)->failed(task, &shown, statement);
    if (task->job.outcome == OUTCOME_ORPHANED && !was_orphaned)
        recovery_report_orphan(answers->recovery, &task->job);
    dispatch(answers, task, verdict);
}

/* A failure of the job's own that may go away: a later attempt, or the end of its attempts. What was refused in an
 * earlier round has one in each. */
static void retry_job(struct answers *answers, struct task *task, const struct pg_error *failure, int statement)
{
    if (++task->attempts >= answers->options->tuning.retry_attempts ||
        recovery_was_refused(answers->recovery, &task->job)) {
        fail_job(answers, task, failure, statement);
        return;
    }
    struct backoff backoff = {.base_ms = answers->options->tuning.retry_base_ms,
                              .max_ms = answers->options->tuning.retry_max_ms,
                              .failures = task->attempts - 1};
    int64_t wait_ms = backoff_fail(&backoff, backoff_chance());
    task->batch_limit = 1; /* in company an attempt would count for nobody */
    answers->options->metrics->retries++;
    if (log_wants(LOG_LEVEL_DEBUG)) {
        const struct pg_error shown = failure_for_log(&task->job, failure);
        char id[UUID_TEXT_SIZE];
        uuid_format(task->job.content.interview_id, id);
        log_debug(LOG_FIELDS(log_text("step", step_of(task->step)->name), log_number("attempt", task->attempts),
                             log_number("wait_ms", wait_ms), log_text("sqlstate", shown.sqlstate),
                             log_text("error", shown.text)),
                  "transient failure for interview %s", id);
    }
    step_queues_add_later(answers->queues, task, wait_ms);
}

/* Somebody else has locked a row. The recovery has another round for that; a message comes back, less and less often,
 * and the less often the more of them wait: what is new must not stand in line behind thousands. */
static void wait_for_lock(struct answers *answers, struct task *task)
{
    int64_t now_ms = (int64_t)uv_now(answers->options->loop);
    if (task->job.kind == JOB_RECOVERY && task->step != JOB_MARK) {
        task->job.outcome = OUTCOME_NONE;
        dispatch(answers, task, STEP_FINISHED);
        return;
    }
    if (task->locked_since_ms == 0 || task->locked_since_ms < answers->up_since_ms)
        task->locked_since_ms = now_ms; /* an outage in between is not somebody's lock */
    int64_t waited_ms = now_ms - task->locked_since_ms;
    int64_t left_ms = answers->options->tuning.lock_patience_ms - waited_ms;
    if (left_ms <= 0) {
        const struct pg_error failure = {.text = "somebody else has locked its row for longer than lock_patience_s"};
        fail_job(answers, task, &failure, 0);
        return;
    }
    int64_t wait_ms = waited_ms / 4;
    int64_t min_ms = LOCK_WAIT_MIN_MS + (int64_t)answers->queues->later_count / LOCK_WAITS_A_MS;
    if (wait_ms < min_ms)
        wait_ms = min_ms;
    if (wait_ms > LOCK_WAIT_MAX_MS)
        wait_ms = LOCK_WAIT_MAX_MS;
    step_queues_add_later(answers->queues, task, wait_ms < left_ms ? wait_ms : left_ms);
}

static void apply_success(struct run *run)
{
    struct answers *answers = run->answers;
    struct batch *batch = &run->batch;
    const struct step *step = step_of(run->step);
    log_hold();
    for (size_t i = 0; i < batch->count; i++) {
        struct task *task = task_of(batch->jobs[i]);
        struct pg_error why;
        enum step_verdict verdict = step->succeeded(task, &batch->facts[i], &why);
        if (verdict == STEP_RETRY)
            retry_job(answers, task, &why, 0);
        else if (verdict == STEP_LOCKED)
            wait_for_lock(answers, task);
        else
            dispatch(answers, task, verdict);
    }
    log_release();
}

/* Nobody's fault yet: the batch goes again, in halves, or one by one if it took too long. Only what was sent alone
 * answers for itself: whoever is left of several may have failed by one that is settled by now. */
static void apply_failure(struct run *run, bool is_transient)
{
    struct answers *answers = run->answers;
    struct batch *batch = &run->batch;
    const struct pg_error *failure = &run->error;
    if (batch->count > 0 && run->sent_with_others) {
        bool is_timeout = strcmp(failure->sqlstate, "57014") == 0;
        unsigned limit = is_timeout ? 1 : (unsigned)(batch->count + 1) / 2;
        for (size_t i = 0; i < batch->count; i++)
            task_of(batch->jobs[i])->batch_limit = limit;
        log_debug(LOG_FIELDS(log_text("step", step_of(run->step)->name), log_number("messages", batch->count),
                             log_text("sqlstate", failure->sqlstate)),
                  "batch failed; sent again %s", is_timeout ? "one by one" : "in halves");
        step_queues_put_back(answers->queues, batch);
    } else if (batch->count == 1 && is_transient) {
        retry_job(answers, task_of(batch->jobs[0]), failure, run->failed_statement);
    } else if (batch->count == 1) {
        fail_job(answers, task_of(batch->jobs[0]), failure, run->failed_statement);
    }
}

/*
 * Of an insert and the settle in its flush one has failed, or its answer is lost. What the other has done counts: who
 * is settled leaves the batch, and once their inserts are committed the others are at the step that failed.
 */
static void take_committed(struct run *run, const struct pg_answer *answer)
{
    struct answers *answers = run->answers;
    struct batch *batch = &run->batch;
    if (!batch->settles || !step_of(run->step)->read(answers->statements, batch, answer))
        return;
    bool inserted = pg_answer_is_committed(answer, 0);
    size_t kept = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct task *task = task_of(batch->jobs[i]);
        const struct job_facts facts = batch->facts[i];
        if (facts.settle.changed) {
            struct pg_error why;
            dispatch(answers, task, step_of(run->step)->succeeded(task, &facts, &why));
            continue;
        }
        task->inserted = task->inserted || facts.write.changed;
        if (inserted)
            task->step = JOB_SETTLE;
        batch->jobs[kept++] = &task->job;
    }
    batch->count = kept;
    batch->settles = false;
    if (inserted)
        run->step = JOB_SETTLE;
}

/* --- outages ---------------------------------------------------------------------------------------------------- */

/* Half of them at a time: whose doing it is must come out, should it not be an outage. */
static void halve_batch(struct answers *answers, struct batch *batch)
{
    unsigned limit = (unsigned)(batch->count + 1) / 2;
    for (size_t i = 0; i < batch->count; i++) {
        task_of(batch->jobs[i])->batch_limit = limit;
        step_queues_add(answers->queues, task_of(batch->jobs[i]));
    }
    batch_reset(batch);
}

static void wait_alone(struct answers *answers, struct task *task)
{
    struct backoff backoff = {.base_ms = STORE_BACKOFF_BASE_MS,
                              .max_ms = answers->options->tuning.pool.backoff_max_ms,
                              .failures = task->outages - LOSSES_BEFORE_WAITING - 1};
    step_queues_add_later(answers->queues, task, backoff_fail(&backoff, backoff_chance()));
}

/*
 * An outage is nobody's failure, so that all go again. But a statement whose connection is lost each time may be what
 * loses it (a row that crashes the server): the others must not wait for that one. So the batch is halved from its
 * second time on, and what meets outages alone, again and again, waits longer and longer.
 */
static void handle_outage(struct answers *answers, struct batch *batch)
{
    bool is_first = true;
    for (size_t i = 0; i < batch->count; i++)
        if (task_of(batch->jobs[i])->outages++ > 0)
            is_first = false;
    if (batch->count == 0)
        return;
    struct task *task = task_of(batch->jobs[0]);
    bool is_alone = batch->count == 1;
    if (is_first || (is_alone && task->outages <= LOSSES_BEFORE_WAITING)) {
        step_queues_put_back(answers->queues, batch);
    } else if (!is_alone) {
        halve_batch(answers, batch);
    } else {
        batch_reset(batch);
        wait_alone(answers, task);
    }
}

static struct pg_error batch_failure_for_log(const struct batch *batch, const struct pg_error *failure)
{
    struct pg_error shown = *failure;
    for (size_t i = 0; i < batch->count; i++)
        shown = failure_for_log(batch->jobs[i], &shown);
    return shown;
}

/* Too little room, or no writes: then a probe must write. The other outages are of the session, or the server. */
static bool is_about_writing(const char *sqlstate)
{
    return strncmp(sqlstate, "53", 2) == 0 || strcmp(sqlstate, "25006") == 0;
}

/* Where a harmless statement works, the code is what somebody's trigger says, and the message's own. */
static void on_probed(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    struct run *run = context;
    struct answers *answers = run->answers;
    struct batch *batch = &run->batch;
    if (batch->count == 0) {
        /* store_abandon was faster */
    } else if (statements_probe_passed(is_about_writing(run->error.sqlstate), answer)) {
        apply_failure(run, true);
    } else {
        const struct pg_error shown = batch_failure_for_log(batch, &run->error);
        handle_outage(answers, batch);
        if (answer->status != PG_LOST)
            pg_pool_report_outage(answers->pool, session, &shown, is_about_writing(shown.sqlstate));
    }
    run->on_over(run);
}

static void probe(struct run *run, struct pg_session *session)
{
    struct pg_statement statements[PG_STATEMENTS_MAX];
    int count = statements_build_probe(is_about_writing(run->error.sqlstate), run->answers->options->source,
                                       statements);
    pg_session_run(session, statements, count, 0, on_probed, run);
}

/* What a statement lacks may be promptd_unsettled, which was there when the connection was made: then nothing can be
 * stored, and messages wait; transactions go on without it. Else it is the message's own, or somebody's trigger's. */
static void on_schema_checked(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    (void)session;
    struct run *run = context;
    struct answers *answers = run->answers;
    struct batch *batch = &run->batch;
    if (batch->count == 0) {
        /* store_abandon was faster */
    } else if (answer->status == PG_LOST) {
        handle_outage(answers, batch);
    } else if (answer->status == PG_OK && (pg_pool_report_schema(answers->pool, answer) ||
                                           batch->has_evidence != pg_pool_has_evidence(answers->pool))) {
        step_queues_put_back(answers->queues, batch);
    } else {
        apply_failure(run, false);
    }
    run->on_over(run);
}

static void check_schema(struct run *run, struct pg_session *session)
{
    struct pg_statement statements[2];
    schema_check_build(&run->answers->options->tuning.pool.needs, statements);
    pg_session_run(session, statements, 2, 0, on_schema_checked, run);
}

/* Undefined table or column, or no privilege. */
static bool may_lack_evidence(const struct run *run)
{
    return run->batch.has_evidence && strncmp(run->error.sqlstate, "42", 2) == 0;
}

/* --- answers ---------------------------------------------------------------------------------------------------- */

void run_note_unanswered(struct run *run)
{
    struct batch *batch = &run->batch;
    for (size_t i = 0; i < batch->count; i++)
        step_unanswered(task_of(batch->jobs[i]), batch->settles);
}

static void apply_loss(struct run *run, const struct pg_answer *answer)
{
    struct batch *batch = &run->batch;
    bool with_settle = batch->settles;
    take_committed(run, answer);
    for (size_t i = 0; i < batch->count; i++)
        step_unanswered(task_of(batch->jobs[i]), with_settle);
    handle_outage(run->answers, batch);
}

/* Errors of our own statements, and none of the server's, are said in other words. */
static struct pg_error failure_of(const struct pg_answer *answer)
{
    if (statements_is_suppressed(answer->error.sqlstate, answer->error.text))
        return (struct pg_error){.text = "the update changed no row"};
    if (statements_is_replaced(answer->error.sqlstate, answer->error.text))
        return (struct pg_error){.text = "a trigger or a rule has given the prompt another id"};
    return answer->error;
}

void run_answered(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    struct run *run = context;
    struct answers *answers = run->answers;
    struct batch *batch = &run->batch;
    if (batch->count == 0) {
        /* store_abandon was faster: its jobs are gone */
    } else if (answer->status == PG_OK && step_of(run->step)->read(answers->statements, batch, answer)) {
        apply_success(run);
    } else if (answer->status == PG_OK) {
        pg_session_drop(session, "an answer did not have the expected form");
        run_note_unanswered(run);
        handle_outage(answers, batch);
    } else if (answer->status == PG_LOST) {
        apply_loss(run, answer);
    } else {
        bool is_suppressed = statements_is_suppressed(answer->error.sqlstate, answer->error.text);
        run->error = failure_of(answer);
        run->sent_with_others = batch->count > 1;
        run->failed_statement = batch->settles ? 0 : answer->failed_statement;
        take_committed(run, answer);
        enum sqlstate_action action = sqlstate_classify(answer->error.sqlstate);
        bool is_doubtful = batch->count > 0 && (action == SQLSTATE_OUTAGE || may_lack_evidence(run));
        if (is_doubtful && pg_session_is_idle(session)) {
            if (action == SQLSTATE_OUTAGE)
                probe(run, session);
            else
                check_schema(run, session);
            return;
        }
        if (is_doubtful) /* the session was lost, or closed, meanwhile: nobody can be asked */
            handle_outage(answers, batch);
        else
            apply_failure(run, action == SQLSTATE_TRANSIENT || is_suppressed);
    }
    run->on_over(run);
}
