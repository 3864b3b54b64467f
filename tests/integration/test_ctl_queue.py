# SPDX-License-Identifier: MIT
"""promptctl where messages wait in Redis: publish, check and dead, on a list and on a stream."""

import json
import re
import threading

import pytest
import redis

from support.expect import expect_stored
from support.peer import Peer
from support.queue import MODES, Queue, new_cluster
from support.redis_server import frame
from support.wait import wait_until

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
PROMPT = "Tell me about yourself."
PROMPT_ID = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"
GROUP = "promptd"
HIGHEST = f"{2**64 - 1}-{2**64 - 1}"


class CtlQueue(Queue):
    """A queue of one test with promptctl on it."""

    def __init__(self, server, mode, promptctl):
        super().__init__(server, mode)
        self.redis = server.admin
        self._promptctl = promptctl

    def settings(self, **more):
        return {"redis_mode": self.mode, "redis_url": self.server.url, "redis_channel": self.name, **more}

    def ctl(self, *arguments, **options):
        return self._promptctl(*arguments, **self.settings(**options))

    def on_terminal(self, *arguments, **options):
        return self._promptctl.on_terminal(*arguments, **self.settings(**options))

    def waiting(self):
        """Messages, the one that is taken next first."""
        if self.mode == "list":
            return self.redis.lrange(self.name, 0, -1)[::-1]
        return [fields[b"message"] for _, fields in self.redis.xrange(self.name)]

    def add_dead(self, message=None, **fields):
        """As promptd writes it: what there is nothing to say of is left out. Returns the id."""
        fields = {"message": message, "outcome": "rejected", "reason": "not_json", "at": "2026-11-23T16:01:02.345Z", **fields}
        return self.redis.xadd(self.dead_key, {name: value for name, value in fields.items() if value is not None}).decode()

    def dead_ids(self):
        return [entry.decode() for entry, _ in self.redis.xrange(self.dead_key)]

    def spoil(self):
        """The key is of another type than the mode wants."""
        self.redis.delete(self.name)
        if self.mode == "list":
            self.redis.xadd(self.name, {"message": "x"})
        else:
            self.redis.lpush(self.name, "x")

    def everything(self):
        """All keys of this test's, and what is in them."""
        return {key: self.redis.dump(key) for key in self.redis.keys(f"*{self.name}*")}

    def other_keys(self):
        return set(self.everything()) - {self.name.encode(), self.dead_key.encode()}


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


def account(queue, *rules):
    """A user `worker` with these rights; returns the URL."""
    queue.redis.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rules)
    return queue.server.url.replace("redis://", "redis://worker:secret@")


def keys_of(queue):
    return [f"~{queue.name}", f"~{{{queue.name}}}:*"]


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


# dead: looking


def test_list_of_dead_letters(queue):
    first = queue.add_dead(b"no\x1b json", interview_id=INTERVIEW)
    second = queue.add_dead(b"{}", outcome="not stored", reason=None, sqlstate="23503", error="no\x1b such\nluck",
                            interview_id=INTERVIEW, prompt_id=PROMPT_ID)
    third = queue.add_dead(reason="too_large")
    result = queue.ctl("dead", "list")
    assert result.code == 0 and result.err == "" and [line.split()[0] for line in result.lines()] == [first, second, third]
    assert re.fullmatch(rf"{first}  2026-11-23T16:01:02.345Z  rejected +8 +{INTERVIEW}  not_json +-", result.lines()[0])
    assert "23503" in result.lines()[1] and result.lines()[1].endswith(r"no\x1b such\nluck")
    letters = queue.ctl("dead", "list", "--json").json()
    assert [letter["id"] for letter in letters] == [first, second, third]
    assert [letter["bytes"] for letter in letters] == [8, 2, None]
    assert (letters[1]["outcome"], letters[1]["sqlstate"], letters[1]["prompt_id"]) == ("not stored", "23503", PROMPT_ID)
    assert letters[0]["prompt_id"] is None and letters[0]["died"] == "2026-11-23T16:01:02.345Z"


