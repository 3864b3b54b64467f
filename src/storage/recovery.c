/* SPDX-License-Identifier: MIT */
/* Rounds through promptd_unsettled, and two short lists of what could not be put right yet. */
#include "recovery.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "store"
#include "batch.h"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/outcome.h"
#include "steps.h"

/* Linear search is fine for what should not exist. What has no room is in the log, and orphans in the database. */
enum { ORPHANS_MAX = 10000, STUCK_MAX = 1000 };

/* The next page does not wait for every job of the last one: some may take for ever, as when they lose their connection
 * each time. */
enum { IN_WORK_MAX = 2 * UNSETTLED_PAGE_ROWS };

struct orphan {
    struct open_orphan open;
    bool seen; /* in this round, or reported since it began */
};

struct stuck {
    uint8_t interview_id[UUID_SIZE];
    bool in_work;
};

struct recovery {
    const struct store_options *options;
    void (*on_wake)(void *context);
    void *context;
    uv_timer_t timer;
    bool due; /* a page waits for a session, and until few enough jobs are in work */
    bool running;
    size_t in_work; /* jobs that were admitted, at most IN_WORK_MAX */
    uint8_t cursor[UUID_SIZE];
    struct buffer parameters;
    uint64_t rows; /* of this round so far */
    struct orphan orphans[ORPHANS_MAX];
    size_t orphan_count;
    struct stuck stuck[STUCK_MAX];
    size_t stuck_count;
    size_t stuck_next;
};

static void on_timer(uv_timer_t *timer);

/* --- rounds ----------------------------------------------------------------------------------------------------- */

static void wait_for_next(struct recovery *recovery)
{
    int64_t interval_ms = recovery->options->tuning.reconcile_interval_ms;
    if (interval_ms > 0)
        (void)uv_timer_start(&recovery->timer, on_timer, (uint64_t)interval_ms, 0);
    else
        (void)uv_timer_stop(&recovery->timer);
}

/* false: its interview is in work here, too many are, or there is no memory. The next round tries again. */
static bool admit(struct recovery *recovery, struct job *job)
{
    if (job && recovery->in_work < IN_WORK_MAX && pipeline_admit_recovery(recovery->options->pipeline, job)) {
        recovery->in_work++;
        return true;
    }
    job_free(job);
    return false;
}

/* Each round begins where the last one ended: they need not all have room at once. */
static void retry_stuck(struct recovery *recovery)
{
    for (size_t i = 0; i < recovery->stuck_count; i++) {
        struct stuck *stuck = &recovery->stuck[recovery->stuck_next++ % recovery->stuck_count];
        if (stuck->in_work)
            continue;
        stuck->in_work = admit(recovery, job_new_marking(sizeof(struct task), stuck->interview_id));
        if (recovery->in_work >= UNSETTLED_PAGE_ROWS)
            return;
    }
}

void recovery_begin(struct recovery *recovery)
{
    if (recovery->options->tuning.reconcile_interval_ms == 0)
        return;
    wait_for_next(recovery);
    retry_stuck(recovery);
    if (recovery->due || recovery->running)
        return; /* the round before is not over */
    for (size_t i = 0; i < recovery->orphan_count; i++)
        recovery->orphans[i].seen = false;
    memset(recovery->cursor, 0, UUID_SIZE);
    recovery->rows = 0;
    recovery->due = true;
    recovery->on_wake(recovery->context);
}

static void on_timer(uv_timer_t *timer)
{
    recovery_begin(timer->data);
}

static struct orphan *find_orphan(struct recovery *recovery, const uint8_t prompt_id[UUID_SIZE])
{
    for (size_t i = 0; i < recovery->orphan_count; i++)
        if (memcmp(recovery->orphans[i].open.prompt_id, prompt_id, UUID_SIZE) == 0)
            return &recovery->orphans[i];
    return NULL;
}

