/* SPDX-License-Identifier: MIT */
/* One statement that names what is missing, and the lines about it. */
#include "promptd/schema_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "promptd/buffer.h"
#include "promptd/log.h"

static const char about_sql[] =
    "select pg_backend_pid(), coalesce(has_table_privilege(r.id, 'select') and has_table_privilege(r.id, 'delete')"
    " and has_any_column_privilege(r.id, 'insert') and has_any_column_privilege(r.id, 'update'), false)"
    " from (select to_regclass('promptd_unsettled')::oid) as r (id)";

/* Bytes, which are characters at least. */
static size_t longest(const struct text_list *list)
{
    size_t most = 0;
    for (size_t i = 0; i < list->count; i++)
        if (strlen(list->items[i]) > most)
            most = strlen(list->items[i]);
    return most;
}

struct schema_needs schema_needs_of(const struct settings *settings)
{
    struct schema_needs needs = {.evidence = settings->atomicity != ATOMICITY_TRANSACTION};
    size_t ready = strlen(settings->ready_status);
    size_t failed = strlen(settings->failed_status);
    (void)snprintf(needs.lengths, sizeof needs.lengths, "{%lld,%zu,%zu}", (long long)settings->prompt_max_chars,
                   longest(&settings->sources), ready > failed ? ready : failed);
    return needs;
}

static struct pg_parameter text_parameter(const char *text)
{
    return (struct pg_parameter){.type = PG_UNTYPED, .data = text, .length = strlen(text)};
}

void schema_check_build(const struct schema_needs *needs, struct pg_statement out[2])
{
    out[0] = (struct pg_statement){
        .sql = schema_check_sql,
        .parameters = {text_parameter(needs->evidence ? "true" : "false"), text_parameter(needs->lengths)},
        .parameter_count = 2};
    out[1] = (struct pg_statement){.sql = about_sql};
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
    facts->has_evidence = pg_answer_is_true(answer, 1, 0, 1);
    for (int row = 0; row < pg_answer_rows(answer, 0); row++)
        facts->is_blocked = facts->is_blocked || pg_answer_is_true(answer, 0, row, 1);
    return true;
}

/* Each line ends with a newline; NULL: there are none. */
static bool is_among(const char *lines, const char *line)
{
    size_t length = strlen(line);
    for (; lines && *lines; lines = strchr(lines, '\n') + 1) {
        if (strncmp(lines, line, length) == 0 && lines[length] == '\n')
            return true;
    }
    return false;
}

/* Each finding once, as long as it is there. The catalogue is no snapshot: of two that are fixed together one may be
 * seen alone. */
void schema_check_report(const struct pg_answer *answer, char **findings)
{
    struct buffer all = {0};
    int rows = pg_answer_rows(answer, 0);
    if (rows == 0 && *findings)
        log_info(NULL, "database set up right: tables, columns and privileges are there");
    for (int row = 0; row < rows; row++) {
        size_t length;
        const char *finding = pg_answer_field(answer, 0, row, 0, &length);
        if (!is_among(*findings, finding))
            log_critical(LOG_FIELDS(log_text("messages", pg_answer_is_true(answer, 0, row, 1) ? "wait" : NULL)),
                         "database set up wrong: %s", finding);
        buffer_printf(&all, "%s\n", finding);
    }
    if (rows > 0)
        buffer_append_char(&all, '\0');
    if (all.failed)
        buffer_free(&all);
    free(*findings);
    *findings = all.data;
}
