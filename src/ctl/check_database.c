/* SPDX-License-Identifier: MIT */
/* promptctl check: PostgreSQL, up to the very writes that promptd makes, rolled back. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "check_trial.h"
#include "check_views.h"
#include "database.h"
#include "promptd/schema_check.h"

static bool check_connection(struct check *check, struct database *database, struct error *error)
{
    if (!database_open(database, &check->ctl->settings, error)) {
        check_fail(check, "database_connection", error);
        return false;
    }
    const char *version = PQparameterStatus(database->connection, "server_version");
    check_report_step(check, "database_connection", CHECK_OK, "%s at %s:%s as %s, PostgreSQL %s",
                      PQdb(database->connection), PQhost(database->connection), PQport(database->connection),
                      PQuser(database->connection), version ? version : "of an unknown version");
    return true;
}

static bool check_writes(struct check *check, struct database *database, struct error *error)
{
    PGresult *result = database_run(
        database, "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'", NULL, error);
    bool standby = result && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
    bool read_only = result && strcmp(PQgetvalue(result, 0, 1), "t") == 0;
    PQclear(result);
    if (standby)
        (void)error_set(error, ERROR_CONFIG, "the server is a standby, which takes no writes");
    else if (read_only)
        (void)error_set(error, ERROR_CONFIG, "the database is read-only (default_transaction_read_only)");
    if (!result || standby || read_only) {
        check_fail(check, "database_writes", error);
        return false;
    }
    check_report_step(check, "database_writes", CHECK_OK, "the server takes them");
    return true;
}

/* The daemon's own look at a new connection: every fault is named. With atomicity = transaction nothing is ever
 * unsettled, and what promptd_unsettled lacks is no fault. */
static bool check_tables(struct check *check, struct database *database, struct error *error)
{
    bool in_transaction = check->ctl->settings.atomicity == ATOMICITY_TRANSACTION;
    struct schema_needs needs = schema_needs_of(&check->ctl->settings);
    const char *const parameters[] = {"true", needs.lengths, NULL};
    PGresult *result = database_run(database, schema_check_sql, parameters, error);
    int faults = 0;
    if (!result)
        check_fail(check, "database_tables", error);
    for (int i = 0; i < PQntuples(result); i++) {
        const char *fault = PQgetvalue(result, i, 0);
        bool is_about_unsettled = strcmp(PQgetvalue(result, i, 1), "t") == 0;
        (void)error_set(error, ERROR_CONFIG, "%s", fault);
        if (in_transaction && is_about_unsettled) {
            check_report_step(check, "database_tables", CHECK_NOTE, "%s (not needed with atomicity = transaction)",
                              error->text);
            continue;
        }
        check_fail(check, "database_tables", error);
        faults++;
    }
    bool good = result && faults == 0;
    PQclear(result);
    if (good)
        check_report_step(check, "database_tables", CHECK_OK, "tables, columns, types, keys, privileges and policies");
    return good;
}

static void skip_all(struct check *check, const char *const *steps)
{
    for (; *steps; steps++)
        check_report_step(check, *steps, CHECK_SKIPPED, "not tried");
}

void check_database(struct check *check)
{
    static const char *const steps[] = {"database_writes", "database_tables", "database_views", "awaiting_statuses",
                                        NULL};
    struct database database;
    struct error error;
    if (!check_connection(check, &database, &error)) {
        skip_all(check, steps);
        check_trial_skip(check);
    } else {
        bool writable = check_writes(check, &database, &error);
        bool complete = check_tables(check, &database, &error);
        check_views(check, &database);
        if (complete)
            check_awaiting(check, &database);
        else
            skip_all(check, steps + 3);
        if (writable && complete)
            check_trial(check, &database);
        else
            check_trial_skip(check);
    }
    database_close(&database);
}
