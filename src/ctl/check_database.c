/* SPDX-License-Identifier: MIT */
/* promptctl check: PostgreSQL, up to the very writes that promptd makes, rolled back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "database.h"
#include "promptd/schema_check.h"
#include "promptd/statements.h"
#include "promptd/text.h"

struct trial {
    struct check *check;
    struct database database;
    char *awaiting;                 /* as an array; NULL: any status but ready */
    char interview[UUID_TEXT_SIZE]; /* "": there is none to try with */
    bool is_awaiting;
    char ids[UUID_TEXT_SIZE + 2];        /* of the prompt that was inserted last, as an array */
    char interviews[UUID_TEXT_SIZE + 2]; /* the interview, as an array */
};

static bool check_connection(struct trial *trial, struct error *error)
{
    struct database *database = &trial->database;
    if (!database_open(database, &trial->check->ctl->settings, error)) {
        check_fail(trial->check, "database_connection", error);
        return false;
    }
    const char *version = PQparameterStatus(database->connection, "server_version");
    check_report_step(trial->check, "database_connection", CHECK_OK, "%s at %s:%s as %s, PostgreSQL %s",
                      PQdb(database->connection), PQhost(database->connection), PQport(database->connection),
                      PQuser(database->connection), version ? version : "of an unknown version");
    return true;
}

static bool check_writes(struct trial *trial, struct error *error)
{
    PGresult *result = database_run(
        &trial->database, "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'", NULL, error);
    bool standby = result && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
    bool read_only = result && strcmp(PQgetvalue(result, 0, 1), "t") == 0;
    PQclear(result);
    if (standby)
        (void)error_set(error, ERROR_CONFIG, "the server is a standby, which takes no writes");
    else if (read_only)
        (void)error_set(error, ERROR_CONFIG, "the database is read-only (default_transaction_read_only)");
    if (!result || standby || read_only) {
        check_fail(trial->check, "database_writes", error);
        return false;
    }
    check_report_step(trial->check, "database_writes", CHECK_OK, "the server takes them");
    return true;
}

/* The daemon's own look at a new connection: every fault is named. With atomicity = transaction nothing is ever
 * unsettled, and what promptd_unsettled lacks is no fault. */
static bool check_tables(struct trial *trial, struct error *error)
{
    bool in_transaction = trial->check->ctl->settings.atomicity == ATOMICITY_TRANSACTION;
    const char *const parameters[] = {"true", NULL};
    PGresult *result = database_run(&trial->database, schema_check_sql, parameters, error);
    int faults = 0;
    if (!result)
        check_fail(trial->check, "database_tables", error);
    for (int i = 0; i < PQntuples(result); i++) {
        const char *fault = PQgetvalue(result, i, 0);
        bool is_about_unsettled = strcmp(PQgetvalue(result, i, 1), "t") == 0;
        (void)error_set(error, ERROR_CONFIG, "%s%s", fault, strstr(fault, "apply sql/") ? "" : "; apply sql/");
        if (in_transaction && is_about_unsettled) {
            check_report_step(trial->check, "database_tables", CHECK_NOTE,
                              "%s (not needed with atomicity = transaction)", error->text);
            continue;
        }
        check_fail(trial->check, "database_tables", error);
        faults++;
    }
    bool good = result && faults == 0;
    PQclear(result);
    if (good)
        check_report_step(trial->check, "database_tables", CHECK_OK, "tables, columns, types and privileges");
    return good;
}

/* Only promptctl reads them. */
static void check_views(struct trial *trial, struct error *error)
{
    PGresult *result = database_run(&trial->database, "select from promptd_orphans, promptd_stuck where false limit 0",
                                    NULL, error);
    PQclear(result);
    if (!result && error->code != ERROR_CONFIG)
        check_fail(trial->check, "database_views", error);
    else if (result)
        check_report_step(trial->check, "database_views", CHECK_OK, "for promptctl orphans and stuck");
    else
        check_report_step(trial->check, "database_views", CHECK_NOTE,
                          "promptctl orphans and stuck will not work: %s; apply sql/03_views.sql", error->text);
}

/* ---- the trial ---- */

