/* SPDX-License-Identifier: MIT */
/*
 * One statement a step, whatever the number of jobs: ids and texts travel as arrays, so nothing is quoted or escaped.
 *
 * Their safety rests on one thing: whoever settles or undoes a prompt must win its row in promptd_unsettled. A check in
 * a sub-select is as old as the statement's snapshot, and guards nothing by itself (PostgreSQL manual, 13.2.1).
 *
 * Statuses are compared as text, and parameters take the type of their column, so that columns may be enums. Rows are
 * looked up by `= any(array(…))`, never by a join with another part of the statement: for a join the planner may read
 * a whole table. What is compared in memory is compared by `in (select …)` where the planner cannot make a join of it,
 * so that it makes a hash table of it, whatever number of rows it expects. The arrays stand in sub-selects: the server
 * cannot look into them when it plans, so that it finds one plan as good for all arrays, and keeps it; to plan is half
 * of a small statement's cost.
 */
#include "promptd/statements.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "promptd/sqlstate.h"

/* An interview may get its prompt: it is awaiting, or ready already. $3 statuses, $4 whether it is all others that are
 * meant, $5 the ready status. */
#define MAY_BE_READY "((status::text = any($3::text[])) <> $4::boolean or status = $5)"

/* What the messages bring: $1 prompt ids, $2 interview ids, $3 texts, $4 sources, as the column's own type. */
#define MESSAGES                                                                                                       \
    "unnest((select $1)::uuid[], (select $2)::uuid[], (select $3)::text[],"                                            \
    " (select coalesce($4, array(select source from interview_enhanced_prompts limit 0))))"                            \
    " as m (id, interview_id, prompt, source)"

/* In the order of their ids: two promptds that get the same messages would deadlock otherwise. */
#define INSERT_FOR(interviews)                                                                                         \
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"                                        \
    " select m.id, m.interview_id, m.prompt, m.source from " MESSAGES                                                  \
    " where (m.interview_id in (select id from " interviews ")) is true order by m.id"                                 \
    " on conflict (id) do nothing returning id, interview_id"

/*
 * The prompt and its evidence at once. With $5 the commit does not wait for the disk: a settle follows in the same
 * flush, whose own commit waits for both.
 */
#define INSERT(of_interviews, prompts, evidence)                                                                       \
    "with k as materialized (select id from interviews where id " of_interviews                                        \
    " and (select case when $5::boolean then set_config('synchronous_commit', 'off', true) else '' end) is not null"   \
    " for key share skip locked),"                                                                                     \
    " p as (" prompts "),"                                                                                             \
    " u as (insert into promptd_unsettled (prompt_id, interview_id) select id, interview_id from p" evidence           \
    " returning interview_id)"                                                                                         \
    " select id, id in (select interview_id from u) from k"

/* Evidence that is there already was left by a prompt that somebody else has deleted. That is so rare that a batch
 * fails by it, and its messages go one by one: to look for it costs as much as to insert it. */
const char statements_insert_sql[] = INSERT("= any((select $2)::uuid[])", INSERT_FOR("k"), "");

/* A trigger may keep the interview as it is: by taking the update away, or by making it one to what was there before.
 * That it moves it on to a status of its own is none of our business. In terms of i (before) and m (after). */
#define MOVED "(id in (select id from m) and (id, status) not in (select id, status from m))"

/* The cast fails, and with it the transaction. */
#define SUPPRESSED "the interview was not made ready: a trigger or a rule keeps it"
#define FAIL_UNLESS(moved, status)                                                                                     \
    "case when not (" moved ") then ('" SUPPRESSED ", in status ' || " status ")::boolean end"

/*
 * The evidence goes only where the interview is moved, or was ready before: else all of it fails. To take the evidence
 * away locks it, and waits for nobody who waits for us: who settles has locked the interview first, which is not waited
 * for, and who undoes locks nothing else that is locked here.
 */
#define IS_MADE_READY FAIL_UNLESS("status = $5 or " MOVED, "status")
const char statements_settle_sql[] =
    "with i as materialized (select id, status from interviews where id = any((select $2)::uuid[]) and " MAY_BE_READY
    " for no key update skip locked),"
    " d as (delete from promptd_unsettled e where prompt_id = any((select $1)::uuid[])"
    " and (interview_id in (select id from i)) is true"
    " and (select true from interview_enhanced_prompts p where p.id = e.prompt_id) returning interview_id),"
    " m as (update interviews set status = $5 where id = any(array(select interview_id from d)) and status <> $5"
    " returning id, status)"
    " select id, true, " IS_MADE_READY " from i where (id in (select interview_id from d)) is true";

