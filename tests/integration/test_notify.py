# SPDX-License-Identifier: MIT
"""What systemd is told, as seen from the other end of NOTIFY_SOCKET."""

import os
import signal
import socket
import time

import pytest

from support import admin
from support.redis_server import Channel
from support.wait import wait_until


class Systemd:
    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.setblocking(False)
        self.messages = []
        self.times = []

    def heard(self, begin):
        """Messages that begin so, oldest first."""
        while True:
            try:
                self.messages.append(self.socket.recv(4096).decode())
                self.times.append(time.monotonic())
            except BlockingIOError:
                return [message for message in self.messages if message.startswith(begin)]

    def wait(self, begin, count=1, timeout=10.0):
        return wait_until(lambda: len(self.heard(begin)) >= count and self.heard(begin), f"{begin}", timeout,
                          seen=lambda: self.messages)

    def close(self):
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request, new_folder, closing):
    folder = new_folder("notify")
    return closing(Systemd("@" + folder[1:] if request.param == "abstract" else os.path.join(folder, "notify")))


def test_the_life_of_a_service(start_promptd, systemd):
    promptd = start_promptd(extra={"NOTIFY_SOCKET": systemd.path})
    systemd.wait("READY=1")
    systemd.wait("STATUS=Ready; 0 messages waiting")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    systemd.wait("READY=1", count=2)
    reloading = systemd.heard("RELOADING=1")[0].split("\n")
    assert reloading[0] == "RELOADING=1" and reloading[1].startswith("MONOTONIC_USEC=")
    assert abs(int(reloading[1].split("=")[1]) / 1e6 - time.monotonic()) < 60
    promptd.stop()
    systemd.wait("STOPPING=1")
    order = [message.split("=")[0] for message in systemd.messages if not message.startswith("STATUS")]
    assert order == ["READY", "RELOADING", "READY", "STOPPING"]
    assert "promptd is stopping" in systemd.heard("STATUS=")[-1]


def test_a_reload_that_fails_ends_too(start_promptd, systemd, new_folder):
    config = os.path.join(new_folder("conf"), "promptd.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write("batch_max = 5\n")
    promptd = start_promptd(config=config, extra={"NOTIFY_SOCKET": systemd.path})
    with open(config, "w", encoding="ascii") as file:
        file.write("batch_max = none\n")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("ERROR", "settings not reloaded")
    systemd.wait("READY=1", count=2)


def test_ready_does_not_wait_for_servers(start_promptd, systemd):
    start_promptd(ready=False, redis_url="redis://127.0.0.1:1", database_url="host=127.0.0.1 port=1",
                  extra={"NOTIFY_SOCKET": systemd.path})
    systemd.wait("READY=1")
    status = systemd.wait("STATUS=")[-1]
    assert "not subscribed" in status and "the database does not answer" in status


def test_status_only_when_it_changes(start_promptd, systemd, own_redis):
    start_promptd(on=Channel(own_redis), extra={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "400000"})
    systemd.wait("STATUS=Ready")
    beats = len(systemd.heard("WATCHDOG=1"))
    systemd.wait("WATCHDOG=1", count=beats + 12)
    statuses = systemd.heard("STATUS=")
    assert len(set(statuses)) == len(statuses)
    own_redis.stop()
    wait_until(lambda: "not subscribed" in systemd.heard("STATUS=")[-1], "what is missing")


def test_the_watchdog_is_fed_at_half_its_interval(start_promptd, systemd):
    promptd = start_promptd(extra={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "1000000"})
    systemd.wait("WATCHDOG=1", count=4)
    promptd.freeze()
    systemd.heard("")
    silent = len(systemd.heard("WATCHDOG=1"))
    time.sleep(1.2)  # silence can only be waited for
    assert len(systemd.heard("WATCHDOG=1")) == silent
    promptd.thaw()
    systemd.wait("WATCHDOG=1", count=silent + 1)
    beats = [moment for message, moment in zip(systemd.messages, systemd.times) if message == "WATCHDOG=1"][:4]
    assert beats[3] - beats[0] < 3


def test_the_watchdog_of_another_process_is_none_of_ours(start_promptd, systemd):
    start_promptd(extra={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    systemd.wait("STATUS=Ready")
    assert not systemd.heard("WATCHDOG")


def test_nobody_listens(start_promptd, database, channel, new_folder):
    promptd = start_promptd(extra={"NOTIFY_SOCKET": os.path.join(new_folder("notify"), "nobody")})
    promptd.wait_line("WARNING", "cannot be sent to systemd")
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}


def test_systemd_that_does_not_read_holds_nothing_up(start_promptd, systemd, database, channel):
    promptd = start_promptd(extra={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "400000"})
    systemd.wait("STATUS=Ready")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"of another service", systemd.socket.getsockname())
    promptd.wait_line("WARNING", "cannot be sent to systemd")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert admin.of(promptd).json("/healthz") == {"status": "ok"}
    ready = len(systemd.heard("READY=1"))
    systemd.wait("READY=1", count=ready + 1)  # that of the reload
    systemd.wait("WATCHDOG=1", count=len(systemd.heard("WATCHDOG=1")) + 1)


def test_end_while_systemd_does_not_read(start_promptd, systemd):
    promptd = start_promptd(extra={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "20000"}, shutdown_timeout_s=2)
    promptd.wait_line("WARNING", "cannot be sent to systemd", timeout=20)
    promptd.stop()
