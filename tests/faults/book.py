# SPDX-License-Identifier: MIT
"""Reads the book that triggers keep (book.sql) and checks each transaction against the contract's first rule.

1. A prompt whose interview was made `ready` with it is never deleted by promptd, and no interview is `ready` by promptd's
   doing without its prompt.
2. promptd deletes a prompt only with its row in promptd_unsettled, and makes an interview `ready` only with taking that row
   out, the prompt being there, or with inserting the prompt in the same transaction.
3. A row in promptd_unsettled comes with its prompt, and goes with the prompt or with `ready`. A prompt comes with that row,
   or its interview is `ready` in the same transaction.
4. promptd overwrites no status of the application's: only what is awaiting becomes `ready`, or `failed`.

Transactions are judged in the order of their commits. Where two touch the same row that is the order in which they did it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import psycopg

from support.postgres import ROLE

from .violations import DELETED, EMPTY

READY, FAILED = "ready", "failed"
AWAITING = {"pending", "not_started", "enhancing", "vector_search", "web_scraping", "processing", FAILED}

UNPROVEN = "done without the evidence in promptd_unsettled"
OVERWRITTEN = "a status was overwritten"
ASTRAY = "the evidence is wrong"
BOOK = "the book is not the database"


class Row(NamedTuple):
    seq: int
    tx: int
    at: object
    pid: int
    who: str
    program: str
    what: str
    interview: str
    prompt: Optional[str] = None
    old: Optional[str] = None
    new: Optional[str] = None


@dataclass
class Prompt:
    interview: str
    there: bool = False
    evidence: bool = False
    settled: bool = False          # since it was inserted last
    ever_settled: bool = False
    from_failed: bool = False      # when it was settled its interview was `failed`


@dataclass
class _Transaction:
    rows: list
    came: set = field(default_factory=set)     # prompts inserted
    proven: set = field(default_factory=set)   # evidence inserted or renewed
    struck: set = field(default_factory=set)   # evidence deleted
    moved: dict = field(default_factory=dict)  # interview: status before and after

    @property
    def by_promptd(self):
        return self.rows[0].who == ROLE

    def __str__(self):
        first = self.rows[0]
        return f"tx {first.tx} of {first.who} ({first.program}, backend {first.pid}) at {first.at:%H:%M:%S.%f}"


class Book:
    def __init__(self, statuses, complain):
        """statuses: those before anything happened. complain(rule, what, interview)"""
        self.status = dict(statuses)      # of the interviews that are there
        self.prompts = {}
        self.of_interview = defaultdict(set)
        self.moved_by_application = set() # interviews whose status it changed last
        self.counts = Counter()
        self._complain = complain

    def judge(self, rows):
        """One transaction."""
        transaction = _Transaction(rows)
        for row in rows:
            self._apply(transaction, row)
        if transaction.by_promptd:
            self._judge(transaction)
        for id in transaction.came | transaction.struck:
            self._settle_if(id, self.status.get(self.prompts[id].interview) == READY)

    def _prompt(self, row):
        self.of_interview[row.interview].add(row.prompt)
        return self.prompts.setdefault(row.prompt, Prompt(row.interview))

    def _apply(self, transaction, row):
        by_promptd = transaction.by_promptd
        self.counts["promptd" if by_promptd else "application", row.what] += 1
        if row.what == "status":
            self._move(transaction, row)
        elif row.what == "interview deleted":
            self.status.pop(row.interview, None)
            if by_promptd:
                self._complain(OVERWRITTEN, f"interview {row.interview} was deleted: {transaction}", row.interview)
        elif row.what == "prompt inserted":
            prompt = self._prompt(row)
            prompt.there, prompt.settled = True, False
            transaction.came.add(row.prompt)
        elif row.what == "prompt updated":
            self._complain(OVERWRITTEN, f"prompt {row.prompt} was changed: {transaction}", row.interview)
        elif row.what == "prompt deleted":
            self._delete(transaction, row)
        else:
            self._prompt(row).evidence = row.what != "evidence deleted"
            (transaction.proven if self._prompt(row).evidence else transaction.struck).add(row.prompt)

    def _move(self, transaction, row):
        known = self.status.get(row.interview)
        if known != row.old:
            self._complain(BOOK, f"interview {row.interview} was {known}, not {row.old}: {transaction}", row.interview)
        self.status[row.interview] = row.new
        old, _ = transaction.moved.get(row.interview, (row.old, None))
        transaction.moved[row.interview] = old, row.new
        if transaction.by_promptd:
            self.moved_by_application.discard(row.interview)
        else:
            self.moved_by_application.add(row.interview)

    def _delete(self, transaction, row):
        prompt = self._prompt(row)
        if transaction.by_promptd and prompt.settled:
            self._complain(DELETED, f"prompt {row.prompt} of {row.interview}, which is {self.status.get(row.interview)}: "
                           f"{transaction}", row.interview)
        prompt.there = prompt.settled = False

    def _settle_if(self, id, ready):
        prompt = self.prompts[id]
        if ready and prompt.there and not prompt.evidence:
            prompt.settled = prompt.ever_settled = True

    def _judge(self, transaction):
        deleted = {row.prompt for row in transaction.rows if row.what == "prompt deleted"}
        for id in deleted - transaction.struck - transaction.came:
            self._complain(UNPROVEN, f"prompt {id} was deleted: {transaction}", self.prompts[id].interview)
        for id in transaction.proven - transaction.came:
            self._complain(ASTRAY, f"evidence for prompt {id}, which was not inserted with it: {transaction}",
                           self.prompts[id].interview)
        for id in transaction.came | transaction.struck:
            prompt = self.prompts[id]
            if prompt.there and not prompt.evidence and self.status.get(prompt.interview) != READY:
                rule, how = (UNPROVEN, "inserted") if id in transaction.came else (ASTRAY, "left")
                self._complain(rule, f"prompt {id} was {how} without evidence, and {prompt.interview} is "
                               f"{self.status.get(prompt.interview)}: {transaction}", prompt.interview)
        for interview, (old, new) in transaction.moved.items():
            if old != new:
                self._judge_move(transaction, interview, old, new)

    def _judge_move(self, transaction, interview, old, new):
        if new not in (READY, FAILED) or old not in AWAITING - ({FAILED} if new == FAILED else set()):
            self._complain(OVERWRITTEN, f"interview {interview} from {old} to {new}: {transaction}", interview)
        if new != READY:
            return
        mine = [id for id in transaction.came | transaction.struck if self.prompts[id].interview == interview]
        there = [id for id in mine if self.prompts[id].there]
        for id in there:
            self.prompts[id].from_failed = old == FAILED
        if there:
            return
        present = [id for id in self.of_interview[interview] if self.prompts[id].there]
        if mine or not present:
            self._complain(EMPTY, f"interview {interview} from {old}, prompts {mine}: {transaction}", interview)
        else:
            self._complain(UNPROVEN, f"interview {interview} was made ready: {transaction}", interview)
            for id in present:
                self._settle_if(id, True)

    def compare(self, connection):
        """At the end the book must have led to what stands in the database."""
        rows = connection.execute("select id, status from interviews").fetchall()
        self._compare("statuses", self.status, {str(id): status for id, status in rows})
        rows = connection.execute("select id, interview_id from interview_enhanced_prompts").fetchall()
        self._compare("prompts", {id: prompt.interview for id, prompt in self.prompts.items() if prompt.there},
                      {str(id): str(interview) for id, interview in rows})
        self._compare("evidence", {id: prompt.interview for id, prompt in self.prompts.items() if prompt.evidence},
                      {id: interview for id, interview in unsettled(connection)})

    def _compare(self, name, book, database):
        different = sorted(id for id in book.keys() | database.keys() if book.get(id) != database.get(id))
        if different:
            id = different[0]
            self._complain(BOOK, f"{name} differ in {len(different)}: {id}: {database.get(id)}, in the book {book.get(id)}")


def unsettled(connection):
    return [(str(prompt), str(interview)) for prompt, interview in
            connection.execute("select prompt_id, interview_id from promptd_unsettled").fetchall()]


class Reader:
    """Gives each transaction once, in the order of commits, and none that a crash of the server could still undo."""

    MARGIN = "2 s"  # a commit has its time a moment before it is visible

    def __init__(self):
        self._low = 0          # transactions below were all read
        self._seen = set()     # sequence numbers of those above
        self._waiting = []     # [(time of commit, Row)], too young to be sure that none before them is missing

    def read(self, connection, to_the_end=False):
        """[rows of a transaction, ...]. Nothing where the database cannot be asked just now."""
        try:
            fresh, low, horizon = self._fetch(connection)
            connection.execute("set synchronous_commit = on")
            connection.execute("update fault_flush set at = now()")
        except psycopg.Error:
            return []
        self._waiting += [(committed, row) for committed, row in fresh if row.seq not in self._seen]
        self._seen = {row.seq for _, row in fresh if row.tx >= low}
        self._low = low
        self._waiting.sort(key=lambda entry: (entry[0], entry[1].tx, entry[1].seq))
        ready = [row for committed, row in self._waiting if to_the_end or committed < horizon]
        self._waiting = self._waiting[len(ready):]
        return _by_transaction(ready)

    def _fetch(self, connection):
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read")
            low, horizon = connection.execute(
                "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp() - %s::interval",
                [self.MARGIN]).fetchone()
            rows = connection.execute(
                "select pg_xact_commit_timestamp(tx::xid), seq, tx::text::bigint, at at time zone 'utc', pid, who, program, "
                "what, interview::text, prompt::text, old, new from fault_book where tx >= %s::text::xid8",
                [str(self._low)]).fetchall()
        return [(committed, Row(*row)) for committed, *row in rows], low, horizon


def _by_transaction(rows):
    transactions, last = [], None
    for row in rows:
        if row.tx != last:
            transactions.append([])
            last = row.tx
        transactions[-1].append(row)
    return transactions
