# SPDX-License-Identifier: MIT
"""The contract's first rule: each way of breaking it, made up as rows of the book; and the triggers that write such rows."""

import os
from datetime import datetime

import psycopg
import pytest

from support.postgres import ROLE, Cluster

from faults.book import ASTRAY, BOOK, OVERWRITTEN, UNPROVEN, Book, Reader, Row
from faults.violations import DELETED, EMPTY, Violations

HERE = os.path.dirname(os.path.abspath(__file__))
I, P, Q = "00000000-0000-4000-8000-000000000001", "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9", "a prompt"
APPLICATION = "postgres"

# Changes, as (what, prompt) or (what, old, new).
INSERTED = [("prompt inserted", P), ("evidence inserted", P)]
SETTLED = [("status", "enhancing", "ready"), ("evidence deleted", P)]
UNDONE = [("prompt deleted", P), ("evidence deleted", P)]
USED = [("status", "ready", "in_progress")]


class Play:
    def __init__(self):
        self.violations = Violations()
        self.book = Book({I: "enhancing"}, self.violations.add)
        self._number = 0

    def __call__(self, *changes, who=ROLE):
        rows = []
        for change in changes:
            self._number += 1
            prompt, old, new = (None, *change[1:]) if len(change) == 3 else (change[1], None, None)
            rows.append(Row(self._number, 1, datetime.now(), 1, who, "", change[0], I, prompt, old, new))
        self.book.judge(rows)

    @property
    def counts(self):
        return self.violations.counts()


@pytest.fixture
def play():
    return Play()


def test_settled_prompt_is_used(play):
    play(*INSERTED)
    play(*SETTLED)
    play(*USED, who=APPLICATION)
    assert play.counts == {} and play.book.prompts[P].ever_settled


def test_undone(play):
    play(*INSERTED)
    play(*UNDONE)
    play(("status", "enhancing", "failed"))
    assert play.counts == {} and not play.book.prompts[P].ever_settled


def test_in_one_transaction(play):
    play(("prompt inserted", P), ("status", "enhancing", "ready"))
    play(("prompt inserted", Q))  # another, for an interview that is ready already
    assert play.counts == {} and play.book.prompts[P].settled and play.book.prompts[Q].settled


def test_second_prompt_comes_too_late(play):
    play(*INSERTED)
    play(*SETTLED)
    play(("prompt inserted", Q), ("evidence inserted", Q))
    play(*USED, who=APPLICATION)
    play(("prompt deleted", Q), ("evidence deleted", Q))
    assert play.counts == {}


def test_second_prompt_settles_while_ready(play):
    play(*INSERTED)
    play(*SETTLED)
    play(("prompt inserted", Q), ("evidence inserted", Q))
    play(("evidence deleted", Q))
    assert play.counts == {} and play.book.prompts[Q].settled


def test_only_what_a_transaction_leaves_counts(play):
    play(("status", "enhancing", "ready"), ("prompt inserted", P), ("prompt deleted", P), ("status", "ready", "enhancing"))
    assert play.counts == {}
    play(("status", "enhancing", "ready"), ("prompt inserted", P), ("prompt deleted", P))
    assert play.counts == {EMPTY: 1}


def test_settled_prompt_is_deleted(play):
    play(*INSERTED)
    play(*SETTLED)
    play(*USED, who=APPLICATION)
    play(("prompt deleted", P))
    assert play.counts == {DELETED: 1, UNPROVEN: 1}


def test_settled_prompt_is_deleted_by_evidence_that_came_again(play):
    play(*INSERTED)
    play(*SETTLED)
    play(("evidence inserted", P))
    play(*UNDONE)
    assert play.counts == {DELETED: 1, ASTRAY: 1}


def test_ready_when_the_prompt_is_gone(play):
    """A statement that waited for a lock while others undid."""
    play(*INSERTED)
    play(*UNDONE)
    play(("status", "enhancing", "ready"))
    assert play.counts == {EMPTY: 1}


def test_ready_with_evidence_of_a_prompt_that_somebody_deleted(play):
    play(*INSERTED)
    play(("prompt deleted", P), who=APPLICATION)
    play(*SETTLED)
    assert play.counts == {EMPTY: 1}


def test_ready_with_another_prompt_than_the_one_that_was_taken(play):
    play(("prompt inserted", Q), ("evidence inserted", Q))
    play(*INSERTED)
    play(("prompt deleted", P), who=APPLICATION)
    play(*SETTLED)
    assert play.counts == {EMPTY: 1}


def test_ready_without_evidence(play):
    play(*INSERTED)
    play(("status", "enhancing", "ready"))
    assert play.counts == {UNPROVEN: 1}


def test_prompt_without_evidence(play):
    play(("prompt inserted", P))
    assert play.counts == {UNPROVEN: 1}


def test_unsettled_prompt_is_deleted_without_evidence(play):
    play(*INSERTED)
    play(("prompt deleted", P))
    assert play.counts == {UNPROVEN: 1}


def test_evidence_is_taken_from_a_prompt_that_stays(play):
    play(*INSERTED)
    play(("evidence deleted", P))
    assert play.counts == {ASTRAY: 1}


@pytest.mark.parametrize("old, new", [("completed", "ready"), ("timeout", "failed"), ("ready", "failed"),
                                      ("ready", "enhancing")])
