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
#include "pg_run.h"
#include "pg_thread.h"
#include "promptd/log.h"

enum {
    SESSION_CANCEL_GRACE_MS = 3000, /* for the answer to a cancel request */
    SESSION_CANCEL_AGAIN_MS = 50
};

enum pg_state {
    PG_STATE_CLOSED,     /* no connection; leaves by pg_session_dial */
    PG_STATE_DIALLING,   /* PQconnectdbParams runs in the thread pool; leaves with its end */
    PG_STATE_IDLE,       /* connected, nothing in flight; leaves by a run or by losing the connection */
    PG_STATE_BUSY,       /* a run awaits its answer; leaves with the answer, the deadline or a loss */
    PG_STATE_CANCELLING, /* the deadline has passed; leaves with the answer, a second deadline or a loss */
    PG_STATE_ENDING,     /* pg_session_close has cancelled the run; leaves with its answer or a loss */
    PG_STATE_GONE        /* pg_session_close was called; waits for the end of its threads and handles */
};

struct pg_session {
    struct pg_session_options options;
    enum pg_state state;
    PGconn *connection;

    struct pg_dial dial;
    struct pg_cancel cancel;
    bool cancel_waits;       /* for its turn */
    int64_t cancel_until_ms; /* on the loop's clock: as long as that */
    bool cancel_may_hit;     /* it is of this connection, and would hit whatever runs there */

    uv_poll_t *poll; /* a handle of its own for each connection: it outlives the socket until its close callback */
    int poll_events;
    uv_timer_t deadline;
    uv_timer_t later; /* delivers what must not be called back at once */
    int open_handles;
    char down_reason[256];

    struct pg_names names; /* of this connection */
    struct pg_run run;     /* the one in flight; it stays until a cancel of it is over, too */
    int64_t timeout_ms;    /* of each of its transactions */
};

static void on_later(uv_timer_t *timer);
static void on_deadline(uv_timer_t *timer);
static void lose(struct pg_session *session, const char *reason);
static void start_cancel(struct pg_session *session);
static void read_run(struct pg_session *session);
static void complete_run(struct pg_session *session);

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

/* The only mover. */
static void move(struct pg_session *session, enum pg_state state, const char *reason)
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

