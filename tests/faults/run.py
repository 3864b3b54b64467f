# SPDX-License-Identifier: MIT
"""One campaign: rounds of faults under load, each until all is well again; then the verdict."""

import contextlib
import heapq
import os
import random
import time
import traceback
import uuid
from collections import defaultdict
from dataclasses import dataclass

import psycopg

from support.postgres import ROLE
from support.wait import SLOW

from . import kinds
from .book import Book, Reader
from .latency import SHIPPED_LIMIT_S
from .ledger import COUNTERS
from .load import UNDELETABLE, Plan, Publisher
from .modes import MODES
from .queue_verdict import QueueVerdict
from .report import Row
from .verdict import Verdict
from .violations import Violations
from .world import World

TICK_S = 0.01
RECOVERY_LIMIT_S = 60
SETTLE_LIMIT_S = 90
SHIPPED_SETTLE_LIMIT_S = 300   # recovery takes up what is a minute old, once a minute
MESSAGES_AN_INTERVIEW = 1.4
LAST_ROUND_S = 120   # at most; there must be messages until it ends

CAMPAIGN = "the campaign could not go on"


@dataclass(frozen=True)
class RunPlan:
    """How one run differs from the others."""
    mode: str              # redis_mode
    seed: int
    with_spool: bool
    atomicity: str
    promptds: int
    sequential: bool       # the interviews' ids
    rate: float
    shipped_timers: bool = False
    short: bool = False    # shorter faults
    go_on: bool = False    # also after a violation
    without: tuple = ()    # faults and kinds of interviews that are left out

    @property
    def atomicities(self):
        """Of each promptd."""
        return ["compensate", "transaction"] if self.atomicity == "mixed" else [self.atomicity] * self.promptds

    @property
    def name(self):
        where = self.mode if MODES[self.mode].keeps_queue else "spool" if self.with_spool else "memory"
        return (f"{where}-{self.atomicity}-{self.promptds}-{'sequential' if self.sequential else 'random'}-{self.seed}")


