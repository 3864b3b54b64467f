# SPDX-License-Identifier: MIT
"""A prompt whose interview has once been made ready is never deleted, and no interview is ready without its prompt:
beside an application that moves interviews on, whatever is lost, killed, stalled or doubled."""

import contextlib
import sqlite3
import threading
import time

import pytest

from support.expect import expect_kept, expect_nothing_stored, expect_stored, expect_unsettled
from support.proxy import TO_CLIENT
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"


@pytest.fixture(params=[1, 20], ids=["single", "batch"])
def count(request):
    return request.param


def burst(channel, interviews):
    messages = [channel.message(interview) for interview in interviews]
    channel.publish_burst(messages)
    return messages


def move_on(database, to="in_progress"):
    """What the application does with interviews as soon as they are ready. Which they were: all that were sent to the
    database; a burst may begin with a batch of one, whose answer the rest waits for."""
    return wait_until(lambda: [str(id) for id, in database.rows(
        "update interviews set status = %s where status = 'ready' returning id", [to])], "interviews that are ready",
        seen=database.statuses)


# The answer is lost


@pytest.mark.parametrize("status", ["in_progress", "timeout", "failed"])
def test_answer_is_lost_and_the_interview_goes_on(start_promptd, atomicity, database, database_proxy, channel, count,
                                                  status):
    """Found settled at the reconnection: it is our own, and stays, whatever the interview's status is by now."""
    promptd = start_promptd(atomicity=atomicity, db_connections=1, reconcile_interval_s=1, recover_after_s=1,
                            database_url=database.url(database_proxy.port))
    with database.locked():
        messages = burst(channel, database.interviews(count))
        promptd.wait_counters(received=count)
        database.wait_blocked()
        database_proxy.stall(TO_CLIENT)
    moved = move_on(database, status)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    database_proxy.restore()
    assert promptd.settle(count).outcomes() == {"success": count}
    expect_kept(database, *(message for message in messages if message.interview in moved), status=status)
    expect_stored(database, *(message for message in messages if message.interview not in moved))
    assert promptd.find("CRITICAL") == []


def test_answer_is_lost_and_promptd_killed(start_promptd, atomicity, database, database_proxy, channel, spool, count):
    """The next process has its messages, and finds settled those that were sent."""
    promptd = start_promptd(atomicity=atomicity, db_connections=1, spool_dir=spool.folder,
                            database_url=database.url(database_proxy.port))
    with database.locked():
        messages = burst(channel, database.interviews(count))
        promptd.wait_line("DEBUG", "message is on disk", count=count)
        database.wait_blocked()
        database_proxy.stall(TO_CLIENT)
    moved = move_on(database)
    promptd.crash()
    database_proxy.restore()
    promptd = start_promptd(atomicity=atomicity, spool_dir=spool.folder)
    counters = promptd.settle(count)
    assert counters["duplicate"] == len(moved) and counters["success"] == count - len(moved)
    expect_kept(database, *(message for message in messages if message.interview in moved), status="in_progress")
    expect_stored(database, *(message for message in messages if message.interview not in moved))
    assert promptd.find("ERROR|CRITICAL") == []


def test_killed_between_the_outcome_and_its_mark_on_disk(start_promptd, atomicity, database, channel, spool, count):
    promptd = start_promptd(atomicity=atomicity, spool_dir=spool.folder)
    with database.held("interviews", "update") as held:
        messages = burst(channel, database.interviews(count))
        promptd.wait_line("DEBUG", "message is on disk", count=count)
        other = sqlite3.connect(spool.path, isolation_level=None)
        with contextlib.closing(other):
            other.execute("begin immediate")  # nothing is written there from now on
            held.release()
            promptd.wait_counters(success=count)
            move_on(database)
            promptd.crash()
    assert len(spool.waiting()) == count
    promptd = start_promptd(atomicity=atomicity, spool_dir=spool.folder)
    assert promptd.settle(count).outcomes() == {"duplicate": count}
    expect_kept(database, *messages, status="in_progress")


# Two of them, and one is stalled


def test_stalled_before_its_insert(start_promptd, atomicity, database, channel, count):
    first, second = (start_promptd(atomicity=atomicity) for _ in range(2))
    first.freeze()
    messages = burst(channel, database.interviews(count))
    assert second.settle(count).outcomes() == {"success": count}
    move_on(database)
    first.thaw()
    assert first.settle(count).outcomes() == {"duplicate": count}
    expect_kept(database, *messages, status="in_progress")


