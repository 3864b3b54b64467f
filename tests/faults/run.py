# SPDX-License-Identifier: MIT
"""One campaign: rounds of faults under load, each until all is well again; then the verdict."""

import heapq
import os
import random
import time
import uuid
from collections import defaultdict

from support.wait import SLOW

from . import kinds
from .ledger import Ledger
from .load import Plan, Publisher
from .report import Row
from .verdict import Verdict
from .world import World

TICK_S = 0.01
RECOVERY_LIMIT_S = 60
SETTLE_LIMIT_S = 90
MESSAGES_AN_INTERVIEW = 1.4


class Campaign:
    def __init__(self, folder, repository, options, with_spool, atomicity):
        os.mkdir(folder, 0o755)
        self._seed, self._with_spool, self._atomicity = options.seed, with_spool, atomicity
        self._folder, self._repository, self._options = folder, repository, options
        self._chance = random.Random(f"campaign {options.seed}")
        self.rows = defaultdict(Row)
        self._moved = set()
        self._unheard = self._for_reconciler = self._for_people = 0
        self._events = open(os.path.join(folder, "events.log"), "w", encoding="utf-8", buffering=1)

    def run(self, seconds):
        """Returns the violations."""
        marker = "zq" + uuid.uuid4().hex
        plan = Plan(self._seed, marker, int(seconds * self._options.rate / MESSAGES_AN_INTERVIEW * 1.3) + 1000)
        self.ledger = Ledger(plan.published, self._with_spool)
        self.plan = plan
        world = World(self._folder, self._repository, plan, self.ledger, self._with_spool, self._atomicity,
                      self._options.shipped_timers)
        self.world = world
        try:
            with world.cluster.connect(world.database) as connection:
                plan.prepare(connection)
            self._campaign(seconds)
        except AssertionError as error:
            self.ledger.complain(f"the campaign ended early: {str(error)[:2000]}")
        finally:
            world.close()
            self._events.close()
        return self.ledger.violations

    def _note(self, text):
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}"
        self._events.write(f"{stamp} {text}\n")

    def _campaign(self, seconds):
        self.world.start_promptd()
        publisher = Publisher(self.plan, self.world.redis, self.world.channel, self._options.rate, self._seed)
        self.world.burst = publisher.burst
        publisher.start()
        self._until(self._stored_after(time.monotonic()), RECOVERY_LIMIT_S, "a first message to be stored")
        deadline = time.monotonic() + seconds
        schedule = f"{self._seed} {self._with_spool} {self._atomicity}"
        for round in kinds.schedule(schedule, self.world.small_disk, 0.5 if self._options.short else 1.0):
            if time.monotonic() >= deadline or self.ledger.violations:
                break
            self._round(round)
        publisher.stop()
        self._finish()

    # Rounds

    def _round(self, planned):
        faults = [(kind(self.world, self.rows[kind.name].times), begins, lasts) for kind, begins, lasts in planned]
        names = [fault.name for fault, _, _ in faults]
        gaps, before = len(self.ledger.gaps), self._losses()
        self._play(faults)
        lifted = time.monotonic()
        self._until(self._stored_after(lifted), RECOVERY_LIMIT_S, f"a message to be stored after {names}")
        took = time.monotonic() - lifted
        self._note(f"all is well after {took:.2f} s")
        after = self._losses()
        for name in names:
            row = self.rows[name]
            row.recovery.append(took)
            row.deaf += self.ledger.gaps[gaps:]
            if name == kinds.Kill.name or kinds.Kill.name not in names:
                row.memory += after[0] - before[0]
                row.twice += after[1] - before[1]
        self._calm()

    def _losses(self):
        return self.ledger.gone, self.ledger.ended_twice

    def _play(self, faults):
        """Begins and lifts the faults, each at its time."""
        now = time.monotonic()
        agenda = [(now + begins, i, "begin", fault, lasts) for i, (fault, begins, lasts) in enumerate(faults)]
        heapq.heapify(agenda)
        while agenda:
            at, i, what, fault, lasts = heapq.heappop(agenda)
            while time.monotonic() < at:
                self._tick()
            self._note(f"{what} {fault.name}" + (f", for {lasts:.2f} s" if what == "begin" and lasts else ""))
            self.ledger_follow()
            if what == "begin":
                row = self.rows[fault.name]
                row.times += 1
                row.in_flight = max(row.in_flight, self.ledger.in_flight())
                fault.begin()
                heapq.heappush(agenda, (time.monotonic() + lasts, i, "lift", fault, lasts))
            else:
                fault.lift()

    def _calm(self):
        """Between two rounds: the application moves some interviews, and the state is read."""
        moving = [i for i in self.plan.near(200) if self.plan.kinds.get(i) == "moved"]
        status = self._chance.choice(("timeout", "completed", "cancelled"))
        self._moved.update(self.world.move(moving, status) if moving else [])
        self.world.ask_state()
        until = time.monotonic() + self._chance.uniform(0, 0.7)
        while time.monotonic() < until:
            self._tick()

    def _stored_after(self, moment):
        return lambda: self.ledger.latest_stored_at > moment

    def _nothing_left_to_delete(self):
        return all(self.plan.kinds[interview] == "refuse_delete" for interview in self.ledger.open_orphans().values())

    def ledger_follow(self):
        if self.world.promptd is not None:
            self.ledger.follow()

    def _tick(self):
        self.ledger_follow()
        self.world.supervise()
        if self._chance.random() < 0.02:
            self.world.ask_state()
        time.sleep(TICK_S)

    def _until(self, condition, limit, what):
        deadline = time.monotonic() + limit * SLOW
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit * SLOW:g} s for {what}"
            self._tick()

    # The end

    def _finish(self):
        world, ledger = self.world, self.ledger
        self._note("settling")
        self._until(lambda: ledger.in_flight() == 0, SETTLE_LIMIT_S, "all messages to have an outcome")
        self._until(self._nothing_left_to_delete, SETTLE_LIMIT_S, "the orphans to be deleted that can be")
        readings = ledger.readings
        world.ask_state()
        self._until(lambda: ledger.readings > readings, 10, "the state")
        world.stop_promptd()
        self._unheard = ledger.heard.finish()
        verdict = Verdict(ledger, self.plan, self._moved, self._atomicity == "transaction")
        with world.cluster.connect(world.database) as connection:
            verdict.judge(connection)
            verdict.judge_books()
            if world.spool_folder:
                spool = world.spool()
                verdict.judge_spool(spool.waiting(), spool.dead_numbers())
            self._let_reconciler_look(connection, verdict)
        self._for_people = verdict.for_people
        row = self.rows[kinds.Kill.name]
        row.lost, row.unreported = len(ledger.on_disk), verdict.unreported

    def _let_reconciler_look(self, connection, verdict):
        """Ten minutes later: each prompt that SIGKILL has left without a report is found, and nothing else."""
        wanted = set(verdict.for_reconciler)
        self._for_reconciler = len(wanted)
        if not wanted:
            return
        self._note(f"the reconciler must find {len(wanted)}")
        connection.execute("update interview_enhanced_prompts set created_at = created_at - interval '11 minutes'")
        for id in wanted:
            self.ledger.orphans.pop(id, None)
        self.world.settings["reconcile_interval_s"] = 1
        self.world.start_promptd()
        self._until(lambda: wanted <= set(self.ledger.orphans), 10 + len(wanted) / 10, "the reconciler to name each")
        self.world.stop_promptd()

    def summary(self):
        ledger = self.ledger
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ledger.totals.items()))
        stops = self.world.stopped_in
        return (f"{sum(row.times for row in self.rows.values())} faults, {len(self.plan.published)} published, "
                f"{self._unheard} of them in gaps, {len(ledger.heard.received)} received: {outcomes}; "
                f"{ledger.again} ended again after SIGKILL, {ledger.gone} gone with memory, "
                f"{len(ledger.ever_orphaned)} orphans told, {len(ledger.orphans)} open, {self._for_reconciler} found by the "
                f"reconciler, {self._for_people} for promptctl orphans; {ledger.readings} readings, {ledger.life} lives, "
                f"stopped in {max(stops, default=0):.2f} s at most" + "".join(f"; {note}" for note in self.world.notes))