static void resolve(struct recovery *recovery, struct orphan *orphan)
{
    outcome_report_resolved(orphan->open.interview_id, orphan->open.prompt_id);
    *orphan = recovery->orphans[--recovery->orphan_count];
    recovery->options->metrics->orphans_open = recovery->orphan_count;
}

/* Every row has been read: a reported orphan that was not among them is settled or gone, by whomever. */
static void end_round(struct recovery *recovery)
{
    recovery->options->metrics->unsettled_prompts = recovery->rows;
    for (size_t i = recovery->orphan_count; i > 0; i--)
        if (!recovery->orphans[i - 1].seen)
            resolve(recovery, &recovery->orphans[i - 1]);
}

static void take_up(struct recovery *recovery, const uint8_t interview_id[UUID_SIZE],
                    const uint8_t prompt_id[UUID_SIZE])
{
    struct orphan *orphan = find_orphan(recovery, prompt_id);
    if (orphan)
        orphan->seen = true;
    (void)admit(recovery, job_new_recovery(sizeof(struct task), interview_id, prompt_id));
}

static bool read_page(struct recovery *recovery, const struct pg_answer *answer)
{
    int rows = pg_answer_rows(answer, 0);
    for (int row = 0; row < rows; row++) {
        size_t lengths[2];
        const char *prompt_id = pg_answer_field(answer, 0, row, 0, &lengths[0]);
        const char *interview_id = pg_answer_field(answer, 0, row, 1, &lengths[1]);
        if (lengths[0] != UUID_SIZE || lengths[1] != UUID_SIZE)
            return false;
        memcpy(recovery->cursor, prompt_id, UUID_SIZE);
        recovery->rows++;
        take_up(recovery, (const uint8_t *)interview_id, (const uint8_t *)prompt_id);
    }
    return true;
}

static void on_page(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    (void)session;
    struct recovery *recovery = context;
    recovery->running = false;
    if (answer->status == PG_OK && read_page(recovery, answer)) {
        recovery->due = pg_answer_rows(answer, 0) == UNSETTLED_PAGE_ROWS;
        if (!recovery->due)
            end_round(recovery);
    } else if (answer->status == PG_FAILED) {
        log_warning(LOG_FIELDS(log_text("sqlstate", answer->error.sqlstate), log_text("error", answer->error.text)),
                    "promptd_unsettled could not be read; the next round tries again");
    }
    recovery->on_wake(recovery->context);
}

bool recovery_start(struct recovery *recovery, struct pg_session *session)
{
    if (!recovery->due || recovery->running || recovery->in_work >= UNSETTLED_PAGE_ROWS)
        return false;
    recovery->due = false;
    struct pg_statement statement;
    struct buffer *parameters = &recovery->parameters;
    buffer_reset(parameters, SIZE_MAX);
    array_begin(parameters, PG_UUID, recovery->orphan_count);
    for (size_t i = 0; i < recovery->orphan_count; i++)
        array_add(parameters, recovery->orphans[i].open.prompt_id, UUID_SIZE);
    if (!statements_build_unsettled(recovery->options->tuning.recover_after_s, recovery->cursor, parameters,
                                    &statement))
        return false; /* out of memory: the next round */
    recovery->running = true;
    pg_session_run(session, &statement, 1, 0, on_page, recovery);
    return true;
}

/* --- what could not be put right -------------------------------------------------------------------------------- */

void recovery_report_orphan(struct recovery *recovery, const struct job *job)
{
    struct orphan *known = find_orphan(recovery, job->prompt_id);
    if (known) {
        known->seen = true;
        return;
    }
    outcome_report_orphan(job);
    if (recovery->orphan_count == ORPHANS_MAX) {
        log_warning(NULL, "too many open orphans to watch this one");
        return;
    }
    struct orphan *orphan = &recovery->orphans[recovery->orphan_count++];
    recovery->options->metrics->orphans_open = recovery->orphan_count;
    *orphan = (struct orphan){.open.since_ms = clock_monotonic_ms(), .seen = true};
    memcpy(orphan->open.interview_id, job->content.interview_id, UUID_SIZE);
    memcpy(orphan->open.prompt_id, job->prompt_id, UUID_SIZE);
}

