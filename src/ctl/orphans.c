/* SPDX-License-Identifier: MIT */
/* promptctl orphans: prompts whose interview will not use them. */
#include <stdlib.h>

#include "database.h"
#include "findings.h"
#include "output.h"

/*
 * Beside a daemon that may be making the interview ready just now: the lock waits for it and then shows the newest
 * status (a plain subquery would show the one of the statement's beginning), and the daemon waits for us.
 */
static const char delete_sql[] = "with interview as materialized (select i.id, i.status::text as status"
                                 " from interviews i join interview_enhanced_prompts p on p.interview_id = i.id"
                                 " where p.id = $1::uuid for no key update of i)"
                                 " delete from interview_enhanced_prompts where id = $1::uuid"
                                 " and not exists (select from interview where status = any($2::text[])) returning id";

int ctl_orphans(struct ctl *ctl)
{
    static const char *const headings[] = {"PROMPT ID", "INTERVIEW ID", "STATUS", "SOURCE", "CREATED AT", "AGE", NULL};
    const char *const kept[] = {"ready", "completed", ctl->settings.ready_status};
    char *array = database_array(kept, 3);
    if (!array)
        return output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "memory is out"});
    int status = findings_run(
        ctl, &(struct findings){
                 .select = "select prompt_id, interview_id, status, source,"
                           " to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
                           " extract(epoch from age)::bigint from promptd_orphans"
                           " where age >= make_interval(secs => $1::float8) order by created_at, prompt_id",
                 .headings = headings,
                 .change = delete_sql,
                 .parameters = {array},
                 .when = CTL_OPTION_DELETE,
                 .one = "orphaned prompt",
                 .many = "orphaned prompts",
                 .verb = "Delete",
                 .consequence = "",
                 .done = "deleted",
             });
    free(array);
    return status;
}
