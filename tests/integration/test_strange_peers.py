# SPDX-License-Identifier: MIT
"""A server that does not speak Redis' protocol costs the connection, whatever it says, and never the process."""

import time

import pytest

from support.expect import expect_stored
from support.peer import NONSENSE, Peer, behave, message, subscribe
from support.redis_server import Message

# What no Redis says to a subscriber. Some of it makes hiredis end the process.
TO_A_SUBSCRIBER = {
    **NONSENSE,
    "status": b"+OK\r\n",
    "integer": b":1\r\n",
    "nil": b"$-1\r\n",
    "string": b"$5\r\nhello\r\n",
    "nil array": b"*-1\r\n",
    "empty array": b"*0\r\n",
    "array of one": b"*1\r\n$7\r\nmessage\r\n",
    "array of two": b"*2\r\n$7\r\nmessage\r\n$1\r\na\r\n",
    "two-element unsubscribe": b"*2\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n",
    "unsubscribe": b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
    "integer for a name": b"*3\r\n:1\r\n:2\r\n:3\r\n",
    "nil for a name": b"*3\r\n$-1\r\n$1\r\na\r\n:3\r\n",
    "array for a name": b"*3\r\n*1\r\n$1\r\na\r\n$1\r\na\r\n:3\r\n",
    "nil for the channel": b"*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\na\r\n",
    "another channel": message(b"another", b"a"),
    "subscription to another channel": b"*3\r\n$9\r\nsubscribe\r\n$7\r\nanother\r\n:1\r\n",
    "pattern": b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1\r\na\r\n",
}

# And to somebody who has asked something.
TO_WHO_ASKS = {
    **NONSENSE,
    "integer": b":1\r\n",
    "nil": b"$-1\r\n",
    "empty array": b"*0\r\n",
    "another status": b"+NO\r\n",
    "string": b"$2\r\nOK\r\n",
    "too many answers": b"+OK\r\n" * 10,
    "message before its time": message(b"a", b"b"),
    "large string in an array": b"*2\r\n$2000000\r\n" + bytes(2_000_000) + b"\r\n:1\r\n",
}


def strange_once(data, when):
    """A peer that says `data` to its first client when it is subscribed, or at its first command, and then behaves."""
    def serve(client):
        if client.number == 0:
            subscribe(client) if when == "subscribed" else client.hear()
            client.say(data)
        behave(client)

    return serve


@pytest.mark.parametrize("share", range(4))  # so many at a time
def test_subscriber_is_told_nonsense(start_promptd, closing, share):
    peers = {name: closing(Peer(strange_once(data, "subscribed")))
             for name, data in list(TO_A_SUBSCRIBER.items())[share::4]}
    running = {name: start_promptd(ready=False, redis_url=peer.url) for name, peer in peers.items()}
    for name, promptd in running.items():
        line = promptd.wait_line("ERROR", "Redis connection lost")
        assert "this is not the protocol of Redis" in line.fields["error"], name
        promptd.wait_line("WARNING", "subscription restored after")
        assert peers[name].accepted == 2, name
        assert promptd.find("ERROR|CRITICAL") == [line], name


@pytest.mark.parametrize("login", ["", ":secret@"])
def test_question_is_answered_with_nonsense(start_promptd, closing, login):
    peers = {name: closing(Peer(strange_once(data, "asked"))) for name, data in TO_WHO_ASKS.items()}
    running = {name: start_promptd(ready=False, redis_url=peer.url.replace("//", f"//{login}"))
               for name, peer in peers.items()}
    for name, promptd in running.items():
        promptd.wait_line("INFO", "subscribed")
        if promptd.find("ERROR|CRITICAL"):
            line = promptd.one("ERROR", "Redis cannot be reached")
            words = "this port speaks TLS: rediss://" if name == "a TLS alert" else "this is no"
            assert words in line.fields["error"], name
            assert peers[name].accepted == 2, name
        else:  # without a login the first answer is one that nobody looks at
            assert not login and peers[name].accepted == 1, name


def test_what_came_before_the_nonsense_counts(start_promptd, database, closing):
    first = Message(database.interview(), "A prompt that arrives just before the nonsense.")

    def serve(client):
        channel = subscribe(client)
        if client.number == 0:
            client.say(message(channel, first.framed()) + b"nonsense")
        behave(client)

    promptd = start_promptd(ready=False, redis_url=closing(Peer(serve)).url)
    promptd.wait_line("ERROR", "Redis connection lost", "this is not the protocol of Redis")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, first)


def test_large_message_that_takes_its_time(start_promptd, closing):
    """Longer than the heartbeat, whose answer is queued behind it: as long as bytes come the connection is alive."""
    pieces, piece = 16, bytes(200_000)

    def serve(client):
        channel = subscribe(client)
        head, _, tail = message(channel, b"split here").partition(b"split here")
        client.say(head.replace(b"$10\r\n", b"$%d\r\n" % (pieces * len(piece))))
        for _ in range(pieces):
            time.sleep(0.25)
            client.say(piece)
        client.say(tail)
        behave(client)

    peer = closing(Peer(serve))
    promptd = start_promptd(ready=False, redis_url=peer.url, heartbeat_interval_s=1, heartbeat_timeout_s=1)
    line = promptd.wait_line("ERROR", "reason=too_large", timeout=30)
    assert line.fields["bytes"] == str(pieces * len(piece))
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    assert peer.accepted == 1