/* The same two for a single message, whose ids, text and source travel as they are: half the work. */
#define INSERT_ONE                                                                                                     \
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source) select $1, id, $3, $4 from k"           \
    " on conflict (id) do nothing returning id, interview_id"
#define RENEW_EVIDENCE " on conflict (prompt_id) do update set inserted_at = now()"
static const char insert_single_sql[] = INSERT("= $2", INSERT_ONE, RENEW_EVIDENCE);

#define ONE_IS_MADE_READY FAIL_UNLESS("status = $5 or coalesce((select m.status <> i.status from m), false)", "status")
static const char settle_single_sql[] =
    "with i as materialized (select id, status from interviews where id = $2 and " MAY_BE_READY
    " for no key update skip locked),"
    " d as (delete from promptd_unsettled e where prompt_id = $1 and interview_id = (select id from i)"
    " and (select true from interview_enhanced_prompts p where p.id = e.prompt_id) returning interview_id),"
    " m as (update interviews set status = $5 where id = (select interview_id from d) and status <> $5"
    " returning status)"
    " select id, true, " ONE_IS_MADE_READY " from i where exists (select from d)";

/* The evidence goes only where the prompt went, which a trigger or a policy may prevent; or where there is no prompt
 * any more: in the version of the evidence that this statement's snapshot sees, for a newer one speaks of a newer
 * prompt. */
const char statements_undo_sql[] =
    "with u as materialized (select prompt_id, ctid from promptd_unsettled"
    " where prompt_id = any((select $1)::uuid[]) for update skip locked),"
    " p as (delete from interview_enhanced_prompts where id = any(array(select prompt_id from u)) returning id),"
    " g as (select prompt_id from u where (select true from interview_enhanced_prompts x where x.id = u.prompt_id)"
    " is null and (select e.ctid from promptd_unsettled e where e.prompt_id = u.prompt_id) = u.ctid),"
    " d as (delete from promptd_unsettled where prompt_id ="
    " any(array(select id from p union all select prompt_id from g)) returning prompt_id)"
    " select m.interview_id, m.prompt_id in (select prompt_id from d)"
    " from unnest((select $1)::uuid[], (select $2)::uuid[]) as m (prompt_id, interview_id)"
    " where m.prompt_id in (select prompt_id from u)";

/* $1 interview ids, $2 and $3 as MAY_BE_READY's $3 and $4, $4 the failed and $5 the ready status. */
const char statements_mark_sql[] =
    "with i as materialized (select id, status from interviews where id = any((select $1)::uuid[])"
    " and (status::text = any($2::text[])) <> $3::boolean and status <> $4 and status <> $5"
    " for no key update skip locked),"
    " m as (update interviews set status = $4 where id = any(array(select id from i)) returning id, status)"
    " select id, " MOVED " from i";

/* Which prompts were there already, or are not inserted for another reason, in general none: for the statements that
 * follow in the same transaction. Where no interview is held it is not noted at all, and nothing was inserted. The
 * xmin would not do: a trigger may have touched a prompt in a subtransaction. */
#define NOTE_KEPT                                                                                                      \
    "(select set_config('promptd.kept', array(select x.id from unnest((select $1)::uuid[]) as x (id)"                  \
    " where x.id not in (select id from p))::text, true))"
#define WAS_INSERTED(id) "coalesce(" id " <> all(nullif(current_setting('promptd.kept', true), '')::uuid[]), false)"

/* Without its interview's move no prompt stays. */
#define INSERTED_OF_I "p as (" INSERT_FOR("i") ")"
#define STAYS_WITH_READY FAIL_UNLESS("status = $7 or " MOVED " or id not in (select interview_id from p)", "status")
static const char transact_sql[] =
    "with i as materialized (select id, status from interviews where id = any((select $2)::uuid[])"
    " and ((status::text = any($5::text[])) <> $6::boolean or status = $7)"
    " for no key update skip locked), " INSERTED_OF_I ","
    " m as (update interviews set status = $7 where id = any(array(select interview_id from p)) and status <> $7"
    " returning id, status)"
    " select id, id in (select interview_id from p), " STAYS_WITH_READY ", " NOTE_KEPT " from i";

/* A message that is alone with its failure: in the same transaction, but two statements, so that it is known which of
 * the two fails. The second moves only for a prompt that this very transaction has inserted, and that is still there.
 */
