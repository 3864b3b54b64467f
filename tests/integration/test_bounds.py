# SPDX-License-Identifier: MIT
"""The bounds at full size: 200,000 messages of 2 KB while the database is away, with the settings as shipped."""

import os
import re
import socket

import pytest

from support.admin import Admin
from support.redis_server import prompt_id
from support.spool import Spool
from support.wait import SLOW, wait_until

MESSAGES = 200_000
INTERVIEWS = 10_000
CHUNK = 4_000
PROMPT_BYTES = 2048
LIMIT_KB = 128 * 1024
KEPT = 10_000  # queue_max_messages

needs_plain_build = pytest.mark.skipif(SLOW > 1, reason="needs a build without sanitizers: they have memory of their own")


class Flood:
    """All the messages: of each interview one after the other, each with a prompt of its own."""

    def __init__(self, database, marker):
        self.interviews = database.interviews(INTERVIEWS)
        self._text = f"{marker} ".ljust(PROMPT_BYTES - 10, "m")

    def message(self, number):
        """Interview and prompt."""
        return self.interviews[number % INTERVIEWS], f"{self._text}{number:010}"

    def chunk(self, begin):
        for number in range(begin, begin + CHUNK):
            yield b'=={"interview_id":"%b","enhanced_prompt":"%b","source":"rag"}\n' % tuple(
                part.encode() for part in self.message(number))


def publish_all(channel, flood, taken_in):
    """As fast as promptd takes them in: until the number that it is given is. redis-py would take longer than promptd does: the protocol is simple enough."""
    name = channel.name.encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(channel.server.socket)
        for begin in range(0, MESSAGES, CHUNK):
            client.sendall(b"".join(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                                    % (len(name), name, len(payload), payload) for payload in flood.chunk(begin)))
            answers = b""
            while len(answers) < 4 * CHUNK:
                answers += client.recv(65536)
            assert answers == b":1\r\n" * CHUNK
            wait_until(lambda: taken_in(begin + CHUNK), f"{begin + CHUNK} messages to be taken in", 30)


def counters(admin):
    return admin.json("/status")["counters"]


@pytest.fixture
def flooded(start_promptd, database, database_proxy, channel, new_folder):
    """flooded(**settings): a promptd that has all the messages, taken in while the database was away."""
    def run(**settings):
        url = f"unix:{new_folder('admin')}/socket"
        promptd = start_promptd(log_level="error", breaker_failures=1000, admin_listen=url,
                                database_url=database.url(database_proxy.port), **settings)
        promptd.quiet = True  # SIGUSR1 is answered at info
        flood = Flood(database, channel.marker)
        admin = Admin(url)
        database_proxy.refuse()
        promptd.wait_line("ERROR", "database lost")

        def taken_in(count):
            """A disk is slower than a publisher: what is on its way there is bounded, too, and counted in bytes."""
            status = admin.json("/status")
            queue = status["queue"]
            keeps_up = "spool_dir" not in settings or queue["bytes"] < queue["max_bytes"] / 2
            return status["counters"]["received"] == count and keeps_up

        publish_all(channel, flood, taken_in)
        database_proxy.restore()
        return promptd, flood, admin

    return run


def wait_settled(admin, timeout):
    wait_until(lambda: counters(admin)["waiting"] == 0, "every message to have its outcome", timeout,
               seen=lambda: counters(admin))
    return {name: count for name, count in counters(admin).items()
            if name in ("received", "success", "duplicate", "failure", "rejected", "dropped") and count}


def dropped_lines(promptd):
    """The lines of dropped messages, and how many more of them are only summed up. Read as bytes: there are very many."""
    with open(promptd.log_path, "rb") as file:
        lines = file.readlines()
    summed = [re.search(rb"more messages dropped than lines are written messages=(\d+)", line) for line in lines]
    return ([line for line in lines if b"ERROR store: message dropped for interview " in line],
            sum(int(match[1]) for match in summed if match))


@needs_plain_build
def test_memory_without_a_spool(flooded, database):
    """What is dropped is the newest, and each has its line."""
    promptd, flood, admin = flooded()
    assert wait_settled(admin, 60) == {"received": MESSAGES, "success": KEPT, "dropped": MESSAGES - KEPT}
    assert promptd.peak_memory_kb() < LIMIT_KB
    assert database.prompt_count() == KEPT and database.statuses() == {"ready": INTERVIEWS}
    promptd.stop()  # what is summed up last is written then
    lines, summed = dropped_lines(promptd)
    assert len(lines) + summed == MESSAGES - KEPT and len(lines) >= KEPT
    assert flood.message(KEPT)[0].encode() in lines[0]


@needs_plain_build
def test_memory_with_a_spool(flooded, database, new_folder):
    """Nothing is dropped, and everything is stored when the database comes back."""
    spool = Spool(new_folder("spool"))
    promptd, flood, admin = flooded(spool_dir=spool.folder)
    assert os.path.getsize(spool.path) > 0
    assert wait_settled(admin, 90) == {"received": MESSAGES, "success": MESSAGES}
    assert promptd.peak_memory_kb() < LIMIT_KB
    assert database.prompt_count() == MESSAGES and database.statuses() == {"ready": INTERVIEWS}
    for number in range(0, MESSAGES, MESSAGES // 10):
        interview, prompt = flood.message(number)
        id = prompt_id(interview, "rag", prompt)
        assert database.value("select prompt from interview_enhanced_prompts where id = %s", [id]) == prompt
    wait_until(lambda: spool.payloads() == 0, "the spool to be empty", 20)
