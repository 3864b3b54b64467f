# SPDX-License-Identifier: MIT
"""The application holds rows: promptd waits for no lock on an interview, comes back to it for lock_patience_s, at no other
message's cost, and never makes an interview ready whose prompt is gone."""

import signal
import time

import pytest

from support.expect import expect_nothing_stored, expect_stored, stuck_line, unstuck_line
from support.wait import SLOW, wait_until

PROMPTS = "interview_enhanced_prompts"
LOCKS = ["for update", "for no key update"]


def burst(channel, interviews):
    messages = [channel.message(interview) for interview in interviews]
    channel.publish_burst(messages)
    return messages


@pytest.mark.parametrize("mode", LOCKS)
@pytest.mark.parametrize("count, locked", [(200, 1), (200, 4)])
def test_locked_rows_hold_up_no_other(start_promptd, atomicity, database, channel, mode, count, locked):
    """Also when there are as many of them as connections."""
    promptd = start_promptd(atomicity=atomicity, db_connections=4)
    interviews = database.interviews(count)
    held, free = interviews[::count // locked], [each for n, each in enumerate(interviews) if n % (count // locked)]
    with database.rows_locked(*held, mode=mode):
        began = time.monotonic()
        messages = burst(channel, interviews)
        promptd.wait_counters(success=count - locked, waiting=locked, timeout=5)
        assert time.monotonic() - began < 5 * SLOW
        expect_stored(database, *(message for message in messages if message.interview in free))
        assert all(event != "Lock" for _, _, event, _ in database.sessions())
        one = channel.publish(database.interview())  # and what comes later has a free connection, too
        promptd.wait_counters(success=count - locked + 1, waiting=locked, timeout=5)
        expect_stored(database, one)
    assert promptd.settle(count + 1, timeout=5).outcomes() == {"success": count + 1}
    expect_stored(database, *messages)
    assert promptd.find("ERROR|CRITICAL") == [] and promptd.counters()["retries"] == 0


@pytest.mark.parametrize("mode", LOCKS)
def test_lock_that_outlasts_the_patience(start_promptd, atomicity, database, channel, mode):
    """The step fails, so the prompt goes again; marking the interview fails at the same lock: it is stuck, and named."""
    promptd = start_promptd(atomicity=atomicity, lock_patience_s=1, reconcile_interval_s=1)
    interviews = database.interviews(50)
    held = interviews[7::20]
    with database.rows_locked(*held, mode=mode):
        messages = burst(channel, interviews)
        counters = promptd.settle(50)
        rolled_back = len(held) if mode == "for no key update" and atomicity == "compensate" else 0
        assert counters["success"] == 50 - len(held) and counters["failure"] == len(held)
        assert counters["rollback"] == rolled_back and counters["orphaned"] == 0
        for interview in held:
            assert "lock_patience_s" in promptd.one("ERROR", interview).fields["error"]
            promptd.one("CRITICAL", stuck_line(interview))
            expect_nothing_stored(database, interview, "enhancing")
    for interview in held:
        promptd.wait_line("INFO", unstuck_line(interview))
        expect_nothing_stored(database, interview, "failed")
    expect_stored(database, *(message for message in messages if message.interview not in held))


def test_patience_is_for_each_step(start_promptd, database, channel):
    """It begins anew when a step is done, and what is done is not undone for it."""
    promptd = start_promptd(atomicity="compensate", lock_patience_s=3)
    interview = database.interview()
    with database.rows_locked(interview):
        message = channel.publish(interview)
        promptd.wait_counters(received=1)
        time.sleep(2)
    with database.rows_locked(interview, mode="for no key update"):
        time.sleep(2)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_patience_can_be_changed_while_it_waits(start_promptd, database, channel, new_folder):
    folder = new_folder("config")
    config = f"{folder}/promptd.conf"
    with open(config, "w", encoding="ascii") as file:
        file.write("lock_patience_s = 600\n")
    promptd = start_promptd(config=config, reconcile_interval_s=1)
    interview = database.interview()
    with database.rows_locked(interview):
        channel.publish(interview)
        promptd.wait_counters(received=1, waiting=1)
        with open(config, "w", encoding="ascii") as file:
            file.write("lock_patience_s = 1\n")
        promptd.kill(signal.SIGHUP)
        assert promptd.settle(1).outcomes() == {"failure": 1}
        promptd.wait_line("CRITICAL", stuck_line(interview))
    promptd.wait_line("INFO", unstuck_line(interview))


def test_prompt_of_a_locked_orphan_is_left_for_later(start_promptd, database, channel):
    """Somebody holds the row of promptd_unsettled for longer than the patience: the undo is refused, and comes again."""
    promptd = start_promptd(atomicity="compensate", lock_patience_s=1, reconcile_interval_s=1)
    interview = database.interview()
    with database.rows_locked(interview, mode="for no key update") as application:
        message = channel.publish(interview)
        wait_until(database.unsettled, "the insert")
        application.execute("select from promptd_unsettled for update")
        assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}
        promptd.one("CRITICAL", "ORPHANED", message.id)
    promptd.wait_line("INFO", "RESOLVED", message.id)
    wait_until(lambda: database.status(interview) == "failed", "the interview to be marked")
    expect_nothing_stored(database, interview, "failed")


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("mode", LOCKS)
def test_row_is_held_while_promptd_is_killed(start_promptd, atomicity, database, channel, spool, count, mode):
    promptd = start_promptd(atomicity=atomicity, spool_dir=spool.folder)
    interviews = database.interviews(count)
    with database.rows_locked(*interviews, mode=mode):
        messages = burst(channel, interviews)
        promptd.wait_line("DEBUG", "message is on disk", count=count)
        if mode == "for no key update" and atomicity == "compensate":
            wait_until(lambda: database.prompt_count() == count, "the inserts")
        promptd.crash()
        wait_until(lambda: database.sessions() == [], "nothing of it to go on", seen=database.sessions)
        promptd = start_promptd(atomicity=atomicity, spool_dir=spool.folder)
        promptd.wait_counters(received=count, waiting=count)
        assert database.ready_without_prompt() == 0
    assert promptd.settle(count).outcomes() == {"success": count}
    expect_stored(database, *messages)
    assert promptd.find("ERROR|CRITICAL") == []


