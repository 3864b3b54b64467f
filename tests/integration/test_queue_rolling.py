# SPDX-License-Identifier: MIT
"""A rolling update as deploy/kubernetes has it: three promptd, one of another start at a time, and messages all the while."""

import threading
from datetime import datetime, timezone

import pytest

from support.admin import Admin
from support.wait import SLOW, wait_until

REPLICAS = 3
PAUSE_S = 0.02
LONGEST_WAIT_S = 8  # nobody looks for what was given back more often than every 5 s


class Workflow(threading.Thread):
    """Pushes a message every moment until it is told to stop, and remembers when."""

    def __init__(self, queue, interviews):
        super().__init__()
        self.queue = queue
        self.interviews = iter(interviews)
        self.pushed = {}  # by the prompt's id
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(PAUSE_S):
            message = self.queue.message(next(self.interviews), "a good question")
            self.pushed[message.id] = datetime.now(timezone.utc)
            self.queue.push_message(message)

    def end(self):
        self.over.set()
        self.join()


def status(promptd, path):
    return Admin(promptd.admin_url).ask(path).status


@pytest.fixture
def start_ready(start_promptd, queue):
    """As the readiness probe sees it."""
    def start():
        promptd = start_promptd(on=queue, redis_mode=queue.mode, ready=False)
        wait_until(lambda: status(promptd, "/readyz") == 200, f"{promptd.name} to be ready", 20, seen=promptd.tail)
        assert status(promptd, "/healthz") == 200
        return promptd

    return start


def test_rolling_update(start_ready, queue, database):
    """Each message is stored once, and soon; a stop gives what it holds to the others."""
    running = [start_ready() for _ in range(REPLICAS)]
    everyone = list(running)
    workflow = Workflow(queue, database.interviews(20000))
    workflow.start()
    try:
        for _ in range(REPLICAS):
            everyone.append(start_ready())
            running.pop(0).stop()
            running.append(everyone[-1])
            before = len(workflow.pushed)
            wait_until(lambda: len(workflow.pushed) >= before + 20, "more messages")
    finally:
        workflow.end()
    count = len(workflow.pushed)
    wait_until(lambda: database.prompt_count() == count, "all to be stored", 20, seen=database.prompt_count)
    wait_until(lambda: queue.left() == 0, "Redis to have no message left", seen=lambda: (queue.backlog(), queue.pending()))

    stored = database.rows("select p.id::text, p.created_at, i.status from interview_enhanced_prompts p"
                           " join interviews i on i.id = p.interview_id")
    assert {id for id, _, _ in stored} == set(workflow.pushed)
    assert {interview for _, _, interview in stored} == {"ready"}
    waits = [(at - workflow.pushed[id]).total_seconds() for id, at, _ in stored]
    assert max(waits) < LONGEST_WAIT_S * SLOW, f"the longest wait: {max(waits):.1f} s"
    assert queue.dead() == []
    lines = [line.fields["prompt_id"] for promptd in everyone for line in promptd.find("INFO", "prompt stored")]
    assert sorted(lines) == sorted(workflow.pushed), "a message was stored by two, or by nobody"
    for promptd in everyone:
        assert promptd.find("WARNING|ERROR|CRITICAL") == []
