# SPDX-License-Identifier: MIT
"""A private PostgreSQL cluster, and in it a fresh database for each test."""

import contextlib
import glob
import os
import random
import signal
import subprocess
import uuid

import psycopg

from .process import Port, end, give_to, process_state, spawn, unprivileged_user, wait_for_server
from .wait import wait_until

ROLE = "promptd"  # the least-privilege role that sql/ makes
SUPERUSER = "postgres"

# Nothing here has to survive a power cut.
CONFIGURATION = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %d ",
    "listen_addresses": "127.0.0.1",
}

# A role with promptd's rights that must give its password over TCP; everyone else is believed.
PASSWORD_ROLE = "promptd_pw"
HBA = f"""\
local all all trust
host all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


def server_program(name):
    """Debian keeps the servers' programs out of PATH, a folder for each version: the newest one counts."""
    def version(folder):
        return [int(part) for part in folder.split("/")[-2].split(".")]

    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=version, reverse=True)
    try:
        folders.append(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        pass
    for folder in folders + os.environ["PATH"].split(":"):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    raise RuntimeError(f"needs PostgreSQL's {name} (Debian package postgresql)")


class Cluster:
    def __init__(self, folder, sql_folder, configuration=None, wal_folder=None):
        """wal_folder: an empty one for the write-ahead log, which is in pieces of 1 MB there."""
        self.folder = folder
        self.sql_folder = sql_folder
        self.configuration = {**CONFIGURATION, **(configuration or {})}
        self.log_path = os.path.join(folder, "postgresql.log")
        self._data = os.path.join(folder, "data")
        self._wal_folder = wal_folder
        self._port = Port()
        self._process = None
        self._held = []  # processes of it that are stopped
        self._databases = 0
        self._initialise()
        self.start()
        self._make_template()

    @property
    def port(self):
        return self._port.number

    def _initialise(self):
        give_to(self.folder, unprivileged_user())
        options = []
        if self._wal_folder:
            give_to(self._wal_folder, unprivileged_user())
            options = ["--waldir", self._wal_folder, "--wal-segsize", "1"]
        subprocess.run([server_program("initdb"), "--pgdata", self._data, "--username", SUPERUSER, "--auth", "trust",
                        "--encoding", "UTF8", "--locale", "C", "--no-sync", *options],
                       check=True, capture_output=True, cwd=self.folder, **self._as_owner())
        with open(os.path.join(self._data, "pg_hba.conf"), "w", encoding="ascii") as file:
            file.write(HBA)

    @staticmethod
    def _as_owner():
        user = unprivileged_user()
        return {"user": user, "group": user, "extra_groups": []} if user else {}

    def start(self):
        options = dict(self.configuration, port=str(self.port), unix_socket_directories=self.folder)
        command = [server_program("postgres"), "-D", self._data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log_path, "ab") as log:
            self._process = spawn(command, death_signal=signal.SIGQUIT, user=unprivileged_user(), stdout=log,
                                  stderr=log, cwd=self.folder)
        self.wait()

    def wait(self):
        wait_for_server(self._process, self._answers, "PostgreSQL", self.log_path)

    def revive(self):
        """Until it answers again after it found no room for its log: it goes through recovery, or has ended."""
        try:
            self.wait()
        except AssertionError:
            if self._process.poll() is None:
                raise
            self.start()

    def _answers(self):
        try:
            self.connect("postgres").close()
            return True
        except psycopg.OperationalError:
            return False

    def _signal_all(self, number):
        """Its processes are in groups of their own: each is told, the one that makes them first."""
        pids = [self._process.pid]
        try:
            with open(f"/proc/{self._process.pid}/task/{self._process.pid}/children", encoding="ascii") as file:
                pids += map(int, file.read().split())
        except FileNotFoundError:
            pass
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self):
        """The whole server stops where it is: the kernel still accepts for it, and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)
        self._signal_all(signal.SIGSTOP)

    def thaw(self):
        self._signal_all(signal.SIGCONT)

    def kill_backend(self, pid):
        """kill -9 of one session's process, after which the server goes through recovery."""
        os.kill(pid, signal.SIGKILL)

    @staticmethod
    def own(path):
        give_to(path, unprivileged_user())

    def stop(self):
        """The fast shutdown: sessions are ended, the data are kept."""
        if self._process is not None:
            self.thaw()
            end(self._process, signal.SIGINT, timeout=30)
            self._process = None

    def hold_writers(self):
        """From now on only a commit that waits for the disk brings anything there, until the server is started anew."""
        idle = "select wait_event_type = 'Activity' from pg_stat_activity where pid = %s"
        with self.connect("postgres") as connection:
            pids = connection.execute("""select pid from pg_stat_activity
                                         where backend_type in ('walwriter', 'background writer')""").fetchall()
            for pid, in pids:
                while True:  # one that is stopped in its work may hold a lock, and every commit would wait for it
                    os.kill(pid, signal.SIGSTOP)
                    wait_until(lambda: process_state(pid) == "T", f"process {pid} to stop")
                    if connection.execute(idle, [pid]).fetchone() == (True,):
                        break
                    os.kill(pid, signal.SIGCONT)
                self._held.append(pid)

    def crash(self):
        """The immediate shutdown: the next start goes through recovery."""
        self._process.send_signal(signal.SIGQUIT)
        for pid in self._held:
            os.kill(pid, signal.SIGKILL)
        self._held = []
        end(self._process, signal.SIGQUIT, timeout=30)
        self._process = None

    def close(self):
        self.stop()
        self._port.release()

    def connect(self, database, **parameters):
        return psycopg.connect(host=self.folder, port=self.port, user=SUPERUSER, dbname=database, autocommit=True,
                               **parameters)

    def _make_template(self):
        with self.connect("postgres") as connection:
            connection.execute("create database promptd_template")
        self.apply_sql("promptd_template")
        with self.connect("promptd_template") as connection:
            if connection.execute("select from pg_roles where rolname = %s and rolcanlogin", [ROLE]).fetchone() is None:
                raise RuntimeError(f"the files in {self.sql_folder} make no role {ROLE} that may log in")
            connection.execute(f"create role {PASSWORD_ROLE} login in role {ROLE}")

    def apply_sql(self, database, folder=None, user=SUPERUSER):
        """The files of sql/ that are needed, or of another folder, in their order."""
        for path in sorted(glob.glob(os.path.join(folder or self.sql_folder, "0[1-3]_*.sql"))):
            self._psql(database, path, user, check=True, stdout=subprocess.DEVNULL)

    def apply_file(self, database, name, check=True, **variables):
        """One file of sql/. What psql says on standard error."""
        return self._psql(database, os.path.join(self.sql_folder, name), SUPERUSER, check=check, text=True,
                          capture_output=True, variables=variables).stderr

    def _psql(self, database, path, user, variables=None, **options):
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port), "-U", user, "-d",
                   database, "-f", path]
        for name, value in (variables or {}).items():
            command += ["-v", f"{name}={value}"]
        return subprocess.run(command, **options)

    def dump_schema(self, database):
        """pg_dump's statements, as a set."""
        done = subprocess.run([server_program("pg_dump"), "--schema-only", "-h", self.folder, "-p", str(self.port), "-U",
                               SUPERUSER, database], check=True, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if not line.startswith(("--", "\\"))]
        return {part.strip() for part in "\n".join(lines).split(";\n") if part.strip()}

    def new_database(self, template="promptd_template", owner=SUPERUSER):
        self._databases += 1
        name = f"test_{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(f"create database {name} template {template} owner {owner}")
        return Database(self, name)


