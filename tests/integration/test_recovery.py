# SPDX-License-Identifier: MIT
"""Recovery: what stands in promptd_unsettled for too long is settled or rolled back by any promptd, and nothing else is
touched."""

import signal
import time

import pytest

from support import admin
from support.expect import expect_kept, expect_nothing_stored, expect_stored
from support.postgres import ROLE
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"
SETTLED = "unsettled prompt settled for interview"
ROLLED_BACK = "unsettled prompt rolled back for interview"


@pytest.fixture
def left(database, channel):
    """left(status, age): a message whose prompt was left unsettled so long ago, and its interview."""
    def make(status="enhancing", age="1 hour"):
        message = channel.message(database.interview(status))
        database.leave_unsettled(message, age=age)
        return message

    return make


def wait_recovered(promptd, settled=0, rolled_back=0):
    return promptd.wait_counters(recovered_settled=settled, recovered_rolled_back=rolled_back)


def expect_recovered_line(promptd, text, message):
    line = promptd.one("INFO", text, message.interview)
    assert line.text.startswith(f"{text} {message.interview}") and line.fields["prompt_id"] == message.id


# What becomes of what was left


def test_interview_still_waits(start_promptd, atomicity, database, left):
    messages = [left(status) for status in ("enhancing", "pending", "processing")]
    promptd = start_promptd(atomicity=atomicity)
    wait_recovered(promptd, settled=3)
    expect_stored(database, *messages)
    for message in messages:
        expect_recovered_line(promptd, SETTLED, message)
    counters = promptd.counters()
    assert counters["received"] == counters["success"] == 0 and promptd.find("WARNING|ERROR|CRITICAL") == []


@pytest.mark.parametrize("status", ["failed", "in_progress", "completed", "timeout"])
def test_interview_waits_no_longer(start_promptd, atomicity, database, left, status):
    """What was told as failed does not become ready behind anyone's back."""
    message = left(status)
    promptd = start_promptd(atomicity=atomicity)
    wait_recovered(promptd, rolled_back=1)
    expect_nothing_stored(database, message.interview, status)
    expect_recovered_line(promptd, ROLLED_BACK, message)
    assert promptd.counters().outcomes() == {} and promptd.find("WARNING|ERROR|CRITICAL") == []


def test_interview_is_missing(start_promptd, atomicity, database, left):
    database.execute(f"alter table {PROMPTS} drop constraint {PROMPTS}_interview_id_fkey")
    message = left()
    database.execute("delete from interviews")
    promptd = start_promptd(atomicity=atomicity)
    wait_recovered(promptd, rolled_back=1)
    assert database.prompt_count() == 0 and database.unsettled() == []
    expect_recovered_line(promptd, ROLLED_BACK, message)


def test_interview_is_ready_already(start_promptd, atomicity, database, left):
    message = left("ready")
    promptd = start_promptd(atomicity=atomicity)
    wait_recovered(promptd, settled=1)
    expect_stored(database, message)
    expect_recovered_line(promptd, SETTLED, message)


def test_prompt_is_gone(start_promptd, atomicity, database, channel):
    """Somebody has deleted it: its evidence goes, and the interview goes on waiting or not, as it was."""
    messages = [channel.message(database.interview(status)) for status in ("completed", "ready", "failed")]
    database.add_evidence(*messages, age="1 hour")
    start_promptd(atomicity=atomicity)
    wait_until(lambda: database.unsettled() == [], "the evidence to go")
    assert database.statuses() == {"completed": 1, "ready": 1, "failed": 1} and database.prompt_count() == 0


def test_prompt_of_a_waiting_interview_is_gone(start_promptd, database, channel):
    """Without a prompt it must not become ready: it is failed."""
    message = channel.message(database.interview())
    database.add_evidence(message, age="1 hour")
    start_promptd()
    wait_until(lambda: database.unsettled() == [], "the evidence to go")
    wait_until(lambda: database.status(message.interview) == "failed", "the interview to be marked")
    expect_nothing_stored(database, message.interview, "failed")


