# SPDX-License-Identifier: MIT
"""When all is over: what the ledgers of all promptds know, against the book, the database and the spools.

The rules, besides those of book.py, for each prompt P of an interview I that was published here:

1. A prompt in the database is one of those published, byte for byte. It is settled by the book; or its row stands in
   promptd_unsettled, it cannot be deleted (only such may be left), and each promptd that runs has named it as orphan.
2. What a promptd tells as stored or duplicate was settled.
3. What was settled, some promptd has told: as stored, as duplicate, by recovery, by naming what it left unsettled or dropped
   at its end; or SIGKILL took it from memory; or the interview was deleted before a message that came again was looked at.
4. What recovery settled had not been told as failed: its interview was not `failed`.
5. An interview that is `ready` has a prompt.
6. An interview whose message failed does not show "enhancing": it is `ready`, `failed`, where the application has moved it,
   or an INTERVIEW STUCK line names it that no INTERVIEW NO LONGER STUCK followed.
7. What can never be stored was not, and what must be rejected was.
8. Each message that was taken in has an outcome in each promptd. The spools are empty, and their dead letters are those that
   failed, one each.
"""

from collections import Counter, defaultdict

from .book import AWAITING, FAILED, READY, unsettled
from .ledger import LOST, ORPHANS, SPOOL, TWICE
from .load import HOPELESS, UNDELETABLE, is_own

CHANGED = "a prompt is not as published"
UNREPORTED = "a prompt is there, and nobody says so"
UNTRUE = "told as stored, and was not"
REVIVED = "told as failed, and was made ready"
WAITING = "an interview waits for ever"
WRONG = "an outcome that cannot be"


