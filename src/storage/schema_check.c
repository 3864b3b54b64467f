/* SPDX-License-Identifier: MIT */
/* One statement that names what is missing, and the lines about it. */
#include "promptd/schema_check.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "promptd/buffer.h"
#include "promptd/log.h"

/* Table, column, type, privilege. */
const char schema_check_sql[] =
    "select distinct case"
    " when r.id is null and w.t = 'promptd_unsettled'"
    "  then 'table promptd_unsettled is missing: apply sql/01_schema.sql and sql/02_role.sql'"
    " when r.id is null then format('table %s is missing', w.t)"
    " when w.c is null then format('role %s may not %s on table %s', current_user, w.p, w.t)"
    " when a.attnum is null then format('column %s.%s is missing', w.t, w.c)"
    " when w.y is not null and a.atttypid <> w.y::regtype"
    "  then format('column %s.%s has type %s instead of %s', w.t, w.c, format_type(a.atttypid, a.atttypmod), w.y)"
    " else format('role %s may not %s column %s.%s', current_user, w.p, w.t, w.c) end,"
    " w.t = 'promptd_unsettled'"
    " from (values ('interviews', 'id', 'uuid', 'select'), ('interviews', 'status', null, 'select'),"
    " ('interviews', 'status', null, 'update'),"
    " ('interview_enhanced_prompts', 'id', 'uuid', 'select'), ('interview_enhanced_prompts', 'id', 'uuid', 'insert'),"
    " ('interview_enhanced_prompts', 'interview_id', 'uuid', 'insert'),"
    " ('interview_enhanced_prompts', 'interview_id', null, 'select'),"
    " ('interview_enhanced_prompts', 'prompt', 'text', 'insert'),"
    " ('interview_enhanced_prompts', 'source', null, 'insert'),"
    " ('interview_enhanced_prompts', 'source', null, 'select'),"
    " ('interview_enhanced_prompts', null, null, 'delete'),"
    " ('promptd_unsettled', 'prompt_id', 'uuid', 'select'), ('promptd_unsettled', 'prompt_id', null, 'insert'),"
    " ('promptd_unsettled', 'interview_id', 'uuid', 'select'), ('promptd_unsettled', 'interview_id', null, 'insert'),"
    " ('promptd_unsettled', 'inserted_at', 'timestamptz', 'select'),"
    " ('promptd_unsettled', 'inserted_at', null, 'update'), ('promptd_unsettled', null, null, 'delete'))"
    " as w (t, c, y, p)"
    " cross join lateral (select to_regclass(w.t)::oid) as r (id)"
    " left join pg_attribute a on a.attrelid = r.id and a.attname = w.c and a.attnum > 0 and not a.attisdropped"
    " where ($1::boolean or w.t <> 'promptd_unsettled')"
    " and (r.id is null"
    " or (w.c is null and not has_table_privilege(r.id, w.p))"
    " or (w.c is not null and a.attnum is null)"
    " or (w.y is not null and a.atttypid <> w.y::regtype)"
    " or (a.attnum is not null and not has_column_privilege(r.id, a.attnum, w.p))) order by 1";

static const char about_sql[] =
    "select pg_backend_pid(), coalesce(has_table_privilege(r.id, 'select') and has_table_privilege(r.id, 'delete')"
    " and has_any_column_privilege(r.id, 'insert') and has_any_column_privilege(r.id, 'update'), false)"
    " from (select to_regclass('promptd_unsettled')::oid) as r (id)";

void schema_check_build(bool needs_evidence, struct pg_statement out[2])
{
    const char *needed = needs_evidence ? "true" : "false";
    out[0] = (struct pg_statement){.sql = schema_check_sql,
                                   .parameters = {{.type = PG_UNTYPED, .data = needed, .length = strlen(needed)}},
                                   .parameter_count = 1};
    out[1] = (struct pg_statement){.sql = about_sql};
}

static bool is_true(const struct pg_answer *answer, int statement, int row, int column)
{
    size_t length;
    const char *field = pg_answer_field(answer, statement, row, column, &length);
    return field && length == 1 && field[0] != 0;
}

bool schema_check_read(const struct pg_answer *answer, struct schema_facts *facts)
{
    size_t length = 0;
    const unsigned char *pid = NULL;
    *facts = (struct schema_facts){.has_evidence = false};
    if (pg_answer_rows(answer, 1) == 1)
        pid = (const unsigned char *)pg_answer_field(answer, 1, 0, 0, &length);
    if (!pid || length != 4)
        return false;
    facts->backend_pid = (int32_t)((uint32_t)pid[0] << 24 | (uint32_t)pid[1] << 16 | (uint32_t)pid[2] << 8 | pid[3]);
    facts->has_evidence = is_true(answer, 1, 0, 1);
    for (int row = 0; row < pg_answer_rows(answer, 0); row++)
        facts->is_blocked = facts->is_blocked || is_true(answer, 0, row, 1);
    return true;
}

/* Each finding once, until the set of findings changes. */
void schema_report_update(struct schema_report *report, const struct pg_answer *answer)
{
    struct buffer all = {0};
    int rows = pg_answer_rows(answer, 0);
    size_t length;
    for (int row = 0; row < rows; row++)
        buffer_printf(&all, "%s\n", pg_answer_field(answer, 0, row, 0, &length));
    buffer_append_char(&all, '\0');
    bool is_news = all.failed || strcmp(all.data, report->findings ? report->findings : "") != 0;
    if (is_news && rows == 0)
        log_info(NULL, "database set up right: tables, columns and privileges are there");
    for (int row = 0; is_news && row < rows; row++)
        log_critical(LOG_FIELDS(log_text("messages", is_true(answer, 0, row, 1) ? "wait" : NULL)),
                     "database set up wrong: %s", pg_answer_field(answer, 0, row, 0, &length));
    free(report->findings);
    report->findings = all.failed ? NULL : all.data;
    if (all.failed)
        buffer_free(&all);
}

bool schema_report_has_findings(const struct schema_report *report)
{
    return report->findings && report->findings[0];
}

void schema_report_free(struct schema_report *report)
{
    free(report->findings);
    report->findings = NULL;
}
