# SPDX-License-Identifier: MIT
"""The process: how it ends, what it still settles, and how it reports."""

import os
import signal
import time
from datetime import datetime

import pytest

from support.expect import expect_nothing_stored, expect_stored, expect_unsettled
from support.redis_server import burst
from support.wait import SLOW, wait_until

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"


def stop_in_time(promptd, seconds, number=signal.SIGTERM):
    """It ends well, and closing is set aside of shutdown_timeout_s: not a second later."""
    began = time.monotonic()
    promptd.kill(number)
    assert promptd.wait_exit() == 0
    assert time.monotonic() - began < seconds + 0.5 * SLOW


def expect_named(promptd, messages):
    """What has no outcome is dropped, or waits in the database for whoever settles it."""
    for message in messages:
        line = promptd.one("WARNING|ERROR|CRITICAL", message.interview)
        if line.level == "WARNING":
            assert (line.fields["interview_id"], line.fields["prompt_id"]) == (message.interview, message.id)


# The end


@BOTH
def test_ends_at_once_when_idle(start_promptd, database, channel, number):
    promptd = start_promptd()
    began = time.monotonic()
    promptd.stop(number)
    assert time.monotonic() - began < 2 * SLOW
    assert channel.subscribers() == 0
    wait_until(lambda: database.sessions() == [], "the sessions to end", seen=database.sessions)


@BOTH
def test_settles_what_is_in_flight(start_promptd, atomicity, database, channel, number):
    promptd = start_promptd(atomicity=atomicity)
    with database.locked():
        messages = burst(channel, database)
        promptd.wait_counters(received=50)
        database.wait_blocked()
        promptd.kill(number)
        wait_until(lambda: channel.subscribers() == 0, "promptd to stop receiving")
    assert promptd.wait_exit() == 0
    expect_stored(database, *messages)
    assert promptd.find("ERROR|CRITICAL") == []


def test_settles_more_than_one_batch(start_promptd, database, channel):
    promptd = start_promptd(db_connections=1, batch_max=10)
    with database.locked():
        messages = burst(channel, database, 200)
        promptd.wait_counters(received=200)
        promptd.kill(signal.SIGTERM)
        wait_until(lambda: channel.subscribers() == 0, "promptd to stop receiving")
    assert promptd.wait_exit() == 0
    expect_stored(database, *messages)


def test_settles_failures_too(start_promptd, atomicity, database, channel):
    """The way back takes several steps; none may be left out at the end."""
    promptd = start_promptd(atomicity=atomicity)
    database.raise_on("interviews", "update", "not ready", when="new.status = 'ready'")
    with database.locked():
        messages = burst(channel, database)
        promptd.wait_counters(received=50)
        promptd.kill(signal.SIGTERM)
        wait_until(lambda: channel.subscribers() == 0, "promptd to stop receiving")
    assert promptd.wait_exit() == 0
    assert database.prompt_count() == 0 and database.statuses() == {"failed": 50}
    for message in messages:
        promptd.one("ERROR", message.interview)


