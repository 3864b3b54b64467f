# SPDX-License-Identifier: MIT
"""A list and a stream: what is too large, in whatever way, is rejected or stored, and holds up nobody."""

import signal

import pytest

from support.expect import expect_stored
from support.wait import wait_until

MANY = 40_000  # fields: as names and values more elements than promptd reads in one reply


def fields(count, size=1):
    return {f"field{number}": b"x" * size for number in range(count)}


def push_with(queue, message, others):
    """The message behind all the others."""
    queue.published.append(message.prompt)
    return queue.server.admin.xadd(queue.name, {**others, "message": message.framed()})


stream_only = pytest.mark.parametrize("queue", ["stream"], indirect=True)


@stream_only
def test_entry_of_very_many_fields(start_taking, queue, database):
    """It has no message: it is rejected like any other without one."""
    before = queue.push(database.interview())
    queue.server.admin.xadd(queue.name, fields(MANY))
    behind = queue.push(database.interview())
    promptd = start_taking()
    assert promptd.settle(3).outcomes() == {"success": 2, "rejected": 1}
    line = promptd.one("ERROR")
    assert line.fields["reason"] == "not_json" and promptd.find("WARNING") == []
    expect_stored(database, before, behind)
    queue.wait_empty()
    wait_until(lambda: [letter["reason"] for letter in queue.dead()] == ["not_json"], "its dead letter", seen=queue.dead)


@stream_only
def test_message_among_very_many_fields(start_taking, queue, database):
    message = queue.message(database.interview())
    push_with(queue, message, fields(MANY))
    behind = queue.push(database.interview())
    promptd = start_taking()
    assert promptd.settle(2).outcomes() == {"success": 2}
    expect_stored(database, message, behind)
    assert promptd.find("WARNING|ERROR") == []
    queue.wait_empty()


@stream_only
@pytest.mark.parametrize("others", [fields(400), fields(10, 15_000)], ids=["many", "long"])
def test_entries_that_are_too_large_together(start_taking, queue, database, others):
    """More than one reply may hold, with what promptd does not even want. Memory is bounded all the same."""
    messages = [queue.message(interview, f"{number}: a good question")
                for number, interview in enumerate(database.interviews(300))]
    for message in messages:
        push_with(queue, message, others)
    promptd = start_taking(queue_max_bytes=4194304, message_max_bytes=16384)
    assert promptd.settle(300).outcomes() == {"success": 300}
    expect_stored(database, messages[0], messages[150], messages[299])
    assert promptd.find("WARNING|ERROR") == [] and promptd.find("DEBUG", "from=up") == []
    assert promptd.peak_memory_kb() < 60_000
    queue.wait_empty()


@stream_only
def test_entry_of_very_many_fields_that_kills(start_taking, queue, database):
    """Given up like any other, and its message is kept."""
    admin = queue.server.admin
    message = queue.message(database.interview())
    admin.xgroup_create(queue.name, "promptd", "0", mkstream=True)
    id = push_with(queue, message, fields(MANY))
    admin.xreadgroup("promptd", "ghost", {queue.name: ">"})
    admin.xclaim(queue.name, "promptd", "ghost", 0, [id], idle=60000, retrycount=5)
    promptd = start_taking()
    promptd.wait_line("ERROR", "delivered 5 times without an outcome", timeout=20)
    wait_until(lambda: len(queue.dead()) == 1, "the dead letter")
    assert queue.dead()[0]["message"].encode() == message.framed()
    queue.wait_empty()


@pytest.fixture
def limit(new_folder):
    """A file with message_max_bytes; limit(promptd, bytes) changes it while promptd runs."""
    path = f"{new_folder('conf')}/conf"

    def change(promptd, size):
        with open(path, "w", encoding="ascii") as file:
            file.write(f"message_max_bytes = {size}\n")
        if promptd:
            promptd.kill(signal.SIGHUP)
            promptd.wait_line("INFO", "settings reloaded")
        return path

    return change


def test_limit_is_lowered_while_a_message_is_held(start_taking, queue, database, new_proxy, limit):
    """What was taken is what it was, also after a reconnection; another of its length is none of it."""
    interview = database.interview()
    proxy = new_proxy(("127.0.0.1", queue.server.port))
    with database.cluster.connect(database.name) as holder:
        holder.execute("begin")
        holder.execute("select from interviews where id = %s for update", [interview])
        promptd = start_taking(config=limit(None, 4000), redis_url=f"redis://127.0.0.1:{proxy.port}", lock_patience_s=120)
        message = queue.push(interview, "y" * 3000)
        promptd.wait_counters(waiting=1)
        limit(promptd, 2000)
        queue.push_raw(b"x" * len(message.framed()))
        promptd.wait_counters(rejected=1)
        wait_until(lambda: queue.pending() == 1 and len(queue.dead()) == 1, "the large one to be gone")
        if queue.mode == "list":
            key, = queue.server.admin.keys(f"{{{queue.name}}}:processing:*")
            assert queue.server.admin.lrange(key, 0, -1) == [message.framed()]
        proxy.cut()
        promptd.wait_line("INFO", "taking messages", count=2)
        wait_until(lambda: queue.subscribers() == 1, "it to read again")
        holder.execute("rollback")
    assert promptd.settle(2, timeout=40).outcomes() == {"success": 1, "rejected": 1}
    expect_stored(database, message)
    queue.push_raw(b"x" * len(message.framed()))
    promptd.settle(3)
    queue.wait_empty()
    assert len(queue.dead()) == 2 and "message" in queue.dead()[0]


def test_limit_is_raised_while_a_large_message_is_there(start_taking, queue, new_proxy, limit):
    """It was rejected, and only its dead letter is not kept yet: it does not come again as one that can be read."""
    admin = queue.server.admin
    proxy = new_proxy(("127.0.0.1", queue.server.port))
    promptd = start_taking(config=limit(None, 2000), redis_url=f"redis://127.0.0.1:{proxy.port}")
    admin.set(queue.dead_key, "something else")
    queue.push_raw(b"x" * 3000)
    promptd.wait_line("ERROR", "Redis refuses acknowledgements")
    limit(promptd, 4000)
    admin.delete(queue.dead_key)
    proxy.cut()
    promptd.wait_line("INFO", "taking messages", count=2)
    wait_until(lambda: queue.left() == 0, "Redis to have forgotten it", 20, seen=queue.left)
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    assert [letter["reason"] for letter in queue.dead()] == ["too_large"]
