-- SPDX-License-Identifier: MIT
-- The interviews that scripts/quickstart plays with, and the faults that it plants.

insert into interviews (id, status) values
    ('11111111-1111-4111-8111-111111111111', 'enhancing'),
    ('33333333-3333-4333-8333-333333333333', 'enhancing'),
    ('44444444-4444-4444-8444-444444444444', 'completed'),
    ('55555555-5555-4555-8555-555555555555', 'enhancing'),
    ('66666666-6666-4666-8666-666666666666', 'enhancing'),
    ('77777777-7777-4777-8777-777777777777', 'enhancing');

-- Interviews 5 and 6 can be anything but ready: the second of promptd's two writes fails.
create function refuse_ready() returns trigger language plpgsql as $$
begin
    raise exception 'a trigger of the quickstart refuses the status ready';
end
$$;

create trigger refuse_ready before update on interviews for each row
    when (new.status = 'ready' and (new.id::text like '5%' or new.id::text like '6%'))
    execute function refuse_ready();

-- The prompt of interview 6 cannot be deleted: taking the first write back fails as well.
create function refuse_delete() returns trigger language plpgsql as $$
begin
    raise exception 'a trigger of the quickstart refuses to delete the prompt';
end
$$;

create trigger refuse_delete before delete on interview_enhanced_prompts for each row
    when (old.interview_id::text like '6%')
    execute function refuse_delete();
