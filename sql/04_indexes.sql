-- SPDX-License-Identifier: MIT
-- Optional, for hundreds of thousands of interviews and more: the index by which `promptctl stuck` finds the few that
-- still wait without reading all of them. It costs each change of a status something, promptd's and the application's
-- (see README.md). Idempotent; holds up no writes; not within a transaction, so not with psql's -1.
--
-- Run by psql as the owner of `interviews`. Where awaiting_statuses is not as shipped, name them, without failed_status:
--     psql -v ON_ERROR_STOP=1 -v awaiting=enhancing,queued -f 04_indexes.sql

set client_min_messages = warning;

\if :{?awaiting}
\else
    \set awaiting pending,not_started,enhancing,vector_search,web_scraping,processing
\endif

-- Each part of a partitioned table has an index of its own; parts that are made later want this file again.
create temporary view promptd_wanted_indexes as
select part.relid::regclass as on_table,
       format('%I.%I', nspname, left(relname, 48) || '_awaiting_idx') as name,
       left(relname, 48) || '_awaiting_idx' as short_name,
       format_type(base.oid, null) as type
from (select oid as relid from pg_class where oid = to_regclass('interviews') and relkind = 'r'
      union select relid from pg_partition_tree(to_regclass('interviews')) where isleaf) as part
join pg_class on pg_class.oid = part.relid
join pg_namespace on pg_namespace.oid = relnamespace
join pg_attribute on attrelid = pg_class.oid and attname = 'status'
join pg_type as given on given.oid = atttypid
join pg_type as base on base.oid = case given.typtype when 'd' then given.typbasetype else given.oid end;

-- One that was left unfinished, or is for other statuses, which its comment tells.
select format('drop index concurrently %s', name)
from promptd_wanted_indexes join pg_index on indexrelid = to_regclass(name)
where not indisvalid or obj_description(indexrelid, 'pg_class') is distinct from :'awaiting'
\gexec

select format('create index concurrently if not exists %I on %s (created_at) where status::%s = any (%L::%s[])',
              short_name, on_table, type,
              array(select word from unnest(string_to_array(:'awaiting', ',')) as word
                    where not exists (select from pg_enum where enumtypid = to_regtype(type))
                       or word in (select enumlabel from pg_enum where enumtypid = to_regtype(type))),
              type)
from promptd_wanted_indexes
\gexec

select format('comment on index %s is %L', name, :'awaiting') from promptd_wanted_indexes
\gexec

drop view promptd_wanted_indexes;

reset client_min_messages;
