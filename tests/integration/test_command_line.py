# SPDX-License-Identifier: MIT
"""Calls that end by themselves: exit codes, what they print, and how settings are judged."""

import re
import subprocess

import pytest

from support.promptd import command, environment, run

# Something that is wrong, given in each of the three places; words that the complaint must contain.
WRONG = {
    "not a number": ("db_connections", "four", []),
    "below the range": ("db_connections", "0", ["1", "64"]),
    "above the range": ("db_connections", "65", ["1", "64"]),
    "number with rubbish": ("batch_max", "10x", []),
    "too large for any number": ("message_max_bytes", "99999999999999999999", []),
    "negative": ("queue_max_messages", "-1", []),
    "empty number": ("retry_attempts", "", []),
    "not a choice": ("atomicity", "maybe", ["compensate", "transaction"]),
    "choice in upper case": ("log_level", "LOUD", ["debug", "critical"]),
    "no URL": ("redis_url", "localhost:6379", []),
    "another URL": ("redis_url", "http://localhost", []),
    "port out of range": ("redis_url", "redis://localhost:99999", []),
    "bad conninfo": ("database_url", "host=localhost no_such_keyword=1", []),
    "minimum above maximum": ("prompt_min_chars", "50001", ["prompt_max_chars"]),
}


@pytest.fixture
def call(new_folder):
    """call(*arguments, settings={}, extra={}, file="") -> the finished process; `file` is the settings file's text."""
    folder = new_folder("call")

    def call(*arguments, settings=(), extra=None, file=""):
        path = f"{folder}/promptd.conf"
        with open(path, "w", encoding="utf-8") as out:
            out.write(file)
        return run(folder, "--config", path, *arguments, settings=settings, extra=extra)

    return call


def expect_complaint(result, code, *words):
    assert result.returncode == code, result
    lines = result.stderr.splitlines()
    assert len(lines) == 1, f"not one clear line: {result.stderr!r}"
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    assert result.stdout == ""


# Wrong values


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_in_a_flag(call, name):
    setting, value, words = WRONG[name]
    flag = "--" + setting.replace("_", "-")
    expect_complaint(call("--check", f"{flag}={value}"), 64, flag, *words)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_in_the_environment(call, name):
    setting, value, words = WRONG[name]
    if value == "":
        words = []
    expect_complaint(call("--check", settings={setting: value}), 78, f"PROMPTD_{setting.upper()}", *words)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_in_the_file(call, name):
    setting, value, words = WRONG[name]
    expect_complaint(call("--check", file=f"# comment\n\n{setting} = {value}\n"), 78, setting, "promptd.conf", *words)


@pytest.mark.parametrize("url, word", [
    ("postgresql://u:s3cret@h/db?pgbouncer=true", "the parameter pgbouncer, which libpq does not know: remove it"),
    ("postgresql://u:s3cret@h/db?sslmode=require&schema=app", "the parameter schema,"),
    ("postgresql://u:s3cret@h/db?connection_limit=1", "the parameter connection_limit,"),
    ("postgresql://u:s3cret@h/db?ssl=require", "the parameter ssl,"),
    ("postgresql://u:s3cret@h/db?ssl=true", "the parameter ssl,"),
    ("postgresql://u:s3cret@h/db?sslmode=no-verify", "an sslmode that libpq does not know"),
    ("postgresql://u:s3cret@h:54x/db", "a port that is not a number"),
    ("postgresql://u:s3cret/more@h/db", "percent-encode it"),
    ("postgresql://u:s3cret", "a port that is not a number"),
    ("postgresql://u:?s3cret", "percent-encode it"),
    ("postgresql://u:more?s3cret=foo@h/db", "percent-encode it"),
    ("postgresql://h/d?user=u&password=more&s3cret=1", "a parameter that libpq does not know"),
    ("postgresql://h/d?user=u&pwd=s3cret", "the parameter pwd,"),
    ("postgresql:/u:s3cret://more@h/d", "nothing that libpq understands"),
    ("Server=h;Uid=u;Pwd=s3cret", "nothing that libpq understands"),
    ("host=h user=u password=more s3cret dbname=d", "nothing that libpq understands"),
])
def test_database_url_of_another_driver_or_with_a_password_that_is_not_encoded(call, promptctl, url, word):
    expect_complaint(call("--check", settings={"database_url": url}), 78, "PROMPTD_DATABASE_URL", word)
    for outcome in (call(settings={"database_url": url}), call("--print-config", settings={"database_url": url})):
        expect_complaint(outcome, 78, word)
        assert "s3cret" not in outcome.stderr + outcome.stdout
    checked = promptctl("check", database_url=url)
    assert checked.code == 78 and word in checked.out + checked.err and "s3cret" not in checked.out + checked.err


