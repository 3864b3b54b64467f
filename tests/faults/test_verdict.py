# SPDX-License-Identifier: MIT
"""What the verdict must complain of, and what it must not: ledgers, book and what is left unsettled, made up."""

import pytest

from faults.book import Book, Prompt
from faults.ledger import LOST, ORPHANS, SPOOL, TWICE, Ledger
from faults.load import Published
from faults.verdict import REVIVED, UNREPORTED, UNTRUE, WAITING, WRONG, Verdict
from faults.violations import Violations

I, P = "00000000-0000-4000-8000-000000000001", "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"


class Story:
    """One interview with one prompt, and two promptds. Everything is well: stored by one, a duplicate for the other."""

    def __init__(self, kind="many"):
        self.kinds = {I: kind}
        self.published = [Published(0, I, P if kind != "poison" else "", b"", kind)]
        self.violations = Violations()
        self.book = Book({I: "enhancing"}, self.violations.add)
        self.book.status[I] = "ready"
        self.book.prompts[P] = Prompt(I, there=True, settled=True, ever_settled=True)
        self.ledgers = [Ledger([], True, self.violations.add, name) for name in "ab"]
        self.left = []
        for ledger in self.ledgers:
            ledger.life = 1
        self.ends("stored", "duplicate")

    def ends(self, *outcomes):
        for ledger, outcome in zip(self.ledgers, outcomes):
            for counts in (ledger.outcomes[P], ledger.by_interview[I]):
                counts.clear()
                if outcome:
                    counts[outcome] = 1

    def fails(self):
        self.book.status[I] = "failed"
        self.book.prompts[P] = Prompt(I)
        self.ends("rolled back", "not stored")

    def orphaned(self):
        self.fails()
        self.book.prompts[P] = Prompt(I, there=True, evidence=True)
        self.left = [(P, I)]
        self.ends("orphaned", "orphaned")
        for ledger in self.ledgers:
            ledger.orphans[P], ledger.told_in[P] = I, 1

    def judge(self):
        Verdict(self.ledgers, self, self.book, self.violations.add).judge_books(self.left)
        return self.violations.counts()


def test_all_is_well():
    assert Story().judge() == {}
    story = Story("refuse_ready")
    story.fails()
    assert story.judge() == {}
    story = Story("refuse_delete")
    story.orphaned()
    assert story.judge() == {}


def test_told_as_stored_and_was_not():
    story = Story()
    story.book.prompts[P] = Prompt(I)
    story.book.status[I] = "failed"
    assert story.judge() == {UNTRUE: 1}


def test_settled_and_nobody_says_so():
    story = Story()
    story.ends("rolled back", None)
    assert story.judge() == {UNREPORTED: 1}


@pytest.mark.parametrize("explain", [
    lambda story: story.ledgers[1].recovered[P].update(settled=1),
    lambda story: story.ledgers[1].named.add(P),
    lambda story: story.ledgers[1].killed_in_memory.add(P),
    lambda story: story.book.status.pop(I),   # deleted before a message that came again was looked at
])
def test_what_was_settled_is_explained(explain):
    story = Story()
    story.ends("not stored", None)
    explain(story)
    assert story.judge() == {}


def test_neither_settled_nor_unsettled():
    story = Story()
    story.fails()
    story.book.prompts[P].there = True
    assert story.judge() == {UNREPORTED: 1}


def test_recovery_revives_what_was_told_as_failed():
    story = Story()
    story.book.prompts[P].from_failed = True
    story.ends("rolled back", "rolled back")
    story.ledgers[0].recovered[P]["settled"] = 1
    assert story.judge() == {REVIVED: 1}


def test_orphan_that_could_be_deleted():
    story = Story("many")
    story.orphaned()
    assert story.judge() == {ORPHANS: 2}  # the outcome, and what is left


def test_orphan_that_a_promptd_does_not_name():
    story = Story("refuse_delete")
    story.orphaned()
    story.ledgers[1].life = 2
    assert story.judge() == {ORPHANS: 1}


def test_orphan_that_is_gone_and_not_resolved():
    story = Story("refuse_delete")
    story.orphaned()
    story.left = []
    story.book.prompts[P] = Prompt(I)
    assert story.judge() == {ORPHANS: 2}


def test_ready_without_a_prompt():
    story = Story()
    story.book.prompts[P].there = False
    assert story.judge() == {WAITING: 1}


def test_interview_waits_for_ever():
    story = Story("stuck")
    story.fails()
    story.book.status[I] = "enhancing"
    assert story.judge() == {WAITING: 1}


@pytest.mark.parametrize("explain", [
    lambda story: story.ledgers[0].stuck.update({I: 1}),
    lambda story: story.book.moved_by_application.add(I),
    lambda story: story.ends(None, None),   # nobody heard of it
])
def test_interview_may_wait(explain):
    story = Story("stuck")
    story.fails()
    story.book.status[I] = "enhancing"
    explain(story)
    assert story.judge() == {}


def test_outcomes_that_cannot_be():
    story = Story("outage_ready")
    assert story.judge() == {WRONG: 1}
    story = Story("poison")
    assert story.judge() == {WRONG: 1}
    story = Story("many")
    story.ends("rejected", "stored")
    assert story.judge() == {WRONG: 1}


def test_message_without_an_outcome():
    story = Story()
    story.ledgers[0].on_disk[7] = (I, P, 100)
    assert story.judge() == {LOST: 1}


def test_spool():
    story = Story()
    verdict = Verdict(story.ledgers, story, story.book, story.violations.add)
    ledger = story.ledgers[0]
    ledger.dead = {1, 2}
    verdict.judge_spool(ledger, [], [1, 2])
    assert not story.violations.counts()
    verdict.judge_spool(ledger, [(I, "a prompt")], [2, 3])
    assert story.violations.counts() == {SPOOL: 1, LOST: 1, TWICE: 1}
