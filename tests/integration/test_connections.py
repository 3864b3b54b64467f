# SPDX-License-Identifier: MIT
"""Connections that break, at the worst moments: every message still comes to the end it would have come to."""

import re

import pytest

from support.expect import expect_kept, expect_nothing_stored, expect_stored
from support.proxy import POSTGRES_READY, TO_CLIENT
from support.redis_server import Channel
from support.wait import wait_until

INSERT = rb"insert\s+into\s+\S*interview_enhanced_prompts"
UPDATE = rb"update\s+\S*interviews\b"
DELETE = rb"delete\s+from\s+\S*interview_enhanced_prompts"


@pytest.fixture
def proxied(start_promptd, atomicity, database, database_proxy):
    """One connection, through the proxy."""
    return start_promptd(atomicity=atomicity, db_connections=1, database_url=database.url(database_proxy.port))


def burst(channel, database, count=20, status="enhancing"):
    messages = [channel.message(interview) for interview in database.interviews(count, status)]
    channel.publish_burst(messages)
    return messages


# PostgreSQL


def test_session_is_terminated_in_the_middle_of_a_statement(promptd, database, channel):
    with database.locked():
        messages = burst(channel, database)
        database.wait_blocked()
        promptd.wait_counters(received=20)
        assert database.terminate_sessions() >= 1
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)


def test_idle_session_is_terminated(promptd, database, channel):
    database.terminate_sessions()
    database.wait_sessions(1)
    messages = burst(channel, database)
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert len(promptd.find("WARNING|ERROR|CRITICAL")) <= 1  # lost, if all of them went before a new one was there


def test_sessions_are_terminated_again_and_again(promptd, database, channel):
    """Wherever it hits, nothing is lost, nothing is stored twice and nothing is counted wrong."""
    messages = []
    for _ in range(10):
        messages += burst(channel, database, 50)
        database.terminate_sessions()
    assert promptd.settle(500, timeout=40).outcomes() == {"success": 500}
    expect_stored(database, *messages)
    assert database.prompt_count() == 500


@pytest.mark.parametrize("request_lost", [INSERT, UPDATE], ids=["insert", "update"])
def test_request_does_not_arrive(proxied, database, database_proxy, channel, request_lost):
    database_proxy.cut_at(request_lost)
    messages = burst(channel, database)
    assert proxied.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert database_proxy.fired == 1


@pytest.mark.parametrize("request_done", [INSERT, UPDATE], ids=["insert", "update"])
def test_reply_does_not_arrive(proxied, database, database_proxy, channel, request_done):
    """It was done, promptd cannot know: doing it again settles it, as stored and not as duplicate."""
    database_proxy.lose_reply(request_done, reply_end=POSTGRES_READY)
    messages = burst(channel, database)
    assert proxied.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert database_proxy.fired == 1


def test_replies_are_lost_three_times(proxied, database, database_proxy, channel):
    database_proxy.lose_reply(INSERT, times=3, reply_end=POSTGRES_READY)
    messages = burst(channel, database)
    assert proxied.settle(20, timeout=30).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert database_proxy.fired == 3


def test_reply_to_the_insert_of_a_late_prompt_is_lost(proxied, database, database_proxy, channel):
    """Found present after an attempt: its own, and so to be deleted."""
    database_proxy.lose_reply(INSERT, reply_end=POSTGRES_READY)
    messages = burst(channel, database, status="completed")
    assert proxied.settle(20).outcomes() == {"failure": 20, "rollback": 20}
    for message in messages:
        expect_nothing_stored(database, message.interview, "completed")
    assert proxied.find("CRITICAL") == []


