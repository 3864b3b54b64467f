# SPDX-License-Identifier: MIT
"""The test stand: private servers, the listeners that are compared, and what the kernel says of a process."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

from support.postgres import Cluster
from support.process import end, spawn
from support.redis_server import DEFAULT_CHANNEL, RedisServer
from support.wait import wait_until

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LISTENERS = os.path.join(REPOSITORY, "bench", "listeners")

# As it is installed, but for what would happen at some time in the middle of one trial and not of another.
POSTGRES = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "off",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "1h",
}
REDIS = ("--client-output-buffer-limit", "pubsub", "0", "0", "0")  # a listener that lags is not cut off
ROOMY = {"queue_max_messages": 1000000, "queue_max_bytes": 4 << 30}  # a whole trial may wait
QUEUES = ("list", "stream")
PROCESS_CONNECTIONS = 16  # of the listeners that have one message on each


def place_of(mode):
    """Where messages go, as the programs of bench/ take it."""
    return f"{mode}:{DEFAULT_CHANNEL}" if mode in QUEUES else DEFAULT_CHANNEL


class Process:
    """A listener that runs, and its cost so far."""

    def __init__(self, command, environment, log_path):
        with open(log_path, "wb") as log:
            self.started = time.monotonic()
            self._process = spawn(command, env=environment, stdout=log, stderr=log, cwd=os.path.dirname(log_path))
        self.pid = self._process.pid
        self.log_path = log_path

    def cpu_seconds(self):
        """User and system time of all its threads; the kernel counts it in nanoseconds."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            path = f"/proc/{self.pid}/task/{task}/schedstat"
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def status_kib(self, name):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

    def wait_quiet(self, quiet_s=0.1):
        """Until it has used no processor time worth mentioning for a while."""
        used, since = self.cpu_seconds(), time.monotonic()
        while time.monotonic() - since < quiet_s:
            time.sleep(0.01)
            now = self.cpu_seconds()
            if now - used > 0.0005:
                used, since = now, time.monotonic()

    def has_ended(self):
        return self._process.poll() is not None

    def stop(self):
        if end(self._process) not in (0, -15):
            self.give_up()

    def give_up(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            sys.exit(f"a listener ended with {self._process.returncode}:\n{log.read()[-2000:]}")


class Stand:
    def __init__(self, build):
        self.build = build
        self.folder = tempfile.mkdtemp(prefix="promptd-bench-", dir=os.environ.get("PROMPTD_BENCH_DIR", "/var/tmp"))
        os.chmod(self.folder, 0o711)
        self._exit = contextlib.ExitStack()
        self._exit.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self.cluster = Cluster(self.make_folder("pg"), os.path.join(REPOSITORY, "sql"), POSTGRES)
            self._exit.callback(self.cluster.close)
            self.redis = RedisServer(self.make_folder("redis"), *REDIS)
            self._exit.callback(self.redis.close)
            self.database = self.cluster.new_database()
            self._exit.callback(self.database.disconnect)
        except BaseException:
            self.close()
            raise

    def close(self):
        self._exit.close()

    def make_folder(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path)
        return path

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    @property
    def conninfo(self):
        """For the programs that measure."""
        return f"host=127.0.0.1 port={self.cluster.port} dbname={self.database.name} user=promptd"

    # Trials

    def reset(self, corpus, count, first=0):
        """Empty tables but for the awaiting interviews of these messages; the server has nothing left to write."""
        self.redis.admin.flushall()
        self.database.execute("truncate interviews, interview_enhanced_prompts")
        self.add_interviews(corpus, count, first)
        self.database.execute("vacuum analyze interviews")
        self.database.execute("checkpoint")

    def add_interviews(self, corpus, count, first=0):
        self.database.execute(f"""insert into interviews (id, status)
                                  select id, 'enhancing' from {corpus.table} where n > %s and n <= %s order by n""",
                              [first, first + count])

    def ready_count(self):
        return self.database.value("select count(*) from interviews where status = 'ready'")

    def wait_stored(self, corpus, last, count, timeout=120):
        """Until all are stored; returns when that was, on time.monotonic()'s clock. The last one is asked for, and seldom:
        what that costs is taken from the listener. When the last statement ended the server knows better."""
        sentinel = self.database.value(f"select id from {corpus.table} where n = %s", [last])
        deadline = time.monotonic() + timeout
        while self.database.status(sentinel) != "ready":
            if time.monotonic() > deadline:
                sys.exit(f"{self.ready_count()} of {count} messages were stored within {timeout} s")
            time.sleep(0.025)
        while True:
            if self.ready_count() == count:
                return self._last_write()
            if time.monotonic() > deadline:
                sys.exit(f"{self.ready_count()} of {count} messages were stored within {timeout} s")

    def _last_write(self):
        ended = self.database.value("""select extract(epoch from max(state_change))::float8 from pg_stat_activity
                                       where datname = current_database() and pid <> pg_backend_pid()""")
        return time.monotonic() - (time.time() - ended)

    # Publishing

    def publisher(self, corpus, count, first=0, place=DEFAULT_CHANNEL):
        """A publisher that has everything in memory and waits for publish(); `place` as in redis_publish.h."""
        process = subprocess.Popen([self.program("bench_publish"), corpus.path, str(first), str(count),
                                    str(self.redis.port), place],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            sys.exit("bench_publish failed")
        return process

    @staticmethod
    def publish(publisher):
        """Lets it go; publish_end() tells more."""
        publisher.stdin.write("\n")
        publisher.stdin.flush()

    @staticmethod
    def publish_end(publisher):
        """Waits until all is published; returns when it began and when it ended, on time.monotonic()'s clock."""
        output, _ = publisher.communicate()
        if publisher.returncode != 0:
            sys.exit("bench_publish failed")
        return tuple(map(float, output.split()))

    # Listeners

    def start_promptd(self, wait=True, **settings):
        home = tempfile.mkdtemp(dir=self.folder)
        spool = settings.pop("spool", False)
        if spool:
            settings["spool_dir"] = os.path.join(home, "spool")
            os.makedirs(settings["spool_dir"])
        given = {"redis_url": self.redis.url, "database_url": self.database.url(), "admin_listen": "off", **settings}
        process = Process([os.path.join(self.build, "src", "daemon", "promptd")],
                          {"PATH": "/usr/bin:/bin", "HOME": home,
                           **{f"PROMPTD_{name.upper()}": str(value) for name, value in given.items()}},
                          os.path.join(home, "promptd.log"))
        connections = int(settings.get("db_connections", 4))
        return self._await(process, connections, settings.get("redis_mode", "pubsub")) if wait else process

    def start_promptds(self, count, **settings):
        """So many at once, of the same list or stream."""
        before = len(self.database.sessions())
        return [self._await(self.start_promptd(wait=False, **settings), before + 4 * (number + 1), settings["redis_mode"],
                            readers=number + 1) for number in range(count)]

    def _start_other(self, command, mode="pubsub", **environment):
        home = tempfile.mkdtemp(dir=self.folder)
        command += [self.redis.url, DEFAULT_CHANNEL, self.database.url(), str(PROCESS_CONNECTIONS)]
        process = Process(command, {"PATH": os.environ["PATH"], "HOME": home, **environment},
                          os.path.join(home, "listener.log"))
        return self._await(process, PROCESS_CONNECTIONS, mode)

    def start_asyncio(self, mode="pubsub"):
        program = {"pubsub": "asyncio_listener.py", "stream": "asyncio_stream.py"}[mode]
        return self._start_other(["/usr/bin/python3", "-B", os.path.join(LISTENERS, program)], mode)

    def start_node(self):
        return self._start_other(["node", os.path.join(LISTENERS, "node_listener.js")],
                                 NODE_PATH=os.path.join(os.path.dirname(self.build), "node", "node_modules"))

    def _readers(self, command):
        return sum(client["cmd"] == command for client in self.redis.admin.client_list())

    def _await(self, process, connections, mode="pubsub", readers=1):
        ready = {"pubsub": lambda: self.redis.subscribers(DEFAULT_CHANNEL) == 1,
                 "list": lambda: self._readers("blmove") >= readers,
                 "stream": lambda: self._readers("xreadgroup") >= readers}
        wait_until(lambda: process.has_ended() or ready[mode](), "the listener to take messages", 15)
        if process.has_ended():
            process.give_up()
        wait_until(lambda: len(self.database.sessions()) >= connections, "the listener to connect", 15)
        process.wait_quiet(0.05)
        return process
