/* SPDX-License-Identifier: MIT */
/* promptctl check: the very writes that promptd makes, in one transaction that is rolled back. */
#include "check_trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/buffer.h"
#include "promptd/statements.h"
#include "promptd/text.h"

#define UUID_NIL "00000000-0000-0000-0000-000000000000"

struct trial {
    struct check *check;
    struct database *database;
    char *awaiting;                 /* as an array; NULL: any status but ready */
    char interview[UUID_TEXT_SIZE]; /* "": there is none to try with */
    bool is_awaiting;
    bool is_ready; /* already: no statement of the daemon's would change it to that */
    bool is_failed;
    char ids[UUID_TEXT_SIZE + 2];        /* of the prompt that was inserted last, as an array */
    char interviews[UUID_TEXT_SIZE + 2]; /* the interview, as an array */
};

static const char *const trial_steps[] = {"insert_prompt", "ready_status", "failed_status", "delete_prompt", NULL};

static void skip_from(struct check *check, size_t first)
{
    for (size_t i = first; trial_steps[i]; i++)
        check_report_step(check, trial_steps[i], CHECK_SKIPPED, "not tried");
}

/* ---- an interview to try with ---- */

#define FIRST_INTERVIEWS "(select id, status from interviews limit 10000)"
#define SAMPLED_INTERVIEWS                                                                                             \
    "select id, status from interviews tablesample system (least(100, 20000 / greatest(1,"                             \
    " (select pg_relation_size('interviews') / current_setting('block_size')::int))::real))"

const char *check_interviews(struct database *database)
{
    struct error ignored; /* then it is no table, whatever it is */
    PGresult *result = database_run(
        database, "select from pg_class where oid = to_regclass('interviews') and relkind = 'r'", NULL, &ignored);
    bool is_table = result && PQntuples(result) > 0;
    PQclear(result);
    return is_table ? SAMPLED_INTERVIEWS : FIRST_INTERVIEWS;
}

/* The first that nobody else holds. `from` is a table or a query in parentheses. */
static bool choose_from(struct trial *trial, const char *from, const char *condition, const char *const *parameters,
                        struct error *error)
{
    struct buffer sql = {0};
    buffer_printf(
        &sql,
        "select id, status::text from interviews where id = any(array(select id from %s as i where %s limit 100))"
        " limit 1 for no key update skip locked",
        from, condition);
    buffer_append_char(&sql, '\0');
    PGresult *result = sql.failed ? NULL : database_run(trial->database, sql.data, parameters, error);
    if (sql.failed)
        (void)error_set(error, ERROR_INTERNAL, "out of memory");
    if (result && PQntuples(result) > 0) {
        const struct settings *settings = &trial->check->ctl->settings;
        (void)snprintf(trial->interview, sizeof trial->interview, "%s", PQgetvalue(result, 0, 0));
        trial->is_ready = strcmp(PQgetvalue(result, 0, 1), settings->ready_status) == 0;
        trial->is_failed = strcmp(PQgetvalue(result, 0, 1), settings->failed_status) == 0;
    }
    buffer_free(&sql);
    PQclear(result);
    return result != NULL;
}

/* Among all interviews where an index, or a small table, lets the server find one in no time; else among some. */
static bool choose_quickly(struct trial *trial, const char *condition, const char *const *parameters,
                           struct error *error)
{
    if (!database_do(trial->database, "savepoint choice", error) ||
        !database_do(trial->database, "set local statement_timeout = '300ms'", error))
        return false;
    if (choose_from(trial, "interviews", condition, parameters, error))
        return database_do(trial->database, "set local statement_timeout to default", error);
    if (!database_do(trial->database, "rollback to savepoint choice", error))
        return false;
    char from[512];
    (void)snprintf(from, sizeof from, "(%s)", check_interviews(trial->database));
    return choose_from(trial, from, condition, parameters, error);
}

static bool has_chosen(const struct trial *trial)
{
    return trial->interview[0] != '\0';
}

