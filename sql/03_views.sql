-- SPDX-License-Identifier: MIT
-- What a person has to look after: the views behind `promptctl orphans` and `promptctl stuck`. Idempotent.
--
-- Run after 02_role.sql, as the owner of the tables. The views read with their owner's rights: so the role needs
-- no access to more columns of `interviews`. Rows of any age are shown; the reader chooses, as in
--     select * from promptd_orphans where age > interval '5 minutes' order by created_at;

set client_min_messages = warning;

begin;

-- Beside the table, whatever other schema comes first.
do $$
begin
    perform set_config('search_path', format('%I, %s', nspname, current_setting('search_path')), true)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = 'interviews'::regclass;
end
$$;

-- promptd_orphans: prompts that promptd has inserted without making their interview ready so far. What is older than a
-- minute or two has been left behind; a running promptd takes it up by itself. A few rows, each of which is looked up by
-- its index, whatever the server believes of the number of rows.
--
-- promptd_stuck: interviews that still wait for a prompt. `failed` is over and done with, although a late prompt may
-- still fix it. With awaiting_statuses = * that is every interview but those that are ready, failed or completed.
--
-- It knows the shipped settings. A reader whose own differ says so, for its transaction, as promptctl does:
--     select set_config('promptd.ready_status', 'prepared', true),
--            set_config('promptd.failed_status', 'broken', true),
--            set_config('promptd.awaiting_statuses', 'enhancing,queued', true);
-- Statuses are compared as text, so that the column may also be an enum. A created_at without a time zone is read in
-- that of the session.
do $$
declare
    orphans constant text := $view$
        select unsettled.prompt_id,
               unsettled.interview_id,
               -- null: there is no such interview
               (select status from interviews where id = unsettled.interview_id limit 1) as status,
               -- null: there is no such prompt any more, or it has none
               (select source from interview_enhanced_prompts where id = unsettled.prompt_id) as source,
               coalesce((select created_at::timestamptz from interview_enhanced_prompts
                         where id = unsettled.prompt_id), unsettled.inserted_at) as created_at,
               now() - unsettled.inserted_at as age
        from promptd_unsettled as unsettled
    $view$;
    stuck constant text := $view$
        select id as interview_id,
               status,
               created_at::timestamptz as created_at,
               now() - created_at::timestamptz as age
        from interviews
        where status::text not in
              ('failed', coalesce(nullif(current_setting('promptd.failed_status', true), ''), 'failed'))
          and case current_setting('promptd.awaiting_statuses', true)
              when '*' then
                  status::text not in
                  ('ready', 'completed', coalesce(nullif(current_setting('promptd.ready_status', true), ''), 'ready'))
              else
                  status::text = any (string_to_array(
                      coalesce(nullif(current_setting('promptd.awaiting_statuses', true), ''),
                               'pending,not_started,enhancing,vector_search,web_scraping,processing'), ','))
              end
    $view$;
    wanted record;
    before record;
    given record;
begin
    for wanted in
        select * from (values ('promptd_orphans', orphans), ('promptd_stuck', stuck)) as view (name, definition)
    loop
        begin
            execute format('create or replace view %I as %s', wanted.name, wanted.definition);
        exception when invalid_table_definition then
            -- A column has another type than in the view that is there. Owner and grants of that one are kept.
            select relacl as grants, relowner as owner into before from pg_class where oid = wanted.name::regclass;
            execute format('drop view %I', wanted.name);
            execute format('create view %I as %s', wanted.name, wanted.definition);
            execute format('alter view %I owner to %s', wanted.name, before.owner::regrole);
            for given in select * from aclexplode(before.grants) where grantee <> before.owner loop
                execute format('grant %s on %I to %s%s', given.privilege_type, wanted.name,
                               case given.grantee when 0 then 'public' else given.grantee::regrole::text end,
                               case when given.is_grantable then ' with grant option' else '' end);
            end loop;
        end;
    end loop;
end
$$;

grant select on promptd_orphans, promptd_stuck to promptd;

commit;

reset client_min_messages;
