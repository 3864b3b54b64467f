# SPDX-License-Identifier: MIT
"""Ways in which an application, an operator or a server once broke promptd's promises, each of them tried again."""

import pytest

from support.expect import expect_nothing_stored, expect_stored, stuck_line
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"


def test_recovery_goes_on_after_a_page_that_took_longer_than_the_interval(start_promptd, database):
    promptd = start_promptd(reconcile_interval_s=1, recover_after_s=1)
    with database.cluster.connect(database.name) as other, other.transaction():
        other.execute("lock table promptd_unsettled in access exclusive mode")
        database.wait_blocked()
        blocked, = database.blocked_since()[0]
        wait_until(lambda: database.value("select now() - %s > interval '2.5 s'", [blocked]), "a slow page")
    interview = database.interview()
    database.add_old_prompt(interview, unsettled=True)
    promptd.wait_line("INFO", "unsettled prompt settled", interview)


def test_read_only_ends_although_a_session_was_busy_meanwhile(start_promptd, database, channel):
    """Its statement began before, and succeeds: that session is no reason to ask no more."""
    promptd = start_promptd(db_connections=2)
    slow = database.interview()
    database.execute("create table full_disk (); create table on_its_way ()")
    with database.held(PROMPTS, "insert", when=f"new.interview_id = '{slow}'"):
        database.trigger(PROMPTS, "insert", "if to_regclass('full_disk') is not null then raise exception using"
                         " errcode = '53100', message = 'no space left'; end if;", when=f"new.interview_id is distinct from '{slow}'")
        first = channel.publish(slow)
        database.wait_blocked()
        second = channel.publish(database.interview())
        promptd.wait_line("ERROR", "database takes no writes")
        database.execute("drop table full_disk")
    promptd.settle(2)
    expect_stored(database, first, second)


def test_no_right_to_temporary_tables(start_promptd, database, channel, atomicity):
    """An outage code from one interview's trigger stays that message's own."""
    database.execute(f"revoke temporary on database {database.name} from public")
    promptd = start_promptd(atomicity=atomicity, retry_attempts=2)
    bad = database.interview()
    database.raise_on(PROMPTS, "insert", sqlstate="53100", when=f"new.interview_id = '{bad}'")
    channel.publish(bad)
    good = channel.publish(database.interview())
    assert promptd.settle(2, timeout=10).outcomes() == {"success": 1, "failure": 1}
    expect_stored(database, good)


def test_trigger_that_returns_old_keeps_the_interview(start_promptd, atomicity, database, channel):
    """The row is updated, to what it was: it is not ready, and nobody says so."""
    promptd = start_promptd(atomicity=atomicity, retry_attempts=2)
    interview = database.interview()
    database.trigger("interviews", "update", "if new.status = 'ready' then return old; end if;")
    channel.publish(interview)
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, interview, "failed")


def test_trigger_that_returns_old_keeps_from_marking(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, retry_attempts=2)
    interview = database.interview()
    database.raise_on(PROMPTS, "insert")
    database.trigger("interviews", "update", "return old;")
    channel.publish(interview)
    promptd.settle(1)
    assert database.status(interview) == "enhancing"
    promptd.one("CRITICAL", stuck_line(interview))


def test_trigger_that_moves_the_interview_on_at_once(start_promptd, atomicity, database, channel):
    """It was made ready, and is beyond that: the prompt is in use."""
    promptd = start_promptd(atomicity=atomicity, retry_attempts=2)
    messages = [channel.message(interview) for interview in database.interviews(20)]
    database.trigger("interviews", "update", "if new.status = 'ready' then new.status = 'in_progress'; end if;")
    channel.publish_burst(messages)
    assert promptd.settle(20).outcomes() == {"success": 20}
    assert database.prompt_count() == 20 and database.unsettled() == []
    assert database.statuses() == {"in_progress": 20}


def test_trigger_that_gives_the_prompt_to_another_interview(start_promptd, database, channel):
    """Its evidence speaks of that other interview. The message comes to an end, and costs no other its own."""
    promptd = start_promptd(retry_attempts=2, lock_patience_s=1)
    bad, other = database.interview(), database.interview("completed")
    database.trigger(PROMPTS, "delete", "return null;", when=f"old.interview_id = '{other}'")
    database.trigger(PROMPTS, "insert", f"new.interview_id = '{other}';", when=f"new.interview_id = '{bad}'")
    messages = [channel.message(interview) for interview in [bad, *database.interviews(20)]]
    channel.publish_burst(messages)
    counters = promptd.settle(21, timeout=15)
    assert counters["success"] == 20
    assert counters["orphaned"] == 1
    expect_stored(database, *messages[1:])


