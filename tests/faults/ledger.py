# SPDX-License-Identifier: MIT
"""Reads the log of one promptd as it is written and keeps books: each message taken in, where it is, and how it ended.

    received ─▶ (on its way to disk) ─▶ on disk ─▶ ended         with a spool: known by its number there, over restarts
             └▶ in memory ─▶ ended                               without, or when the disk refuses

What the log says must agree with itself: nothing ends twice, nothing ends that never came, every state line adds up and
says what the lines before it say. What was lost by SIGKILL from memory is counted apart: nothing else can be done there.
"""

import os
import re
from collections import Counter, defaultdict, deque
from datetime import datetime

from .latency import Innocents
from .load import INNOCENT

LINE = re.compile(r"(?P<time>\S+) (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) (?P<component>[a-z_]+): (?P<text>.*)")
PAIR = re.compile(r'([a-z_]+)=(?:"([^"]*)"|(\S*))')
ORPHAN = re.compile(r"ORPHANED PROMPT (DETECTED|RESOLVED) for interview (\S+)\. Prompt ID: ([0-9a-f-]+)\.")
STUCK = re.compile(r"INTERVIEW STUCK: (\S+) could not be marked failed\.")
UNSTUCK = re.compile(r"INTERVIEW NO LONGER STUCK: (\S+)")
RECOVERED = re.compile(r"unsettled prompt (settled|rolled back) for interview (\S+)")
GAP = re.compile(r"subscription restored after ([0-9.]+) s")

COUNTER_OF = {"stored": "success", "duplicate": "duplicate", "not stored": "failure", "rolled back": "failure",
              "orphaned": "failure", "rejected": "rejected", "dropped": "dropped"}
FAILED = {"not stored", "rolled back", "orphaned", "rejected"}

# The rules, by their names in the campaign's table.
NOT_RECEIVED = "a message was not received, and no gap says so"
LOST = "a message has no outcome"
TWICE = "a message ended twice"
COUNTERS = "the counters are wrong"
SPOOL = "the spool is wrong"
LOG = "the log is wrong"
ORPHANS = "an orphan is told wrong"
INNOCENT_FAILED = "an innocent message failed"

# What a message may fail of that has done nothing: somebody locks the whole table for longer than all its tries.
EXCUSED = {"57014"}


def pairs(text):
    return {key: quoted or plain for key, quoted, plain in PAIR.findall(text)}


def key_of(fields):
    return fields.get("interview_id", ""), fields.get("prompt_id", ""), int(fields["bytes"])


class Heard:
    """Which of the published messages were received: in order, and nothing missing but in a gap that was reported."""

    def __init__(self, published, complain):
        """complain(what, interview)"""
        self._published = published
        self._complain = complain
        self._known = 0
        self._where = defaultdict(deque)
        self._last, self._epoch = -1, None
        self._skipped = []  # (first, last, was there a gap)
        self.received = set()

    def _learn(self):
        count = len(self._published)
        for message in self._published[self._known:count]:
            self._where[message.key].append(message.index)
        self._known = count

    def received_one(self, key, epoch):
        self._learn()
        where = self._where.get(key)
        if not where:
            self._complain(f"received what was never published, or twice: {key}", key[0])
            return None
        index = next((i for i in where if i > self._last), where[0])
        where.remove(index)
        message = self._published[index]
        self.received.add(index)
        if index < self._last:
            if not message.uncertain:
                self._skipped.append((index, index, None))
            return message
        if index > self._last + 1:
            self._skipped.append((self._last + 1, index - 1, epoch != self._epoch))
        self._last, self._epoch = index, epoch
        return message

    def finish(self):
        """What was not heard, counted; where no gap explains it, complained of."""
        unheard = 0
        for first, last, in_gap in self._skipped:
            missing = [i for i in range(first, last + 1) if i not in self.received and not self._published[i].uncertain]
            if in_gap is None and not self._published[first].uncertain:
                self._complain(f"message {first} was received out of order")
            elif missing and not in_gap:
                self._complain(f"messages {missing[0]} to {missing[-1]} ({len(missing)}) were not received, without a gap")
            unheard += len(missing)
        return unheard


