/* SPDX-License-Identifier: MIT */
/*
 * One PostgreSQL connection as a small state machine.
 *
 *     CLOSED ──dial──▶ DIALLING ──▶ IDLE ◀──▶ BUSY ──deadline──▶ CANCELLING
 *        ▲                │           │         │                    │
 *        └── on_down ─────┴───────────┴─────────┴────────────────────┘
 *
 * Work in the thread pool (a dial, a cancel) cannot be interrupted. A dial is waited for, so that a PGconn is only ever
 * touched by one thread. A cancel is waited for before the next statement of the same connection, which it might hit;
 * when the connection is lost meanwhile nobody needs it any more, and it comes home in its own time.
 */
#include "promptd/pg_session.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "promptd/log.h"

enum { SESSION_CANCEL_GRACE_MS = 3000 }; /* for the answer to a cancel request */

enum pg_state {
    PG_STATE_CLOSED,     /* no connection; leaves by pg_session_dial */
    PG_STATE_DIALLING,   /* PQconnectdbParams runs in the thread pool; leaves with its end */
    PG_STATE_IDLE,       /* connected, nothing in flight; leaves by a run or by losing the connection */
    PG_STATE_BUSY,       /* a run awaits its answer; leaves with the answer, the deadline or a loss */
    PG_STATE_CANCELLING, /* the deadline has passed; leaves with the answer, a second deadline or a loss */
    PG_STATE_GONE        /* pg_session_close was called; waits for thread and handles to come home */
};

enum {
    PREPARED_MAX = 8, /* more than there are statements marked so */
    COMMANDS_MAX = 2 * PG_STATEMENTS_MAX,
    STATEMENT_NAME_SIZE = 64
};

struct prepared {
    const char *sql;
    char name[STATEMENT_NAME_SIZE];
};

/* A statement takes two, where it is prepared first. */
struct command {
    int statement; /* its index in the run */
    bool prepares;
};

struct pg_session {
    struct pg_session_options options;
    enum pg_state state;
    PGconn *connection;

    uv_work_t dial_work;
    PGconn *dialled; /* what the dial brought home */
    uv_work_t cancel_work;
    PGcancel *cancel;
    bool dial_in_thread;
    bool cancel_in_thread;

    uv_poll_t *poll; /* a handle of its own for each connection: it outlives the socket until its close callback */
    int poll_events;
    uv_timer_t deadline;
    uv_timer_t later; /* delivers what must not be called back at once */
    int open_handles;

    bool may_prepare;                       /* no pooler in between; of this connection, as what follows */
    struct prepared prepared[PREPARED_MAX]; /* what the server knows by name */
    int prepared_count;

    /* the run in flight */
    pg_answered answered;
    void *answered_context;
    struct pg_answer answer;
    struct pg_statement statements[PG_STATEMENTS_MAX];
    int statement_count;
    struct command commands[COMMANDS_MAX];
    int command_count;
    int command_at;    /* whose results are being read; command_count: the commit's; one more: that failed */
    bool run_is_named; /* some statement of it was sent by name */
    bool run_again;    /* it may have failed for the names, and goes again without */
    bool raised;       /* its failure comes from inside a function, such as a trigger's */
    bool answer_ready; /* complete, but a cancel of this very run is still under way */
    char down_reason[256];
};

static void session_lose(struct pg_session *session, const char *reason);
static void on_later(uv_timer_t *timer);

/* --- text from the server ------------------------------------------------------------------------------------- */

/* At most 200 characters, as they are: whether they quote a prompt must still be told from them. */
static void copy_shortened(char *out, size_t size, const char *text)
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
    copy_shortened(out, size, text);
    char *guesses = strstr(out, "\n\t");
    if (guesses)
        *guesses = '\0';
    for (char *at = out; *at; at++)
        if (*at == '\n')
            *at = ' ';
}

static void failure_from_result(struct job_failure *failure, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    (void)snprintf(failure->sqlstate, sizeof failure->sqlstate, "%s", sqlstate ? sqlstate : "");
    copy_shortened(failure->text, sizeof failure->text, message ? message : "the server gave no message");
}

bool pg_url_is_valid(const char *database_url)
{
    if (!database_url[0])
        return true;
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(database_url, &message);
    PQfreemem(message);
    PQconninfoFree(options);
    return options != NULL;
}

/* --- answers -------------------------------------------------------------------------------------------------- */

int pg_answer_rows(const struct pg_answer *answer, int statement)
{
    return PQntuples(answer->results[statement]);
}

