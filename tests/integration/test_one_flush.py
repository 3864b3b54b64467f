# SPDX-License-Identifier: MIT
"""Insert and settle in one flush: two transactions, of which the first does not wait for the disk. Whatever comes between
them, what promptd says of a message is what is on disk, for single messages and for batches."""

import psycopg
import pytest

from support.expect import (detected_line, expect_nothing_stored, expect_stored, expect_unsettled, resolved_line,
                            stuck_line)
from support.postgres import ROLE
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"


@pytest.fixture(params=[1, 20], ids=["single", "batch"])
def count(request):
    return request.param


@pytest.fixture
def start_one(start_promptd):
    def start(**settings):
        return start_promptd(atomicity="compensate", db_connections=1, **settings)

    return start


@pytest.fixture
def publish_together(database, channel):
    """Publishes messages for these interviews while the only connection is busy, so that they go together."""
    def publish(promptd, interviews=(), messages=None):
        before = promptd.counters()["received"]
        with database.locked():
            first = channel.publish(database.interview())
            database.wait_blocked()
            messages = messages or [channel.message(interview) for interview in interviews]
            channel.publish_burst(messages)
            promptd.wait_counters(received=before + 1 + len(messages))
        promptd.wait_line("INFO", "prompt stored", first.interview)
        return messages

    return publish


def held_for(database, interviews):
    """Holds the settling of these interviews."""
    return database.held("interviews", "update", f"{TO_READY} and new.id = any('{{{','.join(interviews)}}}')")


# The server crashes


@pytest.fixture
def durable(database):
    """Commits wait for the disk, but for those that ask not to. To be asked for before the promptd."""
    database.execute(f"alter database {database.name} set synchronous_commit = on")
    database.reconnect()


@pytest.fixture
def crash(durable, postgres, database):
    """What no commit has waited for is lost."""
    postgres.hold_writers()

    def now():
        database.disconnect()
        postgres.crash()
        postgres.start()
        database.reconnect()

    return now


def test_crash_between_the_two(crash, start_one, publish_together, database, count):
    """Prompt and evidence go together. They are inserted again, and no try is used up."""
    promptd = start_one(retry_attempts=1)
    interviews = database.interviews(count)
    with held_for(database, interviews):
        messages = publish_together(promptd, interviews)
        database.wait_blocked()
        for message in messages:
            expect_unsettled(database, message, "enhancing")
        promptd.freeze()
        crash()
        for message in messages:
            expect_nothing_stored(database, message.interview, "enhancing")
        promptd.thaw()
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == []


def test_crash_when_the_settling_is_to_be_tried_again(crash, start_one, publish_together, database, count):
    promptd = start_one(retry_base_ms=5000, retry_max_ms=5000)
    interviews = database.interviews(count)
    for interview in interviews:
        database.raise_on("interviews", "update", sqlstate="40001", when=f"{TO_READY} and new.id = '{interview}'")
    messages = publish_together(promptd, interviews)
    promptd.wait_counters(retries=count)
    promptd.freeze()
    crash()
    for message in messages:
        expect_nothing_stored(database, message.interview, "enhancing")
    database.drop_faults()
    promptd.thaw()
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    expect_stored(database, *messages)


@pytest.mark.parametrize("status", ["enhancing", "ready"])
def test_crash_after_it_is_stored(crash, start_one, publish_together, database, count, status):
    promptd = start_one()
    messages = publish_together(promptd, database.interviews(count, status))
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    crash()
    expect_stored(database, *messages)


def test_crash_after_the_prompt_of_another_one_is_settled(crash, start_one, publish_together, database, channel, count):
    """That one's insert had not waited for the disk: now it is there, too."""
    promptd = start_one()
    messages = [channel.message(interview) for interview in database.interviews(count)]
    database.execute("set synchronous_commit = off")
    for message in messages:
        database.add_prompt(message, unsettled=True)
    publish_together(promptd, messages=messages)
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    crash()
    expect_stored(database, *messages)


def test_crash_after_it_is_rolled_back(crash, start_one, publish_together, database, count):
    promptd = start_one()
    interviews = database.interviews(count, "completed")
    publish_together(promptd, interviews)
    assert promptd.settle(count + 1).outcomes() == {"success": 1, "failure": count, "rollback": count}
    crash()
    for interview in interviews:
        expect_nothing_stored(database, interview, "completed")


def test_crash_after_it_is_marked_failed(crash, start_one, publish_together, database, count):
    promptd = start_one()
    interviews = database.interviews(count)
    for interview in interviews:
        database.raise_on("interviews", "update", when=f"{TO_READY} and new.id = '{interview}'")
    publish_together(promptd, interviews)
    assert promptd.settle(count + 1).outcomes() == {"success": 1, "failure": count, "rollback": count}
    crash()
    for interview in interviews:
        expect_nothing_stored(database, interview, "failed")


