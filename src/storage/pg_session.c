/* SPDX-License-Identifier: MIT */
/*
 * One PostgreSQL connection as a small state machine.
 *
 *     CLOSED ──dial──▶ DIALLING ──▶ IDLE ◀──▶ BUSY ──deadline──▶ CANCELLING
 *        ▲                │           │         │                    │
 *        └── on_down ─────┴───────────┴─────────┴────────────────────┘
 *
 *     any, by pg_session_close ──with a run in flight──▶ ENDING ──answer, loss──▶ GONE
 *
 * Work in the thread pool (a dial, a cancel) cannot be interrupted. A dial is waited for, so that a PGconn is only ever
 * touched by one thread. A cancel is waited for before the next run of the same connection, which it might hit; when
 * the connection is lost meanwhile nobody needs it any more, and it finishes in its own time. Should it hit the
 * second transaction of its run instead of the first, that one has failed as cancelled, and is tried again as such.
 */
#include "promptd/pg_session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "pg_session_private.h"
#include "promptd/log.h"

enum {
    SESSION_CANCEL_GRACE_MS = 3000, /* for the answer to a cancel request */
    SESSION_CANCEL_AGAIN_MS = 50
};

static void on_later(uv_timer_t *timer);

/* --- state ---------------------------------------------------------------------------------------------------- */

static bool is_edge(enum pg_state from, enum pg_state to)
{
    switch (to) {
    case PG_STATE_DIALLING:
        return from == PG_STATE_CLOSED;
    case PG_STATE_IDLE:
        return from == PG_STATE_DIALLING || from == PG_STATE_BUSY || from == PG_STATE_CANCELLING;
    case PG_STATE_BUSY: /* from CANCELLING: the next transaction of the same run */
        return from == PG_STATE_IDLE || from == PG_STATE_CANCELLING;
    case PG_STATE_CANCELLING:
        return from == PG_STATE_BUSY;
    case PG_STATE_ENDING:
        return from == PG_STATE_BUSY || from == PG_STATE_CANCELLING;
    case PG_STATE_CLOSED:
    case PG_STATE_GONE:
        break;
    }
    return from != PG_STATE_GONE;
}

void pg_session_move(struct pg_session *session, enum pg_state state, const char *reason)
{
    static const char *const names[] = {"closed", "dialling", "idle", "busy", "cancelling", "ending", "gone"};
    if (session->state == state)
        return;
    bool is_legal = is_edge(session->state, state);
    assert(is_legal);
    (void)is_legal; /* without assertions */
    log_debug(
        LOG_FIELDS(log_text("from", names[session->state]), log_text("to", names[state]), log_text("reason", reason)),
        "state changed");
    session->state = state;
}

/* --- text from the server ------------------------------------------------------------------------------------- */

void pg_session_copy_shortened(char *out, size_t size, const char *text)
{
    enum { ERROR_CHARACTERS_MAX = 200 };
    size_t used = 0;
    size_t characters = 0;
    for (const char *at = text; *at && used + 5 < size; at++) {
        bool starts_character = ((unsigned char)*at & 0xC0) != 0x80;
        if (starts_character && characters++ == ERROR_CHARACTERS_MAX)
            break;
        out[used++] = *at;
    }
    while (used > 0 && (out[used - 1] == '\n' || out[used - 1] == ' '))
        used--;
    out[used] = '\0';
}

/* What libpq says of a connection: one line, and without its guesses about the cause. */
static void copy_reason(char *out, size_t size, const char *text)
{
    pg_session_copy_shortened(out, size, text);
    char *guesses = strstr(out, "\n\t");
    if (guesses)
        *guesses = '\0';
    for (char *at = out; *at; at++)
        if (*at == '\n')
            *at = ' ';
}

/* --- watching the socket -------------------------------------------------------------------------------------- */

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void poll_close(struct pg_session *session)
{
    if (!session->poll)
        return;
    uv_close((uv_handle_t *)session->poll, on_poll_closed);
    session->poll = NULL;
    session->poll_events = 0;
}