def test_what_is_young_or_settled_is_left_alone(start_promptd, atomicity, database, channel, left):
    """A younger row may be in work somewhere; and no prompt without a row is recovery's business."""
    young = [left(status, age="30 seconds") for status in ("enhancing", "timeout", "ready")]
    settled = [channel.message(database.interview(status)) for status in ("enhancing", "in_progress", "failed", "ready")]
    for message in settled:
        database.add_prompt(message)
    before = database.rows(f"select * from {PROMPTS} order by id"), database.rows("select * from interviews order by id")
    old = left("timeout")
    promptd = start_promptd(atomicity=atomicity, reconcile_interval_s=1)
    wait_recovered(promptd, rolled_back=1)
    left("timeout")
    wait_recovered(promptd, rolled_back=2)  # another round
    database.execute("delete from interviews where id not in (select interview_id from interview_enhanced_prompts)")
    assert before == (database.rows(f"select * from {PROMPTS} order by id"),
                      database.rows("select * from interviews order by id"))
    assert {id for id, _ in database.unsettled()} == {message.id for message in young}
    assert promptd.find("INFO", old.id) != []


def test_age_counts(start_promptd, database, left):
    """recover_after_s, to the second: not before, and soon after."""
    message = left("timeout", age="0 seconds")
    promptd = start_promptd(recover_after_s=3, reconcile_interval_s=1)
    wait_until(lambda: database.prompt_count() == 0, "the prompt to go", seen=promptd.tail)
    age = database.value("select extract(epoch from now() - created_at) from interviews where id = %s", [message.interview])
    assert age >= 3


def test_more_than_a_page(start_promptd, atomicity, database, channel):
    """Rows of one and the same time, too."""
    waiting = [channel.message(interview) for interview in database.interviews(700)]
    over = [channel.message(interview) for interview in database.interviews(500, "timeout")]
    database.execute(f"""insert into {PROMPTS} (id, interview_id, prompt, source)
                         select unnest(%s::uuid[]), unnest(%s::uuid[]), unnest(%s::text[]), 'rag'""",
                     [[message.id for message in waiting + over], [message.interview for message in waiting + over],
                      [message.prompt for message in waiting + over]])
    database.add_evidence(*waiting[:600], *over, age="1 hour")
    database.add_evidence(*waiting[600:], age="2 hours")
    promptd = start_promptd(atomicity=atomicity)
    wait_recovered(promptd, settled=700, rolled_back=500)
    assert database.unsettled() == [] and database.prompt_count() == 700
    assert database.statuses() == {"ready": 700, "timeout": 500}
    expect_stored(database, *waiting[::50])
    assert promptd.find("WARNING|ERROR|CRITICAL") == []


def test_what_can_be_settled_does_not_wait_for_orphans(start_promptd, database, channel, left):
    """Which are undone, and refused, again and again: with many of them a round takes longer than the interval."""
    for _ in range(250):
        left("timeout")
    database.trigger(PROMPTS, "delete", "perform pg_sleep(0.05); raise exception 'never';")
    promptd = start_promptd(reconcile_interval_s=1)
    promptd.wait_line("CRITICAL", "ORPHANED PROMPT DETECTED")
    message = left()
    promptd.wait_line("INFO", SETTLED, message.interview, timeout=6)
    late = left()
    channel.publish_message(late)  # it waits for the recovery's job of its interview, should there be one already
    promptd.settle(1, timeout=6)
    expect_stored(database, message, late)


def test_recovery_leaves_room_for_messages(start_promptd, database, channel):
    """However much was left behind, and however long it takes: queue_max_messages is for messages."""
    promptd = start_promptd(queue_max_messages=1000, reconcile_interval_s=1)
    messages = [channel.message(interview) for interview in database.interviews(600)]
    with database.held(PROMPTS, "delete"):
        database.execute(f"""
            create temporary table made as select gen_random_uuid() as interview, gen_random_uuid() as prompt
            from generate_series(1, 2000);
            insert into interviews (id, status) select interview, 'timeout' from made;
            insert into {PROMPTS} (id, interview_id) select prompt, interview from made;
            insert into promptd_unsettled select prompt, interview, now() - interval '1 hour' from made""")
        database.wait_blocked()
        channel.publish_burst(messages)
        promptd.wait_counters(received=600)
    assert promptd.settle(600).outcomes() == {"success": 600}
    expect_stored(database, *messages[::10])
    wait_recovered(promptd, rolled_back=2000)
    assert database.prompt_count() == 600


