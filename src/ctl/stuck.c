/* SPDX-License-Identifier: MIT */
/* promptctl stuck: interviews that still wait for a prompt. */
#include <stdlib.h>
#include <string.h>

#include "database.h"
#include "findings.h"
#include "output.h"

/* A status that is not awaiting is never overwritten, whatever happens between the list and the change. */
static const char listed_sql[] = "update interviews set status = $3 where id = $1::uuid"
                                 " and status::text = any($2::text[]) and status::text <> $4::text returning 'done'";
static const char any_sql[] = "update interviews set status = $3 where id = $1::uuid"
                              " and status::text <> all($2::text[]) and status::text <> $4::text returning 'done'";

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
                 .select = "select interview_id, status,"
                           " to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
                           " extract(epoch from age)::bigint from promptd_stuck"
                           " where age >= make_interval(secs => $1::float8) order by created_at, interview_id",
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