class Held:
    def __init__(self, connection, key):
        self._connection = connection
        self._key = key

    def release(self):
        self._connection.execute("select pg_advisory_unlock(%s)", [self._key])


class Database:
    """One test's database, seen with a superuser's eyes."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self._connection = None
        self.reconnect()

    def reconnect(self):
        self._connection = self.cluster.connect(self.name)

    def disconnect(self):
        """Before the cluster is stopped on purpose."""
        self._connection.close()

    def url(self, port=None, user=ROLE, password=None):
        """How promptd reaches it; `port` for a proxy or a pooler in between."""
        login = user if password is None else f"{user}:{password}"
        return f"postgresql://{login}@127.0.0.1:{port or self.cluster.port}/{self.name}"

    def close(self):
        self.disconnect()
        with self.cluster.connect("postgres") as connection:
            connection.execute(f"drop database {self.name} with (force)")

    def execute(self, sql, parameters=None):
        return self._connection.execute(sql, parameters)

    def value(self, sql, parameters=None):
        return self.execute(sql, parameters).fetchone()[0]

    def rows(self, sql, parameters=None):
        return self.execute(sql, parameters).fetchall()

    # What the application does

    def interview(self, status="enhancing"):
        interview = str(uuid.uuid4())
        self.execute("insert into interviews (id, status) values (%s, %s)", [interview, status])
        return interview

    def interviews(self, count, status="enhancing"):
        interviews = [str(uuid.uuid4()) for _ in range(count)]
        self.execute("insert into interviews (id, status) select unnest(%s::uuid[]), %s", [interviews, status])
        return interviews

    def status(self, interview):
        return self.value("select status from interviews where id = %s", [interview])

    def statuses(self):
        """How many interviews have which status."""
        return dict(self.rows("select status, count(*) from interviews group by status"))

    # What promptd did

    def prompts(self, interview):
        """[(id, prompt, source)] of an interview."""
        return [(str(id), prompt, source) for id, prompt, source in self.rows(
            "select id, prompt, source from interview_enhanced_prompts where interview_id = %s order by created_at",
            [interview])]

    def prompt_count(self):
        return self.value("select count(*) from interview_enhanced_prompts")

    def unsettled(self):
        """[(prompt's id, interview)] of promptd_unsettled; none where that table is missing."""
        if self.value("select to_regclass('promptd_unsettled')") is None:
            return []
        return [(str(id), str(interview)) for id, interview in self.rows(
            "select prompt_id, interview_id from promptd_unsettled order by inserted_at")]

    def add_prompt(self, message, unsettled=False):
        """Puts a message's row there as if promptd, or another one, had inserted it before, and settled it or not."""
        self.execute("insert into interview_enhanced_prompts (id, interview_id, prompt, source) values (%s, %s, %s, %s)",
                     [message.id, message.interview, message.prompt, message.source or "rag"])
        if unsettled:
            self.add_evidence(message)

    def add_evidence(self, *messages, age="0 seconds"):
        self.execute("""insert into promptd_unsettled (prompt_id, interview_id, inserted_at)
                        select unnest(%s::uuid[]), unnest(%s::uuid[]), now() - %s::interval""",
                     [[message.id for message in messages], [message.interview for message in messages], age])

    def leave_unsettled(self, *messages, age="1 hour"):
        """What a promptd leaves behind that is killed between its two steps."""
        for message in messages:
            self.add_prompt(message)
        self.add_evidence(*messages, age=age)

    def add_old_prompt(self, interview, age=3600, unsettled=False):
        """A prompt that was stored so many seconds ago, with the evidence that it is unsettled or without. Its id."""
        id = str(uuid.uuid4())
        self.execute("insert into interview_enhanced_prompts (id, interview_id, prompt, source, created_at)"
                     " values (%s, %s, 'SECRET-PROMPT of the test', 'rag', now() - make_interval(secs => %s))",
                     [id, interview, age])
        if unsettled:
            self.execute("insert into promptd_unsettled values (%s, %s, now() - make_interval(secs => %s))",
                         [id, interview, age])
        return id

    def ready_without_prompt(self):
        """How many interviews. There must be none, ever."""
        return self.value("""select count(*) from interviews where status = 'ready' and not exists
                             (select from interview_enhanced_prompts where interview_id = interviews.id)""")

    # Faults

    def trigger(self, table, event, body, when=None, timing="before"):
        """A row trigger whose PL/pgSQL body runs with a superuser's rights. It returns new (or old) unless told. `timing`:
        before, after, or deferred, which is at the commit."""
        name = f"fault_{uuid.uuid4().hex[:8]}"
        keep = "old" if event == "delete" else "new"
        kind, timing, when_run = (("constraint trigger", "after", "deferrable initially deferred") if timing == "deferred"
                                  else ("trigger", timing, ""))
        self.execute(f"""
            create function {name}() returns trigger language plpgsql security definer as $fault$
            begin {body} return {keep}; end $fault$;
            create {kind} {name} {timing} {event} on {table} {when_run} for each row
                {f'when ({when})' if when else ''} execute function {name}()""")

    def drop_faults(self):
        """Takes every trigger away that was made here."""
        for function, in self.rows("select oid::regprocedure::text from pg_proc where proname like 'fault\\_%%'", []):
            self.execute(f"drop function {function} cascade")

    def raise_on(self, table, event, message="the test says no", sqlstate="P0001", when=None):
        """A trigger that raises; `message` is an SQL expression where it starts with a quote, text otherwise."""
        expression = message if message.startswith(("'", "E'", "format")) else "'" + message.replace("'", "''") + "'"
        self.trigger(table, event, f"raise exception using message = {expression}, errcode = '{sqlstate}';", when)

    def raise_first(self, times, table, event, sqlstate, when=None):
        """A trigger that raises the first `times` times. Returns the sequence that counts the tries, for tries()."""
        counter = f"tries_{uuid.uuid4().hex[:8]}"
        self.execute(f"create sequence {counter}")
        self.trigger(table, event, f"""
            if nextval('{counter}') <= {times} then
                raise exception using message = 'not this time', errcode = '{sqlstate}';
            end if;""", when)
        return counter

    def tries(self, counter):
        """A sequence forgets nothing when a transaction rolls back."""
        return self.value(f"select case when is_called then last_value else 0 end from {counter}")

    @contextlib.contextmanager
    def locked(self, table="interview_enhanced_prompts"):
        """Holds a lock that makes every write to the table wait, and leaves it readable."""
        with self.cluster.connect(self.name) as connection, connection.transaction():
            connection.execute(f"lock table {table} in exclusive mode")
            yield

    @contextlib.contextmanager
    def held(self, table, event, when=None, timing="before"):
        """Holds each statement that writes such a row, by a trigger that waits: promptd itself waits for nobody's row.
        What is given lets them go before the end: held.release()."""
        key = random.getrandbits(31)
        self.trigger(table, event, f"perform pg_advisory_xact_lock_shared({key});", when, timing)
        with self.cluster.connect(self.name) as connection:
            connection.execute("select pg_advisory_lock(%s)", [key])
            yield Held(connection, key)

    @contextlib.contextmanager
    def rows_locked(self, *interviews, mode="for update"):
        """The application has locked the rows of these interviews. Gives the connection that holds them."""
        with self.cluster.connect(self.name) as connection, connection.transaction():
            rows = connection.execute(f"select from interviews where id = any(%s::uuid[]) {mode}", [list(interviews)])
            assert rows.rowcount == len(interviews)
            yield connection

    @contextlib.contextmanager
    def interviews_locked(self):
        """Holds locks that make the updates of all interviews wait, but not the inserts of their prompts. The sessions that
        wait are ended before the locks are: what they wanted to do is not done."""
        with self.cluster.connect(self.name) as connection, connection.transaction():
            connection.execute("select from interviews for no key update")
            yield
            self.terminate_sessions()

    def sessions(self):
        """promptd's sessions here: [(pid, state, wait_event_type, has it ever run a statement)]."""
        return self.rows("""select pid, state, wait_event_type, query <> '' from pg_stat_activity
                            where datname = %s and usename like %s order by pid""", [self.name, ROLE + "%"])

    def wait_sessions(self, count, timeout=10.0):
        wait_until(lambda: len(self.sessions()) >= count, f"{count} sessions of promptd", timeout, seen=self.sessions)

    def wait_blocked(self, count=1):
        """Until so many of promptd's statements wait for a lock."""
        def blocked():
            return [pid for pid, _, event, _ in self.sessions() if event == "Lock"]

        return wait_until(lambda: len(blocked()) >= count and blocked(), f"{count} statements waiting for a lock",
                          seen=self.sessions)

    def blocked_since(self):
        """When the statements that wait for a lock began."""
        return self.rows("""select query_start from pg_stat_activity where datname = %s and usename like %s
                            and wait_event_type = 'Lock' order by 1""", [self.name, ROLE + "%"])

    def errors(self):
        """What the server has logged as errors of statements in this database: a deadlock is one."""
        with open(self.cluster.log_path, encoding="utf-8", errors="replace") as log:
            return [line for line in log if f"] {self.name} ERROR: " in line]

    def terminate_sessions(self):
        return self.value("""select count(pg_terminate_backend(pid)) from pg_stat_activity
                             where datname = %s and usename like %s""", [self.name, ROLE + "%"])
