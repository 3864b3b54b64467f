# SPDX-License-Identifier: MIT
"""The bounds on memory: what does not fit is the newest, and each message that is dropped is named."""

import pytest

from support.expect import expect_stored
from support.redis_server import Message


def expect_newest_dropped(promptd, messages, kept):
    for message in messages[kept:]:
        promptd.one("ERROR", message.interview)
    for message in messages[:kept]:
        assert promptd.find("ERROR|CRITICAL", message.interview) == []


def test_message_bound(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, queue_max_messages=10, db_connections=1)
    messages = [channel.message(interview) for interview in database.interviews(40)]
    with database.locked():
        channel.publish_message(messages[0])
        database.wait_blocked()
        channel.publish_burst(messages[1:])
        counters = promptd.wait_counters(received=40)
        assert 10 <= counters["waiting"] <= 11  # the one in work may or may not count
        assert counters["dropped"] == 40 - counters["waiting"]
        assert database.prompt_count() == 0
    kept = counters["waiting"]
    assert promptd.settle(40).outcomes() == {"success": kept, "dropped": 40 - kept}
    expect_stored(database, *messages[:kept])
    expect_newest_dropped(promptd, messages, kept)


def test_byte_bound(start_promptd, database, channel):
    promptd = start_promptd(queue_max_bytes=1048576, db_connections=1)
    messages = [Message(interview, channel.prompt("z" * 40000)) for interview in database.interviews(60)]
    with database.locked():
        channel.publish_message(messages[0])
        database.wait_blocked()
        channel.publish_burst(messages[1:])
        counters = promptd.wait_counters(received=60)
        # 26 of them are a megabyte; what a message costs besides its text is the daemon's own business.
        assert 20 <= counters["waiting"] <= 27
    kept = counters["waiting"]
    assert promptd.settle(60).outcomes() == {"success": kept, "dropped": 60 - kept}
    expect_stored(database, *messages[:kept])
    expect_newest_dropped(promptd, messages, kept)


def test_room_is_made_again(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, queue_max_messages=5)
    for round in range(1, 4):
        with database.locked():
            channel.publish_burst([channel.message(interview) for interview in database.interviews(20)])
            promptd.wait_counters(received=round * 20)
        promptd.settle(round * 20)
    counters = promptd.counters()
    assert counters["success"] >= 15 and counters["dropped"] >= 15
    assert counters["success"] == database.prompt_count()


def test_rejected_messages_are_judged_when_the_queue_is_full(start_promptd, database, channel):
    """They take no room for long, but they must not be taken for anything else, nor be lost."""
    promptd = start_promptd(queue_max_messages=5, db_connections=1)
    with database.locked():
        channel.publish(database.interview())
        database.wait_blocked()
        channel.publish_burst([channel.message(interview) for interview in database.interviews(10)])
        channel.publish_burst([b"not json"] * 10)
        promptd.wait_counters(received=21)
    counters = promptd.settle(21)
    assert counters["rejected"] == 10 and counters["success"] + counters["dropped"] == 11


def test_database_that_answers_nothing(start_promptd, atomicity, database, channel, database_proxy):
    """Bytes are held back on the way: messages wait, the newest are dropped, the rest is stored when it is over."""
    promptd = start_promptd(atomicity=atomicity, queue_max_messages=10, database_url=database.url(database_proxy.port))
    messages = [channel.message(interview) for interview in database.interviews(60)]
    database_proxy.stall()
    channel.publish_burst(messages)
    counters = promptd.wait_counters(received=60)
    assert counters["waiting"] >= 10 and counters["success"] == 0 and counters["dropped"] >= 30
    database_proxy.restore()
    kept = counters["waiting"]
    assert promptd.settle(60).outcomes() == {"success": kept, "dropped": 60 - kept}
    assert database.prompt_count() == kept


@pytest.mark.parametrize("size", [200, 5000])
def test_memory_is_bounded_in_a_long_outage(start_promptd, database, channel, database_proxy, size):
    promptd = start_promptd(queue_max_messages=100, log_level="info", database_url=database.url(database_proxy.port))
    database_proxy.refuse()
    messages = [channel.message(interview, "m" * size) for interview in database.interviews(1000)]
    channel.publish_burst(messages)
    counters = promptd.wait_counters(received=1000)
    assert counters["waiting"] == 100 and counters["dropped"] == 900
    log = promptd.find("ERROR", "message dropped")
    assert len(log) == 900 and all(message.interview in line.text for message, line in zip(messages[100:], log))
    database_proxy.restore()
    assert promptd.settle(1000).outcomes() == {"success": 100, "dropped": 900}
    expect_stored(database, *messages[:100])
