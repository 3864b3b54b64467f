# SPDX-License-Identifier: MIT
"""A message that is alone: its insert and its update go at once, and the insert does not wait for the disk. Whatever
comes between the two, what promptd says of the message is what is on disk."""

import signal
import time

import pytest

from support.expect import expect_nothing_stored, expect_stored
from support.postgres import ROLE
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"


@pytest.fixture
def lone(start_promptd):
    return start_promptd(atomicity="compensate", db_connections=1)


@pytest.fixture
def crash(postgres, database):
    """What no commit has waited for is lost: nothing else writes the server's log to disk for ten seconds."""
    database.execute(f"alter database {database.name} set synchronous_commit = on")
    database.execute("alter system set wal_writer_delay = '10s'")
    database.execute("select pg_reload_conf()")
    database.disconnect()
    database.reconnect()

    def now():
        database.disconnect()
        postgres.crash()
        postgres.start()
        database.reconnect()

    yield now
    database.execute("alter system reset wal_writer_delay")
    database.execute("select pg_reload_conf()")


def test_crash_between_insert_and_update(crash, lone, database, channel):
    """The insert was not on disk yet: it is done again, and the update never without it."""
    interview = database.interview()
    holder = database.cluster.connect(database.name)
    holder.execute("begin; select from interviews for no key update")
    message = channel.publish(interview)
    database.wait_blocked()
    assert len(database.prompts(interview)) == 1
    crash()
    holder.close()
    assert lone.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert lone.find("CRITICAL") == []


