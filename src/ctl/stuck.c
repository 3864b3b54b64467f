/* SPDX-License-Identifier: MIT */
/* promptctl stuck: interviews that still wait for a prompt. */
#include "stuck.h"

#include <stdlib.h>
#include <string.h>

#include "output.h"

/* A status that is not awaiting is never overwritten, whatever happens between the list and the change. */
static const char listed_sql[] = "update interviews set status = $3 where id = $1::uuid"
                                 " and status::text = any($2::text[]) and status::text <> $4::text returning 'done'";
static const char any_sql[] = "update interviews set status = $3 where id = $1::uuid"
                              " and status::text <> all($2::text[]) and status::text <> $4::text returning 'done'";

#define LIST                                                                                                           \
    "select interview_id, status, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"           \
    " extract(epoch from age)::bigint from promptd_stuck where age >= make_interval(secs => $1::float8)"

/* The awaiting statuses but failed, which is over and done with, and but what an enum does not know; and the type
 * beneath the column's, of which they have to be for the index of sql/04_indexes.sql to serve. */
static const char statuses_sql[] =
    "select format_type(t.oid, null), array(select s from unnest($1::text[]) as s where s not in ('failed', $2)"
    " and (t.typtype <> 'e' or s in (select enumlabel from pg_enum where enumtypid = t.oid)))"
    " from pg_attribute a join pg_type c on c.oid = a.atttypid"
    " join pg_type t on t.oid = case c.typtype when 'd' then c.typbasetype else c.oid end"
    " where a.attrelid = to_regclass('promptd_stuck') and a.attname = 'status'";

static bool add_statuses(struct database *database, const struct settings *settings, struct findings_query *query,
                         struct error *error)
{
    char *awaiting = database_array((const char *const *)settings->awaiting_statuses.items,
                                    settings->awaiting_statuses.count);
    if (!awaiting)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    const char *const parameters[] = {awaiting, settings->failed_status, NULL};
    PGresult *result = database_run(database, statuses_sql, parameters, error);
    free(awaiting);
    if (result && PQntuples(result) > 0) {
        const char *type = PQgetvalue(result, 0, 0);
        query->parameter = strdup(PQgetvalue(result, 0, 1));
        buffer_printf(&query->sql, " and status::%s = any($2::%s[])", type, type);
    }
    bool good = result &&
                (PQntuples(result) == 0 || query->parameter || error_set(error, ERROR_INTERNAL, "out of memory"));
    PQclear(result);
    return good;
}

bool stuck_build(struct database *database, const struct settings *settings, struct findings_query *query,
                 struct error *error)
{
    static const char order[] = " order by created_at, interview_id";
    const struct text_list *awaiting = &settings->awaiting_statuses;
    bool any = awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0;
    buffer_append_text(&query->sql, LIST);
    if (!any && !add_statuses(database, settings, query, error))
        return false;
    buffer_append(&query->sql, order, sizeof order);
    return !query->sql.failed || error_set(error, ERROR_INTERNAL, "out of memory");
}

int ctl_stuck(struct ctl *ctl)
{
    static const char *const headings[] = {"INTERVIEW ID", "STATUS", "CREATED AT", "AGE", NULL};
    const struct settings *settings = &ctl->settings;
    const struct text_list *awaiting = &settings->awaiting_statuses;
    const char *const over[] = {"ready", "failed", "completed", settings->ready_status};
    bool any = awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0;
    char *array = any ? database_array(over, 4) : database_array((const char *const *)awaiting->items, awaiting->count);
    if (!array)
        return output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "out of memory"});
    int status = findings_run(
        ctl, &(struct findings){
                 .build = stuck_build,
                 .dated = "interviews",
                 .headings = headings,
                 .change = {.sql = any ? any_sql : listed_sql,
                            .parameters = {array, settings->failed_status,
                                           settings->failed_status}}, /* as the column's type, and as text */
                 .when = CTL_OPTION_FAIL,
                 .one = "stuck interview",
                 .many = "stuck interviews",
                 .verb = "Mark",
                 .consequence = " as failed",
                 .done = "failed",
             });
    free(array);
    return status;
}
