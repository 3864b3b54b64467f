# SPDX-License-Identifier: MIT
"""Several promptd on one list or stream: what a dead one had taken is another's, what a living one has is not."""

import functools
import hashlib
import pathlib
import re

import pytest

from support.expect import expect_stored
from support.wait import wait_until

LOCK_PATIENCE_S = 180


@pytest.fixture
def start(start_taking):
    return functools.partial(start_taking, lock_patience_s=LOCK_PATIENCE_S)


def leave_behind(queue, messages, deliveries=1):
    """As if another consumer had taken them, and had not been heard of for a minute."""
    admin = queue.server.admin
    for message in messages:
        queue.published.append(message.prompt)
    if queue.mode == "list":
        for message in messages:
            admin.lpush(f"{{{queue.name}}}:processing:ghost", message.framed())
            if deliveries > 1:
                admin.hset(f"{{{queue.name}}}:deliveries", hashlib.sha1(message.framed()).hexdigest(), deliveries - 1)
        return
    admin.xgroup_create(queue.name, "promptd", "0", mkstream=True)
    for message in messages:
        admin.xadd(queue.name, {"message": message.framed()})
    taken = admin.xreadgroup("promptd", "ghost", {queue.name: ">"})
    admin.xclaim(queue.name, "promptd", "ghost", 0, [id for id, _ in taken[0][1]], idle=60000, retrycount=deliveries)


def consumers(queue):
    admin = queue.server.admin
    if queue.mode == "list":
        return admin.scard(f"{{{queue.name}}}:consumers")
    return len(admin.xinfo_consumers(queue.name, "promptd"))


def test_what_a_dead_one_had_taken(start, queue, database):
    messages = [queue.message(interview, f"{number}: a good question") for number, interview in
                enumerate(database.interviews(150))]
    leave_behind(queue, messages)
    promptd = start()
    assert promptd.settle(150, timeout=40).outcomes() == {"success": 150}
    assert promptd.counters()["redelivered"] == 150
    expect_stored(database, messages[0])
    queue.wait_empty()


def test_what_a_dead_one_had_taken_keeps_its_order(start, queue, database):
    interview = database.interview()
    messages = [queue.message(interview, f"question number {number}") for number in range(20)]
    leave_behind(queue, messages)
    promptd = start()
    assert promptd.settle(20, timeout=40).outcomes() == {"success": 20}
    assert [line.fields["prompt_id"] for line in promptd.find("INFO", "prompt stored")] == [each.id for each in messages]


def test_much_is_taken_over_soon(start_promptd, queue, database, database_proxy):
    """And before what nobody has taken yet, although there is never room for much of it."""
    abandoned = [queue.message(interview, "a good question") for interview in database.interviews(1500)]
    leave_behind(queue, abandoned)
    queue.push_burst([queue.message(interview, "a good question") for interview in database.interviews(1500)])
    database_proxy.refuse()
    promptd = start_promptd(on=queue, redis_mode=queue.mode, ready=False, queue_max_messages=50,
                            breaker_reset_s=1, database_url=database.url(database_proxy.port))
    promptd.wait_line("INFO", "taking messages")
    wait_until(lambda: queue.backlog() == 3000 or queue.mode == "stream" and promptd.counters()["uptime_s"] > 2,
               "promptd to know of them", 20, seen=queue.backlog)
    database_proxy.restore()
    assert promptd.settle(3000, timeout=40).outcomes() == {"success": 3000}
    assert promptd.counters()["redelivered"] == 1500
    received = [line.fields["prompt_id"] for line in promptd.find("DEBUG", "message received")]
    assert set(received[:1500]) == {message.id for message in abandoned}
    queue.wait_empty()


