# SPDX-License-Identifier: MIT
"""SIGHUP: what a running promptd takes from its settings anew, and what it does not."""

import os
import signal
import subprocess

import pytest

from support.expect import expect_stored
from support.redis_server import Message, burst
from support.wait import SLOW, wait_until


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


@pytest.mark.skipif(SLOW != 1, reason="needs a build without sanitizers: they do not bear a library in front of them")
@pytest.mark.parametrize("variables", [1, 2])  # with one of the two the array has no room for one more where it is
def test_reload_beside_a_library_that_sets_variables(reloadable, new_folder, variables):
    """As agents do that are loaded into everything: then the array of the environment is on the heap, and moves."""
    folder = new_folder("agent")
    source, library = os.path.join(folder, "agent.c"), os.path.join(folder, "agent.so")
    with open(source, "w", encoding="ascii") as file:
        calls = " ".join(f'setenv("AGENT{number}", "is here", 1);' for number in range(variables))
        file.write("#include <stdlib.h>\nvoid *wall; /* behind the array */\n__attribute__((constructor)) static void begin(void)\n"
                   f"{{ {calls} wall = malloc(4096); }}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    promptd = reloadable.start(fixed={"extra": {"LD_PRELOAD": library, "PROMPTD_LOG_LEVEL": "info"}}, log_level="error")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "reloaded")
    promptd.kill(signal.SIGTERM)
    assert promptd.wait_exit() == 0


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
