# SPDX-License-Identifier: MIT
"""Dials and cancels block, and have threads: few of them, whatever the number of connections, in turn."""

import os

import pytest

from support.expect import expect_stored

MOST = 20  # with the loop's and the spool's; the packaged unit has TasksMax=64


def burst(channel, database, count):
    messages = [channel.message(interview) for interview in database.interviews(count)]
    channel.publish_burst(messages)
    return messages


def threads(promptd):
    return len(os.listdir(f"/proc/{promptd.process.pid}/task"))


@pytest.mark.parametrize("connections", [1, 30, 64])
def test_any_number_of_connections(start_promptd, database, channel, new_folder, connections):
    promptd = start_promptd(db_connections=connections, batch_max=1, spool_dir=new_folder("spool"))
    messages = burst(channel, database, 300)
    assert promptd.settle(300).outcomes() == {"success": 300}
    expect_stored(database, *messages)
    assert promptd.counters()["db_connections"] == connections
    assert threads(promptd) <= MOST


def test_many_cancels_go_in_turn(start_promptd, database, channel):
    promptd = start_promptd(db_connections=40, batch_max=1, statement_timeout_ms=500, retry_attempts=100)
    with database.locked():
        messages = burst(channel, database, 40)
        database.wait_blocked(40)
        promptd.wait_line("DEBUG", "cancelling a statement", count=40)
        promptd.wait_line("DEBUG", "transient failure", count=40)
    assert promptd.settle(40).outcomes() == {"success": 40}
    expect_stored(database, *messages)
    assert promptd.find("DEBUG", "nor to the cancel request") == []
    assert threads(promptd) <= MOST


def test_cancels_that_hang_hold_up_no_dial(start_promptd, database, channel, database_proxy):
    """More of them than there are threads, for longer than everything else takes."""
    promptd = start_promptd(db_connections=40, batch_max=1, statement_timeout_ms=500,
                            database_url=database.url(database_proxy.port))
    with database.locked():
        messages = burst(channel, database, 40)
        database.wait_blocked(40)
        database_proxy.swallow()
        promptd.wait_line("DEBUG", "nor to the cancel request", count=40)
        promptd.wait_line("ERROR", "database lost")
        database.terminate_sessions()  # what runs on would settle the messages by itself
    database_proxy.restore()
    promptd.wait_line("INFO", "database back", timeout=20)
    assert promptd.settle(40).outcomes() == {"success": 40}
    expect_stored(database, *messages)


# Where threads cannot be made. Stacks of a gigabyte, in so many gigabytes of addresses.
FEW = 'ulimit -S -s 1048576 && ulimit -v {} && exec "$@"'


@pytest.fixture
def addresses():
    if any(name in os.environ for name in ("ASAN_OPTIONS", "TSAN_OPTIONS")) or os.environ.get("PROMPTD_TEST_SLOW", "1") != "1":
        pytest.skip("needs a build without sanitizers, which reserve addresses of their own")


def test_fewer_threads_than_wanted(start_promptd, addresses, database, channel, new_folder):
    promptd = start_promptd(db_connections=30, spool_dir=new_folder("spool"), shell=FEW.format(6 << 20))
    line = promptd.wait_line("WARNING", "not all threads can be made")
    assert 2 <= int(line.fields["threads"]) < int(line.fields["wanted"])
    messages = burst(channel, database, 300)
    assert promptd.settle(300).outcomes() == {"success": 300}
    expect_stored(database, *messages)


def test_no_threads(start_promptd, addresses, new_folder):
    promptd = start_promptd(ready=False, shell=FEW.format(1 << 20))
    assert promptd.wait_exit() == 70
    assert "no threads can be made" in promptd.one("CRITICAL", "promptd cannot start").fields["error"]