@pytest.mark.parametrize("url, shown", [
    ("postgresql://u:s3cret@h1:1,[::1]:2/db?sslmode=require&", "postgresql://u:***@h1:1,[::1]:2/db?sslmode=require&"),
    ("postgresql://u:s3cret%40%2F@h/db?application_name=a%40b", "postgresql://u:***@h/db?application_name=a%40b"),
    ("postgresql:///db?host=/run/x&password=s3cret", "postgresql:///db?host=/run/x&password=***"),
    ("host=h password='s3cret more' user=u", "host=h password=*** user=u"),
    ("dbname='postgresql://u:s3cretpassword=7s3cret@h/d'", None),
])
def test_url_that_is_good(call, url, shown):
    printed = call("--print-config", settings={"database_url": url})
    assert printed.returncode == 0 and "s3cret" not in printed.stdout + printed.stderr
    assert not shown or shown in printed.stdout


def test_wrong_value_ends_the_start_too(call):
    expect_complaint(call(settings={"batch_max": "none"}), 78, "PROMPTD_BATCH_MAX")


def test_complaint_about_a_url_shows_no_password(call):
    for result in (call("--check", settings={"redis_url": "http://user:hunter2hunter2@localhost"}),
                   call("--check", "--database-url=postgresql://user:hunter2hunter2@[localhost/db"),
                   call("--check", settings={"database_url": "host=localhost password=hunter2hunter2 nonsense"})):
        assert result.returncode in (64, 78)
        assert "hunter2" not in result.stderr + result.stdout


# The command line


@pytest.mark.parametrize("arguments", [["--no-such-setting=1"], ["--no-such-setting"], ["-Z"], ["operand"],
                                       ["--db-connections"], ["--check", "operand"]], ids=lambda words: " ".join(words))
def test_bad_command_line(call, arguments):
    expect_complaint(call(*arguments), 64)


def test_both_forms_of_a_flag(call):
    for arguments in (["--db-connections=7"], ["--db-connections", "7"]):
        result = call("--print-config", *arguments)
        assert result.returncode == 0 and "db_connections = 7" in result.stdout


def test_help(call):
    result = call("--help")
    assert result.returncode == 0 and result.stderr == ""
    for word in ("Usage: promptd", "--config", "--check", "--print-config", "--version", "--redis-url", "--database-url",
                 "--awaiting-statuses", "--shutdown-timeout-s"):
        assert word in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_version(call):
    result = call("--version")
    assert result.returncode == 0 and re.fullmatch(r"promptd \d+\.\d+\.\d+\n", result.stdout)


def test_output_that_cannot_be_written_is_a_failure(new_folder):
    with open("/dev/full", "w", encoding="ascii") as full:
        for option in ("--help", "--version", "--print-config"):
            result = subprocess.run(command(option), stdout=full, stderr=subprocess.DEVNULL, check=False,
                                    env=environment(new_folder("full")))
            assert result.returncode != 0


# The file


def test_unknown_key_in_the_file(call):
    expect_complaint(call("--check", file="redis_chanel = typo\n"), 78, "redis_chanel", "promptd.conf")


def test_line_without_a_value_in_the_file(call):
    result = call("--check", file="redis_channel\n")
    assert result.returncode == 78 and "promptd.conf" in result.stderr