@pytest.mark.parametrize("first, second", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM),
                                           (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_second_signal_ends_at_once(start_promptd, database, channel, first, second):
    promptd = start_promptd(shutdown_timeout_s=60)
    with database.locked():
        burst(channel, database)
        promptd.wait_counters(received=50)
        database.wait_blocked()
        promptd.kill(first)
        wait_until(lambda: channel.subscribers() == 0, "promptd to stop receiving")
        began = time.monotonic()
        promptd.kill(second)
        assert promptd.wait_exit() == 128 + second
        assert time.monotonic() - began < 2 * SLOW


@BOTH
def test_ends_in_time_and_names_what_is_not_settled(start_promptd, atomicity, database, channel, number):
    promptd = start_promptd(atomicity=atomicity, shutdown_timeout_s=1)
    with database.locked():
        messages = burst(channel, database, 30)
        promptd.wait_counters(received=30)
        database.wait_blocked()
        stop_in_time(promptd, 1, number)
        expect_named(promptd, messages)
        wait_cancelled(database)
    assert database.prompt_count() == 0 and database.statuses() == {"enhancing": 30}


def test_shortest_timeout_leaves_time_for_settling(start_promptd, database, channel):
    promptd = start_promptd(shutdown_timeout_s=1)
    with database.locked():
        channel.publish(database.interview())
        promptd.wait_counters(received=1)
        database.wait_blocked()
        stop_in_time(promptd, 1, signal.SIGTERM)
    began, over = (datetime.fromisoformat(promptd.one(level, words).time.rstrip("Z")) for level, words in
                   (("INFO", "stopping on"), ("WARNING", "shutdown_timeout_s is over")))
    assert (over - began).total_seconds() >= 0.2


def wait_cancelled(database):
    """A closed connection ends no statement: it has to be cancelled, or it would go on when whatever holds it is gone."""
    wait_until(lambda: database.sessions() == [], "the statements to be cancelled", seen=database.sessions)


HELD = {
    "insert": (PROMPTS, "insert", None),
    "settle": ("interviews", "update", TO_READY),
    "undo": (PROMPTS, "delete", None),
    "mark": ("interviews", "update", "new.status = 'failed'"),
}


@pytest.fixture(params=[1, 30], ids=["single", "batch"])
def stopped_while_held(request, start_promptd, database, channel):
    """stopped_while_held(step, **settings): promptd was stopped while a statement of that step was held, for longer than
    promptd may take. Returns it and the messages."""
    def stop(step, **settings):
        promptd = start_promptd(shutdown_timeout_s=2, **settings)
        if step in ("undo", "mark"):
            database.raise_on("interviews", "update", "not ready", when=TO_READY)
        with database.held(*HELD[step]):
            messages = burst(channel, database, request.param)
            promptd.wait_counters(received=request.param)
            database.wait_blocked()
            stop_in_time(promptd, 2)
            wait_cancelled(database)
        database.drop_faults()
        return promptd, messages

    return stop


def expect_no_ready_without_prompt(database):
    """Whatever else: the sentence that the contract begins with."""
    assert database.rows(f"""select from interviews i where status = 'ready' and not exists (
                             select from {PROMPTS} p where p.interview_id = i.id
                             and not exists (select from promptd_unsettled u where u.prompt_id = p.id))""") == []


@pytest.mark.parametrize("step", ["insert", "settle"])
def test_next_promptd_settles_what_was_left(stopped_while_held, start_promptd, database, step):
    """By the evidence: it never received the messages. What was not inserted yet is dropped, and said so."""
    first, messages = stopped_while_held(step)
    expect_named(first, messages)
    unsettled = [message for message in messages if database.prompts(message.interview)]
    assert bool(unsettled) == (step == "settle")
    for message in unsettled:
        expect_unsettled(database, message, "enhancing")
        first.one("WARNING", message.interview)
    expect_no_ready_without_prompt(database)
    second = start_promptd(recover_after_s=1, reconcile_interval_s=1)
    second.wait_counters(recovered_settled=len(unsettled))
    expect_stored(database, *unsettled)
    for message in unsettled:
        second.one("INFO", f"unsettled prompt settled for interview {message.interview}")
    assert second.counters()["received"] == 0


def test_next_promptd_undoes_what_was_left(stopped_while_held, start_promptd, database):
    first, messages = stopped_while_held("undo")
    expect_named(first, messages)
    unsettled = [message for message in messages if database.prompts(message.interview)]  # the others were dropped
    assert unsettled
    for message in unsettled:
        expect_unsettled(database, message, "enhancing")
        first.one("WARNING", message.interview)
    interviews = [message.interview for message in unsettled]
    database.execute("update interviews set status = 'timeout' where id = any(%s::uuid[])", [interviews])
    second = start_promptd(recover_after_s=1, reconcile_interval_s=1)
    second.wait_counters(recovered_rolled_back=len(unsettled))
    for message in unsettled:
        expect_nothing_stored(database, message.interview, "timeout")
        second.one("INFO", f"unsettled prompt rolled back for interview {message.interview}")


def test_outcome_is_told_although_its_marking_was_held(stopped_while_held, database):
    first, messages = stopped_while_held("mark")
    marking = [message for message in messages if first.find("ERROR", "rolled back", message.interview)]
    assert marking
    for message in marking:
        expect_nothing_stored(database, message.interview, "enhancing")
        first.one("CRITICAL", f"INTERVIEW STUCK: {message.interview}")
    for message in set(messages) - set(marking):  # those that waited behind them
        if database.prompts(message.interview):
            expect_unsettled(database, message, "enhancing")
            first.one("WARNING", message.interview)
        else:
            first.one("ERROR", "message dropped", message.interview)


@pytest.mark.parametrize("step", HELD)
def test_next_promptd_goes_on_from_the_spool(stopped_while_held, start_promptd, atomicity, database, new_folder, step):
    if atomicity == "transaction" and step == "undo":
        step = "mark"  # the server undoes it
    spool = new_folder("spool")
    first, messages = stopped_while_held(step, atomicity=atomicity, spool_dir=spool)
    expect_no_ready_without_prompt(database)
    assert first.find("ERROR|CRITICAL") == []
    for message in messages:
        first.one("INFO", message.interview, "is left for the next start")
    second = start_promptd(atomicity=atomicity, spool_dir=spool, reconcile_interval_s=0)
    assert second.settle(len(messages)).outcomes() == {"success": len(messages)}
    expect_stored(database, *messages)


def test_transaction_leaves_nothing_unsettled(stopped_while_held, database):
    first, messages = stopped_while_held("settle", atomicity="transaction")
    for message in messages:
        expect_nothing_stored(database, message.interview, "enhancing")
        first.one("ERROR", "dropped", message.interview)
    assert first.find("WARNING", "is settled") == []


def test_ends_in_time_with_the_database_away(start_promptd, database, channel, database_proxy):
    promptd = start_promptd(database_url=database.url(database_proxy.port), shutdown_timeout_s=1)
    database_proxy.refuse()
    messages = burst(channel, database, 10)
    promptd.wait_counters(received=10)
    stop_in_time(promptd, 1)
    expect_named(promptd, messages)


def test_names_what_is_in_work_when_a_cancel_hangs(start_promptd, atomicity, database, channel, database_proxy):
    """The server has vanished: the thread that would cancel the statement does not come home, and its batch neither."""
    promptd = start_promptd(atomicity=atomicity, database_url=database.url(database_proxy.port), shutdown_timeout_s=1,
                            statement_timeout_ms=300, db_connections=1)
    with database.locked():
        messages = burst(channel, database, 30)
        promptd.wait_counters(received=30)
        database.wait_blocked()
        database_proxy.swallow()
        promptd.wait_line("DEBUG", "cancelling a statement")
        stop_in_time(promptd, 1)
    expect_named(promptd, messages)


def test_cancel_without_effect_is_repeated(start_promptd, database, channel, database_proxy):
    """One that arrives before its statement has begun cancels nothing; this one does not arrive at all."""
    promptd = start_promptd(database_url=database.url(database_proxy.port), shutdown_timeout_s=2, db_connections=1)
    with database.held("interviews", "update", TO_READY):
        message = channel.publish(database.interview())
        database.wait_blocked()
        database_proxy.hang_up_next()
        stop_in_time(promptd, 2)
        wait_cancelled(database)
        expect_unsettled(database, message, "enhancing")
    expect_named(promptd, [message])


@pytest.fixture
def cancel_hangs(start_promptd, database, channel, database_proxy):
    """A promptd whose statement is held, and whose server answers no new connection; its message, and the one who holds."""
    promptd = start_promptd(database_url=database.url(database_proxy.port), shutdown_timeout_s=2, db_connections=1)
    with database.held("interviews", "update", TO_READY) as held:
        message = channel.publish(database.interview())
        database.wait_blocked()
        database_proxy.deafen_new()
        yield promptd, message, held


def test_statement_that_could_not_be_cancelled_does_no_harm(cancel_hangs, database, database_proxy):
    """It goes on without its client, and settles what it has inserted."""
    promptd, message, held = cancel_hangs
    accepted = database_proxy.accepted
    stop_in_time(promptd, 2)
    assert database_proxy.accepted == accepted + 1
    expect_named(promptd, [message])
    held.release()
    wait_until(lambda: database.sessions() == [], "the statement to end", seen=database.sessions)
    expect_stored(database, message)


@pytest.fixture
def dial_hangs(start_promptd, database, channel, database_proxy):
    """A promptd whose dials of the database are taken, and not answered."""
    database_proxy.stall()
    promptd = start_promptd(ready=False, database_url=database.url(database_proxy.port), shutdown_timeout_s=2)
    promptd.wait_line("INFO", "subscribed")
    message = channel.publish(database.interview())
    promptd.wait_counters(received=1)
    wait_until(lambda: database_proxy.accepted, "the dial to be taken")
    return promptd, message


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP],
                         ids=["SIGUSR1", "SIGUSR2", "SIGHUP"])
