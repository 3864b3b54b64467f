# SPDX-License-Identifier: MIT
"""promptctl where messages wait in Redis: publish and check, on a list and on a stream."""

import json
import re

import pytest

from support.ctl_queue import CtlQueue, account, keys_of
from support.expect import expect_stored
from support.peer import Peer
from support.queue import MODES, new_cluster
from support.redis_server import frame
from support.wait import wait_until

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
PROMPT = "Tell me about yourself."
PROMPT_ID = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"
GROUP = "promptd"


@pytest.fixture(params=MODES)
def queue(request, redis_server, promptctl):
    return CtlQueue(redis_server, request.param, promptctl)


@pytest.fixture(params=MODES)
def own_queue(request, own_redis, promptctl):
    return CtlQueue(own_redis, request.param, promptctl)


# publish


def test_publish(queue):
    result = queue.ctl("publish", "--interview", INTERVIEW, "-", stdin=PROMPT)
    assert result.code == 0 and result.err == "" and result.out.endswith(f", prompt id {PROMPT_ID}\n")
    answer = json.loads(queue.ctl("publish", "--json", "--interview", INTERVIEW, "-", stdin=PROMPT).out)
    assert [json.loads(message) for message in queue.waiting()] == [{"interview_id": INTERVIEW, "enhanced_prompt": PROMPT}] * 2
    if queue.mode == "list":
        assert result.out.startswith("pushed: 1 message in the list") and answer["length"] == 2
    else:
        first, second = (entry.decode() for entry, _ in queue.redis.xrange(queue.name))
        assert result.out.startswith(f"added: entry {first},") and answer["entry"] == second
    assert (answer["mode"], answer["channel"], answer["prompt_id"]) == (queue.mode, queue.name, PROMPT_ID)
    assert "receivers" not in answer


def test_published_message_goes_to_the_end(queue):
    queue.push_raw(b"first")
    assert queue.ctl("publish", "--interview", INTERVIEW, "-", stdin=PROMPT).code == 0
    assert queue.waiting()[0] == b"first" and len(queue.waiting()) == 2


def test_publish_to_a_key_of_another_type(queue):
    queue.spoil()
    result = queue.ctl("publish", "--interview", INTERVIEW, "-", stdin=PROMPT)
    assert result.code == 78 and "WRONGTYPE" in result.err and result.out == ""


def test_publish_without_permission(own_queue):
    own_queue.redis.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read")
    url = own_queue.server.url.replace("redis://", "redis://reader:secret@")
    result = own_queue.ctl("publish", "--interview", INTERVIEW, "-", stdin=PROMPT, redis_url=url)
    assert result.code == 78 and "NOPERM" in result.err and own_queue.waiting() == []


def test_rejected_message_is_not_sent(queue):
    result = queue.ctl("publish", "--interview", INTERVIEW, "-", stdin="short")
    assert result.code == 1 and "prompt_too_short" in result.err and queue.waiting() == []


# check

STEPS = {"list": ["redis_connection", "redis_login", "redis_listeners", "redis_version", "redis_memory", "redis_queue",
                  "redis_consumers", "redis_dead_letters", "redis_permissions"],
         "stream": ["redis_connection", "redis_login", "redis_listeners", "redis_version", "redis_memory", "redis_queue",
                    "redis_group", "redis_dead_letters", "redis_permissions"]}


@pytest.fixture
def check(database):
    """check(queue, **settings) -> (exit code, {step: result}, {step: details}), of Redis; the database is well."""
    database.interview()

    def run(queue, **settings):
        before = queue.everything()
        result = queue.ctl("check", "--json", **settings)
        assert queue.everything() == before
        steps = [step for step in result.json() if step["step"].startswith("redis_")]
        assert list(dict.fromkeys(step["step"] for step in steps)) == STEPS[queue.mode]
        verdicts, details = {}, {}
        order = ["ok", "skipped", "note", "failed"]
        for step in steps:
            name = step["step"]
            verdicts[name] = max(verdicts.get(name, "ok"), step["result"], key=order.index)
            details[name] = f"{details.get(name, '')}\n{step['detail']}".strip()
        return result.code, verdicts, details

    return run