def test_file_that_is_missing(new_folder):
    missing = f"{new_folder('missing')}/nothing.conf"
    result = run(new_folder("home"), "--config", missing, "--check")
    assert result.returncode == 78 and missing in result.stderr


def test_url_file_that_is_missing(call):
    result = call("--check", extra={"PROMPTD_REDIS_URL_FILE": "/nonexistent/redis"})
    assert result.returncode == 78 and "PROMPTD_REDIS_URL_FILE" in result.stderr


# What counts


def printed(result):
    """{setting: value} of --print-config."""
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line and not line.startswith("#")]
    return dict(re.fullmatch(r"([a-z_]+) ?= ?(.*)", line).groups() for line in lines)


DEFAULTS = {
    "redis_url": "redis://127.0.0.1:6379", "redis_channel": "interviewly:prompt-ready", "db_connections": "4",
    "atomicity": "compensate", "ready_status": "ready", "failed_status": "failed",
    "awaiting_statuses": "pending,not_started,enhancing,vector_search,web_scraping,processing,failed",
    "sources": "rag,existing_data,new_data,fallback", "prompt_min_chars": "10", "prompt_max_chars": "50000",
    "message_max_bytes": "1048576", "batch_max": "256", "queue_max_messages": "10000", "queue_max_bytes": "67108864",
    "retry_attempts": "3", "retry_base_ms": "1000", "retry_max_ms": "10000", "statement_timeout_ms": "10000",
    "backoff_max_s": "30", "log_level": "info", "log_format": "text", "shutdown_timeout_s": "10",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(call, name):
    value = printed(call("--print-config"))[name]
    assert value.replace(", ", ",") == DEFAULTS[name]


def test_flag_over_environment_over_file_over_default(call):
    file = "batch_max = 11\nretry_attempts = 11\nprompt_min_chars = 11\n"
    values = printed(call("--print-config", "--batch-max=33", file=file,
                          settings={"batch_max": 22, "retry_attempts": 22}))
    assert (values["batch_max"], values["retry_attempts"], values["prompt_min_chars"], values["db_connections"]) == \
        ("33", "22", "11", "4")


def test_printed_settings_are_a_file_that_says_the_same(call):
    changed = {"redis_channel": "with space: # and ; signs", "awaiting_statuses": "a b,c=d", "db_connections": 9,
               "log_file": "/tmp/with space.log", "ready_status": "it's \"done\"", "redis_url": "redis://host:1/2",
               "database_url": "host=/tmp dbname='a b'"}
    first = call("--print-config", settings=changed)
    again = call("--print-config", file=first.stdout)
    assert printed(again) == printed(first)
    assert printed(first)["db_connections"] == "9"


def test_printed_urls_show_no_password(call):
    for url in ("postgresql://user:hunter2@localhost/db", "host=localhost password=hunter2",
                "postgresql://localhost/db?user=x&password=hunter2", "host=localhost password = 'hunter2 hunter2'"):
        result = call("--print-config", settings={"database_url": url, "redis_url": "redis://:hunter2@localhost"})
        assert result.returncode == 0 and "hunter2" not in result.stdout and result.stdout.count("***") == 2


# --check


def test_check_of_good_settings(call):
    result = call("--check", settings={"db_connections": 2}, file="batch_max = 1\n")
    assert result.returncode == 0 and result.stderr == ""


def test_unknown_variable_is_only_warned_of(call):
    result = call("--check", extra={"PROMPTD_NO_SUCH_SETTING": "1"})
    assert result.returncode == 0 and "PROMPTD_NO_SUCH_SETTING" in result.stderr and "WARNING" in result.stderr


def test_log_file_that_cannot_be_opened(call):
    result = call(settings={"log_file": "/nonexistent/promptd.log"})
    assert result.returncode == 78 and "/nonexistent/promptd.log" in result.stderr
    assert "setting log_file" in result.stderr and "environment PROMPTD_LOG_FILE" in result.stderr
    result = call("--log-file=/nonexistent/promptd.log")
    assert result.returncode == 64 and "flag --log-file" in result.stderr