def test_trigger_that_touches_the_new_prompt_in_a_block_of_its_own(start_promptd, atomicity, database, channel):
    """The row is then of a subtransaction, and is this very message's all the same."""
    promptd = start_promptd(atomicity=atomicity)
    database.trigger(PROMPTS, "insert", f"begin update {PROMPTS} set created_at = now() where id = new.id;"
                     " exception when others then null; end;", timing="after")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_table_that_comes_later_without_heartbeats(start_promptd, database, channel):
    database.execute("alter table promptd_unsettled rename to away")
    promptd = start_promptd(ready=False, heartbeat_interval_s=0)
    promptd.wait_line("INFO", "subscribed")
    message = channel.publish(database.interview())
    promptd.wait_line("CRITICAL", "promptd_unsettled is missing")
    database.execute("alter table away rename to promptd_unsettled")
    promptd.settle(1)
    expect_stored(database, message)


def test_table_that_comes_later_to_a_promptd_of_transactions(start_promptd, database, channel):
    """Another promptd, which compensates, may leave something in it."""
    database.execute("alter table promptd_unsettled rename to away")
    promptd = start_promptd(atomicity="transaction", heartbeat_interval_s=1, reconcile_interval_s=1, recover_after_s=1)
    assert promptd.settle(0).outcomes() == {}
    database.execute("alter table away rename to promptd_unsettled")
    interview = database.interview()
    database.add_old_prompt(interview, unsettled=True)
    promptd.wait_line("INFO", "unsettled prompt settled", interview)


@pytest.mark.parametrize("table, event", [("interviews", "update"), (PROMPTS, "delete")])
def test_recovery_meets_a_transient_error(start_promptd, database, table, event):
    """It is tried again, as a message would be: nothing is undone for that, and nobody called for help."""
    interview = database.interview("enhancing" if event == "update" else "completed")
    database.add_old_prompt(interview, unsettled=True)
    database.raise_first(1, table, event, "40P01")
    promptd = start_promptd(recover_after_s=1)
    promptd.wait_line("INFO", "unsettled prompt " + ("settled" if event == "update" else "rolled back"), interview)
    assert promptd.find("CRITICAL", "") == []


def test_probe_that_waits_for_a_lock_proves_no_outage(start_promptd, database, channel):
    promptd = start_promptd(statement_timeout_ms=500, retry_attempts=2)
    bad = database.interview()
    database.raise_on(PROMPTS, "insert", sqlstate="53400", when=f"new.interview_id = '{bad}'")
    with database.held(PROMPTS, "insert", when="new.interview_id is null"):
        channel.publish(bad)
        assert promptd.settle(1).outcomes() == {"failure": 1}
    assert promptd.find("ERROR", "database") == []


def test_trigger_that_deletes_the_new_prompt(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, retry_attempts=2)
    interview = database.interview()
    database.trigger(PROMPTS, "insert", f"delete from {PROMPTS} where id = new.id;", timing="after")
    channel.publish(interview)
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, interview, "failed")


def test_prompt_that_ends_its_session_each_time_does_not_hold_up_the_recovery(start_promptd, database):
    bad, good = database.interview("completed"), database.interview()
    database.trigger(PROMPTS, "delete", "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60);")
    database.add_old_prompt(bad, unsettled=True)
    promptd = start_promptd(reconcile_interval_s=1, recover_after_s=1, db_connections=2, backoff_max_s=30)
    promptd.wait_line("INFO", "connections was lost", count=3)
    database.add_old_prompt(good, unsettled=True)
    promptd.wait_line("INFO", "unsettled prompt settled", good)


def test_locked_rows_keep_nobody_on_disk(start_promptd, database, channel, new_folder):
    """More than one fetch brings of them, from before a restart."""
    folder = new_folder("spool")
    settings = {"spool_dir": folder, "shutdown_timeout_s": 2, "log_level": "info"}
    promptd = start_promptd(**settings)
    locked = database.interviews(1700)
    with database.cluster.connect(database.name) as other, other.transaction():
        other.execute("select from interviews for update")
        channel.publish_burst([channel.message(interview) for interview in locked])
        promptd.wait_counters(received=1700)
        promptd.stop()
        promptd = start_promptd(**settings)
        promptd.wait_counters(received=1700, waiting=1700)
        good = channel.publish(database.interview())
        promptd.wait_counters(success=1, timeout=10)
        expect_stored(database, good)
    promptd.wait_counters(success=1701, timeout=30)


def test_what_is_new_stands_in_no_line_behind_locked_rows(start_promptd, database, channel):
    promptd = start_promptd(log_level="info", lock_patience_s=60)
    locked = database.interviews(9000)
    with database.cluster.connect(database.name) as other, other.transaction():
        other.execute("select from interviews for update")
        channel.publish_burst([channel.message(interview) for interview in locked])
        promptd.wait_counters(received=9000)
        channel.publish(database.interview())
        promptd.wait_counters(success=1, timeout=2)
    promptd.wait_counters(success=9001, timeout=30)
