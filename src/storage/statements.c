/* SPDX-License-Identifier: MIT */
/* A batch's parameters in, facts out: one statement a step, whatever the number of jobs. Ids and texts travel as
 * arrays, or as they are where there is one, so nothing is quoted or escaped. The texts are in statements_sql.c. */
#include "promptd/statements.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "promptd/sqlstate.h"
#include "statements_sql.h"

struct statements {
    struct statement_statuses statuses;
    struct buffer awaiting; /* text[] */
    struct buffer unfailed; /* text[]: awaiting without failed; with any_is_awaiting, failed alone */
};

/* --- parameters ----------------------------------------------------------------------------------------------- */

static struct pg_parameter array_parameter(unsigned type, const struct buffer *buffer)
{
    return (struct pg_parameter){.type = type, .data = buffer->data, .length = buffer->length, .binary = true};
}

static struct pg_parameter text_parameter(unsigned type, const char *text)
{
    return (struct pg_parameter){.type = type, .data = text, .length = strlen(text), .binary = false};
}

static void add_parameter(struct pg_statement *statement, struct pg_parameter parameter)
{
    statement->parameters[statement->parameter_count++] = parameter;
}

static void add_boolean(struct pg_statement *statement, bool value)
{
    add_parameter(statement, text_parameter(PG_UNTYPED, value ? "true" : "false"));
}

/* --- statuses ------------------------------------------------------------------------------------------------- */

static void fill_statuses(struct buffer *buffer, const struct statement_statuses *statuses, const char *without)
{
    size_t count = 0;
    for (size_t i = 0; i < statuses->awaiting_count; i++)
        if (!without || strcmp(statuses->awaiting[i], without) != 0)
            count++;
    array_begin(buffer, PG_TEXT, count);
    for (size_t i = 0; i < statuses->awaiting_count; i++)
        if (!without || strcmp(statuses->awaiting[i], without) != 0)
            array_add(buffer, statuses->awaiting[i], strlen(statuses->awaiting[i]));
}

struct statements *statements_new(const struct statement_statuses *statuses)
{
    struct statements *statements = calloc(1, sizeof *statements);
    if (!statements)
        return NULL;
    statements->statuses = *statuses;
    fill_statuses(&statements->awaiting, statuses, NULL);
    if (statuses->any_is_awaiting) {
        array_begin(&statements->unfailed, PG_TEXT, 1);
        array_add(&statements->unfailed, statuses->failed, strlen(statuses->failed));
    } else {
        fill_statuses(&statements->unfailed, statuses, statuses->failed);
    }
    if (statements->awaiting.failed || statements->unfailed.failed) {
        statements_free(statements);
        return NULL;
    }
    return statements;
}

void statements_free(struct statements *statements)
{
    if (!statements)
        return;
    buffer_free(&statements->awaiting);
    buffer_free(&statements->unfailed);
    free(statements);
}

/* --- building ------------------------------------------------------------------------------------------------- */

/* To plan costs a batch as much as to write some dozens of its rows. The plan that is kept is as good for one as for
 * thousands, and is made anew by the server when the table's statistics are. */
static struct pg_statement statement_for(const char *sql)
{
    return (struct pg_statement){.sql = sql, .prepare = true};
}

static bool is_single(const struct batch *batch)
{
    return batch->count == 1;
}

static void add_ids(struct pg_statement *out, const struct batch *batch)
{
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->ids));
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->interview_ids));
}

/* The only element of an array, as it stands in it. */
static struct pg_parameter element_parameter(unsigned type, const struct buffer *buffer)
{
    bool is_there = !buffer->failed && buffer->length >= ARRAY_HEADER_BYTES;
    return (struct pg_parameter){.type = type,
                                 .data = is_there ? buffer->data + ARRAY_HEADER_BYTES : "",
                                 .length = is_there ? buffer->length - ARRAY_HEADER_BYTES : 0,
                                 .binary = true};
}