class Campaign:
    def __init__(self, folder, repository, run):
        self.folder = os.path.join(folder, run.name)
        os.mkdir(self.folder, 0o755)
        self._repository, self._run = repository, run
        self._chance = random.Random(f"campaign {run.seed}")
        self.rows = defaultdict(Row)
        self.name = run.name
        self.seconds = 0.0
        self.violations = Violations()
        self.unheard = 0
        self._events = open(os.path.join(self.folder, "events.log"), "w", encoding="utf-8", buffering=1)

    def run(self, seconds):
        run = self._run
        interviews = int((seconds * 1.3 + LAST_ROUND_S) * run.rate / MESSAGES_AN_INTERVIEW)
        self.plan = Plan(run.seed, "zq" + uuid.uuid4().hex, interviews, run.sequential, run.without)
        self._book, self._reader = Book(self.plan.statuses(), self.violations.add), Reader()
        began = time.monotonic()
        self.world = world = World(self.folder, self._repository, self.plan, self.violations, run)
        self._publisher = Publisher(self.plan, world.channel, run.rate, run.seed)
        world.burst = self._publisher.burst
        try:
            self._campaign(seconds)
        except Exception as error:  # a fault that could not be made or lifted, too: what was seen until then counts
            where = "" if isinstance(error, AssertionError) else traceback.format_exc(limit=-5)
            self.violations.add(CAMPAIGN, (where or str(error))[:2000])
            self._judge_so_far(to_the_end=True)
        finally:
            world.application.stop()
            self._publisher.stop()
            self._write_evidence()
            world.close()
            self._events.close()
            self.seconds = time.monotonic() - began

    def _write_evidence(self):
        if not self.violations:
            return
        try:
            with self.world.connect() as connection:
                self.violations.write_evidence(self.folder, connection)
        except psycopg.Error:
            self.violations.write_evidence(self.folder, None)

    def _note(self, text):
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}"
        self._events.write(f"{stamp} {text}\n")

    def _campaign(self, seconds):
        world, run = self.world, self._run
        for node in world.nodes:
            if run.shipped_timers:
                node.ledger.innocents.limit = SHIPPED_LIMIT_S
            node.ledger.innocents.disturbances.begin(time.time())
            node.start()
        self._publisher.start()
        self._until(self._stored_after(time.monotonic()), RECOVERY_LIMIT_S, "a first message to be stored")
        self._end_disturbances()
        world.application.start()
        deadline = time.monotonic() + seconds
        for round in kinds.schedule(f"{run.seed} {run.with_spool} {run.atomicity}", self._has(), 0.5 if run.short else 1.0,
                                    run.without):
            if time.monotonic() >= deadline or (self.violations and not run.go_on):
                break
            self._round(round)
        self._publisher.stop()
        world.application.stop()
        self._finish()

    def _has(self):
        """What some faults need."""
        world = self.world
        has = {name for name, disk in (("spool", world.nodes[0].disk), ("database", world.database_disk))
               if disk and disk.works}
        if world.mode.keeps_queue:
            has.add("queue")
            if len(world.nodes) > 1 and not self._run.short:
                has.add("another")
        return has

    # Rounds

    def _round(self, planned):
        faults = [(kind(self.world, self.rows[kind.name].times), begins, lasts) for kind, begins, lasts in planned]
        names = [fault.name for fault, _, _ in faults]
        gaps, before = [len(ledger.gaps) for ledger in self.ledgers()], self._losses()
        self._play(faults)
        lifted = time.monotonic()
        self._until(self._stored_after(lifted), RECOVERY_LIMIT_S, f"a message to be stored after {names}")
        took = time.monotonic() - lifted
        self._end_disturbances()
        self._note(f"all is well after {took:.2f} s")
        after = self._losses()
        for name in names:
            row = self.rows[name]
            row.recovery.append(took)
            for ledger, seen in zip(self.ledgers(), gaps):
                row.deaf += ledger.gaps[seen:]
            if name == kinds.Kill.name or kinds.Kill.name not in names:
                row.memory += after[0] - before[0]
                row.twice += after[1] - before[1]
        self._calm()

    def ledgers(self):
        return [node.ledger for node in self.world.nodes]

    def _losses(self):
        return sum(ledger.gone for ledger in self.ledgers()), sum(ledger.ended_twice for ledger in self.ledgers())

    def _end_disturbances(self):
        for ledger in self.ledgers():
            ledger.innocents.disturbances.end(time.time())

    def _in_flight(self):
        return sum(ledger.in_flight() for ledger in self.ledgers())

    def _pace(self):
        """The publisher goes by the promptd that is behind."""
        self._publisher.taken = max(ledger.in_flight() for ledger in self.ledgers())

    def _play(self, faults):
        """Begins and lifts the faults, each at its time."""
        now = time.monotonic()
        agenda = [(now + begins, i, "begin", fault, lasts) for i, (fault, begins, lasts) in enumerate(faults)]
        heapq.heapify(agenda)
        while agenda:
            at, i, what, fault, lasts = heapq.heappop(agenda)
            while time.monotonic() < at:
                self._tick()
            at_whom = "".join(node.name for node in fault.nodes)
            self._note(f"{what} {fault.name} ({at_whom})" + (f", for {lasts:.2f} s" if what == "begin" and lasts else ""))
            self._follow()
            if what == "begin":
                row = self.rows[fault.name]
                row.times += 1
                row.in_flight = max(row.in_flight, self._in_flight())
                for node in fault.disturbed():
                    node.ledger.innocents.disturbances.begin(time.time())
                fault.begin()
                heapq.heappush(agenda, (time.monotonic() + lasts, i, "lift", fault, lasts))
            else:
                fault.lift()

    def _calm(self):
        """Between two rounds: the book is read, and the state."""
        self._judge_so_far()
        self._ask_states()
        until = time.monotonic() + self._chance.uniform(0, 0.7)
        while time.monotonic() < until:
            self._tick()

    def _judge_so_far(self, to_the_end=False):
        for ledger in self.ledgers():
            ledger.judge_innocents(time.time())
        with contextlib.suppress(psycopg.Error), self.world.connect() as connection:
            for transaction in self._reader.read(connection, to_the_end):
                self._book.judge(transaction)

    def _stored_after(self, moment):
        return lambda: all(ledger.latest_stored_at > moment for ledger in self.ledgers())

    def _follow(self):
        for node in self.world.nodes:
            node.follow()

    def _ask_states(self):
        for node in self.world.nodes:
            node.ask_state()

    def _tick(self):
        self._follow()
        for node in self.world.nodes:
            node.supervise()
        if self._chance.random() < 0.02:
            self._ask_states()
        if self._chance.random() < 0.1:
            self._pace()
        time.sleep(TICK_S)

    def _until(self, condition, limit, what):
        deadline = time.monotonic() + limit * SLOW
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit * SLOW:g} s for {what}"
            self._tick()

    # The end

    def _finish(self):
        world = self.world
        self._note("settling")
        limit = SHIPPED_SETTLE_LIMIT_S if self._run.shipped_timers else SETTLE_LIMIT_S
        for node in world.nodes:
            node.give_up_the_dead()
        if world.mode.keeps_queue:
            self._settle(world.channel.payloads, limit, "Redis to have no message left")
            self._settle(self._say_that_some_wait, 10, "the state to say so")
            for name, count in self._say_that_some_wait():
                self.violations.add(COUNTERS, f"promptd {name} says that {count} messages wait in Redis, and none does")
        self._until(lambda: self._in_flight() == 0, limit, "all messages to have an outcome")
        with self.world.connect() as connection:
            self._settle(lambda: self._unsettled(connection), limit, "recovery to settle or undo")
            self._settle(lambda: self._open_orphans(connection), limit, "promptd to tell of orphans")
            self._settle(self._stuck, limit, "promptd to mark interviews that can be marked")
        readings = [ledger.readings for ledger in self.ledgers()]
        self._ask_states()
        self._until(lambda: all(ledger.readings > seen for ledger, seen in zip(self.ledgers(), readings)), 10, "the state")
        for node in self.world.nodes:
            self._judge_recoveries(node)
            node.stop()
            self.unheard += node.ledger.heard.finish()
        with self.world.connect() as connection:
            self._settle(lambda: self._sessions(connection), limit, "what the killed had sent to be committed, or not")
            self._judge_so_far(to_the_end=True)
            verdict = Verdict(self.ledgers(), self.plan, self._book, self.violations.add)
            if world.mode.keeps_queue:
                dead = [(letter["message"].encode(), letter["outcome"]) for letter in world.channel.dead()]
                queue = QueueVerdict(verdict, world.channel.payloads(), dead)
                queue.judge()
                world.notes.append(f"{len(dead)} dead letters, {queue.buried} of them delivered too often; "
                                   f"{queue.again} deliveries of what was received before")
            verdict.judge(connection)
        for node in self.world.nodes:
            if node.spool_folder:
                spool = node.spool()
                verdict.judge_spool(node.ledger, spool.waiting(), spool.dead_numbers())
        self.rows[kinds.Kill.name].lost = self._in_flight()

    def _settle(self, left, limit, what):
        """Waits until nothing is left. What is left then is the verdict's business."""
        deadline = time.monotonic() + limit * SLOW
        while left() and time.monotonic() < deadline:
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                self._tick()
        if left():
            self._note(f"waited in vain for {what}: {left()[:5]}")

    @staticmethod
    def _sessions(connection):
        return connection.execute("select pid from pg_stat_activity where usename = %s", [ROLE]).fetchall()

    @staticmethod
    def _unsettled(connection):
        return connection.execute("select prompt_id, interview_id from promptd_unsettled left join fault_plan "
                                  "on id = interview_id where kind <> all(%s)", [list(UNDELETABLE)]).fetchall()

    def _open_orphans(self, connection):
        """Left behind and not named, or named and not left behind."""
        left = {str(id) for id, in connection.execute("select prompt_id from promptd_unsettled").fetchall()}
        return [id for ledger in self.ledgers() for id in left ^ ledger.open_orphans().keys()]

    def _say_that_some_wait(self):
        self._ask_states()
        return [(ledger.name, ledger.in_redis) for ledger in self.ledgers() if ledger.in_redis]

    def _stuck(self):
        return [interview for ledger in self.ledgers() for interview, life in ledger.stuck.items()
                if life == ledger.life and self.plan.kinds[interview] != "stuck"]

    def _judge_recoveries(self, node):
        """The counters, against the lines of this life."""
        metrics, recoveries = node.metrics(), node.ledger.recoveries
        for result in ("settled", "rolled_back"):
            counted = metrics.get(f'promptd_recovered_total{{result="{result}"}}', 0)
            if counted != recoveries[result]:
                self.violations.add(COUNTERS, f"promptd {node.name} counts {counted:g} recovered as {result}, and has told "
                                    f"of {recoveries[result]}")

    def faults(self):
        return sum(row.times for row in self.rows.values())

    def summary(self):
        ledgers = self.ledgers()
        actions = ", ".join(f"{count} {what}" for what, count in sorted(self.world.application.counts.items()))
        stops = [seconds for node in self.world.nodes for seconds in node.stopped_in]
        prompts = self._book.prompts.values()
        return (f"{self.faults()} faults, {len(self.plan.published)} published, "
                f"{self.unheard} of them in gaps; the application: {actions}; "
                f"the book: {sum(self._book.counts.values())} changes, "
                f"{sum(prompt.ever_settled for prompt in prompts)} prompts settled, "
                f"{self._book.counts['promptd', 'prompt deleted']} undone; "
                f"{sum(ledger.gone for ledger in ledgers)} gone with memory, "
                f"{sum(prompt.there and prompt.evidence for prompt in prompts)} orphans left; "
                f"{sum(ledger.readings for ledger in ledgers)} readings, stopped in {max(stops, default=0):.2f} s at most"
                + "".join(f"; {note}" for note in self.world.notes))
