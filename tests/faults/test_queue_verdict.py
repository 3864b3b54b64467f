# SPDX-License-Identifier: MIT
"""List and stream mode: what ledgers and verdict must complain of, and what they must not, made up as log lines."""

import pytest

from faults.book import Book
from faults.latency import HELD_UP, LIMIT_S
from faults.ledger import COUNTERS, LOST, NOT_RECEIVED, TWICE
from faults.load import INNOCENT, Published
from faults.queue_ledger import QueueLedger
from faults.queue_verdict import LEFT, QueueVerdict
from faults.verdict import Verdict
from faults.violations import Violations

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
PROMPT = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"
BEGAN = 1_795_449_662  # the seconds of the lines' times


def line(text, level="DEBUG", second=2):
    return f"2026-11-23T16:01:{second:02}.000Z {level} {text}\n"


def stage(name, index, number, outcome="", second=2):
    return line(f"pipeline: message {name} interview_id={INTERVIEW} prompt_id={PROMPT} bytes={100 + index} "
                f"sequence={number}" + (f' outcome="{outcome}"' if outcome else ""), second=second)


def received(index=0, number=1, second=2):
    return stage("received", index, number, second=second)


def ended(outcome="stored", index=0, number=1, second=2):
    return stage("ended", index, number, outcome, second)


def returned(index=0, number=1, second=3):
    return stage("returned", index, number, second=second)


def state(received, success, dropped, waiting):
    return line(f"daemon: state received={received} success={success} duplicate=0 failure=0 rejected=0 "
                f"dropped={dropped} waiting={waiting} source_backlog=2 source_pending=3", "INFO")


STOPPING = line("daemon: stopping on SIGTERM waiting=1", "INFO", 5)
BURIED = line("redis: message dropped: it was delivered 5 times without an outcome, and is a dead letter now "
              "messages=2", "ERROR")
KILLED, STOPPED, LIVES = "killed", "stopped", "lives"


class Story:
    """Messages that were pushed, and what promptds say of them."""

    def __init__(self, folder):
        self._folder = folder
        self.violations = Violations()
        self.published = [Published(i, INTERVIEW, PROMPT, b"x" * (100 + i), "many", at=1.0) for i in range(2)]
        self.ledgers = {}
        self.waiting, self.dead = [], []

    def life(self, name, lines, end=LIVES):
        ledger = self.ledgers.setdefault(name, QueueLedger(self.published, False, self.violations.add, name))
        path = self._folder / f"{name}{ledger.life}.log"
        path.write_text("".join(lines))
        ledger.begin_life(str(path))
        ledger.follow()
        if end != LIVES:
            ledger.end_life(end == KILLED)
        return ledger

    def judge(self):
        plan = type("Plan", (), {"published": self.published, "kinds": {INTERVIEW: "many"}})
        verdict = Verdict(list(self.ledgers.values()), plan, Book({}, self.violations.add), self.violations.add)
        self.queue = QueueVerdict(verdict, self.waiting, self.dead)
        self.queue.judge()
        return self.violations.counts()


@pytest.fixture
def story(tmp_path):
    """One of the two messages is stored; what becomes of the other is the test's."""
    story = Story(tmp_path)
    story.life("z", [received(1), ended(index=1)])
    return story


@pytest.fixture
def payload(story):
    return story.published[0].payload


def test_message_that_is_returned_is_not_counted(story):
    again = [received(number=2), ended(number=2), state(1, 1, 0, 0)]
    ledger = story.life("a", [received(), returned(), state(0, 0, 0, 0), *again])
    assert story.judge() == {} and ledger.in_flight() == 0
    story.life("b", [returned()])
    assert story.violations.counts() == {TWICE: 1}


def test_all_is_well(story):
    ledger = story.life("a", [received(), ended(), state(1, 1, 0, 0)])
    assert story.judge() == {} and ledger.in_flight() == 0 and ledger.in_redis == 5


def test_message_that_is_nowhere(story):
    story.life("a", [received()], KILLED)
    assert story.judge() == {LOST: 1}


@pytest.mark.parametrize("explain, rules", [
    (lambda story, payload: story.waiting.append(payload), {LEFT: 1}),  # not lost, but it should be worked on
    (lambda story, payload: setattr(story.published[0], "uncertain", True), {}),
    (lambda story, payload: story.life("b", [received(second=3), ended("duplicate", second=4)]), {}),
    (lambda story, payload: story.life("b", [received(second=3), ended("rolled back", second=4)]), {LOST: 1}),
])
def test_message_of_one_that_was_killed(story, payload, explain, rules):
    ledger = story.life("a", [received()], KILLED)
    assert ledger.gone == 1 and not ledger.killed_in_memory
    explain(story, payload)
    assert story.judge() == rules