def test_list_of_no_dead_letters(queue):
    result = queue.ctl("dead", "list")
    assert (result.code, result.out, result.err) == (0, "", "No dead letters.\n")
    assert queue.ctl("dead", "list", "--json").json() == [] and queue.other_keys() == set()


def test_list_reads_in_pages(own_queue):
    """Many letters of a megabyte: what promptctl needs is bounded, and so is what Redis has to keep for it."""
    own_queue.redis.config_set("client-output-buffer-limit", "normal 24mb 0 0")
    ids = [own_queue.add_dead(b"x" * 1000000) for _ in range(40)]
    result = own_queue.ctl("dead", "list")
    assert result.code == 0 and [line.split()[0] for line in result.lines()] == ids


def test_show_of_a_dead_letter(queue):
    payload = frame(json.dumps({"interview_id": INTERVIEW, "enhanced_prompt": PROMPT}).encode())
    letter = queue.add_dead(payload, outcome="rolled back", sqlstate="P0001", error="no luck", reason=None)
    shown = queue.ctl("dead", "show", letter)
    facts, text = shown.out.split("\n\n", 1)
    assert shown.code == 0 and "rolled back" in facts and "no luck" in facts and letter in facts
    assert PROMPT not in facts and PROMPT in text
    assert queue.ctl("dead", "show", letter, "--json").json()["payload"].encode() == payload
    assert queue.ctl("dead", "show", letter, "--raw", stdin=b"").out == payload
    binary = queue.add_dead(b"\xff\x00{}")
    assert queue.ctl("dead", "show", binary, "--raw", stdin=b"").out == b"\xff\x00{}"
    assert "payload_base64" in queue.ctl("dead", "show", binary, "--json").json()


def test_show_of_what_was_not_read(queue):
    letter = queue.add_dead(reason="too_large")
    shown = queue.ctl("dead", "show", letter)
    assert shown.code == 0 and "too_large" in shown.out and "was not read" in shown.out
    assert queue.ctl("dead", "show", letter, "--json").json()["payload"] is None
    raw = queue.ctl("dead", "show", letter, "--raw")
    assert raw.code == 1 and raw.out == "" and "was not read" in raw.err


def test_show_of_an_unknown_dead_letter(queue):
    result = queue.ctl("dead", "show", "1-1")
    assert result.code == 1 and result.out == "" and "no dead letter 1-1" in result.err


# dead: changing


def test_replay_of_some(queue):
    ids = [queue.add_dead(f"message {number}") for number in range(4)]
    queue.push_raw(b"waits")
    result = queue.ctl("dead", "replay", ids[2], ids[0], ids[2], "--yes")
    assert (result.code, result.out, result.err) == (0, "2 dead letters replayed\n", "")
    assert queue.waiting() == [b"waits", b"message 0", b"message 2"] and queue.dead_ids() == [ids[1], ids[3]]
    assert queue.other_keys() == set()


def test_replay_of_all(queue):
    messages = [f"message {number}".encode() for number in range(250)]
    for message in messages:
        queue.add_dead(message)
    assert queue.ctl("dead", "replay", "--all", "--yes", "--json").json() == {"replayed": 250}
    assert queue.waiting() == messages and queue.dead_ids() == []
    assert queue.ctl("dead", "replay", "--all", "--yes").out == "0 dead letters replayed\n"
    assert queue.waiting() == messages and queue.other_keys() == set()


def test_replay_is_byte_for_byte(queue):
    payloads = [b"\xff\x00\r\n{}", b"", frame("ü".encode())]
    for payload in payloads:
        queue.add_dead(payload)
    assert queue.ctl("dead", "replay", "--all", "--yes").code == 0
    assert queue.waiting() == payloads


