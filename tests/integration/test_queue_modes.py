# SPDX-License-Identifier: MIT
"""A list and a stream: messages wait in Redis, and leave it once their outcome is final."""

import pytest

from support.expect import expect_stored
from support.queue import Queue, new_cluster
from support.redis_server import RedisServer, frame
from support.wait import wait_until


def test_message_is_stored_and_leaves_redis(start_taking, queue, database):
    promptd = start_taking()
    message = queue.push(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    queue.wait_empty()
    assert queue.dead() == []
    assert promptd.find("WARNING") == []


def test_messages_wait_while_no_promptd_runs(start_taking, queue, database):
    messages = [queue.push(interview, f"{number}: a good question") for number, interview in
                enumerate(database.interviews(500))]
    promptd = start_taking()
    assert promptd.settle(500).outcomes() == {"success": 500}
    for message in messages[::100]:
        expect_stored(database, message)
    queue.wait_empty()


def test_order_of_one_interview(start_taking, queue, database):
    interview = database.interview()
    messages = [queue.push(interview, f"question number {number}") for number in range(50)]
    promptd = start_taking()
    assert promptd.settle(50).outcomes() == {"success": 50}
    lines = [line.fields["prompt_id"] for line in promptd.find("INFO", "prompt stored")]
    assert lines == [message.id for message in messages]


def test_what_ends_badly_is_a_dead_letter(start_taking, queue, database):
    promptd = start_taking()
    late = queue.push(database.interview("completed"))
    queue.push_raw(frame(b"{no json"))
    queue.push_raw(frame(b'{"interview_id":"%s","enhanced_prompt":"short"}' % database.interview().encode()))
    assert promptd.settle(3).outcomes() == {"failure": 1, "rollback": 1, "rejected": 2}
    wait_until(lambda: len(queue.dead()) == 3, "three dead letters", seen=queue.dead)
    queue.wait_empty()
    letters = {letter["reason"] or letter["outcome"]: letter for letter in queue.dead()}
    assert set(letters) == {"rolled back", "not_json", "prompt_too_short"}
    assert letters["rolled back"]["message"].encode() == late.framed()
    assert letters["rolled back"]["interview_id"] == late.interview
    assert letters["rolled back"]["prompt_id"] == late.id
    assert letters["not_json"]["at"].endswith("Z") and letters["not_json"]["interview_id"] == ""
    assert {tuple(letter) for letter in letters.values()} == {
        ("message", "outcome", "reason", "sqlstate", "error", "interview_id", "prompt_id", "at")}


def test_database_away_leaves_messages_in_redis(start_taking, queue, database, database_proxy):
    promptd = start_taking(database_url=database.url(database_proxy.port), queue_max_messages=100)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    queue.push_burst([queue.message(interview) for interview in database.interviews(1000)])
    wait_until(lambda: queue.backlog() >= 900, "nearly all of them to wait", seen=queue.backlog)
    database_proxy.restore()
    assert promptd.settle(1000).outcomes() == {"success": 1000}
    queue.wait_empty()


def test_clean_stop_gives_back_what_is_not_settled(start_taking, queue, database):
    interview = database.interview()
    with database.cluster.connect(database.name) as holder:
        holder.execute("begin")
        holder.execute("select from interviews where id = %s for update", [interview])
        first = start_taking(shutdown_timeout_s=2)
        message = queue.push(interview)
        wait_until(lambda: queue.pending() == 1, "the message to be taken", seen=queue.pending)
        first.stop()
        assert first.find("INFO", "is left for the next start") or first.find("WARNING", interview)
        holder.execute("rollback")
    second = start_taking()
    assert second.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    queue.wait_empty()


def test_reply_that_was_lost(start_taking, queue, database, new_proxy):
    """Whatever was taken when a connection dies is not lost: promptd asks what Redis holds for it."""
    proxy = new_proxy(("127.0.0.1", queue.server.port))
    start_taking(redis_url=f"redis://127.0.0.1:{proxy.port}")
    for round in range(5):
        queue.push_burst([queue.message(interview, f"round {round}, a good question")
                          for interview in database.interviews(200)])
        proxy.cut()
    wait_until(lambda: database.statuses() == {"ready": 1000}, "all to be ready", 30, seen=database.statuses)
    queue.wait_empty()


def test_redis_restarts_empty(start_taking, new_folder, queue, database, own_redis):
    own = Queue(own_redis, queue.mode)
    start_taking(redis_url=own_redis.url, redis_channel=own.name)
    own_redis.admin.flushall()
    message = own.push(database.interview())
    wait_until(lambda: database.status(message.interview) == "ready", "the message to be stored", 30)
    own_redis.stop()
    own_redis.start()
    message = own.push(database.interview())
    wait_until(lambda: database.status(message.interview) == "ready", "the message after a restart to be stored", 30)
    own.wait_empty()


def test_backlog_after_redis_has_read_its_commands_again(start_promptd, new_folder, closing, database):
    """Redis 7 takes what was delivered since it wrote its commands anew for what nobody has read."""
    server = closing(RedisServer(new_folder("redis"), "--appendonly", "yes"))
    stream = Queue(server, "stream")
    promptd = start_promptd(on=stream, redis_mode="stream", ready=False)
    promptd.wait_line("INFO", "taking messages")
    stream.push(database.interview())
    promptd.settle(1)
    stream.wait_empty()
    server.admin.bgrewriteaof()
    wait_until(lambda: not server.admin.info("persistence")["aof_rewrite_in_progress"], "the rewriting to end")
    stream.push_burst([stream.message(interview) for interview in database.interviews(100)])
    promptd.settle(101)
    stream.wait_empty()
    server.stop()
    server.start()
    promptd.wait_line("INFO", "taking messages", count=2)
    looked = promptd.counters()["uptime_s"] + 6  # every 5 s
    wait_until(lambda: promptd.counters()["uptime_s"] > looked, "another look", 20, interval=0.5)
    assert promptd.counters()["source_backlog"] == 0


def test_key_of_another_type(start_promptd, queue):
    queue.server.admin.set(queue.name, "a string")
    promptd = start_promptd(on=queue, redis_mode=queue.mode, ready=False)
    promptd.wait_line("ERROR", "WRONGTYPE")


def test_message_that_is_too_large(start_taking, queue, database):
    """It is rejected without being read, and does not come back; those on both sides of it are stored."""
    before = queue.message(database.interview())
    behind = queue.message(database.interview())
    queue.push_burst([before, b"x" * 3_000_000, behind])
    promptd = start_taking()
    assert promptd.settle(3).outcomes() == {"success": 2, "rejected": 1}
    assert promptd.one("ERROR", "message rejected").fields["reason"] == "too_large"
    expect_stored(database, before)
    expect_stored(database, behind)
    queue.wait_empty()
    wait_until(lambda: len(queue.dead()) == 1, "the dead letter")
    assert queue.dead()[0]["reason"] == "too_large"
    assert promptd.peak_memory_kb() < 60_000


def test_entry_without_the_field(start_taking, queue, database):
    if queue.mode == "list":
        queue.push_raw(b"")
    else:
        queue.server.admin.xadd(queue.name, {"payload": "x"})
    promptd = start_taking()
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    assert promptd.one("ERROR", "message rejected").fields["reason"] == "not_json"
    queue.wait_empty()


@pytest.mark.parametrize("queue", ["stream"], indirect=True)
def test_other_groups_keep_their_entries(start_taking, redis_server, queue, database):
    admin = redis_server.admin
    admin.xgroup_create(queue.name, "analytics", "0", mkstream=True)
    promptd = start_taking()
    promptd.wait_line("INFO", "other groups read the stream")
    queue.push(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    wait_until(lambda: queue.pending() == 0, "the entry to be acknowledged")
    assert admin.xlen(queue.name) == 1
    assert len(admin.xreadgroup("analytics", "one", {queue.name: ">"})) == 1


@pytest.mark.parametrize("queue", ["stream"], indirect=True)
def test_group_is_made_again(start_taking, redis_server, queue, database):
    promptd = start_taking()
    redis_server.admin.xgroup_destroy(queue.name, "promptd")
    message = queue.push(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_redis_that_may_evict(start_taking, queue, own_redis):
    own = Queue(own_redis, queue.mode)
    own_redis.admin.config_set("maxmemory-policy", "allkeys-lru")
    promptd = start_taking(redis_url=own_redis.url, redis_channel=own.name)
    promptd.wait_line("WARNING", "evict")


def test_spool_is_not_used(start_taking, queue, new_folder, database):
    promptd = start_taking(spool_dir=new_folder("spool"))
    promptd.one("INFO", "no spool is used")
    queue.push(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}


def test_dead_letter_that_redis_refuses_for_a_while(start_taking, queue, database):
    """The message stays in Redis, and with promptd, until its letter is kept. The others go on."""
    admin = queue.server.admin
    promptd = start_taking()
    admin.set(queue.dead_key, "something else")
    late = queue.push(database.interview("completed"))
    assert "WRONGTYPE" in promptd.wait_line("ERROR", "Redis refuses acknowledgements").fields["error"]
    for interview in database.interviews(20):
        queue.push(interview)
    assert promptd.settle(21).outcomes() == {"failure": 1, "rollback": 1, "success": 20}
    wait_until(lambda: queue.pending() == 1, "the good ones to be gone", seen=queue.pending)
    if queue.mode == "stream":  # nobody else takes it meanwhile
        def idle_ms():
            return admin.xpending_range(queue.name, "promptd", "-", "+", 1)[0]["time_since_delivered"]

        wait_until(lambda: idle_ms() > 3000, "it to be idle for a while", seen=idle_ms)
        wait_until(lambda: idle_ms() < 3000, "it to be claimed anew", 20, seen=idle_ms)
    assert promptd.find("INFO", "Redis takes acknowledgements again") == []
    admin.delete(queue.dead_key)
    promptd.wait_line("INFO", "Redis takes acknowledgements again")
    queue.wait_empty()
    assert [letter["message"].encode() for letter in queue.dead()] == [late.framed()]
    promptd.one("ERROR", "Redis refuses acknowledgements")


def test_dead_letter_that_redis_refuses_until_the_end(start_taking, queue, database):
    """Then the message is given back, and ends again with whoever is next."""
    promptd = start_taking()
    queue.server.admin.set(queue.dead_key, "something else")
    queue.push(database.interview("completed"))
    promptd.wait_line("ERROR", "Redis refuses acknowledgements")
    promptd.stop()
    assert promptd.one("WARNING", "before Redis has taken all acknowledgements").fields["messages"] == "1"
    assert queue.left() == 1
    queue.server.admin.delete(queue.dead_key)
    second = start_taking()
    second.wait_counters(failure=1)
    queue.wait_empty()
    assert [letter["outcome"] for letter in queue.dead()] == ["rolled back"]


def test_account_that_may_not_acknowledge(start_taking, queue, own_redis, database):
    """No letter is written that its message does not make way for."""
    own = Queue(own_redis, queue.mode)
    missing = {"list": "-lrem", "stream": "-xack"}[queue.mode]
    own_redis.admin.execute_command("ACL", "SETUSER", "default", missing)
    promptd = start_taking(redis_url=own_redis.url, redis_channel=own.name)
    own.push(database.interview("completed"))
    refusal = promptd.wait_line("ERROR", "Redis refuses acknowledgements").fields["error"]
    assert "NOPERM" in refusal or "can't run this command" in refusal
    good = own.push(database.interview())
    promptd.settle(2)
    expect_stored(database, good)
    assert own.pending() == 2 and own.dead() == []
    own_redis.admin.execute_command("ACL", "SETUSER", "default", missing.replace("-", "+"))
    promptd.wait_line("INFO", "Redis takes acknowledgements again")
    own.wait_empty()
    assert [letter["outcome"] for letter in own.dead()] == ["rolled back"]


def test_redis_cluster(start_taking, queue, new_folder, closing, database):
    """redis_url names a server that has not the key: -MOVED is followed."""
    first, second = new_cluster(new_folder, closing)
    own = Queue(first, queue.mode)
    promptd = start_taking(redis_url=second.url, redis_channel=own.name)
    messages = [own.push(interview) for interview in database.interviews(20)]
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, messages[0])
    own.wait_empty()


def test_redis_cluster_that_is_busy_at_first(start_promptd, queue, new_folder, closing, database):
    """One connection learns where the keys are while the other waits to be dialled: it asks for itself later."""
    first, second = new_cluster(new_folder, closing)
    own = Queue(first, queue.mode)
    second.admin.config_set("maxclients", 1)
    promptd = start_promptd(on=own, redis_mode=queue.mode, redis_url=second.url, ready=False)
    promptd.wait_line("ERROR", "max number of clients")
    second.admin.config_set("maxclients", 1000)
    message = own.push(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    own.wait_empty()


@pytest.fixture
def held(queue, database):
    """held(): an interview whose row the application holds, so that promptd keeps its message; then release()."""
    with database.cluster.connect(database.name) as holder:
        def hold(status="enhancing"):
            interview = database.interview(status)
            holder.execute("begin")
            holder.execute("select from interviews where id = %s for update", [interview])
            return interview

        yield hold, lambda: holder.execute("rollback")


def fill(redis_server):
    redis_server.admin.config_set("maxmemory", "1mb")


@pytest.mark.parametrize("status, outcome", [("enhancing", "success"), ("completed", "rollback")])
def test_full_redis_is_drained(start_taking, queue, own_redis, database, held, status, outcome):
    """What ended makes room, and a dead letter takes what its message had."""
    hold, release = held
    own = Queue(own_redis, queue.mode)
    promptd = start_taking(redis_url=own_redis.url, redis_channel=own.name)
    own.push(hold(status))
    wait_until(lambda: own.pending() == 1, "the message to be taken")
    fill(own_redis)
    release()
    assert promptd.settle(1)[outcome] == 1
    own.wait_empty()
    assert len(own.dead()) == (outcome == "rollback")


@pytest.mark.parametrize("queue, had_group", [("list", False), ("stream", False), ("stream", True)], indirect=["queue"])
def test_full_redis_is_drained_after_a_start(start_taking, queue, own_redis, database, had_group):
    """What came while nobody listened has filled it: whatever it refuses then, it is emptied, and taken from later."""
    own = Queue(own_redis, queue.mode)
    if had_group:
        own_redis.admin.xgroup_create(own.name, "promptd", "0", mkstream=True)
    messages = [own.push(interview) for interview in database.interviews(200)]
    bad = own.push(database.interview("completed"))
    fill(own_redis)
    promptd = start_taking(redis_url=own_redis.url, redis_channel=own.name, queue_max_messages=30)
    assert promptd.settle(201).outcomes() == {"success": 200, "failure": 1, "rollback": 1}
    expect_stored(database, *messages)
    own.wait_empty()
    assert [letter["message"].encode() for letter in own.dead()] == [bad.framed()]
    own_redis.admin.config_set("maxmemory", 0)
    own.push(database.interview())
    assert promptd.settle(202)["success"] == 201


@pytest.mark.parametrize("queue", ["list"], indirect=True)
def test_full_redis_keeps_what_the_dead_had_taken(start_taking, queue, own_redis, database, held):
    """Who lives is said there, too, and what a dead consumer had is put back."""
    hold, release = held
    own = Queue(own_redis, "list")
    first = start_taking(redis_url=own_redis.url, redis_channel=own.name)
    message = own.push(hold())
    wait_until(lambda: own.pending() == 1, "the message to be taken")
    fill(own_redis)
    first.crash()
    own_redis.admin.delete(*own_redis.admin.keys(f"{{{own.name}}}:consumer:*"))  # nobody waits for it to expire
    second = start_taking(redis_url=own_redis.url, redis_channel=own.name)
    release()
    second.wait_counters(success=1)
    expect_stored(database, message)
    own.wait_empty()


def test_connections_that_come_back_are_no_deliveries(start_taking, queue, database, new_proxy, held):
    """What is held is compared at each, and not read again: else it would count as what kills whoever takes it."""
    hold, release = held
    proxy = new_proxy(("127.0.0.1", queue.server.port))
    promptd = start_taking(redis_url=f"redis://127.0.0.1:{proxy.port}", lock_patience_s=120)
    queue.push(hold())
    wait_until(lambda: queue.pending() == 1, "the message to be taken")
    for times in range(1, 7):
        proxy.cut()
        promptd.wait_line("INFO", "taking messages", count=times + 1)
        wait_until(lambda: queue.subscribers() == 1, "it to read again")
    if queue.mode == "stream":
        entries = queue.server.admin.xpending_range(queue.name, "promptd", "-", "+", 10)
        assert [entry["times_delivered"] for entry in entries] == [1]
    release()
    assert promptd.settle(1, timeout=40).outcomes() == {"success": 1}
    queue.wait_empty()


@pytest.mark.parametrize("queue", ["list"], indirect=True)
def test_message_that_was_moved_for_a_connection_that_is_gone(start_taking, queue, database):
    """It stands in promptd's own list, and promptd has never seen it."""
    promptd = start_taking()
    processing = f"{{{queue.name}}}:processing:" + promptd.one("INFO", "taking messages").fields["consumer"]
    message = queue.message(database.interview())
    queue.published.append(message.prompt)
    queue.server.admin.lpush(processing, message.framed())
    assert promptd.settle(1, timeout=40).outcomes() == {"success": 1}
    expect_stored(database, message)
    queue.wait_empty()


def test_braces_in_the_key_are_refused(start_promptd, queue):
    promptd = start_promptd(on=queue, redis_mode=queue.mode, ready=False, redis_channel="{app}:prompts")
    assert promptd.wait_exit() == 78


@pytest.mark.parametrize("queue", ["stream"], indirect=True)
def test_entry_that_was_deleted_while_its_reply_was_lost(start_taking, queue, database, new_proxy):
    """As by a producer that trims: it is pending, and nothing of it is there. promptd forgets it, and says so."""
    admin = queue.server.admin
    proxy = new_proxy(("127.0.0.1", queue.server.port))
    promptd = start_taking(redis_url=f"redis://127.0.0.1:{proxy.port}")
    consumer = promptd.one("INFO", "taking messages").fields["consumer"]
    wait_until(lambda: queue.subscribers() == 1, "it to read")
    proxy.refuse()
    id = admin.xadd(queue.name, {"message": b"x"})
    admin.xreadgroup("promptd", consumer, {queue.name: ">"})
    admin.xdel(queue.name, id)
    proxy.restore()
    promptd.wait_line("WARNING", "was deleted from the stream", timeout=30)
    wait_until(lambda: queue.pending() == 0, "nothing to be pending")
