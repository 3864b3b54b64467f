/* SPDX-License-Identifier: MIT */
/* promptctl check: PostgreSQL, up to the very writes that promptd makes, rolled back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "database.h"
#include "promptd/statements.h"
#include "promptd/text.h"

struct trial {
    struct check *check;
    struct database database;
    char *awaiting;                 /* as an array; NULL: any status but ready */
    char interview[UUID_TEXT_SIZE]; /* "": there is none to try with */
    bool is_awaiting;
};

static bool check_connection(struct trial *trial, struct error *error)
{
    struct database *database = &trial->database;
    if (!database_open(database, &trial->check->ctl->settings, error)) {
        check_fail(trial->check, "database_connection", error);
        return false;
    }
    const char *version = PQparameterStatus(database->connection, "server_version");
    check_tell(trial->check, "database_connection", CHECK_OK, "%s at %s:%s as %s, PostgreSQL %s",
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
    check_tell(trial->check, "database_writes", CHECK_OK, "the server takes them");
    return true;
}

/* The daemon's own look at a new connection: every fault is named. */
static bool check_tables(struct trial *trial, struct error *error)
{
    struct pg_statement statement;
    statements_build_check(&statement);
    PGresult *result = database_run(&trial->database, statement.sql, NULL, error);
    int faults = result ? PQntuples(result) : 1;
    for (int i = 0; result && i < faults; i++) {
        (void)error_set(error, ERROR_CONFIG, "%s; apply sql/", PQgetvalue(result, i, 0));
        check_fail(trial->check, "database_tables", error);
    }
    if (!result)
        check_fail(trial->check, "database_tables", error);
    PQclear(result);
    if (faults == 0)
        check_tell(trial->check, "database_tables", CHECK_OK, "tables, columns, types and privileges");
    return faults == 0;
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
        check_tell(trial->check, "database_views", CHECK_OK, "for promptctl orphans and stuck");
    else
        check_tell(trial->check, "database_views", CHECK_NOTE,
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

/* One statement under a savepoint, so that the next can be tried whatever becomes of it. A statement that returns no
 * row has changed nothing. */
static bool try_write(struct trial *trial, const char *sql, const char *const *parameters, char id[UUID_TEXT_SIZE],
                      struct error *error)
{
    if (!database_do(&trial->database, "savepoint trial", error))
        return false;
    PGresult *result = database_run(&trial->database, sql, parameters, error);
    bool changed = result && PQntuples(result) > 0;
    if (changed && id)
        (void)snprintf(id, UUID_TEXT_SIZE, "%s", PQgetvalue(result, 0, 0));
    if (result && !changed)
        (void)error_set(error, ERROR_CONFIG,
                        "no error, and no row was changed: a trigger, a rule or row level"
                        " security keeps it from happening");
    PQclear(result);
    struct error ignored;
    if (!result)
        (void)database_do(&trial->database, "rollback to savepoint trial", &ignored); /* `error` says what matters */
    return changed;
}

static void fail_with(struct trial *trial, const char *step, const char *what, const struct error *error)
{
    struct error full;
    (void)error_set(&full, error->code, "%.60s: %.400s", what, error->text);
    check_fail(trial->check, step, &full);
}

/* With each source: a check constraint or an enum may know fewer of them than the settings. */
static bool check_insert(struct trial *trial, char id[UUID_TEXT_SIZE], struct error *error)
{
    const struct text_list *sources = &trial->check->ctl->settings.sources;
    bool good = true;
    for (size_t i = 0; i < sources->count; i++) {
        const char *const parameters[] = {trial->interview, sources->items[i], NULL};
        if (try_write(trial,
                      "insert into interview_enhanced_prompts (id, interview_id, prompt, source) values"
                      " (gen_random_uuid(), $1::uuid, 'Written by promptctl check, and rolled back.', $2) returning id",
                      parameters, id, error))
            continue;
        fail_with(trial, "insert_prompt", sources->items[i], error);
        good = false;
    }
    if (good)
        check_tell(trial->check, "insert_prompt", CHECK_OK, "with each of the sources, rolled back");
    return good;
}

/* What an interview that is not awaiting tells: that the column does not take the status at all. */
static bool is_about_the_column(const char *sqlstate)
{
    return strcmp(sqlstate, "23514") == 0 || strcmp(sqlstate, "22P02") == 0 || strncmp(sqlstate, "42", 2) == 0 ||
           strcmp(sqlstate, "22001") == 0;
}

static void check_status(struct trial *trial, const char *step, const char *status, struct error *error)
{
    const char *const parameters[] = {trial->interview, status, NULL};
    trial->database.sqlstate[0] = '\0';
    if (try_write(trial, "update interviews set status = $2 where id = $1::uuid returning id", parameters, NULL, error))
        check_tell(trial->check, step, CHECK_OK, "%s can be written, rolled back", status);
    else if (trial->is_awaiting || is_about_the_column(trial->database.sqlstate) || error->code == ERROR_UNAVAILABLE)
        fail_with(trial, step, status, error);
    else
        check_tell(trial->check, step, CHECK_NOTE, "%s could be tried only on an interview that is not awaiting: %s",
                   status, error->text);
}

static void check_delete(struct trial *trial, const char *id, struct error *error)
{
    const char *const parameters[] = {id, NULL};
    if (try_write(trial, "delete from interview_enhanced_prompts where id = $1::uuid returning id", parameters, NULL,
                  error))
        check_tell(trial->check, "delete_prompt", CHECK_OK, "rolled back");
    else
        check_fail(trial->check, "delete_prompt", error);
}

static const char *const trial_steps[] = {"insert_prompt", "ready_status", "failed_status", "delete_prompt", NULL};

static void skip_all(struct check *check, const char *const *steps, const char *why)
{
    for (; *steps; steps++)
        check_tell(check, *steps, CHECK_SKIPPED, "%s", why);
}

static void run_trial(struct trial *trial, struct error *error)
{
    const struct settings *settings = &trial->check->ctl->settings;
    char id[UUID_TEXT_SIZE] = "";
    if (!database_do(&trial->database, "begin", error) ||
        !database_do(&trial->database, "set local lock_timeout = '2s'", error) || !choose_interview(trial, error)) {
        check_fail(trial->check, trial_steps[0], error);
        skip_all(trial->check, trial_steps + 1, "not tried");
        return;
    }
    if (!trial->interview[0]) {
        for (size_t i = 0; trial_steps[i]; i++)
            check_tell(trial->check, trial_steps[i], CHECK_NOTE, "not tried: promptd sees no interview in the table");
        return;
    }
    bool inserted = check_insert(trial, id, error);
    check_status(trial, "ready_status", settings->ready_status, error);
    check_status(trial, "failed_status", settings->failed_status, error);
    if (inserted || id[0])
        check_delete(trial, id, error);
    else
        check_tell(trial->check, "delete_prompt", CHECK_SKIPPED, "not tried");
}

static void check_trial(struct trial *trial, struct error *error)
{
    const struct text_list *awaiting = &trial->check->ctl->settings.awaiting_statuses;
    bool any = awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0;
    if (!any) {
        trial->awaiting = database_array((const char *const *)awaiting->items, awaiting->count);
        if (!trial->awaiting) {
            (void)error_set(error, ERROR_INTERNAL, "memory is out");
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
