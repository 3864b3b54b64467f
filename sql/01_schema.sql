-- SPDX-License-Identifier: MIT
-- The tables that promptd works on. Idempotent; changes nothing that is there already, except as said below. On a
-- database of promptd 0.1 it adds promptd_unsettled.
--
-- Run as the owner of `interviews`, in the schema of that table:  psql -v ON_ERROR_STOP=1 -f 01_schema.sql

set client_min_messages = warning;
-- A schema change must not queue up behind a long transaction and hold up the application meanwhile.
set lock_timeout = '5s';

begin;

-- A second, empty `interviews` would hide the real one from promptd. The other tables go where that one is.
do $$
declare
    missing text;
    places text;
begin
    foreach missing in array array['interviews', 'interview_enhanced_prompts', 'promptd_unsettled'] loop
        select string_agg(format('%I.%I', nspname, relname), ', ') into places
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relname = missing and relkind in ('r', 'p', 'v', 'f')
          and nspname !~ '^pg_' and nspname <> 'information_schema';
        if to_regclass(missing) is null and places is not null then
            raise exception 'search_path (%) leads to no table %, but there is %',
                current_setting('search_path'), missing, places
                using hint = 'Apply the files in that schema: PGOPTIONS=''-c search_path=...'' psql ...';
        end if;
    end loop;
    if to_regclass('interviews') is not null then
        perform set_config('search_path', format('%I, %s', nspname, current_setting('search_path')), true)
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where pg_class.oid = to_regclass('interviews');
    end if;
end
$$;

-- Belongs to the application, which has more columns. Made here only where it is missing, to try promptd out.
create table if not exists interviews (
    id uuid primary key,
    status text not null,
    created_at timestamptz default now()
);

-- A foreign key needs an `id` that is unique by itself, which that of a partitioned table or a view is not.
do $$
declare
    has_key constant boolean := exists (
        select from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid = to_regclass('interviews') and attname = 'id'
          and indisunique and indisvalid and indimmediate and indnkeyatts = 1 and indpred is null);
begin
    if to_regclass('interview_enhanced_prompts') is not null then
        return;
    end if;
    execute format('create table interview_enhanced_prompts (
                        id uuid primary key,
                        interview_id uuid %s,
                        prompt text,
                        source text,
                        created_at timestamptz default now()
                    )', case when has_key then 'references interviews (id)' end);
    if not has_key then
        set local client_min_messages = notice;
        raise notice 'interviews has no unique index on id alone: interview_enhanced_prompts has no foreign key';
        set local client_min_messages = warning;
    end if;
end
$$;

-- A table from before promptd may lack the last two.
alter table interview_enhanced_prompts add column if not exists source text;
alter table interview_enhanced_prompts add column if not exists created_at timestamptz default now();

-- The application asks for the newest prompt of an interview; the foreign key needs the same when an interview goes.
create index if not exists interview_enhanced_prompts_interview_id_created_at_idx
    on interview_enhanced_prompts (interview_id, created_at desc);

-- lz4 stores 2 KB prompts 1.7 times as fast as the default, 8 KB prompts 2.5 times. A server built without lz4 refuses
-- it; the column then keeps the default, everything works, and a notice says so. A method that someone has chosen for
-- the column stays, and so does the compression of rows that are stored already.
do $$
begin
    if (select attcompression = '' from pg_attribute
        where attrelid = 'interview_enhanced_prompts'::regclass and attname = 'prompt') then
        alter table interview_enhanced_prompts alter column prompt set compression lz4;
    end if;
exception when feature_not_supported then
    raise warning 'this server was built without lz4: prompts are compressed by its default method, which is slower';
end
$$;

-- A row says: this prompt was inserted, and its interview has not been made ready with it. It is written by the
-- statement that inserts the prompt, and goes with the one that makes the interview ready or deletes the prompt again.
-- No foreign keys: the row has to outlast both of the others, and a key's check waits for whoever has them locked.
create table if not exists promptd_unsettled (
    prompt_id uuid primary key,
    interview_id uuid not null,
    inserted_at timestamptz not null default now()
) with (
    -- Nearly always empty, and every row that was ever inserted is soon a dead one. An empty table that was cut to no
    -- pages is planned to be read as a whole, by statements that are prepared then and see it grow for a minute.
    vacuum_truncate = off,
    -- So many dead rows, not a share of the living; and then at once, whatever else is being vacuumed.
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 0
);

commit;

reset lock_timeout;
reset client_min_messages;
