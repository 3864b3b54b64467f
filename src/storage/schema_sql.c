/* SPDX-License-Identifier: MIT */
/*
 * What is wrong with the tables, as far as the catalogue knows: one row a fault. It reads the catalogue alone, so that
 * it costs the same whatever the tables hold.
 *
 * $1 is whether promptd_unsettled is needed, $2 the lengths that columns must take: of a prompt, a source, a status.
 */
#include "promptd/schema_check.h"

/* What the statements need: table, column, kind of type (null: it is named in another row), place of its length in $2,
 * privilege. */
#define NEEDED                                                                                                         \
    "needed (t, c, kind, n, p) as (values"                                                                             \
    " ('interviews', 'id', 'uuid', 0, 'select'), ('interviews', 'status', 'word', 3, 'select'),"                       \
    " ('interviews', 'status', null, 0, 'update'),"                                                                    \
    " ('interview_enhanced_prompts', 'id', 'uuid', 0, 'select'),"                                                      \
    " ('interview_enhanced_prompts', 'id', null, 0, 'insert'),"                                                        \
    " ('interview_enhanced_prompts', 'interview_id', 'uuid', 0, 'insert'),"                                            \
    " ('interview_enhanced_prompts', 'interview_id', null, 0, 'select'),"                                              \
    " ('interview_enhanced_prompts', 'prompt', 'text', 1, 'insert'),"                                                  \
    " ('interview_enhanced_prompts', 'source', 'word', 2, 'insert'),"                                                  \
    " ('interview_enhanced_prompts', 'source', null, 0, 'select'),"                                                    \
    " ('interview_enhanced_prompts', null, null, 0, 'delete'),"                                                        \
    " ('promptd_unsettled', 'prompt_id', 'uuid', 0, 'select'),"                                                        \
    " ('promptd_unsettled', 'prompt_id', null, 0, 'insert'),"                                                          \
    " ('promptd_unsettled', 'interview_id', 'uuid', 0, 'select'),"                                                     \
    " ('promptd_unsettled', 'interview_id', null, 0, 'insert'),"                                                       \
    " ('promptd_unsettled', 'inserted_at', 'timestamptz', 0, 'select'),"                                               \
    " ('promptd_unsettled', 'inserted_at', null, 0, 'update'),"                                                        \
    " ('promptd_unsettled', null, null, 0, 'delete'))"

/* The tables as the search path finds them; and else where they are, if they are anywhere. */
#define TABLES                                                                                                         \
    "tables as (select t, to_regclass(t)::oid as id from unnest("                                                      \
    "array['interviews', 'interview_enhanced_prompts', 'promptd_unsettled']) as t"                                     \
    " where $1::boolean or t <> 'promptd_unsettled'),"                                                                 \
    " elsewhere as (select t, quote_ident(nspname) as schema, has_schema_privilege(s.oid, 'usage') as usable"          \
    " from tables join pg_class r on relname = t and relkind in ('r', 'p', 'v', 'f')"                                  \
    " join pg_namespace s on s.oid = relnamespace"                                                                     \
    " where id is null and nspname !~ '^pg_' and nspname <> 'information_schema')"

/* Columns, and what is beneath their domains. */
#define COLUMNS                                                                                                        \
    "columns as (select t, id, c, kind, n, p, attnum, atttypid, atttypmod,"                                            \
    " format_type(atttypid, atttypmod) as shown, atttypid as base, atttypmod as modifier"                              \
    " from needed join tables using (t) left join pg_attribute on attrelid = id and attname = c and attnum > 0"        \
    " and not attisdropped where id is not null and c is not null"                                                     \
    " union all select t, id, c, kind, n, p, attnum, atttypid, atttypmod, shown, typbasetype,"                         \
    " case when modifier = -1 then typtypmod else modifier end from columns join pg_type y on y.oid = base"            \
    " where typtype = 'd'),"                                                                                           \
    " typed as (select *, base = 'varchar'::regtype or base = 'bpchar'::regtype as is_limited"                         \
    " from columns join pg_type y on y.oid = base where typtype <> 'd' and kind is not null)"

#define MISSING_TABLES                                                                                                 \
    "select t, case when s.found is null and t = 'promptd_unsettled'"                                                  \
    " then 'table promptd_unsettled is missing: apply sql/01_schema.sql and sql/02_role.sql'"                          \
    " when s.found is null then format('table %s is missing; apply sql/', t)"                                          \
    " when s.closed is not null then format('table %s is not to be seen: %s exists, and role %s has no USAGE on "      \
    "schema"                                                                                                           \
    " %s; apply sql/02_role.sql there (search_path is %s)', t, s.found, current_user, s.closed, path)"                 \
    " else format('table %s is missing: %s exists, and search_path is %s; see \"Another schema\" in sql/README.md', "  \
    "t,"                                                                                                               \
    " s.found, path) end from tables,"                                                                                 \
    " lateral (select string_agg(schema || '.' || t, ', ') as found,"                                                  \
    " string_agg(schema, ', ') filter (where not usable) as closed from elsewhere e where e.t = tables.t) as s,"       \
    " left(current_setting('search_path'), 100) as path where id is null"

