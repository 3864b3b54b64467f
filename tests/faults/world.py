# SPDX-License-Identifier: MIT
"""The servers, the application, one promptd or two, and the links between them: what faults are done to."""

import os

from support.postgres import ROLE, Cluster
from support.redis_server import RedisServer

from .application import NAME, Application
from .disk import Disk
from .modes import MODES
from .node import Node

# Patience outlasts a table that a fault keeps locked, for the transaction that waits for it holds its interviews' rows, and
# a row that all of the application's sessions lock one after the other, each for as long as it may, over a frozen server.
FAST = {"heartbeat_interval_s": 1, "heartbeat_timeout_s": 1, "backoff_max_s": 1, "breaker_reset_s": 2,
        "statement_timeout_ms": 1000, "retry_base_ms": 20, "retry_max_ms": 200, "lock_patience_s": 30, "recover_after_s": 3,
        "reconcile_interval_s": 2, "shutdown_timeout_s": 3}
CHANNEL = "interviewly:prompt-ready:campaign"
DATABASE_MB = 4096     # used is only what is written
WAL_MB = 1024

CONFIGURATION = {
    # What no commit has waited for is not on disk for long, and a crash finds it out.
    "wal_writer_delay": "10s",
    "track_commit_timestamp": "on",  # the book is read in the order of commits
    "autovacuum": "on", "autovacuum_naptime": "5s",
    # Each new piece of the log needs room.
    "min_wal_size": "2MB", "wal_recycle": "off",
}
HERE = os.path.dirname(os.path.abspath(__file__))


class World:
    def __init__(self, folder, repository, plan, violations, run):
        """run: a RunPlan, which says how many promptds there are, and how they are set."""
        self.folder, self.plan, self.violations = folder, plan, violations
        self.notes = []
        self._closing = []
        self.burst = lambda: None  # has the publisher send many messages at once
        self.mode = MODES[run.mode]
        self.database = "campaign"
        try:
            self._open(repository, run)
        except BaseException:
            self.close()  # servers, and mounted disks
            raise

    def _open(self, repository, run):
        self.redis = self.own(RedisServer(self.make_folder("redis"), "--client-output-buffer-limit", "pubsub 8mb 4mb 5",
                                          *self.mode.redis_options))
        self.channel = self.mode.open(self.redis, CHANNEL)
        self.database_disk = self.own(Disk(self.make_folder("pg-tables"), DATABASE_MB, 0o700))
        self.wal_disk = self.own(Disk(self.make_folder("pg-wal"), WAL_MB, 0o700))
        self.cluster = self.own(Cluster(self.make_folder("pg"), os.path.join(repository, "sql"), CONFIGURATION,
                                        wal_folder=self.wal_disk.folder))
        self._make_database()
        settings = {"redis_channel": CHANNEL, "log_level": "debug", "queue_max_messages": 5000, **self.mode.settings,
                    **({} if run.shipped_timers else FAST)}
        self.nodes = [self.own(Node(self, name, {**settings, "atomicity": atomicity}, run))
                      for name, atomicity in zip("ab", run.atomicities)]
        self.application = Application(lambda: self.cluster.connect(self.database, application_name=NAME),
                                       self.plan, run.seed)
        if not self.database_disk.works:
            self.notes.append("no full disks: needs root and CAP_SYS_ADMIN (to mount small file systems)")

    def _make_database(self):
        Cluster.own(self.database_disk.folder)
        with self.cluster.connect("postgres") as connection:
            connection.execute(f"create tablespace small location '{self.database_disk.folder}'")
            connection.execute(f"create database {self.database} template promptd_template tablespace small")
            connection.execute(f"alter database {self.database} set synchronous_commit = on")  # committed is committed
            connection.execute(f"alter role {ROLE} set deadlock_timeout = '20ms'")  # it is promptd that gives way
        with self.cluster.connect(self.database) as connection:
            for name in ("refusals.sql", "book.sql"):
                with open(os.path.join(HERE, name), encoding="utf-8") as file:
                    connection.execute(file.read())
            self.plan.prepare(connection)

    def own(self, thing):
        self._closing.append(thing)
        return thing

    def make_folder(self, name, mode=0o755):
        path = os.path.join(self.folder, name)
        os.mkdir(path, mode)
        return path

    def close(self):
        for thing in reversed(self._closing):
            thing.close()

    def some_nodes(self, chance):
        """Whom a fault hits that hits a promptd: mostly one."""
        return self.nodes if chance.random() < 0.25 else [chance.choice(self.nodes)]

    # PostgreSQL

    def connect(self):
        return self.cluster.connect(self.database)

    def sql(self, *statements):
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def terminate(self):
        self.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{ROLE}'")
