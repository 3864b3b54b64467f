# SPDX-License-Identifier: MIT
"""The three forms of the log say the same words, a line each."""

import json
import os
import re

import pytest

from support.expect import detected_line

PRIORITIES = {"CRITICAL": "2", "ERROR": "3", "WARNING": "4", "INFO": "6", "DEBUG": "7"}


@pytest.fixture
def every_outcome(database, channel):
    """Publishes a message of each kind; returns the one that ends as an orphan."""
    def publish(promptd):
        promptd.quiet = True  # its counters are not in the form that is parsed
        database.raise_on("interview_enhanced_prompts", "delete", "E'never\\n\"forget\" é\\x1b'")
        good = channel.publish(database.interview())
        channel.publish_message(good)
        channel.publish("00000000-0000-4000-8000-000000000001")
        channel.publish_raw(b'{"interview_id": "\x1b[31m')
        orphan = channel.publish(database.interview("completed"))
        promptd.wait_text("ORPHANED PROMPT DETECTED", "not_json", "no such interview", "uplicate")
        return orphan

    return publish


def test_text(start_promptd, every_outcome):
    promptd = start_promptd()
    every_outcome(promptd)
    assert all(line.level for line in promptd.lines()), "a line is not in the form of the others"
    times = [line.time for line in promptd.lines()]
    assert times == sorted(times)


def test_json(start_promptd, every_outcome):
    promptd = start_promptd(log_format="json", extra={"PROMPTD_NO_SUCH_SETTING": "1"})
    orphan = every_outcome(promptd)
    lines = [json.loads(line.raw) for line in promptd.lines()]
    for line in lines:
        assert list(line)[:4] == ["time", "level", "component", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in PRIORITIES
    detected = [line for line in lines if line["message"].startswith(detected_line(orphan))]
    assert len(detected) == 1
    assert detected[0]["level"] == "CRITICAL" and detected[0]["component"] == "store"
    [rejected] = [line for line in lines if line.get("reason") == "not_json"]
    assert isinstance(rejected["at"], int) and isinstance(rejected["bytes"], int)
    assert detected[0]["sqlstate"] == "P0001" and '"forget" é' in detected[0]["error"]


def expect_journal(promptd, orphan):
    for line in promptd.lines():
        match = re.fullmatch(r"<([2-7])>(DEBUG|INFO|WARNING|ERROR|CRITICAL) [a-z_]+: .*", line.raw)
        assert match, f"not a line for the journal: {line.raw!r}"
        assert PRIORITIES[match[2]] == match[1]
    assert any(line.raw.startswith("<2>CRITICAL store: " + detected_line(orphan)) for line in promptd.lines())


def test_journal(start_promptd, every_outcome):
    promptd = start_promptd(log_format="journal", extra={"PROMPTD_NO_SUCH_SETTING": "1"})
    expect_journal(promptd, every_outcome(promptd))


def test_journal_is_the_default_where_standard_error_goes_there(start_promptd, every_outcome, new_folder):
    path = os.path.join(new_folder("journal"), "stream")
    with open(path, "ab") as stream:
        status = os.fstat(stream.fileno())
        promptd = start_promptd(stderr=stream, extra={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    promptd.log_path = path
    expect_journal(promptd, every_outcome(promptd))


def test_journal_of_someone_else_is_not_meant(start_promptd):
    """Inherited, but standard error goes elsewhere."""
    promptd = start_promptd(extra={"JOURNAL_STREAM": "1:1"})
    assert all(line.level for line in promptd.lines())


@pytest.mark.parametrize("level, shown", [("debug", 5), ("info", 4), ("warning", 3), ("error", 2), ("critical", 1)])
def test_level(start_promptd, database, channel, every_outcome, level, shown):
    promptd = start_promptd(log_level=level)
    database.raise_on("interview_enhanced_prompts", "delete")
    promptd.quiet = True
    message = channel.publish(database.interview("completed"))
    promptd.wait_line("CRITICAL", detected_line(message))
    allowed = ["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"][:shown]
    assert {line.level for line in promptd.lines()} <= set(allowed)
    if level == "debug":
        assert promptd.find("DEBUG") != []


def test_log_file(start_promptd, database, channel, new_folder):
    path = os.path.join(new_folder("log"), "promptd.log")
    promptd = start_promptd(log_file=path)
    stderr_path, promptd.log_path = promptd.log_path, path
    channel.publish(database.interview())
    promptd.settle(1)
    assert os.path.getsize(stderr_path) == 0
    assert os.stat(path).st_mode & 0o007 == 0, "the log may be read by everyone"


def test_log_file_is_appended_to(start_promptd, new_folder):
    path = os.path.join(new_folder("log"), "promptd.log")
    with open(path, "w", encoding="ascii") as file:
        file.write("2026-11-23T16:01:02.345Z INFO daemon: from an earlier life\n")
    promptd = start_promptd(log_file=path)
    promptd.log_path = path
    assert promptd.lines()[0].text == "from an earlier life"


def test_server_notices_are_not_printed_raw(start_promptd, database, channel):
    """A trigger of the application that speaks must not break the form of the log, nor bring the prompt into it."""
    database.trigger("interview_enhanced_prompts", "insert", "raise warning 'a notice of %', new.prompt;")
    promptd = start_promptd()
    channel.publish(database.interview())
    promptd.settle(1)
    assert all(line.level for line in promptd.lines())
