/* SPDX-License-Identifier: MIT */
/*
 * One statement a step, whatever the number of jobs: ids and texts travel as binary arrays, so nothing is quoted or
 * escaped. A lone message's insert brings its update with it, and a look has a barrier before it. Statuses are compared
 * as text, so that the application's column may also be an enum or a varchar.
 */
#include "promptd/statements.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"

static const char insert_sql[] = "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
                                 " select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])"
                                 " on conflict (id) do nothing returning id";

/*
 * The statements that small batches prepare have their array in a subselect. The server cannot look into it when it
 * plans, so that it finds one plan as good for all arrays and keeps it; else it would find each small array cheaper to
 * plan for by itself, and do so every time, which is half of the statement's cost.
 */
#define SEEN_IDS "$1::uuid[]"
#define HIDDEN_IDS "(select $1)::uuid[]"

/* A statement's text, and the one to be prepared. */
struct text_pair {
    const char *plain;
    const char *prepared;
};

/* In the same transaction as the update before it: what did not get ready is not inserted. No join: where the planner
 * believes that few interviews are ready it would walk through all those that are, once for each row. */
#define INSERT_READY(ids)                                                                                              \
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"                                        \
    " select m.* from unnest(" ids ", $2::uuid[], $3::text[], $4::text[]) as m (id, interview_id, prompt, source)"     \
    " where (select i.status::text from interviews i where i.id = m.interview_id) = $5::text"                          \
    " on conflict (id) do nothing returning id"

/* $2 new status, $3 statuses that may change, $4 status that shall not. */
#define MOVE_LISTED(ids, more)                                                                                         \
    "update interviews set status = $2 where id = any(" ids ")"                                                        \
    " and status::text = any($3::text[]) and status::text <> $4::text" more " returning id"

/* $3 and $4 are both statuses that shall not change: all others may. */
#define MOVE_ANY(ids, more)                                                                                            \
    "update interviews set status = $2 where id = any(" ids ")"                                                        \
    " and status::text <> all($3::text[]) and status::text <> $4::text" more " returning id"

/* For prompts of which some are another promptd's: it may delete them at any time. */
#define WITH_PROMPT                                                                                                    \
    " and exists (select from interview_enhanced_prompts p where p.id = any($5::uuid[]) and p.interview_id = "         \
    "interviews.id)"

/*
 * A message that is alone, as most are: both statements go at once, as two transactions, which saves it a round trip.
 * The update looks for the prompt itself, since it runs whatever has become of the insert.
 *
 * Nor does the insert wait for the disk: the update's commit comes after it in the server's log, and waits for both. So
 * what such an insert has returned, ours or another promptd's, is certain only once the update has moved the interview,
 * or a barrier has been committed.
 */
static const char insert_one_sql[] =
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
    " select $1, $2, $3, $4 where set_config('synchronous_commit', 'off', true) is not null"
    " on conflict (id) do nothing returning id";
#define MOVE_ONE(condition)                                                                                            \
    "update interviews set status = $2 where id = $1 and status::text " condition " and status::text <> $4"            \
    " and exists (select from interview_enhanced_prompts p where p.id = $5) returning id"
static const char move_one_listed_sql[] = MOVE_ONE("= any($3)");
static const char move_one_any_sql[] = MOVE_ONE("<> all($3)");

/* A commit that has written something waits for the disk, and for all that was committed before it. The least that may
 * be written, by anyone: a message that readers of the server's log get if they ask for such. Not on a standby. */
static const char barrier_sql[] =
    "select case when not pg_is_in_recovery() then pg_logical_emit_message(true, 'promptd', '') end";

static const struct text_pair insert_texts = {insert_sql, insert_sql};
static const struct text_pair insert_ready_texts = {INSERT_READY(SEEN_IDS), INSERT_READY(HIDDEN_IDS)};
static const struct text_pair move_listed_texts = {MOVE_LISTED(SEEN_IDS, ""), MOVE_LISTED(HIDDEN_IDS, "")};
static const struct text_pair move_any_texts = {MOVE_ANY(SEEN_IDS, ""), MOVE_ANY(HIDDEN_IDS, "")};
static const char move_listed_with_prompt_sql[] = MOVE_LISTED(SEEN_IDS, WITH_PROMPT);
static const char move_any_with_prompt_sql[] = MOVE_ANY(SEEN_IDS, WITH_PROMPT);

