-- SPDX-License-Identifier: MIT
-- The role `promptd`, with the privileges that promptd and promptctl need and no other. Idempotent.
--
-- Run after 01_schema.sql, by a role that may create roles and owns the tables. No password is set here:
--     psql -c '\password promptd'

set client_min_messages = warning;

begin;

do $$
begin
    if to_regrole('promptd') is null then
        create role promptd login;
    end if;
exception when duplicate_object then
    null; -- somebody else was faster
end
$$;

do $$
declare
    place name;
begin
    execute format('grant connect on database %I to promptd', current_database());
    for place in
        select distinct nspname from pg_namespace join pg_class on pg_namespace.oid = relnamespace
        where pg_class.oid in ('interviews'::regclass, 'interview_enhanced_prompts'::regclass,
                               'promptd_unsettled'::regclass)
    loop
        execute format('grant usage on schema %I to promptd', place);
    end loop;
end
$$;

-- The application's table: which interview, in which state. Nothing else of it is promptd's business.
grant select (id, status), update (status) on interviews to promptd;

-- There is no update: a prompt is stored, or it is taken away again.
grant select, insert, delete on interview_enhanced_prompts to promptd;

-- promptd's own records. To lock a row takes the right to update a column of it; the time is the one that is updated.
grant select, insert (prompt_id, interview_id), update (inserted_at), delete on promptd_unsettled to promptd;

-- Where row level security is on, a role without a policy sees no row at all, and every update would "change nothing".
do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values
            ('interviews', 'promptd_select', 'for select to promptd using (true)'),
            ('interviews', 'promptd_update', 'for update to promptd using (true) with check (true)'),
            ('interview_enhanced_prompts', 'promptd_all', 'for all to promptd using (true) with check (true)'),
            ('promptd_unsettled', 'promptd_all', 'for all to promptd using (true) with check (true)')
        ) as policy (of_table, name, rule)
    loop
        if (select relrowsecurity from pg_class where oid = wanted.of_table::regclass)
           and not exists (select from pg_policy
                           where polrelid = wanted.of_table::regclass and polname = wanted.name) then
            execute format('create policy %I on %s %s', wanted.name, wanted.of_table::regclass, wanted.rule);
        end if;
    end loop;
end
$$;

commit;

reset client_min_messages;