@pytest.mark.parametrize("hanging", ["cancel_hangs", "dial_hangs"])
def test_late_signals_while_something_hangs(request, hanging, number):
    """Whatever is closed already is not touched again."""
    promptd, message, *_ = request.getfixturevalue(hanging)
    began = time.monotonic()
    promptd.kill(signal.SIGTERM)
    while promptd.process.poll() is None:
        promptd.kill(number)
        time.sleep(0.001)
    assert promptd.wait_exit() == 0
    assert time.monotonic() - began < 2 + 0.5 * SLOW
    expect_named(promptd, [message])


def test_ends_while_nothing_can_be_reached(start_promptd, new_proxy, redis_server, postgres, database):
    redis_proxy, database_proxy = new_proxy(redis_server.socket), new_proxy(("127.0.0.1", postgres.port))
    redis_proxy.refuse()
    database_proxy.refuse()
    promptd = start_promptd(ready=False, redis_url=f"redis://127.0.0.1:{redis_proxy.port}",
                            database_url=database.url(database_proxy.port))
    promptd.wait_line("WARNING|ERROR|CRITICAL", "edis")
    began = time.monotonic()
    promptd.stop()
    assert time.monotonic() - began < 3 * SLOW


def test_ends_while_a_dial_hangs(start_promptd, new_proxy, redis_server, postgres, database):
    redis_proxy, database_proxy = new_proxy(redis_server.socket), new_proxy(("127.0.0.1", postgres.port))
    redis_proxy.stall()
    database_proxy.stall()
    promptd = start_promptd(ready=False, redis_url=f"redis://127.0.0.1:{redis_proxy.port}", shutdown_timeout_s=2,
                            database_url=database.url(database_proxy.port))
    wait_until(lambda: redis_proxy.accepted and database_proxy.accepted, "both dials to hang")
    began = time.monotonic()
    promptd.stop()
    assert time.monotonic() - began < 2 + 2 * SLOW