/* One that is awaiting, whose way the application's own triggers let free, and in none of the statuses `but`. */
static bool choose_awaiting(struct trial *trial, const char *but, struct error *error)
{
    const char *const parameters[] = {trial->awaiting ? trial->awaiting : trial->check->ctl->settings.ready_status, but,
                                      NULL};
    bool looked = choose_quickly(trial,
                                 trial->awaiting ? "status::text = any($1::text[]) and status::text <> $2::text"
                                                 : "status::text not in ($1::text, $2::text)",
                                 parameters, error);
    trial->is_awaiting = has_chosen(trial);
    return looked;
}

/* An interview that both statuses can be tried on; else one that is failed and awaiting; else any, rather one that is
 * not ready. */
static bool choose_interview(struct trial *trial, struct error *error)
{
    const struct settings *settings = &trial->check->ctl->settings;
    const char *const ready[] = {settings->ready_status, NULL};
    if (!choose_awaiting(trial, settings->failed_status, error))
        return false;
    if (!has_chosen(trial) && !choose_awaiting(trial, settings->ready_status, error))
        return false;
    if (!has_chosen(trial) && !choose_quickly(trial, "status::text <> $1::text", ready, error))
        return false;
    return has_chosen(trial) || choose_from(trial, "interviews", "true", NULL, error);
}

/* ---- one write ---- */

/* One of the daemon's statements. It returns the row that it held, and whether it has changed it. */
static bool run_write(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    struct database *database = trial->database;
    PGresult *result = database_run(database, sql, parameters, error);
    bool changed = result && PQntuples(result) > 0 &&
                   (PQnfields(result) < 2 || strcmp(PQgetvalue(result, 0, 1), "t") == 0);
    bool is_suppressed = !result && statements_is_suppressed(database->sqlstate, error->text);
    bool is_replaced = !result && statements_is_replaced(database->sqlstate, error->text);
    if (is_suppressed || is_replaced)
        database->sqlstate[0] = '\0'; /* an error of our own statement, and of no column */
    if ((result && !changed) || is_suppressed)
        (void)error_set(error, ERROR_CONFIG,
                        "no error, and no row was changed: a trigger, a rule or row level"
                        " security keeps it from happening");
    if (is_replaced)
        (void)error_set(error, ERROR_CONFIG,
                        "a trigger or a rule gives the new row another id than promptd's, which would never find it");
    PQclear(result);
    return changed;
}

typedef bool write_function(struct trial *trial, const char *sql, const char *const *parameters, struct error *error);

/* Around a write, so that the next can be tried whatever becomes of it. */
static bool take_back(struct trial *trial, write_function *write, const char *sql, const char *const *parameters,
                      struct error *error)
{
    struct error ignored;
    bool done = database_do(trial->database, "savepoint trial", error) && write(trial, sql, parameters, error);
    (void)database_do(trial->database, "rollback to savepoint trial", &ignored); /* `error` says what matters */
    (void)database_do(trial->database, "release savepoint trial", &ignored);     /* what follows is not in it */
    return done;
}

static bool try_write(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    return take_back(trial, run_write, sql, parameters, error);
}

static bool run_quietly(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    PGresult *result = database_run(trial->database, sql, parameters, error);
    PQclear(result);
    return result != NULL;
}