def test_replay_of_what_was_not_read(queue):
    large = queue.add_dead(reason="too_large")
    small = queue.add_dead(b"x")
    result = queue.ctl("dead", "replay", large, small, "--yes")
    assert result.code == 1 and large in result.err and "was not read" in result.err and result.out == ""
    assert queue.dead_ids() == [large, small] and queue.waiting() == []
    result = queue.ctl("dead", "replay", "--all", "--yes")
    assert result.code == 1 and result.out == "1 dead letter replayed\n" and "1 without a message stays" in result.err
    assert queue.dead_ids() == [large] and queue.waiting() == [b"x"]
    assert queue.ctl("dead", "drop", large, "--yes").code == 0 and queue.dead_ids() == []


def test_two_replays_at_once(queue):
    """Each letter is replayed once, whoever does it, while promptd goes on adding some."""
    messages = [f"message {number}".encode() for number in range(600)]
    for message in messages:
        queue.add_dead(message)
    results, stop = [], threading.Event()

    def add():
        with redis.Redis(unix_socket_path=queue.server.socket) as other:
            while not stop.is_set():
                other.xadd(queue.dead_key, {"outcome": "rejected"})

    adding = threading.Thread(target=add)
    racing = [threading.Thread(target=lambda: results.append(queue.ctl("dead", "replay", "--all", "--yes", "--json")))
              for _ in range(3)]
    for thread in (adding, *racing):
        thread.start()
    for thread in racing:
        thread.join()
    stop.set()
    adding.join()
    assert sorted(queue.waiting()) == sorted(messages)
    assert sum(result.json()["replayed"] for result in results) == len(messages), results


