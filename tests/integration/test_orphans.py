# SPDX-License-Identifier: MIT
"""Orphans: reported in time, never forgotten, resolved when that can be, and found when nobody was there to report."""

import time

import pytest

from support.expect import DETECTED, detected_line, expect_nothing_stored, expect_stored, resolved_line, stuck_line
from support.postgres import ROLE
from support.proxy import POSTGRES_READY
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
INSERT = rb"insert\s+into\s+\S*interview_enhanced_prompts"
UPDATE = rb"update\s+\S*interviews\b"

# An outage that used up an attempt would end in a failure at once.
ONE_TRY = {"retry_attempts": 1}

def burst(channel, database, count=20, status="enhancing"):
    messages = [channel.message(interview) for interview in database.interviews(count, status)]
    channel.publish_burst(messages)
    return messages


# The time to settle


@pytest.fixture
def unsettled(start_promptd, database, database_proxy, channel):
    """Inserted, and the database is away before the interview could be made ready."""
    def make(count=1, **settings):
        promptd = start_promptd(**{"atomicity": "compensate", "db_connections": 1, "settle_timeout_s": 2,
                                   "database_url": database.url(database_proxy.port), **ONE_TRY, **settings})
        messages = [channel.message(interview) for interview in database.interviews(count)]
        with database.interviews_locked():
            channel.publish_burst(messages)
            database.wait_blocked()
            database_proxy.refuse()
        assert database.prompt_count() >= 1
        return promptd, messages

    return make


def test_orphan_is_reported_after_the_settle_time_and_resolved_later(unsettled, database, database_proxy):
    promptd, (message,) = unsettled()
    time.sleep(1)
    assert promptd.find("CRITICAL") == []  # patience is not over
    line = promptd.wait_line("CRITICAL", detected_line(message), timeout=5)
    counters = promptd.counters()
    assert counters.outcomes() == {"failure": 1, "orphaned": 1} and counters["waiting"] == 0
    assert counters["orphans_open"] == 1 and "settle_timeout_s" in line.fields["error"]
    assert database.status(message.interview) == "enhancing"
    database_proxy.restore()
    promptd.wait_line("INFO", resolved_line(message))
    wait_until(lambda: database.status(message.interview) == "failed", "the interview to be marked")
    expect_nothing_stored(database, message.interview, "failed")
    promptd.one("CRITICAL", "ORPHANED")
    assert promptd.counters()["orphans_open"] == 0


def test_orphan_that_is_resolved_and_its_interview_stuck(unsettled, database, database_proxy):
    promptd, (message,) = unsettled()
    promptd.wait_line("CRITICAL", detected_line(message), timeout=5)
    database.raise_on("interviews", "update")
    database_proxy.restore()
    promptd.wait_line("INFO", resolved_line(message))
    promptd.wait_line("CRITICAL", stuck_line(message.interview))
    expect_nothing_stored(database, message.interview, "enhancing")


def test_database_back_within_the_settle_time(unsettled, database, database_proxy):
    promptd, messages = unsettled(count=20, settle_timeout_s=60)
    time.sleep(1)
    database_proxy.restore()
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == []


