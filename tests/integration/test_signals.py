# SPDX-License-Identifier: MIT
"""The process: how it ends, what it still settles, and what it does when told to reload or to report."""

import os
import signal
import time

import pytest

from support.expect import expect_stored
from support.redis_server import Message
from support.wait import SLOW, wait_until

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def burst(channel, database, count=50):
    messages = [channel.message(interview) for interview in database.interviews(count)]
    channel.publish_burst(messages)
    return messages


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
        began = time.monotonic()
        promptd.kill(number)
        assert promptd.wait_exit() == 0
        assert time.monotonic() - began < 1 + 1.5 * SLOW
    for message in messages:
        assert promptd.find("ERROR|CRITICAL", message.interview) != [], "an unsettled message is not named"


def test_ends_in_time_with_the_database_away(start_promptd, database, channel, database_proxy):
    promptd = start_promptd(database_url=database.url(database_proxy.port), shutdown_timeout_s=1)
    database_proxy.refuse()
    messages = burst(channel, database, 10)
    promptd.wait_counters(received=10)
    promptd.stop()
    for message in messages:
        assert promptd.find("ERROR|CRITICAL", message.interview) != [], "an unsettled message is not named"


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
        promptd.stop()
    for message in messages:
        assert promptd.find("ERROR|CRITICAL", message.interview) != [], "an unsettled message is not named"


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


def test_state_is_written_to_the_log(start_promptd, database, channel):
    promptd = start_promptd(log_level="info")
    assert promptd.counters()["received"] == 0
    channel.publish(database.interview())
    channel.publish(database.interview("completed"))
    channel.publish_raw(b"rubbish")
    counters = promptd.settle(3)
    assert counters.outcomes() == {"success": 1, "failure": 1, "rollback": 1, "rejected": 1}


# SIGHUP


@pytest.fixture
def reloadable(start_promptd, new_folder):
    """start(**settings): a promptd whose settings stand in its file, but for those in `fixed`; write(**settings) changes
    them there."""

    class Reloadable:
        path = os.path.join(new_folder("reload"), "settings.conf")

        def write(self, **settings):
            with open(self.path, "w", encoding="utf-8") as file:
                file.writelines(f"{name} = {value}\n" for name, value in settings.items())

        def start(self, fixed=None, **settings):
            self.write(**settings)
            return start_promptd(config=self.path, log_level=None, sessions=settings.get("db_connections"), **(fixed or {}))

    return Reloadable()


def test_state_is_asked_for_until_the_end(start_promptd, database, channel):
    """Also when what it speaks of is closed already, one thing after the other."""
    for _ in range(3):
        channel.wait_subscribers(0)
        promptd = start_promptd()
        channel.publish(database.interview())
        promptd.settle(1)
        promptd.kill(signal.SIGTERM)
        while promptd.process.poll() is None:
            promptd.kill(signal.SIGUSR1)
            time.sleep(0.0005)
        assert promptd.wait_exit() == 0


def test_log_file_is_opened_again(start_promptd, new_folder, database, channel):
    path = os.path.join(new_folder("log"), "own.log")
    promptd = start_promptd(log_file=path)
    promptd.log_path = path
    channel.publish(database.interview())
    promptd.settle(1)
    os.rename(path, path + ".1")
    promptd.kill(signal.SIGHUP)
    wait_until(lambda: os.path.exists(path), "the new log file")
    promptd.forget_log()
    second = channel.publish(database.interview())
    promptd.settle(2)
    promptd.one("INFO", second.interview)


def test_log_level_is_changed(reloadable, database):
    promptd = reloadable.start(log_level="info")
    database.terminate_sessions()
    promptd.wait_line("INFO|ERROR", "lost")
    assert promptd.find("DEBUG") == []
    reloadable.write(log_level="debug")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "reloaded")
    database.terminate_sessions()  # something to speak of
    promptd.wait_line("DEBUG")


def test_rules_for_messages_are_changed(reloadable, database, channel):
    promptd = reloadable.start(log_level="info", prompt_min_chars=50)
    text = Message(database.interview(), "forty characters, or some more than that")
    channel.publish_message(text)
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    reloadable.write(log_level="info", prompt_min_chars=40)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "reloaded")
    channel.publish_message(text)
    assert promptd.settle(2).outcomes() == {"success": 1, "rejected": 1}
    expect_stored(database, text)


def test_fixed_setting_is_named(reloadable, database, channel):
    promptd = reloadable.start(log_level="info", db_connections=2)
    reloadable.write(log_level="info", db_connections=3)
    promptd.kill(signal.SIGHUP)
    line = promptd.wait_line("WARNING", "db_connections")
    assert "log_level" not in line.text
    channel.publish(database.interview())
    promptd.settle(1)


def test_mistake_in_the_file_changes_nothing(reloadable, database, channel):
    promptd = reloadable.start(log_level="info")
    reloadable.write(log_level="debug", prompt_min_chars="many")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("ERROR", "prompt_min_chars")
    message = channel.publish(database.interview())
    promptd.settle(1)
    expect_stored(database, message)
    database.terminate_sessions()
    promptd.wait_line("INFO|ERROR", "lost")
    assert promptd.find("DEBUG") == []


def test_file_that_is_gone_changes_nothing(reloadable, database, channel):
    promptd = reloadable.start(log_level="info")
    os.unlink(reloadable.path)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("ERROR", "settings.conf")
    channel.publish(database.interview())
    promptd.settle(1)


@pytest.mark.parametrize("with_spool", [False, True])
def test_reload_while_the_database_is_away(reloadable, database, database_proxy, channel, new_folder, with_spool):
    fixed = {"database_url": database.url(database_proxy.port)}
    if with_spool:
        fixed["spool_dir"] = new_folder("spool")
    promptd = reloadable.start(fixed, log_level="info", prompt_min_chars=20)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = burst(channel, database)
    promptd.wait_counters(received=50, waiting=50)
    reloadable.write(log_level="info", prompt_min_chars="many", batch_max=7)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("ERROR", "settings not reloaded")
    reloadable.write(log_level="info", prompt_min_chars=10, batch_max=7, queue_max_messages=20)  # fewer than wait
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    shorter = channel.publish(database.interview(), "ten to twenty")
    promptd.wait_counters(received=51)
    database_proxy.restore()
    expected = {"success": 51} if with_spool else {"success": 50, "dropped": 1}  # memory is full, for what is new
    assert promptd.settle(51).outcomes() == expected
    expect_stored(database, *messages, *([shorter] if with_spool else []))


def test_reload_while_redis_is_away(reloadable, database, new_proxy, redis_server, channel):
    proxy = new_proxy(redis_server.socket)
    promptd = reloadable.start({"redis_url": f"redis://127.0.0.1:{proxy.port}"}, log_level="info")
    proxy.refuse()
    promptd.wait_line("ERROR", "Redis connection lost")
    reloadable.write(log_level="debug", heartbeat_interval_s=1)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    proxy.restore()
    promptd.wait_line("WARNING", "subscription restored")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_reload_under_load(start_promptd, database, channel):
    promptd = start_promptd()
    messages = []
    for _ in range(10):
        messages += burst(channel, database)
        promptd.kill(signal.SIGHUP)
    assert promptd.settle(500).outcomes() == {"success": 500}
    expect_stored(database, *messages)
