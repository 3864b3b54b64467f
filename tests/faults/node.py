# SPDX-License-Identifier: MIT
"""One promptd of the world: with links, spool, settings, log and ledger of its own."""

import contextlib
import os
import random
import signal
import time

import redis

from support.admin import Admin
from support.postgres import ROLE
from support.promptd import Promptd
from support.proxy import Proxy
from support.spool import Spool

from .disk import Disk

EXIT_SPOOL = 73
SHUTDOWN_GRACE_S = 2.0
SPOOL_MB = 192  # twenty minutes of dead letters, and some room

PROGRAM = "the program's behaviour"


class Node:
    def __init__(self, world, name, settings, run):
        """settings: those that all have in common."""
        self.name, self._world, self._run = name, world, run
        with_spool = run.with_spool
        self._chance = random.Random(f"node {name} {run.seed}")
        self.ledger = world.mode.ledger(world.plan.published, with_spool, world.violations.add, name)
        self.redis_link = world.own(Proxy(("127.0.0.1", world.redis.port)))
        self.database_link = world.own(Proxy(("127.0.0.1", world.cluster.port)))
        self.spool_folder = world.make_folder(f"spool-{name}", 0o700) if with_spool else None
        self.disk = world.own(Disk(self.spool_folder, SPOOL_MB, 0o700)) if with_spool else None
        self._config = os.path.join(world.folder, f"promptd-{name}.conf")
        self._write_config("batch_max = 256\n")
        self._reloads = 0
        # The first keeps the name that promptd gives itself.
        program = "" if name == "a" else f"?application_name=promptd-{name}"
        self._admin = Admin(f"unix:{world.folder}/admin-{name}.sock")
        self.settings = {
            **settings, "redis_url": f"redis://127.0.0.1:{self.redis_link.port}",
            "database_url": f"postgresql://{ROLE}@127.0.0.1:{self.database_link.port}/{world.database}{program}",
            "admin_listen": self._admin.url, **({"spool_dir": self.spool_folder} if with_spool else {})}
        self._shutdown_s = float(settings.get("shutdown_timeout_s", 10)) + SHUTDOWN_GRACE_S
        self.promptd = None
        self.stopped_in = []   # seconds of each SIGTERM
        self._dead = []        # consumers that were killed, and that Redis shall hear of no longer

    def _write_config(self, text):
        with open(self._config, "w", encoding="ascii") as file:
            file.write(text)

    def _complain(self, what):
        self._world.violations.add(PROGRAM, what)

    def start(self):
        name = f"promptd-{self.name}{self.ledger.life + 1}"
        self.promptd = Promptd(self._world.folder, name, self.settings, ["--config", self._config])
        self.ledger.begin_life(self.promptd.log_path)

    def follow(self):
        if self.promptd is not None:
            self.ledger.follow()

    def supervise(self):
        """As by systemd: starts it again where the spool's disk was too full to open it."""
        if self.promptd is None or self.promptd.process.poll() is None:
            return
        code = self.promptd.wait_exit()
        if code != EXIT_SPOOL or not self.disk.works:
            self._complain(f"{self.promptd.name} ended with {code}")
        self._end_life(killed=True)
        time.sleep(0.3)
        self.start()

    def _end_life(self, killed):
        gone = self.ledger.end_life(killed)
        try:
            self.promptd.check_log([], self._world.plan.marker)
        except AssertionError as error:
            self._complain(str(error)[:1000])
        self.promptd = None
        return gone

    def kill(self):
        """What Redis holds for it is another's after 45 s; of every second one, in a short run of each, at once."""
        self.promptd.crash()
        gone = self._end_life(killed=True)
        if self.ledger.consumer and (self._run.short or self._chance.random() < 0.5):
            self._dead.append(self.ledger.consumer)
            self.give_up_the_dead()
        return gone

    def give_up_the_dead(self):
        """As far as Redis answers now."""
        with contextlib.suppress(redis.RedisError), self._world.redis.client(0.5) as client:
            while self._dead:
                self._world.channel.give_up(self._dead[-1], client)
                self._dead.pop()

    def stop(self):
        began = time.monotonic()
        self.promptd.kill(signal.SIGTERM)
        code = self.promptd.wait_exit(self._shutdown_s)
        self.stopped_in.append(time.monotonic() - began)
        if code != 0:
            self._complain(f"{self.promptd.name} ended with {code} when it was asked to stop")
        self._end_life(killed=code != 0)

    def reload(self):
        self._reloads += 1
        self._write_config(f"batch_max = {(1, 10, 256)[self._reloads % 3]}\n")
        self.promptd.kill(signal.SIGHUP)

    def reload_with_mistake(self):
        self._write_config("batch_max = many\n")
        self.promptd.kill(signal.SIGHUP)

    def mend_mistake(self):
        """The next start needs a file without one."""
        if not self.promptd.find("ERROR", "settings not reloaded"):
            self._complain("a mistake in the settings was not named")
        self._write_config("batch_max = 256\n")

    def freeze(self):
        self.promptd.freeze()

    def freeze_for_long(self):
        """Others take what it holds."""
        self.ledger.given_up[self.ledger.life] = time.time()  # as the lines say it
        self.promptd.freeze()

    def thaw(self):
        self.promptd.thaw()

    def ask_state(self):
        if self.promptd is not None and self.ledger.started and self.promptd.process.poll() is None:
            self.promptd.kill(signal.SIGUSR1)

    def metrics(self):
        return self._admin.metrics()

    def close(self):
        if self.promptd is not None and self.promptd.process.poll() is None:
            self.promptd.process.kill()
            self.promptd.process.wait()

    def spool(self):
        return Spool(self.spool_folder)