/* The second is one probe of an index a row, and a plan that the server keeps; the first does without the index. */
static const struct text_pair unready_texts = {
    "update interviews i set status = $2 where i.id = any(" SEEN_IDS ") and i.status::text = $3::text"
    " and not exists (select from interview_enhanced_prompts p where p.interview_id = i.id) returning i.id",
    "update interviews i set status = $2 where i.id = any(" HIDDEN_IDS ") and i.status::text = $3::text"
    " and (select p.id from interview_enhanced_prompts p where p.interview_id = i.id limit 1) is null returning i.id"};

/* An interview that is ready keeps its prompt, whoever made it ready. */
static const char delete_sql[] =
    "delete from interview_enhanced_prompts p where p.id = any($1::uuid[]) and not exists"
    " (select from interviews i where i.id = p.interview_id and i.status::text = $2::text) returning p.id";

static const char look_sql[] =
    "select m.n, p.id is not null, i.status::text"
    " from unnest($1::uuid[], $2::uuid[]) with ordinality as m (id, interview_id, n)"
    " left join interview_enhanced_prompts p on p.id = m.id left join interviews i on i.id = m.interview_id";

/* $1 statuses that are awaiting still, or with $2 those that are not; $3 prompts that are known already. */
static const char find_sql[] =
    "select p.id, p.interview_id from interview_enhanced_prompts p join interviews i on i.id = p.interview_id"
    " where (i.status::text = any($1::text[])) <> $2::boolean"
    " and p.created_at < now() - interval '10 minutes' and p.created_at > now() - interval '1 day'"
    " and get_byte(uuid_send(p.id), 6) >> 4 = 5 and p.id <> all($3::uuid[])"
    " order by p.created_at limit 20";

static const char check_sql[] =
    "select distinct case"
    " when r.id is null then format('table %s is missing', w.t)"
    " when w.c is null then format('role %s may not %s on table %s', current_user, w.p, w.t)"
    " when a.attnum is null then format('column %s.%s is missing', w.t, w.c)"
    " when w.y is not null and a.atttypid <> w.y::regtype"
    "  then format('column %s.%s has type %s instead of %s', w.t, w.c, format_type(a.atttypid, a.atttypmod), w.y)"
    " else format('role %s may not %s column %s.%s', current_user, w.p, w.t, w.c) end"
    " from (values ('interviews', 'id', 'uuid', 'select'), ('interviews', 'status', null, 'select'),"
    " ('interviews', 'status', null, 'update'),"
    " ('interview_enhanced_prompts', 'id', 'uuid', 'select'), ('interview_enhanced_prompts', 'id', 'uuid', 'insert'),"
    " ('interview_enhanced_prompts', 'interview_id', 'uuid', 'insert'),"
    " ('interview_enhanced_prompts', 'prompt', 'text', 'insert'),"
    " ('interview_enhanced_prompts', 'source', null, 'insert'),"
    " ('interview_enhanced_prompts', null, null, 'delete')) as w (t, c, y, p)"
    " cross join lateral (select to_regclass(w.t)::oid) as r (id)"
    " left join pg_attribute a on a.attrelid = r.id and a.attname = w.c and a.attnum > 0 and not a.attisdropped"
    " where r.id is null"
    " or (w.c is null and not has_table_privilege(r.id, w.p))"
    " or (w.c is not null and a.attnum is null)"
    " or (w.y is not null and a.atttypid <> w.y::regtype)"
    " or (a.attnum is not null and not has_column_privilege(r.id, a.attnum, w.p))"
    " union select format('role %s may not execute pg_logical_emit_message', current_user) from pg_proc f"
    " where f.proname = 'pg_logical_emit_message' and 'text'::regtype = all(f.proargtypes[1:2])"
    " and not has_function_privilege(f.oid, 'execute') order by 1";