const char statements_transact_insert_sql[] =
    "with i as materialized (select id from interviews where id = any((select $2)::uuid[])"
    " and ((status::text = any($5::text[])) <> $6::boolean or status = $7)"
    " for no key update skip locked), " INSERTED_OF_I " select id, id in (select interview_id from p), " NOTE_KEPT
    " from i";

#define INSERTED_IDS "select id from unnest((select $1)::uuid[]) as n (id) where " WAS_INSERTED("id")
#define ITS_INTERVIEW_IS_READY                                                                                         \
    FAIL_UNLESS("exists (select from i where status = $2 or " MOVED ")",                                               \
                "coalesce((select status::text from i), 'unknown')")
const char statements_transact_move_sql[] =
    "with n as materialized (" INSERTED_IDS "),"
    " i as materialized (select id, status from interviews where id = any(array("
    "select interview_id from interview_enhanced_prompts where id = any(array(select id from n))))"
    " for no key update skip locked),"
    " m as (update interviews set status = $2 where id = any(array(select id from i)) and status <> $2"
    " returning id, status)"
    " select " ITS_INTERVIEW_IS_READY " from n";

/* Where one that compensates was at it before, there may be evidence left over from a prompt that somebody else has
 * deleted. It must not speak of the new one. In a statement of its own, so that its snapshot is newer than the insert;
 * nobody can make evidence for a prompt that is there. */
static const char transact_clean_sql[] =
    "delete from promptd_unsettled where prompt_id = any((select $1)::uuid[]) and " WAS_INSERTED("prompt_id");

/* Sub-selects, so that each row is one probe of an index. */
#define VERIFY(unsettled)                                                                                              \
    "select m.n, (select true from interview_enhanced_prompts p where p.id = m.id), " unsettled ","                    \
    " (select i.status::text from interviews i where i.id = m.interview_id)"                                           \
    " from unnest($1::uuid[], $2::uuid[]) with ordinality as m (id, interview_id, n)"
static const char verify_sql[] = VERIFY("(select true from promptd_unsettled u where u.prompt_id = m.id)");
static const char verify_without_evidence_sql[] = VERIFY("null::boolean");

/* In the order of the primary key. By age, each page would have to read and sort the whole table. */
static const char unsettled_sql[] =
    "select prompt_id, interview_id from promptd_unsettled"
    " where (inserted_at < now() - make_interval(secs => $1::float8) or prompt_id = any($2::uuid[]))"
    " and prompt_id > $3::uuid order by prompt_id limit 256";

static const char probe_sql[] = "select 1";
/* A prompt that takes new pages, for no interview; what comes after it takes it back. */
static const char probe_insert_sql[] =
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
    " select gen_random_uuid(), null, string_agg(md5(random()::text), ''), $1 from generate_series(1, 2048)";
static const char probe_undo_sql[] = "select ('promptd takes back what it has tried: ' || pg_backend_pid())::boolean";
/* Where such a prompt is refused for other reasons: pages of a table that nobody else has a part in, if that is
 * allowed. */
static const char probe_table_sql[] =
    "do $$ begin if has_database_privilege(current_database(), 'temporary') then"
    " create temporary table promptd_probe on commit drop as select gen_random_uuid() from generate_series(1, 2000);"
    " end if; end $$";

