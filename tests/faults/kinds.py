# SPDX-License-Identifier: MIT
"""The faults: each begins, lasts a while, and is lifted. What they have in common is the world they work on.

Two faults of the same `place` never overlap; faults of different places do.
"""

import contextlib
import random
import signal
import threading
import time

import psycopg

from support.postgres import ROLE
from support.proxy import POSTGRES_READY
from support.spool import fill_disk


class Fault:
    name = ""
    place = ""
    seconds = (0.5, 3.0)   # how long it lasts; (0, 0): a moment
    needs_spool_disk = False

    def __init__(self, world, seed):
        self.world = world
        self.chance = random.Random(f"{self.name} {seed}")

    def begin(self):
        raise NotImplementedError

    def lift(self):
        """Nothing, for those of a moment."""


def of_a_moment(name, place, act):
    """A fault that is over as soon as it has happened."""
    return type(name, (Fault,), {"name": name, "place": place, "seconds": (0, 0), "begin": lambda self: act(self.world)})


def lasting(name, place, act, undo, seconds=(0.5, 3.0)):
    return type(name, (Fault,), {"name": name, "place": place, "seconds": seconds, "begin": lambda self: act(self.world),
                                 "lift": lambda self: undo(self.world)})


# Redis

def _kill_subscribers(world):
    world.redis.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


REDIS = [
    lasting("redis restart", "redis", lambda w: w.redis.stop(), lambda w: w.redis.start()),
    lasting("redis kill -9", "redis", lambda w: w.redis.stop(signal.SIGKILL), lambda w: w.redis.start()),
    lasting("redis SIGSTOP", "redis", lambda w: w.redis.freeze(), lambda w: w.redis.thaw(), (0.5, 4.0)),
    of_a_moment("redis CLIENT KILL", "redis", _kill_subscribers),
    of_a_moment("redis link cut", "redis link", lambda w: w.redis_link.cut()),
    lasting("redis link refused", "redis link", lambda w: w.redis_link.refuse(), lambda w: w.redis_link.restore()),
    lasting("redis link hangs up", "redis link", lambda w: w.redis_link.hang_up(), lambda w: w.redis_link.restore()),
    lasting("redis link swallows", "redis link", lambda w: w.redis_link.swallow(), lambda w: w.redis_link.restore(),
            (1.0, 4.0)),
    lasting("redis link goes deaf", "redis link", lambda w: w.redis_link.deafen(), lambda w: w.redis_link.restore(),
            (1.0, 4.0)),
    lasting("redis link stalls", "redis link", lambda w: w.redis_link.stall(), lambda w: w.redis_link.restore()),
]

# PostgreSQL

def _start(world):
    world.cluster.start()


def _read_only(world):
    world.sql(f"alter database {world.database} set default_transaction_read_only = on")
    world.terminate()


def _writable(world):
    world.sql(f"alter database {world.database} reset default_transaction_read_only", "set default_transaction_read_only = off")
    world.terminate()


def _few_connections(world):
    world.sql(f"alter role {ROLE} connection limit 1")
    world.terminate()


def _lose_replies(world):
    world.database_link.lose_reply(rb"insert into interview_|update interviews|delete from interview_", times=3,
                                   reply_end=POSTGRES_READY)


class _InThread(Fault):
    """Something that goes on and on until it is lifted, in a thread of its own."""

    def begin(self):
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def lift(self):
        self._over.set()
        self._thread.join()

    def _run(self):
        while not self._over.wait(self.chance.uniform(0.01, 0.2)):
            with contextlib.suppress(psycopg.Error):
                self.once()

    def once(self):
        raise NotImplementedError


class TerminateStorm(_InThread):
    name, place = "pg_terminate_backend storm", "postgres"

    def once(self):
        self.world.terminate()


class Deadlocks(_InThread):
    """Locks interviews that promptd is about to move, one after the other, in any order."""

    name, place = "pg deadlocks", "postgres"

    def once(self):
        with self.world.cluster.connect(self.world.database) as connection, connection.transaction():
            for interview in self.world.plan.near(4):
                connection.execute("select from interviews where id = %s for update", [interview])
                time.sleep(self.chance.uniform(0, 0.02))


class _Locks(Fault):
    place = "postgres"
    seconds = (0.5, 2.5)

    def begin(self):
        self._connection = self.world.cluster.connect(self.world.database)
        self._connection.execute("begin")
        self.lock(self._connection)

    def lift(self):
        self._connection.close()

    def lock(self, connection):
        raise NotImplementedError