def test_check_before_the_first_start(queue, check):
    code, verdicts, details = check(queue)
    assert code == 0 and set(verdicts.values()) == {"ok"}, details
    assert re.match(r"\d+\.\d+\.\d+", details["redis_version"]) and "noeviction" in details["redis_memory"]
    assert "nobody subscribes" in details["redis_listeners"] and queue.name in details["redis_queue"]
    assert details["redis_dead_letters"] == f"0 in {queue.dead_key}" and "XADD" in details["redis_permissions"]


def test_check_counts_what_waits(queue, check):
    for number in range(3):
        queue.push_raw(f"message {number}")
    queue.add_dead("x")
    code, verdicts, details = check(queue)
    assert code == 0 and f"3 messages in the {queue.mode} {queue.name}" in details["redis_queue"]
    assert details["redis_dead_letters"].startswith("1 in ")


def test_check_names_the_type_of_the_key(queue, check):
    queue.spoil()
    code, verdicts, details = check(queue)
    other = "stream" if queue.mode == "list" else "list"
    assert code == 78 and verdicts["redis_queue"] == "failed"
    assert f"is a {other}" in details["redis_queue"] and f"needs a {queue.mode}" in details["redis_queue"]
    assert [step for step, verdict in verdicts.items() if verdict == "failed"] == ["redis_queue"]


def test_check_names_the_type_of_the_dead_letters_key(queue, check):
    queue.redis.hset(queue.dead_key, "a", "b")
    code, verdicts, details = check(queue)
    assert code == 78 and verdicts["redis_dead_letters"] == "failed" and "is a hash" in details["redis_dead_letters"]


def test_check_notes_eviction(own_queue, check):
    own_queue.redis.config_set("maxmemory-policy", "allkeys-lru")
    code, verdicts, details = check(own_queue)
    assert code == 0 and verdicts["redis_memory"] == "note"
    assert "allkeys-lru" in details["redis_memory"] and "noeviction" in details["redis_memory"]


def test_check_sees_who_subscribes(queue, check, closing):
    subscriber = closing(queue.redis.pubsub())
    subscriber.subscribe(queue.name)
    subscriber.get_message(timeout=10)
    code, verdicts, details = check(queue)
    assert code == 0 and verdicts["redis_listeners"] == "note" and "1 subscribes" in details["redis_listeners"]


def test_check_when_redis_is_away(queue, check):
    code, verdicts, _ = check(queue, redis_url="redis://127.0.0.1:1")
    assert code == 69 and verdicts["redis_connection"] == "failed"
    assert {verdicts[step] for step in STEPS[queue.mode][1:]} == {"skipped"}


# What promptd sends on each mode's keys. Whoever may all of that, and MULTI, by which it is tried, is well.
NEEDED = {"list": "+blmove +lmove +lrange +lindex +lrem +lset +lpop +llen +set +exists +del +sadd +srandmember +srem"
                  " +hincrby +hdel +expire +xadd +xlen +eval",
          "stream": "+xreadgroup +xack +xdel +xclaim +xpending +xgroup +xinfo +xlen +xadd +eval"}


def test_check_of_an_account_with_just_what_is_needed(own_queue, check):
    url = account(own_queue, *keys_of(own_queue), *NEEDED[own_queue.mode].split(), "+multi")
    code, verdicts, details = check(own_queue, redis_url=url)
    assert code == 0 and verdicts["redis_permissions"] == "ok", details
    for step in ("redis_version", "redis_memory", "redis_queue", "redis_dead_letters", "redis_listeners"):
        assert verdicts[step] == "note" and "cannot be seen: " in details[step] and "NOPERM" in details[step]


@pytest.mark.parametrize("missing", ["multi", "xadd", "eval"])
def test_check_names_each_command_that_is_refused(own_queue, check, missing):
    url = account(own_queue, *keys_of(own_queue), "+@all", f"-{missing}")
    code, verdicts, details = check(own_queue, redis_url=url)
    assert code == 78 and [step for step, verdict in verdicts.items() if verdict == "failed"] == ["redis_permissions"]
    lines = details["redis_permissions"].splitlines()
    assert lines[0].startswith(missing.upper()) and "NOPERM" in lines[0]
    if missing == "multi":
        assert len(lines) == 2 and "not tried" in lines[1]
    else:
        assert len(lines) == 1 and f"{missing.upper()} on " in lines[0]