@pytest.mark.parametrize("fault", ["request", "reply"])
def test_duplicate_stays_when_the_connection_is_lost(proxied, database, database_proxy, channel, fault):
    """A settled prompt is never deleted. Whether it was inserted just now or before, nobody can tell."""
    message = channel.message(database.interview("completed"))
    database.add_prompt(message)
    if fault == "request":
        database_proxy.cut_at(INSERT)
    else:
        database_proxy.lose_reply(INSERT, reply_end=POSTGRES_READY)
    channel.publish_message(message)
    counters = proxied.settle(1)
    assert counters["success"] + counters["duplicate"] == 1 and database_proxy.fired == 1
    expect_kept(database, message, status="completed")


@pytest.mark.parametrize("fault", ["request", "reply"])
def test_delete_meets_a_lost_connection(start_promptd, database, database_proxy, channel, fault):
    promptd = start_promptd(db_connections=1, database_url=database.url(database_proxy.port))
    if fault == "request":
        database_proxy.cut_at(DELETE)
    else:
        database_proxy.lose_reply(DELETE, reply_end=POSTGRES_READY)
    messages = burst(channel, database, status="timeout")
    assert promptd.settle(20).outcomes() == {"failure": 20, "rollback": 20}
    for message in messages:
        expect_nothing_stored(database, message.interview, "timeout")
    assert database_proxy.fired == 1 and promptd.find("CRITICAL") == []


def test_database_away_at_the_start(start_promptd, atomicity, database, database_proxy, channel):
    database_proxy.refuse()
    promptd = start_promptd(ready=False, atomicity=atomicity, database_url=database.url(database_proxy.port))
    channel.wait_subscribers(1)
    messages = burst(channel, database)
    assert promptd.wait_counters(received=20)["waiting"] == 20
    database_proxy.restore()
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)


def test_database_away_is_said_once_and_so_is_its_return(start_promptd, database, database_proxy, channel):
    promptd = start_promptd(database_url=database.url(database_proxy.port))
    before = len(promptd.lines())

    def said():
        return [line for line in promptd.lines()[before:] if line.level in ("WARNING", "ERROR", "CRITICAL")]

    for outage in (1, 2):
        accepted = database_proxy.accepted
        database_proxy.refuse()
        wait_until(lambda: len(said()) >= outage, "the outage to be noticed")
        database_proxy.hang_up()  # another reason, the same outage
        wait_until(lambda: database_proxy.accepted >= accepted + 3, "three attempts", 20)
        assert len(said()) == outage, said()
        database_proxy.restore()
        message = channel.publish(database.interview())
        promptd.settle(outage)
        expect_stored(database, message)
        assert len(said()) == outage, said()


def test_server_restart(start_promptd, atomicity, postgres, database, channel, database_proxy):
    """A clean shutdown of the server with messages under way: outages use up no tries."""
    promptd = start_promptd(atomicity=atomicity, retry_attempts=1, database_url=database.url(database_proxy.port))
    database.disconnect()
    postgres.stop()
    try:
        messages = [channel.message(f"00000000-0000-4000-8000-00000000000{number}") for number in range(5)]
        channel.publish_burst(messages)
        promptd.wait_counters(received=5, waiting=5)
    finally:
        database_proxy.refuse()  # until the interviews are there
        postgres.start()
        database.reconnect()
    database.execute("insert into interviews (id, status) select unnest(%s::uuid[]), 'enhancing'",
                     [[message.interview for message in messages]])
    database_proxy.restore()
    assert promptd.settle(5).outcomes() == {"success": 5}
    expect_stored(database, *messages)


def test_read_only_database_is_an_outage(start_promptd, atomicity, database, channel):
    """After a failover the old primary refuses writes: messages wait until that is over."""
    promptd = start_promptd(atomicity=atomicity, db_connections=1, retry_attempts=1, retry_base_ms=10)
    database.raise_on("interview_enhanced_prompts", "insert", "cannot execute INSERT in a read-only transaction", "25006")
    messages = burst(channel, database, 5)
    promptd.wait_counters(received=5, waiting=5)
    database.drop_faults()
    assert promptd.settle(5).outcomes() == {"success": 5}
    expect_stored(database, *messages)


# Redis