struct statements {
    struct statement_statuses statuses;
    struct buffer awaiting;  /* text[] */
    struct buffer never;     /* text[]: with any_is_awaiting, the statuses that are not awaiting all the same */
    struct buffer enhancing; /* text[]: awaiting without failed; with any_is_awaiting, what is settled */
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

/* --- statuses ------------------------------------------------------------------------------------------------- */

/* The statuses of an interview that still shows "enhancing". With awaiting_statuses = * all but these are. */
static void fill_enhancing(struct buffer *buffer, const struct statement_statuses *statuses)
{
    const char *settled[] = {statuses->ready, statuses->failed, "completed"};
    size_t count = 0;
    for (size_t i = 0; i < statuses->awaiting_count; i++)
        if (strcmp(statuses->awaiting[i], statuses->failed) != 0)
            count++;
    array_begin(buffer, PG_TEXT, statuses->any_is_awaiting ? 3 : count);
    for (size_t i = 0; i < 3 && statuses->any_is_awaiting; i++)
        array_add(buffer, settled[i], strlen(settled[i]));
    for (size_t i = 0; i < statuses->awaiting_count; i++)
        if (strcmp(statuses->awaiting[i], statuses->failed) != 0)
            array_add(buffer, statuses->awaiting[i], strlen(statuses->awaiting[i]));
}

struct statements *statements_new(const struct statement_statuses *statuses)
{
    struct statements *statements = calloc(1, sizeof *statements);
    if (!statements)
        return NULL;
    statements->statuses = *statuses;
    array_begin(&statements->awaiting, PG_TEXT, statuses->awaiting_count);
    for (size_t i = 0; i < statuses->awaiting_count; i++)
        array_add(&statements->awaiting, statuses->awaiting[i], strlen(statuses->awaiting[i]));
    array_begin(&statements->never, PG_TEXT, 1);
    array_add(&statements->never, statuses->ready, strlen(statuses->ready));
    fill_enhancing(&statements->enhancing, statuses);
    if (statements->awaiting.failed || statements->never.failed || statements->enhancing.failed) {
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
    buffer_free(&statements->never);
    buffer_free(&statements->enhancing);
    free(statements);
}

/* --- building ------------------------------------------------------------------------------------------------- */

/* A plan that is kept was made for the tables as they were, and for ten rows or so. A large batch has its own: the cost
 * is shared by many messages, and a bad plan would hurt it most. */
static bool is_worth_preparing(const struct batch *batch)
{
    enum { SMALL_BATCH = 10 };
    return batch->count <= SMALL_BATCH;
}

static struct pg_statement choose_text(const struct batch *batch, const struct text_pair *texts)
{
    bool prepare = is_worth_preparing(batch);
    return (struct pg_statement){.sql = prepare ? texts->prepared : texts->plain, .prepare = prepare};
}

static void add_parameter(struct pg_statement *statement, struct pg_parameter parameter)
{
    statement->parameters[statement->parameter_count++] = parameter;
}

static void build_insert(const struct statements *statements, struct batch *batch, bool only_ready,
                         struct pg_statement *out)
{
    batch_fill_texts(batch);
    *out = choose_text(batch, only_ready ? &insert_ready_texts : &insert_texts);
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->ids));
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->interview_ids));
    add_parameter(out, array_parameter(PG_TEXT_ARRAY, &batch->prompts));
    add_parameter(out, array_parameter(PG_TEXT_ARRAY, &batch->sources));
    if (only_ready)
        add_parameter(out, text_parameter(PG_TEXT, statements->statuses.ready));
}

/* Moves awaiting interviews to `status`; those that have it already are left alone. */
static void build_move(const struct statements *statements, const struct batch *batch, const char *status,
                       struct pg_statement *out)
{
    bool any = statements->statuses.any_is_awaiting;
    *out = choose_text(batch, any ? &move_any_texts : &move_listed_texts);
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->interview_ids));
    add_parameter(out, text_parameter(PG_UNTYPED, status));
    add_parameter(out, array_parameter(PG_TEXT_ARRAY, any ? &statements->never : &statements->awaiting));
    add_parameter(out, text_parameter(PG_TEXT, status));
}

static bool are_all_ours(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        if (!batch->jobs[i]->inserted)
            return false;
    return true;
}

static void build_update(const struct statements *statements, const struct batch *batch, struct pg_statement *out)
{
    build_move(statements, batch, statements->statuses.ready, out);
    if (are_all_ours(batch))
        return;
    out->sql = statements->statuses.any_is_awaiting ? move_any_with_prompt_sql : move_listed_with_prompt_sql;
    out->prepare = false;
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->ids));
}

static struct pg_parameter id_parameter(const uint8_t id[UUID_SIZE])
{
    return (struct pg_parameter){.type = PG_UUID, .data = (const char *)id, .length = UUID_SIZE, .binary = true};
}

static void build_lone(const struct statements *statements, const struct batch *batch, struct pg_statement out[2])
{
    const struct job *job = batch->jobs[0];
    const struct message_content *content = &job->content;
    out[0] = (struct pg_statement){.sql = insert_one_sql, .prepare = true, .commits = true};
    add_parameter(&out[0], id_parameter(job->prompt_id));
    add_parameter(&out[0], id_parameter(content->interview_id));
    add_parameter(&out[0], (struct pg_parameter){PG_TEXT, content->prompt, content->prompt_bytes, true});
    add_parameter(&out[0], text_parameter(PG_TEXT, content->source));

    const struct statement_statuses *statuses = &statements->statuses;
    bool any = statuses->any_is_awaiting;
    out[1] = (struct pg_statement){.sql = any ? move_one_any_sql : move_one_listed_sql, .prepare = true};
    add_parameter(&out[1], id_parameter(content->interview_id));
    add_parameter(&out[1], text_parameter(PG_UNTYPED, statuses->ready));
    add_parameter(&out[1], array_parameter(PG_TEXT_ARRAY, any ? &statements->never : &statements->awaiting));
    add_parameter(&out[1], text_parameter(PG_TEXT, statuses->ready));
    add_parameter(&out[1], id_parameter(job->prompt_id));
}

