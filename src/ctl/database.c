/* SPDX-License-Identifier: MIT */
/* libpq, blocking but for its deadlines. */
#include "database.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/buffer.h"
#include "promptd/clock.h"
#include "promptd/pg_url.h"
#include "promptd/sqlstate.h"

enum { CONNECT_TIMEOUT_MS = 10000 };

/* ---- errors ---- */

/* Nobody's set-up is wrong where the same would work later; a standby stays one. */
static enum error_code code_of(const char *sqlstate)
{
    enum sqlstate_action action = sqlstate_classify(sqlstate);
    bool later = action == SQLSTATE_OUTAGE || action == SQLSTATE_TRANSIENT;
    return later && strcmp(sqlstate, "25006") != 0 ? ERROR_UNAVAILABLE : ERROR_CONFIG;
}

/*
 * Poolers have one code, 08P01, for all that keeps a client from logging in. What their own servers, limits and time
 * cause goes away by itself; a wrong password, an unknown user or database does not.
 */
static bool is_refused_by_pooler(const char *sqlstate, const char *text)
{
    static const char *const passing[] = {"cannot connect", "connections", "timeout",      "timed out",
                                          "try again",      "too many",    "shutting down"};
    bool passes = strcmp(sqlstate, "08P01") != 0;
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        passes = passes || strstr(text, passing[i]);
    return !passes;
}

/* The first line of what libpq says, without its newline. */
static int first_line(const char *text)
{
    return (int)strcspn(text, "\n");
}

/*
 * A connection that fails has no PGresult to ask for its SQLSTATE, but with verbose errors it stands in the text:
 * "FATAL:  28P01: password authentication failed". Of several hosts the last one counts.
 */
static const char *find_sqlstate(const char *text, char sqlstate[SQLSTATE_SIZE])
{
    const char *message = NULL;
    sqlstate[0] = '\0';
    for (const char *at = text; (at = strstr(at, ":  ")); at++) {
        size_t length = 0;
        while (length < 5 && (isupper((unsigned char)at[3 + length]) || isdigit((unsigned char)at[3 + length])))
            length++;
        if (length == 5 && strncmp(at + 8, ": ", 2) == 0) {
            (void)snprintf(sqlstate, SQLSTATE_SIZE, "%.5s", at + 3);
            message = at + 10;
        }
    }
    return message;
}

static bool connect_failed(struct database *database, const char *reason, struct error *error)
{
    const char *text = PQerrorMessage(database->connection);
    const char *refusal = find_sqlstate(text, database->sqlstate);
    if (refusal && is_refused_by_pooler(database->sqlstate, refusal))
        return error_set(error, ERROR_CONFIG, "the pooler refuses: %.*s (%s)", first_line(refusal), refusal,
                         database->sqlstate);
    if (refusal)
        return error_set(error, code_of(database->sqlstate), "PostgreSQL refuses: %.*s (%s)", first_line(refusal),
                         refusal, database->sqlstate);
    if (PQconnectionNeedsPassword(database->connection))
        return error_set(error, ERROR_CONFIG, "PostgreSQL wants a password, and database_url has none");
    while (isspace((unsigned char)*text))
        text++;
    if (!reason)
        reason = *text ? text : "no reason given";
    return error_set(error, ERROR_UNAVAILABLE, "PostgreSQL cannot be reached: %.*s", first_line(reason), reason);
}

/* ---- waiting ---- */

/* Until the socket can do what is wanted. false: the deadline has passed, or the system refuses. */
static bool wait_for(const struct database *database, short events, int64_t deadline_us)
{
    for (;;) {
        struct pollfd entry = {.fd = PQsocket(database->connection), .events = events};
        int64_t left_us = deadline_us - clock_monotonic_us();
        if (left_us <= 0 || entry.fd < 0)
            return false;
        int ready = poll(&entry, 1, (int)(left_us / 1000) + 1);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

static bool finish_connect(struct database *database, struct error *error)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)CONNECT_TIMEOUT_MS * 1000;
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED)
            return connect_failed(database, NULL, error);
        if (!wait_for(database, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_us))
            return connect_failed(database, "no answer within 10 s", error);
        next = PQconnectPoll(database->connection);
    }
    return true;
}

bool database_open(struct database *database, const struct settings *settings, struct error *error)
{
    *database = (struct database){.timeout_ms = settings->statement_timeout_ms};
    struct error phrase;
    if (!pg_url_check(settings->database_url, &phrase))
        return settings_refuse(settings, "database_url", phrase.text, PG_URL_ALLOWED, error);
    /* What the URL says counts over what stands before it. */
    const char *const keys[] = {"tcp_user_timeout", "dbname", "fallback_application_name", "client_encoding", NULL};
    const char *const values[] = {"10000", settings->database_url, "promptctl", "UTF8", NULL};
    database->connection = PQconnectStartParams(keys, values, 1);
    if (!database->connection)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    if (PQstatus(database->connection) == CONNECTION_BAD)
        return connect_failed(database, NULL, error);
    (void)PQsetErrorVerbosity(database->connection, PQERRORS_VERBOSE);
    return finish_connect(database, error);
}

