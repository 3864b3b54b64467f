/* SPDX-License-Identifier: MIT */
/* promptctl check: the views behind orphans and stuck, and whether the awaiting statuses are those of interviews. */
#include "check_views.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_trial.h"
#include "promptd/buffer.h"
#include "promptd/settings_table.h"
#include "row_age.h"
#include "stuck.h"

/* From here on it is worth an index of its own to find the few that wait. */
enum { MANY_INTERVIEWS = 100000 };

static void end_transaction(struct database *database)
{
    struct error ignored; /* closing the connection does it, too */
    (void)database_do(database, "rollback", &ignored);
}

/* ---- views ---- */

/* Of tables that promptctl reads the age of. */
static bool note_ages(struct check *check, struct database *database, struct error *error)
{
    static const char *const tables[] = {"interviews", "interview_enhanced_prompts", NULL};
    static const char *const commands[] = {"stuck --fail", "orphans --scan --delete"};
    for (size_t i = 0; tables[i]; i++) {
        struct row_age age;
        if (!row_age_read(database, tables[i], &age, error))
            return false;
        if (!age.is_certain)
            check_report_step(check, "database_views", CHECK_NOTE, "%s; promptctl %s refuses to go by it: %s",
                              age.doubt, commands[i], age.cure);
    }
    return true;
}

static bool count_interviews(struct database *database, long long *count, struct error *error)
{
    PGresult *result = database_run(database,
                                    "select coalesce(sum(greatest(reltuples, 0)), 0)::bigint from pg_class where oid in"
                                    " (select to_regclass('interviews')"
                                    " union select relid from pg_partition_tree(to_regclass('interviews')))"
                                    " and relkind <> 'p'",
                                    NULL, error);
    *count = result ? strtoll(PQgetvalue(result, 0, 0), NULL, 10) : 0;
    PQclear(result);
    return result != NULL;
}

/* Does the server mean to read the whole table for promptctl stuck? */
static bool explain_stuck(struct check *check, struct database *database, bool *reads_all, struct error *error)
{
    struct findings_query query = {0};
    struct buffer explain = {0};
    bool good = stuck_build(database, &check->ctl->settings, &query, error);
    if (good) {
        const char *const parameters[] = {"300", query.parameter, NULL};
        buffer_printf(&explain, "explain %s", query.sql.data);
        buffer_append_char(&explain, '\0');
        PGresult *result = explain.failed ? NULL : database_run(database, explain.data, parameters, error);
        good = result || (explain.failed && error_set(error, ERROR_INTERNAL, "out of memory"));
        for (int i = 0; i < PQntuples(result); i++)
            *reads_all = *reads_all || strstr(PQgetvalue(result, i, 0), "Seq Scan on ");
        PQclear(result);
    }
    buffer_free(&explain);
    findings_query_free(&query);
    return good;
}

static bool note_plan(struct check *check, struct database *database, struct error *error)
{
    long long count;
    bool reads_all = false;
    if (!count_interviews(database, &count, error) || !explain_stuck(check, database, &reads_all, error))
        return false;
    if (reads_all && count >= MANY_INTERVIEWS)
        check_report_step(check, "database_views", CHECK_NOTE,
                          "promptctl stuck reads all of about %lld interviews, seconds for millions; with the index of"
                          " sql/04_indexes.sql only those that wait",
                          count);
    return true;
}

void check_views(struct check *check, struct database *database)
{
    struct error error;
    bool good = database_do(database, "begin read only", &error) &&
                database_set_view_statuses(database, &check->ctl->settings, &error) &&
                database_do(database, "select from promptd_orphans, promptd_stuck where false limit 0", &error) &&
                note_ages(check, database, &error) && note_plan(check, database, &error);
    end_transaction(database);
    if (good)
        check_report_step(check, "database_views", CHECK_OK, "for promptctl orphans and stuck");
    else if (error.code != ERROR_CONFIG)
        check_fail(check, "database_views", &error);
    else
        check_report_step(check, "database_views", CHECK_NOTE,
                          "promptctl orphans and stuck will not work: %s; apply sql/03_views.sql", error.text);
}

/* ---- awaiting_statuses ---- */

/* Which of $1 no interview has, how many have been looked at, whether any has one, what they have instead, and whether
 * these were all. The server's statistics stand for the rest of the table. */
#define AWAITING                                                                                                       \
    "with look as materialized (select status::text as s from (%s) as i), seen as (select s from look"                 \
    " where s is not null union select unnest(most_common_vals::text::text[]) from pg_stats"                           \
    " where attname = 'status' and (schemaname, tablename) in (select nspname, relname from pg_class"                  \
    " join pg_namespace n on n.oid = relnamespace where pg_class.oid = to_regclass('interviews')))"                    \
    " select array_to_string(array(select w from unnest($1::text[]) as w where w not in (select s from seen)), ', ')," \
    " (select count(*) from look), exists (select from seen where s = any($1::text[])),"                               \
    " array_to_string(array(select s from seen order by s limit 8), ', '), (select count(*) from look) < 10000"        \
    " and pg_relation_size('interviews') <= 200 * current_setting('block_size')::bigint"

static PGresult *look_for(struct database *database, const struct text_list *statuses, struct error *error)
{
    struct buffer sql = {0};
    buffer_printf(&sql, AWAITING, check_interviews(database));
    buffer_append_char(&sql, '\0');
    char *array = database_array((const char *const *)statuses->items, statuses->count);
    const char *const parameters[] = {array, NULL};
    PGresult *result = NULL;
    if (array && !sql.failed)
        result = database_run(database, sql.data, parameters, error);
    else
        (void)error_set(error, ERROR_INTERNAL, "out of memory");
    free(array);
    buffer_free(&sql);
    return result;
}

/* Of the shipped statuses some are passed through in no time; those that somebody has written down are all meant. */
static bool is_as_shipped(const struct settings *settings)
{
    return !settings->places[settings_table_index(settings_table_find("awaiting_statuses"))];
}

/* That none of the shipped ones was met proves nothing where not all were looked at: few interviews wait at a time. */
static void report_awaiting(struct check *check, const PGresult *result)
{
    const char *missing = PQgetvalue(result, 0, 0);
    const char *looked = PQgetvalue(result, 0, 1);
    bool some = strcmp(PQgetvalue(result, 0, 2), "t") == 0;
    bool all = strcmp(PQgetvalue(result, 0, 4), "t") == 0;
    bool shipped = is_as_shipped(&check->ctl->settings);
    if (strcmp(looked, "0") == 0)
        check_report_step(check, "awaiting_statuses", CHECK_UNTRIED,
                          "not tried: promptd sees no interview in the table");
    else if (*missing && (!some || !shipped))
        check_report_step(check, "awaiting_statuses", shipped && !all ? CHECK_UNTRIED : CHECK_NOTE,
                          "no interview of %s that were looked at has the status %.200s; they, and the server's"
                          " statistics, have %.200s",
                          looked, missing, PQgetvalue(result, 0, 3));
    else
        check_report_step(check, "awaiting_statuses", CHECK_OK, "there are interviews that have them");
}

void check_awaiting(struct check *check, struct database *database)
{
    const struct text_list *awaiting = &check->ctl->settings.awaiting_statuses;
    struct error error;
    if (awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0) {
        check_report_step(check, "awaiting_statuses", CHECK_OK, "any but %s", check->ctl->settings.ready_status);
        return;
    }
    PGresult *result = look_for(database, awaiting, &error);
    if (result)
        report_awaiting(check, result);
    else
        check_fail(check, "awaiting_statuses", &error);
    PQclear(result);
}
