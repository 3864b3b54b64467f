# SPDX-License-Identifier: MIT
"""The spool's disk and file in bad shape: full, damaged, at its bound. promptd says so once, and goes on."""

import contextlib
import os
import signal
import shutil
import sqlite3

import pytest

from support import admin
from support.expect import expect_stored
from support.redis_server import frame
from support.spool import fill_disk
from support.wait import wait_until

FULL = "would not survive a crash"
OVER = "spool can be written again"


def burst(channel, database, count, text="", versions=1):
    interviews = database.interviews(count)
    messages = [channel.message(interview, f"Version {version}. {text}")
                for version in range(versions) for interview in interviews]
    channel.publish_burst(messages)
    return messages


def wait_put(promptd, received):
    """Until the disk has answered for each of them, for until then some that wait may yet be dropped."""
    wait_until(lambda: len(promptd.find("DEBUG", "message is", "disk")) == received, "the disk's answers", 30)
    return promptd.wait_counters(received=received)


# Full


@pytest.fixture
def on_small_disk(start_spooled, small_disk):
    folder = os.path.join(small_disk, "spool")
    return lambda **settings: start_spooled(spool_dir=folder, **settings)


def test_disk_is_full(on_small_disk, atomicity, database, channel, small_disk):
    promptd = on_small_disk(atomicity=atomicity)
    filler = fill_disk(small_disk)
    messages = burst(channel, database, 200, "f" * 2000)
    promptd.wait_line("CRITICAL", FULL)
    messages += burst(channel, database, 200, "f" * 2000)
    assert promptd.settle(400, timeout=30).outcomes() == {"success": 400}
    expect_stored(database, *messages[::10])
    os.remove(filler)
    promptd.wait_line("WARNING|INFO", OVER, timeout=15)
    messages = burst(channel, database, 50)
    promptd.settle(450)
    expect_stored(database, *messages)
    promptd.one("CRITICAL", FULL)
    promptd.wait_counters(spool_messages=0)