def test_check_of_an_account_that_may_not_use_the_other_keys(own_queue, check):
    url = account(own_queue, f"~{own_queue.name}", "+@all")
    code, verdicts, details = check(own_queue, redis_url=url)
    assert code == 78 and verdicts["redis_permissions"] == "failed"
    assert f"XADD on {own_queue.dead_key}: " in details["redis_permissions"]


def old_server(client):
    """What Redis 6.0 answers, as far as it matters here."""
    answers = {b"INFO": b"$24\r\nredis_version:6.0.16\r\n\r\n\r\n", b"EXEC": b"*0\r\n", b"TYPE": b"+none\r\n",
               b"LMOVE": b"-ERR unknown command `LMOVE`\r\n", b"BLMOVE": b"-ERR unknown command `BLMOVE`\r\n"}
    while True:
        client.say(answers.get(client.hear()[0], b"+QUEUED\r\n"))


def test_check_of_a_redis_that_is_too_old(queue, check, closing):
    code, verdicts, details = check(queue, redis_url=closing(Peer(old_server)).url)
    assert code == 78 and verdicts["redis_version"] == "failed"
    assert "6.0.16 is too old" in details["redis_version"] and f"redis_mode={queue.mode} needs 6.2" in details["redis_version"]
    if queue.mode == "list":
        assert "LMOVE on " in details["redis_permissions"] and "unknown command" in details["redis_permissions"]


def test_check_of_a_redis_that_is_full(own_queue, check):
    """That passes by itself: it is said once, and not of each command."""
    own_queue.redis.config_set("maxmemory", 1)
    code, verdicts, details = check(own_queue)
    assert code == 69 and [step for step, verdict in verdicts.items() if verdict == "failed"] == ["redis_permissions"]
    lines = details["redis_permissions"].splitlines()
    assert len(lines) == 2 and "OOM" in lines[0] and "not tried" in lines[1]


def test_check_on_a_replica(own_queue, check):
    own_queue.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    code, verdicts, details = check(own_queue)
    assert code == 78 and verdicts["redis_permissions"] == "failed" and "READONLY" in details["redis_permissions"]


def test_check_of_the_group(redis_server, promptctl, check):
    stream = CtlQueue(redis_server, "stream", promptctl)
    for number in range(5):
        stream.push_raw(f"message {number}")
    assert "all 5 entries" in check(stream)[2]["redis_group"]
    stream.redis.xgroup_create(stream.name, GROUP, 0)
    stream.redis.xreadgroup(GROUP, "one", {stream.name: ">"}, count=2)
    stream.redis.xreadgroup(GROUP, "two", {stream.name: ">"}, count=1)
    code, verdicts, details = check(stream)
    assert code == 0 and verdicts["redis_group"] == "ok"
    assert details["redis_group"] == "group promptd: 2 consumers, backlog 2, pending 3"
    stream.redis.xgroup_create(stream.name, "audit", 0)
    code, verdicts, details = check(stream)
    assert code == 0 and verdicts["redis_group"] == "note"
    assert "(audit)" in details["redis_group"] and "trimming is theirs" in details["redis_group"]
    assert "backlog 2, pending 3" in details["redis_group"]


def test_check_of_those_who_take_from_the_list(redis_server, promptctl, check):
    queue = CtlQueue(redis_server, "list", promptctl)
    base = f"{{{queue.name}}}"
    queue.redis.sadd(f"{base}:consumers", "one", "two")
    queue.redis.set(f"{base}:consumer:one", 1, ex=100)
    queue.redis.lpush(f"{base}:processing:one", "a")
    code, verdicts, details = check(queue)
    assert code == 0 and verdicts["redis_consumers"] == "ok"
    assert details["redis_consumers"] == "1 promptd takes from it, and has 1 in work"
    queue.redis.lpush(f"{base}:processing:two", "b", "c")
    code, verdicts, details = check(queue)
    assert code == 0 and verdicts["redis_consumers"] == "note"
    assert "1 consumer is gone without a word, and left 2 messages behind" in details["redis_consumers"]


