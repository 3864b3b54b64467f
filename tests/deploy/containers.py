# SPDX-License-Identifier: MIT
"""podman with a store of its own below build/deploy, and networks that lead nowhere."""

import json
import os
import pathlib
import subprocess

from debian import CHECKOUT, FOLDER, run

IMAGE = "localhost/promptd:test"
SERVERS = "localhost/servers:test"

STORAGE = """[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
# Container runtimes raise limits that a machine without CAP_SYS_RESOURCE cannot raise.
ENGINE = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
"""


NOT_IN_SLIM = [
    "made", "etc/resolv.conf", "var/cache/apt/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*",
    "usr/share/locale/*", "dev/*", "proc/*",
]  # fmt: skip


class Podman:
    def __init__(self, base, transcript):
        folder = FOLDER / "containers"
        folder.mkdir(parents=True)
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        (folder / "containers.conf").write_text(ENGINE)
        self.environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }
        self.transcript = transcript
        transcript.unlink(missing_ok=True)
        archive = folder / "trixie.tar"
        options = [f"--exclude=./{name}" for name in NOT_IN_SLIM]
        run("tar", "-C", base.path, "--numeric-owner", *options, "-cf", archive, ".")
        self("import", archive, "docker.io/library/debian:trixie-slim")
        archive.unlink()

    def note(self, text):
        with open(self.transcript, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def attempt(self, *words, text=None):
        """(exit code, output)."""
        command = ["podman", *(str(word) for word in words)]
        done = subprocess.run(
            command, env=self.environment, cwd=CHECKOUT, text=True, input=text or "", timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.note(f"# {' '.join(command)}\n{done.stdout}")
        return done.returncode, done.stdout.strip()

    def __call__(self, *words, text=None):
        code, output = self.attempt(*words, text=text)
        assert code == 0, f"podman {' '.join(map(str, words))[:300]} ended with {code}:\n{output[-5000:]}"
        return output

    def build(self, dockerfile, tag):
        self("build", "--pull-never", "--network", "host", "--format", "docker", "-f", dockerfile, "-t", tag, ".")

    def inspect(self, kind, name):
        return json.loads(self(kind, "inspect", name))[0]

    def process_status(self, name):
        """/proc/PID/status of a container's first process, as a dictionary."""
        pid = self.inspect("container", name)["State"]["Pid"]
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
