-- SPDX-License-Identifier: MIT
-- The book: who changed which interview's status, which prompt and which evidence, row by row, in the doer's own
-- transaction. What the transaction does not keep is not booked either.

create table fault_book (
    seq bigserial primary key,
    tx xid8 not null default pg_current_xact_id(),
    at timestamptz not null default clock_timestamp(),
    pid int not null default pg_backend_pid(),
    who text not null default session_user,
    program text not null default current_setting('application_name'),
    what text not null,
    interview uuid not null,
    prompt uuid,
    old text,
    new text
);
create index on fault_book (tx);
create index on fault_book (interview);

-- Written by the book's reader and committed synchronously: what was visible before survives a crash then.
create table fault_flush (at timestamptz not null);
insert into fault_flush values (now());

create function fault_book_status() returns trigger language plpgsql security definer set search_path = public as $$
begin
    if tg_op = 'DELETE' then
        insert into fault_book (what, interview, old) values ('interview deleted', old.id, old.status);
    else
        insert into fault_book (what, interview, old, new) values ('status', new.id, old.status, new.status);
    end if;
    return null;
end $$;
create trigger fault_book_status after update of status on interviews
    for each row when (old.status is distinct from new.status) execute function fault_book_status();
create trigger fault_book_interview after delete on interviews for each row execute function fault_book_status();

create function fault_book_prompt() returns trigger language plpgsql security definer set search_path = public as $$
begin
    if tg_op = 'DELETE' then
        insert into fault_book (what, interview, prompt) values ('prompt deleted', old.interview_id, old.id);
    else
        insert into fault_book (what, interview, prompt) values ('prompt ' || tg_argv[0], new.interview_id, new.id);
    end if;
    return null;
end $$;
create trigger fault_book_insert after insert on interview_enhanced_prompts
    for each row execute function fault_book_prompt('inserted');
create trigger fault_book_update after update on interview_enhanced_prompts
    for each row execute function fault_book_prompt('updated');
create trigger fault_book_delete after delete on interview_enhanced_prompts
    for each row execute function fault_book_prompt('deleted');

create function fault_book_evidence() returns trigger language plpgsql security definer set search_path = public as $$
begin
    if tg_op = 'DELETE' then
        insert into fault_book (what, interview, prompt) values ('evidence deleted', old.interview_id, old.prompt_id);
    else
        insert into fault_book (what, interview, prompt) values ('evidence ' || tg_argv[0], new.interview_id, new.prompt_id);
    end if;
    return null;
end $$;
create trigger fault_book_insert after insert on promptd_unsettled
    for each row execute function fault_book_evidence('inserted');
create trigger fault_book_update after update on promptd_unsettled
    for each row execute function fault_book_evidence('renewed');
create trigger fault_book_delete after delete on promptd_unsettled
    for each row execute function fault_book_evidence('deleted');
