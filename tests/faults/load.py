# SPDX-License-Identifier: MIT
"""What is published: interviews of many kinds, a stream of messages for them, and what awaits them there."""

import heapq
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass

import redis

from support.redis_server import Message, prompt_id

# How many of a thousand interviews are of which kind; refusals.sql has what most of them meet.
KINDS = {
    "plain": 410, "used": 170, "many": 95, "twice": 95, "poison": 70,
    "missing": 25, "late": 25, "slow_insert": 3, "slow_ready": 3, "transient": 10,
    "refuse_insert": 15, "skip_insert": 5, "refuse_ready": 15, "skip_ready": 5, "stuck": 5,
    "refuse_delete": 4, "skip_delete": 1, "outage_insert": 12, "outage_ready": 12,
}
# A message of these is stored, or a duplicate: whatever befalls others.
INNOCENT = "plain"
# How many of a hundred interviews of a kind the application works on; the others it leaves alone.
TOUCHED = {"plain": 0, "missing": 0, "used": 100, "many": 60, "twice": 60}
TOUCHED_OTHERS = 30
# No message of these can ever be stored.
HOPELESS = {"missing", "late", "refuse_insert", "skip_insert", "refuse_ready", "skip_ready", "refuse_delete", "skip_delete",
            "stuck", "outage_insert", "outage_ready"}
# A prompt of these stays behind: it is an orphan.
UNDELETABLE = {"refuse_delete", "skip_delete"}
LATE_STATUSES = ("timeout", "completed", "cancelled")
# What the triggers raise: the interview's own fault, and what would mean an outage if it came from the server.
OWN_CODES = ("P0001", "23514")
OUTAGE_CODES = ("53400", "08006", "57P01", "25006", "53100")
CODES = {"outage_insert": OUTAGE_CODES, "outage_ready": OUTAGE_CODES, "refuse_delete": OWN_CODES + OUTAGE_CODES}

WORDS = ("Tell me about a project.", "'; DROP TABLE interviews; --", "<script>alert(1)</script>", "$(reboot)", "Größe", "面接",
         "a\\b\"c\"", "tab\there", "🎤")
WHITE = str.maketrans("01", " \t")


@dataclass
class Published:
    """One message as it was sent."""
    index: int
    interview: str      # "" where the message has none that could be read
    prompt: str         # the id of its prompt, "" for what must be rejected
    payload: bytes
    kind: str
    at: float = 0.0     # monotonic
    uncertain: bool = False  # Redis did not say that it has it

    @property
    def key(self):
        return self.interview, self.prompt, len(self.payload)