def test_disk_is_full_and_the_database_away(on_small_disk, database, channel, database_proxy, small_disk):
    """Memory takes the rest, within its bounds; behind what is on disk already."""
    database.execute("create table arrivals (number bigserial, prompt_id uuid)")
    database.trigger("interview_enhanced_prompts", "insert", "insert into arrivals (prompt_id) values (new.id);",
                     timing="after")
    promptd = on_small_disk(queue_max_messages=1000)
    filler = fill_disk(small_disk)
    os.truncate(filler, os.path.getsize(filler) // 2)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = burst(channel, database, 20, "d" * 2000, versions=40)  # more than the disk holds
    promptd.wait_line("CRITICAL", FULL)
    counters = promptd.wait_counters(received=800)
    assert counters["waiting"] == 800 and counters["queue_messages"] > 0 and counters["spool_messages"] > 0
    assert counters["dropped"] == 0
    database_proxy.restore()
    assert promptd.settle(800, timeout=30).outcomes() == {"success": 800}
    order = {str(id): number for number, id in database.rows("select number, prompt_id from arrivals")}
    for interview in {message.interview for message in messages}:
        numbers = [order[message.id] for message in messages if message.interview == interview]
        assert numbers == sorted(numbers)
    os.remove(filler)
    promptd.wait_line("WARNING|INFO", OVER, timeout=15)
    promptd.wait_counters(spool_messages=0)



def test_disk_is_full_and_memory_too(on_small_disk, database, channel, database_proxy, small_disk):
    promptd = on_small_disk(queue_max_messages=100)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    fill_disk(small_disk)
    messages = burst(channel, database, 300, "m" * 2000)
    counters = wait_put(promptd, 300)
    assert counters["dropped"] == 300 - counters["waiting"] and counters["waiting"] >= 100
    assert counters["queue_messages"] <= 100
    dropped = [message for message in messages if promptd.find("ERROR", "dropped", message.interview)]
    assert dropped == messages[-counters["dropped"]:]  # the newest
    database_proxy.restore()
    kept = counters["waiting"]
    assert promptd.settle(300, timeout=30).outcomes() == {"success": kept, "dropped": 300 - kept}


# Removed


def remove_folder(spool):
    shutil.rmtree(spool.folder)


def replace_folder(spool):
    os.rename(spool.folder, spool.folder + ".moved")
    os.mkdir(spool.folder, 0o700)


def remove_file(spool):
    os.remove(spool.path)


@pytest.mark.parametrize("go", [remove_folder, replace_folder, remove_file])
def test_spool_is_removed(start_spooled, spool, database, channel, database_proxy, go):
    """What was on disk only is still there for the running promptd, new messages are in memory; nothing is lost."""
    promptd = start_spooled()
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    waiting = burst(channel, database, 50)
    promptd.wait_counters(received=50, spool_messages=50)
    go(spool)
    line = promptd.wait_line("CRITICAL", FULL)  # without a message
    assert "removed" in line.fields["error"]
    assert admin.of(promptd).json("/status")["spool"]["writable"] is False
    messages = burst(channel, database, 50)
    promptd.wait_counters(received=100, waiting=100)
    database_proxy.restore()
    assert promptd.settle(100).outcomes() == {"success": 100}
    expect_stored(database, *waiting, *messages)
    promptd.one("CRITICAL", FULL)


def test_spool_that_is_moved_back_is_used_again(start_spooled, spool, database, channel):
    promptd = start_spooled()
    os.rename(spool.folder, spool.folder + ".moved")
    first = burst(channel, database, 20)
    promptd.wait_line("CRITICAL", FULL)
    promptd.settle(20)
    os.rename(spool.folder + ".moved", spool.folder)
    promptd.wait_line("WARNING", OVER, timeout=15)
    second = burst(channel, database, 20)
    promptd.settle(40)
    expect_stored(database, *first, *second)
    promptd.wait_counters(spool_messages=0)
    assert admin.of(promptd).json("/status")["spool"]["writable"] is True


def test_what_waits_in_a_removed_spool_is_named_at_the_end(start_spooled, spool, database, channel, database_proxy):
    promptd = start_spooled(shutdown_timeout_s=1)
    with database.locked():
        in_work = burst(channel, database, 20)
        promptd.wait_counters(received=20, spool_messages=20)
        database.wait_blocked()
        remove_folder(spool)
        promptd.wait_line("CRITICAL", FULL)
        promptd.stop()
    assert promptd.find("INFO", "stays in the spool") == []
    for message in in_work:
        assert promptd.find("WARNING|ERROR", message.interview), "a message that is lost, and not named"


def test_messages_that_are_lost_with_the_spool_are_counted(start_spooled, spool, database, channel, database_proxy):
    promptd = start_spooled(shutdown_timeout_s=1, queue_max_messages=10)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = burst(channel, database, 50)
    promptd.wait_counters(received=50, spool_messages=50)
    remove_folder(spool)
    promptd.wait_line("CRITICAL", FULL)
    promptd.stop()
    named = [message for message in messages if promptd.find("ERROR", "dropped", message.interview)]
    assert int(promptd.one("CRITICAL", "the spool is gone").fields["messages"]) == 50 - len(named) > 0
    assert promptd.find("ERROR", "taken up again") == []


def test_removing_the_lock_lets_no_other_promptd_in(start_spooled, start_promptd, spool, database, channel):
    promptd = start_spooled()
    os.remove(os.path.join(spool.folder, "spool.lock"))
    wait_until(lambda: os.path.exists(os.path.join(spool.folder, "spool.lock")), "the lock to be made again")
    second = start_promptd(ready=False, spool_dir=spool.folder)
    assert second.wait_exit() == 73
    assert "in use by another promptd" in second.one("CRITICAL", "cannot start").raw
    message, = burst(channel, database, 1)
    promptd.settle(1)
    expect_stored(database, message)
    assert promptd.find("CRITICAL") == []


# At its bound


@pytest.mark.parametrize("size, bound", [(40000, 1048576), (2000, 65536)])
def test_spool_max_bytes(start_spooled, atomicity, database, channel, database_proxy, size, bound):
    promptd = start_spooled(atomicity=atomicity, spool_max_bytes=bound)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = burst(channel, database, 60, "z" * size)
    counters = wait_put(promptd, 60)
    kept = counters["waiting"]
    assert kept == bound // len(messages[0].framed()) and counters["dropped"] == 60 - kept
    assert counters["spool_messages"] == kept and counters["spool_bytes"] <= bound
    for message in messages[kept:]:
        assert "spool_max_bytes" in promptd.one("ERROR", "dropped", message.interview).raw
    database_proxy.restore()
    assert promptd.settle(60).outcomes() == {"success": kept, "dropped": 60 - kept}
    expect_stored(database, *messages[:kept])
    fresh = burst(channel, database, 20, "z" * size)
    promptd.settle(80)
    expect_stored(database, *fresh)  # there is room again


def test_spool_dead_max_bytes(start_spooled, database, channel, spool):
    """Rejected garbage takes no room from messages: it drops itself, the oldest first. Other letters stay."""
    promptd = start_spooled(spool_max_bytes=1048576, spool_dead_max_bytes=1048576)
    database.raise_on("interview_enhanced_prompts", "insert", "no", when="new.prompt ~ 'REFUSED'")
    channel.publish(database.interview(), "REFUSED")
    promptd.wait_counters(dead_letters=1)
    kept = spool.dead_numbers()
    for part in range(1, 7):
        channel.publish_burst([b"garbage" * 6000] * 10)
        counters = promptd.wait_counters(rejected=10 * part, spool_messages=0, waiting=0)
    assert counters["dropped"] == 0 and 20 <= counters["dead_letters"] <= 25
    assert counters["dead_letter_bytes"] <= 1048576
    assert spool.dead_numbers()[0] == kept[0] and spool.dead_numbers()[-1] == kept[0] + 60  # the newest are there
    promptd.one("WARNING", "dead letters are full", "spool_dead_max_bytes")
    good = burst(channel, database, 20, "g" * 40000)
    assert promptd.settle(81).outcomes() == {"success": 20, "rejected": 60, "failure": 1}
    expect_stored(database, *good)


def test_letters_of_what_was_not_read_stay_within_their_bound(start_spooled, channel, spool):
    """Also of thousands that go to disk at once."""
    promptd = start_spooled(message_max_bytes=4096, spool_max_bytes=65536, spool_dead_max_bytes=65536)
    with contextlib.closing(sqlite3.connect(spool.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        channel.publish_burst([frame(b"x" * 5000)] * 4000)
        promptd.wait_counters(rejected=4000)
    counters = promptd.wait_counters(dead_letters=256, spool_messages=0)
    assert counters["dead_letter_bytes"] == 65536 and counters["dead_letters_dropped"] == 4000 - 256


def test_letters_of_what_was_not_read_are_bounded_while_they_wait_for_the_disk(start_spooled, channel, spool):
    """A burst is kept whole; what must not be kept has a line, and the counter of the alert."""
    promptd = start_spooled(message_max_bytes=1024, spool_dead_max_bytes=10 << 20)
    with contextlib.closing(sqlite3.connect(spool.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        channel.publish_burst([frame(b"x" * 1100)] * 30000)
        promptd.wait_counters(rejected=30000, dead_letters_not_kept=0, timeout=30)
        channel.publish_burst([frame(b"x" * 1100)] * 40000)
        promptd.wait_counters(rejected=70000, dead_letters_not_kept=70000 - 65536, timeout=30)
    promptd.one("ERROR", "the disk does not keep up", "leave no dead letter")
    promptd.wait_counters(dead_letters=40960, dead_letters_dropped=65536 - 40960, timeout=30)


def test_dead_letters_that_must_stay_fill_their_bound(start_promptd, database, channel, spool, tmp_path, promptctl):
    """A new letter without room has its line and a counter; messages do not suffer, and a reload makes room."""
    config = tmp_path / "promptd.conf"
    config.write_text("spool_dead_max_bytes = 1048576\n")
    promptd = start_promptd(config=str(config), spool_dir=spool.folder, spool_max_bytes=1048576)
    database.raise_on("interview_enhanced_prompts", "insert", "no", when="new.prompt ~ 'REFUSED'")
    refused = burst(channel, database, 15, "REFUSED" * 5700)
    promptd.wait_counters(failure=15, waiting=0, spool_messages=0)
    refused += burst(channel, database, 15, "REFUSED" * 5700)
    counters = promptd.wait_counters(failure=30, waiting=0, spool_messages=0)
    size = len(refused[0].framed()) + 256
    kept = 1048576 // size
    assert spool.payloads() == kept and counters["dropped"] == 0
    assert (counters["dead_letters"], counters["dead_letters_not_kept"]) == (kept, 30 - kept)
    lost = [message for message in refused
            if promptd.find("ERROR", "a message is not kept", f"interview_id={message.interview}", "outcome=\"not stored\"")]
    assert len(lost) == 30 - kept
    assert all(promptd.find("ERROR", "not stored", message.interview) for message in refused)

    channel.publish_burst([b"garbage" * 6000] * 10)  # makes room for nobody, and finds none
    counters = promptd.wait_counters(rejected=10, waiting=0, dead_letters_dropped=10)
    assert counters["dead_letters"] == kept == spool.payloads() and counters["dead_letters_not_kept"] == 30 - kept
    promptd.one("WARNING", "dead letters are full", "spool_dead_max_bytes")
    good = burst(channel, database, 20, "g" * 40000)
    promptd.wait_counters(success=20, waiting=0, dropped=0)
    expect_stored(database, *good)

    metrics = admin.of(promptd).metrics()
    assert metrics["promptd_dead_letters_max_bytes"] == 1048576
    assert metrics["promptd_dead_letter_bytes"] == kept * size
    assert metrics['promptd_dead_letters_dropped_total{which="new"}'] == 30 - kept
    assert metrics['promptd_dead_letters_dropped_total{which="oldest_rejected"}'] == 10
    assert f"{kept} dead letters (promptctl dead list), {kept * size} of 1048576 bytes" in \
        promptctl("status", admin_listen=promptd.admin_url.removeprefix("http://")).out

    config.write_text("spool_dead_max_bytes = 2097152\n")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    burst(channel, database, 5, "REFUSED" * 5700)
    promptd.wait_counters(failure=35, dead_letters=kept + 5, dead_letters_not_kept=30 - kept)


# Damaged


@pytest.fixture
def stopped_with_messages(start_spooled, database, channel, database_proxy):
    def make(count=300):
        promptd = start_spooled()
        database_proxy.refuse()
        promptd.wait_line("ERROR", "database lost")
        messages = burst(channel, database, count, "w" * 1000)
        promptd.wait_counters(received=count, spool_messages=count)
        promptd.stop()
        database_proxy.restore()
        return messages

    return make


def expect_goes_on(promptd, database, channel, spool, word):
    line = promptd.one("CRITICAL", "set aside", word)
    aside, = spool.set_aside()
    assert os.path.basename(aside) in line.text and spool.path in line.text
    received = promptd.wait_counters(waiting=0)["received"]
    fresh = burst(channel, database, 20)
    promptd.settle(received + 20)
    expect_stored(database, *fresh)


def test_file_that_is_no_spool(start_spooled, stopped_with_messages, database, channel, spool):
    stopped_with_messages()
    spool.spoil()
    promptd = start_spooled()
    expect_goes_on(promptd, database, channel, spool, "spool")
    assert promptd.counters()["received"] == 20


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_damaged_in_the_middle(start_spooled, stopped_with_messages, database, channel, spool, part):
    """Most of it can still be read, and is stored as ever."""
    messages = stopped_with_messages()
    size = os.path.getsize(spool.path)
    spool.spoil(int(size * part) // 4096 * 4096, 16384)
    promptd = start_spooled()
    wait_until(lambda: promptd.counters()["waiting"] == 0, "the rest to be stored")
    if spool.set_aside():  # a hole between the messages may hurt none
        expect_goes_on(promptd, database, channel, spool, "damaged")
    stored = {str(id) for id, in database.rows("select id from interview_enhanced_prompts")}
    assert sum(message.id in stored for message in messages) >= 300 - 3 * 16
    assert database.statuses().get("ready") == len(stored)


def test_half_of_the_file_is_missing(start_spooled, stopped_with_messages, database, channel, spool):
    messages = stopped_with_messages()
    spool.truncate(os.path.getsize(spool.path) // 2 // 4096 * 4096)
    promptd = start_spooled()
    expect_goes_on(promptd, database, channel, spool, "damaged")
    assert {str(id) for id, in database.rows("select id from interview_enhanced_prompts")} & {m.id for m in messages}


def test_damaged_while_it_is_used(start_spooled, database, channel, database_proxy, spool):
    """It is noticed with the next messages at the latest; those that come later are safe again."""
    promptd = start_spooled()
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    burst(channel, database, 500, "u" * 2000)
    promptd.wait_counters(received=500, spool_messages=500)
    spool.spoil(4096, os.path.getsize(spool.path) - 4096)
    fresh = burst(channel, database, 50)
    database_proxy.restore()
    promptd.wait_counters(waiting=0, timeout=30)
    later = burst(channel, database, 50)
    wait_until(lambda: promptd.counters()["waiting"] == 0, "the last messages")
    counters = promptd.counters()
    assert counters["received"] == 600 and counters["failure"] == 0
    expect_stored(database, *later)
    assert database.prompt_count() == counters["success"] >= 50
    del fresh
