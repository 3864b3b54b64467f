/* SPDX-License-Identifier: MIT */
/* A query now and then, and a memory of what it has found before. */
#include "reconciler.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "store"
#include "promptd/log.h"

enum { RECONCILER_REMEMBERED = 4096 };

struct reconciler {
    struct reconciler_options options;
    uv_timer_t timer;
    bool due; /* it waits for a session */
    bool running;
    uint8_t (*reported)[UUID_SIZE]; /* a ring: the oldest is forgotten first */
    size_t reported_count;
    size_t reported_next;
    struct buffer parameter;
};

static void on_timer(uv_timer_t *timer);

static void remember(struct reconciler *reconciler, const uint8_t prompt_id[UUID_SIZE])
{
    memcpy(reconciler->reported[reconciler->reported_next], prompt_id, UUID_SIZE);
    reconciler->reported_next = (reconciler->reported_next + 1) % RECONCILER_REMEMBERED;
    if (reconciler->reported_count < RECONCILER_REMEMBERED)
        reconciler->reported_count++;
}

static void wait_for_next(struct reconciler *reconciler, int64_t wait_ms)
{
    if (reconciler->options.interval_ms > 0)
        (void)uv_timer_start(&reconciler->timer, on_timer, (uint64_t)wait_ms, 0);
    else
        (void)uv_timer_stop(&reconciler->timer);
}

static void on_found_rows(struct reconciler *reconciler, const struct pg_answer *answer)
{
    int rows = pg_answer_rows(answer, 0);
    for (int row = 0; row < rows; row++) {
        size_t prompt_length;
        size_t interview_length;
        const uint8_t *prompt_id = (const uint8_t *)pg_answer_field(answer, 0, row, 0, &prompt_length);
        const uint8_t *interview_id = (const uint8_t *)pg_answer_field(answer, 0, row, 1, &interview_length);
        if (prompt_length != UUID_SIZE || interview_length != UUID_SIZE)
            continue;
        remember(reconciler, prompt_id);
        reconciler->options.on_found(reconciler->options.context, interview_id, prompt_id);
    }
}

static void on_answer(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    (void)session;
    struct reconciler *reconciler = context;
    reconciler->running = false;
    buffer_reset(&reconciler->parameter, 0);
    if (answer->status == PG_OK)
        on_found_rows(reconciler, answer);
    else if (answer->status == PG_FAILED)
        log_warning(LOG_FIELDS(log_text("sqlstate", answer->failure.sqlstate), log_text("error", answer->failure.text)),
                    "the search for unreported orphans failed");
    wait_for_next(reconciler, reconciler->options.interval_ms);
    reconciler->options.on_wake(reconciler->options.context);
}

static void on_timer(uv_timer_t *timer)
{
    struct reconciler *reconciler = timer->data;
    reconciler->due = true;
    reconciler->options.on_wake(reconciler->options.context);
}

bool reconciler_start(struct reconciler *reconciler, struct pg_session *session)
{
    struct pg_statement statement;
    if (!reconciler->due || reconciler->running)
        return false;
    reconciler->due = false;
    if (!statements_build_find(reconciler->options.statements, (const uint8_t(*)[UUID_SIZE])reconciler->reported,
                               reconciler->reported_count, &reconciler->parameter, &statement)) {
        buffer_reset(&reconciler->parameter, 0);
        wait_for_next(reconciler, reconciler->options.interval_ms);
        return false;
    }
    reconciler->running = true;
    pg_session_run(session, &statement, 1, on_answer, reconciler);
    return true;
}

struct reconciler *reconciler_new(const struct reconciler_options *options)
{
    struct reconciler *reconciler = calloc(1, sizeof *reconciler);
    if (!reconciler)
        return NULL;
    reconciler->reported = calloc(RECONCILER_REMEMBERED, sizeof *reconciler->reported);
    if (!reconciler->reported) {
        free(reconciler);
        return NULL;
    }
    reconciler->options = *options;
    (void)uv_timer_init(options->loop, &reconciler->timer); /* always 0 */
    reconciler->timer.data = reconciler;
    return reconciler;
}

void reconciler_set_interval(struct reconciler *reconciler, int64_t interval_ms)
{
    bool changed = interval_ms != reconciler->options.interval_ms;
    reconciler->options.interval_ms = interval_ms;
    reconciler->due = reconciler->due && interval_ms > 0;
    if (changed)
        wait_for_next(reconciler, interval_ms);
}

void reconciler_run(struct reconciler *reconciler)
{
    wait_for_next(reconciler, 0);
}

static void on_closed(uv_handle_t *handle)
{
    struct reconciler *reconciler = handle->data;
    buffer_free(&reconciler->parameter);
    free(reconciler->reported);
    free(reconciler);
}

void reconciler_close(struct reconciler *reconciler)
{
    uv_close((uv_handle_t *)&reconciler->timer, on_closed);
}