@pytest.mark.parametrize("status", ["in_progress", "failed"])
def test_stalled_between_insert_and_settle(start_promptd, database, channel, status):
    """Its prompt is settled by the other, and the interview goes on. Its own settle has met an error meanwhile."""
    first = start_promptd(atomicity="compensate", db_connections=1)
    interview = database.interview()
    with database.held("interviews", "update", TO_READY) as held:
        message = channel.publish(interview)
        pid, = database.wait_blocked()
        first.freeze()
        second = start_promptd(atomicity="compensate", db_connections=1, ready=False)
        channel.wait_subscribers(2)
        second.wait_line("INFO", "database connected")
        channel.publish_message(message, listeners=2)
        expect_unsettled(database, message, "enhancing")
        database.execute("select pg_cancel_backend(%s)", [pid])
        wait_until(lambda: pid not in database.wait_blocked(), "the other one's settle")
        held.release()
        assert second.settle(1).outcomes() == {"success": 1}
        move_on(database, status)
    first.thaw()
    assert first.settle(2).outcomes() == {"duplicate": 2}
    expect_kept(database, message, status=status)


def test_stalled_now_and_then(start_promptd, atomicity, database, channel):
    """Two with everything twice, an application that goes on at once, and each of the two is stalled for a second."""
    promptds = [start_promptd(atomicity=atomicity, statement_timeout_ms=2000, reconcile_interval_s=1, recover_after_s=1)
                for _ in range(2)]
    messages = [channel.message(interview) for interview in database.interviews(600)]
    done = threading.Event()

    def application():
        with database.cluster.connect(database.name) as connection:
            while not done.is_set():
                connection.execute("update interviews set status = 'in_progress' where status = 'ready'")

    thread = threading.Thread(target=application)
    thread.start()
    try:
        for part in range(0, 600, 100):
            stalled = promptds[part // 100 % 2]
            channel.publish_burst(messages[part:part + 50])
            stalled.freeze()
            channel.publish_burst(messages[part + 50:part + 100])
            time.sleep(1)
            stalled.thaw()
        counters = [promptd.settle(600) for promptd in promptds]
    finally:
        done.set()
        thread.join()
    database.execute("update interviews set status = 'in_progress' where status = 'ready'")
    expect_kept(database, *messages, status="in_progress")
    assert database.unsettled() == [] and database.prompt_count() == 600
    assert [each["failure"] for each in counters] == [0, 0]
    assert sum(each["success"] for each in counters) == 600 == sum(each["duplicate"] for each in counters)


# Other rules after a restart


NEW_RULES = {"prompt_max_chars": {"prompt_max_chars": 20}, "message_max_bytes": {"message_max_bytes": 100},
             "sources": {"sources": "new_data"}, "prompt_min_chars": {"prompt_min_chars": 20000}}


@pytest.fixture
def judged_anew(start_promptd, database, channel, spool):
    """Killed when the insert is committed and the settle is not, and started again with rules that refuse the message."""
    def make(rules, meanwhile=None, **settings):
        promptd = start_promptd(atomicity="compensate", spool_dir=spool.folder)
        with database.held("interviews", "update", TO_READY):
            message = channel.publish(database.interview())
            database.wait_blocked()
            expect_unsettled(database, message, "enhancing")
            promptd.crash()
            database.terminate_sessions()
        expect_unsettled(database, message, "enhancing")
        if meanwhile:
            database.execute(meanwhile)
        promptd = start_promptd(spool_dir=spool.folder, **{"atomicity": "compensate", "reconcile_interval_s": 0, **rules,
                                                           **settings})
        return promptd, message

    return make


@pytest.mark.parametrize("rules", NEW_RULES)
def test_other_rules_and_the_interview_waits(judged_anew, database, spool, rules):
    """It was accepted, and its prompt is there: it is settled."""
    promptd, message = judged_anew(NEW_RULES[rules])
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    promptd.wait_counters(spool_messages=0, dead_letters=0)
    assert promptd.find("ERROR|CRITICAL") == []


@pytest.mark.parametrize("rules", NEW_RULES)
def test_other_rules_and_the_interview_waits_no_longer(judged_anew, database, rules):
    promptd, message = judged_anew(NEW_RULES[rules], "update interviews set status = 'timeout'")
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "timeout")


@pytest.mark.parametrize("rules", NEW_RULES)
def test_other_rules_and_another_one_has_settled_it(judged_anew, database, rules):
    promptd, message = judged_anew(NEW_RULES[rules], """
        begin; delete from promptd_unsettled; update interviews set status = 'in_progress'; commit""")
    assert promptd.settle(1).outcomes() == {"duplicate": 1}
    expect_kept(database, message, status="in_progress")


@pytest.mark.parametrize("rules", NEW_RULES)
def test_other_rules_and_nothing_was_inserted(judged_anew, database, rules):
    """Then they count."""
    promptd, message = judged_anew(NEW_RULES[rules], f"begin; delete from {PROMPTS}; delete from promptd_unsettled; commit")
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    expect_nothing_stored(database, message.interview, "failed")


