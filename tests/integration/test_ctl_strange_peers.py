# SPDX-License-Identifier: MIT
"""A server that does not speak Redis' protocol, or answers what Redis does not: promptctl says so, soon, and with an
exit code; it does not crash, wait or grow."""

import os
import re
import time

import pytest

from support.peer import NONSENSE, Peer
from support.wait import SLOW

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"

SET_UP = "this port speaks TLS"  # the only one of them that is a fault of set-up

# What the text of the error may be; all of them name the server besides.
WORDS = r"is no Redis|this is not the protocol of Redis|this port speaks TLS|as of Redis before 6"

# Some is what it answers to other commands.
OTHER_ANSWERS = {
    "status": b"+STRANGE\r\n",
    "integer": b":1\r\n",
    "negative integer": b":-999999999999999999\r\n",
    "huge integer": b":999999999999999999\r\n",
    "string": b"$5\r\nhello\r\n",
    "nil": b"$-1\r\n",
    "nil array": b"*-1\r\n",
    "empty array": b"*0\r\n",
    "array of nil": b"*1\r\n$-1\r\n",
    "array of one": b"*1\r\n$7\r\nmessage\r\n",
    "array of nothing": b"*1\r\n*0\r\n",
    "pairs of numbers": b"*2\r\n*2\r\n:1\r\n:2\r\n*2\r\n:3\r\n:4\r\n",
    "large string": b"$100000000\r\n" + bytes(100_000_000) + b"\r\n",
}

INTEGERS = ("integer", "huge integer")
ARRAYS = ("empty array", "array of nil", "array of one", "array of nothing", "pairs of numbers")
LETTER = b"*2\r\n$3\r\n1-1\r\n*4\r\n$7\r\nmessage\r\n$2\r\n{}\r\n$7\r\noutcome\r\n$8\r\nrejected\r\n"


def bulk(text):
    return b"$%d\r\n%b\r\n" % (len(text), text)


ANSWERS = {
    b"PING": lambda words: b"+PONG\r\n",
    b"PUBSUB": lambda words: b"*2\r\n" + bulk(words[2]) + b":0\r\n",
    b"TYPE": lambda words: b"+none\r\n",
    b"SUBSCRIBE": lambda words: b"*3\r\n$9\r\nsubscribe\r\n" + bulk(words[1]) + b":1\r\n",
    b"PUBLISH": lambda words: b":1\r\n",
    b"LPUSH": lambda words: b":1\r\n",
    b"LLEN": lambda words: b":0\r\n",
    b"EXISTS": lambda words: b":1\r\n",
    b"XLEN": lambda words: b":1\r\n",
    b"XADD": lambda words: b"$3\r\n1-1\r\n",
    b"INFO": lambda words: bulk(b"redis_version:7.0.0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n"),
    b"SRANDMEMBER": lambda words: b"*1\r\n$5\r\nsmith\r\n",
    b"XINFO": lambda words: b"*0\r\n",
    b"XRANGE": lambda words: b"*1\r\n" + LETTER,
    b"XREVRANGE": lambda words: b"*1\r\n" + LETTER,
    b"EXEC": lambda words: b"*0\r\n",
}


class Impostor:
    """Answers as Redis does, but for one command, to which it says `data`."""

    def __init__(self, command, data=b""):
        self.command = command.encode()
        self.data = data
        self.was_asked = False
        self.peer = Peer(self._serve)

    def _serve(self, client):
        queued = False
        while True:
            words = client.hear()
            name = words[0]
            if name == self.command:
                self.was_asked = True
                client.say(self.data) if isinstance(self.data, bytes) else self.data(client)
            elif queued and name not in (b"EXEC", b"DISCARD"):
                client.say(b"+QUEUED\r\n")
            else:
                client.say(ANSWERS.get(name, lambda words: b"+OK\r\n")(words))
            queued = (queued or name == b"MULTI") and name not in (b"EXEC", b"DISCARD")

    def close(self):
        self.peer.close()


