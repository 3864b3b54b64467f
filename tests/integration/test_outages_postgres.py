# SPDX-License-Identifier: MIT
"""PostgreSQL goes away, refuses or hangs: messages wait, use up no attempts, and come to the end they would have."""

import contextlib
import signal
import threading
import time

import pytest

from support.expect import expect_nothing_stored, expect_stored
from support.postgres import ROLE
from support.proxy import POSTGRES_READY
from support.wait import SLOW, wait_until

PROMPTS = "interview_enhanced_prompts"
INSERT = rb"insert\s+into\s+\S*interview_enhanced_prompts"

# An outage that used up an attempt would end in a failure at once.
ONE_TRY = {"retry_attempts": 1}


def burst(channel, database, count=20, status="enhancing"):
    messages = [channel.message(interview) for interview in database.interviews(count, status)]
    channel.publish_burst(messages)
    return messages


@contextlib.contextmanager
def load(channel, interviews, pause=0.002):
    """Publishes a message for each interview, in a thread of its own. Gives the list of what was published."""
    messages, failures, done = [], [], threading.Event()

    def publish():
        try:
            for interview in interviews:
                if done.is_set():
                    return
                messages.append(channel.publish(interview))
                time.sleep(pause)
        except Exception as error:  # to be seen by the test, whatever it is
            failures.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield messages
    finally:
        done.set()
        thread.join()
    assert failures == []


# Away


def test_restart_under_load(start_promptd, atomicity, postgres, database, channel):
    """A fast shutdown ends sessions in the middle of their statements."""
    promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
    interviews = database.interviews(2000)
    with load(channel, interviews) as messages:
        wait_until(lambda: len(messages) > 200, "some load")
        database.disconnect()
        postgres.stop()
        promptd.wait_line("ERROR", "database lost")
        before = len(messages)
        wait_until(lambda: len(messages) > before + 200, "messages that wait")
        postgres.start()
        database.reconnect()
        promptd.wait_line("INFO", "database back")
    assert promptd.settle(len(messages), timeout=40).outcomes() == {"success": len(messages)}
    expect_stored(database, *messages)
    assert database.prompt_count() == len(messages)
    assert promptd.find("CRITICAL") == [] and len(promptd.find("ERROR")) == 1


def test_crash_of_the_server(start_promptd, atomicity, postgres, database, channel):
    """kill -9 of a backend takes the whole server through recovery: all sessions end, and logins are refused meanwhile."""
    database.execute(f"alter database {database.name} set synchronous_commit = on")  # committed is committed
    promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
    interviews = database.interviews(2000)
    database.execute("checkpoint")
    with load(channel, interviews) as messages:
        wait_until(lambda: len(messages) > 100, "some load")
        victim = database.sessions()[0][0]
        database.disconnect()
        postgres.kill_backend(victim)
        promptd.wait_line("ERROR", "database lost")
        promptd.wait_line("INFO", "database back", timeout=30)
        database.reconnect()
    assert promptd.settle(len(messages), timeout=40).outcomes() == {"success": len(messages)}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == []


def test_storm_of_terminations_under_load(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
    interviews = database.interviews(4000)
    with load(channel, interviews, 0.001) as messages:
        for _ in range(40):
            database.terminate_sessions()
            time.sleep(0.05)
    assert promptd.settle(len(messages), timeout=60).outcomes() == {"success": len(messages)}
    assert database.prompt_count() == len(messages)
    expect_stored(database, *messages[::20])
    assert promptd.find("CRITICAL") == []


def test_frozen_server(start_promptd, atomicity, postgres, database, channel):
    """Sessions that answer nothing are given up after the statement's deadline; messages wait for the thaw."""
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=2000, **ONE_TRY)
    interviews = database.interviews(1000)
    messages = [channel.publish(interview) for interview in interviews[:20]]
    promptd.settle(20)
    postgres.freeze()
    try:
        began = time.monotonic()
        messages += [channel.publish(interview) for interview in interviews[20:100]]
        promptd.wait_line("ERROR", "database lost")
        assert time.monotonic() - began < 8 * SLOW
        messages += [channel.publish(interview) for interview in interviews[100:150]]
        counters = promptd.counters()
        assert counters["waiting"] == 130 and counters["database_up"] == 0
        time.sleep(1)
    finally:
        postgres.thaw()
    assert promptd.settle(150, timeout=30).outcomes() == {"success": 150}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == [] and len(promptd.find("ERROR")) == 1


