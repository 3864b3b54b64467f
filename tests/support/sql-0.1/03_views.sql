-- SPDX-License-Identifier: MIT
-- What a person has to look after: the views behind `promptctl orphans` and `promptctl stuck`. Idempotent.
--
-- Run after 02_role.sql, as the owner of the two tables. The views read with their owner's rights: so the role needs
-- no access to more columns of `interviews`. Rows of any age are shown; the reader chooses, as in
--     select * from promptd_orphans where age > interval '5 minutes' order by created_at;

set client_min_messages = warning;

begin;

-- Both know the shipped settings. A reader whose own differ says so, for its transaction, as promptctl does:
--     select set_config('promptd.ready_status', 'prepared', true),
--            set_config('promptd.failed_status', 'broken', true),
--            set_config('promptd.awaiting_statuses', 'enhancing,queued', true);
-- Statuses are compared as text, so that the column may also be an enum.

-- Prompts whose interview will not use them: it is neither ready nor completed, or it does not exist.
create or replace view promptd_orphans as
select prompt.id as prompt_id,
       prompt.interview_id,
       interview.status, -- null: there is no such interview
       prompt.source,
       prompt.created_at,
       now() - prompt.created_at as age
from interview_enhanced_prompts as prompt
left join interviews as interview on interview.id = prompt.interview_id
where interview.id is null
   or interview.status::text not in
      ('ready', 'completed', coalesce(nullif(current_setting('promptd.ready_status', true), ''), 'ready'));

-- Interviews that still wait for a prompt. `failed` is over and done with, although a late prompt may still mend it.
-- With awaiting_statuses = * that is every interview but those that are ready, failed or completed.
create or replace view promptd_stuck as
select id as interview_id,
       status,
       created_at,
       now() - created_at as age
from interviews
where status::text not in ('failed', coalesce(nullif(current_setting('promptd.failed_status', true), ''), 'failed'))
  and case current_setting('promptd.awaiting_statuses', true)
      when '*' then
          status::text not in
          ('ready', 'completed', coalesce(nullif(current_setting('promptd.ready_status', true), ''), 'ready'))
      else
          status::text = any (string_to_array(
              coalesce(nullif(current_setting('promptd.awaiting_statuses', true), ''),
                       'pending,not_started,enhancing,vector_search,web_scraping,processing'), ','))
      end;

grant select on promptd_orphans, promptd_stuck to promptd;

commit;

reset client_min_messages;
