# SPDX-License-Identifier: MIT
"""Locks, deadlocks and slow statements: tried again, at no other message's cost, and final when the tries are up."""

import contextlib

import pytest

from support.expect import expect_nothing_stored, expect_stored

PROMPTS = "interview_enhanced_prompts"


@contextlib.contextmanager
def row_locked(database, interview):
    with database.cluster.connect(database.name) as connection, connection.transaction():
        connection.execute("select from interviews where id = %s for update", [interview])
        yield


def test_lock_on_one_interview_holds_up_no_other(start_promptd, atomicity, database, channel):
    """Each of 100 messages but one is stored while a transaction of the application's sits on that one's row."""
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=500, retry_attempts=100, retry_base_ms=50)
    interviews = database.interviews(100)
    with row_locked(database, interviews[50]):
        messages = [channel.message(interview) for interview in interviews]
        channel.publish_burst(messages)
        promptd.wait_counters(success=99, waiting=1, timeout=30)
        expect_stored(database, *(message for message in messages if message.interview != interviews[50]))
        assert database.status(interviews[50]) == "enhancing"
    assert promptd.settle(100).outcomes() == {"success": 100}
    expect_stored(database, messages[50])


def test_lock_that_outlasts_all_tries(start_promptd, atomicity, database, channel):
    """Step 2 fails, so the prompt goes again; marking the interview fails at the same lock: it is stuck, and named."""
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=200, retry_attempts=2, retry_base_ms=50)
    interview = database.interview()
    with row_locked(database, interview):
        channel.publish(interview)
        counters = promptd.settle(1, timeout=30)
    assert counters["failure"] == 1 and counters["orphaned"] == 0
    assert promptd.one("CRITICAL", f"INTERVIEW STUCK: {interview}")
    assert promptd.find("ERROR", interview)
    expect_nothing_stored(database, interview, "enhancing")


def test_deadlock_with_the_application(start_promptd, atomicity, database, channel):
    """Whoever is chosen as the victim: promptd tries again, and both of its messages are stored."""
    database.execute("set deadlock_timeout = '2s'")  # promptd's session looks first
    promptd = start_promptd(atomicity=atomicity, db_connections=1, retry_attempts=3)
    first, second = sorted(database.interviews(2))
    with database.cluster.connect(database.name) as other:
        other.execute("set deadlock_timeout = '10s'")
        other.execute("begin")
        other.execute("select from interviews where id = %s for update", [second])
        messages = [channel.message(first), channel.message(second)]
        channel.publish_burst(messages)
        database.wait_blocked()
        other.execute("select from interviews where id = %s for update", [first])
        other.execute("commit")
    assert promptd.settle(2).outcomes() == {"success": 2}
    expect_stored(database, *messages)


def test_deadlock_victim_is_sent_again(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, retry_attempts=3)
    counter = database.raise_first(2, "interviews", "update", "40P01")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert database.tries(counter) >= 3 and promptd.counters()["retries"] == 2


@pytest.mark.parametrize("table", [PROMPTS, "interviews"])
def test_statement_that_takes_too_long_is_tried_again(start_promptd, atomicity, database, channel, table):
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=300, retry_attempts=3)
    event = "insert" if table == PROMPTS else "update"
    counter = f"slow_{event}"
    database.execute(f"create sequence {counter}")
    database.trigger(table, event, f"if nextval('{counter}') <= 2 then perform pg_sleep(20); end if;")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert database.tries(counter) == 3


def test_statement_that_always_takes_too_long_fails(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=200, retry_attempts=3)
    database.trigger(PROMPTS, "insert", "perform pg_sleep(20);")
    interview = database.interview()
    channel.publish(interview)
    assert promptd.settle(1, timeout=30).outcomes() in ({"failure": 1}, {"failure": 1, "rollback": 1})
    assert promptd.one("ERROR", interview).fields["sqlstate"] == "57014"
    expect_nothing_stored(database, interview, "failed")