static void add_single_ids(struct pg_statement *out, const struct batch *batch)
{
    add_parameter(out, element_parameter(PG_UUID, &batch->ids));
    add_parameter(out, element_parameter(PG_UUID, &batch->interview_ids));
}

static void add_source(struct pg_statement *out, const struct buffer *text)
{
    add_parameter(
        out, (struct pg_parameter){.type = PG_UNTYPED, .data = text->failed ? "" : text->data, .length = text->length});
}

static void add_texts(struct pg_statement *out, struct batch *batch)
{
    batch_fill_texts(batch);
    add_parameter(out, array_parameter(PG_TEXT_ARRAY, &batch->prompts));
    add_source(out, &batch->sources);
}

static void add_single_text(struct pg_statement *out, struct batch *batch)
{
    batch_fill_single_text(batch);
    add_parameter(out, element_parameter(PG_TEXT, &batch->prompts));
    add_source(out, &batch->sources);
}

static void add_statuses(struct pg_statement *out, const struct statements *statements, const struct buffer *listed)
{
    add_parameter(out, array_parameter(PG_TEXT_ARRAY, listed));
    add_boolean(out, statements->statuses.any_is_awaiting);
}

static int complete(const struct batch *batch, int count)
{
    bool failed = batch->ids.failed || batch->interview_ids.failed || batch->prompts.failed || batch->sources.failed;
    return failed ? 0 : count;
}

static void build_settle(const struct statements *statements, const struct batch *batch, const struct buffer *listed,
                         struct pg_statement *out)
{
    *out = statement_for(is_single(batch) ? statements_settle_single_sql : statements_settle_sql);
    if (is_single(batch))
        add_single_ids(out, batch);
    else
        add_ids(out, batch);
    add_statuses(out, statements, listed);
    add_parameter(out, text_parameter(PG_UNTYPED, statements->statuses.ready));
}

int statements_build_insert(const struct statements *statements, struct batch *batch,
                            struct pg_statement out[PG_STATEMENTS_MAX])
{
    batch_fill_ids(batch);
    if (is_single(batch)) {
        out[0] = statement_for(statements_insert_single_sql);
        add_single_ids(&out[0], batch);
        add_single_text(&out[0], batch);
    } else {
        out[0] = statement_for(statements_insert_sql);
        add_ids(&out[0], batch);
        add_texts(&out[0], batch);
    }
    add_boolean(&out[0], batch->settles);
    if (!batch->settles)
        return complete(batch, 1);
    out[0].commits = true;
    build_settle(statements, batch, &statements->awaiting, &out[1]);
    return complete(batch, 2);
}

int statements_build_transact(const struct statements *statements, struct batch *batch,
                              struct pg_statement out[PG_STATEMENTS_MAX])
{
    int count = 1;
    batch_fill_ids(batch);
    out[0] = statement_for(is_single(batch) ? statements_transact_insert_sql : statements_transact_sql);
    add_ids(&out[0], batch);
    add_texts(&out[0], batch);
    add_statuses(&out[0], statements, &statements->awaiting);
    add_parameter(&out[0], text_parameter(PG_UNTYPED, statements->statuses.ready));
    if (is_single(batch)) {
        out[count] = statement_for(statements_transact_move_sql);
        add_parameter(&out[count], array_parameter(PG_UUID_ARRAY, &batch->ids));
        add_parameter(&out[count++], text_parameter(PG_UNTYPED, statements->statuses.ready));
    }
    if (batch->has_evidence) {
        out[count] = statement_for(statements_transact_clean_sql);
        add_parameter(&out[count++], array_parameter(PG_UUID_ARRAY, &batch->ids));
    }
    return complete(batch, count);
}

int statements_build_settle(const struct statements *statements, struct batch *batch,
                            struct pg_statement out[PG_STATEMENTS_MAX])
{
    batch_fill_ids(batch);
    build_settle(statements, batch, &statements->awaiting, &out[0]);
    return complete(batch, 1);
}

