/* SPDX-License-Identifier: MIT */
/*
 * What libpq reads for the commands of two transactions, of which the first fails in its statement and the second when
 * it is committed:
 *
 *     execute   sync    execute   sync
 *     error     SYNC    rows      error
 *     NULL              NULL      NULL
 *                                 SYNC
 */
#include "pg_run.h"

#include <stdio.h>
#include <string.h>

enum { PLANS_KEPT_MS = 5000 }; /* tables grow, and the server plans anew by itself only when it has new statistics */

/* --- names ---------------------------------------------------------------------------------------------------- */

static const struct prepared *find_prepared(const struct pg_names *names, const char *sql)
{
    for (int i = 0; i < names->count; i++)
        if (names->prepared[i].sql == sql)
            return &names->prepared[i];
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
bool pg_run_may_have_failed_by_names(const struct pg_run *run)
{
    const char *sqlstate = run->answer.error.sqlstate;
    if (run->answer.status != PG_FAILED || !run->is_named || has_changed_after(run, run->answer.failed_statement))
        return false;
    bool is_internal = strncmp(sqlstate, "XX", 2) == 0;
    bool is_of_statement = strncmp(sqlstate, "26", 2) == 0 || strncmp(sqlstate, "42", 2) == 0 ||
                           strncmp(sqlstate, "0A", 2) == 0;
    return is_internal || (is_of_statement && !run->raised);
}

void pg_run_repeat(struct pg_run *run)
{
    pg_answer_clear(&run->answer, run->failed_transaction);
    run->answer.status = PG_OK;
    run->transaction = run->failed_transaction;
    run->is_complete = false;
    run->again = true;
}

bool pg_run_failed_by_names(const struct pg_run *run)
{
    return run->again && run->answer.status == PG_OK;
}

/* --- sending -------------------------------------------------------------------------------------------------- */

static void add_command(struct pg_run *run, int kind, int statement)
{
    run->commands[run->command_count++] = (struct command){.kind = kind, .statement = statement};
}

static bool send_statement(struct pg_run *run, const struct pg_names *names, PGconn *connection, int index)
{
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
    const struct prepared *known = find_prepared(names, statement->sql);
    bool has_room = names->count + run->statement_count <= PREPARED_MAX;
    bool named = statement->prepare && names->is_direct && !run->again && (known || has_room);
    if (!named) {
        add_command(run, COMMAND_EXECUTE, index);
        return PQsendQueryParams(connection, statement->sql, count, types, values, lengths, formats, 1) == 1;
    }
    run->is_named = true;
    const struct prepared prepared = known ? *known : name_statement(statement->sql);
    if (!known) {
        add_command(run, COMMAND_PREPARE, index);
        if (PQsendPrepare(connection, prepared.name, statement->sql, count, types) != 1)
            return false;
    }
    add_command(run, COMMAND_EXECUTE, index);
    return PQsendQueryPrepared(connection, prepared.name, count, values, lengths, formats, 1) == 1;
}

/* The statements stay prepared; the next to run is planned for the tables as they are now. */
static bool discard_old_plans(struct pg_run *run, struct pg_names *names, PGconn *connection, int64_t now_ms)
{
    if (names->count == 0 || !names->is_direct || now_ms - names->planned_ms < PLANS_KEPT_MS)
        return true;
    names->planned_ms = now_ms;
    add_command(run, COMMAND_DISCARD_PLANS, run->transaction);
    return PQsendQueryParams(connection, "discard plans", 0, NULL, NULL, NULL, NULL, 1) == 1;
}

void pg_run_begin(struct pg_run *run, const struct pg_statement *statements, int count, pg_answered answered,
                  void *context)
{
    *run = (struct pg_run){.answered = answered, .context = context, .statement_count = count};
    memcpy(run->statements, statements, (size_t)count * sizeof *statements);
}

void pg_run_deliver(struct pg_run *run, struct pg_session *session)
{
    pg_answered answered = run->answered;
    void *context = run->context;
    struct pg_answer answer = run->answer;
    *run = (struct pg_run){.answered = NULL};
    answered(context, session, &answer);
    pg_answer_clear(&answer, 0);
}

bool pg_run_send(struct pg_run *run, struct pg_names *names, PGconn *connection, int64_t now_ms)
{
    run->command_count = 0;
    run->command_at = 0;
    run->is_named = false;
    bool sent = discard_old_plans(run, names, connection, now_ms);
    for (int i = run->transaction; i < run->statement_count && sent; i++) {
        sent = send_statement(run, names, connection, i);
        if (!sent || (i + 1 < run->statement_count && !run->statements[i].commits))
            continue;
        add_command(run, COMMAND_SYNC, i);
        sent = PQpipelineSync(connection) == 1;
    }
    return sent;
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static void take_rows(struct pg_run *run, struct pg_names *names, PGresult *result, int64_t now_ms)
{
    const struct command *command = &run->commands[run->command_at];
    if (command->kind == COMMAND_EXECUTE) {
        run->answer.results[command->statement] = result;
        return;
    }
    if (command->kind == COMMAND_PREPARE && names->count == 0)
        names->planned_ms = now_ms;
    if (command->kind == COMMAND_PREPARE)
        names->prepared[names->count++] = name_statement(run->statements[command->statement].sql);
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
    pg_error_set(&answer->error, sqlstate, message ? message : "the server gave no message");
    return sqlstate != NULL;
}

/* Only this confirms anything, or says that all of the transaction is undone. */
static void take_sync(struct pg_run *run)
{
    if (run->transaction_failed)
        pg_answer_clear(&run->answer, run->transaction);
    run->transaction = run->commands[run->command_at++].statement + 1;
    run->transaction_failed = false;
}

/* false when it means nothing. */
static bool take_result(struct pg_run *run, struct pg_names *names, PGresult *result, int64_t now_ms)
{
    bool is_clear = true;
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        take_sync(run);
        PQclear(result);
        break;
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        take_rows(run, names, result, now_ms);
        break;
    default:
        is_clear = take_error(run, result);
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

enum pg_run_progress pg_run_read(struct pg_run *run, struct pg_names *names, PGconn *connection, int64_t now_ms)
{
    while (run->answered && !run->is_complete && !PQisBusy(connection)) {
        int transaction = run->transaction;
        PGresult *result = PQgetResult(connection);
        bool is_clear = result ? take_result(run, names, result, now_ms) : take_end(run);
        run->is_complete = run->command_at == run->command_count;
        if (run->is_complete)
            return PG_RUN_ENDS;
        if (PQstatus(connection) == CONNECTION_BAD)
            return PG_RUN_WAITS;
        if (!is_clear)
            return PG_RUN_UNCLEAR;
        if (run->transaction != transaction)
            return PG_RUN_BEGINS;
    }
    return PG_RUN_WAITS;
}

void pg_run_lose(struct pg_run *run, const char *reason)
{
    if (!run->answered || (run->is_complete && !pg_run_may_have_failed_by_names(run)))
        return;
    pg_answer_clear(&run->answer, run->transaction);
    /* An error that came before the loss is the better explanation, but only a sync confirms anything. */
    if (run->answer.status != PG_FAILED)
        pg_error_set(&run->answer.error, NULL, reason);
    run->answer.status = PG_LOST;
}
