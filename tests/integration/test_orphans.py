# SPDX-License-Identifier: MIT
"""What could not be put right: orphans, which step 3 has left behind, and interviews that could not be marked failed. Each is
reported once a process, tried again for as long as it is there, and said to be over when it is."""

import time

import pytest

from support.expect import (detected_line, expect_kept, expect_nothing_stored, expect_stored, resolved_line, stuck_line,
                            unstuck_line)
from support.postgres import ROLE
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"


@pytest.fixture
def left(database, channel):
    """left(status): a message whose prompt was left unsettled an hour ago, and its interview."""
    def make(status="enhancing"):
        message = channel.message(database.interview(status))
        database.leave_unsettled(message)
        return message

    return make


@pytest.fixture
def refused(database):
    """An update that fails and a delete that is not allowed."""
    database.raise_on("interviews", "update", "not ready", when=TO_READY)
    database.execute(f"revoke delete on {PROMPTS} from {ROLE}")


@pytest.fixture
def orphan(start_promptd, refused, database, channel):
    def make(**settings):
        promptd = start_promptd(**{"atomicity": "compensate", "reconcile_interval_s": 1, "recover_after_s": 1, **settings})
        message = channel.publish(database.interview())
        promptd.wait_line("CRITICAL", detected_line(message))
        assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}
        return promptd, message

    return make


def test_orphan_over_restarts(orphan, start_promptd, database, new_folder):
    """Once a process it is said, by each that finds it; and by the last that it is over."""
    spool = new_folder("spool")
    first, message = orphan(spool_dir=spool)
    first.wait_counters(orphans_open=1, unsettled_prompts=1)
    time.sleep(2.5)
    first.one("CRITICAL", "ORPHANED")
    first.stop()
    second = start_promptd(reconcile_interval_s=1, recover_after_s=1, spool_dir=spool)
    second.wait_line("CRITICAL", detected_line(message))
    second.wait_counters(orphans_open=1, unsettled_prompts=1)
    time.sleep(2.5)
    second.one("CRITICAL", "ORPHANED")
    assert second.counters().outcomes() == {} and database.unsettled() == [(message.id, message.interview)]
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    second.wait_line("INFO", resolved_line(message), timeout=4)
    second.wait_counters(orphans_open=0, unsettled_prompts=0)
    expect_nothing_stored(database, message.interview, "failed")
    assert second.counters()["recovered_rolled_back"] == 1
    second.one("INFO", "RESOLVED")


def test_orphan_is_tried_again_before_it_is_old(orphan, database):
    """By the one that reported it; for others it is not old enough."""
    promptd, message = orphan(recover_after_s=3600)
    time.sleep(1.5)
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    promptd.wait_counters(orphans_open=0, unsettled_prompts=0)
    expect_nothing_stored(database, message.interview, "failed")


def test_orphan_is_tried_again_at_a_reconnection(orphan, database):
    promptd, message = orphan(reconcile_interval_s=3600, db_connections=1)
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    database.terminate_sessions()
    promptd.wait_line("INFO", resolved_line(message))
    expect_nothing_stored(database, message.interview, "failed")


@pytest.mark.parametrize("how", ["prompt and row", "prompt", "settled by hand", "promptctl"])
def test_orphan_that_someone_else_ends(orphan, database, promptctl, how):
    promptd, message = orphan()
    if how == "prompt and row":
        database.execute(f"begin; delete from {PROMPTS}; delete from promptd_unsettled; commit")
    elif how == "prompt":
        database.execute(f"delete from {PROMPTS}")
        database.execute(f"grant delete on {PROMPTS} to {ROLE}")  # its row is still promptd's to take away
    elif how == "settled by hand":
        database.drop_faults()
        database.execute("begin; delete from promptd_unsettled; update interviews set status = 'ready'; commit")
    else:
        result = promptctl("orphans", "--older-than", "0", "--delete", "--yes", database_url=database.url(user="postgres"))
        assert result.code == 0, result
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    promptd.wait_counters(orphans_open=0, unsettled_prompts=0)
    if how == "settled by hand":
        expect_stored(database, message)
    else:
        wait_until(lambda: database.unsettled() == [], "the evidence to go")
        expect_nothing_stored(database, message.interview, "failed")


def test_orphan_whose_interview_can_be_made_ready(orphan, database):
    """It was marked failed, and does not become ready behind anyone's back; someone has it wait again."""
    promptd, message = orphan()
    database.drop_faults()
    time.sleep(1.5)
    assert database.status(message.interview) == "failed" and database.unsettled() == [(message.id, message.interview)]
    database.execute("update interviews set status = 'enhancing'")
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    expect_stored(database, message)
    promptd.wait_counters(orphans_open=0, unsettled_prompts=0)


def test_orphan_whose_message_comes_again(orphan, database, channel):
    promptd, message = orphan()
    database.drop_faults()
    channel.publish_message(message)
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1, "orphaned": 1}
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    expect_stored(database, message)
    promptd.wait_counters(orphans_open=0, unsettled_prompts=0)


def test_orphan_whose_message_comes_again_is_ready_whatever_became_allowed(orphan, database, channel):
    """Neither memory nor the log decides over a deletion."""
    promptd, message = orphan()
    database.drop_faults()
    channel.publish_message(message)
    promptd.settle(2)
    database.execute("update interviews set status = 'in_progress'")
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    time.sleep(1.5)
    expect_kept(database, message, status="in_progress")