int statements_build_recover(const struct statements *statements, struct batch *batch,
                             struct pg_statement out[PG_STATEMENTS_MAX])
{
    batch_fill_ids(batch);
    build_settle(statements, batch, &statements->unfailed, &out[0]);
    return complete(batch, 1);
}

int statements_build_undo(const struct statements *statements, struct batch *batch,
                          struct pg_statement out[PG_STATEMENTS_MAX])
{
    (void)statements;
    batch_fill_ids(batch);
    out[0] = statement_for(statements_undo_sql);
    add_ids(&out[0], batch);
    return complete(batch, 1);
}

int statements_build_mark(const struct statements *statements, struct batch *batch,
                          struct pg_statement out[PG_STATEMENTS_MAX])
{
    batch_fill_ids(batch);
    out[0] = statement_for(statements_mark_sql);
    add_parameter(&out[0], array_parameter(PG_UUID_ARRAY, &batch->interview_ids));
    add_statuses(&out[0], statements, &statements->awaiting);
    add_parameter(&out[0], text_parameter(PG_UNTYPED, statements->statuses.failed));
    add_parameter(&out[0], text_parameter(PG_UNTYPED, statements->statuses.ready));
    return complete(batch, 1);
}

int statements_build_verify(const struct statements *statements, struct batch *batch,
                            struct pg_statement out[PG_STATEMENTS_MAX])
{
    (void)statements;
    batch_fill_ids(batch);
    out[0] = statement_for(batch->has_evidence ? statements_verify_sql : statements_verify_without_evidence_sql);
    add_ids(&out[0], batch);
    return complete(batch, 1);
}

bool statements_build_unsettled(int64_t older_than_s, const uint8_t after[UUID_SIZE], struct buffer *parameters,
                                struct pg_statement *out)
{
    size_t array_length = parameters->length;
    buffer_append(parameters, after, UUID_SIZE);
    size_t age = parameters->length;
    buffer_printf(parameters, "%lld", (long long)older_than_s);
    buffer_append_char(parameters, '\0');
    if (parameters->failed)
        return false;
    const char *data = parameters->data;
    *out = (struct pg_statement){
        .sql = statements_unsettled_sql,
        .parameters = {text_parameter(PG_UNTYPED, data + age),
                       {.type = PG_UUID_ARRAY, .data = data, .length = array_length, .binary = true},
                       {.type = PG_UUID, .data = data + array_length, .length = UUID_SIZE, .binary = true}},
        .parameter_count = 3,
    };
    return true;
}

int statements_build_probe(bool writes, const char *source, struct pg_statement out[PG_STATEMENTS_MAX])
{
    out[0] = (struct pg_statement){.sql = statements_probe_sql};
    if (!writes)
        return 1;
    out[0] = (struct pg_statement){
        .sql = statements_probe_insert_sql, .parameters = {text_parameter(PG_UNTYPED, source)}, .parameter_count = 1};
    out[1] = (struct pg_statement){.sql = statements_probe_undo_sql, .commits = true};
    out[2] = (struct pg_statement){.sql = statements_probe_table_sql};
    return 3;
}

