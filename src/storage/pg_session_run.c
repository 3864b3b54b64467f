/* SPDX-License-Identifier: MIT */
/*
 * One run on a session's connection: statements are sent, by name where that is possible, their results read, and the
 * run answered.
 *
 * What libpq reads for the commands of two transactions, of which the first fails in its statement and the second when
 * it is committed:
 *
 *     execute   sync    execute   sync
 *     error     SYNC    rows      error
 *     NULL              NULL      NULL
 *                                 SYNC
 */
#include <stdio.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "pg_session_private.h"
#include "promptd/log.h"

/* --- answers -------------------------------------------------------------------------------------------------- */

bool pg_answer_is_committed(const struct pg_answer *answer, int statement)
{
    return answer->results[statement] != NULL;
}

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

static void clear_results(struct pg_answer *answer, int from)
{
    for (int i = from; i < PG_STATEMENTS_MAX; i++) {
        PQclear(answer->results[i]);
        answer->results[i] = NULL;
    }
}

void pg_run_deliver(struct pg_session *session)
{
    pg_answered answered = session->run.answered;
    void *context = session->run.context;
    struct pg_answer answer = session->run.answer;
    session->run = (struct pg_run){.answered = NULL};
    answered(context, session, &answer);
    clear_results(&answer, 0);
}

bool pg_run_is_unanswered(const struct pg_session *session)
{
    return session->run.answered != NULL;
}

/* --- names ---------------------------------------------------------------------------------------------------- */

void pg_session_set_backend_pid(struct pg_session *session, int32_t pid)
{
    session->is_direct = session->connection && PQbackendPID(session->connection) == pid;
}

