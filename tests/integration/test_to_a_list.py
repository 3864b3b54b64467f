# SPDX-License-Identifier: MIT
"""From Pub/Sub to a list and back, in the steps of docs/MIGRATION.md, while messages are sent all the time."""

import pathlib
import re
import threading

import pytest

from support.admin import Admin
from support.queue import Queue
from support.wait import wait_until

MIGRATION = pathlib.Path(__file__).resolve().parents[2] / "docs/MIGRATION.md"
PAUSE_S = 0.02


class Workflow(threading.Thread):
    """n8n's node: publishes or pushes, whatever its operation is at the moment."""

    def __init__(self, queue, interviews):
        super().__init__()
        self.queue = queue
        self.interviews = iter(interviews)
        self.operation = "publish"
        self.sent = []
        self.unheard = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(PAUSE_S):
            message = self.queue.message(next(self.interviews), "a good question")
            self.queue.published.append(message.prompt)
            self.sent.append(message)
            if self.operation == "publish":
                self.unheard += self.queue.server.admin.publish(self.queue.name, message.framed()) == 0
            else:
                self.queue.server.admin.lpush(self.queue.name, message.framed())

    def end(self):
        self.over.set()
        self.join()


def flags(mode):
    """Of the second promptd, as the page has them; but for the port, which may be taken."""
    section = MIGRATION.read_text().split("## From Pub/Sub to a list\n")[1]
    line = re.search(r"sudo -u promptd promptd (.*)", section)[1]
    return line.replace("=list", f"={mode}").replace("127.0.0.1:9798", "127.0.0.1:0").split()


@pytest.fixture
def queue(redis_server):
    return Queue(redis_server, "list")


@pytest.fixture
def start(start_promptd, queue, new_folder):
    """A promptd as its file and environment have it, or with flags besides; once /readyz answers 200."""
    spool = new_folder("spool")

    def run(mode, *arguments):
        promptd = start_promptd(*arguments, on=queue, redis_mode=mode, spool_dir=spool, ready=False)
        wait_until(lambda: Admin(promptd.admin_url).ask("/readyz").status == 200, f"{promptd.name} to be ready", 20)
        return promptd

    return run


def wait_more(workflow, count=25):
    before = len(workflow.sent)
    wait_until(lambda: len(workflow.sent) >= before + count, "more messages", 20)


def ask_redis(promptd):
    state = Admin(promptd.admin_url).json("/status")
    return {name: state["redis"][name] for name in ("backlog", "pending", "dead_letters")}


def test_to_a_list_and_back(start, queue, database):
    first = start("pubsub")
    workflow = Workflow(queue, database.interviews(20000))
    workflow.start()
    try:
        wait_more(workflow)
        second = start("pubsub", *flags("list"))
        workflow.operation = "push"
        wait_more(workflow)
        assert second.counters()["success"] > 0
        first.wait_counters(waiting=0)
        first.stop()
        first = start("list")
        second.stop()
        wait_more(workflow)

        third = start("list", *flags("pubsub"))
        workflow.operation = "publish"
        wait_more(workflow)
        wait_until(lambda: ask_redis(first) == {"backlog": 0, "pending": 0, "dead_letters": 0}, "the list to be empty", 20,
                   seen=lambda: ask_redis(first))
        first.stop()
        last = start("pubsub")
        third.wait_counters(waiting=0)
        third.stop()
        wait_more(workflow)
    finally:
        workflow.end()
    count = len(workflow.sent)
    wait_until(lambda: database.prompt_count() == count, "all to be stored", 20, seen=lambda: (database.prompt_count(), count))
    last.wait_counters(waiting=0)
    assert workflow.unheard == 0 and queue.left() == 0
    assert {status for status, in database.rows("select status from interviews i join interview_enhanced_prompts p"
                                                " on p.interview_id = i.id")} == {"ready"}