bool statements_probe_passed(bool writes, const struct pg_answer *answer)
{
    if (!writes)
        return answer->status == PG_OK;
    bool is_refused = answer->failed_statement == 0 && sqlstate_classify(answer->error.sqlstate) == SQLSTATE_OUTAGE;
    if (answer->status == PG_FAILED && strcmp(answer->error.sqlstate, "57014") == 0)
        return true; /* it waited for somebody's lock, which proves nothing */
    return answer->status == PG_FAILED && !is_refused && pg_answer_is_committed(answer, 2);
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static bool is_of_interview(const struct batch *batch, size_t i, const uint8_t id[UUID_SIZE])
{
    return i < batch->count && memcmp(batch->jobs[i]->content.interview_id, id, UUID_SIZE) == 0;
}

/* Rows come mostly in the order of the ids, and so of the jobs: `guess` is tried first. batch->count where there is
 * none. */
static size_t find_by_interview_id(const struct batch *batch, const uint8_t id[UUID_SIZE], size_t guess)
{
    if (is_of_interview(batch, guess, id))
        return guess;
    size_t low = 0;
    size_t high = batch->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(batch->jobs[middle]->content.interview_id, id, UUID_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return is_of_interview(batch, low, id) ? low : batch->count;
}

static bool read_rows(struct batch *batch, const struct pg_answer *answer, int statement, bool is_settle)
{
    int rows = pg_answer_rows(answer, statement);
    size_t i = 0;
    for (int row = 0; row < rows; row++, i++) {
        size_t length;
        const char *id = pg_answer_field(answer, statement, row, 0, &length);
        i = id && length == UUID_SIZE ? find_by_interview_id(batch, (const uint8_t *)id, i) : batch->count;
        if (i == batch->count)
            return false;
        struct job_facts *facts = &batch->facts[i];
        struct write_facts *write = is_settle ? &facts->settle : &facts->write;
        write->held = true;
        write->changed = pg_answer_is_true(answer, statement, row, 1);
    }
    return true;
}

bool statements_read_write(const struct statements *statements, struct batch *batch, const struct pg_answer *answer)
{
    (void)statements;
    memset(batch->facts, 0, batch->count * sizeof *batch->facts);
    if (pg_answer_is_committed(answer, 0) && !read_rows(batch, answer, 0, false))
        return false;
    if (!batch->settles || !pg_answer_is_committed(answer, 1))
        return true;
    for (size_t i = 0; i < batch->count; i++)
        batch->facts[i].settle_ran = true;
    return read_rows(batch, answer, 1, true);
}

/* libpq ends every field with a NUL that its length does not count. */
static void read_status(const struct statement_statuses *statuses, const char *text, struct job_facts *facts)
{
    facts->interview_there = true;
    facts->status = text;
    facts->is_ready = strcmp(text, statuses->ready) == 0;
    facts->is_failed = strcmp(text, statuses->failed) == 0;
    facts->is_awaiting = statuses->any_is_awaiting && !facts->is_ready;
    for (size_t i = 0; i < statuses->awaiting_count && !facts->is_ready; i++)
        if (strcmp(text, statuses->awaiting[i]) == 0)
            facts->is_awaiting = true;
}

bool statements_read_verify(const struct statements *statements, struct batch *batch, const struct pg_answer *answer)
{
    int rows = pg_answer_rows(answer, 0);
    memset(batch->facts, 0, batch->count * sizeof *batch->facts);
    for (int row = 0; row < rows; row++) {
        size_t length;
        const unsigned char *ordinal = (const unsigned char *)pg_answer_field(answer, 0, row, 0, &length);
        if (!ordinal || length != 8)
            return false;
        size_t n = 0;
        for (size_t i = 0; i < length; i++)
            n = n << 8 | ordinal[i];
        if (n < 1 || n > batch->count)
            return false;
        struct job_facts *facts = &batch->facts[n - 1];
        facts->prompt_there = pg_answer_is_true(answer, 0, row, 1);
        facts->unsettled = pg_answer_is_true(answer, 0, row, 2);
        const char *status = pg_answer_field(answer, 0, row, 3, &length);
        if (status)
            read_status(&statements->statuses, status, facts);
    }
    return (size_t)rows == batch->count;
}

bool statements_is_replaced(const char *sqlstate, const char *text)
{
    return strcmp(sqlstate, "22P02") == 0 && strstr(text, STATEMENTS_REPLACED) != NULL;
}

bool statements_is_suppressed(const char *sqlstate, const char *text)
{
    return strcmp(sqlstate, "22P02") == 0 && strstr(text, STATEMENTS_SUPPRESSED) != NULL;
}
