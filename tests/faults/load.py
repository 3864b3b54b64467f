# SPDX-License-Identifier: MIT
"""What is published: interviews of many kinds, a stream of messages for them, and the triggers that refuse some."""

import heapq
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass

import redis

from support.redis_server import Message, prompt_id

# How many of a thousand interviews are of which kind.
KINDS = {
    "plain": 560, "many": 110, "twice": 110, "poison": 80,
    "missing": 30, "late": 25, "moved": 25,
    "refuse_insert": 15, "skip_insert": 5, "refuse_ready": 15, "skip_ready": 5, "refuse_delete": 10, "stuck": 5,
    "transient": 5,
}
# No message of these can ever be stored.
HOPELESS = {"missing", "late", "refuse_insert", "skip_insert", "refuse_ready", "skip_ready", "refuse_delete", "stuck"}
LATE_STATUSES = ("timeout", "completed", "cancelled")

TRIGGERS = """
create table fault_plan (id uuid primary key, kind text not null);
create table fault_switch (sqlstate text);

create function fault_on_insert() returns trigger language plpgsql security definer as $$
declare k text;
begin
    select sqlstate into k from fault_switch;
    if k is not null then raise exception using message = 'could not extend file', errcode = k; end if;
    select kind into k from fault_plan where id = new.interview_id;
    if k = 'refuse_insert' then raise exception using message = 'no insert', errcode = '23514'; end if;
    if k = 'skip_insert' then return null; end if;
    if k = 'transient' and random() < 0.4 then raise exception using message = 'try again', errcode = '40001'; end if;
    return new;
end $$;
create trigger fault_insert before insert on interview_enhanced_prompts for each row execute function fault_on_insert();

create function fault_on_update() returns trigger language plpgsql security definer as $$
declare k text;
begin
    select kind into k from fault_plan where id = new.id;
    if k = 'stuck' then raise exception using message = 'no update', errcode = 'P0001'; end if;
    if k = 'transient' and random() < 0.4 then raise exception using message = 'try again', errcode = '40P01'; end if;
    if new.status = 'ready' then
        if k in ('refuse_ready', 'refuse_delete') then
            raise exception using message = 'not to be ready', errcode = 'P0001';
        end if;
        if k = 'skip_ready' then return null; end if;
    end if;
    return new;
end $$;
create trigger fault_update before update of status on interviews for each row execute function fault_on_update();

create function fault_on_delete() returns trigger language plpgsql security definer as $$
declare k text;
begin
    select kind into k from fault_plan where id = old.interview_id;
    if k = 'refuse_delete' then raise exception using message = 'no delete', errcode = 'P0001'; end if;
    return old;
end $$;
create trigger fault_delete before delete on interview_enhanced_prompts for each row execute function fault_on_delete();
"""

WORDS = ("Tell me about a project.", "'; DROP TABLE interviews; --", "<script>alert(1)</script>", "$(reboot)", "Größe", "面接",
         "a\\b\"c\"", "tab\there", "🎤")


@dataclass
class Published:
    """One message as it was sent."""
    index: int
    interview: str      # "" where the message has none that could be read
    prompt: str         # the id of its prompt, "" for what must be rejected
    payload: bytes
    kind: str
    at: float = 0.0     # monotonic
    uncertain: bool = False  # Redis did not say that it was taken

    @property
    def key(self):
        return self.interview, self.prompt, len(self.payload)


class Plan:
    """The stream of messages of one seed. The same seed gives the same stream."""

    def __init__(self, seed, marker, interviews):
        self._chance = random.Random(f"load {seed}")
        self._near = random.Random(f"near {seed}")
        self.marker = self._marker = marker
        self._heap = []
        self._count = 0
        kinds, weights = zip(*KINDS.items())
        self.kinds = {}
        self.status = {}
        for _ in range(interviews):
            interview = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
            kind = self._chance.choices(kinds, weights)[0]
            self.kinds[interview] = kind
            self.status[interview] = self._chance.choice(LATE_STATUSES) if kind == "late" else "enhancing"
        self._fresh = iter(self.kinds)
        self.published = []

    def prepare(self, connection):
        connection.execute(TRIGGERS)
        rows = [(i, self.status[i]) for i, kind in self.kinds.items() if kind != "missing"]
        connection.execute("insert into interviews (id, status) select * from unnest(%s::uuid[], %s::text[])",
                           [[i for i, _ in rows], [status for _, status in rows]])
        connection.execute("insert into fault_plan select * from unnest(%s::uuid[], %s::text[])",
                           [list(self.kinds), list(self.kinds.values())])
        connection.execute("analyze")

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
        # Trailing white space is skipped by promptd, and tells copies of a message apart here.
        index = len(self.published)
        payload = payload + b" " * (index % 997) if interview else payload.ljust(300 + index % 997)
        message = Published(index, interview, prompt, payload, self.kinds.get(interview, "poison"))
        self.published.append(message)
        return message

    def near(self, count):
        """Some interviews whose messages were sent just now, or will be soon."""
        recent = [message.interview for message in self.published[-200:] if message.interview]
        coming = [entry[2] for entry in list(self._heap) if entry[2]]
        both = list(dict.fromkeys(recent + coming))
        return self._near.sample(both, min(count, len(both)))

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
    """Publishes at about `rate` messages a second, in small groups and now and then in a burst."""

    def __init__(self, plan, server, channel, rate, seed):
        super().__init__(name="publisher", daemon=True)
        self._plan, self._server, self._channel, self._rate = plan, server, channel, rate
        self._chance = random.Random(f"pace {seed}")
        self._stopping = threading.Event()
        self._client = None
        self._debt = 0.0

    def burst(self):
        """As much as comes in a second, at once."""
        self._debt += self._rate

    def stop(self):
        self._stopping.set()
        self.join()

    def run(self):
        while not self._stopping.wait(0.02):
            if not self._answers():
                continue
            self._debt += self._rate * 0.02 * self._chance.uniform(0.2, 1.4)
            if self._chance.random() < 0.005:
                self._debt += self._rate * self._chance.uniform(0.5, 2)
            count = int(self._debt)
            self._debt -= count
            self._send(count)

    def _answers(self):
        """After a failure: whatever was sent before has been dealt with once a new connection is answered."""
        if self._client is not None:
            return True
        client = redis.Redis(unix_socket_path=self._server.socket, socket_timeout=2)
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
            pipeline.publish(self._channel, message.payload)
        try:
            if messages:
                pipeline.execute()
        except redis.RedisError:
            for message in messages:
                message.uncertain = True
            self._client.close()
            self._client = None


def is_own(id, interview, source, prompt):
    """A prompt of promptd's, byte for byte: its id can be computed again."""
    return id == prompt_id(interview, source, prompt)
