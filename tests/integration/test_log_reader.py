# SPDX-License-Identifier: MIT
"""Whoever reads the log stops reading: the work goes on, and what was lost is counted and said."""

import fcntl
import os
import pty
import signal
import socket
import time

import pytest

from support.admin import Admin
from support.expect import detected_line, expect_stored
from support.wait import SLOW, wait_until

LOST = "lines could not be written to the log and are lost"


class Reader:
    """The other end of a log: nothing is read until read()."""

    def __init__(self, kind):
        if kind == "socket":  # as the journal's
            ours, theirs = socket.socketpair()
            self._ours, self.log = ours.detach(), theirs.detach()
        elif kind == "terminal":
            self._ours, self.log = pty.openpty()
        else:
            self._ours, self.log = os.pipe()
            fcntl.fcntl(self._ours, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self._ours, False)
        self.text = ""

    def read(self):
        """All that has come so far."""
        try:
            while chunk := os.read(self._ours, 65536):
                self.text += chunk.decode()
        except (BlockingIOError, OSError):  # a terminal that nobody holds any more
            pass
        return self.text

    def wait(self, *words, timeout=20.0):
        wait_until(lambda: all(word in self.read() for word in words), f"{words} in the log", timeout,
                   seen=lambda: self.text[-2000:])

    def close(self):
        os.close(self._ours)


@pytest.fixture(params=["pipe", "socket", "terminal"])
def reader(request, closing):
    return closing(Reader(request.param))


@pytest.fixture
def unread(start_promptd, reader, new_folder):
    """unread(**settings): a promptd whose log nobody reads; its admin socket is its only voice."""
    def start(**settings):
        url = f"unix:{os.path.join(new_folder('admin'), 'socket')}"
        promptd = start_promptd(stderr=reader.log, admin_listen=url, **settings)
        os.close(reader.log)
        promptd.quiet = True
        promptd.admin = Admin(url)
        return promptd

    return start


def burst(channel, database, count):
    messages = [channel.message(interview) for interview in database.interviews(count)]
    channel.publish_burst(messages)
    return messages


def wait_ready(database, count):
    wait_until(lambda: database.statuses().get("ready", 0) == count, f"{count} prompts to be stored", 20,
               seen=database.statuses)


def test_messages_and_health_go_on(unread, reader, database, channel, new_folder):
    promptd = unread(spool_dir=new_folder("spool"))  # with a lot of lines, log_level being debug
    messages = burst(channel, database, 1000)
    wait_ready(database, 1000)
    expect_stored(database, *messages[::50])
    database.raise_on("interview_enhanced_prompts", "delete")
    orphan = channel.publish(database.interview("completed"))  # comes last, and is not lost
    wait_until(lambda: promptd.admin.metrics()["rag_orphaned_prompt_total"] == 1, "the orphan")
    assert promptd.admin.ask("/healthz", timeout=2).status == 200
    metrics = promptd.admin.metrics()
    lost = metrics["promptd_log_lines_lost_total"]
    assert lost > 0 and metrics["promptd_spool_messages"] == 0
    reader.wait(detected_line(orphan), f"{LOST} lines={lost:.0f}")
    lines = reader.text.replace("\r\n", "\n").split("\n")
    assert all(line[:2] == "20" and "Z " in line for line in lines[:-1]), "a line was cut"
    fresh = channel.publish(database.interview())
    reader.wait(f"prompt stored for interview {fresh.interview}")
    assert promptd.admin.metrics()["promptd_log_lines_lost_total"] == lost


def test_a_slow_reader_gets_every_line(unread, reader, database, channel):
    unread(log_level="info")
    messages = burst(channel, database, 1000)
    wait_ready(database, 1000)
    reader.wait(*[f"prompt stored for interview {message.interview}" for message in messages])
    assert LOST not in reader.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_end_is_in_time(unread, database, channel, number):
    promptd = unread(shutdown_timeout_s=1)
    burst(channel, database, 1000)
    wait_ready(database, 1000)
    began = time.monotonic()
    promptd.kill(number)
    assert promptd.wait_exit() == 0
    assert time.monotonic() - began < 1 + 0.5 * SLOW


def test_a_second_signal_ends_at_once(unread, database, channel):
    promptd = unread(shutdown_timeout_s=60)
    with database.locked():
        burst(channel, database, 1000)
        database.wait_blocked()
        promptd.kill(signal.SIGTERM)
        wait_until(lambda: channel.subscribers() == 0, "promptd to stop receiving")
        began = time.monotonic()
        promptd.kill(signal.SIGTERM)
        assert promptd.wait_exit() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 0.5 + 0.5 * SLOW


def test_the_last_lines_reach_a_reader_that_comes_back(unread, reader, database, channel):
    promptd = unread(log_level="info")
    burst(channel, database, 1000)
    wait_ready(database, 1000)
    promptd.kill(signal.SIGTERM)
    wait_until(lambda: reader.read() and promptd.process.poll() is not None, "the end", 15)
    reader.wait("INFO daemon: stopped")


def test_the_flags_of_standard_error_stay(start_promptd, closing, database, channel):
    """They belong to whoever else holds it, such as a shell on its terminal."""
    reader = closing(Reader("terminal"))
    start_promptd(stderr=reader.log).quiet = True
    reader.wait("subscribed")
    assert os.get_blocking(reader.log)
    os.close(reader.log)


def test_fifo_that_nobody_reads(start_promptd, new_folder, closing, database, channel):
    """Neither start nor reload wait for a reader; one that comes later gets the lines so far."""
    path = os.path.join(new_folder("log"), "fifo")
    os.mkfifo(path)
    promptd = start_promptd(log_file=path, log_level="info")
    promptd.quiet = True
    burst(channel, database, 10)
    wait_ready(database, 10)
    promptd.kill(signal.SIGHUP)
    burst(channel, database, 10)
    wait_ready(database, 20)
    promptd.kill(signal.SIGHUP)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as fifo:
        seen = b""

        def read():
            nonlocal seen
            seen += fifo.read(65536) or b""
            return seen

        wait_until(lambda: read().count(b"settings reloaded") == 2, "two reloads in the log", seen=lambda: seen)
        assert b"promptd 0" in seen
        late = channel.publish(database.interview())
        wait_until(lambda: late.interview.encode() in read(), "a line that was written to a reader", seen=lambda: seen)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_descriptors_are_not_taken_by_others(start_promptd, new_folder, database, channel, closed):
    """Whatever is opened first would get the log's lines, and whoever reads there would get them."""
    path = os.path.join(new_folder("log"), "own.log")
    promptd = start_promptd(shell='exec "$@" ' + " ".join(f"{number}>&-" for number in closed), log_file=path)
    promptd.log_path = path
    for number in (0, 1, 2):
        target = os.readlink(f"/proc/{promptd.process.pid}/fd/{number}")
        assert (target == "/dev/null") == (number in closed or number == 0), (number, target)
    message = channel.publish(database.interview())
    promptd.settle(1)
    expect_stored(database, message)
