/* SPDX-License-Identifier: MIT */
/*
 * The SQL of every step.
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
#include "statements_sql.h"

#include "promptd/statements.h"

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

/* The cast fails, and with it the statement: promptd would never find such a row again. */
#define IF_OURS(ours) " where case when " ours " then true else ('" STATEMENTS_REPLACED ": ' || id)::boolean end"
#define ALL_ARE_OURS IF_OURS("id in (select unnest((select $1)::uuid[]))")

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
const char statements_insert_sql[] = INSERT("= any((select $2)::uuid[])", INSERT_FOR("k"), ALL_ARE_OURS);

/* A trigger may keep the interview as it is: by taking the update away, or by making it one to what was there before.
 * That it moves it on to a status of its own is none of our business. In terms of i (before) and m (after). */
#define MOVED "(id in (select id from m) and (id, status) not in (select id, status from m))"

/* The cast fails, and with it the transaction. */
#define FAIL_UNLESS(moved, status)                                                                                     \
    "case when not (" moved ") then ('" STATEMENTS_SUPPRESSED ", in status ' || " status ")::boolean end"

/* The evidence goes only where the interview is moved, or was ready before: else all of it fails. Where something keeps
 * the evidence itself, nothing is moved. */
#define IS_MADE_READY FAIL_UNLESS("status = $5 or " MOVED " or id not in (select interview_id from d)", "status")
const char statements_settle_sql[] =
    "with i as materialized (select id, status from interviews where id = any((select $2)::uuid[]) and " MAY_BE_READY
    " for no key update skip locked),"
    " u as materialized (select prompt_id, interview_id from promptd_unsettled e"
    " where prompt_id = any((select $1)::uuid[]) and (interview_id in (select id from i)) is true"
    " and (select true from interview_enhanced_prompts p where p.id = e.prompt_id) for update skip locked),"
    " d as (delete from promptd_unsettled where prompt_id = any(array(select prompt_id from u)) returning "
    "interview_id),"
    " m as (update interviews set status = $5 where id = any(array(select interview_id from d)) and status <> $5"
    " returning id, status)"
    " select id, id in (select interview_id from d), " IS_MADE_READY
    " from i where (id in (select interview_id from u)) is true";

/* The same two for a single message, whose ids, text and source travel as they are: half the work. */
#define INSERT_ONE                                                                                                     \
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source) select $1, id, $3, $4 from k"           \
    " on conflict (id) do nothing returning id, interview_id"
#define RENEW_EVIDENCE IF_OURS("id = $1") " on conflict (prompt_id) do update set inserted_at = now()"
const char statements_insert_single_sql[] = INSERT("= $2", INSERT_ONE, RENEW_EVIDENCE);

#define ONE_IS_MADE_READY                                                                                              \
    FAIL_UNLESS("status = $5 or not exists (select from d)"                                                            \
                " or coalesce((select m.status is distinct from i.status from m), false)",                             \
                "status")
const char statements_settle_single_sql[] =
    "with i as materialized (select id, status from interviews where id = $2 and " MAY_BE_READY
    " for no key update skip locked),"
    " u as materialized (select prompt_id from promptd_unsettled e"
    " where prompt_id = $1 and interview_id = (select id from i)"
    " and (select true from interview_enhanced_prompts p where p.id = e.prompt_id) for update skip locked),"
    " d as (delete from promptd_unsettled where prompt_id = (select prompt_id from u) returning interview_id),"
    " m as (update interviews set status = $5 where id = (select interview_id from d) and status <> $5"
    " returning status)"
    " select id, exists (select from d), " ONE_IS_MADE_READY " from i where exists (select from u)";

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
const char statements_transact_sql[] =
    "with i as materialized (select id, status from interviews where id = any((select $2)::uuid[])"
    " and ((status::text = any($5::text[])) <> $6::boolean or status = $7)"
    " for no key update skip locked), " INSERTED_OF_I ","
    " m as (update interviews set status = $7 where id = any(array(select interview_id from p)) and status <> $7"
    " returning id, status)"
    " select id, id in (select interview_id from p" ALL_ARE_OURS "), " STAYS_WITH_READY ", " NOTE_KEPT " from i";

/* A message that is alone with its failure: in the same transaction, but two statements, so that it is known which of
 * the two fails. The second moves only for a prompt that this very transaction has inserted, and that is still there.
 */
const char statements_transact_insert_sql[] =
    "with i as materialized (select id from interviews where id = any((select $2)::uuid[])"
    " and ((status::text = any($5::text[])) <> $6::boolean or status = $7)"
    " for no key update skip locked), " INSERTED_OF_I " select id, id in (select interview_id from p" ALL_ARE_OURS
    "), " NOTE_KEPT " from i";

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
const char statements_transact_clean_sql[] =
    "delete from promptd_unsettled where prompt_id = any((select $1)::uuid[]) and " WAS_INSERTED("prompt_id");

/* Sub-selects, so that each row is one probe of an index. */
#define VERIFY(unsettled)                                                                                              \
    "select m.n, (select true from interview_enhanced_prompts p where p.id = m.id), " unsettled ","                    \
    " (select i.status::text from interviews i where i.id = m.interview_id)"                                           \
    " from unnest($1::uuid[], $2::uuid[]) with ordinality as m (id, interview_id, n)"
const char statements_verify_sql[] = VERIFY("(select true from promptd_unsettled u where u.prompt_id = m.id)");
const char statements_verify_without_evidence_sql[] = VERIFY("null::boolean");

/* In the order of the primary key. By age, each page would have to read and sort the whole table. */
const char statements_unsettled_sql[] =
    "select prompt_id, interview_id from promptd_unsettled"
    " where (inserted_at < now() - make_interval(secs => $1::float8) or prompt_id = any($2::uuid[]))"
    " and prompt_id > $3::uuid order by prompt_id limit 256";

const char statements_probe_sql[] = "select 1";
/* A prompt that takes new pages, for no interview; what comes after it takes it back. */
const char statements_probe_insert_sql[] =
    "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
    " select gen_random_uuid(), null, string_agg(md5(random()::text), ''), $1 from generate_series(1, 2048)";
const char statements_probe_undo_sql[] =
    "select ('promptd takes back what it has tried: ' || pg_backend_pid())::boolean";
/* Where such a prompt is refused for other reasons: pages of a table that nobody else has a part in, if that is
 * allowed. */
const char statements_probe_table_sql[] =
    "do $$ begin if has_database_privilege(current_database(), 'temporary') then"
    " create temporary table promptd_probe on commit drop as select gen_random_uuid() from generate_series(1, 2000);"
    " end if; end $$";