def test_what_was_delivered_too_often_is_a_dead_letter(start, queue, database):
    message = queue.message(database.interview())
    leave_behind(queue, [message], deliveries=5)
    promptd = start()
    promptd.wait_line("ERROR", "delivered 5 times without an outcome", timeout=20)
    wait_until(lambda: len(queue.dead()) == 1, "the dead letter")
    assert queue.dead()[0]["message"].encode() == message.framed()
    queue.wait_empty()
    assert promptd.settle(1).outcomes() == {"dropped": 1}
    assert database.prompts(message.interview) == []


@pytest.mark.parametrize("queue", ["list"], indirect=True)
def test_only_what_kills_is_delivered_a_fifth_time(start, queue, database):
    """Whatever was taken four times together is put back one by one: who dies then dies of that one."""
    admin = queue.server.admin
    interviews = database.interviews(4)
    killer, *innocent = [queue.message(interview, f"{number}: a good question") for number, interview in
                         enumerate(interviews)]
    leave_behind(queue, [killer, *innocent], deliveries=4)
    with database.cluster.connect(database.name) as holder:
        holder.execute("begin")
        holder.execute("select from interviews where id = %s for update", [killer.interview])
        first = start()
        wait_until(lambda: database.prompt_count() == 3, "the innocent ones to be stored", 20, seen=database.prompt_count)
        first.crash()
        holder.execute("rollback")
    admin.delete(*admin.keys(f"{{{queue.name}}}:consumer:*"))  # nobody waits for it to expire
    second = start()
    second.wait_line("ERROR", "delivered 5 times without an outcome", timeout=20)
    queue.wait_empty()
    assert [letter["message"].encode() for letter in queue.dead()] == [killer.framed()]
    expect_stored(database, *innocent)
    assert admin.hgetall(f"{{{queue.name}}}:deliveries").keys().isdisjoint([hashlib.sha1(killer.framed()).hexdigest()])


@pytest.mark.parametrize("queue", ["list"], indirect=True)
def test_fifth_deliveries_are_one_at_a_time(start, queue, database):
    messages = [queue.message(interview, f"{number}: a good question") for number, interview in
                enumerate(database.interviews(3))]
    leave_behind(queue, messages, deliveries=4)
    fresh = queue.message(database.interview())
    queue.server.admin.lpush(f"{{{queue.name}}}:processing:ghost", fresh.framed())
    promptd = start()
    assert promptd.settle(4, timeout=40).outcomes() == {"success": 4}
    lines = promptd.find("INFO", "a consumer that is gone had taken")
    assert [line.fields["messages"] for line in lines] == ["2", "1", "1"]
    stored = [line.fields["prompt_id"] for line in promptd.find("INFO", "prompt stored")]
    assert [id for id in stored if id != fresh.id] == [each.id for each in messages]
    queue.wait_empty()


@pytest.mark.parametrize("queue", ["list"], indirect=True)
def test_dead_letter_that_cannot_be_kept_holds_up_nobody(start, queue, database):
    """What is to be buried stays where it is, and what the dead one had besides is put back."""
    admin = queue.server.admin
    promptd = start()
    admin.set(queue.dead_key, "something else")
    poison, message = queue.message(database.interview()), queue.message(database.interview(), "a good question")
    leave_behind(queue, [poison], deliveries=5)
    leave_behind(queue, [message])
    admin.sadd(f"{{{queue.name}}}:consumers", "ghost")
    assert promptd.settle(1, timeout=20).outcomes() == {"success": 1}
    expect_stored(database, message)
    promptd.wait_line("WARNING", "Redis refuses to take over what others have left")
    assert queue.pending() == 1
    admin.delete(queue.dead_key)
    queue.wait_empty()
    assert [letter["message"].encode() for letter in queue.dead()] == [poison.framed()]