@pytest.fixture
def ask(promptctl, closing, database):
    """ask(impostor, *arguments, **settings) -> (exit code, all it wrote, seconds, its peak memory in KB)"""
    database.interview()

    def run(impostor, *arguments, login="", **settings):
        impostor.was_asked = False
        settings["redis_url"] = impostor.peer.url.replace("//", f"//{login}")
        began = time.monotonic()
        process = promptctl.start(*arguments, **settings)
        with process.stdout, process.stderr:
            written = process.stdout.read() + process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert impostor.was_asked, written
        assert "runtime error" not in written and "Sanitizer" not in written, written
        return process.returncode, written, time.monotonic() - began, usage.ru_maxrss

    return run


@pytest.fixture
def message(new_folder):
    path = os.path.join(new_folder("prompt"), "prompt")
    with open(path, "w", encoding="ascii") as file:
        file.write("A prompt for nobody.")
    return ("publish", "--interview", INTERVIEW, path)


def expect_refusals(ask, closing, command, arguments, data, **settings):
    impostor = closing(Impostor(command, ANSWERS.get(command.encode(), lambda words: b"+OK\r\n")([b""] * 3)))
    *_, memory = ask(impostor, *arguments, **settings)
    for name, impostor.data in data.items():
        code, written, seconds, peak = ask(impostor, *arguments, **settings)
        expected = (69, 78) if SET_UP in written else (69,)  # by which answer it is
        assert code in expected and re.search(WORDS, written), (name, code, written)
        assert seconds < 4 * SLOW, (name, seconds)
        assert peak < memory + 20_000 * SLOW, (name, peak)


def but(*fine):
    """OTHER_ANSWERS without those that are fine here."""
    return {name: data for name, data in OTHER_ANSWERS.items() if name not in fine}


def test_nonsense(ask, closing, message):
    expect_refusals(ask, closing, "AUTH", ["check"], NONSENSE, login=":secret@")
    expect_refusals(ask, closing, "PUBSUB", ["check"], NONSENSE)
    expect_refusals(ask, closing, "PUBLISH", message, NONSENSE)
    expect_refusals(ask, closing, "XRANGE", ["dead", "list"], NONSENSE, redis_mode="list")


@pytest.mark.parametrize("command, fine", [("AUTH", ()), ("PING", ("status",)), ("PUBSUB", ()), ("TYPE", ("status",)),
                                           ("SUBSCRIBE", ()), ("MULTI", ("status",))])
def test_check_of_a_channel(ask, closing, command, fine):
    expect_refusals(ask, closing, command, ["check"], but(*fine), login=":secret@", events_channel="events")


@pytest.mark.parametrize("mode, command, fine", [
    ("list", "INFO", ("string",)), ("list", "SRANDMEMBER", ARRAYS), ("list", "EVAL", ("status",)),
    ("list", "BLMOVE", ("status",)), ("stream", "XINFO", ARRAYS), ("stream", "XREADGROUP", ("status",))])
def test_check_of_a_queue(ask, closing, mode, command, fine):
    expect_refusals(ask, closing, command, ["check"], but(*fine), redis_mode=mode)


@pytest.mark.parametrize("mode, command, fine", [
    ("pubsub", "PUBLISH", INTEGERS), ("list", "LPUSH", INTEGERS), ("stream", "XADD", ("string",))])
def test_publish(ask, closing, message, mode, command, fine):
    expect_refusals(ask, closing, command, message, but(*fine), redis_mode=mode)


@pytest.mark.parametrize("command, fine", [("XLEN", (*INTEGERS, "negative integer")), ("XREVRANGE", ("empty array",)),
                                           ("XRANGE", ("empty array",))])
def test_dead_letters(ask, closing, command, fine):
    expect_refusals(ask, closing, command, ["dead", "list"], but(*fine), redis_mode="list")


@pytest.mark.parametrize("action, command, fine", [
    ("drop", "XTRIM", INTEGERS), ("replay", "TYPE", ("status",)), ("replay", "EVAL", ())])
def test_change_of_dead_letters(ask, closing, action, command, fine):
    expect_refusals(ask, closing, command, ["dead", action, "--all", "--yes"], but(*fine), redis_mode="list")


