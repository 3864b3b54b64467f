# SPDX-License-Identifier: MIT
"""promptctl's command line: help, flags and settings, exit codes of mistakes; and its completion in bash."""

import os
import re
import shlex
import subprocess

import pytest

from support.promptctl import binary
from support.promptd import environment

COMMANDS = ["check", "dead list", "dead show", "dead replay", "dead drop", "orphans", "publish", "status", "stuck",
            "validate"]
COMPLETION = os.path.join(os.path.dirname(__file__), "../../deploy/completion/promptctl.bash")


def expect_usage_error(result, *words):
    assert result.code == 64 and result.out == "" and len(result.err.splitlines()) == 1, result
    for word in words:
        assert word in result.err


# Help


def test_help_names_every_command_and_exit_code(promptctl):
    result = promptctl("--help")
    assert result.code == 0 and result.err == "" and result.out.startswith("Usage: promptctl COMMAND")
    for command in COMMANDS:
        assert re.search(rf"^  {command}  ", result.out, re.MULTILINE)
    for code in (0, 1, 64, 69, 70, 73, 78):
        assert re.search(rf"^  {code}  ", result.out, re.MULTILINE)
    assert max(map(len, result.lines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(promptctl, command):
    result = promptctl(*command.split(), "--help")
    assert result.code == 0 and result.err == "" and result.out.startswith(f"Usage: promptctl {command} ")
    assert result.out.count("Usage:") == 1 and "Settings that count" in result.out
    assert max(map(len, result.lines())) <= 80


def test_help_of_several_commands(promptctl):
    assert promptctl("dead", "--help").out.count("Usage: promptctl dead ") == 4
    assert promptctl("dead", "show", "17", "--help").out.count("Usage:") == 1


def test_help_does_not_mind_its_place(promptctl):
    for arguments in (["--help", "status"], ["status", "--help", "--nonsense"], ["status", "--json", "--help"]):
        result = promptctl(*arguments)
        assert result.code == 0 and result.out.startswith("Usage: promptctl status")


def test_help_and_version_are_there_when_the_settings_are_broken(promptctl):
    for option in ("--help", "--version"):
        assert promptctl("status", option, db_connections="none").code == 0


def test_version(promptctl):
    assert re.fullmatch(r"promptctl \d+\.\d+\.\d+\n", promptctl("--version").out)


def test_output_that_cannot_be_written_is_a_failure(promptctl):
    with open("/dev/full", "w", encoding="ascii") as full:
        for option in ("--help", "--version", "--print-config"):
            done = subprocess.run([binary(), option], stdout=full, stderr=subprocess.PIPE, check=False,
                                  env=environment(promptctl.folder))
            assert done.returncode == 70 and b"cannot be written" in done.stderr


def test_output_that_is_closed_is_a_failure(promptctl):
    """Whatever is opened first must not get its number, and the output."""
    for option in ("--help", "--print-config"):
        done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", binary(), option], stderr=subprocess.PIPE, check=False,
                              env=environment(promptctl.folder))
        assert done.returncode == 70 and b"cannot be written" in done.stderr


# Mistakes


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["dead"], ["dead", "nonsense"], ["-x"], ["check", "-x"], ["check", "extra"],
                                       ["check", "--nonsense"], ["check", "--delete"], ["--json"], ["status", "--all"],
                                       ["check", "--json=1"], ["orphans", "--older-than"], ["check", "--db-connections"],
                                       ["check", "--db-connections=none"], ["--", "--help"]],
                         ids=lambda words: " ".join(words) or "nothing")
def test_bad_command_line(promptctl, arguments):
    expect_usage_error(promptctl(*arguments))


def test_complaints_say_what_to_do(promptctl):
    expect_usage_error(promptctl("status", "--redis-ur=x"), "did you mean --redis-url")
    expect_usage_error(promptctl("--check"), "promptctl check", "promptd --check")
    expect_usage_error(promptctl("stuck", "--delete"), "--delete", "promptctl stuck --help")
    expect_usage_error(promptctl("dead"), "promptctl dead --help")


def test_flags_are_written_out(promptctl):
    for flag in ("--redis-u=x", "--jso", "--vers", "--older=5m", "--redis"):
        expect_usage_error(promptctl("stuck", flag), f"unknown flag {flag.split('=')[0]};")


