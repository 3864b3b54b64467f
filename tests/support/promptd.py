# SPDX-License-Identifier: MIT
"""A promptd under observation: started with settings, watched through its log, stopped, and judged."""

import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass, field

from .process import spawn, tail
from .wait import SLOW, wait_until

# Outcomes add up to what was received; rollback and orphaned say more about failures.
OUTCOMES = ("success", "duplicate", "failure", "rejected", "dropped")
DETAILS = ("rollback", "orphaned")

SANITIZER_VARIABLES = ("ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")

BROKEN = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|Assertion .* failed|loop not clean"
                    r"|==\d+==|double free|(malloc|calloc|realloc|free)\(\): |corrupted (size|double)")
CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")

TEXT_LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
                       r"(?P<component>[a-z_]+): (?P<text>.*)")
PAIR = re.compile(r'(?:(?<= )|^)([a-z_][a-z0-9_.]*)=("(?:[^"\\]|\\.)*"|[^ "]*)(?= |$)')


@dataclass
class LogLine:
    raw: str
    time: str = ""
    level: str = ""
    component: str = ""
    text: str = ""   # message and pairs
    fields: dict = field(default_factory=dict)

    @classmethod
    def parse(cls, raw):
        match = TEXT_LINE.fullmatch(raw)
        if match is None:
            return cls(raw)
        return cls(raw, fields=parse_pairs(match["text"]), **match.groupdict())


def parse_pairs(text):
    """key=value pairs of a logfmt line."""
    return {key: re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
            for key, value in PAIR.findall(text)}


class Counters(dict):
    """The counters of one moment. Missing ones are 0."""

    def __missing__(self, key):
        return 0

    def outcomes(self):
        """What happened so far, without the zeros: {"failure": 1, "rollback": 1}."""
        return {name: self[name] for name in OUTCOMES + DETAILS if self[name]}

    def check(self):
        ended = sum(self[name] for name in OUTCOMES)
        assert self["received"] == ended + self["waiting"], f"received is not the sum of all outcomes and waiting: {self}"


def parse_state(line):
    """The counters in the line that SIGUSR1 asks for, None in any other line."""
    if line.component != "daemon" or "received" not in line.fields:
        return None
    return Counters({key: int(value) for key, value in line.fields.items() if re.fullmatch(r"\d+", value)})


def binary():
    path = os.environ.get("PROMPTD_BINARY")
    if not path:
        raise RuntimeError("PROMPTD_BINARY names no promptd; ctest sets it")
    return path


def environment(home, settings=(), extra=None):
    """Only what promptd needs: nothing of the caller's may change a test."""
    variables = {"PATH": "/usr/bin:/bin", "HOME": home, "LC_ALL": "C.UTF-8"}
    variables.update({name: os.environ[name] for name in SANITIZER_VARIABLES if name in os.environ})
    variables.update({f"PROMPTD_{name.upper()}": str(value) for name, value in dict(settings).items()})
    variables.update(extra or {})
    return variables


def command(*arguments):
    """PROMPTD_TEST_WRAPPER puts a program such as valgrind in front."""
    return [*shlex.split(os.environ.get("PROMPTD_TEST_WRAPPER", "")), binary(), *map(str, arguments)]


def run(home, *arguments, settings=(), extra=None, timeout=10.0):
    """Runs promptd to its end, for calls that end by themselves."""
    return subprocess.run(command(*arguments), env=environment(home, settings, extra), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout * SLOW)