static void build_delete(const struct statements *statements, const struct batch *batch, struct pg_statement *out)
{
    *out = (struct pg_statement){
        .sql = delete_sql,
        .parameters = {array_parameter(PG_UUID_ARRAY, &batch->ids),
                       text_parameter(PG_TEXT, statements->statuses.ready)},
        .parameter_count = 2,
    };
}

static void build_unready(const struct statements *statements, const struct batch *batch, struct pg_statement *out)
{
    *out = choose_text(batch, &unready_texts);
    add_parameter(out, array_parameter(PG_UUID_ARRAY, &batch->interview_ids));
    add_parameter(out, text_parameter(PG_UNTYPED, statements->statuses.failed));
    add_parameter(out, text_parameter(PG_TEXT, statements->statuses.ready));
}

/* What it sees is on disk when it is answered. */
static void build_look(const struct batch *batch, struct pg_statement out[2])
{
    out[0] = (struct pg_statement){.sql = barrier_sql};
    out[1] = (struct pg_statement){
        .sql = look_sql,
        .parameters = {array_parameter(PG_UUID_ARRAY, &batch->ids),
                       array_parameter(PG_UUID_ARRAY, &batch->interview_ids)},
        .parameter_count = 2,
    };
}

int statements_build(struct statements *statements, struct batch *batch, struct pg_statement out[PG_STATEMENTS_MAX])
{
    if (batch->is_lone) {
        build_lone(statements, batch, out);
        return 2;
    }
    int count = 1;
    batch_sort(batch);
    batch_fill_ids(batch);
    switch (batch->step) {
    case JOB_INSERT:
        build_insert(statements, batch, false, &out[0]);
        break;
    case JOB_UPDATE:
        build_update(statements, batch, &out[0]);
        break;
    case JOB_TRANSACT:
        build_move(statements, batch, statements->statuses.ready, &out[0]);
        build_insert(statements, batch, true, &out[1]);
        build_unready(statements, batch, &out[2]); /* what a trigger kept out: never ready, not even if we die now */
        count = 3;
        break;
    case JOB_DELETE:
        build_delete(statements, batch, &out[0]);
        break;
    case JOB_UNREADY:
        build_unready(statements, batch, &out[0]);
        break;
    case JOB_MARK:
        build_move(statements, batch, statements->statuses.failed, &out[0]);
        break;
    case JOB_CONFIRM:
    case JOB_JUDGE:
    case JOB_SETTLE:
    case JOB_PROVE:
    case JOB_WITNESS:
        build_look(batch, out);
        count = 2;
        break;
    case JOB_STEP_COUNT:
        return 0;
    }
    bool failed = batch->ids.failed || batch->interview_ids.failed || batch->prompts.failed || batch->sources.failed;
    return failed ? 0 : count;
}

bool statements_build_find(const struct statements *statements, const uint8_t (*known)[UUID_SIZE], size_t known_count,
                           struct buffer *parameter, struct pg_statement *out)
{
    array_begin(parameter, PG_UUID, known_count);
    for (size_t i = 0; i < known_count; i++)
        array_add(parameter, known[i], UUID_SIZE);
    *out = (struct pg_statement){
        .sql = find_sql,
        .parameters = {array_parameter(PG_TEXT_ARRAY, &statements->enhancing),
                       text_parameter(PG_UNTYPED, statements->statuses.any_is_awaiting ? "true" : "false"),
                       array_parameter(PG_UUID_ARRAY, parameter)},
        .parameter_count = 3,
    };
    return !parameter->failed;
}

void statements_build_check(struct pg_statement *out)
{
    *out = (struct pg_statement){.sql = check_sql};
}

void statements_build_meet(struct pg_statement *out)
{
    *out = (struct pg_statement){.sql = "select pg_backend_pid()"};
}