static bool choose_from(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    PGresult *result = database_run(&trial->database, sql, parameters, error);
    if (result && PQntuples(result) > 0)
        (void)snprintf(trial->interview, sizeof trial->interview, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    return result != NULL;
}

/* An interview that is awaiting, whose way the application's own triggers let free; else any. */
static bool choose_interview(struct trial *trial, struct error *error)
{
    const char *const parameters[] = {trial->awaiting ? trial->awaiting : trial->check->ctl->settings.ready_status,
                                      NULL};
    if (!choose_from(trial,
                     trial->awaiting ? "select id from interviews where status::text = any($1::text[])"
                                       " limit 1 for no key update skip locked"
                                     : "select id from interviews where status::text <> $1::text"
                                       " limit 1 for no key update skip locked",
                     parameters, error))
        return false;
    trial->is_awaiting = trial->interview[0] != '\0';
    return trial->is_awaiting ||
           choose_from(trial, "select id from interviews limit 1 for no key update skip locked", NULL, error);
}

/* One of the daemon's statements. It returns the row that it held, and whether it has changed it. */
static bool run_write(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    PGresult *result = database_run(&trial->database, sql, parameters, error);
    bool changed = result && PQntuples(result) > 0 &&
                   (PQnfields(result) < 2 || strcmp(PQgetvalue(result, 0, 1), "t") == 0);
    bool is_suppressed = !result && statements_is_suppressed(trial->database.sqlstate, error->text);
    if (is_suppressed)
        trial->database.sqlstate[0] = '\0'; /* an error of our own statement, and of no column */
    if ((result && !changed) || is_suppressed)
        (void)error_set(error, ERROR_CONFIG,
                        "no error, and no row was changed: a trigger, a rule or row level"
                        " security keeps it from happening");
    PQclear(result);
    return changed;
}

/* The same, taken back at once, so that the next can be tried whatever becomes of it. */
static bool try_write(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    struct error ignored;
    bool changed = database_do(&trial->database, "savepoint trial", error) && run_write(trial, sql, parameters, error);
    (void)database_do(&trial->database, "rollback to savepoint trial", &ignored); /* `error` says what matters */
    (void)database_do(&trial->database, "release savepoint trial", &ignored);     /* what follows is not in it */
    return changed;
}

static bool is_in_transaction(const struct trial *trial)
{
    return trial->check->ctl->settings.atomicity == ATOMICITY_TRANSACTION;
}

static void fail_with(struct trial *trial, const char *step, const char *what, const struct error *error)
{
    struct error full;
    (void)error_set(&full, error->code, "%.60s: %.400s", what, error->text);
    check_fail(trial->check, step, &full);
}

static bool choose_prompt_id(struct trial *trial, struct error *error)
{
    PGresult *result = database_run(&trial->database, "select gen_random_uuid()", NULL, error);
    if (result)
        (void)snprintf(trial->ids, sizeof trial->ids, "{%s}", PQgetvalue(result, 0, 0));
    PQclear(result);
    return result;
}

typedef bool write_function(struct trial *trial, const char *sql, const char *const *parameters, struct error *error);

static bool insert_with(struct trial *trial, const char *source, write_function *write, struct error *error)
{
    static const char texts[] = "{\"Written by promptctl check, and rolled back.\"}";
    char *sources = database_array(&source, 1);
    if (!sources)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    const char *ready = trial->check->ctl->settings.ready_status;
    const char *const compensated[] = {trial->ids, trial->interviews, texts, sources, "false", NULL};
    const char *const in_transaction[] = {trial->ids, trial->interviews, texts, sources, "{}", "true", ready, NULL};
    bool inserted = choose_prompt_id(trial, error) &&
                    (is_in_transaction(trial) ? write(trial, statements_transact_insert_sql, in_transaction, error)
                                              : write(trial, statements_insert_sql, compensated, error));
    free(sources);
    return inserted;
}

/* With each source: a check constraint or an enum may know fewer of them than the settings. One that works stays for
 * what is tried next. */
static bool check_insert(struct trial *trial, struct error *error)
{
    const struct text_list *sources = &trial->check->ctl->settings.sources;
    const char *working = NULL;
    bool good = true;
    for (size_t i = 0; i < sources->count; i++) {
        if (insert_with(trial, sources->items[i], try_write, error)) {
            working = sources->items[i];
            continue;
        }
        fail_with(trial, "insert_prompt", sources->items[i], error);
        good = false;
    }
    if (good)
        check_report_step(trial->check, "insert_prompt", CHECK_OK, "with each of the sources, rolled back");
    return working && insert_with(trial, working, run_write, error);
}

/* What an interview that is not awaiting tells: that the column does not take the status at all. */
static bool is_about_the_column(const char *sqlstate)
{
    return strcmp(sqlstate, "23514") == 0 || strcmp(sqlstate, "22P02") == 0 || strncmp(sqlstate, "42", 2) == 0 ||
           strcmp(sqlstate, "22001") == 0;
}

static void report_status(struct trial *trial, const char *step, const char *status, bool written, struct error *error)
{
    if (written)
        check_report_step(trial->check, step, CHECK_OK, "%s can be written, rolled back", status);
    else if (trial->is_awaiting || is_about_the_column(trial->database.sqlstate) || error->code == ERROR_UNAVAILABLE)
        fail_with(trial, step, status, error);
    else
        check_report_step(trial->check, step, CHECK_NOTE,
                          "%s could be tried only on an interview that is not awaiting: %s", status, error->text);
}

/* All statuses are taken for awaiting: the interview may be any. */
static void check_ready(struct trial *trial, struct error *error)
{
    const char *ready = trial->check->ctl->settings.ready_status;
    const char *const compensated[] = {trial->ids, trial->interviews, "{}", "true", ready, NULL};
    const char *const in_transaction[] = {trial->ids, ready, NULL};
    trial->database.sqlstate[0] = '\0';
    bool written = is_in_transaction(trial) ? try_write(trial, statements_transact_move_sql, in_transaction, error)
                                            : try_write(trial, statements_settle_sql, compensated, error);
    report_status(trial, "ready_status", ready, written, error);
}

static void check_failed(struct trial *trial, struct error *error)
{
    const struct settings *settings = &trial->check->ctl->settings;
    const char *const parameters[] = {trial->interviews,      "{}", "true", settings->failed_status,
                                      settings->ready_status, NULL};
    trial->database.sqlstate[0] = '\0';
    bool written = try_write(trial, statements_mark_sql, parameters, error);
    report_status(trial, "failed_status", settings->failed_status, written, error);
}

static void check_undo(struct trial *trial, struct error *error)
{
    const char *const parameters[] = {trial->ids, trial->interviews, NULL};
    if (is_in_transaction(trial))
        check_report_step(trial->check, "delete_prompt", CHECK_OK, "not needed with atomicity = transaction");
    else if (try_write(trial, statements_undo_sql, parameters, error))
        check_report_step(trial->check, "delete_prompt", CHECK_OK, "rolled back");
    else
        check_fail(trial->check, "delete_prompt", error);
}

static const char *const trial_steps[] = {"insert_prompt", "ready_status", "failed_status", "delete_prompt", NULL};

static void skip_all(struct check *check, const char *const *steps, const char *why)
{
    for (; *steps; steps++)
        check_report_step(check, *steps, CHECK_SKIPPED, "%s", why);
}

static void run_trial(struct trial *trial, struct error *error)
{
    if (!database_do(&trial->database, "begin", error) ||
        !database_do(&trial->database, "set local lock_timeout = '2s'", error) || !choose_interview(trial, error)) {
        check_fail(trial->check, trial_steps[0], error);
        skip_all(trial->check, trial_steps + 1, "not tried");
        return;
    }
    if (!trial->interview[0]) {
        for (size_t i = 0; trial_steps[i]; i++)
            check_report_step(trial->check, trial_steps[i], CHECK_NOTE,
                              "not tried: promptd sees no interview in the table");
        return;
    }
    (void)snprintf(trial->interviews, sizeof trial->interviews, "{%s}", trial->interview);
    bool inserted = check_insert(trial, error);
    if (inserted)
        check_ready(trial, error);
    else
        check_report_step(trial->check, "ready_status", CHECK_SKIPPED, "not tried");
    check_failed(trial, error);
    if (inserted)
        check_undo(trial, error);
    else
        check_report_step(trial->check, "delete_prompt", CHECK_SKIPPED, "not tried");
}

static void check_trial(struct trial *trial, struct error *error)
{
    const struct text_list *awaiting = &trial->check->ctl->settings.awaiting_statuses;
    bool any = awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0;
    if (!any) {
        trial->awaiting = database_array((const char *const *)awaiting->items, awaiting->count);
        if (!trial->awaiting) {
            (void)error_set(error, ERROR_INTERNAL, "out of memory");
            check_fail(trial->check, trial_steps[0], error);
            return;
        }
    }
    run_trial(trial, error);
    struct error ignored;
    (void)database_do(&trial->database, "rollback", &ignored); /* closing the connection does it, too */
    free(trial->awaiting);
}

void check_database(struct check *check)
{
    static const char *const later_steps[] = {"database_writes", "database_tables", "database_views", NULL};
    struct trial trial = {.check = check};
    struct error error;
    if (!check_connection(&trial, &error)) {
        skip_all(check, later_steps, "not tried");
        skip_all(check, trial_steps, "not tried");
    } else {
        bool writable = check_writes(&trial, &error);
        bool complete = check_tables(&trial, &error);
        check_views(&trial, &error);
        if (writable && complete)
            check_trial(&trial, &error);
        else
            skip_all(check, trial_steps, "not tried");
    }
    database_close(&trial.database);
}