#define MISSING_COLUMNS                                                                                                \
    "select t, format('column %s.%s is missing; apply sql/', t, c) from columns where attnum is null"

#define UNFIT_COLUMNS                                                                                                  \
    "select t, case when kind = 'uuid' and base <> 'uuid'::regtype then format('column %s.%s has type %s instead of"   \
    " uuid; see \"Ids of another type\" in sql/README.md', t, c, shown)"                                               \
    " when kind = 'timestamptz' and base <> 'timestamptz'::regtype"                                                    \
    " or kind = 'text' and base not in ('text'::regtype, 'varchar'::regtype)"                                          \
    " or kind = 'word' and typtype <> 'e' and typcategory <> 'S'"                                                      \
    " then format('column %s.%s has type %s instead of %s', t, c, shown,"                                              \
    " case kind when 'word' then 'text, varchar or an enum' else kind end)"                                            \
    " when c = 'status' and typtype = 'e' and atttypid <> base then format('column %s.%s is a domain over an enum,"    \
    " which PostgreSQL compares with no parameter: make it the enum %s itself, or text', t, c, format_type(base, -1))" \
    " when is_limited and modifier - 4 between 0 and ($2::int[])[n] - 1 then format('column %s.%s has type %s, and "   \
    "must take %s"                                                                                                     \
    " characters%s', t, c, shown, ($2::int[])[n],"                                                                     \
    " case kind when 'text' then ' (prompt_max_chars)' else '' end) end from typed"

#define PRIVILEGES                                                                                                     \
    "select t, format('role %s may not %s on table %s; apply sql/02_role.sql', current_user, p, t)"                    \
    " from needed join tables using (t) where c is null and id is not null and not has_table_privilege(id, p)"         \
    " union all select t, format('role %s may not %s column %s.%s; apply sql/02_role.sql', current_user, p, t, c)"     \
    " from columns where attnum is not null and not has_column_privilege(id, attnum, p)"

/* A conflict is found by a unique index, and without an index each statement reads the whole table. A view has that of
 * its table, and a partitioned table may have an index in each part. */
#define KEYS                                                                                                           \
    "select t, case when is_unique then format('column %s.%s has no unique index of its own, by which promptd knows"   \
    " what is there already', t, c) else format('column %s.%s has no index: each message would read the whole"         \
    " table', t, c) end || format('; alter table %s add primary key (%s)', t, c)"                                      \
    " from (values ('interviews', 'id', false), ('interview_enhanced_prompts', 'id', true),"                           \
    " ('promptd_unsettled', 'prompt_id', true)) as k (t, c, is_unique) join tables using (t)"                          \
    " join pg_class r on r.oid = id join pg_attribute a on attrelid = id and attname = c and not attisdropped"         \
    " where (relkind = 'r' or relkind = 'p' and is_unique) and not exists (select from pg_index where indrelid = id"   \
    " and indkey[0] = attnum and indisvalid and indpred is null"                                                       \
    " and (not is_unique or indisunique and indimmediate and indnkeyatts = 1))"

/* Without a policy a role sees no row, and writes none; and nothing says so but an insert. */
#define POLICIES                                                                                                       \
    "select t, format('row level security is on for table %s, and no policy lets role %s %s its rows; apply"           \
    " sql/02_role.sql', t, current_user, string_agg(words, ', ' order by words))"                                      \
    " from (values ('interviews', 'r', 'select'), ('interviews', 'w', 'update'),"                                      \
    " ('interview_enhanced_prompts', 'r', 'select'), ('interview_enhanced_prompts', 'a', 'insert'),"                   \
    " ('interview_enhanced_prompts', 'd', 'delete'), ('promptd_unsettled', 'r', 'select'),"                            \
    " ('promptd_unsettled', 'a', 'insert'), ('promptd_unsettled', 'w', 'update'),"                                     \
    " ('promptd_unsettled', 'd', 'delete')) as needs (t, command, words) join tables using (t)"                        \
    " where id is not null and row_security_active(id) and not exists (select from pg_policy where polrelid = id"      \
    " and polpermissive and polcmd in ('*', command)"                                                                  \
    " and exists (select from unnest(polroles) as who where who = 0 or pg_has_role(who, 'usage'))) group by t"

const char schema_check_sql[] = "select distinct fault, t = 'promptd_unsettled' from (with recursive " NEEDED
                                ", " TABLES ", " COLUMNS " " MISSING_TABLES " union all " MISSING_COLUMNS
                                " union all " UNFIT_COLUMNS " union all " PRIVILEGES " union all " KEYS
                                " union all " POLICIES ") as faults (t, fault) where fault is not null order by 1";
