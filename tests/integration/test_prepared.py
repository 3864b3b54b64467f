# SPDX-License-Identifier: MIT
"""Prepared statements: where nothing is in between, and never to anybody's harm."""

import re

import pytest

from support.expect import expect_nothing_stored, expect_stored

PROMPTS = "interview_enhanced_prompts"


@pytest.fixture
def executed(database):
    """The names of the statements that the server has executed: what stands there of an unnamed one is <unnamed>."""
    name = database.value("select current_database()")
    database.execute(f"alter database {name} set log_statement = 'all'")

    def read():
        with open(database.cluster.log_path, encoding="utf-8", errors="replace") as log:
            return re.findall(rf" {name} LOG:  execute (.*?): (?:insert|update)", log.read())

    return read


@pytest.fixture
def start_one(start_promptd, atomicity):
    def start(**settings):
        return start_promptd(atomicity=atomicity, db_connections=1, sessions=1, **settings)

    return start


def store(promptd, channel, database, count):
    for number in range(count):
        message = channel.publish(database.interview())
        promptd.wait_counters(received=number + 1, waiting=0)
        expect_stored(database, message)


def test_prepared_on_a_connection_of_its_own(start_one, database, channel, executed):
    store(start_one(), channel, database, 3)
    names = executed()
    assert len(names) >= 6 and all(re.fullmatch(r"(insert|update) .{33} [0-9a-f]{16}", name) for name in names)
    assert all(names.count(name) in (3, 6) for name in names)


def test_unnamed_behind_a_pooler(start_one, database, channel, executed, new_pgbouncer):
    store(start_one(database_url=database.url(new_pgbouncer(pool_size=1).port)), channel, database, 3)
    names = executed()
    assert len(names) >= 6 and set(names) == {"<unnamed>"}


def test_prepared_again_on_the_next_connection(start_one, database, channel, executed):
    promptd = start_one()
    store(promptd, channel, database, 1)
    database.terminate_sessions()
    database.wait_sessions(1)
    message = channel.publish(database.interview())
    promptd.wait_counters(received=2, waiting=0)
    expect_stored(database, message)
    assert "<unnamed>" not in executed()


def test_statements_that_are_gone(start_one, database, channel, executed):
    """As behind a pooler that promptd does not recognise: the message is stored all the same, at once."""
    promptd = start_one()
    store(promptd, channel, database, 1)
    database.trigger("interviews", "update", "execute 'deallocate all';")
    messages = [channel.publish(database.interview()) for _ in range(5)]
    assert promptd.settle(6).outcomes() == {"success": 6}
    expect_stored(database, *messages)
    assert promptd.one("INFO", "prepared statements cannot be used").fields["sqlstate"] == "26000"
    assert promptd.find("WARNING|ERROR|CRITICAL") == [] and executed()[-1] == "<unnamed>"


def test_a_trigger_that_raises_such_a_code(start_one, database, channel):
    promptd = start_one()
    database.raise_on(PROMPTS, "insert", "not supported here", "0A000", when="new.prompt ~ 'RUDE'")
    rude = channel.publish(database.interview(), "RUDE words")
    polite = channel.publish(database.interview())
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1}
    expect_stored(database, polite)
    expect_nothing_stored(database, rude.interview, "failed")
    assert promptd.one("ERROR", rude.interview).fields["sqlstate"] == "0A000"


def test_schema_that_changes_meanwhile(start_one, database, channel):
    promptd = start_one()
    store(promptd, channel, database, 7)  # the server plans anew for each of the first five
    database.execute(f"alter table {PROMPTS} add column note text default 'x'")
    database.execute("drop index if exists interview_enhanced_prompts_interview_id_idx; analyze interviews")
    messages = [channel.publish(database.interview()) for _ in range(3)]
    assert promptd.settle(10).outcomes() == {"success": 10}
    expect_stored(database, *messages)
    assert promptd.find("WARNING|ERROR|CRITICAL") == []
