# SPDX-License-Identifier: MIT
"""promptctl, run to its end: with pipes, or on a terminal where it may ask."""

import json
import os
import pty
import pwd
import select
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass

from .promptd import BROKEN, environment
from .wait import SLOW

COLOUR = "\x1b["


def binary():
    path = os.environ.get("PROMPTCTL_BINARY")
    if not path:
        raise RuntimeError("PROMPTCTL_BINARY names no promptctl; ctest sets it")
    return path


@dataclass
class Result:
    code: int
    out: str
    err: str = ""  # on a terminal both are in `out`

    def json(self):
        return json.loads(self.out)

    def lines(self):
        return self.out.splitlines()


class Promptctl:
    """promptctl(*arguments, stdin="", **settings) -> Result"""

    def __init__(self, folder, config, **settings):
        self.folder = folder
        self.config = config
        self.settings = settings

    def _command(self, arguments, program=None):
        return [*shlex.split(os.environ.get("PROMPTD_TEST_WRAPPER", "")), program or binary(), "--config", self.config,
                *map(str, arguments)]

    def _public_copy(self):
        """The checkout may be closed to other accounts."""
        return shutil.copy(binary(), os.path.join(self.folder, "promptctl"))

    def _environment(self, settings, extra=None):
        chosen = {name: value for name, value in {**self.settings, **settings}.items() if value is not None}
        return environment(self.folder, chosen, extra)

    def __call__(self, *arguments, stdin="", extra=None, timeout=20.0, user=None, **settings):
        """`stdin` may be bytes: then the output is, too. `user` runs it, for tests that are root."""
        options = {}
        if user:
            options = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        done = subprocess.run(self._command(arguments, self._public_copy() if user else None), env=self._environment(settings, extra), input=stdin,
                              capture_output=True, text=isinstance(stdin, str), timeout=timeout * SLOW, **options)
        broken = BROKEN.search(done.stderr if isinstance(stdin, str) else done.stderr.decode())
        assert broken is None, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments, group=False, **settings):
        """One that runs on, its output in a pipe that nobody reads yet; in a process group of its own, that it can be
        stopped as on a terminal. The caller waits for it."""
        return subprocess.Popen(self._command(arguments), env=self._environment(settings), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=os.setpgrp if group else None)

    def on_terminal(self, *arguments, answer="", meanwhile=None, extra=None, timeout=20.0, **settings):
        """The same on a terminal of 80 columns; `answer` is typed when it asks, and `meanwhile` is called before. What is
        typed is not echoed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(self._command(arguments)[0], self._command(arguments),
                      {**self._environment(settings, extra), "TERM": "xterm", **(extra or {})})
        return Result(*self._talk(pid, terminal, answer.encode(), meanwhile, time.monotonic() + timeout * SLOW))

    @staticmethod
    def _talk(pid, terminal, answer, meanwhile, deadline):
        seen = b""
        while True:
            ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"promptctl has not ended; so far: {seen!r}"
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux' end of a terminal
                part = b""
            if not part:
                break
            seen += part
            if seen.endswith(b"[y/N] ") and answer:
                if meanwhile:
                    meanwhile()
                os.write(terminal, answer)
                answer = b""
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code, seen.decode().replace("\r\n", "\n")