@pytest.mark.parametrize("mode", LOCKS)
def test_row_is_held_until_patience_ends(start_promptd, atomicity, database, channel, spool, mode):
    """Over a restart, too: the prompt goes, and when the row is free nobody is left who would make it ready."""
    settings = {"atomicity": atomicity, "spool_dir": spool.folder, "lock_patience_s": 1, "reconcile_interval_s": 1,
                "recover_after_s": 1}
    promptd = start_promptd(**settings)
    interview = database.interview()
    with database.rows_locked(interview, mode=mode):
        channel.publish(interview)
        promptd.wait_line("DEBUG", "message is on disk")
        promptd.crash()
        promptd = start_promptd(**settings)
        counters = promptd.settle(1)
        assert counters["failure"] == 1 and counters["orphaned"] == 0
        line = promptd.one("ERROR", interview)
        assert "lock_patience_s" in line.fields["error"]
        promptd.wait_line("CRITICAL", stuck_line(interview))
    promptd.wait_line("INFO", unstuck_line(interview))
    expect_nothing_stored(database, interview, "failed")


@pytest.mark.parametrize("hold", ["for update", "update"])
def test_rows_are_held_longer_than_a_statement_may_take(start_promptd, atomicity, database, channel, hold):
    """By two promptds: at no moment is an interview ready without its prompt."""
    promptds = [start_promptd(atomicity=atomicity, statement_timeout_ms=1000) for _ in range(2)]
    interviews = database.interviews(20)
    with database.rows_locked(*interviews, mode="for no key update" if hold == "update" else hold) as application:
        if hold == "update":
            application.execute("update interviews set status = 'processing'")
        messages = burst(channel, interviews)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert database.ready_without_prompt() == 0
            time.sleep(0.05)
    while any(promptd.counters()["waiting"] for promptd in promptds):
        assert database.ready_without_prompt() == 0
    counters = [promptd.settle(20) for promptd in promptds]
    expect_stored(database, *messages)
    assert sum(each["success"] for each in counters) == 20 == sum(each["duplicate"] for each in counters)
    for promptd in promptds:
        assert promptd.find("ERROR|CRITICAL") == []


def test_interview_goes_on_while_its_row_is_held(start_promptd, atomicity, database, channel):
    """The application was faster: the prompt is late."""
    promptd = start_promptd(atomicity=atomicity)
    interview = database.interview()
    with database.rows_locked(interview, mode="for no key update") as application:
        application.execute("update interviews set status = 'timeout'")
        channel.publish(interview)
        promptd.wait_counters(received=1, waiting=1)
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, interview, "timeout")


def test_interview_is_deleted_while_its_row_is_held(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity)
    interview = database.interview()
    with database.rows_locked(interview) as application:
        channel.publish(interview)
        promptd.wait_counters(received=1, waiting=1)
        application.execute("delete from interviews")
    counters = promptd.settle(1)
    assert counters["failure"] == 1 and counters["orphaned"] == 0
    assert "no such interview" in promptd.one("ERROR", interview).fields["error"]
    assert database.prompt_count() == 0 and database.unsettled() == []
