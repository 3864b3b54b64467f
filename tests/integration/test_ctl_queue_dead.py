# SPDX-License-Identifier: MIT
"""promptctl dead where messages wait in Redis: on a list and on a stream."""

import json
import re
import threading

import pytest
import redis

from support.ctl_queue import CtlQueue, account, keys_of
from support.expect import expect_stored
from support.queue import MODES
from support.redis_server import frame
from support.wait import wait_until

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
PROMPT = "Tell me about yourself."
PROMPT_ID = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"
HIGHEST = f"{2**64 - 1}-{2**64 - 1}"


@pytest.fixture(params=MODES)
def queue(request, redis_server, promptctl):
    return CtlQueue(redis_server, request.param, promptctl)


@pytest.fixture(params=MODES)
def own_queue(request, own_redis, promptctl):
    return CtlQueue(own_redis, request.param, promptctl)


# Looking


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


# Changing


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
    stream = CtlQueue(redis_server, "stream", promptctl)
    stream.redis.xadd(stream.name, {"message": "last"}, id=HIGHEST)
    stream.add_dead(b"x", interview_id=INTERVIEW)
    result = stream.ctl("dead", "replay", "--all", "--yes")
    assert result.code == 78 and "stay dead letters" in result.err and result.out == ""
    [(_, fields)] = stream.redis.xrange(stream.dead_key)
    assert fields[b"message"] == b"x" and fields[b"interview_id"] == INTERVIEW.encode() and fields[b"reason"] == b"not_json"


@pytest.mark.parametrize("missing", ["xdel", "eval", "put"])
def test_replay_without_permission_changes_nothing(own_queue, missing):
    letter = own_queue.add_dead(b"x")
    if missing == "put":
        missing = "lpush" if own_queue.mode == "list" else "xadd"
    url = account(own_queue, *keys_of(own_queue), "+@all", f"-{missing}")
    result = own_queue.ctl("dead", "replay", "--all", "--yes", redis_url=url)
    assert result.code == 78 and result.out == "" and ("no permissions" in result.err or "can't run" in result.err)
    assert own_queue.dead_ids() == [letter] and own_queue.waiting() == []


def test_rights_that_changing_takes(own_queue):
    """As docs/OPERATIONS.md has them."""
    put = "+lpush" if own_queue.mode == "list" else "+xadd"
    looking = ["+xrange", "+xrevrange", "+xlen"]
    dropping = [*looking, "+xdel", "+xtrim"]
    letters = [own_queue.add_dead(f"message {number}") for number in range(4)]
    url = account(own_queue, *keys_of(own_queue), *looking)
    assert own_queue.ctl("dead", "list", redis_url=url).code == own_queue.ctl("dead", "show", letters[0], redis_url=url).code == 0
    assert own_queue.ctl("dead", "drop", letters[0], "--yes", redis_url=url).code == 78
    url = account(own_queue, *keys_of(own_queue), *dropping)
    assert own_queue.ctl("dead", "drop", letters[0], "--yes", redis_url=url).code == 0
    url = account(own_queue, *keys_of(own_queue), *looking, "+xdel", "+eval", put)
    assert own_queue.ctl("dead", "replay", letters[1], "--yes", redis_url=url).code == 0
    assert own_queue.ctl("dead", "replay", "--all", "--yes", redis_url=url).out == "2 dead letters replayed\n"
    own_queue.add_dead("x")
    url = account(own_queue, *keys_of(own_queue), *dropping)
    assert own_queue.ctl("dead", "drop", "--all", "--yes", redis_url=url).code == 0 and own_queue.dead_ids() == []


def test_drop(queue):
    ids = [queue.add_dead(f"message {number}") for number in range(5)]
    assert queue.ctl("dead", "drop", ids[1], ids[3], "--yes").out == "2 dead letters dropped\n"
    assert queue.dead_ids() == [ids[0], ids[2], ids[4]]
    assert queue.ctl("dead", "drop", "--all", "--yes", "--json").json() == {"dropped": 3}
    assert queue.dead_ids() == [] and queue.waiting() == [] and queue.other_keys() == set()
    assert queue.ctl("dead", "drop", "--all", "--yes").out == "0 dead letters dropped\n"


def test_full_redis(own_queue):
    """Whoever has a full Redis must be able to empty it; what is replayed has its place before and after."""
    ids = [own_queue.add_dead(f"message {number}") for number in range(4)]
    own_queue.redis.config_set("maxmemory", 1)
    assert own_queue.ctl("dead", "drop", ids[1], "--yes").out == "1 dead letter dropped\n"
    assert own_queue.ctl("dead", "replay", ids[0], "--yes").out == "1 dead letter replayed\n"
    assert own_queue.waiting() == [b"message 0"] and own_queue.dead_ids() == ids[2:]
    assert own_queue.ctl("dead", "drop", "--all", "--yes").out == "2 dead letters dropped\n" and own_queue.dead_ids() == []


def test_replicas_that_are_missing_pass_by_themselves(own_queue):
    letter = own_queue.add_dead("x")
    own_queue.redis.config_set("min-replicas-to-write", 1)
    for verb in ("replay", "drop"):
        result = own_queue.ctl("dead", verb, "--all", "--yes")
        assert result.code == 69 and "NOREPLICAS" in result.err and result.out == ""
    assert own_queue.dead_ids() == [letter] and own_queue.waiting() == []


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


def test_replay_of_what_promptd_could_not_store(start_taking, queue, database):
    promptd = start_taking()
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


def test_message_that_was_not_read_can_be_dropped(start_taking, queue):
    promptd = start_taking(message_max_bytes=2000)
    queue.push_raw(frame(b"x" * 5000))
    promptd.wait_counters(rejected=1)
    wait_until(lambda: len(queue.dead_ids()) == 1, "a dead letter", seen=queue.dead_ids)
    [letter] = queue.ctl("dead", "list", "--json").json()
    assert letter["reason"] == "too_large" and letter["bytes"] is None
    assert "was not read" in queue.ctl("dead", "replay", letter["id"], "--yes").err
    assert queue.ctl("dead", "drop", letter["id"], "--yes").code == 0 and queue.dead_ids() == []