# Settings


def test_settings_may_stand_anywhere(promptctl):
    for arguments in (["--prompt-min-chars=3", "validate", "--json"], ["validate", "--prompt-min-chars", "3", "--json"],
                      ["--json", "--prompt-min-chars", "3", "validate", "-"]):
        [judged] = promptctl(*arguments, stdin='{"interview_id": "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c",'
                                               ' "enhanced_prompt": "four"}').json()
        assert judged["accepted"] is True


def test_settings_come_from_the_same_places(promptctl):
    with open(promptctl.config, "w", encoding="ascii") as file:
        file.write("prompt_min_chars = 30\nprompt_max_chars = 31\n")
    printed = promptctl("--print-config", "--prompt-max-chars=32", sources="rag,extra").out
    for line in ("prompt_min_chars = 30", "prompt_max_chars = 32", "sources = rag,extra"):
        assert line in printed.replace(", ", ",")


def test_bad_settings(promptctl):
    result = promptctl("validate", batch_max="none")
    assert result.code == 78 and "PROMPTD_BATCH_MAX" in result.err and result.out == ""
    result = promptctl("validate", "--config", "/nonexistent.conf")
    assert result.code == 78 and "/nonexistent.conf" in result.err


def test_no_password_is_shown(promptctl):
    result = promptctl("--print-config", redis_url="redis://:hunter2@localhost", database_url="host=x password=hunter2")
    assert result.code == 0 and "hunter2" not in result.out


# Completion


@pytest.fixture
def complete(promptctl):
    """complete("dead sh") -> what bash would offer for the last word"""
    def ask(line, **settings):
        words = shlex.split(line) + ([""] if line.endswith(" ") or not line else [])
        words = [part for word in words for part in re.split(r"(=)", word) if part or word == ""]
        quoted = " ".join(map(shlex.quote, ["promptctl", *words]))
        script = (f"set -u; . {shlex.quote(COMPLETION)}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)};"
                  " _promptctl; printf '%s\\n' \"${COMPREPLY[@]}\"")
        folder = os.path.dirname(binary())
        done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=False,
                              cwd=promptctl.folder,
                              env={**environment(promptctl.folder, settings), "PATH": f"{folder}:/usr/bin:/bin"})
        assert done.returncode == 0 and done.stderr == "", done
        return done.stdout.split()

    return ask


def test_completion_of_commands(complete):
    assert complete("") == sorted({command.split()[0] for command in COMMANDS})
    assert complete("st") == ["status", "stuck"]
    assert complete("dead ") == ["list", "show", "replay", "drop"]
    assert complete("dead sh") == ["show"] and complete("nonsense ") == []


def test_completion_of_flags(complete):
    assert complete("orphans --de") == ["--delete"] and complete("orphans --o") == ["--older-than="]
    assert "--fail" not in complete("orphans --") and "--fail" in complete("stuck --")
    assert complete("--print") == ["--print-config"] and complete("dead show --ra") == ["--raw"]
    assert complete("check --redis-c") == ["--redis-channel"] and "--config=" in complete("check --")


def test_completion_of_operands(complete, promptctl, start_promptd, channel, new_folder):
    assert "empty.conf" in complete("validate emp") and complete("--config emp") == complete("--config=emp") == ["empty.conf"]
    folder = new_folder("spool")
    promptd = start_promptd(spool_dir=folder)
    channel.publish_raw(b"no json")
    promptd.wait_counters(dead_letters=1)
    [letter] = promptctl("dead", "list", "--json", spool_dir=folder).json()
    assert complete("dead show ", spool_dir=folder) == [str(letter["id"])]


def test_unknown_variables_are_named_by_check_alone(promptctl):
    links = {"PROMPTD_PORT": "tcp://10.0.0.7:9797", "PROMPTD_SERVICE_HOST": "10.0.0.7"}
    assert "PROMPTD_PORT" not in promptctl("dead", "list", extra=links).err
    for words in (["check"], ["--print-config"]):
        error = promptctl(*words, extra=links).err
        assert "PROMPTD_PORT is no setting" in error and "PROMPTD_SERVICE_HOST is no setting" in error