struct statements {
    struct statement_statuses statuses;
    struct buffer awaiting; /* text[] */
    struct buffer unfailed; /* text[]: awaiting without failed; with any_is_awaiting, failed alone */
    bool has_evidence;
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
    statements->has_evidence = true;
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

void statements_set_evidence(struct statements *statements, bool is_there)
{
    statements->has_evidence = is_there;
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
    *out = statement_for(is_single(batch) ? settle_single_sql : statements_settle_sql);
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
        out[0] = statement_for(insert_single_sql);
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
    out[0] = statement_for(is_single(batch) ? statements_transact_insert_sql : transact_sql);
    add_ids(&out[0], batch);
    add_texts(&out[0], batch);
    add_statuses(&out[0], statements, &statements->awaiting);
    add_parameter(&out[0], text_parameter(PG_UNTYPED, statements->statuses.ready));
    if (is_single(batch)) {
        out[count] = statement_for(statements_transact_move_sql);
        add_parameter(&out[count], array_parameter(PG_UUID_ARRAY, &batch->ids));
        add_parameter(&out[count++], text_parameter(PG_UNTYPED, statements->statuses.ready));
    }
    if (statements->has_evidence) {
        out[count] = statement_for(transact_clean_sql);
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
    batch_fill_ids(batch);
    out[0] = statement_for(statements->has_evidence ? verify_sql : verify_without_evidence_sql);
    add_ids(&out[0], batch);
    return complete(batch, 1);
}

bool statements_build_unsettled(int64_t older_than_s, const uint8_t (*always)[UUID_SIZE], size_t always_count,
                                const uint8_t after[UUID_SIZE], struct buffer *parameters, struct pg_statement *out)
{
    buffer_reset(parameters, SIZE_MAX);
    array_begin(parameters, PG_UUID, always_count);
    for (size_t i = 0; i < always_count; i++)
        array_add(parameters, always[i], UUID_SIZE);
    size_t array_length = parameters->length;
    buffer_append(parameters, after, UUID_SIZE);
    size_t age = parameters->length;
    buffer_printf(parameters, "%lld", (long long)older_than_s);
    buffer_append_char(parameters, '\0');
    if (parameters->failed)
        return false;
    const char *data = parameters->data;
    *out = (struct pg_statement){
        .sql = unsettled_sql,
        .parameters = {text_parameter(PG_UNTYPED, data + age),
                       {.type = PG_UUID_ARRAY, .data = data, .length = array_length, .binary = true},
                       {.type = PG_UUID, .data = data + array_length, .length = UUID_SIZE, .binary = true}},
        .parameter_count = 3,
    };
    return true;
}

int statements_build_probe(bool writes, const char *source, struct pg_statement out[PG_STATEMENTS_MAX])
{
    out[0] = (struct pg_statement){.sql = probe_sql};
    if (!writes)
        return 1;
    out[0] = (struct pg_statement){
        .sql = probe_insert_sql, .parameters = {text_parameter(PG_UNTYPED, source)}, .parameter_count = 1};
    out[1] = (struct pg_statement){.sql = probe_undo_sql, .commits = true};
    out[2] = (struct pg_statement){.sql = probe_table_sql};
    return 3;
}

bool statements_probe_passed(bool writes, const struct pg_answer *answer)
{
    if (!writes)
        return answer->status == PG_OK;
    bool is_refused = answer->failed_statement == 0 && sqlstate_classify(answer->failure.sqlstate) == SQLSTATE_OUTAGE;
    if (answer->status == PG_FAILED && strcmp(answer->failure.sqlstate, "57014") == 0)
        return true; /* it waited for somebody's lock, which proves nothing */
    return answer->status == PG_FAILED && !is_refused && pg_answer_is_committed(answer, 2);
}

/* --- reading -------------------------------------------------------------------------------------------------- */

/* batch->count where there is none. */
static size_t find_by_interview_id(const struct batch *batch, const uint8_t id[UUID_SIZE])
{
    size_t low = 0;
    size_t high = batch->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(batch->jobs[middle]->content.interview_id, id, UUID_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < batch->count && memcmp(batch->jobs[low]->content.interview_id, id, UUID_SIZE) == 0;
    return found ? low : batch->count;
}

static bool read_boolean(const struct pg_answer *answer, int statement, int row, int column)
{
    size_t length;
    const char *field = pg_answer_field(answer, statement, row, column, &length);
    return field && length == 1 && field[0] != 0;
}

static bool read_rows(struct batch *batch, const struct pg_answer *answer, int statement, bool is_settle)
{
    int rows = pg_answer_rows(answer, statement);
    for (int row = 0; row < rows; row++) {
        size_t length;
        const char *id = pg_answer_field(answer, statement, row, 0, &length);
        size_t i = id && length == UUID_SIZE ? find_by_interview_id(batch, (const uint8_t *)id) : batch->count;
        if (i == batch->count)
            return false;
        struct job_facts *facts = &batch->facts[i];
        struct write_facts *write = is_settle ? &facts->settle : &facts->write;
        write->held = true;
        write->changed = read_boolean(answer, statement, row, 1);
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
        facts->prompt_there = read_boolean(answer, 0, row, 1);
        facts->unsettled = read_boolean(answer, 0, row, 2);
        const char *status = pg_answer_field(answer, 0, row, 3, &length);
        if (status)
            read_status(&statements->statuses, status, facts);
    }
    return (size_t)rows == batch->count;
}

bool statements_is_suppressed(const struct job_failure *failure)
{
    return strcmp(failure->sqlstate, "22P02") == 0 && strstr(failure->text, SUPPRESSED) != NULL;
}