class Verdict:
    def __init__(self, ledgers, plan, book, complain):
        self.ledgers, self.plan, self.book, self.complain = ledgers, plan, book, complain
        self.outcomes = sum_up(ledger.outcomes for ledger in ledgers)
        self.by_interview = sum_up(ledger.by_interview for ledger in ledgers)
        self.recovered = sum_up(ledger.recovered for ledger in ledgers)
        self.named = set().union(*(ledger.named | ledger.killed_in_memory for ledger in ledgers))

    def judge(self, connection):
        """All but the spools, which is judge_spool's."""
        self.book.compare(connection)
        rows = connection.execute("select id, interview_id, source, prompt from interview_enhanced_prompts")
        published = {message.prompt for message in self.plan.published if message.prompt}
        for id, interview, source, prompt in rows:
            id, interview = str(id), str(interview)
            if id not in published or not is_own(id, interview, source, prompt):
                self.complain(CHANGED, f"prompt {id} of {interview}", interview)
        self.judge_books(unsettled(connection))

    def judge_books(self, left):
        """left: what stands in promptd_unsettled, [(prompt id, interview)]."""
        self._judge_unsettled(left)
        self._judge_settled()
        self._judge_published()
        self._judge_interviews()
        self._judge_ledgers()

    def _judge_unsettled(self, rows):
        for id, interview in rows:
            kind = self.plan.kinds.get(interview)
            if kind not in UNDELETABLE:
                self.complain(ORPHANS, f"prompt {id} of {interview} ({kind}, {self.book.status.get(interview)}) is left "
                              "unsettled", interview)
            for ledger in self.ledgers:
                if id not in ledger.orphans or ledger.told_in[id] != ledger.life:
                    self.complain(ORPHANS, f"prompt {id} of {interview} is left behind, and promptd {ledger.name} has not "
                                  "named it", interview)
        left = {id for id, _ in rows}
        for id, prompt in self.book.prompts.items():
            if prompt.there and not prompt.settled and id not in left:
                self.complain(UNREPORTED, f"prompt {id} of {prompt.interview} ({self.book.status.get(prompt.interview)}): "
                              f"{self._told(id)}", prompt.interview)
        for ledger in self.ledgers:
            for id, interview in ledger.open_orphans().items():
                if id not in left:
                    self.complain(ORPHANS, f"orphan {id} is gone or settled, and promptd {ledger.name} does not say that it "
                                  "is resolved", interview)
            for id in ledger.told_too_often():
                self.complain(ORPHANS, f"orphan {id} was named again and again by promptd {ledger.name}")

    def _told(self, id):
        return f"outcomes {dict(self.outcomes[id])}, recovered {dict(self.recovered[id])}"

    def _judge_settled(self):
        for id, prompt in self.book.prompts.items():
            if not prompt.ever_settled:
                continue
            outcomes, recovered = self.outcomes[id], self.recovered[id]
            told = outcomes["stored"] or outcomes["duplicate"] or outcomes["dropped"] or recovered["settled"]
            if prompt.interview in self.book.status and not told and id not in self.named:
                self.complain(UNREPORTED, f"prompt {id} of {prompt.interview} was settled: {self._told(id)}",
                              prompt.interview)
            if recovered["settled"] and prompt.from_failed and not (outcomes["stored"] or id in self.named):
                self.complain(REVIVED, f"prompt {id} of {prompt.interview}: {self._told(id)}", prompt.interview)

    def _judge_published(self):
        for id, kind, interview in {(m.prompt, m.kind, m.interview) for m in self.plan.published if m.prompt}:
            outcomes = self.outcomes[id]
            known = self.book.prompts.get(id)
            if (outcomes["stored"] or outcomes["duplicate"]) and not (known and known.ever_settled):
                self.complain(UNTRUE, f"prompt {id} of {interview} ({kind}): {self._told(id)}", interview)
            if kind in HOPELESS and outcomes["stored"]:
                self.complain(WRONG, f"prompt {id} of {interview} ended as stored, and is {kind}", interview)
            if outcomes["rejected"]:
                self.complain(WRONG, f"prompt {id} of {interview} was rejected, and nothing is wrong with it", interview)
            if outcomes["orphaned"] and kind not in UNDELETABLE:
                self.complain(ORPHANS, f"prompt {id} of {interview} ({kind}) ended as orphaned, and could be deleted",
                              interview)

    def _judge_interviews(self):
        stuck = set().union(*(ledger.stuck for ledger in self.ledgers))
        with_prompt = {prompt.interview for prompt in self.book.prompts.values() if prompt.there}
        for interview, status in self.book.status.items():
            outcomes = self.by_interview[interview]
            if status == READY and interview not in with_prompt:
                self.complain(WAITING, f"interview {interview} is ready and has no prompt: {dict(outcomes)}", interview)
            ended = sum(outcomes.values()) - outcomes["dropped"]
            if status in AWAITING - {FAILED} and ended and not (
                    interview in stuck or interview in self.book.moved_by_application):
                self.complain(WAITING, f"interview {interview} ({self.plan.kinds[interview]}) is {status}, and no line says "
                              f"that it is stuck: {dict(outcomes)}", interview)
            if self.plan.kinds[interview] == "poison" and set(outcomes) - {"rejected", "dropped"}:
                self.complain(WRONG, f"a message for {interview} should have been rejected: {dict(outcomes)}", interview)

    def _judge_ledgers(self):
        """What is still open although all is over."""
        for ledger in self.ledgers:
            if ledger.in_flight():
                some = list(ledger.on_disk.items())[:3]
                self.complain(LOST, f"{ledger.in_flight()} of promptd {ledger.name}, {len(ledger.on_disk)} of them on disk, "
                              f"as {some}")

    def judge_spool(self, ledger, waiting, dead):
        """`dead`: the numbers of the dead letters."""
        if waiting:
            self.complain(SPOOL, f"{len(waiting)} messages wait in the spool of promptd {ledger.name}, as {waiting[:2]}")
        dead = set(dead)
        for number in sorted(ledger.dead - dead)[:3]:
            self.complain(LOST, f"number {number} of promptd {ledger.name} failed, and is no dead letter")
        for number in sorted(dead - ledger.dead)[:3]:
            self.complain(TWICE, f"number {number} of promptd {ledger.name} is a dead letter, and did not fail")


def sum_up(counters):
    """{key: Counter} of all."""
    total = defaultdict(Counter)
    for one in counters:
        for key, counts in one.items():
            total[key].update(counts)
    return total
