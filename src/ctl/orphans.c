/* SPDX-License-Identifier: MIT */
/* promptctl orphans: prompts that were inserted and whose interview was not made ready with them. */
#include <stdlib.h>
#include <string.h>

#include "database.h"
#include "findings.h"
#include "output.h"

#define LIST(source, found_by)                                                                                         \
    "select prompt_id, interview_id, status, source,"                                                                  \
    " to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')" found_by                               \
    ", extract(epoch from age)::bigint from " source                                                                   \
    " where age >= make_interval(secs => $1::float8) order by created_at, prompt_id"

/* The view of promptd 0.1 went by the interview's status, which proves nothing: there must be evidence as well. */
#define ORPHANS "promptd_orphans join promptd_unsettled using (prompt_id, interview_id)"

/* What others, or promptd 0.1, have left behind, without evidence. */
#define SCAN                                                                                                           \
    "(select prompt_id, interview_id, status::text, source::text, created_at, age, 'unsettled' as found_by "           \
    "from " ORPHANS                                                                                                    \
    " union all select p.id, p.interview_id, i.status::text, p.source::text, p.created_at::timestamptz,"               \
    " now() - p.created_at::timestamptz, '" FINDINGS_BY_SCAN "'"                                                       \
    " from interview_enhanced_prompts p left join interviews i on i.id = p.interview_id"                               \
    " where (i.id is null or i.status::text = any($2::text[]))"                                                        \
    " and not exists (select from promptd_unsettled u where u.prompt_id = p.id)) as found"

static const char list_sql[] = LIST(ORPHANS, "");
static const char scan_sql[] = LIST(SCAN, ", found_by");

/* Rows that others have locked are passed over, but for two that are waited for, though not for long: the prompt, which
 * cannot be passed over (the role may update none of its columns), and its interview. */
#define SHORT_WAIT "t as materialized (select set_config('lock_timeout', '500ms', true))"

/*
 * Step 3 as the daemon does it, in one statement: the prompt is taken away, and an interview that is awaiting, and
 * would wait for ever, is marked failed; or nothing of that. Whoever takes the evidence away decides over the prompt.
 * It goes only with the prompt, or where there is none any more; and only as this statement's snapshot sees it, since
 * one that has been renewed belongs to a prompt that the snapshot does not see. $2 statuses, $3 whether it is all
 * others that are meant, $4 ready and failed, all as text: the column may be an enum without them; $5 failed, as its
 * own type.
 */
#define EVIDENCE "promptd_unsettled where prompt_id = $1::uuid"
#define WAITS "(status::text = any($2::text[])) <> $3::boolean and status::text <> all($4::text[])"
static const char undo_sql[] =
    "with " SHORT_WAIT ", u as materialized (select prompt_id, interview_id, xmin from " EVIDENCE
    " for update skip locked),"
    " i as materialized (select id from interviews where id = (select interview_id from u) and " WAITS
    " and exists (select from t) for no key update),"
    " p as (delete from interview_enhanced_prompts where id = any(array(select prompt_id from u))"
    " and exists (select from t) returning id),"
    " d as (delete from promptd_unsettled where prompt_id = any(array(select prompt_id from u))"
    " and (exists (select from p) or (select xmin from u) = (select xmin from " EVIDENCE ")"
    " and not exists (select from interview_enhanced_prompts where id = $1::uuid)) returning prompt_id),"
    " m as (update interviews set status = $5 where id = any(array(select id from i)) and exists (select from d)"
    " returning status)"
    " select case when exists (select from d) and exists (select from i) and not exists (select from m where not "
    "(" WAITS ")) then (select ('" FINDINGS_KEPT
    ": ' || id)::boolean::text from i) when exists (select from d) then 'done'"
    " when exists (select from u) then 'kept' else 'locked' end where exists (select from " EVIDENCE ")";

/*
 * Without evidence only the interview can say that nobody needs the prompt: its newest status counts, under a lock that
 * keeps it as it is until the prompt is gone. One that promptd does not know is taken for one in use.
 */