def test_status_is_overwritten(play, old, new):
    play(*INSERTED)
    if old != "enhancing":
        play(("status", "enhancing", old), who=APPLICATION)
    play(("status", old, new), *([("evidence deleted", P)] if new == "ready" else []))
    assert play.counts == {OVERWRITTEN: 1}


def test_prompt_is_changed_or_interview_deleted(play):
    play(*INSERTED)
    play(("prompt updated", P))
    play(("interview deleted", "enhancing", None))
    assert play.counts == {OVERWRITTEN: 2}


def test_application_deletes_what_it_likes(play):
    play(*INSERTED)
    play(*SETTLED)
    play(("prompt deleted", P), ("interview deleted", "ready", None), who=APPLICATION)
    assert play.counts == {}


def test_evidence_left_over_by_the_application_is_taken_away_or_renewed(play):
    play(*INSERTED)
    play(("prompt deleted", P), who=APPLICATION)
    play(("prompt inserted", P), ("evidence renewed", P))
    play(("prompt deleted", P), who=APPLICATION)
    play(("evidence deleted", P))
    assert play.counts == {}


def test_book_with_a_page_missing(play):
    play(("status", "failed", "ready"), ("prompt inserted", P))
    assert play.counts == {BOOK: 1}


# The triggers, and what reads them

@pytest.fixture(scope="module")
def cluster(new_folder):
    sql = os.environ.get("PROMPTD_SQL_DIR") or os.path.join(HERE, "../../sql")
    cluster = Cluster(new_folder("pg"), sql, {"track_commit_timestamp": "on", "wal_writer_delay": "10s"})
    with cluster.connect("promptd_template") as connection:
        with open(os.path.join(HERE, "book.sql"), encoding="utf-8") as file:
            connection.execute(file.read())
    yield cluster
    cluster.close()


class Real:
    """A database with the book's triggers, and one interview."""

    def __init__(self, cluster):
        self.database = cluster.new_database()
        self.interview = self.database.interview()
        self.violations = Violations()
        self.book, self.reader = Book({self.interview: "enhancing"}, self.violations.add), Reader()
        self.promptd = self.connect()

    def connect(self):
        return psycopg.connect(self.database.url(), autocommit=True)

    def insert(self, prompt, promptd=None):
        promptd = promptd or self.promptd
        promptd.execute("with p as (insert into interview_enhanced_prompts (id, interview_id) values (%s, %s) returning id) "
                        "insert into promptd_unsettled (prompt_id, interview_id) select id, %s from p",
                        [prompt, self.interview, self.interview])

    def settle(self, prompt):
        self.promptd.execute("with m as (update interviews set status = 'ready' where id = %s returning id) "
                             "delete from promptd_unsettled where prompt_id = %s", [self.interview, prompt])

    def fetch(self, to_the_end=True):
        with self.database.cluster.connect(self.database.name) as connection:
            return self.reader.read(connection, to_the_end)

    def read(self):
        """Reads and judges."""
        transactions = self.fetch()
        for rows in transactions:
            self.book.judge(rows)
        with self.database.cluster.connect(self.database.name) as connection:
            self.book.compare(connection)
        return transactions

    def close(self):
        self.promptd.close()
        self.database.close()


@pytest.fixture
def real(cluster):
    real = Real(cluster)
    yield real
    real.close()


def test_triggers_book_what_was_done(real):
    real.insert(P)
    real.settle(P)
    real.database.execute("update interviews set status = 'in_progress'")
    assert [sorted(row.what for row in rows) for rows in real.read()] == [
        ["evidence inserted", "prompt inserted"], ["evidence deleted", "status"], ["status"]]
    assert real.violations.counts() == {} and real.book.prompts[P].settled
    real.promptd.execute("delete from interview_enhanced_prompts")
    real.read()
    assert real.violations.counts() == {DELETED: 1, UNPROVEN: 1}


def test_triggers_book_ready_without_a_prompt(real):
    real.promptd.execute("update interviews set status = 'ready'")
    (row,), = real.read()
    assert (row.who, row.old, row.new) == (ROLE, "enhancing", "ready")
    assert real.violations.counts() == {EMPTY: 1}


def test_nothing_is_booked_of_what_was_rolled_back(real):
    real.insert(P)
    with pytest.raises(ZeroDivisionError), real.promptd.transaction():
        real.settle(P)
        raise ZeroDivisionError
    assert len(real.read()) == 1 and not real.book.prompts[P].settled


def test_reader_gives_transactions_in_the_order_of_commits(real):
    """One that began first and ends last comes last. What is too young may have to wait for one before it."""
    other = "00000000-0000-4000-8000-0000000000aa"
    with real.connect() as late, late.transaction():
        real.insert(P, late)
        real.insert(other)
        assert real.fetch(to_the_end=False) == []
    assert [rows[0].prompt for rows in real.read()] == [other, P]
    assert real.read() == []


def test_what_was_read_survives_a_crash_of_the_server(real, cluster):
    real.promptd.execute("set synchronous_commit = off")
    real.insert(P)
    assert len(real.fetch()) == 1
    real.database.disconnect()
    cluster.crash()
    cluster.start()
    real.database.reconnect()
    assert real.database.prompt_count() == 1