def test_crash_takes_an_orphan_with_it(crash, start_one, publish_together, database, count):
    """Nothing had waited for the disk since its insert. Its end is reported, as that of any other."""
    promptd = start_one()
    database.execute(f"revoke delete on {PROMPTS} from {ROLE}")
    messages = publish_together(promptd, database.interviews(count, "completed"))
    assert promptd.settle(count + 1).outcomes() == {"success": 1, "failure": count, "orphaned": count}
    for message in messages:
        promptd.one("CRITICAL", detected_line(message))
        expect_unsettled(database, message, "completed")
    crash()
    for message in messages:
        expect_nothing_stored(database, message.interview, "completed")
        promptd.wait_line("INFO", resolved_line(message))


def test_settling_that_crashes_the_server(durable, start_one, publish_together, postgres, database):
    """Each time, until somebody fixes it: the others of its batch are stored meanwhile, and it is stored in the end."""
    database.execute("alter system set wal_writer_delay = '10s'")
    database.execute("select pg_reload_conf()")
    promptd = start_one()
    interviews = database.interviews(8)
    database.trigger("interviews", "update", """
        execute format('copy (select) to program ''kill -9 %s''', pg_backend_pid()); perform pg_sleep(60);
        """, f"{TO_READY} and new.id = '{interviews[3]}'")
    messages = publish_together(promptd, interviews)
    promptd.wait_counters(timeout=60, received=9, success=8)
    wait_until(lambda: works(database, database.drop_faults), "the server to take the trigger away", 30)
    assert promptd.settle(9, timeout=60).outcomes() == {"success": 9}
    expect_stored(database, *messages)
    database.execute("alter system reset wal_writer_delay")
    database.execute("select pg_reload_conf()")


def works(database, action):
    try:
        database.disconnect()
        database.reconnect()
        action()
        return True
    except psycopg.Error:
        return False


# The session ends


def test_session_ends_between_the_two(start_one, publish_together, database, count):
    promptd = start_one(retry_attempts=1)
    interviews = database.interviews(count)
    with held_for(database, interviews):
        messages = publish_together(promptd, interviews)
        database.wait_blocked()
        database.terminate_sessions()
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == []


@pytest.fixture
def end_session(database):
    """end_session(promptd): its statement is ended, and it does not know yet."""
    def end(promptd):
        database.wait_blocked()
        promptd.freeze()
        database.terminate_sessions()
        wait_until(lambda: database.sessions() == [], "the session to end", seen=database.sessions)

    return end


def test_interview_goes_on_when_the_session_has_ended(start_one, publish_together, end_session, database, count):
    promptd = start_one()
    interviews = database.interviews(count)
    with held_for(database, interviews):
        publish_together(promptd, interviews)
        end_session(promptd)
        database.execute("update interviews set status = 'timeout' where id = any(%s::uuid[])", [interviews])
        promptd.thaw()
    assert promptd.settle(count + 1).outcomes() == {"success": 1, "failure": count, "rollback": count}
    for interview in interviews:
        expect_nothing_stored(database, interview, "timeout")


def test_another_one_settles_it_when_the_session_has_ended(start_one, publish_together, end_session, database, count):
    """Ours was inserted, and its settling never answered: it counts as stored, and what the interview does then is the
    application's business."""
    promptd = start_one()
    interviews = database.interviews(count)
    with held_for(database, interviews):
        messages = publish_together(promptd, interviews)
        end_session(promptd)
        database.execute("delete from promptd_unsettled where interview_id = any(%s::uuid[])", [interviews])
        database.execute("update interviews set status = 'in_progress' where id = any(%s::uuid[])", [interviews])
        promptd.thaw()
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    for message in messages:
        assert database.prompts(message.interview) == [(message.id, message.prompt, "rag")]
        assert database.status(message.interview) == "in_progress"


def test_another_one_undoes_it_when_the_session_has_ended(start_one, publish_together, end_session, database, count):
    promptd = start_one()
    interviews = database.interviews(count)
    with held_for(database, interviews):
        messages = publish_together(promptd, interviews)
        end_session(promptd)
        database.execute(f"delete from {PROMPTS} where interview_id = any(%s::uuid[])", [interviews])
        database.execute("delete from promptd_unsettled where interview_id = any(%s::uuid[])", [interviews])
        database.execute("update interviews set status = 'failed' where id = any(%s::uuid[])", [interviews])
        promptd.thaw()
    assert promptd.settle(count + 1).outcomes() == {"success": count + 1}
    expect_stored(database, *messages)


