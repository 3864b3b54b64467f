# SPDX-License-Identifier: MIT
"""Messages larger than message_max_bytes: rejected unread, and nothing else comes of them."""

import signal
import socket

import pytest

from support.expect import expect_stored
from support.queue import MODES, Queue
from support.redis_server import Channel
from support.wait import SLOW

LIMIT = 1048576  # message_max_bytes as shipped
MEGABYTE = 1 << 20


@pytest.fixture
def wide_channel(own_redis):
    """On a server that gives its subscribers as much as there is: as shipped it cuts them off at 32 MB."""
    own_redis.admin.config_set("client-output-buffer-limit", "pubsub 0 0 0")
    return Channel(own_redis)


def publish_zeros(channel, size):
    """In pieces, so that the test itself does not hold them."""
    name, piece = channel.name.encode(), b"0" * MEGABYTE
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(channel.server.socket)
        client.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n" % (len(name), name, size))
        for _ in range(size // MEGABYTE):
            client.sendall(piece)
        client.sendall(piece[:size % MEGABYTE] + b"\r\n")
        assert client.recv(64) == b":1\r\n"


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * MEGABYTE, 8 * MEGABYTE, 100 * MEGABYTE])
def test_large_message_among_good_ones(start_promptd, database, wide_channel, size):
    promptd = start_promptd(on=wide_channel, heartbeat_timeout_s=30)  # the server takes its time over 100 MB
    rounds = 3
    good = [wide_channel.publish(database.interview())]
    promptd.settle(1)
    before = promptd.peak_memory_kb()
    for _ in range(rounds):
        good.append(wide_channel.publish(database.interview()))
        publish_zeros(wide_channel, size)
        good.append(wide_channel.publish(database.interview()))
    counters = promptd.settle(2 * rounds + 1 + rounds, timeout=60)
    assert counters.outcomes() == {"success": 2 * rounds + 1, "rejected": rounds}
    assert counters["gaps"] == 0 and promptd.find("WARNING") == []
    expect_stored(database, *good)
    lines = promptd.find("ERROR")
    assert [(line.fields["reason"], line.fields["bytes"]) for line in lines] == [("too_large", str(size))] * rounds
    assert promptd.peak_memory_kb() - before < 1024 * SLOW


def test_largest_message_that_redis_can_carry(start_promptd, database, wide_channel):
    """512 MB. The server itself is slow with them."""
    promptd = start_promptd(on=wide_channel, heartbeat_timeout_s=60)
    before = promptd.peak_memory_kb()
    publish_zeros(wide_channel, 512 * MEGABYTE)
    good = wide_channel.publish(database.interview())
    assert promptd.settle(2, timeout=120).outcomes() == {"success": 1, "rejected": 1}
    expect_stored(database, good)
    assert promptd.one("ERROR", "too_large").fields["bytes"] == str(512 * MEGABYTE)
    assert promptd.find("WARNING") == []
    assert promptd.peak_memory_kb() - before < 4 * 1024 * SLOW


def test_large_message_with_a_spool(start_promptd, database, wide_channel, new_folder):
    promptd = start_promptd(on=wide_channel, spool_dir=new_folder("spool"))
    publish_zeros(wide_channel, 8 * MEGABYTE)
    good = wide_channel.publish(database.interview())
    assert promptd.settle(2).outcomes() == {"success": 1, "rejected": 1}
    expect_stored(database, good)
    assert promptd.one("ERROR", "too_large").fields["bytes"] == str(8 * MEGABYTE)


def test_message_of_just_the_limit_is_read(start_promptd, database, channel):
    promptd = start_promptd(message_max_bytes=2000)
    for size in (2000, 2001):
        channel.publish_raw(b"x" * size)
    promptd.settle(2)
    assert [line.fields["reason"] for line in promptd.find("ERROR")] == ["not_json", "too_large"]


@pytest.mark.parametrize("limit", [300, 100_000])  # less than what any message takes besides its prompt, and much more
@pytest.mark.parametrize("mode", ["pubsub", "spool", *MODES])
def test_message_as_large_as_the_queue(start_promptd, own_redis, database, new_folder, mode, limit):
    place = Queue(own_redis, mode) if mode in MODES else Channel(own_redis)
    promptd = start_promptd(on=place, ready=False, message_max_bytes=limit, queue_max_bytes=limit, prompt_max_chars=limit,
                            redis_mode=mode if mode in MODES else "pubsub",
                            spool_dir=new_folder("spool") if mode == "spool" else None)
    promptd.wait_line("INFO", "taking messages" if mode in MODES else "subscribed")
    promptd.wait_line("INFO", "database connected")
    for number in (1, 2):
        interview = database.interview()
        message = place.message(interview, "x" * (limit - len(place.message(interview, "").framed())))
        assert len(message.framed()) == limit
        place.add(own_redis.admin, message.framed())
        assert promptd.settle(number).outcomes() == {"success": number}
        expect_stored(database, message)


@pytest.mark.parametrize("mode", MODES)
def test_no_more_is_taken_than_there_is_room_for(start_promptd, own_redis, database, mode):
    """Two messages that would just fit, but for what they take besides: one that must be given back comes again late."""
    limit = 100_000
    place = Queue(own_redis, mode)
    promptd = start_promptd(on=place, ready=False, redis_mode=mode, message_max_bytes=limit, prompt_max_chars=limit,
                            queue_max_bytes=2 * limit + 100)
    promptd.wait_line("INFO", "taking messages")
    promptd.wait_line("INFO", "database connected")
    interviews = database.interviews(4)
    messages = [place.message(interview, "x" * (limit - len(place.message(interview, "").framed()))) for interview in interviews]
    with database.locked():
        for message in messages:
            place.add(own_redis.admin, message.framed())
        promptd.wait_counters(received=1)
    promptd.settle(4)
    expect_stored(database, *messages)
    assert promptd.find("DEBUG", "message returned") == []


def test_limit_is_read_again(start_promptd, database, channel, new_folder):
    config = f"{new_folder('conf')}/conf"
    with open(config, "w", encoding="ascii") as file:
        file.write("message_max_bytes = 2000\n")
    promptd = start_promptd(config=config)
    channel.publish_raw(b"x" * 3000)
    promptd.settle(1)
    with open(config, "w", encoding="ascii") as file:
        file.write("message_max_bytes = 4000\n")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    channel.publish_raw(b"x" * 3000)
    promptd.settle(2)
    assert [line.fields["reason"] for line in promptd.find("ERROR")] == ["too_large", "not_json"]