/* Sends what libpq still holds, and watches for writability only while it holds some. false: the connection failed. */
static bool flush(struct pg_session *session)
{
    int left = PQflush(session->connection);
    if (left < 0)
        return false;
    return poll_want(session, left ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct pg_session *session = poll->data;
    if (status < 0) /* libuv has stopped the handle; whatever happened, reading finds out */
        session->poll_events = 0;
    bool alive = PQconsumeInput(session->connection) == 1;
    read_run(session);
    if (session->poll != poll)
        return; /* an answer's callback has dropped the connection */
    if (!alive || PQstatus(session->connection) == CONNECTION_BAD)
        lose(session, PQerrorMessage(session->connection));
    else if (!flush(session))
        lose(session, "the connection failed while sending");
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
    if (session->dial.in_thread || session->cancel.in_thread)
        return; /* comes here again when the thread is done */
    if (session->run.answered)
        pg_run_deliver(&session->run, session);
    uv_close((uv_handle_t *)&session->deadline, on_handle_closed);
    uv_close((uv_handle_t *)&session->later, on_handle_closed);
}

/* The connection is of no use any more. The reason is delivered from the loop, with the run in flight answered first.
 */
static void lose(struct pg_session *session, const char *reason)
{
    pg_error_copy_reason(session->down_reason, sizeof session->down_reason, reason[0] ? reason : "connection lost");
    pg_run_lose(&session->run, session->down_reason);
    close_connection(session);
    enum pg_state next = session->state == PG_STATE_ENDING ? PG_STATE_GONE : PG_STATE_CLOSED;
    move(session, next, session->down_reason);
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

static void on_later(uv_timer_t *timer)
{
    struct pg_session *session = timer->data;
    if (session->state == PG_STATE_GONE) {
        finish_close(session);
        return;
    }
    if (session->run.answered)
        pg_run_deliver(&session->run, session);
    if (session->state == PG_STATE_CLOSED)
        session->options.on_down(session->options.context, session->down_reason);
}

void pg_session_drop(struct pg_session *session, const char *reason)
{
    if (session->state != PG_STATE_GONE)
        lose(session, reason);
}

/* A cancel that arrives before its statement has begun cancels nothing: again and again, until there is an answer. */
static void cancel_at_end(struct pg_session *session)
{
    start_cancel(session);
    (void)uv_timer_start(&session->deadline, on_deadline, SESSION_CANCEL_AGAIN_MS, 0);
}

/* A failure may be the cancel's, and says nothing of its job: whoever waits for the answer hears of a loss. */
static void end(struct pg_session *session)
{
    close_connection(session);
    if (session->run.answer.status == PG_FAILED)
        session->run.is_complete = false;
    pg_run_lose(&session->run, "the session was closed");
    move(session, PG_STATE_GONE, "closed by its owner");
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

/* A closed connection ends no statement: it would go on, and wait, for as long as it likes. */
void pg_session_close(struct pg_session *session)
{
    if (!session->connection || !session->run.answered || session->run.is_complete) {
        end(session);
        return;
    }
    move(session, PG_STATE_ENDING, "closed by its owner");
    cancel_at_end(session);
}

/* --- dialling ------------------------------------------------------------------------------------------------- */

static bool adopt_connection(struct pg_session *session, PGconn *connection)
{
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
    session->names.is_direct = false;
    session->names.count = 0;
    return poll_want(session, UV_READABLE);
}

static void on_dialled(void *context, PGconn *connection, const char *failure)
{
    struct pg_session *session = context;
    if (session->state == PG_STATE_GONE) {
        PQfinish(connection);
        finish_close(session);
        return;
    }
    if (!failure && adopt_connection(session, connection)) {
        move(session, PG_STATE_IDLE, "connected");
        session->options.on_up(session->options.context);
        return;
    }
    pg_error_copy_reason(session->down_reason, sizeof session->down_reason,
                         failure ? failure : "the socket could not be watched");
    session->connection = connection;
    close_connection(session);
    move(session, PG_STATE_CLOSED, session->down_reason);
    session->options.on_down(session->options.context, session->down_reason);
}

void pg_session_dial(struct pg_session *session)
{
    move(session, PG_STATE_DIALLING, "asked to");
    session->dial.statement_timeout_ms = *session->options.statement_timeout_ms;
    int status = pg_dial_start(&session->dial, session->options.loop);
    if (status == 0)
        return;
    pg_error_copy_reason(session->down_reason, sizeof session->down_reason, uv_strerror(status));
    move(session, PG_STATE_CLOSED, session->down_reason);
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

/* --- deadline ------------------------------------------------------------------------------------------------- */

static void on_cancelled(void *context)
{
    struct pg_session *session = context;
    session->cancel_may_hit = false;
    ++*session->options.cancels_left;
    if (session->state == PG_STATE_GONE)
        finish_close(session);
    else if (session->connection && session->run.is_complete) /* else on_later says why there is no answer */
        complete_run(session);
}

static int64_t now_ms(const struct pg_session *session)
{
    return (int64_t)uv_now(session->options.loop);
}

/* One at a time: should an earlier one still be busy with a connection that is gone, the second deadline decides. */
static void start_cancel(struct pg_session *session)
{
    session->cancel_waits = !session->cancel.in_thread && *session->options.cancels_left == 0;
    if (session->cancel.in_thread || session->cancel_waits)
        return;
    session->cancel_may_hit = pg_cancel_start(&session->cancel, session->options.loop, session->connection);
    if (session->cancel_may_hit)
        --*session->options.cancels_left;
}

/* All may be answered but the cancel that is under way, which has the usual time to end. */
static void await_cancel(struct pg_session *session)
{
    move(session, PG_STATE_CANCELLING, "a statement is being cancelled");
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
    if (session->state == PG_STATE_ENDING) {
        cancel_at_end(session);
    } else if (session->state != PG_STATE_CANCELLING) {
        log_debug(LOG_FIELDS(log_number("timeout_ms", session->timeout_ms)), "cancelling a statement");
        await_cancel(session);
        session->cancel_until_ms = now_ms(session) + SESSION_CANCEL_GRACE_MS;
        cancel_in_turn(session);
    } else if (session->cancel_waits && now_ms(session) < session->cancel_until_ms) {
        cancel_in_turn(session);
    } else {
        lose(session, "no answer within statement_timeout_ms, nor to the cancel request");
    }
}

/* A transaction begins. */
static void start_deadline(struct pg_session *session)
{
    if (session->state == PG_STATE_ENDING)
        return;
    move(session, PG_STATE_BUSY, "a transaction was sent");
    (void)uv_timer_start(&session->deadline, on_deadline, (uint64_t)session->timeout_ms, 0);
}

/* --- the run ---------------------------------------------------------------------------------------------------- */

static void send_run(struct pg_session *session)
{
    start_deadline(session);
    bool sent = pg_run_send(&session->run, &session->names, session->connection, now_ms(session));
    if (!sent || !flush(session))
        lose(session, PQerrorMessage(session->connection));
}

void pg_session_run(struct pg_session *session, const struct pg_statement *statements, int count, int64_t timeout_ms,
                    pg_answered answered, void *context)
{
    session->timeout_ms = timeout_ms > 0 ? timeout_ms : *session->options.statement_timeout_ms;
    pg_run_begin(&session->run, statements, count, answered, context);
    send_run(session);
}

/* A cancel that is still under way might hit what comes next on the connection. */
static void complete_run(struct pg_session *session)
{
    if (session->state == PG_STATE_ENDING) {
        end(session);
        return;
    }
    if (session->cancel_may_hit) {
        await_cancel(session);
        return;
    }
    if (pg_run_may_have_failed_by_names(&session->run)) {
        pg_run_repeat(&session->run);
        send_run(session);
        return;
    }
    if (pg_run_failed_by_names(&session->run)) {
        log_info(NULL, "prepared statements do not work on a connection; it goes on without");
        session->names.is_direct = false;
    }
    (void)uv_timer_stop(&session->deadline);
    move(session, PG_STATE_IDLE, "the run is complete");
    pg_run_deliver(&session->run, session);
}

/* Reads every result that has arrived, and answers the run when it is complete. */
static void read_run(struct pg_session *session)
{
    enum pg_run_progress progress = PG_RUN_BEGINS;
    while (progress == PG_RUN_BEGINS) {
        progress = pg_run_read(&session->run, &session->names, session->connection, now_ms(session));
        if (progress == PG_RUN_BEGINS)
            start_deadline(session);
    }
    if (progress == PG_RUN_ENDS)
        complete_run(session);
    else if (progress == PG_RUN_UNCLEAR)
        lose(session, "libpq does not say what was answered");
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
    session->dial = (struct pg_dial){.database_url = options->database_url, .on_done = on_dialled, .context = session};
    session->cancel = (struct pg_cancel){.on_done = on_cancelled, .context = session};
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

void pg_session_set_backend_pid(struct pg_session *session, int32_t pid)
{
    session->names.is_direct = session->connection && PQbackendPID(session->connection) == pid;
}

bool pg_session_is_direct(const struct pg_session *session)
{
    return session->names.is_direct;
}