def test_message_of_one_that_stops_needs_no_line(story):
    story.life("a", [received(), STOPPING], STOPPED)
    story.life("b", [received(second=6), ended(second=7)])
    assert story.judge() == {} and story.queue.again == 1


@pytest.mark.parametrize("lines, rule", [
    ([received(7)], NOT_RECEIVED),
    ([received(), ended(), ended()], TWICE),
    ([received(), ended(number=2)], TWICE),
    ([received(), received(1)], TWICE),           # one number for two messages
    ([received(), state(2, 0, 0, 2)], COUNTERS),
])
def test_what_must_not_happen(story, lines, rule):
    story.life("a", lines)
    assert rule in story.violations.counts()


@pytest.mark.parametrize("lines, end, silent, since, rules", [
    ([received(second=3)], LIVES, "", 4, {TWICE: 1}),
    ([received(second=3), ended(second=3)], LIVES, "", 4, {TWICE: 1}),
    ([received(second=3)], KILLED, "", 4, {}),
    ([received(second=3), STOPPING], LIVES, "", 4, {}),
    ([received(second=3), returned()], LIVES, "", 4, {}),
    ([received(second=3)], LIVES, "a", 4, {}),
    ([received(second=3)], LIVES, "a", 8, {TWICE: 1}),  # it was silent later
    ([received(second=3), ended(second=3)], LIVES, "b", 4, {}),
])
def test_message_is_given_to_another(story, lines, end, silent, since, rules):
    story.life("a", lines, end)
    story.life("b", [received(second=6), ended(second=7)])
    for name in silent:
        story.ledgers[name].given_up[1] = BEGAN + since
    assert story.judge() == rules


def test_message_is_given_twice_to_the_same(story):
    story.life("a", [received(second=3), ended(second=3), received(number=2, second=4), ended(number=2, second=4)])
    assert story.judge() == {TWICE: 1}


@pytest.mark.parametrize("outcome, letters, rules", [
    ("rolled back", ["rolled back"], {}),
    ("rolled back", [], {LOST: 1}),
    ("dropped", [], {LOST: 1}),
    ("rolled back", ["rolled back"] * 2, {TWICE: 1}),
    ("rolled back", ["rejected"], {TWICE: 1}),
    ("stored", ["rolled back"], {TWICE: 1}),
])
def test_dead_letters(story, payload, outcome, letters, rules):
    story.life("a", [received(), ended(outcome)])
    story.dead = [(payload, letter) for letter in letters]
    assert story.judge() == rules


def test_dead_letter_that_was_never_pushed(story):
    story.life("a", [received(), ended()])
    story.dead = [(b"something else", "rejected")]
    assert story.judge() == {TWICE: 1}


@pytest.mark.parametrize("times, rules", [(0, {LOST: 1}), (5, {})])
def test_message_that_was_delivered_too_often(story, payload, times, rules):
    for life in range(times):
        story.life("a", [received(second=life)], KILLED)
    story.dead = [(payload, "dropped")]
    assert story.judge() == rules and story.queue.buried == 1


def test_counters_know_what_was_delivered_too_often(story):
    story.life("a", [received(), ended(), BURIED, state(3, 1, 2, 0)])
    assert not story.violations.counts()


@pytest.mark.parametrize("before, since, rules", [(0, 2, {HELD_UP: 1}), (5, 2, {HELD_UP: 1}), (200, 2, {}),
                                                   (200, 0, {HELD_UP: 1})])
def test_many_that_come_at_once_are_no_hold_up(story, before, since, rules):
    for message in story.published:
        message.kind = INNOCENT
    story.published += [Published(i, INTERVIEW, PROMPT, b"x" * (100 + i), "many", at=1.0) for i in range(2, 2 + before)]
    waiting = [received(index=2 + i, number=2 + i, second=since) for i in range(before)]
    ledger = story.life("a", [*waiting, received(number=1, second=2), ended(number=1, second=2 + int(LIMIT_S) + 2)])
    ledger.judge_innocents(BEGAN)
    assert story.violations.counts() == rules


def test_messages_of_one_key_need_as_many_outcomes(story, payload):
    story.published[1] = Published(1, INTERVIEW, PROMPT, b"y" * 100, "many", at=1.0)
    story.ledgers.clear()
    story.life("a", [received(), ended()])
    assert story.judge() == {LOST: 1}
    story.life("a", [received(), ended()])
    story.violations.of_rule.clear()
    assert story.judge() == {}
