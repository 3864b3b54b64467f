# SPDX-License-Identifier: MIT
"""The shipped rotation of the log, by the real logrotate, and the shipped ways to find an orphan in what it leaves."""

import glob
import grp
import gzip
import os
import pwd
import re
import shutil
import subprocess

import pytest

from support.expect import detected_line, resolved_line
from support.postgres import ROLE

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHIPPED_FOLDER = "/var/log/promptd"

# There is no systemd here: what the unit does on `systemctl reload` is to send SIGHUP.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{folder}/systemctl.calls
case "$*" in
"is-active --quiet promptd.service") kill -0 {pid} ;;
"reload promptd.service") kill -HUP {pid} ;;
*) exit 64 ;;
esac
"""


@pytest.fixture
def logs(new_folder):
    return new_folder("logs")


@pytest.fixture
def logging_promptd(start_promptd, logs):
    path = os.path.join(logs, "promptd.log")
    promptd = start_promptd(log_file=path, atomicity="compensate", reconcile_interval_s=1)
    promptd.log_path = path
    return promptd


@pytest.fixture
def rotate(new_folder, logs, logging_promptd):
    """rotate(): the shipped file, but for the folder and the account, is carried out at once."""
    program = shutil.which("logrotate", path="/usr/sbin:" + os.environ["PATH"])
    if program is None:
        raise RuntimeError("needs logrotate (Debian package logrotate)")
    folder = new_folder("logrotate")
    with open(os.path.join(ROOT, "deploy/logrotate/promptd"), encoding="ascii") as file:
        shipped = file.read()
    account = f"{pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name}"
    assert "su promptd promptd" in shipped and f"{SHIPPED_FOLDER}/*.log" in shipped
    config = write(folder, "promptd", shipped.replace("promptd promptd", account).replace(SHIPPED_FOLDER, logs), 0o644)
    write(folder, "systemctl", SYSTEMCTL.format(folder=folder, pid=logging_promptd.process.pid), 0o755)

    def run():
        logging_promptd.lines()
        result = subprocess.run([program, "--force", "--state", os.path.join(folder, "state"), config],
                                env={"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True)
        assert result.returncode == 0 and result.stderr == "", result.stderr
        logging_promptd.forget_log()
        logging_promptd.wait_line("INFO", "settings reloaded")

    return run


def write(folder, name, text, mode):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def everything(logs):
    """All lines of all files, compressed or not."""
    lines = []
    for path in glob.glob(os.path.join(logs, "promptd.log*")):
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            lines += file.read().splitlines()
    return lines


def test_nothing_is_lost(logging_promptd, rotate, database, channel, logs):
    """Three rotations in a stream of messages: each has its line once, in one of the files."""
    messages = []
    for _ in range(3):
        burst = [channel.message(interview) for interview in database.interviews(200)]
        channel.publish_burst(burst)
        rotate()
        messages += burst
    logging_promptd.settle(600)
    lines = [line for line in everything(logs) if "prompt stored" in line]
    stored = sorted(re.search(r"prompt_id=(\S+)", line)[1] for line in lines)
    assert stored == sorted(message.id for message in messages)
    assert sorted(os.listdir(logs)) == ["promptd.log", "promptd.log.1", "promptd.log.2.gz", "promptd.log.3.gz"]
    assert all(os.stat(path).st_mode & 0o007 == 0 for path in glob.glob(os.path.join(logs, "*")))


def recipes():
    """The commands for a log file, as docs/OPERATIONS.md gives them."""
    with open(os.path.join(ROOT, "docs/OPERATIONS.md"), encoding="utf-8") as file:
        section = file.read().split("\n### Finding orphans in the log\n")[1].split("\n#")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return [block for block in blocks if SHIPPED_FOLDER in block]


def test_orphans_are_found_in_rotated_logs(logging_promptd, rotate, database, channel, logs):
    """Two orphans, one of them resolved, and a rotation after each event: the commands of the manual find them."""
    database.raise_on("interviews", "update", "not ready", when="new.status = 'ready'")
    database.execute(f"revoke delete on interview_enhanced_prompts from {ROLE}")
    resolved, left = (channel.publish(database.interview()) for _ in range(2))
    for message in (resolved, left):
        logging_promptd.wait_line("CRITICAL", detected_line(message))
    logging_promptd.settle(2)
    rotate()
    database.execute("delete from interview_enhanced_prompts where id = %s", [resolved.id])
    database.execute(f"grant delete on interview_enhanced_prompts to {ROLE}")
    database.trigger("interview_enhanced_prompts", "delete", "raise exception 'it stays';")
    logging_promptd.wait_line("INFO", resolved_line(resolved))
    rotate()

    all_lines, still_open = recipes()
    found = run_recipe(all_lines, logs)
    assert sum(detected_line(resolved) in line for line in found) == 1
    assert sum(resolved_line(resolved) in line for line in found) == 1
    assert sum(detected_line(left) in line for line in found) == 1 and len(found) == 3
    found = run_recipe(still_open, logs)
    assert len(found) == 1 and detected_line(left) in found[0]


def run_recipe(command, logs):
    result = subprocess.run(["sh", "-c", command.replace(SHIPPED_FOLDER, logs)], capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return result.stdout.splitlines()