def test_two_promptds_share_it(start_promptd, database, channel):
    """Each row is settled by one of them, whatever both of them see."""
    messages = [channel.message(interview) for interview in database.interviews(400)]
    promptds = [start_promptd(reconcile_interval_s=1) for _ in range(2)]
    database.execute("begin")
    database.leave_unsettled(*messages)
    database.execute("commit")
    wait_until(lambda: sum(promptd.counters()["recovered_settled"] for promptd in promptds) == 400, "each of them once",
               seen=lambda: [promptd.counters() for promptd in promptds])
    expect_stored(database, *messages[::20])
    assert database.unsettled() == []


# When


def test_at_the_start(start_promptd, database, left):
    message, late = left(), left("timeout")
    promptd = start_promptd(reconcile_interval_s=3600)
    wait_recovered(promptd, settled=1, rolled_back=1)
    expect_stored(database, message)
    metrics = admin.of(promptd).metrics()
    assert [metrics[f'promptd_recovered_total{{result="{result}"}}'] for result in ("settled", "rolled_back")] == [1, 1]
    assert metrics["promptd_unsettled_prompts"] == 2 and metrics["promptd_orphans_open"] == 0
    expect_nothing_stored(database, late.interview, "timeout")


def test_at_a_reconnection(start_promptd, database, left):
    promptd = start_promptd(reconcile_interval_s=3600, db_connections=1)
    message, late = left(), left("timeout")
    database.terminate_sessions()
    wait_recovered(promptd, settled=1, rolled_back=1)
    expect_stored(database, message)
    expect_nothing_stored(database, late.interview, "timeout")


def test_at_the_interval(start_promptd, database, left):
    promptd = start_promptd(reconcile_interval_s=1)
    for count in (1, 2):
        message = left()
        wait_recovered(promptd, settled=count)
        expect_stored(database, message)


def test_turned_off(start_promptd, database, left):
    """At the start, at reconnections and for good."""
    message, late = left(), left("timeout")
    promptd = start_promptd(reconcile_interval_s=0, db_connections=1)
    database.terminate_sessions()
    promptd.wait_line("INFO", "database back")
    time.sleep(1.5)
    assert {id for id, _ in database.unsettled()} == {message.id, late.id}
    assert database.statuses() == {"enhancing": 1, "timeout": 1} and database.prompt_count() == 2


def test_turned_on_while_it_runs(start_promptd, database, left, new_folder):
    """Its settings are live."""
    config = new_folder("config") + "/promptd.conf"

    def write(text):
        with open(config, "w", encoding="ascii") as file:
            file.write(text)

    write("reconcile_interval_s = 0\nrecover_after_s = 86400\n")
    promptd = start_promptd(config=config)
    message = left()
    write("reconcile_interval_s = 1\nrecover_after_s = 10\n")
    promptd.kill(signal.SIGHUP)
    wait_recovered(promptd, settled=1)
    expect_stored(database, message)


def test_what_is_in_work_here_is_left_to_its_message(start_promptd, database, channel):
    """Older than recover_after_s, but its message is at it."""
    promptd = start_promptd(atomicity="compensate", recover_after_s=1, reconcile_interval_s=1, db_connections=2)
    interview = database.interview()
    with database.rows_locked(interview, mode="for no key update"):
        message = channel.publish(interview)
        wait_until(database.unsettled, "the insert")
        time.sleep(3.5)  # some rounds
        assert database.unsettled() == [(message.id, message.interview)]
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    wait_recovered(promptd)


def test_locked_row_has_another_round(start_promptd, database, left):
    """The recovery waits for no lock, and says nothing about it."""
    locked, free = left("timeout"), left("timeout")
    with database.cluster.connect(database.name) as other, other.transaction():
        other.execute("select from promptd_unsettled where prompt_id = %s for update", [locked.id])
        promptd = start_promptd(reconcile_interval_s=1)
        wait_recovered(promptd, rolled_back=1)
        expect_nothing_stored(database, free.interview, "timeout")
        time.sleep(1.5)
        assert [str(id) for id, in other.execute("select prompt_id from promptd_unsettled")] == [locked.id]
    wait_recovered(promptd, rolled_back=2)
    expect_nothing_stored(database, locked.interview, "timeout")
    assert promptd.find("WARNING|ERROR|CRITICAL") == []