/* The server reads, resolves and plans it, and runs nothing. */
static bool plan_write(struct trial *trial, const char *sql, const char *const *parameters, struct error *error)
{
    struct buffer text = {0};
    buffer_printf(&text, "explain %s", sql);
    buffer_append_char(&text, '\0');
    bool planned = text.failed ? error_set(error, ERROR_INTERNAL, "out of memory")
                               : take_back(trial, run_quietly, text.data, parameters, error);
    buffer_free(&text);
    return planned;
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

/* ---- the daemon's statements ---- */

static bool choose_prompt_id(struct trial *trial, struct error *error)
{
    PGresult *result = database_run(trial->database, "select gen_random_uuid()", NULL, error);
    if (result)
        (void)snprintf(trial->ids, sizeof trial->ids, "{%s}", PQgetvalue(result, 0, 0));
    PQclear(result);
    return result;
}

#define TEXT "Written by promptctl check, and rolled back."

static bool insert_with(struct trial *trial, const char *source, write_function *write, struct error *error)
{
    static const char texts[] = "{\"" TEXT "\"}";
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

/* All statuses are taken for awaiting: the interview may be any. */
static bool make_ready(struct trial *trial, write_function *write, struct error *error)
{
    const char *ready = trial->check->ctl->settings.ready_status;
    const char *const compensated[] = {trial->ids, trial->interviews, "{}", "true", ready, NULL};
    const char *const in_transaction[] = {trial->ids, ready, NULL};
    trial->database->sqlstate[0] = '\0';
    return is_in_transaction(trial) ? write(trial, statements_transact_move_sql, in_transaction, error)
                                    : write(trial, statements_settle_sql, compensated, error);
}

static bool mark_failed(struct trial *trial, write_function *write, struct error *error)
{
    const struct settings *settings = &trial->check->ctl->settings;
    const char *const parameters[] = {trial->interviews,      "{}", "true", settings->failed_status,
                                      settings->ready_status, NULL};
    trial->database->sqlstate[0] = '\0';
    return write(trial, statements_mark_sql, parameters, error);
}

static bool undo(struct trial *trial, write_function *write, struct error *error)
{
    const char *const parameters[] = {trial->ids, trial->interviews, NULL};
    return write(trial, statements_undo_sql, parameters, error);
}

/* Those for a single message differ in more than their parameters. */
static bool plan_single_insert(struct trial *trial, const char *source, struct error *error)
{
    const char *const parameters[] = {UUID_NIL, UUID_NIL, TEXT, source, "false", NULL};
    return is_in_transaction(trial) || plan_write(trial, statements_insert_single_sql, parameters, error);
}

static bool plan_single_settle(struct trial *trial, struct error *error)
{
    const char *const parameters[] = {UUID_NIL, UUID_NIL, "{}", "true", trial->check->ctl->settings.ready_status, NULL};
    return is_in_transaction(trial) || plan_write(trial, statements_settle_single_sql, parameters, error);
}

/* ---- steps with an interview ---- */

/* With each source: a check constraint or an enum may know fewer of them than the settings. One that works stays for
 * what is tried next. */
static bool check_insert(struct trial *trial, struct error *error)
{
    const struct text_list *sources = &trial->check->ctl->settings.sources;
    const char *working = NULL;
    bool good = true;
    for (size_t i = 0; i < sources->count; i++) {
        if (plan_single_insert(trial, sources->items[i], error) &&
            insert_with(trial, sources->items[i], try_write, error)) {
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
    else if (trial->is_awaiting || is_about_the_column(trial->database->sqlstate) || error->code == ERROR_UNAVAILABLE)
        fail_with(trial, step, status, error);
    else
        check_report_step(trial->check, step, CHECK_NOTE,
                          "%s could be tried only on an interview that is not awaiting: %s", status, error->text);
}

/* No statement of the daemon's changes an interview that is `already` there: it was only planned. */
static void report_unchanged(struct trial *trial, const char *step, const char *already)
{
    check_report_step(trial->check, step, CHECK_UNTRIED,
                      "not tried, only planned: the interview that it could be tried on is %s already", already);
}

static void check_ready(struct trial *trial, struct error *error)
{
    const char *ready = trial->check->ctl->settings.ready_status;
    bool done = make_ready(trial, trial->is_ready ? plan_write : try_write, error) && plan_single_settle(trial, error);
    if (done && trial->is_ready)
        report_unchanged(trial, "ready_status", ready);
    else
        report_status(trial, "ready_status", ready, done, error);
}

static void check_failed(struct trial *trial, struct error *error)
{
    const struct settings *settings = &trial->check->ctl->settings;
    bool stays = trial->is_ready || trial->is_failed;
    bool done = mark_failed(trial, stays ? plan_write : try_write, error);
    if (done && stays)
        report_unchanged(trial, "failed_status", trial->is_ready ? settings->ready_status : settings->failed_status);
    else
        report_status(trial, "failed_status", settings->failed_status, done, error);
}

static void check_undo(struct trial *trial, struct error *error)
{
    if (is_in_transaction(trial))
        check_report_step(trial->check, "delete_prompt", CHECK_OK, "not needed with atomicity = transaction");
    else if (undo(trial, try_write, error))
        check_report_step(trial->check, "delete_prompt", CHECK_OK, "rolled back");
    else
        check_fail(trial->check, "delete_prompt", error);
}

/* ---- steps without one ---- */

/* A prompt for no interview, as the daemon's probe makes it: what it meets may be that there is none. */
static bool try_source(struct trial *trial, const char *source, struct error *error)
{
    const char *const parameters[] = {source, NULL};
    return take_back(trial, run_quietly, statements_probe_insert_sql, parameters, error) ||
           !is_about_the_column(trial->database->sqlstate);
}

static bool plan_inserts(struct trial *trial, struct error *error)
{
    const struct text_list *sources = &trial->check->ctl->settings.sources;
    bool good = true;
    for (size_t i = 0; i < sources->count; i++) {
        const char *source = sources->items[i];
        if (insert_with(trial, source, plan_write, error) && plan_single_insert(trial, source, error) &&
            try_source(trial, source, error))
            continue;
        fail_with(trial, "insert_prompt", source, error);
        good = false;
    }
    return good;
}

/* `why` it was not tried. */
static void report_planned(struct trial *trial, const char *step, bool planned, const char *why, struct error *error)
{
    if (planned)
        check_report_step(trial->check, step, CHECK_UNTRIED, "not tried, only planned: %s", why);
    else
        check_fail(trial->check, step, error);
}

static void plan_all(struct trial *trial, const char *why, struct error *error)
{
    if (plan_inserts(trial, error))
        report_planned(trial, "insert_prompt", true, why, error);
    report_planned(trial, "ready_status", make_ready(trial, plan_write, error) && plan_single_settle(trial, error), why,
                   error);
    report_planned(trial, "failed_status", mark_failed(trial, plan_write, error), why, error);
    if (is_in_transaction(trial))
        check_undo(trial, error);
    else
        report_planned(trial, "delete_prompt", undo(trial, plan_write, error), why, error);
}

/* Rows that row level security does not show are there for everybody else. */
static void plan_without_interview(struct trial *trial, struct error *error)
{
    PGresult *result = database_run(trial->database,
                                    "select row_security_active(oid), greatest(reltuples, 0)::bigint from pg_class"
                                    " where oid = to_regclass('interviews')",
                                    NULL, error);
    bool is_hidden = result && PQntuples(result) > 0 && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
    const char *rows = is_hidden ? PQgetvalue(result, 0, 1) : "0";
    if (is_hidden && strcmp(rows, "0") != 0) {
        (void)error_set(error, ERROR_CONFIG,
                        "not tried: row level security shows promptd no interview of about %s in the table", rows);
        check_fail(trial->check, trial_steps[0], error);
        skip_from(trial->check, 1);
    } else {
        plan_all(trial, "promptd sees no interview in the table that nobody else holds", error);
    }
    PQclear(result);
}

/* ---- the whole ---- */

static void run_trial(struct trial *trial, struct error *error)
{
    if (!database_do(trial->database, "begin", error) ||
        !database_do(trial->database, "set local lock_timeout = '2s'", error) || !choose_interview(trial, error)) {
        check_fail(trial->check, trial_steps[0], error);
        skip_from(trial->check, 1);
        return;
    }
    (void)snprintf(trial->interviews, sizeof trial->interviews, "{%s}", trial->interview);
    if (!has_chosen(trial)) {
        plan_without_interview(trial, error);
        return;
    }
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

void check_trial(struct check *check, struct database *database)
{
    struct trial trial = {.check = check, .database = database};
    struct error error;
    const struct text_list *awaiting = &check->ctl->settings.awaiting_statuses;
    bool any = awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0;
    if (!any) {
        trial.awaiting = database_array((const char *const *)awaiting->items, awaiting->count);
        if (!trial.awaiting) {
            (void)error_set(&error, ERROR_INTERNAL, "out of memory");
            check_fail(check, trial_steps[0], &error);
            return;
        }
    }
    run_trial(&trial, &error);
    struct error ignored;
    (void)database_do(database, "rollback", &ignored); /* closing the connection does it, too */
    free(trial.awaiting);
}

void check_trial_skip(struct check *check)
{
    skip_from(check, 0);
}
