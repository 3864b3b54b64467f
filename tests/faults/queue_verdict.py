# SPDX-License-Identifier: MIT
"""When all is over, in list and stream mode: what was pushed, against Redis and the ledgers of all promptds.

Besides the rules of verdict.py:

1. Every message that was pushed has an outcome that some promptd has told, or it is in Redis: SIGKILL excuses nothing.
2. In the end nothing waits there, and nobody holds anything: what a dead one had taken was another's in time.
3. Each message that only failed is a dead letter, and each dead letter is a message that failed, once for each time. Or
   it was delivered five times without an outcome, and is told as dropped.
4. A message is given to another only when the one that has taken it was killed, asked to stop, or silent for 45 s. (One
   that was silent reads late what it was given before.)
"""

from collections import Counter, defaultdict

from .ledger import FAILED, LOST, TWICE

LEFT = "a message is left in Redis"
DROPPED = "dropped"
RECEIVED_AT_LEAST = 2  # by a message that was delivered five times: not every delivery arrives


class QueueVerdict:
    def __init__(self, verdict, waiting, dead):
        """waiting: payloads in Redis without an outcome. dead: [(payload, outcome)] of the dead letters."""
        self._verdict, self._complain = verdict, verdict.complain
        self._ledgers, self._published = verdict.ledgers, verdict.plan.published
        self._waiting = waiting
        self._dead_of = defaultdict(Counter)   # payload: outcomes
        for payload, outcome in dead:
            self._dead_of[payload][outcome] += 1
        self._of_key = defaultdict(list)       # key: messages
        for message in self._published:
            self._of_key[message.key].append(message)
        self._endings = defaultdict(Counter)
        self._deliveries = defaultdict(list)
        for ledger in self._ledgers:
            for key, outcomes in ledger.endings.items():
                self._endings[key].update(outcomes)
            for key, deliveries in ledger.deliveries.items():
                self._deliveries[key] += deliveries
        self.again = sum(max(0, len(self._deliveries[key]) - len(messages)) for key, messages in self._of_key.items())
        self.buried = sum(outcomes[DROPPED] for outcomes in self._dead_of.values())

    def judge(self):
        """Before verdict.judge(), which is told here what was dropped."""
        self._judge_redis()
        for key, messages in self._of_key.items():
            self._judge_outcomes(key, messages)
            if len(messages) == 1:
                self._judge_deliveries(key)

    def _judge_redis(self):
        messages = {message.payload: message for message in self._published}
        for payload in self._waiting[:3]:
            message = messages.get(payload)
            self._complain(LEFT, f"{len(self._waiting)} in all, as {message and message.key}",
                           message.interview if message else "")
        for payload, outcomes in self._dead_of.items():
            message = messages.get(payload)
            if message is None:
                self._complain(TWICE, f"a dead letter of {len(payload)} bytes was never pushed: {dict(outcomes)}")
            elif outcomes[DROPPED]:
                self._verdict.outcomes[message.prompt][DROPPED] += 1
                if len(self._deliveries[message.key]) < RECEIVED_AT_LEAST:
                    self._complain(LOST, f"{message.key} was dropped as delivered too often, and was received "
                                   f"{len(self._deliveries[message.key])} times", message.interview)

    def _judge_outcomes(self, key, messages):
        """Those of one key cannot be told apart in the logs: of several, so many outcomes are needed."""
        endings = self._endings[key]
        well = endings["stored"] + endings["duplicate"]
        letters = Counter()
        lost = []
        for message in messages:
            dead = self._dead_of.get(message.payload, Counter())
            letters.update(dead)
            if message.payload in self._waiting or dead or message.uncertain:
                continue
            lost.append(message.index)
        if len(lost) > well:
            self._complain(LOST, f"pushed as number {lost}, neither told of as stored nor in Redis: {key}, {dict(endings)}", key[0])
        for outcome in FAILED:
            if letters[outcome] > endings[outcome]:
                self._complain(TWICE, f"{key} has {letters[outcome]} dead letters as {outcome}, and ended so "
                               f"{endings[outcome]} times", key[0])

    def _judge_deliveries(self, key):
        deliveries = sorted(self._deliveries[key], key=lambda delivery: delivery.at)
        over = {(ledger.name, life): at for ledger in self._ledgers for life, at in ledger.over.items()}
        silent = {(ledger.name, life): at for ledger in self._ledgers for life, at in ledger.given_up.items()}
        for earlier, later in zip(deliveries, deliveries[1:]):
            lives = (earlier.name, earlier.life), (later.name, later.life)
            is_silence = any(silent.get(life, later.at + 1) <= later.at for life in lives)
            if over.get(lives[0], later.at + 1) > later.at and not is_silence:
                self._complain(TWICE, f"{key} was given to promptd {later.name}{later.life} while "
                               f"{earlier.name}{earlier.life} had it and lived", key[0])