def test_locked_interview_has_another_round(start_promptd, database, left):
    message = left()
    with database.rows_locked(message.interview):
        promptd = start_promptd(reconcile_interval_s=1)
        time.sleep(2.5)
        wait_recovered(promptd)
    wait_recovered(promptd, settled=1)
    expect_stored(database, message)
    assert promptd.find("WARNING|ERROR|CRITICAL") == []


def test_settling_that_fails_ends_in_an_undo(start_promptd, database, left):
    message = left()
    database.raise_on("interviews", "update", "not ready", when=TO_READY)
    promptd = start_promptd()
    wait_recovered(promptd, rolled_back=1)
    wait_until(lambda: database.status(message.interview) == "failed", "the interview to be marked")
    expect_nothing_stored(database, message.interview, "failed")
    expect_recovered_line(promptd, ROLLED_BACK, message)


def test_message_comes_again_before_the_recovery(start_promptd, atomicity, database, channel, left):
    """Whoever inserted it: the message goes on with step 2."""
    message = left()
    promptd = start_promptd(atomicity=atomicity, reconcile_interval_s=0)
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def cut_off(start_promptd, database, proxy, channel):
    """A promptd whose messages are inserted, and whose database is away before they are settled."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, retry_attempts=1, recover_after_s=1,
                            reconcile_interval_s=1, database_url=database.url(proxy.port))
    with database.held("interviews", "update"):
        message = channel.publish(database.interview())
        database.wait_blocked()
        proxy.refuse()
        database.terminate_sessions()
        promptd.wait_line("ERROR", "database lost")
    return promptd, message


def test_another_one_settles_what_waits_here(start_promptd, database, database_proxy, channel):
    """Its own insert, and a settle that was never answered: it is counted as stored here."""
    first, message = cut_off(start_promptd, database, database_proxy, channel)
    second = start_promptd(recover_after_s=1, reconcile_interval_s=1)
    wait_recovered(second, settled=1)
    database.execute("update interviews set status = 'in_progress'")
    database_proxy.restore()
    assert first.settle(1).outcomes() == {"success": 1}
    expect_kept(database, message, status="in_progress")
    assert second.counters().outcomes() == {}


def test_another_one_rolls_back_what_waits_here(start_promptd, database, database_proxy, channel):
    first, message = cut_off(start_promptd, database, database_proxy, channel)
    database.execute("update interviews set status = 'timeout'")
    second = start_promptd(recover_after_s=1, reconcile_interval_s=1)
    wait_recovered(second, rolled_back=1)
    database_proxy.restore()
    assert first.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "timeout")


def test_status_is_an_enum(start_promptd, atomicity, database, left):
    database.execute("drop view promptd_orphans, promptd_stuck")
    database.execute("create type state as enum ('enhancing', 'ready', 'failed', 'timeout')")
    database.execute("alter table interviews alter status type state using status::state")
    database.execute("create type origin as enum ('rag')")
    database.execute(f"alter table {PROMPTS} alter source type origin using source::origin")
    message, late = left(), left("timeout")
    promptd = start_promptd(atomicity=atomicity)
    wait_recovered(promptd, settled=1, rolled_back=1)
    expect_stored(database, message)
    expect_nothing_stored(database, late.interview, "timeout")


# Without the table


def test_transaction_needs_no_table(start_promptd, database, channel):
    database.execute("drop table promptd_unsettled cascade")
    promptd = start_promptd(atomicity="transaction", reconcile_interval_s=1)
    messages = [channel.publish(database.interview()), channel.publish(database.interview())]
    late = channel.publish(database.interview("timeout"))
    assert promptd.settle(3).outcomes() == {"success": 2, "failure": 1, "rollback": 1}
    expect_stored(database, *messages)
    expect_nothing_stored(database, late.interview, "timeout")
    time.sleep(1.5)
    assert promptd.find("WARNING|CRITICAL") == [] and len(promptd.find("ERROR")) == 1
    assert admin.of(promptd).ask("/readyz").status == 200


@pytest.mark.parametrize("with_spool", [False, True], ids=["memory", "spool"])
def test_table_is_missing_and_made(start_promptd, database, channel, new_folder, with_spool):
    """An installation of 0.1 with the new program: nothing is stored, nothing is lost, and it goes on by itself."""
    settings = {"spool_dir": new_folder("spool")} if with_spool else {}
    database.execute("drop table promptd_unsettled cascade")
    promptd = start_promptd(atomicity="compensate", heartbeat_interval_s=1, ready=False, **settings)
    line = promptd.wait_line("CRITICAL", "promptd_unsettled")
    assert "sql/01_schema.sql" in line.text
    channel.wait_subscribers(1)
    messages = [channel.publish(database.interview()) for _ in range(20)]
    promptd.wait_counters(received=20, waiting=20)
    answer = admin.of(promptd).ask("/readyz")
    assert answer.status == 503 and b"database" in answer.body
    time.sleep(2.5)  # some looks
    assert database.prompt_count() == 0 and database.statuses() == {"enhancing": 20}
    promptd.one("CRITICAL", "promptd_unsettled")
    if with_spool:
        promptd.stop()
        promptd = start_promptd(atomicity="compensate", heartbeat_interval_s=1, ready=False, **settings)
        promptd.wait_line("CRITICAL", "promptd_unsettled", "sql/01_schema.sql")
        promptd.wait_counters(received=20, waiting=20)
    database.cluster.apply_sql(database.name)
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert admin.of(promptd).ask("/readyz").status == 200
    promptd.one("CRITICAL", "sql/01_schema.sql")  # between two of the files there may be others, of privileges
    assert promptd.find("ERROR") == []


def test_table_is_dropped_while_it_runs(start_promptd, database, channel):
    """No message fails for it."""
    promptd = start_promptd(atomicity="compensate", heartbeat_interval_s=1)
    first = channel.publish(database.interview())
    promptd.settle(1)
    database.execute("drop table promptd_unsettled cascade")
    messages = [channel.publish(database.interview()) for _ in range(20)]
    promptd.wait_line("CRITICAL", "promptd_unsettled", "sql/01_schema.sql")
    promptd.wait_counters(received=21, waiting=20)
    assert database.prompt_count() == 1
    database.cluster.apply_sql(database.name)
    assert promptd.settle(21).outcomes() == {"success": 21}
    expect_stored(database, first, *messages)
    promptd.one("CRITICAL", "sql/01_schema.sql")
    assert promptd.find("ERROR") == []


def test_table_is_dropped_while_transactions_run(start_promptd, database, channel):
    promptd = start_promptd(atomicity="transaction")
    messages = [channel.publish(database.interview())]
    promptd.settle(1)
    database.execute("drop table promptd_unsettled cascade")
    messages += [channel.publish(database.interview()) for _ in range(20)]
    assert promptd.settle(21).outcomes() == {"success": 21}
    expect_stored(database, *messages)
    assert promptd.find("ERROR|CRITICAL") == []


def test_privilege_on_the_table_is_revoked_while_it_runs(start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", heartbeat_interval_s=1)
    database.execute(f"revoke insert on promptd_unsettled from {ROLE}")
    message = channel.publish(database.interview())
    promptd.wait_line("CRITICAL", "insert", "promptd_unsettled")
    promptd.wait_counters(received=1, waiting=1)
    database.cluster.apply_sql(database.name)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_privilege_on_the_table_is_missing(start_promptd, database, channel):
    database.execute(f"revoke insert on promptd_unsettled from {ROLE}")
    promptd = start_promptd(atomicity="compensate", heartbeat_interval_s=1, ready=False)
    line = promptd.wait_line("CRITICAL", "promptd_unsettled")
    assert "insert" in line.text
    channel.wait_subscribers(1)
    message = channel.publish(database.interview())
    promptd.wait_counters(received=1, waiting=1)
    database.cluster.apply_sql(database.name)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
