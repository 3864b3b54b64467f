# SPDX-License-Identifier: MIT
"""Prepared statements: where nothing is in between, and never to anybody's harm."""

import re
import time

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
            return re.findall(rf" {name} LOG:  execute (.*?): (?:with|delete)", log.read())

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
    assert len(names) >= 6 and all(re.fullmatch(r".{40} [0-9a-f]{16}", name) for name in names)
    assert all(names.count(name) == 3 for name in names)


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
    for number in range(5):  # one after the other: a batch of several has statements of its own
        message = channel.publish(database.interview())
        assert promptd.settle(2 + number).outcomes() == {"success": 2 + number}
        expect_stored(database, message)
    promptd.one("INFO", "prepared statements do not work")
    assert promptd.find("WARNING|ERROR|CRITICAL") == [] and executed()[-1] == "<unnamed>"


def test_a_name_that_is_taken(start_one, database, channel, executed):
    """While a batch is stored, whose statements have other names, somebody takes that of a single insert."""
    probe = start_one()
    store(probe, channel, database, 1)
    name = executed()[0]
    probe.stop()
    promptd = start_one()
    database.trigger(PROMPTS, "insert", f"""
        if not exists (select from pg_prepared_statements where name = '{name}') then
            execute 'prepare "{name}" as select 1';
        end if;""")
    messages = [channel.message(interview) for interview in database.interviews(50)]
    channel.publish_burst(messages)
    promptd.wait_counters(received=50, waiting=0)
    messages.append(channel.publish(database.interview()))
    assert promptd.settle(51).outcomes() == {"success": 51}
    expect_stored(database, *messages)
    promptd.one("INFO", "prepared statements do not work")
    assert promptd.find("WARNING|ERROR|CRITICAL") == []


@pytest.mark.parametrize("sqlstate", ["26000", "42P05", "0A000", "42804", "42501"])
def test_a_trigger_that_raises_such_a_code(start_one, database, channel, executed, sqlstate):
    """It is final, at the first try, and the names go on."""
    promptd = start_one()
    tries = database.raise_first(1, PROMPTS, "insert", sqlstate, when="new.prompt ~ 'RUDE'")
    rude = channel.publish(database.interview(), "RUDE words")
    promptd.settle(1)  # alone: what fails in company goes again for that
    polite = channel.publish(database.interview())
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1}
    expect_stored(database, polite)
    expect_nothing_stored(database, rude.interview, "failed")
    assert promptd.one("ERROR", rude.interview).fields["sqlstate"] == sqlstate
    assert promptd.find("INFO", "prepared statements") == [] and database.tries(tries) == 1
    last = channel.publish(database.interview())
    promptd.settle(3)
    expect_stored(database, last)
    assert executed()[-1] != "<unnamed>"


STATUSES = ("'pending','not_started','enhancing','vector_search','web_scraping','processing','failed','ready','completed',"
            "'timeout','cancelled'")


@pytest.fixture
def changed(start_one, database, channel):
    """A promptd that has prepared its statements, after these changes of the schema, and three more messages."""
    def change(*changes):
        promptd = start_one()
        store(promptd, channel, database, 7)  # the server plans anew for each of the first five
        interviews = database.interviews(3)
        for statement in changes:
            database.execute(statement)
        database.reconnect()  # this one has prepared statements of its own
        for number, interview in enumerate(interviews):
            message = channel.publish(interview)
            promptd.wait_counters(received=8 + number, waiting=0)
            expect_stored(database, message)
        assert promptd.counters().outcomes() == {"success": 10}
        assert promptd.find("WARNING|ERROR|CRITICAL") == []
        return promptd

    return change


def test_a_column_that_is_new_and_an_index_that_is_gone(changed):
    changed(f"alter table {PROMPTS} add column note text default 'x'",
            f"drop index {PROMPTS}_interview_id_created_at_idx", "analyze interviews")


def drop_views(database):
    """No column that a view shows can have another type."""
    database.execute("drop view promptd_orphans, promptd_stuck")


def test_statuses_become_an_enum(changed, database):
    drop_views(database)
    changed(f"create type state as enum ({STATUSES})",
            "alter table interviews alter status drop default, alter status type state using status::text::state")


def test_an_enum_is_replaced(changed, database):
    """The usual way to take a value away from one: another type, and the first is gone."""
    drop_views(database)
    database.execute(f"create type old_state as enum ({STATUSES})")
    database.execute("alter table interviews alter status drop default,"
                     " alter status type old_state using status::text::old_state")
    changed(f"create type state as enum ({STATUSES})",
            "alter table interviews alter status type state using status::text::state", "drop type old_state")


def test_planned_anew_for_tables_that_have_grown(start_one, database, channel, executed):
    promptd = start_one()
    store(promptd, channel, database, 1)
    assert "<unnamed>" not in executed()
    time.sleep(5.2)  # PLANS_KEPT_MS
    for number in (2, 3):
        message = channel.publish(database.interview())
        promptd.wait_counters(received=number, waiting=0)
        expect_stored(database, message)
    with open(database.cluster.log_path, encoding="utf-8", errors="replace") as log:
        assert log.read().count(f"{database.name} LOG:  execute <unnamed>: discard plans") == 1