@pytest.mark.parametrize("arrived", [True, False])
def test_insert_in_doubt_is_reported_too(start_promptd, database, database_proxy, channel, arrived):
    """Nobody can know whether it was done: it is named, and settled when somebody can."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, settle_timeout_s=1,
                            database_url=database.url(database_proxy.port))
    if arrived:
        database_proxy.lose_reply(INSERT, reply_end=POSTGRES_READY, stay_away=True)
    else:
        database_proxy.cut_at(INSERT, stay_away=True)
    message = channel.publish(database.interview())
    promptd.wait_line("CRITICAL", detected_line(message), timeout=6)
    assert len(database.prompts(message.interview)) == arrived
    database_proxy.restore()
    promptd.wait_line("INFO", resolved_line(message))
    if arrived:  # and so did the update
        expect_stored(database, message)
    else:
        wait_until(lambda: database.status(message.interview) == "failed", "the interview to be marked")
        expect_nothing_stored(database, message.interview, "failed")
    assert promptd.counters().outcomes() == {"failure": 1, "orphaned": 1}


def test_many_orphans_of_one_outage(unsettled, database, database_proxy, channel):
    """What was inserted is reported, what was not goes on waiting, and is stored when the database is back."""
    promptd, messages = unsettled(count=30)
    inserted = {str(id) for id, in database.rows(f"select interview_id from {PROMPTS}")}
    orphans = [message for message in messages if message.interview in inserted]
    waiting = [message for message in messages if message.interview not in inserted]
    waiting += burst(channel, database, 10)  # came when the database was away already
    for message in orphans:
        promptd.wait_line("CRITICAL", detected_line(message), timeout=6)
    counters = promptd.counters()
    assert counters["orphaned"] == len(orphans) and counters["waiting"] == len(waiting)
    database_proxy.restore()
    counters = promptd.settle(40)
    assert counters["success"] == len(waiting) and counters["orphaned"] == len(orphans)
    expect_stored(database, *waiting)
    for message in orphans:
        promptd.wait_line("INFO", resolved_line(message))
    wait_until(lambda: database.statuses() == {"ready": len(waiting), "failed": len(orphans)}, "the statuses",
               seen=database.statuses)
    assert database.prompt_count() == len(waiting)


def test_orphan_that_came_again_meanwhile_is_not_deleted(unsettled, database, database_proxy, channel):
    """The message is published again while its orphan is open: it is ready in the end, and stays."""
    promptd, (message,) = unsettled()
    promptd.wait_line("CRITICAL", detected_line(message), timeout=5)
    database.execute("update interviews set status = 'ready' where id = %s", [message.interview])
    database_proxy.restore()
    promptd.wait_line("INFO", resolved_line(message))
    time.sleep(0.3)
    expect_stored(database, message)


def test_unsettled_in_a_transaction_leaves_no_orphan(start_promptd, database, database_proxy, channel):
    promptd = start_promptd(atomicity="transaction", db_connections=1, settle_timeout_s=1,
                            database_url=database.url(database_proxy.port), **ONE_TRY)
    database_proxy.lose_reply(UPDATE, reply_end=POSTGRES_READY, stay_away=True)
    messages = burst(channel, database, 5)
    wait_until(lambda: database_proxy.fired == 1, "the reply to be lost")
    time.sleep(3)
    database_proxy.restore()
    assert promptd.settle(5).outcomes() == {"success": 5}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == []


# Orphans whose delete was refused


@pytest.fixture
def refused_orphan(start_promptd, database, channel):
    """An update that fails and a delete that is not allowed."""
    def make(**settings):
        promptd = start_promptd(atomicity="compensate", reconcile_interval_s=1, **settings)
        database.raise_on("interviews", "update", "not ready", when="new.status = 'ready'")
        database.execute(f"revoke delete on {PROMPTS} from {ROLE}")
        message = channel.publish(database.interview())
        promptd.wait_line("CRITICAL", detected_line(message))
        promptd.settle(1)
        return promptd, message

    return make


def test_refused_delete_is_tried_again_until_it_is_allowed(refused_orphan, database):
    promptd, message = refused_orphan()
    time.sleep(2.5)  # two rounds that fail, and say nothing new
    promptd.one("CRITICAL", "ORPHANED")
    assert len(database.prompts(message.interview)) == 1 and promptd.counters()["orphans_open"] == 1
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", resolved_line(message), timeout=3)
    wait_until(lambda: promptd.counters()["orphans_open"] == 0, "the orphan to be closed")
    expect_nothing_stored(database, message.interview, "failed")
    assert promptd.counters().outcomes() == {"failure": 1, "orphaned": 1}
    promptd.one("INFO", "RESOLVED")


def test_orphan_is_tried_again_at_a_reconnection(start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", reconcile_interval_s=3600)
    database.raise_on("interviews", "update", "not ready", when="new.status = 'ready'")
    database.execute(f"revoke delete on {PROMPTS} from {ROLE}")
    message = channel.publish(database.interview())
    promptd.wait_line("CRITICAL", detected_line(message))
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    database.terminate_sessions()
    promptd.wait_line("INFO", resolved_line(message))
    expect_nothing_stored(database, message.interview, "failed")


def test_orphan_is_not_forgotten_over_a_restart(refused_orphan, start_promptd, database, new_folder):
    spool = new_folder("spool")
    first, message = refused_orphan(spool_dir=spool)
    first.stop()
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    second = start_promptd(spool_dir=spool, reconcile_interval_s=1)
    second.wait_line("INFO", resolved_line(message))
    expect_nothing_stored(database, message.interview, "failed")
    assert second.counters()["orphans_open"] == 0 and second.find("CRITICAL") == []
    second.stop()
    third = start_promptd(spool_dir=spool, reconcile_interval_s=1)
    third.wait_line("INFO", "database connected")
    assert third.counters()["orphans_open"] == 0 and third.counters()["dead_letters"] == 1


def test_orphan_that_someone_else_deleted_is_resolved(refused_orphan, database):
    promptd, message = refused_orphan()
    database.execute(f"delete from {PROMPTS}")
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", resolved_line(message), timeout=3)


def test_orphan_whose_message_came_again_is_resolved_and_stays(refused_orphan, database, channel):
    promptd, message = refused_orphan()
    database.drop_faults()
    channel.publish_message(message)
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1, "orphaned": 1}
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", resolved_line(message), timeout=4)
    time.sleep(1.5)
    expect_stored(database, message)


# Orphans that nobody reported

UUID4 = "3b2c8a52-6a8f-4d0e-9a55-8f0a7c1f2d33"


def backdate(database, message, age, id=None):
    database.execute(f"""insert into {PROMPTS} (id, interview_id, prompt, source, created_at)
                         values (%s, %s, %s, 'rag', now() - %s::interval)""",
                     [id or message.id, message.interview, message.prompt, age])


def test_reconciler_reports_what_nobody_did(start_promptd, database, channel):
    awaiting = [channel.message(database.interview(status)) for status in ("enhancing", "pending", "processing")]
    for message in awaiting:
        backdate(database, message, "1 hour")
    innocent = {status: channel.message(database.interview(status))
                for status in ("failed", "ready", "completed", "timeout", "cancelled")}
    for message in innocent.values():
        backdate(database, message, "1 hour")
    foreign, young, old = (channel.message(database.interview()) for _ in range(3))
    backdate(database, foreign, "1 hour", UUID4)
    backdate(database, young, "5 minutes")
    backdate(database, old, "2 days")
    before = database.rows(f"select * from {PROMPTS} order by id")

    promptd = start_promptd(reconcile_interval_s=1)
    for message in awaiting:
        promptd.wait_line("CRITICAL", detected_line(message), timeout=5)
    time.sleep(2.5)  # more rounds, with nothing new
    for message in awaiting:
        promptd.one("CRITICAL", detected_line(message))
    assert len(promptd.find("CRITICAL")) == len(awaiting)
    assert database.rows(f"select * from {PROMPTS} order by id") == before
    assert [database.status(message.interview) for message in awaiting] == ["enhancing", "pending", "processing"]
    counters = promptd.counters()
    assert counters["received"] == counters["orphaned"] == counters["failure"] == 0
    assert counters["orphans_found"] == len(awaiting)


def test_reconciler_reports_twenty_a_round(start_promptd, database, channel):
    messages = [channel.message(interview) for interview in database.interviews(50)]
    for message in messages:
        backdate(database, message, "20 minutes")
    promptd = start_promptd(reconcile_interval_s=2)
    promptd.wait_line("CRITICAL", "ORPHANED PROMPT DETECTED")
    time.sleep(0.5)
    assert len(promptd.find("CRITICAL")) == 20
    promptd.wait_line("CRITICAL", "ORPHANED PROMPT DETECTED", count=50, timeout=10)
    time.sleep(2.5)
    named = [line.text.split(" Manual")[0] for line in promptd.find("CRITICAL")]
    assert sorted(named) == sorted(detected_line(message) for message in messages)


def test_reconciler_gets_its_turn_among_orphans_that_are_tried_again(start_promptd, database, channel):
    """They keep the only session busy for longer than from one round to the next."""
    database.raise_on("interviews", "update", "hands off")
    database.trigger(PROMPTS, "delete", "perform pg_sleep(0.1); raise exception 'never forget';")
    promptd = start_promptd(atomicity="compensate", reconcile_interval_s=1, db_connections=1, sessions=1)
    channel.publish_burst([channel.message(interview) for interview in database.interviews(8)])
    promptd.wait_counters(orphaned=8)
    left = channel.message(database.interview())
    backdate(database, left, "1 hour")
    promptd.wait_line("CRITICAL", detected_line(left), timeout=5)


def test_reconciler_can_be_turned_off(start_promptd, database, channel):
    message = channel.message(database.interview())
    backdate(database, message, "1 hour")
    promptd = start_promptd(reconcile_interval_s=0)
    time.sleep(1.5)
    database.terminate_sessions()
    database.wait_sessions(1)
    time.sleep(0.5)
    assert promptd.find("CRITICAL") == []


def test_found_orphan_becomes_ready_when_its_message_comes_again(start_promptd, database, channel):
    """The way out for a person: publish it again."""
    message = channel.message(database.interview())
    backdate(database, message, "1 hour")
    promptd = start_promptd(reconcile_interval_s=1)
    promptd.wait_line("CRITICAL", DETECTED.format(interview=message.interview, prompt=message.id))
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