bool pg_session_is_direct(const struct pg_session *session)
{
    return session->is_direct;
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

static bool has_changed_after(const struct pg_run *run, int statement)
{
    for (int i = statement + 1; i < run->statement_count; i++)
        if (pg_answer_is_committed(&run->answer, i) && pg_answer_rows(&run->answer, i) > 0)
            return true;
    return false;
}

/*
 * May the names be at fault? 26000, 42P05: a pooler that passes for a server has given the statement to another
 * process. 0A000, or anything about types and columns: the schema is another one than when the statement was prepared.
 * These the server finds before it runs anything; what a function raises counts as it stands. XX000, when a type is
 * gone, comes with a context, too; it is worth another try in any case. But what a later transaction has changed is not
 * undone by that, and would not be known any more.
 */
static bool is_maybe_of_names(const struct pg_run *run)
{
    const char *sqlstate = run->answer.failure.sqlstate;
    if (run->answer.status != PG_FAILED || !run->is_named || has_changed_after(run, run->answer.failed_statement))
        return false;
    bool is_internal = strncmp(sqlstate, "XX", 2) == 0;
    bool is_of_statement = strncmp(sqlstate, "26", 2) == 0 || strncmp(sqlstate, "42", 2) == 0 ||
                           strncmp(sqlstate, "0A", 2) == 0;
    return is_internal || (is_of_statement && !run->raised);
}

/* Without names it went well: then it was they. */
static void give_up_names(struct pg_session *session)
{
    log_info(NULL, "prepared statements do not work on a connection; it goes on without");
    session->is_direct = false;
}

/* --- sending -------------------------------------------------------------------------------------------------- */

static void add_command(struct pg_run *run, int kind, int statement)
{
    run->commands[run->command_count++] = (struct command){.kind = kind, .statement = statement};
}

static bool send_statement(struct pg_session *session, int index)
{
    struct pg_run *run = &session->run;
    const struct pg_statement *statement = &run->statements[index];
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
    bool has_room = session->prepared_count + run->statement_count <= PREPARED_MAX;
    bool named = statement->prepare && session->is_direct && !run->again && (known || has_room);
    if (!named) {
        add_command(run, COMMAND_EXECUTE, index);
        return PQsendQueryParams(session->connection, statement->sql, count, types, values, lengths, formats, 1) == 1;
    }
    run->is_named = true;
    const struct prepared prepared = known ? *known : name_statement(statement->sql);
    if (!known) {
        add_command(run, COMMAND_PREPARE, index);
        if (PQsendPrepare(session->connection, prepared.name, statement->sql, count, types) != 1)
            return false;
    }
    add_command(run, COMMAND_EXECUTE, index);
    return PQsendQueryPrepared(session->connection, prepared.name, count, values, lengths, formats, 1) == 1;
}

/* The statements stay prepared; the next to run is planned for the tables as they are now. */
static bool discard_old_plans(struct pg_session *session, int first)
{
    int64_t now_ms = (int64_t)uv_now(session->options.loop);
    if (session->prepared_count == 0 || !session->is_direct || now_ms - session->planned_ms < PLANS_KEPT_MS)
        return true;
    session->planned_ms = now_ms;
    add_command(&session->run, COMMAND_DISCARD_PLANS, first);
    return PQsendQueryParams(session->connection, "discard plans", 0, NULL, NULL, NULL, NULL, 1) == 1;
}

/* Sends the transactions from the one that begins with this statement on. */
static void send_from(struct pg_session *session, int first)
{
    struct pg_run *run = &session->run;
    run->command_count = 0;
    run->command_at = 0;
    run->transaction = first;
    run->is_named = false;
    pg_session_start_deadline(session);
    bool sent = discard_old_plans(session, first);
    for (int i = first; i < run->statement_count && sent; i++) {
        sent = send_statement(session, i);
        if (!sent || (i + 1 < run->statement_count && !run->statements[i].commits))
            continue;
        add_command(run, COMMAND_SYNC, i);
        sent = PQpipelineSync(session->connection) == 1;
    }
    if (!sent || !pg_session_flush(session))
        pg_session_lose(session, PQerrorMessage(session->connection));
}

void pg_session_run(struct pg_session *session, const struct pg_statement *statements, int count, int64_t timeout_ms,
                    pg_answered answered, void *context)
{
    struct pg_run *run = &session->run;
    run->timeout_ms = timeout_ms > 0 ? timeout_ms : session->options.statement_timeout_ms;
    run->answered = answered;
    run->context = context;
    memcpy(run->statements, statements, (size_t)count * sizeof *statements);
    run->statement_count = count;
    send_from(session, 0);
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static void take_rows(struct pg_session *session, PGresult *result)
{
    struct pg_run *run = &session->run;
    const struct command *command = &run->commands[run->command_at];
    if (command->kind == COMMAND_EXECUTE) {
        run->answer.results[command->statement] = result;
        return;
    }
    if (command->kind == COMMAND_PREPARE && session->prepared_count == 0)
        session->planned_ms = (int64_t)uv_now(session->options.loop);
    if (command->kind == COMMAND_PREPARE)
        session->prepared[session->prepared_count++] = name_statement(run->statements[command->statement].sql);
    PQclear(result);
}

/* Of a command or of the commit; or its echo for what follows in the same transaction, PIPELINE_ABORTED. false when it
 * is libpq's own, as without memory for the server's: what that was, nobody knows. */
static bool take_error(struct pg_run *run, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const struct command *command = &run->commands[run->command_at];
    run->transaction_failed = true;
    run->commit_failed = command->kind == COMMAND_SYNC;
    struct pg_answer *answer = &run->answer;
    if (answer->status != PG_OK)
        return sqlstate || PQresultStatus(result) == PGRES_PIPELINE_ABORTED;
    answer->status = PG_FAILED;
    answer->failed_statement = command->statement;
    run->failed_transaction = run->transaction;
    run->raised = PQresultErrorField(result, PG_DIAG_CONTEXT) != NULL;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    (void)snprintf(answer->failure.sqlstate, sizeof answer->failure.sqlstate, "%s", sqlstate ? sqlstate : "");
    pg_session_copy_shortened(answer->failure.text, sizeof answer->failure.text,
                              message ? message : "the server gave no message");
    return sqlstate != NULL;
}

/* Only this confirms anything, or says that all of the transaction is undone. */
static void take_sync(struct pg_session *session)
{
    struct pg_run *run = &session->run;
    if (run->transaction_failed)
        clear_results(&run->answer, run->transaction);
    run->transaction = run->commands[run->command_at++].statement + 1;
    run->transaction_failed = false;
    if (run->command_at < run->command_count)
        pg_session_start_deadline(session);
}

/* false when it means nothing. */
static bool take_result(struct pg_session *session, PGresult *result)
{
    bool is_clear = true;
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        take_sync(session);
        PQclear(result);
        break;
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        take_rows(session, result);
        break;
    default:
        is_clear = take_error(&session->run, result);
        PQclear(result);
    }
    return is_clear;
}

/* The NULL that ends the results of a command, or the error of a commit. false: there was nothing to end, which cannot
 * happen. */
static bool take_end(struct pg_run *run)
{
    if (run->commands[run->command_at].kind != COMMAND_SYNC) {
        run->command_at++;
        return true;
    }
    bool expected = run->commit_failed;
    run->commit_failed = false;
    return expected;
}

/* Complete. A cancel that is still under way might hit what comes next on the connection. */
static void run_complete(struct pg_session *session)
{
    struct pg_run *run = &session->run;
    if (session->state == PG_STATE_ENDING) {
        run->answer_ready = true;
        pg_session_end(session);
        return;
    }
    if (session->cancel_may_hit) {
        run->answer_ready = true;
        pg_session_await_cancel(session);
        return;
    }
    if (is_maybe_of_names(run)) { /* nothing of that transaction, and of those after it, is in the database */
        clear_results(&run->answer, run->failed_transaction);
        run->answer.status = PG_OK;
        run->answer_ready = false;
        run->again = true;
        send_from(session, run->failed_transaction);
        return;
    }
    if (run->again && run->answer.status == PG_OK)
        give_up_names(session);
    (void)uv_timer_stop(&session->deadline);
    pg_session_move(session, PG_STATE_IDLE, "the run is complete");
    pg_run_deliver(session);
}

void pg_run_go_on(struct pg_session *session)
{
    if (session->run.answer_ready)
        run_complete(session);
}

void pg_run_read(struct pg_session *session)
{
    struct pg_run *run = &session->run;
    while (run->answered && !run->answer_ready && !PQisBusy(session->connection)) {
        PGresult *result = PQgetResult(session->connection);
        bool is_clear = result ? take_result(session, result) : take_end(run);
        if (run->command_at == run->command_count) {
            run_complete(session);
            return;
        }
        if (PQstatus(session->connection) == CONNECTION_BAD)
            return;
        if (!is_clear) {
            pg_session_lose(session, "libpq does not say what was answered");
            return;
        }
    }
}

void pg_run_lose(struct pg_session *session, const char *reason)
{
    struct pg_run *run = &session->run;
    if (!run->answered || (run->answer_ready && !is_maybe_of_names(run)))
        return;
    struct pg_answer *answer = &run->answer;
    clear_results(answer, run->transaction);
    /* An error that came before the loss is the better explanation, but only a sync confirms anything. */
    if (answer->status != PG_FAILED) {
        (void)snprintf(answer->failure.text, sizeof answer->failure.text, "%s", reason);
        answer->failure.sqlstate[0] = '\0';
    }
    answer->status = PG_LOST;
}