def test_other_rules_and_the_other_atomicity(judged_anew, database):
    promptd, message = judged_anew(NEW_RULES["prompt_max_chars"], atomicity="transaction")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_other_rules_and_the_recovery(judged_anew, database):
    """Both know of it, and one of them settles it."""
    promptd, message = judged_anew(NEW_RULES["prompt_max_chars"], reconcile_interval_s=1, recover_after_s=1)
    counters = promptd.settle(1)
    assert counters["success"] + counters["duplicate"] == 1 and counters["rejected"] == 0
    expect_stored(database, message)


@pytest.mark.parametrize("count", [1, 40])
def test_evidence_that_outlived_its_prompt(start_promptd, database, channel, count):
    """Somebody has deleted the prompt that it speaks of. It goes with the new one's settle."""
    promptd = start_promptd(atomicity="compensate", db_connections=1)
    messages = [channel.message(interview) for interview in database.interviews(count)]
    database.add_evidence(messages[count // 2], age="1 second")
    channel.publish_burst(messages)
    assert promptd.settle(count).outcomes() == {"success": count}
    for message in messages:
        expect_stored(database, message)
    assert database.unsettled() == []


def in_one_batch(promptd, database, channel, messages):
    """The only session is busy with a first message until all of the others are there."""
    first = channel.message(database.interview())
    with database.held(PROMPTS, "insert", when=f"new.id = '{first.id}'"):
        channel.publish_burst([first])
        database.wait_blocked()
        channel.publish_burst(messages)
        promptd.wait_counters(received=1 + len(messages))
    return promptd.settle(1 + len(messages)).outcomes()


@pytest.mark.parametrize("others", [1, 19])
def test_who_is_left_of_a_batch_does_not_answer_for_it(start_promptd, database, channel, others):
    """The insert fails by one of them; all the others are settled in the same flush, and leave it alone with that."""
    promptd = start_promptd(atomicity="compensate", db_connections=1)
    messages = [channel.message(interview) for interview in database.interviews(others + 1)]
    database.add_evidence(messages[0], age="1 second")
    database.leave_unsettled(*messages[1:], age="1 second")
    outcomes = in_one_batch(promptd, database, channel, messages)
    assert sum(outcomes.values()) == others + 2 and set(outcomes) <= {"success", "duplicate"}
    expect_stored(database, *messages)
    assert database.unsettled() == []


def test_who_is_left_of_a_batch_does_not_answer_for_the_one_that_was_settled(start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", db_connections=1)
    there, other = (channel.message(interview) for interview in database.interviews(2))
    database.leave_unsettled(there, age="1 second")
    database.raise_on(PROMPTS, "insert", when=f"new.id = '{there.id}'")
    outcomes = in_one_batch(promptd, database, channel, [there, other])
    assert set(outcomes) <= {"success", "duplicate"} and promptd.find("ERROR") == []
    expect_stored(database, there, other)


@pytest.mark.parametrize("connections", [1, 4])
def test_evidence_that_somebody_has_locked_holds_up_no_other(start_promptd, database, channel, connections):
    promptd = start_promptd(atomicity="compensate", db_connections=connections)
    held = [channel.message(interview) for interview in database.interviews(connections)]
    database.leave_unsettled(*held, age="1 second")
    with database.cluster.connect(database.name) as somebody, somebody.transaction():
        somebody.execute("select from promptd_unsettled for update")
        channel.publish_burst(held)
        others = [channel.publish(interview) for interview in database.interviews(20)]
        promptd.wait_counters(success=20, waiting=connections, timeout=5)
        assert all(event != "Lock" for _, _, event, _ in database.sessions())
        expect_stored(database, *others)
    promptd.settle(20 + connections)
    expect_stored(database, *held)


def test_redelivered_and_refused_though_it_was_stored(start_promptd, atomicity, database, database_proxy, channel, spool):
    """Killed before the disk knew that it was stored. That the insert is refused now does not make it a failure."""
    settings = {"atomicity": atomicity, "spool_dir": spool.folder, "database_url": database.url(database_proxy.port)}
    promptd = start_promptd(**settings)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    message = channel.publish(database.interview("ready"))
    promptd.wait_line("DEBUG", "message is on disk")
    promptd.crash()
    database.add_prompt(message)
    database.raise_on(PROMPTS, "insert", "not again")
    database_proxy.restore()
    promptd = start_promptd(**settings)
    assert promptd.settle(1).outcomes() == {"duplicate": 1} and promptd.find("ERROR|CRITICAL") == []
    expect_stored(database, message)
