# SPDX-License-Identifier: MIT
"""The servers, the proxies between them and promptd, and promptd itself: what faults are done to."""

import os
import signal
import subprocess
import time

import psycopg

from support.postgres import ROLE, Cluster
from support.promptd import Promptd
from support.proxy import Proxy
from support.redis_server import RedisServer
from support.spool import Spool

EXIT_SPOOL = 73

FAST = {"heartbeat_interval_s": 1, "heartbeat_timeout_s": 1, "backoff_max_s": 1, "breaker_reset_s": 2,
        "statement_timeout_ms": 1000, "retry_base_ms": 20, "retry_max_ms": 200, "settle_timeout_s": 2,
        "reconcile_interval_s": 5, "shutdown_timeout_s": 3}
SHUTDOWN_GRACE_S = 2.0


class World:
    def __init__(self, folder, repository, plan, ledger, with_spool, atomicity, shipped_timers):
        self.folder, self.plan, self.ledger = folder, plan, ledger
        self.channel = "interviewly:prompt-ready:campaign"
        self.notes = []
        self._closing = []
        self.redis = self._own(RedisServer(self._make("redis"), "--client-output-buffer-limit", "pubsub 8mb 4mb 5"))
        # What no commit has waited for is not on disk for long, and a crash finds it out.
        self.cluster = self._own(Cluster(self._make("pg"), os.path.join(repository, "sql"), {"wal_writer_delay": "10s"}))
        self.redis_link = self._own(Proxy(("127.0.0.1", self.redis.port)))
        self.database_link = self._own(Proxy(("127.0.0.1", self.cluster.port)))
        self.database = "campaign"
        with self.cluster.connect("postgres") as connection:
            connection.execute("create database campaign template promptd_template")
            connection.execute("alter database campaign set synchronous_commit = on")  # committed is committed
            connection.execute(f"alter role {ROLE} set deadlock_timeout = '20ms'")     # it is promptd that gives way
        self.spool_folder = self._make("spool", 0o700) if with_spool else None
        self.small_disk = with_spool and self._mount(self.spool_folder)
        self._config = os.path.join(folder, "promptd.conf")
        self._write_config("batch_max = 256\n")
        self._reloads = 0
        self.settings = {
            "redis_url": f"redis://127.0.0.1:{self.redis_link.port}", "redis_channel": self.channel,
            "database_url": f"postgresql://{ROLE}@127.0.0.1:{self.database_link.port}/{self.database}",
            "atomicity": atomicity, "log_level": "debug", "queue_max_messages": 5000,
            "admin_listen": f"unix:{folder}/admin.sock",
            **({} if shipped_timers else FAST), **({"spool_dir": self.spool_folder} if with_spool else {})}
        self._shutdown_s = float(self.settings.get("shutdown_timeout_s", 10)) + SHUTDOWN_GRACE_S
        self.promptd = None
        self.burst = lambda: None  # has the publisher send many messages at once
        self.stopped_in = []   # seconds of each SIGTERM

    def _own(self, thing):
        self._closing.append(thing)
        return thing

    def _make(self, name, mode=0o755):
        path = os.path.join(self.folder, name)
        os.mkdir(path, mode)
        return path

    def _mount(self, folder):
        command = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", folder]
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
            return True
        self.notes.append("no full disk for the spool: needs root and CAP_SYS_ADMIN (to mount a small file system)")
        return False

    def close(self):
        if self.promptd is not None and self.promptd.process.poll() is None:
            self.promptd.process.kill()
            self.promptd.process.wait()
        for thing in reversed(self._closing):
            thing.close()
        if self.small_disk:
            subprocess.run(["umount", "--lazy", self.spool_folder], check=True)

    # PostgreSQL

    def sql(self, *statements):
        with self.cluster.connect(self.database) as connection:
            for statement in reversed(statements):
                connection.execute(statement)

    def terminate(self):
        self.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{ROLE}'")

    def move(self, interviews, status):
        """The application's doing. Returns those that it did move."""
        try:
            with self.cluster.connect(self.database) as connection:
                connection.execute("set lock_timeout = '1s'")
                return [str(id) for id, in connection.execute(
                    "update interviews set status = %s where id = any(%s::uuid[]) returning id", [status, interviews])]
        except psycopg.Error:
            return []

    # promptd

    def _write_config(self, text):
        with open(self._config, "w", encoding="ascii") as file:
            file.write(text)

    def start_promptd(self):
        """Under supervision, as by systemd: where its spool cannot be opened yet it is started again."""
        self.promptd = Promptd(self.folder, f"promptd{self.ledger.life + 1}", self.settings, ["--config", self._config])
        self.ledger.begin_life(self.promptd.log_path)

    def supervise(self):
        """Starts it again where the spool's disk was too full to open it."""
        if self.promptd is None or self.promptd.process.poll() is None:
            return
        code = self.promptd.wait_exit()
        if code != EXIT_SPOOL or not self.small_disk:
            self.ledger.complain(f"{self.promptd.name} ended with {code}")
        self._end_life(killed=True)
        time.sleep(0.3)
        self.start_promptd()

    def _end_life(self, killed):
        gone = self.ledger.end_life(killed)
        try:
            self.promptd.check_log([], self.plan.marker)
        except AssertionError as error:
            self.ledger.complain(str(error)[:1000])
        self.promptd = None
        return gone

    def kill_promptd(self):
        self.promptd.crash()
        return self._end_life(killed=True)

    def stop_promptd(self):
        began = time.monotonic()
        self.promptd.kill(signal.SIGTERM)
        code = self.promptd.wait_exit(self._shutdown_s)
        self.stopped_in.append(time.monotonic() - began)
        if code != 0:
            self.ledger.complain(f"{self.promptd.name} ended with {code} when it was asked to stop")
        self._end_life(killed=code != 0)

    def reload_promptd(self):
        self._reloads += 1
        self._write_config(f"batch_max = {(1, 10, 256)[self._reloads % 3]}\n")
        self.promptd.kill(signal.SIGHUP)

    def reload_with_mistake(self):
        self._write_config("batch_max = many\n")
        self.promptd.kill(signal.SIGHUP)

    def mend_mistake(self):
        """The next start needs a file without one."""
        if not self.promptd.find("ERROR", "settings not reloaded"):
            self.ledger.complain("a mistake in the settings was not named")
        self._write_config("batch_max = 256\n")

    def freeze_promptd(self):
        self.promptd.freeze()

    def thaw_promptd(self):
        self.promptd.thaw()

    def ask_state(self):
        if self.promptd is not None and self.ledger.started and self.promptd.process.poll() is None:
            self.promptd.kill(signal.SIGUSR1)

    # The spool

    @staticmethod
    def remove(path):
        os.unlink(path)

    def spool(self):
        return Spool(self.spool_folder)