class TableLock(_Locks):
    name = "pg table locked"

    def lock(self, connection):
        connection.execute("lock table interview_enhanced_prompts in exclusive mode")


class RowLocks(_Locks):
    name = "pg rows locked"

    def lock(self, connection):
        connection.execute("select from interviews where id = any(%s::uuid[]) for update", [self.world.plan.near(30)])


POSTGRES = [
    lasting("pg restart", "postgres", lambda w: w.cluster.stop(), _start),
    lasting("pg crash", "postgres", lambda w: w.cluster.crash(), _start),
    lasting("pg SIGSTOP", "postgres", lambda w: w.cluster.freeze(), lambda w: w.cluster.thaw(), (0.5, 5.0)),
    TerminateStorm, Deadlocks, TableLock, RowLocks,
    lasting("pg read-only", "postgres", _read_only, _writable),
    lasting("pg too many connections", "postgres", _few_connections,
            lambda w: w.sql(f"alter role {ROLE} connection limit -1")),
    lasting("pg disk full", "postgres", lambda w: w.sql("insert into fault_switch values ('53100')"),
            lambda w: w.sql("delete from fault_switch")),
    of_a_moment("pg link cut", "pg link", lambda w: w.database_link.cut()),
    lasting("pg link refused", "pg link", lambda w: w.database_link.refuse(), lambda w: w.database_link.restore(),
            (0.5, 6.0)),
    lasting("pg link swallows", "pg link", lambda w: w.database_link.swallow(), lambda w: w.database_link.restore(),
            (1.0, 5.0)),
    lasting("pg link goes deaf", "pg link", lambda w: w.database_link.deafen(), lambda w: w.database_link.restore(),
            (1.0, 4.0)),
    lasting("pg replies lost", "pg link", _lose_replies, lambda w: w.database_link.restore(), (0.5, 1.5)),
]

# promptd itself

class Kill(Fault):
    """SIGKILL, once or several times, and started again at once or a little later."""

    name, place = "promptd SIGKILL", "promptd"
    seconds = (0.0, 1.0)

    def begin(self):
        for _ in range(self.chance.choice((0, 0, 0, 1, 2))):
            self._kill()
            self.world.start_promptd()
            time.sleep(self.chance.uniform(0, 0.5))
        self._kill()

    def _kill(self):
        """In the middle of something."""
        self.world.burst()
        time.sleep(self.chance.uniform(0.02, 0.12))
        self.world.kill_promptd()

    def lift(self):
        self.world.start_promptd()


class FillSpoolDisk(Fault):
    name, place = "spool disk full", "disk"
    needs_spool_disk = True

    def begin(self):
        self._filler = fill_disk(self.world.spool_folder)

    def lift(self):
        self.world.remove(self._filler)


PROMPTD = [
    Kill,
    lasting("promptd SIGTERM", "promptd", lambda w: w.stop_promptd(), lambda w: w.start_promptd(), (0.0, 0.5)),
    of_a_moment("promptd SIGHUP", "promptd", lambda w: w.reload_promptd()),
    lasting("promptd SIGHUP, mistake", "promptd", lambda w: w.reload_with_mistake(), lambda w: w.mend_mistake(), (0.5, 1.0)),
    lasting("promptd SIGSTOP", "promptd", lambda w: w.freeze_promptd(), lambda w: w.thaw_promptd(), (0.3, 3.0)),
]

# The share of rounds in which promptd is killed, besides its turn as one fault of many.
KILLED = 0.3

ALL = REDIS + POSTGRES + PROMPTD + [FillSpoolDisk]


def schedule(seed, with_disk, pace=1.0):
    """Rounds without end: [(kind, begins after so many seconds, lasts so many)], the same for the same seed.

    Every kind comes before any comes again; about every second round has several at once.
    """
    chance = random.Random(f"schedule {seed}")
    kinds = [kind for kind in ALL if with_disk or not kind.needs_spool_disk]
    bag = []
    while True:
        wanted = chance.choice((1, 1, 2, 2, 3))
        chosen = []
        if chance.random() < KILLED:
            chosen.append(Kill)
        while len(chosen) < wanted:
            if not bag:
                bag = chance.sample(kinds, len(kinds))
            taken = next((kind for kind in bag if kind.place not in {other.place for other in chosen}), None)
            if taken is None:
                break
            bag.remove(taken)
            chosen.append(taken)
        yield [(kind, chance.uniform(0, pace) if len(chosen) > 1 else 0.0, pace * chance.uniform(*kind.seconds))
               for kind in chosen]
