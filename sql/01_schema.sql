-- SPDX-License-Identifier: MIT
-- The tables that promptd works on. Idempotent; changes nothing that is there already, except as said below. On a
-- database of promptd 0.1 it adds promptd_unsettled.
--
-- Run as the owner of `interviews`, in the schema of that table:  psql -v ON_ERROR_STOP=1 -f 01_schema.sql

set client_min_messages = warning;
-- A schema change must not queue up behind a long transaction and hold up the application meanwhile.
set lock_timeout = '5s';

begin;

-- Belongs to the application, which has more columns. Made here only where it is missing, to try promptd out.
create table if not exists interviews (
    id uuid primary key,
    status text not null,
    created_at timestamptz default now()
);

create table if not exists interview_enhanced_prompts (
    id uuid primary key,
    interview_id uuid references interviews (id),
    prompt text,
    source text,
    created_at timestamptz default now()
);

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