def test_frozen_idle_server_is_found_by_the_heartbeat(start_promptd, postgres, database, channel):
    promptd = start_promptd(statement_timeout_ms=1000, heartbeat_interval_s=1)
    postgres.freeze()
    try:
        began = time.monotonic()
        wait_until(lambda: promptd.counters()["database_up"] == 0, "the silence to be noticed", 15)
        assert time.monotonic() - began < 7 * SLOW  # beat, deadline, and three seconds for the request to cancel
    finally:
        postgres.thaw()
    message = channel.publish(database.interview())
    promptd.settle(1)
    expect_stored(database, message)


def test_redis_comes_back_while_the_database_is_frozen(start_promptd, postgres, database, channel, redis_server):
    """Threads that wait for a frozen server must not keep others from their work."""
    promptd = start_promptd(db_connections=16, batch_max=1, statement_timeout_ms=500, heartbeat_interval_s=1)
    messages = [channel.message(interview) for interview in database.interviews(100)]
    postgres.freeze()
    try:
        channel.publish_burst(messages)
        promptd.wait_line("DEBUG", "cancelling a statement", count=16)
        redis_server.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        promptd.wait_line("WARNING", "subscription restored", timeout=3)
    finally:
        postgres.thaw()
    assert promptd.settle(100, timeout=30).outcomes() == {"success": 100}
    expect_stored(database, *messages)


@pytest.mark.parametrize("fault", ["swallow", "deafen"])
def test_black_hole(start_promptd, atomicity, database, database_proxy, channel, fault):
    """Every packet vanishes, or only those of the connections there are: a firewall has forgotten them."""
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=1000, heartbeat_interval_s=1,
                            database_url=database.url(database_proxy.port), **ONE_TRY)
    getattr(database_proxy, fault)()
    messages = burst(channel, database, 50)
    if fault == "swallow":
        promptd.wait_line("ERROR", "database lost")
        database_proxy.restore()
    assert promptd.settle(50, timeout=30).outcomes() == {"success": 50}
    expect_stored(database, *messages)
    assert database.prompt_count() == 50 and promptd.find("CRITICAL") == []


def test_circuit_of_the_database(start_promptd, database, database_proxy, channel):
    promptd = start_promptd(breaker_failures=3, breaker_reset_s=3600, database_url=database.url(database_proxy.port))
    database_proxy.refuse()
    messages = burst(channel, database)
    promptd.wait_line("CRITICAL", "database circuit opened", timeout=20)
    assert promptd.counters()["db_circuit_open"] == 1
    database_proxy.restore()
    promptd.kill(signal.SIGUSR2)
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert promptd.counters()["db_circuit_open"] == 0
    promptd.one("CRITICAL", "circuit opened")