class Plan:
    """The stream of messages of one seed. The same seed gives the same stream."""

    def __init__(self, seed, marker, interviews, sequential=False, without=()):
        """sequential: the interviews' ids count upwards. without: kinds that are left out."""
        self._chance = random.Random(f"load {seed}")
        self.marker = self._marker = marker
        self._heap = []
        self._count = 0
        kinds, weights = zip(*((kind, weight) for kind, weight in KINDS.items() if kind not in without))
        self.kinds = {}
        self.status = {}
        self.touched = set()
        for number in range(interviews):
            bits = number if sequential else self._chance.getrandbits(128)
            interview = str(uuid.UUID(int=bits, version=4))
            kind = self._chance.choices(kinds, weights)[0]
            self.kinds[interview] = kind
            self.status[interview] = self._chance.choice(LATE_STATUSES) if kind == "late" else "enhancing"
            if self._chance.randrange(100) < TOUCHED.get(kind, TOUCHED_OTHERS):
                self.touched.add(interview)
        self._fresh = iter(self.kinds)
        self.published = []

    def prepare(self, connection):
        rows = list(self.statuses().items())
        connection.execute("insert into interviews (id, status) select * from unnest(%s::uuid[], %s::text[])",
                           [[i for i, _ in rows], [status for _, status in rows]])
        codes = [self._chance.choice(CODES.get(kind, OWN_CODES)) for kind in self.kinds.values()]
        connection.execute("insert into fault_plan select * from unnest(%s::uuid[], %s::text[], %s::text[])",
                           [list(self.kinds), list(self.kinds.values()), codes])
        connection.execute("analyze")

    def statuses(self):
        """Of the interviews that there are, before anything happened."""
        return {i: self.status[i] for i, kind in self.kinds.items() if kind != "missing"}

    def next(self):
        """The next message; None when all interviews have had theirs."""
        while len(self._heap) < 300:
            interview = next(self._fresh, None)
            if interview is None:
                break
            self._add(interview)
        if not self._heap:
            return None
        _, _, interview, prompt, payload = heapq.heappop(self._heap)
        # Trailing white space is skipped by promptd. It makes each payload the only one of its kind, and its length tells
        # copies of a message apart, near each other.
        index = len(self.published)
        payload = (payload if interview else payload.ljust(300)) + f"{index:024b}".translate(WHITE).encode()
        payload += b" " * (index % 997)
        message = Published(index, interview, prompt, payload, self.kinds.get(interview, "poison"))
        self.published.append(message)
        return message

    def near(self):
        """The interviews that the application works on whose messages were sent just now, or will be soon."""
        recent = [message.interview for message in self.published[-200:]]
        coming = [entry[2] for entry in list(self._heap)]
        return [interview for interview in dict.fromkeys(recent + coming) if interview in self.touched]

    def _push(self, spread, interview, prompt, payload):
        self._count += 1
        heapq.heappush(self._heap, (self._count + self._chance.random() * spread, self._count, interview, prompt, payload))

    def _message(self, interview):
        chance = self._chance
        words = " ".join(chance.choice(WORDS) for _ in range(chance.choice((1, 5, 40, 200))))
        source = chance.choice(("rag", "existing_data", "new_data", "fallback"))
        return Message(interview, f"{self._marker} {chance.getrandbits(64):x} {words}", source)

    def _add(self, interview):
        kind = self.kinds[interview]
        if kind == "poison":
            self._add_poison(interview)
            return
        copies = {"many": self._chance.randint(2, 5), "twice": 1}.get(kind, 1 + (self._chance.random() < 0.1))
        for _ in range(copies):
            message = self._message(interview)
            for _ in range(self._chance.randint(2, 3) if kind == "twice" else 1):
                self._push(100, interview, message.id, message.framed())

    def _add_poison(self, interview):
        good = {"interview_id": interview, "enhanced_prompt": f"{self._marker} never to be stored", "source": "rag"}
        cases = ({"enhanced_prompt": "short"}, {"source": "hearsay"}, {"enhanced_prompt": f"{self._marker} a\0b"},
                 {"enhanced_prompt": None}, {"interview_id": "nobody"}, None)
        case = self._chance.choice(cases)
        text = "no JSON at all: " + self._marker if case is None else json.dumps({**good, **case})
        readable = case is not None and "interview_id" not in case
        self._push(20, interview if readable else "", "", text.encode() + b"\n")


class Publisher(threading.Thread):
    """Sends about `rate` messages a second, in small groups and now and then in a burst; less while many wait: the campaign
    does not ask how much a busy machine can do."""

    ROOM = 200     # messages that may wait at the full rate
    LEAST = 0.1    # of the rate, however many wait

    def __init__(self, plan, channel, rate, seed):
        super().__init__(name="publisher", daemon=True)
        self._plan, self._channel, self._rate = plan, channel, rate
        self._chance = random.Random(f"pace {seed}")
        self._stopping = threading.Event()
        self._client = None
        self._debt = 0.0
        self.taken = 0     # messages that were taken and have no outcome, as far as is known
        self._waiting = 0  # and those that Redis has, in a list or stream

    def burst(self):
        """As much as comes in a second, at once."""
        self._debt += self._rate

    def stop(self):
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self):
        while not self._stopping.wait(0.02):
            if not self._answers():
                continue
            share = max(self.LEAST, min(1.0, self.ROOM / max(self.taken, self._waiting, 1)))
            self._debt += self._rate * share * 0.02 * self._chance.uniform(0.2, 1.4)
            if self._chance.random() < 0.005:
                self._debt += self._rate * self._chance.uniform(0.5, 2)
            count = int(self._debt)
            self._debt -= count
            self._send(count)

    def _answers(self):
        """After a failure: whatever was sent before has been dealt with once a new connection is answered."""
        if self._client is not None:
            return True
        client = self._channel.server.client(2)
        try:
            client.ping()
        except redis.RedisError:
            client.close()
            return False
        self._client = client
        return True

    def _send(self, count):
        messages = [message for message in (self._plan.next() for _ in range(count)) if message]
        pipeline = self._client.pipeline(transaction=False)
        now = time.monotonic()
        for message in messages:
            message.at = now
            self._channel.add(pipeline, message.payload)
        try:
            answers = pipeline.execute(raise_on_error=False)
            self._waiting = self._channel.length(self._client)
        except redis.RedisError:
            answers = [None] * len(messages)
            self._client.close()
            self._client = None
        for message, answer in zip(messages, answers):
            message.uncertain = answer is None or isinstance(answer, redis.RedisError)


def is_own(id, interview, source, prompt):
    """A prompt of promptd's, byte for byte: its id can be computed again."""
    return id == prompt_id(interview, source, prompt)
