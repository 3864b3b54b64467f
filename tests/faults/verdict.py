# SPDX-License-Identifier: MIT
"""When all is over: what the ledger knows, against what stands in the database and in the spool.

The rules, for each prompt P of an interview I that was published here:

1. A prompt in the database is one of those published, byte for byte, and its interview is `ready`; or an ORPHANED PROMPT
   line names it that no RESOLVED line followed; or the application moved I after P was stored; or P was in the memory of a
   promptd that SIGKILL ended, without a spool (or while the log said that the spool cannot be written): then the
   reconciler must find it once it is older than ten minutes, if I is still awaiting. (I may be `failed` by another of its
   messages: such a prompt is for `promptctl orphans`.) With atomicity = transaction only what the application moved exists.
2. What ended as stored or as a duplicate is there, if I is `ready`, or nothing of I was deleted.
3. What never ended as stored is there only by rule 1; or it was named as dropped while it waited for its commit's answer.
4. An interview that is `ready` has a prompt.
5. An interview whose message failed does not show "enhancing": it is `ready`, `failed`, moved by the application, or an
   INTERVIEW STUCK line names it; or an ORPHANED PROMPT line of a promptd that ended before the database came back.
6. What can never be stored was not, and what must be rejected was.
7. The spool is empty, and its dead letters are those that failed, one each.
"""

from collections import Counter, defaultdict

from .load import HOPELESS, is_own

AWAITING = "enhancing"


class Verdict:
    def __init__(self, ledger, plan, moved, in_transaction):
        self.ledger, self.plan, self.moved = ledger, plan, moved
        self.in_transaction = in_transaction
        self.unreported = 0      # prompts that a line should name, and none does
        self.for_reconciler = {}  # prompt id: interview; it must find these
        self.for_people = 0      # left by SIGKILL, interview failed since: promptctl orphans shows them
        self.complain = ledger.complain

    def judge(self, connection):
        self._status = {str(i): status for i, status in connection.execute("select id, status from interviews")}
        self._prompts = {}
        self._of_interview = defaultdict(set)
        rows = connection.execute("select id, interview_id, source, prompt from interview_enhanced_prompts")
        for id, interview, source, prompt in rows:
            id, interview = str(id), str(interview)
            self._prompts[id] = interview
            self._of_interview[interview].add(id)
            if not is_own(id, interview, source, prompt):
                self.complain(f"prompt {id} of {interview} is not as published")
        self._judge_prompts()
        self._judge_published()
        self._judge_interviews()

    def _judge_prompts(self):
        published = {message.prompt for message in self.plan.published if message.prompt}
        for id, interview in self._prompts.items():
            if id not in published:
                self.complain(f"prompt {id} of {interview} was never published")
            stored = self.ledger.outcomes[id]["stored"] + self.ledger.outcomes[id]["duplicate"]
            if self._status.get(interview) == "ready":
                if not stored and not self._may_be_unknown(id):
                    self.complain(f"prompt {id} of {interview} is there, and ended as {dict(self.ledger.outcomes[id])}")
            elif interview in self.moved and (stored or self.in_transaction and id in self.ledger.killed_in_memory):
                pass  # it was ready, whether anyone lived to log it or not
            elif self.in_transaction:
                self._unreported(id, interview)
            elif id not in self.ledger.orphans:
                self._without_ready(id, interview)

    def _may_be_unknown(self, id):
        """Stored, and nobody lived to see it: what waits for a commit's answer at the end of SIGTERM is named as dropped."""
        named = self.in_transaction and self.ledger.outcomes[id]["dropped"] > 0
        return named or id in self.ledger.ever_orphaned or id in self.ledger.killed_in_memory

    def _without_ready(self, id, interview):
        if id not in self.ledger.killed_in_memory:
            self._unreported(id, interview)
        elif self._status.get(interview) == AWAITING:
            self.for_reconciler[id] = interview
        else:
            self.for_people += 1

    def _unreported(self, id, interview):
        self.unreported += 1
        self.complain(f"prompt {id} is there, interview {interview} is {self._status.get(interview)}, and no line says so; "
                      f"outcomes {dict(self.ledger.outcomes[id])}")

    def _judge_published(self):
        for id, kind, interview in {(m.prompt, m.kind, m.interview) for m in self.plan.published if m.prompt}:
            outcomes = self.ledger.outcomes.get(id, Counter())
            stored = outcomes["stored"] + outcomes["duplicate"]
            if stored and id not in self._prompts and not self._may_be_deleted(interview, outcomes):
                self.complain(f"prompt {id} of {interview} ({kind}, {self._status.get(interview)}) is not there, and ended "
                              f"as {dict(outcomes)}")
            if kind in HOPELESS and outcomes["stored"]:
                self.complain(f"prompt {id} of {interview} ended as stored, and is {kind}")
            if outcomes["rejected"]:
                self.complain(f"prompt {id} of {interview} was rejected, and there is nothing wrong with it")

    def _may_be_deleted(self, interview, outcomes):
        """A copy that came when the application had moved the interview, and whose insert was in doubt, deletes."""
        return interview in self.moved and outcomes["rolled back"] > 0

    def _judge_interviews(self):
        named_before = set(self.ledger.orphans.values()) - set(self.ledger.open_orphans().values())
        for interview, status in self._status.items():
            outcomes = self.ledger.by_interview.get(interview, Counter())
            if status == "ready" and not self._of_interview[interview]:
                self.complain(f"interview {interview} is ready and has no prompt: {dict(outcomes)}")
            ended = sum(outcomes.values()) - outcomes["dropped"]
            if status == AWAITING and ended and interview not in self.ledger.stuck | named_before:
                self.complain(f"interview {interview} ({self.plan.kinds[interview]}) is {status}, and no line says that it "
                              f"is stuck: {dict(outcomes)}")
            if self.plan.kinds[interview] == "poison" and set(outcomes) - {"rejected", "dropped"}:
                self.complain(f"a message for {interview} should have been rejected: {dict(outcomes)}")

    def judge_books(self):
        """What is still open although all is over."""
        ledger = self.ledger
        if ledger.on_disk:
            some = list(ledger.on_disk.items())[:3]
            self.complain(f"LOST: {len(ledger.on_disk)} messages were on disk and have no outcome, as {some}")
        if ledger.in_flight() > len(ledger.on_disk):
            self.complain(f"LOST: {ledger.in_flight()} messages were taken in and have no outcome")
        for id, interview in ledger.open_orphans().items():
            if id not in self._prompts:
                self.complain(f"orphan {id} of {interview} is gone, and no line says that it is resolved")

    def judge_spool(self, waiting, dead):
        """`dead`: the numbers of the dead letters."""
        if waiting:
            self.complain(f"{len(waiting)} messages wait in the spool, as {waiting[:2]}")
        dead = set(dead)
        for number in sorted(self.ledger.dead - dead)[:3]:
            self.complain(f"number {number} failed, and is no dead letter")
        for number in sorted(dead - self.ledger.dead)[:3]:
            self.complain(f"number {number} is a dead letter, and did not fail")