@pytest.mark.parametrize("is_done", [True, False], ids=["done", "not done"])
def test_away_between_insert_and_settle(start_promptd, database, database_proxy, channel, is_done):
    """For longer than any patience: what was begun waits like everything else, and is found as it is."""
    promptd = start_promptd(atomicity="compensate", db_connections=1, recover_after_s=1, reconcile_interval_s=1,
                            lock_patience_s=1, database_url=database.url(database_proxy.port), **ONE_TRY)
    with database.held("interviews", "update", "new.status = 'ready'"):
        messages = burst(channel, database, 30)
        database.wait_blocked()
        promptd.wait_counters(received=30)
        database_proxy.refuse()
        promptd.wait_line("ERROR", "database lost")
        if not is_done:
            database.terminate_sessions()
            wait_until(lambda: database.sessions() == [], "the session to end")
    assert database.prompt_count() >= 1
    messages += burst(channel, database, 10)
    time.sleep(3)
    assert promptd.counters()["waiting"] == 40 and len(promptd.find("ERROR|CRITICAL")) == 1
    assert bool(database.unsettled()) != is_done
    database_proxy.restore()
    assert promptd.settle(40).outcomes() == {"success": 40}
    expect_stored(database, *messages)
    assert database.unsettled() == [] and promptd.find("CRITICAL") == []


@pytest.mark.parametrize("arrived", [True, False])
def test_insert_in_doubt_waits(start_promptd, atomicity, database, database_proxy, channel, arrived):
    """Nobody can know whether it was done; that is no orphan, and no failure."""
    promptd = start_promptd(atomicity=atomicity, db_connections=1, database_url=database.url(database_proxy.port), **ONE_TRY)
    if arrived:
        database_proxy.lose_reply(INSERT, reply_end=POSTGRES_READY, stay_away=True)
    else:
        database_proxy.cut_at(INSERT, stay_away=True)
    message = channel.publish(database.interview())
    promptd.wait_line("ERROR", "database lost")
    wait_until(lambda: len(database.prompts(message.interview)) == arrived, "the insert, if any")
    assert promptd.counters()["waiting"] == 1
    database_proxy.restore()
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert promptd.find("CRITICAL") == []


def test_killed_when_a_trigger_has_kept_the_prompt_out(start_promptd, atomicity, database, database_proxy, channel):
    """The interview was never ready for others to see, so nobody has to live to take that back."""
    promptd = start_promptd(atomicity=atomicity, database_url=database.url(database_proxy.port))
    database.trigger(PROMPTS, "insert", "return null;")
    database.trigger("interviews", "update", "raise exception 'never';", when="new.status = 'ready'")
    database_proxy.lose_reply(INSERT, reply_end=POSTGRES_READY, stay_away=True)
    interview = channel.publish(database.interview()).interview
    wait_until(lambda: database_proxy.fired == 1, "the statements to be done")
    promptd.wait_line("ERROR", "database lost")
    promptd.crash()
    expect_nothing_stored(database, interview, "enhancing")


# There, and refusing


def test_too_many_connections_for_the_role(start_promptd, atomicity, postgres, database, channel):
    promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
    with postgres.connect("postgres") as superuser:
        superuser.execute(f"alter role {ROLE} connection limit 0")
        try:
            database.terminate_sessions()
            messages = burst(channel, database)
            promptd.wait_line("ERROR", "database lost")
            assert promptd.wait_counters(received=20)["waiting"] == 20
            time.sleep(1.5)  # some attempts
        finally:
            superuser.execute(f"alter role {ROLE} connection limit -1")
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert promptd.find("CRITICAL") == []


def test_some_connections_are_too_many(start_promptd, atomicity, postgres, database, channel):
    """What it gets, it works with: one WARNING, and no circuit, however often the others are refused."""
    with postgres.connect("postgres") as superuser:
        superuser.execute(f"alter role {ROLE} connection limit 2")
        try:
            promptd = start_promptd(atomicity=atomicity, db_connections=4, breaker_failures=2, backoff_max_s=1, ready=False)
            channel.wait_subscribers(1)
            line = promptd.wait_line("WARNING", "fewer connections than db_connections")
            assert line.fields["connections"] == "2" and line.fields["wanted"] == "4"
            messages = burst(channel, database, 100)
            assert promptd.settle(100).outcomes() == {"success": 100}
            promptd.wait_line("DEBUG", "connection failed", "too many connections", count=8, timeout=20)
            messages += burst(channel, database, 100)
            assert promptd.settle(200).outcomes() == {"success": 200}
            expect_stored(database, *messages)
            counters = promptd.counters()
            assert counters["db_connections"] == 2 and counters["db_circuit_open"] == 0 and counters["database_up"] == 1
            promptd.one("WARNING", "")
            assert promptd.find("ERROR|CRITICAL") == []
        finally:
            superuser.execute(f"alter role {ROLE} connection limit -1")
    wait_until(lambda: promptd.counters()["db_connections"] == 4, "all of them, now that they are allowed")