class Promptd:
    def __init__(self, folder, name, settings, arguments=(), extra=None, stderr=None, shell=None):
        self.folder = folder
        self.name = name
        self.settings = settings
        self.log_path = os.path.join(folder, f"{name}.log")
        self.output_path = os.path.join(folder, f"{name}.out")
        self.secrets = []          # words that must never stand in the log
        self.exit_code = None      # once it was seen to end
        self.quiet = False         # a test that makes the log unreadable on purpose says so
        self._lines = []
        self._offset = 0
        with open(self.log_path, "ab") as log, open(self.output_path, "ab") as out:
            started = command(*arguments)
            if shell:
                started = ["sh", "-c", shell, "sh", *started]
            self.process = spawn(started, env=environment(folder, settings, extra), cwd=folder,
                                 stdout=out, stderr=log if stderr is None else stderr)

    # The log

    def lines(self, level=None):
        """Every whole line so far; of one level, or of all."""
        try:
            with open(self.log_path, "rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:  # renamed, and not yet opened anew
            fresh = b""
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._lines += [LogLine.parse(raw) for raw in whole.decode("utf-8", "backslashreplace").split("\n")[:-1]]
        return [line for line in self._lines if level is None or line.level == level]

    def forget_log(self):
        """The log begins anew: its file was renamed, and promptd told so."""
        self._lines, self._offset = [], 0

    def find(self, level, *words):
        """Lines of that level (several: "WARNING|ERROR") which contain every one of the words."""
        levels = level.split("|")
        return [line for line in self.lines() if line.level in levels and all(word in line.text for word in words)]

    def one(self, level, *words):
        """The only such line."""
        found = self.find(level, *words)
        assert len(found) == 1, f"{len(found)} {level} lines with {words}, not one: {[line.raw for line in found]}"
        return found[0]

    def wait_line(self, level, *words, count=1, timeout=10.0):
        """The first such line, once there are `count` of them."""
        return wait_until(lambda: len(self.find(level, *words)) >= count and self.find(level, *words),
                          f"{count} {level} line(s) with {words}", timeout, seen=lambda: self.tail(8))[0]

    def wait_text(self, *words, timeout=10.0):
        """Until each of the words stands somewhere in the log, whatever its form."""
        def missing():
            text = self.tail(10000)
            return [word for word in words if word not in text]

        wait_until(lambda: not missing(), "words in the log", timeout, seen=missing)

    def tail(self, lines=40):
        return tail(self.log_path, lines)

    @property
    def admin_url(self):
        """Where it serves its state and its page, without a slash at the end."""
        return self.wait_line("INFO", "admin listening").fields["url"].rstrip("/")

    # The counters

    def counters(self, timeout=10.0):
        """Asks with SIGUSR1; every answer is checked to add up."""
        before = len(self.lines())
        self.kill(signal.SIGUSR1)

        def answer():
            self._must_run()
            states = [parse_state(line) for line in self.lines()[before:]]
            return next((state for state in states if state is not None), None)

        counters = wait_until(answer, "the counters that SIGUSR1 asks for", timeout, seen=lambda: self.tail(8))
        counters.check()
        return counters

    def wait_counters(self, timeout=20.0, **wanted):
        """Until each named counter has its value; returns them all."""
        last = {}

        def reached():
            last.update(self.counters())
            return all(last.get(name, 0) == value for name, value in wanted.items())

        wait_until(reached, f"counters {wanted}", timeout, seen=lambda: last, interval=0.02)
        return Counters(last)

    def settle(self, received, timeout=20.0):
        """Until so many messages have arrived and each has its outcome; returns the counters."""
        return self.wait_counters(timeout, received=received, waiting=0)

    # Memory

    def peak_memory_kb(self):
        """The most that was ever resident."""
        return self._status_kb("VmHWM")

    def memory_kb(self):
        return self._status_kb("VmRSS")

    def _status_kb(self, name):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

    def cpu_seconds(self):
        """Processor time, of all its threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # Life and end

    def freeze(self):
        self.kill(signal.SIGSTOP)

    def thaw(self):
        self.kill(signal.SIGCONT)

    def crash(self):
        """kill -9: no last word, no last write."""
        self.kill(signal.SIGKILL)
        self.wait_exit()

    def wait_ready(self, channel, database, listeners=frozenset(), others=(), sessions=None):
        """Subscribed, and every connection to the database has been checked: what a test breaks from now on is met by
        messages. `listeners` and `others` are connections of Redis and sessions from before; `sessions` says how many
        there will be where a pooler decides."""
        wanted = sessions or int(self.settings.get("db_connections", 4))

        def ready():
            self._must_run()
            checked = [pid for pid, state, _, asked in database.sessions() if state == "idle" and asked]
            subscribed = channel.subscribers() > 0 and channel.server.listeners() - listeners
            return subscribed and len(set(checked) - set(others)) >= wanted

        wait_until(ready, f"{self.name} to be subscribed and connected", 15,
                   seen=lambda: (channel.subscribers(), channel.server.listeners(), database.sessions(), self.tail(8)))

    def _must_run(self):
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code}:\n{self.tail()}"

    def kill(self, number):
        self.process.send_signal(number)

    def wait_exit(self, timeout=15.0):
        """The exit code as a shell has it: 128 + signal for one that was killed."""
        try:
            code = self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {timeout * SLOW:g} s:\n{self.tail()}") from None
        self.exit_code = code if code >= 0 else 128 - code
        return self.exit_code

    def stop(self, with_signal=signal.SIGTERM):
        """Ends it politely; it must end well."""
        self.kill(with_signal)
        code = self.wait_exit()
        assert code == 0, f"{self.name} ended with {code}:\n{self.tail()}"

    def judge(self, prompts=(), marker=None):
        """The check that ends every test: it adds up, it ends cleanly, and the log keeps secrets."""
        try:
            if self.exit_code is None:
                if not self.quiet:
                    self.counters()
                self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self.check_log(prompts, marker)

    def check_log(self, prompts, marker):
        with open(self.log_path, "rb") as file:
            log = file.read()
        assert not CONTROL.search(log), f"control characters in the log of {self.name}: {CONTROL.search(log)}"
        text = log.decode("utf-8")
        broken = BROKEN.search(text)
        assert broken is None, f"{self.name} broke ({broken[0]}):\n{self.tail(80)}"
        for secret in self.secrets:
            assert secret not in text, f"a secret stands in the log of {self.name}"
        if marker is not None:
            assert marker not in text, f"prompt text stands in the log of {self.name}"
        for prompt in set(prompts):
            assert prompt[:24] not in text, f"prompt text stands in the log of {self.name}: {prompt[:24]!r}"
