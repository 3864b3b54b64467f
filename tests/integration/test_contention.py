# SPDX-License-Identifier: MIT
"""Deadlocks, and statements that are slow or wait: tried again, at no other message's cost, and final when the tries are up."""

import psycopg
import pytest

from support.expect import expect_nothing_stored, expect_stored

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"


@pytest.mark.parametrize("victim", ["promptd", "application"])
def test_deadlock_with_the_application(start_promptd, atomicity, database, channel, victim):
    """A trigger of the application's locks what the application locks the other way round. Whoever is chosen, promptd goes on,
    and its message is stored."""
    wait = {"promptd": "2s", "application": "9s"}[victim]  # who looks first when there is one is the victim
    database.execute(f"alter database {database.name} set deadlock_timeout = '{wait}'")
    database.execute("create table counts (n int); insert into counts values (0)")
    database.trigger("interviews", "update", "update counts set n = n + 1;", TO_READY)
    promptd = start_promptd(atomicity=atomicity, db_connections=1, retry_attempts=3)
    interview = database.interview()
    with database.cluster.connect(database.name) as other:
        other.execute("set deadlock_timeout = " + ("'9s'" if victim == "promptd" else "'10ms'"))
        other.execute("begin")
        other.execute("update counts set n = n + 1")
        message = channel.publish(interview)
        database.wait_blocked()
        if victim == "promptd":
            other.execute("update interviews set status = status where id = %s", [interview])
            other.execute("commit")
        else:
            with pytest.raises(psycopg.errors.DeadlockDetected):
                other.execute("update interviews set status = status where id = %s", [interview])
            other.execute("rollback")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert promptd.counters()["retries"] == (victim == "promptd")


def test_deadlock_victim_is_sent_again(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, retry_attempts=3)
    counter = database.raise_first(2, "interviews", "update", "40P01")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert database.tries(counter) >= 3 and promptd.counters()["retries"] == 2


@pytest.mark.parametrize("table, event, column", [(PROMPTS, "insert", "interview_id"), ("interviews", "update", "id")])
def test_statement_that_waits_holds_up_no_other(start_promptd, atomicity, database, channel, table, event, column):
    """A trigger that waits is the message's own trouble. The others of its batch are sent again without it."""
    promptd = start_promptd(atomicity=atomicity, retry_attempts=10)
    interviews = database.interviews(200)
    with database.held(table, event, f"new.{column} = '{interviews[77]}'"):
        messages = [channel.message(interview) for interview in interviews]
        channel.publish_burst(messages)
        promptd.wait_counters(success=199, waiting=1, timeout=5)
    assert promptd.settle(200).outcomes() == {"success": 200}
    expect_stored(database, *messages)


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