def test_redis_away_at_the_start(start_promptd, database, channel, redis_server, new_proxy):
    proxy = new_proxy(redis_server.socket)
    proxy.refuse()
    promptd = start_promptd(ready=False, redis_url=f"redis://127.0.0.1:{proxy.port}")
    promptd.wait_line("WARNING|ERROR", "edis")
    proxy.restore()
    promptd.wait_ready(channel, database)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


RESTORED = re.compile(r"subscription restored after \d+\.\d s.*; messages published meanwhile were not received")


def gaps(promptd):
    return [line for line in promptd.lines() if line.level == "WARNING" and RESTORED.search(line.text)]


def test_redis_is_restarted(start_promptd, atomicity, database, channel, own_redis):
    own = Channel(own_redis)
    promptd = start_promptd(on=own, atomicity=atomicity)
    first = own.publish(database.interview())
    promptd.settle(1)
    own_redis.stop()
    promptd.wait_line("WARNING|ERROR", "edis")
    own_redis.start()
    own.wait_subscribers(1)
    second = own.publish(database.interview())
    assert promptd.settle(2).outcomes() == {"success": 2}
    expect_stored(database, first, second)
    assert len(gaps(promptd)) == 1


def test_subscriber_is_killed(promptd, database, channel, redis_server):
    redis_server.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: gaps(promptd), "the gap to be reported")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert len(gaps(promptd)) == 1


def test_redis_away_is_said_once_and_so_is_its_return(start_promptd, database, channel, redis_server, new_proxy):
    proxy = new_proxy(redis_server.socket)
    promptd = start_promptd(redis_url=f"redis://127.0.0.1:{proxy.port}")
    before = len(promptd.lines())

    def said():
        return [line for line in promptd.lines()[before:] if line.level in ("WARNING", "ERROR", "CRITICAL")]

    for outage in (1, 2):
        accepted = proxy.accepted
        proxy.refuse()
        promptd.wait_line("DEBUG|ERROR", "onnection refused", count=outage)
        proxy.hang_up()  # another reason, the same outage
        wait_until(lambda: proxy.accepted >= accepted + 3, "three attempts", 20)
        assert len(said()) == 2 * outage - 1, said()
        proxy.restore()
        channel.wait_subscribers(1)
        wait_until(lambda: len(gaps(promptd)) == outage, "the gap to be reported")
        assert len(said()) == 2 * outage, said()
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}


def test_message_in_pieces(start_promptd, database, channel, redis_server, new_proxy):
    """A slow network hands messages over bit by bit."""
    proxy = new_proxy(redis_server.socket)
    promptd = start_promptd(redis_url=f"redis://127.0.0.1:{proxy.port}")
    proxy.delay(0.005)
    messages = [channel.message(interview, "p" * 49000) for interview in database.interviews(10)]
    channel.publish_burst(messages)
    assert promptd.settle(10).outcomes() == {"success": 10}
    expect_stored(database, *messages)


def test_connection_is_cut_within_a_message(start_promptd, database, channel, redis_server, new_proxy):
    """Half a message is no message: it is gone with its connection, and spoils nothing that follows."""
    proxy = new_proxy(redis_server.socket)
    promptd = start_promptd(redis_url=f"redis://127.0.0.1:{proxy.port}")
    proxy.truncate(TO_CLIENT, 1000)
    channel.publish(database.interview(), "h" * 40000)
    wait_until(lambda: gaps(promptd), "the gap to be reported")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_garbage_instead_of_redis(start_promptd, database, channel, postgres, redis_server, new_proxy):
    """Whatever answers there is not Redis: an outage like any other."""
    wrong = new_proxy(("127.0.0.1", postgres.port))
    promptd = start_promptd(ready=False, redis_url=f"redis://127.0.0.1:{wrong.port}")
    promptd.wait_line("WARNING|ERROR", "edis")
    wrong.refuse()
    wrong.target = redis_server.socket
    wrong.restore()
    promptd.wait_ready(channel, database)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