def test_orphan_that_the_recovery_meets_first(start_promptd, refused, database, left):
    """Left by a promptd that was killed: the first word on it is the recovery's."""
    message = left()
    promptd = start_promptd(reconcile_interval_s=1)
    promptd.wait_line("CRITICAL", detected_line(message))
    wait_until(lambda: database.status(message.interview) == "failed", "the interview to be marked")
    promptd.wait_counters(orphans_open=1, unsettled_prompts=1)
    assert promptd.counters().outcomes() == {}
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    promptd.one("CRITICAL", "ORPHANED")
    expect_nothing_stored(database, message.interview, "failed")


def test_orphan_whose_delete_is_swallowed(start_promptd, database, channel):
    """A trigger that keeps the row without a word is a refusal, too."""
    database.trigger(PROMPTS, "delete", "return null;")
    promptd = start_promptd(atomicity="compensate", reconcile_interval_s=1)
    message = channel.publish(database.interview("timeout"))
    assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}
    promptd.one("CRITICAL", detected_line(message))
    assert database.unsettled() == [(message.id, message.interview)] and len(database.prompts(message.interview)) == 1
    database.drop_faults()
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    expect_nothing_stored(database, message.interview, "timeout")


def test_many_orphans(start_promptd, refused, database, left):
    """Each has its line, however many there are, and each is resolved."""
    messages = [left("timeout") for _ in range(400)]  # more than a page
    promptd = start_promptd(reconcile_interval_s=1, db_connections=1)
    promptd.wait_line("CRITICAL", "ORPHANED", count=400, timeout=60)
    promptd.wait_counters(orphans_open=400, unsettled_prompts=400)
    time.sleep(2)
    assert promptd.find("INFO", "RESOLVED") == []
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", "RESOLVED", count=400, timeout=60)
    for level, of in (("CRITICAL", detected_line), ("INFO", resolved_line)):
        said = sorted(line.text.split(" Manual")[0] for line in promptd.find(level, "ORPHANED"))
        assert said == sorted(of(message) for message in messages)
    promptd.wait_counters(orphans_open=0, unsettled_prompts=0)
    assert database.prompt_count() == 0


def test_messages_are_stored_beside_orphans_that_are_tried_again(start_promptd, database, channel, left):
    """They keep the only session busy for longer than from one round to the next."""
    for _ in range(8):
        left("timeout")
    database.trigger(PROMPTS, "delete", "perform pg_sleep(0.2); raise exception 'never forget';")
    before = channel.server.listeners()
    promptd = start_promptd(ready=False, reconcile_interval_s=1, db_connections=1)  # its session is hardly ever idle
    promptd.wait_line("CRITICAL", "ORPHANED", count=8)
    wait_until(lambda: channel.server.listeners() - before, "promptd to be subscribed", 15)
    for count in range(1, 6):
        message = channel.publish(database.interview())
        promptd.settle(count, timeout=5)
        expect_stored(database, message)
        time.sleep(0.3)


# Interviews that could not be marked


@pytest.fixture
def stuck(start_promptd, database, channel):
    """A prompt that could not be stored, and an interview that could not be marked."""
    def make(count=1, **settings):
        promptd = start_promptd(**{"reconcile_interval_s": 1, **settings})
        database.raise_on(PROMPTS, "insert")
        database.raise_on("interviews", "update", "hands off", when="new.status = 'failed'")
        messages = [channel.message(interview) for interview in database.interviews(count)]
        channel.publish_burst(messages)
        assert promptd.settle(count).outcomes() == {"failure": count}
        said = sorted(line.text.split(" sqlstate")[0] for line in promptd.find("CRITICAL", "STUCK"))
        assert said == sorted(stuck_line(message.interview) for message in messages)
        return promptd, messages

    return make


def test_stuck_until_it_can_be_marked(stuck, atomicity, database):
    promptd, messages = stuck(count=3, atomicity=atomicity)
    time.sleep(2.5)  # two rounds that fail, and say nothing new
    assert len(promptd.find("CRITICAL", "STUCK")) == 3 and promptd.find("INFO", "NO LONGER STUCK") == []
    database.drop_faults()
    for message in messages:
        promptd.wait_line("INFO", unstuck_line(message.interview), timeout=4)
        expect_nothing_stored(database, message.interview, "failed")
    time.sleep(1.5)
    assert len(promptd.find("INFO", "NO LONGER STUCK")) == 3
    assert promptd.counters().outcomes() == {"failure": 3}


def test_many_are_stuck(stuck, database):
    """More than are tried at once. All have their turn."""
    promptd, messages = stuck(count=600)
    database.drop_faults()
    promptd.wait_line("INFO", "NO LONGER STUCK", count=600, timeout=30)
    assert database.statuses() == {"failed": 600} and len(promptd.find("INFO", "NO LONGER STUCK")) == 600


@pytest.mark.parametrize("status", ["timeout", "ready", None])
def test_stuck_until_it_was_moved_on(stuck, database, status):
    promptd, (message,) = stuck()
    if status:
        database.execute("update interviews set status = %s", [status])
    else:
        database.execute("delete from interviews")
    promptd.wait_line("INFO", unstuck_line(message.interview), timeout=4)
    assert database.statuses() == ({status: 1} if status else {})


def test_stuck_and_tried_again_at_a_reconnection(stuck, database):
    promptd, (message,) = stuck(reconcile_interval_s=3600, db_connections=1)
    database.drop_faults()
    database.terminate_sessions()
    promptd.wait_line("INFO", unstuck_line(message.interview))
    expect_nothing_stored(database, message.interview, "failed")


def test_stuck_and_its_message_comes_again(stuck, database, channel):
    promptd, (message,) = stuck(reconcile_interval_s=2)
    database.drop_faults()
    channel.publish_message(message)
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1}
    promptd.wait_line("INFO", unstuck_line(message.interview))
    expect_stored(database, message)
