# SPDX-License-Identifier: MIT
"""A machine: systemd booted in a Debian folder, in a network of its own, with Redis and PostgreSQL beside promptd."""

import json
import os
import pathlib
import subprocess
import time
import uuid

from debian import ENVIRONMENT
from support.wait import wait_until

CGROUPS = [pathlib.Path("/sys/fs/cgroup/unified"), pathlib.Path("/sys/fs/cgroup/systemd")]
CHANNEL = "interviewly:prompt-ready"


class Failed(AssertionError):
    """A command on the machine ended with another code than 0."""


class Machine:
    """What is done on it goes to the transcript, too: the evidence of a run."""

    def __init__(self, root, transcript):
        self.root = root
        self.name = f"promptd-{os.getpid()}-{root.path.name}"
        self.transcript = transcript
        self.process = None
        self.init = None

    # --- power

    def boot(self):
        """On machines with hybrid cgroups, each hierarchy gets a group for it; else systemd-nspawn sees to that."""
        for hierarchy in CGROUPS:
            if hierarchy.is_dir():
                (hierarchy / self.name).mkdir(exist_ok=True)
        console = open(self.transcript.with_suffix(".console.log"), "a", encoding="utf-8")
        with console:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--directory", self.root.path, "--boot", "--register=no", "--keep-unit",
                 "--private-network", "--console=pipe"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}, preexec_fn=self.enter_cgroups,
            )  # fmt: skip
        self.note("boot")
        wait_until(self.has_booted, "the machine to boot", 60, seen=self.state)

    def enter_cgroups(self):
        for hierarchy in CGROUPS:
            if (hierarchy / self.name).is_dir():
                (hierarchy / self.name / "cgroup.procs").write_text(str(os.getpid()))

    def has_booted(self):
        assert self.process.poll() is None, f"systemd-nspawn ended: see {self.transcript.with_suffix('.console.log')}"
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return False
        self.init = children[0]
        return self.state() in ("running", "degraded")

    def state(self):
        if not self.init:
            return "no init yet"
        return self.command("systemctl", "is-system-running").stdout.strip()

    def power_off(self):
        self.note("power off")
        self.command("systemctl", "poweroff")
        self.process.wait(60)

    def end(self):
        """Whatever state it is in."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    # --- commands

    def note(self, text):
        with open(self.transcript, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def command(self, *command):
        return subprocess.run(
            ["nsenter", "--target", self.init, "--all", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120, env=ENVIRONMENT,
        )  # fmt: skip

    def try_to(self, script):
        """Runs it by a shell of the machine's: (exit code, output)."""
        done = self.command("sh", "-c", script)
        self.note(f"# {script}\n{done.stdout}" + (f"[ended with {done.returncode}]\n" if done.returncode else ""))
        return done.returncode, done.stdout.strip()

    def run(self, script):
        code, output = self.try_to(script)
        if code:
            raise Failed(f"{script[:300]}: ended with {code}: {output}")
        return output

    # --- promptd's service

    def shows(self, *properties):
        """Properties of the unit, as systemctl shows them."""
        lines = self.command("systemctl", "show", "promptd", "--property", ",".join(properties)).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def show(self, name):
        return self.shows(name)[name]

    def is_active(self):
        return self.shows("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}

    def journal(self, *options):
        return self.command("journalctl", "--unit", "promptd", "--no-pager", "--output", "cat", *options).stdout

    def wait_journal(self, text, timeout=20):
        wait_until(lambda: text in self.journal(), f"'{text}' in the journal", timeout,
                   seen=lambda: self.journal()[-3000:])  # fmt: skip

    def wait_status(self, text, timeout=20):
        wait_until(lambda: text in self.show("StatusText"), f"'{text}' in the status text", timeout,
                   seen=lambda: self.show("StatusText"))  # fmt: skip
        self.note(f"the unit's status text: {self.show('StatusText')}")

    # --- messages

    def sql(self, statement):
        return self.run(f"su postgres -c \"psql -X -A -t -v ON_ERROR_STOP=1 interviewly\" <<'END'\n{statement}\nEND")

    def postgres(self, verb):
        """Debian's postgresql.service is done before the cluster's own unit is."""
        self.run(f"systemctl {verb} postgresql postgresql@$(pg_lsclusters --no-header | awk '{{print $1 \"-\" $2}}')")

    def interviews(self, count):
        """So many new ones that wait for a prompt; their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        self.sql("insert into interviews (id, status) values " + ", ".join(f"('{i}', 'enhancing')" for i in ids))
        return ids

    def publish(self, count):
        """A message for each of so many new interviews."""
        ids = self.interviews(count)
        self.send(ids)
        return ids

    def publish_into_outage(self, count):
        """The same with PostgreSQL stopped; done once the messages wait in promptd's spool."""
        ids = self.interviews(count)
        self.postgres("stop")
        self.send(ids)
        wait_until(lambda: self.gauge("promptd_spool_messages") == count, f"{count} messages in the spool", 20,
                   seen=lambda: self.gauge("promptd_spool_messages"))  # fmt: skip
        return ids

    def gauge(self, name):
        """Of promptd's metrics, over HTTP; by bash, for the machine has no curl."""
        request = "exec 3<>/dev/tcp/127.0.0.1/9797; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        for line in self.command("bash", "-c", request).stdout.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return None

    def send(self, ids):
        lines = (
            "==" + json.dumps({"interview_id": i, "enhanced_prompt": f"Tell me about project {i}.", "source": "rag"})
            for i in ids
        )
        commands = "".join(f"PUBLISH {CHANNEL} '{line}'\n" for line in lines)
        answers = self.run(f"redis-cli <<'END'\n{commands}END").split()
        assert answers == ["1"] * len(ids), f"not exactly one listener: {answers}"

    def ready(self, ids):
        """How many of them are ready, with just one prompt each."""
        wanted = ", ".join(f"'{i}'" for i in ids)
        return int(self.sql(
            "select count(*) from interviews i where status = 'ready' and 1 = (select count(*) from "
            f"interview_enhanced_prompts p where p.interview_id = i.id) and i.id in ({wanted})"
        ))  # fmt: skip

    def wait_ready(self, ids, timeout=30):
        wait_until(lambda: self.ready(ids) == len(ids), f"{len(ids)} prompts to be stored", timeout,
                   seen=lambda: (self.ready(ids), self.journal()[-3000:]), interval=0.2)  # fmt: skip