static void on_socket(uv_poll_t *poll, int status, int events);

static bool poll_want(struct pg_session *session, int events)
{
    if (session->poll_events == events)
        return true;
    session->poll_events = events;
    return uv_poll_start(session->poll, events, on_socket) == 0;
}

bool pg_session_flush(struct pg_session *session)
{
    int left = PQflush(session->connection);
    if (left < 0)
        return false;
    return poll_want(session, left ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    (void)status; /* libuv stops the handle then; whatever happened, reading finds out */
    (void)events;
    struct pg_session *session = poll->data;
    if (status < 0)
        session->poll_events = 0;
    bool alive = PQconsumeInput(session->connection) == 1;
    pg_run_read(session);
    if (session->poll != poll)
        return; /* an answer's callback has dropped the connection */
    if (!alive || PQstatus(session->connection) == CONNECTION_BAD)
        pg_session_lose(session, PQerrorMessage(session->connection));
    else if (!pg_session_flush(session))
        pg_session_lose(session, "the connection failed while sending");
}

/* --- losing and closing --------------------------------------------------------------------------------------- */

static void close_connection(struct pg_session *session)
{
    poll_close(session); /* before the socket goes: libuv must not see it closed */
    PQfinish(session->connection);
    session->connection = NULL;
    session->cancel_may_hit = false;
    (void)uv_timer_stop(&session->deadline);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct pg_session *session = handle->data;
    if (--session->open_handles > 0)
        return;
    void (*on_closed)(void *) = session->options.on_closed;
    void *context = session->options.context;
    free(session);
    on_closed(context);
}

static void finish_close(struct pg_session *session)
{
    if (session->dial_in_thread || session->cancel_in_thread)
        return; /* comes here again when the thread is done */
    if (pg_run_is_unanswered(session))
        pg_run_deliver(session);
    uv_close((uv_handle_t *)&session->deadline, on_handle_closed);
    uv_close((uv_handle_t *)&session->later, on_handle_closed);
}

/* The reason is delivered from the loop, with the run in flight answered first. */
void pg_session_lose(struct pg_session *session, const char *reason)
{
    copy_reason(session->down_reason, sizeof session->down_reason, reason[0] ? reason : "connection lost");
    pg_run_lose(session, session->down_reason);
    close_connection(session);
    enum pg_state next = session->state == PG_STATE_ENDING ? PG_STATE_GONE : PG_STATE_CLOSED;
    pg_session_move(session, next, session->down_reason);
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

static void on_later(uv_timer_t *timer)
{
    struct pg_session *session = timer->data;
    if (session->state == PG_STATE_GONE) {
        finish_close(session);
        return;
    }
    if (pg_run_is_unanswered(session))
        pg_run_deliver(session);
    if (session->state == PG_STATE_CLOSED)
        session->options.on_down(session->options.context, session, session->down_reason);
}

void pg_session_drop(struct pg_session *session, const char *reason)
{
    if (session->state != PG_STATE_GONE)
        pg_session_lose(session, reason);
}

static void start_cancel(struct pg_session *session);
static void on_deadline(uv_timer_t *timer);

/* A cancel that arrives before its statement has begun cancels nothing: again and again, until there is an answer. */
static void cancel_at_end(struct pg_session *session)
{
    start_cancel(session);
    (void)uv_timer_start(&session->deadline, on_deadline, SESSION_CANCEL_AGAIN_MS, 0);
}

/* A failure may be the cancel's, and says nothing of its job: whoever waits for the answer hears of a loss. */
void pg_session_end(struct pg_session *session)
{
    if (session->connection)
        close_connection(session);
    if (session->run.answer.status == PG_FAILED)
        session->run.answer_ready = false;
    pg_run_lose(session, "the session was closed");
    pg_session_move(session, PG_STATE_GONE, "closed by its owner");
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

/* A closed connection ends no statement: it would go on, and wait, for as long as it likes. */
void pg_session_close(struct pg_session *session)
{
    if (!session->connection || !pg_run_is_unanswered(session) || session->run.answer_ready) {
        pg_session_end(session);
        return;
    }
    pg_session_move(session, PG_STATE_ENDING, "closed by its owner");
    cancel_at_end(session);
}

/* --- dialling ------------------------------------------------------------------------------------------------- */

/* A notice may quote a row: it reaches no log. */
static void ignore_notice(void *context, const PGresult *result)
{
    (void)context;
    (void)result;
}

/* In the thread pool. What stands before dbname may be overridden by the URL, what stands after may not. */
static void run_dial(uv_work_t *work)
{
    struct pg_session *session = work->data;
    char connect_timeout[16];
    char user_timeout[24];
    (void)snprintf(connect_timeout, sizeof connect_timeout, "%u", session->options.dial_timeout_s);
    (void)snprintf(user_timeout, sizeof user_timeout, "%lld", (long long)session->options.statement_timeout_ms);
    const char *const keywords[] = {
        "application_name", "connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count",
        "tcp_user_timeout", "gssencmode",      "dbname",          "client_encoding",     NULL};
    const char *const values[] = {
        "promptd", connect_timeout, "5", "2", "3", user_timeout, "disable", session->options.database_url, "UTF8",
        NULL};
    session->dialled = PQconnectdbParams(keywords, values, 1);
}

static bool adopt_connection(struct pg_session *session, PGconn *connection, const char **reason)
{
    *reason = "out of memory";
    if (!connection)
        return false;
    *reason = PQerrorMessage(connection);
    if (PQstatus(connection) != CONNECTION_OK)
        return false;
    (void)PQsetNoticeReceiver(connection, ignore_notice, NULL);
    *reason = "the connection could not be made non-blocking and pipelined";
    if (PQsetnonblocking(connection, 1) != 0 || PQenterPipelineMode(connection) != 1)
        return false;
    *reason = "the socket could not be watched";
    session->poll = calloc(1, sizeof *session->poll);
    if (!session->poll)
        return false;
    if (uv_poll_init(session->options.loop, session->poll, PQsocket(connection)) != 0) {
        free(session->poll);
        session->poll = NULL;
        return false;
    }
    session->poll->data = session;
    session->connection = connection;
    session->is_direct = false;
    session->prepared_count = 0;
    return poll_want(session, UV_READABLE);
}

static void on_dialled(uv_work_t *work, int status)
{
    struct pg_session *session = work->data;
    PGconn *connection = session->dialled;
    session->dialled = NULL;
    session->dial_in_thread = false;
    if (session->state == PG_STATE_GONE) {
        PQfinish(connection);
        finish_close(session);
        return;
    }
    const char *reason = "the dial was cancelled";
    if (status == 0 && adopt_connection(session, connection, &reason)) {
        pg_session_move(session, PG_STATE_IDLE, "connected");
        session->options.on_up(session->options.context, session);
        return;
    }
    copy_reason(session->down_reason, sizeof session->down_reason, reason);
    session->connection = connection;
    close_connection(session);
    pg_session_move(session, PG_STATE_CLOSED, session->down_reason);
    session->options.on_down(session->options.context, session, session->down_reason);
}

void pg_session_dial(struct pg_session *session)
{
    pg_session_move(session, PG_STATE_DIALLING, "asked to");
    session->dial_work.data = session;
    session->dial_in_thread = true;
    int status = uv_queue_work(session->options.loop, &session->dial_work, run_dial, on_dialled);
    if (status == 0)
        return;
    session->dial_in_thread = false;
    copy_reason(session->down_reason, sizeof session->down_reason, uv_strerror(status));
    pg_session_move(session, PG_STATE_CLOSED, session->down_reason);
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

/* --- deadline ------------------------------------------------------------------------------------------------- */

static void run_cancel(uv_work_t *work)
{
    struct pg_session *session = work->data;
    char ignored[256]; /* a cancel that fails is followed by the second deadline */
    (void)PQcancel(session->cancel, ignored, sizeof ignored);
}

static void on_cancelled(uv_work_t *work, int status)
{
    (void)status;
    struct pg_session *session = work->data;
    PQfreeCancel(session->cancel);
    session->cancel = NULL;
    session->cancel_in_thread = false;
    session->cancel_may_hit = false;
    ++*session->options.cancels_left;
    if (session->state == PG_STATE_GONE)
        finish_close(session);
    else if (session->connection) /* else on_later has the answer, and says why there is none */
        pg_run_go_on(session);
}

/* One at a time: should an earlier one still be busy with a connection that is gone, the second deadline decides. */
static void start_cancel(struct pg_session *session)
{
    session->cancel_waits = !session->cancel_in_thread && *session->options.cancels_left == 0;
    if (session->cancel_in_thread || session->cancel_waits)
        return;
    session->cancel = PQgetCancel(session->connection);
    if (!session->cancel)
        return;
    session->cancel_work.data = session;
    session->cancel_in_thread = uv_queue_work(session->options.loop, &session->cancel_work, run_cancel, on_cancelled) ==
                                0;
    session->cancel_may_hit = session->cancel_in_thread;
    if (session->cancel_in_thread) {
        --*session->options.cancels_left;
    } else {
        PQfreeCancel(session->cancel);
        session->cancel = NULL;
    }
}

void pg_session_await_cancel(struct pg_session *session)
{
    pg_session_move(session, PG_STATE_CANCELLING, "a statement is being cancelled");
    session->cancel_waits = false;
    (void)uv_timer_start(&session->deadline, on_deadline, SESSION_CANCEL_GRACE_MS, 0);
}

/* The turn is waited for as long as the answer would be. */
static void cancel_in_turn(struct pg_session *session)
{
    start_cancel(session);
    uint64_t wait_ms = session->cancel_waits ? SESSION_CANCEL_AGAIN_MS : SESSION_CANCEL_GRACE_MS;
    (void)uv_timer_start(&session->deadline, on_deadline, wait_ms, 0);
}

static void on_deadline(uv_timer_t *timer)
{
    struct pg_session *session = timer->data;
    int64_t now_ms = (int64_t)uv_now(session->options.loop);
    if (session->state == PG_STATE_ENDING) {
        cancel_at_end(session);
    } else if (session->state != PG_STATE_CANCELLING) {
        log_debug(LOG_FIELDS(log_number("timeout_ms", session->run.timeout_ms)), "cancelling a statement");
        pg_session_await_cancel(session);
        session->cancel_until_ms = now_ms + SESSION_CANCEL_GRACE_MS;
        cancel_in_turn(session);
    } else if (session->cancel_waits && now_ms < session->cancel_until_ms) {
        cancel_in_turn(session);
    } else {
        pg_session_lose(session, "no answer within statement_timeout_ms, nor to the cancel request");
    }
}

void pg_session_start_deadline(struct pg_session *session)
{
    if (session->state == PG_STATE_ENDING)
        return;
    pg_session_move(session, PG_STATE_BUSY, "a transaction was sent");
    (void)uv_timer_start(&session->deadline, on_deadline, (uint64_t)session->run.timeout_ms, 0);
}

/* --- the rest of the interface -------------------------------------------------------------------------------- */

struct pg_session *pg_session_new(const struct pg_session_options *options)
{
    struct pg_session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    session->options = *options;
    (void)uv_timer_init(options->loop, &session->deadline); /* always 0 */
    (void)uv_timer_init(options->loop, &session->later);
    session->deadline.data = session;
    session->later.data = session;
    session->open_handles = 2;
    return session;
}

bool pg_session_is_idle(const struct pg_session *session)
{
    return session->state == PG_STATE_IDLE;
}

bool pg_session_is_open(const struct pg_session *session)
{
    return session->connection != NULL;
}

bool pg_session_is_dialling(const struct pg_session *session)
{
    return session->state == PG_STATE_DIALLING;
}

void pg_session_set_timeout(struct pg_session *session, int64_t statement_timeout_ms)
{
    session->options.statement_timeout_ms = statement_timeout_ms;
}