bool statements_read_meet(const struct pg_answer *answer, int statement, int32_t *pid)
{
    size_t length;
    const unsigned char *field = NULL;
    if (pg_answer_rows(answer, statement) == 1)
        field = (const unsigned char *)pg_answer_field(answer, statement, 0, 0, &length);
    if (!field || length != 4)
        return false;
    *pid = (int32_t)((uint32_t)field[0] << 24 | (uint32_t)field[1] << 16 | (uint32_t)field[2] << 8 | field[3]);
    return true;
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static bool is_interview_keyed(enum job_step step)
{
    return step == JOB_UPDATE || step == JOB_MARK || step == JOB_UNREADY;
}

static size_t find_by_prompt_id(const struct batch *batch, const uint8_t id[UUID_SIZE])
{
    size_t low = 0;
    size_t high = batch->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(batch->jobs[middle]->prompt_id, id, UUID_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Only for answers that leave some jobs out, which is the exception: a scan is good enough. */
static size_t find_by_interview_id(const struct batch *batch, const uint8_t id[UUID_SIZE])
{
    size_t i = 0;
    while (i < batch->count && memcmp(batch->jobs[i]->content.interview_id, id, UUID_SIZE) != 0)
        i++;
    return i;
}

static void set_fact(struct job_facts *facts, bool is_insert)
{
    if (is_insert)
        facts->inserted = true;
    else
        facts->changed = true;
}

/* Marks the jobs whose ids the statement returned. A batch has each interview, and so each prompt, only once. */
static bool read_returned_ids(struct batch *batch, const struct pg_answer *answer, int statement, bool by_interview,
                              bool is_insert)
{
    int rows = pg_answer_rows(answer, statement);
    if ((size_t)rows == batch->count) {
        for (size_t i = 0; i < batch->count; i++)
            set_fact(&batch->facts[i], is_insert);
        return true;
    }
    for (int row = 0; row < rows; row++) {
        size_t length;
        const char *field = pg_answer_field(answer, statement, row, 0, &length);
        if (!field || length != UUID_SIZE)
            return false;
        const uint8_t *id = (const uint8_t *)field;
        size_t i = by_interview ? find_by_interview_id(batch, id) : find_by_prompt_id(batch, id);
        if (i == batch->count)
            return false;
        set_fact(&batch->facts[i], is_insert);
    }
    return true;
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

static bool read_look(const struct statements *statements, struct batch *batch, const struct pg_answer *answer)
{
    int rows = pg_answer_rows(answer, 1);
    for (int row = 0; row < rows; row++) {
        size_t length;
        const unsigned char *ordinal = (const unsigned char *)pg_answer_field(answer, 1, row, 0, &length);
        if (!ordinal || length != 8)
            return false;
        size_t n = 0;
        for (size_t i = 0; i < length; i++)
            n = n << 8 | ordinal[i];
        if (n < 1 || n > batch->count)
            return false;
        struct job_facts *facts = &batch->facts[n - 1];
        const char *there = pg_answer_field(answer, 1, row, 1, &length);
        facts->prompt_there = there && length == 1 && there[0] != 0;
        const char *status = pg_answer_field(answer, 1, row, 2, &length);
        if (status)
            read_status(&statements->statuses, status, facts);
    }
    return (size_t)rows == batch->count;
}

/* Either statement may have failed. */
static bool read_lone(struct batch *batch, const struct pg_answer *answer)
{
    struct job_facts *facts = &batch->facts[0];
    if (pg_answer_is_committed(answer, 0))
        facts->changed = pg_answer_rows(answer, 0) == 1;
    facts->update_ran = pg_answer_is_committed(answer, 1);
    if (facts->update_ran)
        facts->moved = pg_answer_rows(answer, 1) == 1;
    return true;
}

bool statements_read(const struct statements *statements, struct batch *batch, const struct pg_answer *answer)
{
    memset(batch->facts, 0, batch->count * sizeof *batch->facts);
    switch (batch->step) {
    case JOB_CONFIRM:
    case JOB_JUDGE:
    case JOB_SETTLE:
    case JOB_PROVE:
    case JOB_WITNESS:
        return read_look(statements, batch, answer);
    case JOB_TRANSACT:
        return read_returned_ids(batch, answer, 0, true, false) && read_returned_ids(batch, answer, 1, false, true);
    case JOB_INSERT:
        return batch->is_lone ? read_lone(batch, answer) : read_returned_ids(batch, answer, 0, false, false);
    case JOB_UPDATE:
    case JOB_DELETE:
    case JOB_UNREADY:
    case JOB_MARK:
        return read_returned_ids(batch, answer, 0, is_interview_keyed(batch->step), false);
    case JOB_STEP_COUNT:
        break;
    }
    return false;
}