void database_close(struct database *database)
{
    PQfinish(database->connection);
    database->connection = NULL;
}

/* ---- statements ---- */

static bool lost(struct database *database, struct error *error)
{
    const char *text = PQerrorMessage(database->connection);
    database->sqlstate[0] = '\0';
    return error_set(error, ERROR_UNAVAILABLE, "the connection to PostgreSQL is lost: %.*s", first_line(text), text);
}

static bool cancel(struct database *database, struct error *error)
{
    char reason[256];
    PGcancel *handle = PQgetCancel(database->connection);
    if (handle)
        (void)PQcancel(handle, reason, sizeof reason); /* should it fail, closing the connection ends the statement */
    PQfreeCancel(handle);
    (void)snprintf(database->sqlstate, sizeof database->sqlstate, "%s", "57014");
    return error_set(error, ERROR_UNAVAILABLE, "PostgreSQL has not answered within statement_timeout_ms (%lld ms)",
                     (long long)database->timeout_ms);
}

/* Sends what libpq holds and reads until a result is whole. */
static bool wait_for_result(struct database *database, int64_t deadline_us, struct error *error)
{
    int unsent = 1;
    while (unsent != 0 || PQisBusy(database->connection)) {
        if (unsent != 0)
            unsent = PQflush(database->connection);
        if (unsent == 0 && !PQisBusy(database->connection))
            return true;
        if (unsent < 0)
            return lost(database, error);
        if (!wait_for(database, (short)(unsent ? POLLIN | POLLOUT : POLLIN), deadline_us))
            return cancel(database, error);
        if (!PQconsumeInput(database->connection))
            return lost(database, error);
    }
    return true;
}

static PGresult *check_result(struct database *database, PGresult *result, struct error *error)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return result;
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (sqlstate)
        (void)snprintf(database->sqlstate, sizeof database->sqlstate, "%s", sqlstate);
    if (!sqlstate)
        (void)lost(database, error);
    else
        (void)error_set(error, code_of(sqlstate), "%s (%s)", message ? message : "no message", sqlstate);
    PQclear(result);
    return NULL;
}

PGresult *database_run(struct database *database, const char *sql, const char *const *parameters, struct error *error)
{
    int count = 0;
    int64_t deadline_us = clock_monotonic_us() + database->timeout_ms * 1000;
    while (parameters && parameters[count])
        count++;
    if (!PQsendQueryParams(database->connection, sql, count, NULL, parameters, NULL, NULL, 0)) {
        (void)lost(database, error);
        return NULL;
    }
    PGresult *result = NULL;
    for (;;) {
        if (!wait_for_result(database, deadline_us, error)) {
            PQclear(result);
            return NULL;
        }
        PGresult *next = PQgetResult(database->connection);
        if (!next)
            return check_result(database, result, error);
        PQclear(result);
        result = next;
    }
}

bool database_do(struct database *database, const char *sql, struct error *error)
{
    PGresult *result = database_run(database, sql, NULL, error);
    PQclear(result);
    return result != NULL;
}

char *database_array(const char *const *items, size_t count)
{
    struct buffer array = {0};
    buffer_append_char(&array, '{');
    for (size_t i = 0; i < count; i++) {
        buffer_append_text(&array, i > 0 ? ",\"" : "\"");
        for (const char *c = items[i]; *c; c++) {
            if (*c == '"' || *c == '\\')
                buffer_append_char(&array, '\\');
            buffer_append_char(&array, *c);
        }
        buffer_append_char(&array, '"');
    }
    buffer_append(&array, "}", 2);
    if (array.failed)
        buffer_free(&array);
    return array.data;
}

bool database_set_view_statuses(struct database *database, const struct settings *settings, struct error *error)
{
    struct buffer awaiting = {0};
    for (size_t i = 0; i < settings->awaiting_statuses.count; i++)
        buffer_printf(&awaiting, "%s%s", i > 0 ? "," : "", settings->awaiting_statuses.items[i]);
    buffer_append_char(&awaiting, '\0');
    if (awaiting.failed) {
        buffer_free(&awaiting);
        return error_set(error, ERROR_INTERNAL, "out of memory");
    }
    const char *const parameters[] = {awaiting.data, settings->ready_status, settings->failed_status, NULL};
    PGresult *result = database_run(database,
                                    "select set_config('promptd.awaiting_statuses', $1, true),"
                                    " set_config('promptd.ready_status', $2, true),"
                                    " set_config('promptd.failed_status', $3, true)",
                                    parameters, error);
    PQclear(result);
    buffer_free(&awaiting);
    return result != NULL;
}
