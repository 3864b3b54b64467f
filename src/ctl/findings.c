/* SPDX-License-Identifier: MIT */
/* Listing rows of a view, and dealing with them. */
#include "findings.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "database.h"
#include "duration.h"
#include "list.h"
#include "output.h"
#include "promptd/json.h"
#include "row_age.h"

enum { OLDER_THAN_S = 300 };

struct work {
    const struct ctl *ctl;
    const struct findings *findings;
    struct database database;
    PGresult *rows; /* what was found; NULL until then */
    bool *done;     /* a row each */
    int count;
};

static bool read_age(const struct ctl *ctl, char seconds[24], struct error *error)
{
    int64_t age = OLDER_THAN_S;
    const char *text = ctl->options[CTL_OPTION_OLDER_THAN];
    if (text && !duration_parse(text, &age))
        return error_set(error, ERROR_USAGE, "flag --older-than: this is no duration (90, 90s, 5m, 1h, 2d)");
    (void)snprintf(seconds, 24, "%" PRId64, age);
    return true;
}

void findings_query_free(struct findings_query *query)
{
    buffer_free(&query->sql);
    free(query->parameter);
}

/* What is not known to be old is not changed. */
static bool judge_age(struct work *work, struct error *error)
{
    struct row_age age;
    if (!work->findings->dated)
        return true;
    if (!row_age_read(&work->database, work->findings->dated, &age, error))
        return false;
    if (!age.is_certain && ctl_has(work->ctl, work->findings->when))
        return error_set(error, ERROR_CONFIG, "%s, so that nobody knows how old a row is; say which zone it is: %s",
                         age.doubt, age.cure);
    if (age.doubt[0])
        output_note("%s.", age.doubt);
    return true;
}

static void select_rows(struct work *work, const char *seconds, struct error *error)
{
    struct findings_query query = {0};
    if (work->findings->build(&work->database, &work->ctl->settings, &query, error)) {
        const char *const parameters[] = {seconds, query.parameter, NULL};
        work->rows = database_run(&work->database, query.sql.data, parameters, error);
    }
    findings_query_free(&query);
}

/* The views get the statuses for one transaction. A view that is missing is the one fault that has a cure. */
static bool find(struct work *work, const char *seconds, struct error *error)
{
    struct database *database = &work->database;
    if (!database_do(database, "begin read only", error) ||
        !database_set_view_statuses(database, &work->ctl->settings, error) || !judge_age(work, error))
        return false;
    select_rows(work, seconds, error);
    if (!work->rows && strncmp(database->sqlstate, "42", 2) == 0) {
        struct error cause = *error;
        return error_set(error, ERROR_CONFIG, "%.300s: apply sql/01_schema.sql, sql/02_role.sql and sql/03_views.sql",
                         cause.text);
    }
    if (!work->rows || !database_do(database, "commit", error))
        return false;
    work->count = PQntuples(work->rows);
    work->done = calloc((size_t)work->count + 1, sizeof *work->done);
    return work->done || error_set(error, ERROR_INTERNAL, "out of memory");
}

static const char *value_of(const struct work *work, int row, int column)
{
    return PQgetisnull(work->rows, row, column) ? NULL : PQgetvalue(work->rows, row, column);
}

static void list_row(struct work *work, struct list *list, int row)
{
    int last = (int)list->columns - 1;
    char age[DURATION_TEXT_SIZE];
    for (int column = 0; column < last; column++)
        list_cell(list, value_of(work, row, column));
    duration_format(strtoll(PQgetvalue(work->rows, row, last), NULL, 10), age);
    list_cell(list, age);
}

/* "PROMPT ID" as "prompt_id" */
static void write_key(const char *heading, char key[32])
{
    size_t i = 0;
    for (; i < 31 && heading[i]; i++)
        key[i] = (char)(heading[i] == ' ' ? '_' : tolower((unsigned char)heading[i]));
    key[i] = '\0';
}

static void list_as_json(struct work *work, struct list *list, int row)
{
    int last = (int)list->columns - 1;
    struct buffer object = {0};
    json_open(&object, NULL, '{');
    for (int column = 0; column < last; column++) {
        char key[32];
        write_key(work->findings->headings[column], key);
        json_text(&object, key, value_of(work, row, column));
    }
    json_number(&object, "age_seconds", strtoull(PQgetvalue(work->rows, row, last), NULL, 10));
    if (ctl_has(work->ctl, work->findings->when))
        json_boolean(&object, work->findings->done, work->done[row]);
    json_close(&object, '}');
    list_object(list, &object);
}

static void list_rows(struct work *work)
{
    struct list list;
    list_begin(&list, work->ctl, work->findings->headings);
    for (int row = 0; row < work->count; row++) {
        if (list.json)
            list_as_json(work, &list, row);
        else
            list_row(work, &list, row);
    }
    list_end(&list);
}

/* ---- changes ---- */

enum verdict { VERDICT_CHANGED, VERDICT_DONE, VERDICT_LOCKED, VERDICT_KEPT, VERDICT_FAILED };

