# SPDX-License-Identifier: MIT
"""The books of one promptd in list and stream mode, where Redis keeps each message until its outcome.

    received ─▶ held ─▶ ended                 known by the number that this life gave it
                 └▶ returned, for there was no room after all; left to another, when this life is over

Any promptd may receive any message, in any order, and again; what several of them tell is compared in queue_verdict.py.
"""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from .ledger import NOT_RECEIVED, TWICE, Ledger, key_of, pairs


@dataclass
class Delivery:
    """A message that was received once."""
    at: float      # of the log
    name: str      # of the promptd
    life: int


class Taken:
    """Which of the pushed messages were received. Those of one key cannot be told apart: they take turns."""

    def __init__(self, published, complain):
        """complain(what, interview)"""
        self._published, self._complain = published, complain
        self._known = 0
        self._where = defaultdict(deque)
        self.received = set()

    def received_one(self, key, _epoch):
        count = len(self._published)
        for message in self._published[self._known:count]:
            self._where[message.key].append(message)
        self._known = count
        where = self._where.get(key)
        if not where:
            self._complain(f"received what was never pushed: {key}", key[0])
            return None
        where.rotate(-1)
        self.received.add(where[-1].index)
        return where[-1]

    def finish(self):
        return 0


class QueueLedger(Ledger):
    def __init__(self, published, _with_spool, complain, name=""):
        super().__init__(published, False, complain, name)
        self.heard = Taken(published, lambda what, interview="": self.complain(NOT_RECEIVED, what, interview))
        self.held = {}                          # number: key
        self.just_came = deque()                # when the latest messages did, of any key
        self.deliveries = defaultdict(list)     # key: [Delivery]
        self.endings = defaultdict(Counter)     # key: outcomes
        self.over = {}                          # life: when it was killed, or asked to stop
        self.in_redis = 0                       # by the last state: messages that wait there, taken or not
        self.given_up = {}                      # life: since when it was silent for so long that others took what it held

    def begin_life(self, log_path):
        super().begin_life(log_path)
        self.consumer = ""

    def in_flight(self):
        return len(self.held)

    def _line_of_its_own(self, text):
        if text.startswith("taking messages"):
            self.consumer = pairs(text)["consumer"]
        elif text.startswith("stopping on"):
            self.over[self.life] = self._now

    def _message(self, text):
        super()._message(text)
        if text.startswith("message returned "):
            fields = pairs(text)
            key = key_of(fields)
            if self.held.pop(int(fields["sequence"]), None) != key:
                self.complain(TWICE, f"returned, and was not there or had ended: {key}", key[0])
                return
            self._came["received"] -= 1
            self.deliveries[key].pop()
            self.innocents.forget(key)

    def _error(self, text):
        super()._error(text)
        if text.startswith("message dropped: it was delivered"):
            for name in ("received", "dropped", "ended"):
                self._came[name] += int(pairs(text)["messages"])

    def _state(self, fields):
        super()._state(fields)
        self.in_redis = int(fields["source_backlog"]) + int(fields["source_pending"])

    def _before_it(self):
        """After a SIGKILL or an outage all that waits in Redis comes at once: those of the last second are before it."""
        while self.just_came and self.just_came[0] < self._now - 1:
            self.just_came.popleft()
        return len(self.just_came)

    def _keep(self, key, number):
        if number in self.held:
            self.complain(TWICE, f"number {number} was given twice", key[0])
        self.held[number] = key
        self.just_came.append(self._now)
        self.deliveries[key].append(Delivery(self._now, self.name, self.life))

    def _let_go(self, key, number, outcome):
        self.endings[key][outcome] += 1
        if self.held.pop(number, None) != key:
            self.ended_twice += 1
            self.complain(TWICE, f"number {number} ended as {outcome}, and was not there or had ended: {key}", key[0])

    def _abandon(self, killed):
        """Others take it up: nobody need name it."""
        self.over.setdefault(self.life, self._now)
        for key in self.held.values():
            self.innocents.forget(key)
        gone = len(self.held) if killed else 0
        self.held.clear()
        return gone