def entries(*ids):
    return b"*%d\r\n" % len(ids) + b"".join(LETTER.replace(b"$3\r\n1-1", bulk(each)[:-2]) for each in ids)


@pytest.mark.parametrize("ids", [[b"0-1", b"0-1"], [b"0-3", b"0-2"], [b"2-0"], [b"0-%d" % i for i in range(1, 3000)]],
                         ids=["twice", "backwards", "beyond the end", "more than were asked for"])
def test_pages_without_an_end(ask, closing, ids):
    code, written, seconds, _ = ask(closing(Impostor("XRANGE", entries(*ids))), "dead", "list", redis_mode="list")
    assert code == 69 and "is no Redis: its answer to XRANGE" in written and seconds < 4 * SLOW, written


@pytest.mark.parametrize("last", [b"2-0", b"x"], ids=["beyond the end", "no id"])
def test_replay_without_an_end(ask, closing, last):
    impostor = closing(Impostor("EVAL", b"*3\r\n:1\r\n:0\r\n" + bulk(last)))
    code, written, seconds, _ = ask(impostor, "dead", "replay", "--all", "--yes", redis_mode="list")
    assert code == 69 and "is no Redis: its answer to EVAL" in written and seconds < 4 * SLOW, written


def drip(client):
    """Never silent for long, and never done."""
    client.say(b"+")
    while True:
        client.say(b"a")
        time.sleep(0.3)


@pytest.mark.parametrize("answer", [b"", b"$10000000\r\n", b"*3\r\n+a\r\n", drip],
                         ids=["silence", "half a string", "half an array", "a drip"])
def test_answers_that_do_not_come(ask, closing, message, answer):
    code, written, seconds, _ = ask(closing(Impostor("PUBLISH", answer)), *message)
    assert code == 69 and "no answer within 5 s" in written, written
    assert seconds < 5 + 3 * SLOW


def test_answer_that_goes_on(ask, closing):
    """It takes longer than 5 s, and yet comes at more than 100 kB a second."""
    def give(client):
        data = entries(b"1-1").replace(b"$2\r\n{}", bulk(b"x" * 1_300_000)[:-2])
        for start in range(0, len(data), 20_000):
            client.say(data[start:start + 20_000])
            time.sleep(0.1)

    code, written, seconds, _ = ask(closing(Impostor("XRANGE", give)), "dead", "list", redis_mode="list")
    assert code == 0 and "1300000" in written and seconds > 5.5, (written, seconds)


def test_message_that_nobody_takes(ask, closing, new_folder):
    """Larger than all that the kernel keeps for a peer."""
    path = os.path.join(new_folder("prompt"), "prompt")
    with open(path, "w", encoding="ascii") as file:
        file.write("x" * 9_900_000)
    impostor = closing(Impostor("PING", lambda client: (client.say(b"+PONG\r\n"), time.sleep(30 * SLOW))))
    code, written, seconds, _ = ask(impostor, "publish", "--interview", INTERVIEW, path, prompt_max_chars=10_000_000,
                                    message_max_bytes=16_000_000)
    assert code == 69 and "no answer within 5 s" in written and seconds < 5 + 3 * SLOW, (written, seconds)


def test_more_answers_than_questions(ask, closing, message):
    """The first is the answer. The next question finds out."""
    code, written, *_ = ask(closing(Impostor("PING", b"+PONG\r\n" * 10)), "check")
    assert code == 69 and "this is not the protocol of Redis: a reply that nobody asked for" in written, written
    code, written, *_ = ask(closing(Impostor("PUBLISH", b":1\r\n:1\r\n")), *message)
    assert code == 0, written


def test_error_behind_an_answer(ask, closing):
    """What the server says before it goes counts more than that it went."""
    def part(client):
        client.say(b"+PONG\r\n-ERR the server goes home\r\n")
        client.close()

    code, written, *_ = ask(closing(Impostor("PING", part)), "check")
    assert code == 69 and "ERR the server goes home" in written, written
