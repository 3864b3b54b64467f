-- SPDX-License-Identifier: MIT
-- Interviews that refuse, fail, swallow or dawdle, by kind; load.py says how many are of which. Only promptd meets that.

create table fault_plan (id uuid primary key, kind text not null, code text);

create function fault_raise(text, text) returns void language plpgsql as $$
begin
    raise exception using message = $1, errcode = $2;
end $$;

create function fault_on_insert() returns trigger language plpgsql security definer set search_path = public as $$
declare planned fault_plan;
begin
    select * into planned from fault_plan where id = new.interview_id;
    case planned.kind
        when 'refuse_insert', 'outage_insert' then perform fault_raise('no insert', planned.code);
        when 'skip_insert' then return null;
        when 'slow_insert' then perform pg_sleep(random() * 1.3);
        when 'transient' then if random() < 0.4 then perform fault_raise('try again', '40001'); end if;
        else null;
    end case;
    return new;
end $$;
create trigger fault_insert before insert on interview_enhanced_prompts
    for each row when (session_user = 'promptd') execute function fault_on_insert();

create function fault_on_update() returns trigger language plpgsql security definer set search_path = public as $$
declare planned fault_plan;
begin
    select * into planned from fault_plan where id = new.id;
    case planned.kind
        when 'stuck' then perform fault_raise('no update', planned.code);
        when 'transient' then if random() < 0.4 then perform fault_raise('try again', '40P01'); end if;
        when 'slow_ready' then perform pg_sleep(random() * 1.3);
        when 'refuse_ready', 'outage_ready', 'refuse_delete', 'skip_delete' then
            if new.status = 'ready' then perform fault_raise('not to be ready', planned.code); end if;
        when 'skip_ready' then if new.status = 'ready' then return null; end if;
        else null;
    end case;
    return new;
end $$;
create trigger fault_update before update of status on interviews
    for each row when (session_user = 'promptd') execute function fault_on_update();

create function fault_on_delete() returns trigger language plpgsql security definer set search_path = public as $$
declare planned fault_plan;
begin
    select * into planned from fault_plan where id = old.interview_id;
    case planned.kind
        when 'refuse_delete' then perform fault_raise('no delete', planned.code);
        when 'skip_delete' then return null;
        else null;
    end case;
    return old;
end $$;
create trigger fault_delete before delete on interview_enhanced_prompts
    for each row when (session_user = 'promptd') execute function fault_on_delete();