bool recovery_was_refused(struct recovery *recovery, const struct job *job)
{
    return job->kind == JOB_MARKING || (job->kind == JOB_RECOVERY && find_orphan(recovery, job->prompt_id));
}

static struct stuck *find_stuck(struct recovery *recovery, const uint8_t interview_id[UUID_SIZE])
{
    for (size_t i = 0; i < recovery->stuck_count; i++)
        if (memcmp(recovery->stuck[i].interview_id, interview_id, UUID_SIZE) == 0)
            return &recovery->stuck[i];
    return NULL;
}

void recovery_add_stuck(struct recovery *recovery, const struct job *job)
{
    if (recovery->stuck_count == STUCK_MAX || find_stuck(recovery, job->content.interview_id))
        return;
    struct stuck *stuck = &recovery->stuck[recovery->stuck_count++];
    *stuck = (struct stuck){.in_work = false};
    memcpy(stuck->interview_id, job->content.interview_id, UUID_SIZE);
}

static void finish_marking(struct recovery *recovery, const struct job *job)
{
    struct stuck *stuck = find_stuck(recovery, job->content.interview_id);
    if (!stuck)
        return;
    stuck->in_work = false;
    if (job->stuck)
        return;
    outcome_report_unstuck(job);
    *stuck = recovery->stuck[--recovery->stuck_count];
}

static void finish_prompt(struct recovery *recovery, const struct job *job)
{
    bool settled = job->outcome == OUTCOME_STORED;
    struct orphan *orphan = find_orphan(recovery, job->prompt_id);
    if (settled || job->undone) {
        if (settled)
            recovery->options->metrics->recovered_settled++;
        else
            recovery->options->metrics->recovered_rolled_back++;
        outcome_report_recovered(job);
    }
    if (orphan && (settled || job->undone || job->outcome == OUTCOME_DUPLICATE))
        resolve(recovery, orphan);
    if (!job->stuck)
        return;
    outcome_report_stuck(job);
    recovery_add_stuck(recovery, job);
}

void recovery_finish(struct recovery *recovery, const struct job *job)
{
    if (--recovery->in_work < UNSETTLED_PAGE_ROWS && recovery->due)
        recovery->on_wake(recovery->context);
    if (job->kind == JOB_MARKING)
        finish_marking(recovery, job);
    else
        finish_prompt(recovery, job);
}

size_t recovery_list_orphans(const struct recovery *recovery, struct open_orphan *list, size_t max)
{
    size_t count = recovery->orphan_count < max ? recovery->orphan_count : max;
    for (size_t i = 0; i < count; i++)
        list[i] = recovery->orphans[i].open;
    return count;
}

/* --- life ------------------------------------------------------------------------------------------------------- */

struct recovery *recovery_new(const struct store_options *options, void (*on_wake)(void *context), void *context)
{
    struct recovery *recovery = calloc(1, sizeof *recovery);
    if (!recovery)
        return NULL;
    recovery->options = options;
    recovery->on_wake = on_wake;
    recovery->context = context;
    (void)uv_timer_init(options->loop, &recovery->timer); /* always 0 */
    recovery->timer.data = recovery;
    return recovery;
}

void recovery_interval_changed(struct recovery *recovery)
{
    recovery->due = recovery->due && recovery->options->tuning.reconcile_interval_ms > 0;
    wait_for_next(recovery);
}

static void on_closed(uv_handle_t *handle)
{
    struct recovery *recovery = handle->data;
    buffer_free(&recovery->parameters);
    free(recovery);
}

void recovery_close(struct recovery *recovery)
{
    uv_close((uv_handle_t *)&recovery->timer, on_closed);
}