class Ledger:
    def __init__(self, published, with_spool, complain, name=""):
        """complain(rule, what, interview): something that must not happen."""
        self.name = name
        self._complain_of = complain
        self.heard = Heard(published, lambda what, interview="": self.complain(NOT_RECEIVED, what, interview))
        self.innocents = Innocents(self.complain)
        self._with_spool = with_spool
        self._file, self._rest, self.log_path = None, b"", None
        self._epoch = 0
        self.life = self.kills = 0
        self._killed_lives = set()
        self.started = False       # this life has said so: signals are caught from then on
        self.consumer = ""         # what this life calls itself in Redis, where that keeps messages
        self._way = deque()        # received, not yet known to be on disk
        self._memory = Counter()   # received, in memory only
        self.on_disk = {}          # number: key
        self._ended = {}           # number: (life, outcome, key)
        self._limbo = Counter()    # on their way to disk at a SIGKILL: either is right
        self._loaded = set()       # numbers fetched in this life
        self._came = Counter()     # of this life, as the state line has it
        self._before = 0
        self._disk_refuses = False
        self.outcomes = defaultdict(Counter)      # prompt id: outcomes
        self.by_interview = defaultdict(Counter)
        self.totals = Counter()
        self.orphans = {}          # prompt id: interview, told and not resolved
        self.told_in = {}          # prompt id: the life that told
        self.ever_orphaned = set()
        self._failed_innocents = []
        self._told = Counter()     # (life, prompt id): CRITICAL lines less messages that ended so
        self.stuck = {}            # interview: the life that told, and did not say that it is over
        self.recovered = defaultdict(Counter)  # prompt id: settled, rolled back
        self.recoveries = Counter()            # of this life
        self.named = set()         # prompt ids that promptd has left unsettled, and said so
        self.killed_in_memory = set()  # prompt ids that no one could have reported
        self.sqlstates = {}        # prompt id: that of its last ERROR line
        self.dead = set()
        self.gaps = []             # seconds
        self.readings = 0
        self.again = 0             # ended again after a SIGKILL, as may be
        self.ended_twice = 0
        self.gone = 0              # from memory, by SIGKILL
        self._at = {}              # key: when it was published
        self.latest_stored_at = 0.0    # when the youngest message that is stored by now was published
        self._now = 0.0                # of the line that is read

    def complain(self, rule, what, interview=""):
        where = f" [{os.path.basename(self.log_path)}]" if self.log_path else ""
        self._complain_of(rule, what + where, interview)

    # Lives

    def begin_life(self, log_path):
        self.life += 1
        self.log_path = log_path
        self._file, self._rest = open(log_path, "rb"), b""
        self._epoch += 1
        self._came.clear()
        self._loaded.clear()
        self.recoveries.clear()
        self._before = 0
        self._disk_refuses = False
        self.started = False

    def end_life(self, killed):
        """Killed: without a last word. Returns how many messages went with its memory."""
        self.follow()
        self._file.close()
        if killed:
            self.kills += 1
            self._killed_lives.add(self.life)
        gone = self._abandon(killed)
        self.gone += gone
        return gone

    def _abandon(self, killed):
        """Whatever has no outcome. Returns how much of it is gone with the memory."""
        gone = +self._memory
        if killed:
            self._limbo.update(self._way)
            self.killed_in_memory.update(prompt for _, prompt, _ in (*gone, *self._way))
            for key in (*gone, *self._way):
                self.innocents.forget(key)
        else:
            for key in (*gone, *self._way):
                if key[1] not in self.named:
                    self.complain(LOST, f"ended politely, and neither an outcome nor a line names this message: {key}", key[0])
                self.innocents.forget(key)
        if not killed and self._disk_refuses:
            self._killed_lives.add(self.life)  # its last outcomes could not be written, and it said so
        self._memory.clear()
        self._way.clear()
        return sum(gone.values())

    def open_orphans(self):
        """Of this life: promptd tries to delete them, and says so when it has. An earlier one took its list with it."""
        return {id: interview for id, interview in self.orphans.items() if self.told_in[id] == self.life}

    def in_flight(self):
        return sum((+self._memory).values()) + len(self._way) + len(self.on_disk)

    # Lines

    def follow(self):
        """Reads on, to the end of what is there."""
        while True:
            data = self._file.read(1 << 20)
            if not data:
                return
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                self._line(line.decode("utf-8", "backslashreplace"))

    def _line(self, raw):
        match = LINE.fullmatch(raw)
        if match is None:
            self.complain(LOG, f"not a log line: {raw[:200]}")
            return
        level, component, text = match["level"], match["component"], match["text"]
        self._now = datetime.fromisoformat(match["time"].replace("Z", "+00:00")).timestamp()
        if level == "DEBUG":
            if text.startswith("message "):
                self._message(text)
        elif component == "daemon" and text.startswith("state received="):
            self._state(pairs(text))
        elif level == "CRITICAL":
            self._critical(text)
        elif level == "ERROR":
            self._error(text)
        elif level == "WARNING" and "prompt_id=" in text:
            self.named.add(pairs(text)["prompt_id"])
        elif "ORPHANED PROMPT RESOLVED" in text:
            self._resolved(ORPHAN.match(text)[3])
        elif UNSTUCK.match(text):
            self.stuck.pop(UNSTUCK.match(text)[1], None)
        elif RECOVERED.match(text):
            self._recover(RECOVERED.match(text), pairs(text))
        elif text.startswith("messages from before are taken up again"):
            self._before += int(pairs(text)["messages"])
        elif text.endswith(" starting"):
            self.started = True
        elif text.startswith("subscription restored"):
            self._epoch += 1
            self.gaps.append(float(GAP.match(text)[1]))
        elif text.startswith("spool can be written again"):
            self._disk_refuses = False
        else:
            self._line_of_its_own(text)

    def _line_of_its_own(self, text):
        """For a kind of ledger that reads more than others."""

    def _critical(self, text):
        orphan, stuck = ORPHAN.match(text), STUCK.match(text)
        if orphan:
            self._orphan(orphan[3], orphan[2])
            self.sqlstates[orphan[3]] = pairs(text).get("sqlstate", "")
        elif stuck:
            self.stuck[stuck[1]] = self.life
        elif text.startswith("spool cannot be written"):
            self._disk_refuses = True
        elif "missing from the spool" in text or "set aside" in text:
            self.complain(SPOOL, text)

    def _orphan(self, prompt, interview):
        """Told once in a life for what recovery finds, and once for each message that ends so."""
        self.orphans[prompt] = interview
        self.told_in[prompt] = self.life
        self.ever_orphaned.add(prompt)
        self._told[self.life, prompt] += 1

    def _resolved(self, prompt):
        if prompt not in self.orphans:
            self.complain(ORPHANS, f"orphan {prompt} is resolved, and was not told")
        self.orphans.pop(prompt, None)
        self._told.pop((self.life, prompt), None)

    def _error(self, text):
        fields = pairs(text)
        if "prompt_id" in fields:
            self.sqlstates[fields["prompt_id"]] = fields.get("sqlstate", "")

    def _recover(self, match, fields):
        self.recoveries[match[1].replace(" ", "_")] += 1
        if "prompt_id" not in fields:
            self.complain(LOG, f"recovery names no prompt: {match[0]}", match[2])
            return
        self.recovered[fields["prompt_id"]][match[1]] += 1

    def told_too_often(self):
        """Orphans that one promptd named more often than once for itself and once for each of its messages."""
        return [prompt for (_, prompt), count in self._told.items() if count > 1]

    def judge_innocents(self, now):
        """At a time when no fault disturbs."""
        self.innocents.judge(now)
        for prompt, interview, outcome in self._failed_innocents:
            if self.sqlstates.get(prompt) not in EXCUSED:
                self.complain(INNOCENT_FAILED, f"prompt {prompt} of {interview} ended as {outcome}, sqlstate "
                              f"{self.sqlstates.get(prompt)}", interview)
        self._failed_innocents.clear()

    def _message(self, text):
        fields = pairs(text)
        if text.startswith("message received "):
            self._received(key_of(fields), int(fields["sequence"]))
        elif text.startswith("message is on disk"):
            self._put(int(fields["sequence"]))
        elif text.startswith("message is not on disk"):
            self._memory[self._way.popleft()] += 1
        elif text.startswith("message fetched "):
            self._fetched(int(fields["sequence"]), key_of(fields))
        elif text.startswith("message ended "):
            self._end(int(fields["sequence"]), key_of(fields), fields["outcome"])

    def _received(self, key, number):
        self._came["received"] += 1
        message = self.heard.received_one(key, self._epoch)
        if message and message.kind == INNOCENT:
            self._at[key] = message.at
            self.innocents.came(key, self._now, self._before_it())
        self._keep(key, number)

    @staticmethod
    def _before_it():
        """Messages that may be worked on first without anybody's fault: none, for they come as they are published."""
        return 0

    def _keep(self, key, _number):
        if self._with_spool:
            self._way.append(key)
        else:
            self._memory[key] += 1

    def _put(self, number):
        if number in self.on_disk or number in self._ended:
            self.complain(SPOOL, f"number {number} was given twice")
        self.on_disk[number] = self._way.popleft()
        self._loaded.add(number)

    def _fetched(self, number, key):
        self._loaded.add(number)
        if number in self.on_disk:
            if self.on_disk[number] != key:
                self.complain(SPOOL, f"number {number} is another message than it was: {self.on_disk[number]}, {key}")
        elif number in self._ended:
            life, outcome, _ = self._ended.pop(number)
            self.again += 1
            self.dead.discard(number)
            if life == self.life or not any(life <= killed < self.life for killed in self._killed_lives):
                self.complain(TWICE, f"number {number} was fetched although it had ended as {outcome}", key[0])
        elif self._limbo[key] > 0:
            self._limbo[key] -= 1
        else:
            self.complain(SPOOL, f"number {number} was fetched and never put: {key}", key[0])
        self.on_disk[number] = key

    def _end(self, number, key, outcome):
        self._came[COUNTER_OF[outcome]] += 1
        self._came["ended"] += 1
        self.totals[outcome] += 1
        interview, prompt, _ = key
        published_at = self._at.pop(key, 0.0)
        self.innocents.ended(key, self._now)
        if published_at and outcome in FAILED:
            self._failed_innocents.append((prompt, interview, outcome))
        if outcome in ("stored", "duplicate"):
            self.latest_stored_at = max(self.latest_stored_at, published_at)
        if outcome == "orphaned":
            self._told[self.life, prompt] -= 1
        if prompt:
            self.outcomes[prompt][outcome] += 1
        if interview:
            self.by_interview[interview][outcome] += 1
        self._let_go(key, number, outcome)

    def _let_go(self, key, number, outcome):
        interview = key[0]
        if number:
            if number not in self.on_disk:
                self.ended_twice += 1
                self.complain(TWICE, f"number {number} ended as {outcome}, and was {self._ended.get(number, 'not there')}",
                              interview)
                return
            self._ended[number] = (self.life, outcome, key)
            del self.on_disk[number]
            if outcome in FAILED:
                self.dead.add(number)
        elif self._memory[key] > 0:
            self._memory[key] -= 1
        elif self._way and self._way[-1] == key:
            self._way.pop()
        else:
            self.ended_twice += 1
            self.complain(TWICE, f"ended as {outcome}, and was not there or had ended: {key}", interview)

    def _state(self, fields):
        """Every reading adds up, and agrees with the lines before it."""
        self.readings += 1
        count = {name: int(fields[name]) for name in ("received", "success", "duplicate", "failure", "rejected", "dropped",
                                                      "waiting")}
        ended = sum(count[name] for name in ("success", "duplicate", "failure", "rejected", "dropped"))
        if count["received"] != ended + count["waiting"]:
            self.complain(COUNTERS, f"counters do not add up: {count}")
        known = {"received": self._before + self._came["received"], "waiting":
                 self._before + self._came["received"] - self._came["ended"]}
        known.update({name: self._came[name] for name in ("success", "duplicate", "failure", "rejected", "dropped")})
        if known != count:
            self.complain(COUNTERS, f"the counters say {count}, the lines {known}")