def test_database_turns_read_only(start_promptd, atomicity, postgres, database, channel):
    promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
    database.execute(f"alter database {database.name} set default_transaction_read_only = on")
    database.terminate_sessions()
    database.wait_sessions(1)
    messages = burst(channel, database)  # the test's own session is older than the setting, and may still write
    promptd.wait_line("ERROR", "database takes no writes", "sqlstate=25006")
    promptd.wait_counters(received=20, waiting=20, database_up=0)
    time.sleep(1.5)
    assert len(promptd.find("ERROR|CRITICAL")) <= 2  # the terminated sessions may have had a line of their own
    database.execute(f"alter database {database.name} reset default_transaction_read_only")
    database.terminate_sessions()
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    assert promptd.counters()["database_up"] == 1 and promptd.find("CRITICAL") == []


DISK_FULL = {"53100": "could not extend file: No space left on device", "53200": "out of memory",
             "53400": "configuration limit exceeded"}


@pytest.mark.parametrize("sqlstate", DISK_FULL)
def test_out_of_resources(start_promptd, atomicity, database, channel, sqlstate):
    """Reads go on and writes do not: it is said once, one attempt at a time is made, and all is stored in the end."""
    promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
    database.raise_on(PROMPTS, "insert", DISK_FULL[sqlstate], sqlstate)
    messages = burst(channel, database, 100)
    line = promptd.wait_line("ERROR", "database takes no writes", f"sqlstate={sqlstate}")
    assert line.fields["error"] == DISK_FULL[sqlstate]
    time.sleep(2)
    counters = promptd.counters()
    assert counters["waiting"] == 100 and counters["database_up"] == 0
    assert len(promptd.find("ERROR|CRITICAL")) == 1
    database.drop_faults()
    assert promptd.settle(100).outcomes() == {"success": 100}
    expect_stored(database, *messages)
    promptd.wait_line("INFO", "database back")


def test_disk_is_really_full(start_promptd, atomicity, postgres, database, channel, small_disk):
    """The table lies on a file system of two megabytes, and something else has eaten them."""
    postgres.own(small_disk)
    with postgres.connect("postgres") as superuser:
        superuser.execute(f"create tablespace {database.name}_small location '{small_disk}'")
    try:
        database.execute(f"alter table {PROMPTS} set tablespace {database.name}_small")
        promptd = start_promptd(atomicity=atomicity, **ONE_TRY)
        interviews = database.interviews(400)
        messages = [channel.message(interview, "".join(map(chr, range(0x4e00, 0x4e00 + 2000))) + str(number))
                    for number, interview in enumerate(interviews)]
        channel.publish_burst(messages)
        promptd.wait_line("ERROR", "database takes no writes", "sqlstate=53100", timeout=20)
        counters = promptd.wait_counters(received=400)
        assert counters["failure"] == 0 and counters["waiting"] > 0
        database.execute(f"alter table {PROMPTS} set tablespace pg_default")
        assert promptd.settle(400, timeout=30).outcomes() == {"success": 400}
        assert database.prompt_count() == 400
        expect_stored(database, *messages[::40])
        assert promptd.find("CRITICAL") == []
    finally:
        with contextlib.suppress(Exception):
            database.execute(f"drop table {PROMPTS} cascade")
        with postgres.connect("postgres") as superuser:
            superuser.execute(f"drop tablespace {database.name}_small")
