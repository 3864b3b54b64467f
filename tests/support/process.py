# SPDX-License-Identifier: MIT
"""Child processes that never outlive the tests, and the ports they listen on."""

import ctypes
import fcntl
import os
import pwd
import random
import signal
import socket
import subprocess
import tempfile

from .wait import SLOW, wait_until

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(command, death_signal=signal.SIGKILL, user=None, **options):
    """Starts a child in a session of its own; the kernel ends it with `death_signal` should the tests die first."""

    def tie_to_parent():
        _libc.prctl(PR_SET_PDEATHSIG, death_signal)

    if user is not None:
        account = pwd.getpwnam(user)
        options.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=tie_to_parent,
                            **options)


def end(process, with_signal=signal.SIGTERM, timeout=10.0):
    """Asks a child to end and waits; kills it where it does not. Returns the exit code."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{process.args[0]} did not end within {timeout * SLOW:g} s of signal {with_signal}")
    return process.returncode


def unprivileged_user():
    """PostgreSQL and PgBouncer refuse to run as root: the account to give them instead, None where we are not root."""
    return "postgres" if os.geteuid() == 0 else None


def give_to(path, user):
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(path, account.pw_uid, account.pw_gid)


def process_state(pid):
    """A letter, as ps has it: R, S, T for stopped."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


class Port:
    """A free TCP port on loopback that no other test takes while this object lives.

    It lies below the range the kernel gives to outgoing connections, and a locked file keeps other test sessions of
    this machine away from it, also while its server is down.
    """

    FIRST, LAST = 15000, 32000

    def __init__(self):
        folder = os.path.join(tempfile.gettempdir(), f"promptd-test-ports-{os.geteuid()}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for _ in range(1000):
            number = random.randint(self.FIRST, self.LAST)
            lock = os.open(os.path.join(folder, str(number)), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", number))
            except OSError:
                os.close(lock)
                continue
            self.number, self._lock = number, lock
            return
        raise RuntimeError("no free port found")

    def release(self):
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def wait_for_server(process, answers, name, log_path, timeout=30.0):
    """Waits until answers() is true; a server that died instead is reported with the end of its log."""

    def up():
        if process.poll() is not None:
            raise AssertionError(f"{name} ended with {process.returncode} at start:\n{tail(log_path)}")
        return answers()

    wait_until(up, f"{name} to answer", timeout, seen=lambda: tail(log_path, 5))


def tail(path, lines=40):
    try:
        with open(path, "rb") as file:
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