static enum verdict read_verdict(const PGresult *result)
{
    static const char *const words[] = {[VERDICT_DONE] = "done", [VERDICT_LOCKED] = "locked", [VERDICT_KEPT] = "kept"};
    for (enum verdict verdict = VERDICT_DONE; PQntuples(result) > 0 && verdict <= VERDICT_KEPT; verdict++) {
        if (strcmp(PQgetvalue(result, 0, 0), words[verdict]) == 0)
            return verdict;
    }
    return VERDICT_CHANGED;
}

static bool is_scanned(const struct work *work, int row)
{
    const char *found_by = value_of(work, row, PQnfields(work->rows) - 2);
    return found_by && strcmp(found_by, FINDINGS_BY_SCAN) == 0;
}

static enum verdict change_once(struct work *work, int row, struct error *error)
{
    const struct findings *findings = work->findings;
    const struct findings_change *change = is_scanned(work, row) ? &findings->change_scanned : &findings->change;
    const char *const parameters[] = {value_of(work, row, 0), change->parameters[0], change->parameters[1],
                                      change->parameters[2],  change->parameters[3], NULL};
    work->database.sqlstate[0] = '\0';
    PGresult *result = database_run(&work->database, change->sql, parameters, error);
    if (!result && strstr(error->text, FINDINGS_KEPT))
        return VERDICT_KEPT;
    if (!result)
        return strcmp(work->database.sqlstate, "55P03") == 0 ? VERDICT_LOCKED : VERDICT_FAILED;
    enum verdict verdict = read_verdict(result);
    PQclear(result);
    return verdict;
}

/* A statement does not see what was committed after it began: what looks locked or kept may just have been dealt with
 * by somebody else, and a second one knows. */
static enum verdict change_row(struct work *work, int row, struct error *error)
{
    enum verdict verdict = change_once(work, row, error);
    bool has_waited = verdict == VERDICT_LOCKED && strcmp(work->database.sqlstate, "55P03") == 0;
    if ((verdict == VERDICT_LOCKED && !has_waited) || verdict == VERDICT_KEPT)
        verdict = change_once(work, row, error);
    if (verdict == VERDICT_KEPT) {
        (void)error_set(error, ERROR_CONFIG,
                        "no error, and nothing was changed: a trigger, a rule or row level security keeps it from"
                        " happening");
        verdict = VERDICT_FAILED;
    }
    work->done[row] = verdict == VERDICT_DONE;
    return verdict;
}

/* What one row meets need not meet the next, unless the server is gone. */
static int change_rows(struct work *work)
{
    int counts[VERDICT_FAILED + 1] = {0};
    int status = CTL_OK;
    for (int row = 0; row < work->count && status != CTL_UNREACHABLE; row++) {
        struct error cause;
        struct error error;
        enum verdict verdict = change_row(work, row, &cause);
        counts[verdict]++;
        if (verdict == VERDICT_LOCKED)
            output_note("%s: left alone, somebody else has it locked", value_of(work, row, 0));
        if (verdict != VERDICT_FAILED)
            continue;
        (void)error_set(&error, cause.code, "%s: %.400s", value_of(work, row, 0), cause.text);
        status = output_fail(&error);
    }
    output_note("%d of %d %s", counts[VERDICT_DONE], work->count, work->findings->done);
    if (counts[VERDICT_CHANGED] > 0)
        output_note("%d had changed meanwhile and %s left alone.", counts[VERDICT_CHANGED],
                    counts[VERDICT_CHANGED] == 1 ? "was" : "were");
    return status == CTL_OK && counts[VERDICT_LOCKED] > 0 ? CTL_FOUND : status;
}

static int deal_with(struct work *work)
{
    const struct findings *findings = work->findings;
    const struct ctl *ctl = work->ctl;
    bool json = ctl_has(ctl, CTL_OPTION_JSON);
    bool change = ctl_has(ctl, findings->when) && work->count > 0;
    int status = work->count > 0 ? CTL_FOUND : CTL_OK;
    if (!json)
        list_rows(work);
    if (work->count == 0)
        output_note("No %s.", findings->many);
    if (change && output_confirm(ctl, "%s %d %s%s?", findings->verb, work->count,
                                 work->count == 1 ? findings->one : findings->many, findings->consequence))
        status = change_rows(work);
    if (json)
        list_rows(work);
    return status;
}

int findings_run(struct ctl *ctl, const struct findings *findings)
{
    struct work work = {.ctl = ctl, .findings = findings};
    struct error error;
    char seconds[24];
    bool asked = !ctl_has(ctl, findings->when) || output_may_change(ctl, &error);
    if (!asked || !read_age(ctl, seconds, &error))
        return output_fail(&error);
    int status = CTL_OK;
    if (database_open(&work.database, &ctl->settings, &error) && find(&work, seconds, &error))
        status = deal_with(&work);
    else
        status = output_fail(&error);
    PQclear(work.rows);
    free(work.done);
    database_close(&work.database);
    return status;
}
