# SPDX-License-Identifier: MIT
"""The faults: each begins, lasts a while, and is lifted. What they have in common is the world they work on.

Two faults of the same `place` never overlap; faults of different places do. Those of a promptd or its links hit one of two,
now and then both.
"""

import contextlib
import random
import signal
import threading
import time

import psycopg
import redis

from support.postgres import ROLE
from support.proxy import POSTGRES_READY
EVERYONE, TARGET, NOBODY = "everyone", "target", "nobody"


class Fault:
    name = ""
    place = ""
    seconds = (0.5, 3.0)   # how long it lasts; (0, 0): a moment
    disturbs = EVERYONE    # whose messages may have to wait meanwhile
    needs = None           # what the world must have: the disk that must be small; a queue in Redis, another promptd

    def __init__(self, world, seed):
        self.world = world
        self.chance = random.Random(f"{self.name} {seed}")
        self.nodes = world.some_nodes(self.chance)

    def disturbed(self):
        return {EVERYONE: self.world.nodes, TARGET: self.nodes, NOBODY: []}[self.disturbs]

    def begin(self):
        raise NotImplementedError

    def lift(self):
        """Nothing, for those of a moment."""


def of_the_world(name, place, act, undo=None, seconds=(0.5, 3.0), **more):
    """A fault of a server that all have in common; without `undo` it is over as soon as it has happened."""
    return _fault(name, place, lambda self: act(self.world), undo and (lambda self: undo(self.world)), seconds, more)


def of_a_node(name, place, act, undo=None, seconds=(0.5, 3.0), **more):
    """A fault of one promptd, or of a link of its own."""
    def for_each(do):
        def run(self):
            for node in self.nodes:
                do(node)
        return run

    return _fault(name, place, for_each(act), undo and for_each(undo), seconds, more)


def _fault(name, place, begin, lift, seconds, more):
    methods = {"begin": begin, "lift": lift} if lift else {"begin": begin}
    return type(name, (Fault,), {"name": name, "place": place, "seconds": seconds if lift else (0, 0), **methods, **more})


# Redis: what was received does not need it any more.

def _redis(name, act, undo=None, seconds=(0.5, 3.0), needs=None):
    return of_the_world(name, "redis", act, undo, seconds, disturbs=NOBODY, needs=needs)


def _redis_link(name, act, seconds=(0.5, 3.0)):
    return of_a_node(name, "redis link", lambda n: act(n.redis_link), lambda n: n.redis_link.restore(), seconds,
                     disturbs=NOBODY)


def _kill_clients(world):
    """Those of promptd, which come by TCP; U stands for a Unix socket, whose long path Redis cuts short."""
    for client in world.redis.admin.client_list():
        if "U" not in client["flags"]:
            with contextlib.suppress(redis.ResponseError):  # it has gone meanwhile
                world.redis.admin.client_kill(client["addr"])


def _memory(most):
    return lambda world: world.redis.admin.config_set("maxmemory", most)


REDIS = [
    _redis("redis restart", lambda w: w.redis.stop(), lambda w: w.redis.start()),
    _redis("redis kill -9", lambda w: w.redis.stop(signal.SIGKILL), lambda w: w.redis.start()),
    _redis("redis SIGSTOP", lambda w: w.redis.freeze(), lambda w: w.redis.thaw(), (0.5, 4.0)),
    _redis("redis CLIENT KILL", _kill_clients),
    _redis("redis full", _memory("1kb"), _memory("0"), needs="queue"),
    of_a_node("redis link cut", "redis link", lambda n: n.redis_link.cut(), disturbs=NOBODY),
    _redis_link("redis link refused", lambda link: link.refuse()),
    _redis_link("redis link hangs up", lambda link: link.hang_up()),
    _redis_link("redis link swallows", lambda link: link.swallow(), (1.0, 4.0)),
    _redis_link("redis link goes deaf", lambda link: link.deafen(), (1.0, 4.0)),
    _redis_link("redis link stalls", lambda link: link.stall()),
]

# PostgreSQL

# The client's Execute of the unnamed portal. The answer to any request may be lost, whatever statement it prepared before.
ANY_REQUEST = rb"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"


def _start(world):
    world.cluster.start()


def _read_only(world):
    world.sql(f"alter database {world.database} set default_transaction_read_only = on")
    world.terminate()


def _writable(world):
    world.sql("set default_transaction_read_only = off",
              f"alter database {world.database} reset default_transaction_read_only")
    world.terminate()


def _few_connections(world):
    world.sql(f"alter role {ROLE} connection limit 1")
    world.terminate()


def _more_room_for_log(world):
    world.wal_disk.free()
    world.cluster.revive()


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


def some_of(chance, things, count):
    return chance.sample(things, min(count, len(things)))


class TerminateStorm(_InThread):
    name, place = "pg_terminate_backend storm", "postgres"

    def once(self):
        self.world.terminate()


class Deadlocks(_InThread):
    """Locks interviews that promptd is about to move, one after the other, in any order."""

    name, place, disturbs = "pg deadlocks", "postgres", NOBODY

    def once(self):
        with self.world.connect() as connection, connection.transaction():
            for interview in some_of(self.chance, self.world.plan.near(), 4):
                connection.execute("select from interviews where id = %s for update", [interview])
                time.sleep(self.chance.uniform(0, 0.02))


