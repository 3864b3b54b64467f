# SPDX-License-Identifier: MIT
"""The wall clock is set while promptd runs, or between two runs: durations and ages do not notice."""

import glob
import os
from datetime import datetime

import pytest

from support import admin
from support.expect import expect_stored
from support.wait import SLOW, wait_until

LIBRARIES = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
JUMPS = {"a year back": "-366d", "an hour back": "-1h", "an hour forward": "+1h", "fifty years forward": "+18250d"}
JUMP = pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())


class Clock:
    """promptd's wall clock, to be set."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "clock")
        self.set("+0")
        self.variables = {"LD_PRELOAD": LIBRARIES[0], "FAKETIME_TIMESTAMP_FILE": self.path, "FAKETIME_NO_CACHE": "1",
                          "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def set(self, difference):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            file.write(difference)
        os.rename(self.path + ".new", self.path)


@pytest.fixture
def clock(new_folder):
    if not LIBRARIES:
        pytest.skip("needs libfaketime (Debian package libfaketime)")
    if SLOW != 1:
        pytest.skip("needs a build without sanitizers: they do not bear libfaketime in front of them")
    return Clock(new_folder("clock"))


def age(status, moment):
    """How long ago it was, by the same answer."""
    return (datetime.fromisoformat(status["timestamp"]) - datetime.fromisoformat(moment)).total_seconds()


def duration_sum(promptd):
    return admin.of(promptd).metrics()["rag_atomic_operation_duration_seconds_sum"]


@JUMP
def test_ages(start_promptd, clock, database, channel, jump):
    promptd = start_promptd(extra=clock.variables)
    database.raise_on("interview_enhanced_prompts", "insert")
    channel.publish(database.interview())
    promptd.settle(1)
    before = admin.of(promptd).json("/status")["timestamp"]
    clock.set(jump)
    wait_until(lambda: abs(age({"timestamp": before}, admin.of(promptd).json("/status")["timestamp"])) > 3000,
               "the clock to be set")
    status = admin.of(promptd).json("/status")
    moments = [status["started_at"], status["ready_since"], status["redis"]["last_message_received"],
               status["redis"]["last_health_check"], status["troubles"][0]["time"]]
    assert all(0 <= age(status, moment) < 60 for moment in moments), (status["timestamp"], moments)
    assert 0 <= admin.of(promptd).json("/health/redis")["time_since_last_message_seconds"] < 60
    assert 0 <= status["uptime_seconds"] < 60
    database.drop_faults()
    message = channel.publish(database.interview())
    promptd.settle(2)
    expect_stored(database, message)
    assert duration_sum(promptd) < 60
    clock.set("+0")


@JUMP
@pytest.mark.parametrize("restart", [False, True], ids=["running", "between two runs"])
def test_time_in_the_spool(start_promptd, clock, database, channel, database_proxy, new_folder, jump, restart):
    settings = {"extra": clock.variables, "spool_dir": new_folder("spool"), "database_url": database.url(database_proxy.port)}
    promptd = start_promptd(**settings)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = [channel.publish(database.interview()) for _ in range(20)]
    promptd.wait_counters(received=20, spool_messages=20)
    if restart:
        promptd.stop()
    clock.set(jump)
    database_proxy.restore()
    if restart:
        promptd = start_promptd(**settings)
    assert promptd.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)
    # An hour between two runs is believed: it may have been one.
    assert 0 <= duration_sum(promptd) < (20 * 3700 if restart and jump == "+1h" else 20 * 60)
    clock.set("+0")