def test_crash_when_the_update_is_to_be_tried_again(crash, start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", db_connections=1, retry_base_ms=3000, retry_max_ms=3000)
    tries = database.raise_first(1, "interviews", "update", "40001")
    message = channel.publish(database.interview())
    promptd.wait_counters(retries=1)
    crash()
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert database.tries(tries) >= 1


def test_crash_after_a_second_prompt_of_a_ready_interview(crash, lone, database, channel):
    """There is no update whose commit would wait for the disk, and the prompt is there all the same."""
    interview = database.interview("ready")
    database.execute("checkpoint")
    message = channel.publish(interview)
    assert lone.settle(1).outcomes() == {"success": 1}
    crash()
    expect_stored(database, message)


def statement_trigger(database, event, body, timing="before"):
    """One that a statement meets even when it changes no row."""
    database.execute("create function of_statement() returns trigger language plpgsql security definer as"
                     f" $$ begin {body} return null; end $$")
    database.execute(f"create trigger of_statement {timing} {event} for each statement execute function of_statement()")


def test_crash_after_a_failed_update_of_a_ready_interview(crash, lone, database, channel):
    """The prompt could not be deleted again, since its interview is ready: then it is stored, and on disk."""
    interview = database.interview("ready")
    statement_trigger(database, "update on interviews", "raise exception 'the test says no';")
    message = channel.publish(interview)
    assert lone.settle(1).outcomes() == {"success": 1}
    crash()
    expect_stored(database, message)


def test_crash_after_a_duplicate_of_another_promptd(crash, lone, database, channel):
    """It had not waited for the disk, and dies with the server: what this one has said of the message holds."""
    message = channel.message(database.interview("timeout"))
    with database.cluster.connect(database.name) as other:
        other.execute("set synchronous_commit = off")
        other.execute(f"insert into {PROMPTS} (id, interview_id, prompt, source) values (%s, %s, %s, 'rag')",
                      [message.id, message.interview, message.prompt])
    channel.publish_message(message)
    assert lone.settle(1).outcomes() == {"duplicate": 1}
    crash()
    assert len(database.prompts(message.interview)) == 1


def test_crash_uses_up_no_try(crash, start_promptd, database, channel):
    """The server crashes when promptd has the insert's answer, and not yet the look's that makes it certain."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, retry_attempts=1)
    interview = database.interview("ready")
    statement_trigger(database, "update on interviews", "perform pg_sleep(2);", timing="after")
    message = channel.publish(interview)
    wait_until(lambda: database.prompt_count() == 1, "the insert")
    promptd.kill(signal.SIGSTOP)  # it will find both answers, and then a connection that is no more
    wait_until(lambda: [state for _, state, _, _ in database.sessions()] == ["idle"], "the update")
    crash()
    database.execute("drop trigger of_statement on interviews")
    promptd.kill(signal.SIGCONT)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_crash_after_a_message_is_stored(crash, lone, database, channel):
    message = channel.publish(database.interview())
    assert lone.settle(1).outcomes() == {"success": 1}
    crash()
    expect_stored(database, message)


def test_session_ends_between_insert_and_update(lone, database, channel):
    interview = database.interview()
    with database.interviews_locked():
        message = channel.publish(interview)
        database.wait_blocked()
        assert len(database.prompts(interview)) == 1
    assert lone.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_interview_goes_on_when_the_session_has_ended(lone, database, channel):
    """The prompt that was found again is its own, and deleted."""
    interview = database.interview()
    with database.cluster.connect(database.name) as holder, holder.transaction():
        holder.execute("update interviews set status = 'timeout'")
        channel.publish(interview)
        database.wait_blocked()
        database.terminate_sessions()
    assert lone.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, interview, "timeout")


def test_interview_goes_on_and_the_prompt_was_there_before(lone, database, channel):
    """The insert has said so before the session ended: the prompt is somebody else's, and stays."""
    message = channel.message(database.interview())
    database.add_prompt(message)
    with database.cluster.connect(database.name) as holder, holder.transaction():
        holder.execute("update interviews set status = 'timeout'")
        channel.publish_message(message)
        database.wait_blocked()
        database.terminate_sessions()
    assert lone.settle(1).outcomes() == {"duplicate": 1}
    assert database.prompts(message.interview) == [(message.id, message.prompt, "rag")]


def test_insert_fails_and_the_prompt_was_there_before(lone, database, channel):
    """The update has found it: there is nothing to complain of."""
    message = channel.message(database.interview())
    database.add_prompt(message)
    database.raise_on(PROMPTS, "insert")
    channel.publish_message(message)
    assert lone.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_insert_is_not_allowed_and_the_prompt_was_there_before(lone, database, channel):
    """The same, with an error that might be one of prepared statements: what the update has done counts."""
    message = channel.message(database.interview())
    database.add_prompt(message)
    database.execute(f"revoke insert on {PROMPTS} from {ROLE}")
    channel.publish_message(message)
    assert lone.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_prompt_of_another_promptd_that_takes_it_back(start_promptd, database, channel):
    """It was there when the insert met it, and is not when the update is tried again: never ready without a prompt."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, retry_base_ms=2000, retry_max_ms=2000)
    message = channel.message(database.interview("timeout"))
    database.add_prompt(message)
    database.execute("create sequence updates")
    statement_trigger(database, "update on interviews", """
        if pg_trigger_depth() > 1 then return null; end if;
        if nextval('updates') = 1 then update interviews set status = 'enhancing';
        else raise exception 'later' using errcode = '40001'; end if;""", timing="after")
    channel.publish_message(message)
    promptd.wait_counters(retries=1)
    database.execute("drop trigger of_statement on interviews")
    database.execute(f"delete from {PROMPTS}")
    database.execute("update interviews set status = 'failed'")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_update_is_tried_as_often_as_the_setting_says(start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", db_connections=1, retry_attempts=4, retry_base_ms=1)
    tries = database.raise_first(99, "interviews", "update", "40001", when="new.status = 'ready'")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert database.tries(tries) == 4


def test_what_is_tried_again_stays_alone(start_promptd, database, channel):
    """In company its tries would begin anew."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, retry_attempts=3, retry_base_ms=500,
                            retry_max_ms=500)
    failing, blocking, *others = database.interviews(4)
    tries = database.raise_first(99, "interviews", "update", "40001",
                                 when=f"new.id = '{failing}' and new.status = 'ready'")
    channel.publish(failing)
    promptd.wait_counters(retries=1)
    with database.cluster.connect(database.name) as holder, holder.transaction():
        holder.execute("select from interviews where id = %s for no key update", [blocking])
        messages = [channel.publish(blocking)]
        database.wait_blocked()
        messages += [channel.publish(interview) for interview in others]
        time.sleep(0.8)  # the other one is due again, and waits with them
    assert promptd.settle(4).outcomes() == {"success": 3, "failure": 1, "rollback": 1}
    expect_stored(database, *messages)
    assert database.tries(tries) == 3


def test_deadline_begins_anew_with_the_update(start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", db_connections=1, statement_timeout_ms=1000)
    database.trigger(PROMPTS, "insert", "perform pg_sleep(0.7);")
    database.trigger("interviews", "update", "perform pg_sleep(0.7);")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert promptd.counters()["retries"] == 0


def test_deadline_is_for_each_of_the_two(start_promptd, database, channel):
    """Cancelled once in its insert and once in its update, it uses up two of its three tries, and no connection."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, statement_timeout_ms=500, retry_base_ms=1,
                            retry_max_ms=1)
    sleeps = "if nextval('{0}') = 1 then perform pg_sleep(30); end if;"
    for table, event in ((PROMPTS, "insert"), ("interviews", "update")):
        database.execute(f"create sequence sleeps_{event}")
        database.execute(f"grant usage on sequence sleeps_{event} to public")
        database.trigger(table, event, sleeps.format(f"sleeps_{event}"))
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert promptd.counters()["retries"] == 2 and promptd.find("WARNING|ERROR|CRITICAL") == []


def test_prompt_is_deleted_by_somebody_meanwhile(lone, database, channel):
    """A trigger of the application deletes it, each time: that is no success."""
    database.trigger("interviews", "update", f"delete from {PROMPTS}; if new.status = 'ready' then return null; end if;")
    message = channel.publish(database.interview())
    assert lone.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