class _Locks(Fault):
    place = "postgres"
    seconds = (0.5, 2.5)

    def begin(self):
        self._connection = self.world.connect()
        # Lifted late, it would last longer than promptd's tries: the next fault's beginning may take its time.
        self._connection.execute(f"set idle_in_transaction_session_timeout = {int(self.seconds[1] * 1000)}")
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
    name, disturbs = "pg rows locked", NOBODY

    def lock(self, connection):
        connection.execute("select from interviews where id = any(%s::uuid[]) for update skip locked",
                           [some_of(self.chance, self.world.plan.near(), 30)])


class RepliesLost(Fault):
    name, place, disturbs = "pg replies lost", "pg link", TARGET
    seconds = (0.5, 2.0)

    def begin(self):
        for node in self.nodes:
            node.database_link.lose_reply(ANY_REQUEST, times=self.chance.choice((3, 10, 30)), reply_end=POSTGRES_READY)

    def lift(self):
        for node in self.nodes:
            node.database_link.restore()


def _database_link(name, act, seconds=(0.5, 3.0)):
    return of_a_node(name, "pg link", lambda n: act(n.database_link), lambda n: n.database_link.restore(), seconds,
                     disturbs=TARGET)


POSTGRES = [
    of_the_world("pg restart", "postgres", lambda w: w.cluster.stop(), _start),
    of_the_world("pg crash", "postgres", lambda w: w.cluster.crash(), _start),
    of_the_world("pg SIGSTOP", "postgres", lambda w: w.cluster.freeze(), lambda w: w.cluster.thaw(), (0.5, 5.0)),
    TerminateStorm, Deadlocks, TableLock, RowLocks,
    of_the_world("pg read-only", "postgres", _read_only, _writable),
    of_the_world("pg too many connections", "postgres", _few_connections,
                 lambda w: w.sql(f"alter role {ROLE} connection limit -1")),
    of_the_world("pg disk full", "postgres", lambda w: w.database_disk.fill(), lambda w: w.database_disk.free(), (1.0, 5.0),
                 needs="database"),
    of_the_world("pg log's disk full", "postgres", lambda w: w.wal_disk.fill(), _more_room_for_log, (1.0, 4.0),
                 needs="database"),
    of_a_node("pg link cut", "pg link", lambda n: n.database_link.cut(), disturbs=TARGET),
    _database_link("pg link refused", lambda link: link.refuse(), (0.5, 6.0)),
    _database_link("pg link swallows", lambda link: link.swallow(), (1.0, 5.0)),
    _database_link("pg link goes deaf", lambda link: link.deafen(), (1.0, 4.0)),
    RepliesLost,
]

# promptd itself

class Kill(Fault):
    """SIGKILL, once or several times, and started again at once or a little later."""

    name, place, disturbs = "promptd SIGKILL", "promptd", TARGET
    seconds = (0.0, 1.0)

    def begin(self):
        for _ in range(self.chance.choice((0, 0, 0, 1, 2))):
            self._kill()
            self.lift()
            time.sleep(self.chance.uniform(0, 0.5))
        self._kill()

    def _kill(self):
        """In the middle of something."""
        self.world.burst()
        for node in self.nodes:
            time.sleep(self.chance.uniform(0.02, 0.12))
            node.kill()

    def lift(self):
        for node in self.nodes:
            node.start()


def _promptd(name, act, undo=None, seconds=(0.5, 3.0), disturbs=TARGET):
    return of_a_node(name, "promptd", act, undo, seconds, disturbs=disturbs)


PROMPTD = [
    Kill,
    _promptd("promptd SIGTERM", lambda n: n.stop(), lambda n: n.start(), (0.0, 0.5)),
    _promptd("promptd SIGHUP", lambda n: n.reload(), disturbs=NOBODY),
    _promptd("promptd SIGHUP, mistake", lambda n: n.reload_with_mistake(), lambda n: n.mend_mistake(), (0.5, 1.0), NOBODY),
    _promptd("promptd SIGSTOP", lambda n: n.freeze(), lambda n: n.thaw(), (0.3, 3.0)),
    of_a_node("promptd silent for 50 s", "promptd", lambda n: n.freeze_for_long(), lambda n: n.thaw(), (48.0, 55.0),
              disturbs=TARGET, needs="another"),
    of_a_node("spool disk full", "disk", lambda n: n.disk.fill(), lambda n: n.disk.free(), needs="spool"),
]

# Nothing but the application, and what the interviews themselves refuse.
ALONE = of_the_world("application alone", "everywhere", lambda w: None, lambda w: None, (2.0, 5.0), disturbs=NOBODY)
LEFT_ALONE = 0.08  # the share of such rounds

# The share of rounds in which promptd is killed, besides its turn as one fault of many.
KILLED = 0.3

ALL = REDIS + POSTGRES + PROMPTD


def schedule(seed, has, pace=1.0, without=()):
    """Rounds without end: [(kind, begins after so many seconds, lasts so many)], the same for the same seed.

    Every kind comes before any comes again; about every second round has several at once. has: what some kinds need.
    """
    chance = random.Random(f"schedule {seed}")
    kinds = [kind for kind in ALL if (kind.needs is None or kind.needs in has) and kind.name not in without]
    killing = KILLED if Kill in kinds else 0.0
    bag = []
    while True:
        if chance.random() < LEFT_ALONE:
            yield [(ALONE, 0.0, pace * chance.uniform(*ALONE.seconds))]
        wanted = chance.choice((1, 1, 2, 2, 3))
        chosen = []
        if chance.random() < killing:
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