static const char delete_scanned_sql[] =
    "with " SHORT_WAIT ", f as materialized (select p.id, p.interview_id, i.id is null as lost"
    " from interview_enhanced_prompts p left join interviews i on i.id = p.interview_id where p.id = $1::uuid"
    " and (i.id is null or i.status::text = any($2::text[]))"
    " and not exists (select from promptd_unsettled u where u.prompt_id = p.id)),"
    " i as materialized (select id from interviews where id = any(array(select interview_id from f))"
    " and status::text = any($2::text[]) for no key update skip locked),"
    " d as (delete from interview_enhanced_prompts where id = any(array(select id from f where lost or interview_id ="
    " any(array(select id from i)))) and interview_id is not distinct from (select interview_id from f)"
    " and exists (select from t) returning id)"
    " select case when exists (select from d) then 'done' when lost or exists (select from i) then 'kept'"
    " else 'locked' end from f";

/* Statuses of an interview that waits for a prompt, or has been given up. With awaiting_statuses = * nobody can tell a
 * waiting one from one in use: only `failed` is certain. */
static char *abandoned_statuses(const struct settings *settings)
{
    const struct text_list *awaiting = &settings->awaiting_statuses;
    const char **statuses = calloc(awaiting->count + 1, sizeof *statuses);
    if (!statuses)
        return NULL;
    size_t count = 0;
    for (size_t i = 0; i < awaiting->count; i++) {
        if (strcmp(awaiting->items[i], "*") != 0)
            statuses[count++] = awaiting->items[i];
    }
    statuses[count++] = settings->failed_status;
    char *array = database_array(statuses, count);
    free(statuses);
    return array;
}

static bool finish(struct findings_query *query, const char *sql, struct error *error)
{
    buffer_append(&query->sql, sql, strlen(sql) + 1);
    return !query->sql.failed || error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool build_list(struct database *database, const struct settings *settings, struct findings_query *query,
                       struct error *error)
{
    (void)database;
    (void)settings;
    return finish(query, list_sql, error);
}

static bool build_scan(struct database *database, const struct settings *settings, struct findings_query *query,
                       struct error *error)
{
    (void)database;
    query->parameter = abandoned_statuses(settings);
    return query->parameter ? finish(query, scan_sql, error) : error_set(error, ERROR_INTERNAL, "out of memory");
}

int ctl_orphans(struct ctl *ctl)
{
    static const char *const headings[] = {"PROMPT ID", "INTERVIEW ID", "STATUS", "SOURCE", "CREATED AT", "AGE", NULL};
    static const char *const scan_headings[] = {"PROMPT ID",  "INTERVIEW ID", "STATUS", "SOURCE",
                                                "CREATED AT", "FOUND BY",     "AGE",    NULL};
    const struct settings *settings = &ctl->settings;
    const struct text_list *list = &settings->awaiting_statuses;
    const char *const over[] = {settings->ready_status, settings->failed_status};
    bool scan = ctl_has(ctl, CTL_OPTION_SCAN);
    bool any = list->count == 1 && strcmp(list->items[0], "*") == 0;
    char *abandoned = abandoned_statuses(settings);
    char *awaiting = database_array((const char *const *)list->items, any ? 0 : list->count);
    char *ended = database_array(over, 2);
    int status = CTL_OK;
    if (!abandoned || !awaiting || !ended)
        status = output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "out of memory"});
    else
        status = findings_run(
            ctl, &(struct findings){
                     .build = scan ? build_scan : build_list,
                     .dated = scan ? "interview_enhanced_prompts" : NULL,
                     .headings = scan ? scan_headings : headings,
                     .change = {.sql = undo_sql,
                                .parameters = {awaiting, any ? "true" : "false", ended, settings->failed_status}},
                     .change_scanned = {.sql = delete_scanned_sql, .parameters = {abandoned}},
                     .when = CTL_OPTION_DELETE,
                     .one = "orphaned prompt",
                     .many = "orphaned prompts",
                     .verb = "Delete",
                     .consequence = "",
                     .done = "deleted",
                 });
    free(abandoned);
    free(awaiting);
    free(ended);
    return status;
}