def test_check_notes_that_somebody_pushes_what_should_be_published(queue, database):
    database.interview()
    queue.push_raw("x")
    result = queue.ctl("check", "--json", redis_mode="pubsub")
    (step,) = [step for step in result.json() if step["step"] == "redis_key"]
    assert result.code == 0 and step["result"] == "note" and f"there is a {queue.mode} of the name {queue.name}" in step["detail"]
    assert f"redis_mode={queue.mode}" in step["detail"]


# A Redis Cluster


@pytest.fixture(params=MODES)
def cluster_queue(request, new_folder, closing, promptctl):
    """A queue on one server, and promptctl that knows another."""
    servers = new_cluster(new_folder, closing)
    queue = CtlQueue(servers[0], request.param, promptctl)
    queue.settings = lambda **more: {"redis_mode": queue.mode, "redis_url": servers[1].url, "redis_channel": queue.name, **more}
    return queue


def test_cluster(cluster_queue, check):
    queue = cluster_queue
    letters = [queue.add_dead("one"), queue.add_dead("two")]
    assert queue.ctl("publish", "--interview", INTERVIEW, "-", stdin=PROMPT).code == 0 and len(queue.waiting()) == 1
    code, verdicts, details = check(queue)
    assert code == 0 and verdicts["redis_permissions"] == "ok", details
    assert queue.ctl("dead", "replay", letters[0], "--yes").code == 0 and queue.waiting()[1:] == [b"one"]
    assert queue.ctl("dead", "drop", "--all", "--yes").out == "1 dead letter dropped\n" and queue.dead_ids() == []


# Beside promptd


def test_what_is_published_is_stored(start_taking, queue, database):
    promptd = start_taking()
    message = queue.message(database.interview(), source=None)
    queue.published.append(message.prompt)
    assert queue.ctl("publish", "--interview", message.interview, "-", stdin=message.prompt).code == 0
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


# What promptd asks besides, and does without where it may not: for its figures, its heartbeat, and a quick end.
WISHED = {"info", "client|id", "client|unblock", "client|setname", "ping", "scan", "role"}


def test_promptd_needs_no_more_than_what_check_tries(start_taking, queue, database):
    url = account(queue, *keys_of(queue), *NEEDED[queue.mode].split(), "+multi", "+exec")
    queue.redis.execute_command("ACL", "LOG", "RESET")
    promptd = start_taking(redis_url=url)
    message = queue.push(database.interview())
    queue.push_raw(frame(b"no json"))
    assert promptd.settle(2).outcomes() == {"success": 1, "rejected": 1}
    wait_until(lambda: queue.left() == 0 and len(queue.dead_ids()) == 1, "the messages to leave the queue", seen=queue.left)
    promptd.stop()
    expect_stored(database, message)
    denied = {entry["object"] for entry in queue.redis.acl_log()}
    assert denied <= WISHED, denied


def test_check_beside_promptd(start_taking, queue, check):
    start_taking()
    wait_until(lambda: queue.subscribers() == 1, "a promptd that takes messages", seen=queue.subscribers)
    code, verdicts, details = check(queue)
    assert code == 0 and set(verdicts.values()) == {"ok"}, details
    consumers = details["redis_consumers"] if queue.mode == "list" else details["redis_group"]
    assert consumers == ("1 promptd takes from it, and has 0 in work" if queue.mode == "list"
                         else "group promptd: 1 consumer, backlog 0, pending 0")


def test_status_of_the_queue(start_taking, queue):
    promptd = start_taking()
    queue.push_raw(frame(b"no json"))
    promptd.wait_counters(rejected=1)
    listen = promptd.admin_url.removeprefix("http://")

    def shown():
        return queue.ctl("status", admin_listen=listen).out

    wait_until(lambda: "1 dead letter (promptctl dead list)" in shown(), "the dead letter in promptctl status", seen=shown)
    assert re.search(rf"connected: {queue.name} at .*, mode {queue.mode}\n +backlog 0, pending 0, consumers 1, ", shown())
    assert "gaps" not in shown()