def test_replay_beside_a_drop(queue):
    ids = [queue.add_dead(f"message {number}") for number in range(300)]
    results = []
    threads = [threading.Thread(target=lambda verb=verb: results.append(queue.ctl("dead", verb, *ids, "--yes", "--json")))
               for verb in ("replay", "drop")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changed = sum(sum(result.json().values()) for result in results if result.out)
    assert queue.dead_ids() == [] and changed == len(ids), results
    assert len(queue.waiting()) == sum(result.json().get("replayed", 0) for result in results if result.out)


def test_replay_into_a_key_of_another_type_loses_nothing(queue):
    letter = queue.add_dead(b"x")
    queue.spoil()
    for arguments in (["--all"], [letter]):
        result = queue.ctl("dead", "replay", *arguments, "--yes")
        assert result.code == 78 and queue.name in result.err and queue.mode in result.err and result.out == ""
    assert queue.dead_ids() == [letter]


def test_replay_into_a_stream_that_is_full_loses_nothing(redis_server, promptctl):
    """Redis refuses in the middle of the transaction, and has no way back."""
    stream = CtlQueue(redis_server, "stream", promptctl)
    stream.redis.xadd(stream.name, {"message": "last"}, id=HIGHEST)
    stream.add_dead(b"x", interview_id=INTERVIEW)
    result = stream.ctl("dead", "replay", "--all", "--yes")
    assert result.code == 78 and "stay dead letters" in result.err and result.out == ""
    [(_, fields)] = stream.redis.xrange(stream.dead_key)
    assert fields[b"message"] == b"x" and fields[b"interview_id"] == INTERVIEW.encode() and fields[b"reason"] == b"not_json"


@pytest.mark.parametrize("missing", ["xdel", "exec", "watch", "put"])
def test_replay_without_permission_changes_nothing(own_queue, missing):
    letter = own_queue.add_dead(b"x")
    if missing == "put":
        missing = "lpush" if own_queue.mode == "list" else "xadd"
    url = account(own_queue, *keys_of(own_queue), "+@all", f"-{missing}")
    result = own_queue.ctl("dead", "replay", "--all", "--yes", redis_url=url)
    assert result.code == 78 and "NOPERM" in result.err and result.out == ""
    assert own_queue.dead_ids() == [letter] and own_queue.waiting() == []


def test_rights_that_changing_takes(own_queue):
    """As docs/OPERATIONS.md has them."""
    put = "+lpush" if own_queue.mode == "list" else "+xadd"
    looking = ["+xrange", "+xrevrange", "+xlen"]
    dropping = [*looking, "+multi", "+exec", "+set", "+del", "+xdel", "+xtrim"]
    letters = [own_queue.add_dead(f"message {number}") for number in range(4)]
    url = account(own_queue, *keys_of(own_queue), *looking)
    assert own_queue.ctl("dead", "list", redis_url=url).code == own_queue.ctl("dead", "show", letters[0], redis_url=url).code == 0
    assert own_queue.ctl("dead", "drop", letters[0], "--yes", redis_url=url).code == 78
    url = account(own_queue, *keys_of(own_queue), *dropping)
    assert own_queue.ctl("dead", "drop", letters[0], "--yes", redis_url=url).code == 0
    url = account(own_queue, *keys_of(own_queue), *dropping, "+watch", put)
    assert own_queue.ctl("dead", "replay", letters[1], "--yes", redis_url=url).code == 0
    assert own_queue.ctl("dead", "replay", "--all", "--yes", redis_url=url).out == "2 dead letters replayed\n"
    own_queue.add_dead("x")
    assert own_queue.ctl("dead", "drop", "--all", "--yes", redis_url=url).code == 0 and own_queue.dead_ids() == []


def test_drop(queue):
    ids = [queue.add_dead(f"message {number}") for number in range(5)]
    assert queue.ctl("dead", "drop", ids[1], ids[3], "--yes").out == "2 dead letters dropped\n"
    assert queue.dead_ids() == [ids[0], ids[2], ids[4]]
    assert queue.ctl("dead", "drop", "--all", "--yes", "--json").json() == {"dropped": 3}
    assert queue.dead_ids() == [] and queue.waiting() == [] and queue.other_keys() == set()
    assert queue.ctl("dead", "drop", "--all", "--yes").out == "0 dead letters dropped\n"


def test_unknown_dead_letter_changes_nothing(queue):
    letter = queue.add_dead(b"x")
    for verb in ("replay", "drop"):
        result = queue.ctl("dead", verb, letter, "1-1", "--yes")
        assert result.code == 1 and "1-1" in result.err and result.out == ""
    assert queue.dead_ids() == [letter] and queue.waiting() == []


def test_all_are_those_that_were_there_when_it_asked(queue):
    old = queue.add_dead(b"old")
    new = []
    result = queue.on_terminal("dead", "drop", "--all", answer="y\n", meanwhile=lambda: new.append(queue.add_dead(b"new")))
    assert result.code == 0 and "Drop 1 dead letter for good, messages and all? [y/N] " in result.out
    assert queue.dead_ids() == new and old not in new


def test_it_asks_first(queue):
    letter = queue.add_dead(b"x")
    result = queue.on_terminal("dead", "replay", letter, answer="n\n")
    assert result.code == 1 and "Replay 1 dead letter? [y/N] " in result.out and "Nothing was changed." in result.out
    for verb in ("replay", "drop"):
        result = queue.ctl("dead", verb, letter, stdin="y\n")
        assert result.code == 64 and "--yes" in result.err
    assert queue.dead_ids() == [letter]


@pytest.mark.parametrize("word", ["17", "x", "1-", "-1", "1-1x", "1-99999999999999999999", "0x1-1"])
def test_what_is_no_id(queue, word):
    result = queue.ctl("dead", "drop", "--yes", "--", word)
    assert result.code == 64 and "is no id" in result.err and result.out == ""


def test_dead_letters_key_of_another_type(queue):
    queue.redis.set(queue.dead_key, "x")
    for arguments in (["list"], ["show", "1-1"], ["replay", "--all", "--yes"], ["drop", "--all", "--yes"]):
        result = queue.ctl("dead", *arguments)
        assert result.code == 78 and "WRONGTYPE" in result.err and queue.dead_key in result.err


def test_dead_letters_when_redis_is_away(queue):
    result = queue.ctl("dead", "list", redis_url="redis://127.0.0.1:1")
    assert result.code == 69 and "127.0.0.1:1" in result.err and result.out == ""


# Beside promptd


@pytest.fixture
def start(start_promptd, queue):
    """A promptd on the queue."""
    def run(**settings):
        promptd = start_promptd(on=queue, redis_mode=queue.mode, ready=False, **settings)
        promptd.wait_line("INFO", "database connected")
        return promptd

    return run


def test_what_is_published_is_stored(start, queue, database):
    promptd = start()
    message = queue.message(database.interview(), source=None)
    queue.published.append(message.prompt)
    assert queue.ctl("publish", "--interview", message.interview, "-", stdin=message.prompt).code == 0
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


# What promptd asks besides, and does without where it may not: for its figures, its heartbeat, and a quick end.
WISHED = {"info", "client|id", "client|unblock", "client|setname", "ping", "scan", "role"}


def test_promptd_needs_no_more_than_what_check_tries(start, queue, database):
    url = account(queue, *keys_of(queue), *NEEDED[queue.mode].split(), "+multi", "+exec")
    queue.redis.execute_command("ACL", "LOG", "RESET")
    promptd = start(redis_url=url)
    message = queue.push(database.interview())
    queue.push_raw(frame(b"no json"))
    assert promptd.settle(2).outcomes() == {"success": 1, "rejected": 1}
    wait_until(lambda: queue.left() == 0 and len(queue.dead_ids()) == 1, "the messages to leave the queue", seen=queue.left)
    promptd.stop()
    expect_stored(database, message)
    denied = {entry["object"] for entry in queue.redis.acl_log()}
    assert denied <= WISHED, denied


def test_replay_of_what_promptd_could_not_store(start, queue, database):
    promptd = start()
    database.raise_on("interview_enhanced_prompts", "insert", "no such luck")
    messages = [queue.push(database.interview(), f"number {number}") for number in range(3)]
    promptd.wait_counters(failure=3)
    wait_until(lambda: len(queue.dead_ids()) == 3, "three dead letters", seen=queue.dead_ids)
    listed = queue.ctl("dead", "list", "--json").json()
    assert {letter["interview_id"] for letter in listed} == {message.interview for message in messages}
    assert {(letter["outcome"], letter["sqlstate"]) for letter in listed} == {("not stored", "P0001")}
    database.drop_faults()
    assert queue.ctl("dead", "replay", "--all", "--yes").out == "3 dead letters replayed\n"
    promptd.wait_counters(success=3, waiting=0)
    expect_stored(database, *messages)
    assert queue.ctl("dead", "list").err == "No dead letters.\n"


def test_message_that_was_not_read_can_be_dropped(start, queue):
    promptd = start(message_max_bytes=2000)
    queue.push_raw(frame(b"x" * 5000))
    promptd.wait_counters(rejected=1)
    wait_until(lambda: len(queue.dead_ids()) == 1, "a dead letter", seen=queue.dead_ids)
    [letter] = queue.ctl("dead", "list", "--json").json()
    assert letter["reason"] == "too_large" and letter["bytes"] is None
    assert "was not read" in queue.ctl("dead", "replay", letter["id"], "--yes").err
    assert queue.ctl("dead", "drop", letter["id"], "--yes").code == 0 and queue.dead_ids() == []


def test_check_beside_promptd(start, queue, check):
    start()
    wait_until(lambda: queue.subscribers() == 1, "a promptd that takes messages", seen=queue.subscribers)
    code, verdicts, details = check(queue)
    assert code == 0 and set(verdicts.values()) == {"ok"}, details
    consumers = details["redis_consumers"] if queue.mode == "list" else details["redis_group"]
    assert consumers == ("1 promptd takes from it, and has 0 in work" if queue.mode == "list"
                         else "group promptd: 1 consumer, backlog 0, pending 0")


def test_status_of_the_queue(start, queue):
    promptd = start()
    queue.push_raw(frame(b"no json"))
    promptd.wait_counters(rejected=1)
    listen = promptd.admin_url.removeprefix("http://")

    def shown():
        return queue.ctl("status", admin_listen=listen).out

    wait_until(lambda: "1 dead letter (promptctl dead list)" in shown(), "the dead letter in promptctl status", seen=shown)
    assert re.search(rf"connected: {queue.name} at .*, mode {queue.mode}\n +backlog 0, pending 0, consumers 1, ", shown())
    assert "gaps" not in shown()