const char *pg_answer_field(const struct pg_answer *answer, int statement, int row, int column, size_t *length)
{
    const PGresult *result = answer->results[statement];
    if (PQgetisnull(result, row, column)) {
        *length = 0;
        return NULL;
    }
    *length = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

static void answer_clear(struct pg_answer *answer)
{
    for (int i = 0; i < PG_STATEMENTS_MAX; i++)
        PQclear(answer->results[i]);
    *answer = (struct pg_answer){0};
}

/* Hands the answer over. The session may start its next run, be dropped or closed inside the callback. */
static void deliver_answer(struct pg_session *session)
{
    pg_answered answered = session->answered;
    struct pg_answer answer = session->answer;
    session->answered = NULL;
    session->answer = (struct pg_answer){0};
    session->answer_ready = false;
    answered(session->answered_context, session, &answer);
    answer_clear(&answer);
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

/* Sends what libpq still holds, and watches for writability only while it holds some. */
static bool flush_output(struct pg_session *session)
{
    int left = PQflush(session->connection);
    if (left < 0)
        return false;
    return poll_want(session, left ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static struct prepared name_statement(const char *sql);
static bool send_run(struct pg_session *session);

/*
 * May the names be at fault? 26000, 42P05: a pooler that passes for a server has given the statement to another
 * process. 0A000, or anything about types and columns: the schema is another one than when the statement was prepared.
 * These the server finds before it runs anything; what a function raises counts as it stands. XX000, when a type is
 * gone, comes with a context, too; it is worth another try in any case.
 */
static bool is_maybe_of_names(const struct pg_session *session)
{
    const char *sqlstate = session->answer.failure.sqlstate;
    if (session->answer.status != PG_FAILED || !session->run_is_named)
        return false;
    bool is_internal = strncmp(sqlstate, "XX", 2) == 0;
    bool is_of_statement = strncmp(sqlstate, "26", 2) == 0 || strncmp(sqlstate, "42", 2) == 0 ||
                           strncmp(sqlstate, "0A", 2) == 0;
    return is_internal || (is_of_statement && !session->raised);
}

/* Nothing of the run is in the database: it goes again as a whole. */
static void run_unnamed(struct pg_session *session)
{
    answer_clear(&session->answer);
    session->answer_ready = false;
    session->run_again = true;
    session->state = PG_STATE_BUSY;
    if (!send_run(session))
        session_lose(session, PQerrorMessage(session->connection));
}

/* Without names it went well: then it was they. */
static void give_up_names(struct pg_session *session)
{
    log_info(NULL, "prepared statements do not work on a connection; it goes on without");
    session->may_prepare = false;
}

static void run_complete(struct pg_session *session)
{
    if (session->state == PG_STATE_CANCELLING && session->cancel_in_thread) {
        session->answer_ready = true;
        return;
    }
    if (is_maybe_of_names(session)) {
        run_unnamed(session);
        return;
    }
    if (session->run_again && session->answer.status == PG_OK)
        give_up_names(session);
    (void)uv_timer_stop(&session->deadline);
    session->state = PG_STATE_IDLE;
    deliver_answer(session);
}

static void take_success(struct pg_session *session, PGresult *result)
{
    const struct command *command = session->command_at < session->command_count
                                        ? &session->commands[session->command_at]
                                        : NULL;
    if (command && !command->prepares) {
        session->answer.results[command->statement] = result;
        return;
    }
    if (command)
        session->prepared[session->prepared_count++] = name_statement(session->statements[command->statement].sql);
    PQclear(result);
}

/* Takes one result of the run. true when it was the last: the sync that confirms or ends the transaction. */
static bool take_result(struct pg_session *session, PGresult *result)
{
    struct pg_answer *answer = &session->answer;
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(result);
        return true;
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        take_success(session, result);
        return false;
    default: /* an error, of a command or, after the last one, of the commit; or its echo, PIPELINE_ABORTED */
        if (answer->status == PG_OK) {
            bool is_commit = session->command_at >= session->command_count;
            answer->status = PG_FAILED;
            answer->failed_statement = is_commit ? session->statement_count
                                                 : session->commands[session->command_at].statement;
            failure_from_result(&answer->failure, result);
            session->raised = PQresultErrorField(result, PG_DIAG_CONTEXT) != NULL;
        }
        PQclear(result);
        return false;
    }
}

/* Reads every result that has arrived. In pipeline mode a NULL ends each command's results, and those of a commit that
 * failed; the sync has none. */
static void read_results(struct pg_session *session)
{
    while (session->answered && !session->answer_ready && !PQisBusy(session->connection)) {
        PGresult *result = PQgetResult(session->connection);
        if (!result) {
            if (++session->command_at > session->command_count + 1) { /* nothing is outstanding: cannot happen */
                session_lose(session, "the connection lost count of its results");
                return;
            }
        } else if (take_result(session, result)) {
            run_complete(session);
            return;
        }
        if (PQstatus(session->connection) == CONNECTION_BAD)
            return;
    }
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    (void)status; /* libuv stops the handle then; whatever happened, reading finds out */
    (void)events;
    struct pg_session *session = poll->data;
    if (status < 0)
        session->poll_events = 0;
    bool alive = PQconsumeInput(session->connection) == 1;
    read_results(session);
    if (session->poll != poll)
        return; /* an answer's callback has dropped the connection */
    if (!alive || PQstatus(session->connection) == CONNECTION_BAD)
        session_lose(session, PQerrorMessage(session->connection));
    else if (!flush_output(session))
        session_lose(session, "the connection failed while sending");
}

/* --- losing and closing --------------------------------------------------------------------------------------- */

static void close_connection(struct pg_session *session)
{
    poll_close(session); /* before the socket goes: libuv must not see it closed */
    PQfinish(session->connection);
    session->connection = NULL;
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
    if (session->answered)
        deliver_answer(session);
    uv_close((uv_handle_t *)&session->deadline, on_handle_closed);
    uv_close((uv_handle_t *)&session->later, on_handle_closed);
}

/* Complete, and not to go again. */
static bool has_final_answer(const struct pg_session *session)
{
    return session->answer_ready && !is_maybe_of_names(session);
}

/* The reason is delivered from the loop, with the run in flight answered first. */
static void session_lose(struct pg_session *session, const char *reason)
{
    copy_reason(session->down_reason, sizeof session->down_reason, reason[0] ? reason : "connection lost");
    struct pg_answer *answer = &session->answer;
    if (session->answered && !has_final_answer(session)) {
        /* An error that came before the loss is the better explanation, but only a sync confirms anything. */
        if (answer->status != PG_FAILED) {
            (void)snprintf(answer->failure.text, sizeof answer->failure.text, "%s", session->down_reason);
            answer->failure.sqlstate[0] = '\0';
        }
        answer->status = PG_LOST;
    }
    close_connection(session);
    session->state = PG_STATE_CLOSED;
    (void)uv_timer_start(&session->later, on_later, 0, 0);
}

static void on_later(uv_timer_t *timer)
{
    struct pg_session *session = timer->data;
    if (session->state == PG_STATE_GONE) {
        finish_close(session);
        return;
    }
    if (session->answered)
        deliver_answer(session);
    if (session->state == PG_STATE_CLOSED)
        session->options.on_down(session->options.context, session, session->down_reason);
}

void pg_session_drop(struct pg_session *session, const char *reason)
{
    session_lose(session, reason);
}

void pg_session_close(struct pg_session *session)
{
    if (session->connection)
        close_connection(session);
    if (session->answered && !has_final_answer(session)) {
        session->answer.status = PG_LOST;
        (void)snprintf(session->answer.failure.text, sizeof session->answer.failure.text, "the session was closed");
    }
    session->state = PG_STATE_GONE;
    (void)uv_timer_start(&session->later, on_later, 0, 0);
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
    session->may_prepare = false;
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
        session->state = PG_STATE_IDLE;
        session->options.on_up(session->options.context, session);
        return;
    }
    copy_reason(session->down_reason, sizeof session->down_reason, reason);
    session->connection = connection;
    close_connection(session);
    session->state = PG_STATE_CLOSED;
    session->options.on_down(session->options.context, session, session->down_reason);
}

void pg_session_dial(struct pg_session *session)
{
    session->state = PG_STATE_DIALLING;
    session->dial_work.data = session;
    session->dial_in_thread = true;
    int status = uv_queue_work(session->options.loop, &session->dial_work, run_dial, on_dialled);
    if (status == 0)
        return;
    session->dial_in_thread = false;
    session->state = PG_STATE_CLOSED;
    copy_reason(session->down_reason, sizeof session->down_reason, uv_strerror(status));
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
    if (session->state == PG_STATE_GONE)
        finish_close(session);
    else if (session->answer_ready && session->state == PG_STATE_CANCELLING)
        run_complete(session);
}

static void on_deadline(uv_timer_t *timer)
{
    struct pg_session *session = timer->data;
    if (session->state == PG_STATE_CANCELLING) {
        session_lose(session, "no answer within statement_timeout_ms, nor to the cancel request");
        return;
    }
    log_debug(LOG_FIELDS(log_number("timeout_ms", session->options.statement_timeout_ms)), "cancelling a statement");
    session->state = PG_STATE_CANCELLING;
    (void)uv_timer_start(&session->deadline, on_deadline, SESSION_CANCEL_GRACE_MS, 0);
    if (session->cancel_in_thread)
        return; /* still busy with a connection that is gone: the second deadline decides */
    session->cancel = PQgetCancel(session->connection);
    if (!session->cancel)
        return;
    session->cancel_work.data = session;
    session->cancel_in_thread = uv_queue_work(session->options.loop, &session->cancel_work, run_cancel, on_cancelled) ==
                                0;
    if (!session->cancel_in_thread) {
        PQfreeCancel(session->cancel);
        session->cancel = NULL;
    }
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

/* --- sending -------------------------------------------------------------------------------------------------- */

void pg_session_met_backend(struct pg_session *session, int32_t pid)
{
    session->may_prepare = session->connection && PQbackendPID(session->connection) == pid;
}

static const struct prepared *find_prepared(const struct pg_session *session, const char *sql)
{
    for (int i = 0; i < session->prepared_count; i++)
        if (session->prepared[i].sql == sql)
            return &session->prepared[i];
    return NULL;
}

/* What it does and a hash of it all (FNV-1a): another promptd's statement of the same name is the same statement,
 * should a pooler mix them up after all. The server takes 63 bytes. */
static struct prepared name_statement(const char *sql)
{
    struct prepared prepared = {.sql = sql};
    uint64_t hash = 14695981039346656037U;
    for (const char *at = sql; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 1099511628211U;
    (void)snprintf(prepared.name, sizeof prepared.name, "%.40s %016llx", sql, (unsigned long long)hash);
    return prepared;
}

static void add_command(struct pg_session *session, struct command command)
{
    session->commands[session->command_count++] = command;
}

static bool send_statement(struct pg_session *session, int index)
{
    const struct pg_statement *statement = &session->statements[index];
    Oid types[PG_PARAMETERS_MAX];
    const char *values[PG_PARAMETERS_MAX];
    int lengths[PG_PARAMETERS_MAX];
    int formats[PG_PARAMETERS_MAX];
    int count = statement->parameter_count;
    for (int i = 0; i < count; i++) {
        const struct pg_parameter *parameter = &statement->parameters[i];
        if (parameter->length > INT32_MAX)
            return false;
        types[i] = parameter->type;
        values[i] = parameter->data;
        lengths[i] = (int)parameter->length;
        formats[i] = parameter->binary ? 1 : 0;
    }
    const struct prepared *known = find_prepared(session, statement->sql);
    bool has_room = session->prepared_count + session->statement_count <= PREPARED_MAX;
    bool named = statement->prepare && session->may_prepare && !session->run_again && (known || has_room);
    if (!named) {
        add_command(session, (struct command){.statement = index});
        return PQsendQueryParams(session->connection, statement->sql, count, types, values, lengths, formats, 1) == 1;
    }
    session->run_is_named = true;
    const struct prepared prepared = known ? *known : name_statement(statement->sql);
    if (!known) {
        add_command(session, (struct command){.statement = index, .prepares = true});
        if (PQsendPrepare(session->connection, prepared.name, statement->sql, count, types) != 1)
            return false;
    }
    add_command(session, (struct command){.statement = index});
    return PQsendQueryPrepared(session->connection, prepared.name, count, values, lengths, formats, 1) == 1;
}

static bool send_run(struct pg_session *session)
{
    session->command_count = 0;
    session->command_at = 0;
    session->run_is_named = false;
    for (int i = 0; i < session->statement_count; i++)
        if (!send_statement(session, i))
            return false;
    return PQpipelineSync(session->connection) == 1 && flush_output(session);
}

void pg_session_run(struct pg_session *session, const struct pg_statement *statements, int count, pg_answered answered,
                    void *context)
{
    session->state = PG_STATE_BUSY;
    session->answered = answered;
    session->answered_context = context;
    memcpy(session->statements, statements, (size_t)count * sizeof *statements);
    session->statement_count = count;
    session->run_again = false;
    (void)uv_timer_start(&session->deadline, on_deadline, (uint64_t)session->options.statement_timeout_ms, 0);
    if (!send_run(session))
        session_lose(session, PQerrorMessage(session->connection));
}