@pytest.mark.parametrize("queue", ["stream"], indirect=True)
def test_entry_that_was_deleted_while_it_was_pending(start, queue):
    """Nothing of it is there: it is forgotten, and a line says so."""
    admin = queue.server.admin
    message = queue.message("5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c")
    leave_behind(queue, [message])
    id, = admin.xrange(queue.name)[0][:1]
    admin.xdel(queue.name, id)
    promptd = start()
    assert promptd.wait_line("WARNING", "was deleted from the stream", timeout=20).fields["id"] == id.decode()
    wait_until(lambda: queue.pending() == 0, "nothing to be pending", seen=queue.pending)


def fetch_script():
    source = (pathlib.Path(__file__).resolve().parents[2] / "src/intake/stream_scripts.c").read_text()
    literal = re.search(r"const char stream_fetch_script\[\] =(.*?);\n\n", source, re.DOTALL)[1]
    return "".join(re.findall(r'"(.*?)"\n', literal + "\n")).replace("\\n", "\n")


@pytest.mark.parametrize("queue", ["stream"], indirect=True)
@pytest.mark.parametrize("reply", ["{}", "{false}"], ids=["7.0", "6.2"])
def test_deleted_entry_as_each_redis_answers_xclaim(queue, reply):
    """Redis 6.2 has a nil for it, later ones leave it out: either way just its id comes of it."""
    admin = queue.server.admin
    leave_behind(queue, [queue.message("5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c")])
    id = admin.xrange(queue.name)[0][0]
    as_it_answers = ("local real = redis.call\n"
                     "local redis = {call = function(name, ...)\n"
                     f"  if name == 'XCLAIM' then return {reply} end\n"
                     "  return real(name, ...)\n"
                     "end}\n")
    assert admin.eval(as_it_answers + fetch_script(), 1, queue.name, "promptd", "one", 45000, id) == [[id]]
    assert admin.eval(fetch_script(), 1, queue.name, "promptd", "one", 45000, id)[0][::2] == [id, 2]


def test_stop_leaves_no_consumer(start, queue, database):
    promptd = start()
    queue.push(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert consumers(queue) == 1
    promptd.stop()
    assert consumers(queue) == 0


def test_three_of_which_one_is_killed_one_frozen_and_one_cut_off(start, queue, database, new_proxy):
    """Locked rows make each hold its share. For fifty seconds nothing changes hands; then two are gone, and the third,
    which was cut off from Redis for a while, stores everything. The frozen one finds nothing to break."""
    proxy = new_proxy(("127.0.0.1", queue.server.port))
    killed, frozen = start(), start()
    third = start(redis_url=f"redis://127.0.0.1:{proxy.port}")
    interviews = database.interviews(300)
    with database.cluster.connect(database.name) as holder:
        holder.execute("begin")
        holder.execute("select from interviews for update")
        messages = [queue.message(interview, "a good question") for interview in interviews]
        for begin in range(0, 300, 10):
            queue.push_burst(messages[begin:begin + 10])
            wait_until(lambda: queue.backlog() == 0, "all to be taken", seen=queue.backlog)
        each = [promptd.counters()["received"] for promptd in (killed, frozen, third)]
        assert sum(each) == 300 and min(each) > 0, each
        wait_until(lambda: third.counters()["uptime_s"] >= 55, "longer than what is idle is taken over", 70, interval=1.0)
        assert [promptd.counters()["received"] for promptd in (killed, frozen, third)] == each
        killed.crash()
        frozen.freeze()
        proxy.swallow()
        holder.execute("rollback")
    wait_until(lambda: database.prompt_count() >= each[2], "the third to store its own", 20, seen=database.prompt_count)
    proxy.restore()
    wait_until(lambda: database.statuses() == {"ready": 300}, "all to be stored", 75, interval=0.5, seen=database.statuses)
    queue.wait_empty()
    frozen.thaw()
    frozen.wait_counters(waiting=0)
    third.wait_counters(waiting=0)
    assert database.prompt_count() == 300 and database.unsettled() == []
    for promptd in (frozen, third):
        assert set(promptd.counters().outcomes()) <= {"success", "duplicate"}