def test_another_one_undoes_its_own_before_we_settle_it(start_one, database, channel):
    promptd = start_one(retry_base_ms=3000, retry_max_ms=3000)
    message = channel.message(database.interview())
    database.add_prompt(message, unsettled=True)
    database.raise_on("interviews", "update", sqlstate="40001", when=TO_READY)
    channel.publish_message(message)
    promptd.wait_counters(retries=1)
    database.execute(f"delete from {PROMPTS}; delete from promptd_unsettled; update interviews set status = 'failed'")
    database.drop_faults()
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


# Either of the two fails


@pytest.mark.parametrize("table, event, details", [
    (PROMPTS, "insert", {}), ("promptd_unsettled", "insert", {}), ("interviews", "update", {"rollback": 1}),
    ("promptd_unsettled", "delete", {"orphaned": 1}),
])
def test_error_of_one_message(start_one, publish_together, database, count, table, event, details):
    promptd = start_one()
    interviews = database.interviews(count)
    row, column = ("old" if event == "delete" else "new"), ("id" if table == "interviews" else "interview_id")
    when = f"{row}.{column} = '{interviews[0]}'" + (f" and {TO_READY}" if table == "interviews" else "")
    database.raise_on(table, event, "the test says no", when=when)
    bad, *good = publish_together(promptd, interviews)
    assert promptd.settle(count + 1).outcomes() == {"success": count, "failure": 1, **details}
    expect_stored(database, *good)
    line = promptd.one("CRITICAL" if "orphaned" in details else "ERROR", bad.interview)
    assert line.fields["error"] == "the test says no" and promptd.find("CRITICAL", stuck_line(bad.interview)) == []
    if "orphaned" in details:
        expect_unsettled(database, bad, "failed")
    else:
        expect_nothing_stored(database, bad.interview, "failed")


def test_settling_is_tried_as_often_as_the_setting_says(start_one, database, channel):
    promptd = start_one(retry_attempts=4, retry_base_ms=1)
    tries = database.raise_first(99, "interviews", "update", "40001", when=TO_READY)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert database.tries(tries) == 4


def test_what_is_tried_again_stays_alone(start_one, publish_together, database, channel):
    """In company its tries would count for nobody."""
    promptd = start_one(retry_attempts=3, retry_base_ms=500, retry_max_ms=500)
    failing = database.interviews(4)
    tries = [database.raise_first(99, "interviews", "update", "40001", when=f"new.id = '{interview}' and {TO_READY}")
             for interview in failing]
    for number, interview in enumerate(failing):
        channel.publish(interview)
        promptd.wait_counters(retries=number + 1)
    with database.locked():  # until all of them are due
        good = channel.publish(database.interview())
        database.wait_blocked()
        promptd.freeze()
        database.execute("select pg_sleep(1)")
        promptd.thaw()
    assert promptd.settle(5).outcomes() == {"success": 1, "failure": 4, "rollback": 4}
    expect_stored(database, good)
    assert [database.tries(each) for each in tries] == [3, 3, 3, 3]


# Deadlines


def test_deadline_begins_anew_with_the_settling(start_one, database, channel):
    promptd = start_one(statement_timeout_ms=1000)
    database.trigger(PROMPTS, "insert", "perform pg_sleep(0.7);")
    database.trigger("interviews", "update", "perform pg_sleep(0.7);")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert promptd.counters()["retries"] == 0


def test_deadline_is_for_each_of_the_two(start_one, database, channel):
    """Cancelled once in its insert and once in its settling, it uses up two of its three tries, and no connection."""
    promptd = start_one(statement_timeout_ms=500, retry_base_ms=1, retry_max_ms=1)
    sleeps = "if nextval('{0}') = 1 then perform pg_sleep(30); end if;"
    for table, event in ((PROMPTS, "insert"), ("interviews", "update")):
        database.execute(f"create sequence sleeps_{event}")
        database.execute(f"grant usage on sequence sleeps_{event} to public")
        database.trigger(table, event, sleeps.format(f"sleeps_{event}"))
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert promptd.counters()["retries"] == 2 and promptd.find("WARNING|ERROR|CRITICAL") == []


@pytest.mark.parametrize("table, event, column", [(PROMPTS, "insert", "interview_id"), ("interviews", "update", "id")])
def test_slow_message_in_a_batch_is_no_failure(start_one, publish_together, database, table, event, column):
    """The batch is cancelled after a second; alone the message has the whole statement_timeout_ms."""
    promptd = start_one()
    interviews = database.interviews(20)
    database.trigger(table, event, "perform pg_sleep(2);", when=f"new.{column} = '{interviews[7]}'")
    messages = publish_together(promptd, interviews)
    assert promptd.settle(21).outcomes() == {"success": 21}
    expect_stored(database, *messages)
    assert promptd.counters()["retries"] == 0 and promptd.find("WARNING|ERROR|CRITICAL") == []