def test_closed_standard_error_ends_nothing(start_promptd, database, channel):
    """SIGPIPE: whoever read the log is gone, the prompts are not."""
    reader, writer = os.pipe()
    promptd = start_promptd(stderr=writer)
    promptd.quiet = True
    os.close(writer)
    os.close(reader)
    messages = [channel.publish(database.interview()) for _ in range(10)]
    wait_until(lambda: database.statuses() == {"ready": 10}, "the prompts to be stored", seen=database.statuses)
    expect_stored(database, *messages)
    promptd.stop()


# SIGUSR1


@pytest.mark.parametrize("level", ["info", "critical"])
def test_state_is_written_to_the_log(start_promptd, database, channel, level):
    promptd = start_promptd(log_level=level)
    assert promptd.counters()["received"] == 0
    channel.publish(database.interview())
    channel.publish(database.interview("completed"))
    channel.publish_raw(b"rubbish")
    counters = promptd.settle(3)
    assert counters.outcomes() == {"success": 1, "failure": 1, "rollback": 1, "rejected": 1}


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP],
                         ids=["SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_signals_until_the_end(start_promptd, database, channel, number):
    """Also when what they are about is closed already, one thing after the other."""
    for _ in range(3):
        channel.wait_subscribers(0)
        promptd = start_promptd()
        channel.publish(database.interview())
        promptd.settle(1)
        promptd.kill(signal.SIGTERM)
        while promptd.process.poll() is None:
            promptd.kill(number)
            time.sleep(0.0005)
        assert promptd.wait_exit() == 0
