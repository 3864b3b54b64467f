# SPDX-License-Identifier: MIT
"""Whoever talks to the admin interface, and however badly: messages and /healthz go on, and memory stays bounded."""

import os
import resource
import socket
import threading
import time

from support import admin
from support.wait import SLOW, wait_until

MORE_THAN_THE_LIMIT = 600


def is_closed(bare):
    bare.setblocking(False)
    try:
        return bare.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def is_silent(bare):
    bare.setblocking(False)
    try:
        return not bare.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True


def close_all(connections):
    for bare in connections:
        bare.close()


def descriptors(promptd):
    return {int(name) for name in os.listdir(f"/proc/{promptd.process.pid}/fd")}


def wait_all_gone(promptd, before):
    """Until promptd has as many descriptors as before."""
    wait_until(lambda: len(descriptors(promptd)) <= before, "the connections to end", 20)


class Slow:
    """Requests that never end: a byte a second on each of them."""

    def __init__(self, http, count):
        self.connections = [http.raw() for _ in range(count)]
        self.over = threading.Event()
        for bare in self.connections:
            bare.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        self.thread = threading.Thread(target=self.drip)

    def drip(self):
        while not self.over.wait(1):  # the pace is the point
            for bare in self.connections:
                bare.send(b"y")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        close_all(self.connections)


def test_two_hundred_idle_and_two_hundred_slow(start_promptd, database, channel):
    promptd = start_promptd()
    http = admin.of(promptd)
    http.json("/healthz")
    before = len(descriptors(promptd))
    idle = [http.raw() for _ in range(200)]
    published = []

    def everybody_is_served():
        began = time.monotonic()
        assert http.json("/healthz") == {"status": "ok"}
        assert time.monotonic() - began < 5 * SLOW
        published.append(channel.publish(database.interview()))
        assert promptd.settle(len(published)).outcomes() == {"success": len(published)}
        return all(is_closed(bare) for bare in idle)

    with Slow(http, 200) as slow:
        wait_until(everybody_is_served, "the idle ones to be sent away", 10, interval=0.1)
        assert not any(is_closed(bare) for bare in slow.connections)
        assert everybody_is_served()
    wait_all_gone(promptd, before)
    for _ in range(100):
        assert http.json("/healthz") == {"status": "ok"}


def test_more_than_there_is_room_for(start_promptd, database, channel):
    """Who comes then waits until others have been idle for too long; and once they leave nobody waits any more."""
    promptd = start_promptd()
    http = admin.of(promptd)
    http.json("/healthz")
    before = len(descriptors(promptd))
    idle = [http.raw() for _ in range(MORE_THAN_THE_LIMIT)]
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert http.ask("/healthz", timeout=20).status == 200
    assert is_closed(idle[0])
    close_all(idle)
    with Slow(http, MORE_THAN_THE_LIMIT):
        channel.publish(database.interview())
        assert promptd.settle(2).outcomes() == {"success": 2}
        assert len(descriptors(promptd)) < before + MORE_THAN_THE_LIMIT
    wait_all_gone(promptd, before)
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
        close_all(idle)
    assert http.json("/healthz") == {"status": "ok"}
    assert promptd.memory_kb() - before < 8192 * SLOW


def greedy(http):
    """A client that asks for much and reads nothing."""
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    bare.connect(http.address)
    bare.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    return bare


def test_whoever_does_not_read_has_to_go(start_promptd, channel):
    promptd = start_promptd()
    http = admin.of(promptd)
    for number in range(100):
        channel.publish_raw(b"x" * (number + 1))
    promptd.wait_counters(rejected=100)
    http.json("/status")
    memory, before = promptd.memory_kb(), len(descriptors(promptd))
    readers = [greedy(http) for _ in range(50)]
    assert http.json("/healthz") == {"status": "ok"}
    assert promptd.memory_kb() - memory < 32768 * SLOW
    used = promptd.cpu_seconds()
    wait_all_gone(promptd, before)
    assert promptd.cpu_seconds() - used < 1 * SLOW  # meanwhile the loop rests
    assert http.json("/healthz") == {"status": "ok"}
    close_all(readers)


def test_stops_with_silent_connections(start_promptd):
    promptd = start_promptd()
    http = admin.of(promptd)
    held = [http.raw() for _ in range(20)]
    assert http.json("/healthz") == {"status": "ok"}
    promptd.stop()
    wait_until(lambda: all(is_closed(bare) for bare in held), "all of them to be closed")


def asks_again(connection):
    connection.request("GET", "/healthz")
    return connection.getresponse().read() == b'{"status":"ok"}'


def test_keep_alive(start_promptd):
    promptd = start_promptd()
    connection = admin.of(promptd).connection()
    for _ in range(50):
        assert asks_again(connection)
    connection.close()


# --- no descriptor left -------------------------------------------------------------------------------------------------


class NoDescriptors:
    """promptd can open nothing while it lasts."""

    def __init__(self, promptd):
        self.pid = promptd.process.pid
        self.before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        taken = descriptors(promptd)
        self.limit = next(number for number in range(len(taken) + 1) if number not in taken)

    def __enter__(self):
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (self.limit, self.before[1]))

    def __exit__(self, *_):
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.before)


def rests(promptd):
    used = promptd.cpu_seconds()
    time.sleep(1)  # the measure itself is time
    return promptd.cpu_seconds() - used < 0.3 * SLOW


def test_no_descriptor_left_for_the_first(start_promptd):
    """The loop rests all the same, and goes on when there is room again."""
    promptd = start_promptd()
    http = admin.of(promptd)
    http.json("/healthz")
    wait_until(lambda: not connected(promptd, http), "nobody to be connected")
    with NoDescriptors(promptd):
        more = [http.raw() for _ in range(5)]
        assert rests(promptd)
    assert http.json("/healthz") == {"status": "ok"}
    close_all(more)


def test_no_descriptor_left_for_more(start_promptd):
    """Also while one client stays for ever, as a status page does."""
    promptd = start_promptd()
    http = admin.of(promptd)
    page = http.connection()
    assert asks_again(page)
    with NoDescriptors(promptd):
        more = [http.raw() for _ in range(5)]
        assert asks_again(page) and rests(promptd)
    with http.raw() as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        own = page.sock
        wait_until(lambda: asks_again(page) and not is_silent(other), "the other one's answer", 4, interval=0.2)
        assert page.sock is own  # it has been there all the time
    for _ in range(20):
        assert http.json("/healthz") == {"status": "ok"}
    page.close()
    close_all(more)


def connected(promptd, http):
    """How many established connections the admin interface has."""
    with open(f"/proc/{promptd.process.pid}/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    return sum(row[1].endswith(f":{http.address[1]:04X}") and row[3] == "01" for row in rows)
