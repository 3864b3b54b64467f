# SPDX-License-Identifier: MIT
"""Whoever talks to the admin interface, and however badly: messages and /healthz go on, and memory stays bounded."""

import os
import resource
import socket
import time

from support import admin
from support.wait import SLOW, wait_until


def is_closed(bare):
    bare.setblocking(False)
    try:
        return bare.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_two_hundred_idle_connections(start_promptd, database, channel):
    promptd = start_promptd()
    http = admin.of(promptd)
    idle = [http.raw() for _ in range(200)]
    for _ in range(20):
        assert http.json("/healthz") == {"status": "ok"}
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert http.json("/readyz")["status"] == "ready"
    closed = wait_until(lambda: [bare for bare in idle if is_closed(bare)], "the oldest to make room")
    assert idle[0] in closed and not is_closed(idle[-1])
    for bare in idle:
        bare.close()
    for _ in range(100):
        assert http.json("/healthz") == {"status": "ok"}


def test_idle_ones_come_back_as_often_as_they_like(start_promptd):
    promptd = start_promptd()
    http = admin.of(promptd)
    before = promptd.memory_kb()
    for _ in range(10):
        idle = [http.raw() for _ in range(200)]
        for bare in idle[::2]:
            bare.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        assert http.json("/healthz") == {"status": "ok"}
        for bare in idle:
            bare.close()
    assert http.json("/healthz") == {"status": "ok"}
    assert promptd.memory_kb() - before < 8192 * SLOW


class Drip:
    """A request that never ends."""

    def __init__(self, http):
        self.bare = http.raw(timeout=30)
        self.bare.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")

    def is_over(self):
        try:
            self.bare.setblocking(True)
            self.bare.sendall(b"X: y\r\n")
        except OSError:
            return True
        return is_closed(self.bare)


def greedy(http):
    """A client that asks for much and reads nothing."""
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    bare.connect(http.address)
    bare.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    return bare


def test_whoever_takes_too_long_has_to_go(start_promptd, channel):
    promptd = start_promptd()
    http = admin.of(promptd)
    for number in range(100):
        channel.publish_raw(b"x" * (number + 1))
    promptd.wait_counters(rejected=100)
    before = promptd.memory_kb()
    began = time.monotonic()
    drip, readers = Drip(http), [greedy(http) for _ in range(45)]
    silent, stubborn = http.raw(), http.raw()
    stubborn.sendall(b"GARBAGE\r\n")  # and does not close when it has its answer
    assert http.json("/healthz") == {"status": "ok"}
    assert promptd.memory_kb() - before < 32768 * SLOW
    used = cpu_seconds(promptd)
    wait_until(drip.is_over, "the dripping one to be sent away", 20, interval=0.5)
    wait_until(lambda: all(fully_closed(bare) for bare in readers), "the greedy ones to be sent away", 20, interval=0.5)
    wait_until(lambda: is_closed(silent), "the silent one to be sent away", 20, interval=0.5)
    wait_until(lambda: fully_gone(stubborn), "the stubborn one to be sent away", 20, interval=0.5)
    assert time.monotonic() - began < 15 * SLOW
    assert cpu_seconds(promptd) - used < 1 * SLOW  # meanwhile the loop rests
    assert http.json("/healthz") == {"status": "ok"}


def fully_closed(bare):
    """After what was sent before the end."""
    bare.setblocking(False)
    try:
        while bare.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def fully_gone(bare):
    """Its other end is closed for both directions: what is sent is refused."""
    bare.setblocking(True)
    try:
        bare.sendall(b"x")
    except OSError:
        return True
    return False


def test_stops_with_silent_connections(start_promptd):
    promptd = start_promptd()
    http = admin.of(promptd)
    held = [http.raw() for _ in range(20)]
    assert http.json("/healthz") == {"status": "ok"}
    promptd.stop()
    wait_until(lambda: all(is_closed(bare) for bare in held), "all of them to be closed")


def test_keep_alive(start_promptd):
    promptd = start_promptd()
    connection = admin.of(promptd).connection()
    for _ in range(50):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
    connection.close()


def test_no_descriptor_left(start_promptd):
    """Nobody can be accepted; the loop rests all the same, and goes on when there is room again."""
    promptd = start_promptd()
    http = admin.of(promptd)
    held = [http.raw() for _ in range(20)]
    http.json("/healthz")
    limit = len(os.listdir(f"/proc/{promptd.process.pid}/fd"))
    soft, hard = resource.prlimit(promptd.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(promptd.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
    more = [http.raw() for _ in range(5)]
    used = cpu_seconds(promptd)
    time.sleep(1)  # the measure itself is time
    assert cpu_seconds(promptd) - used < 0.3 * SLOW
    resource.prlimit(promptd.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for bare in held + more:
        bare.close()
    assert http.json("/healthz") == {"status": "ok"}


def cpu_seconds(promptd):
    with open(f"/proc/{promptd.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100
