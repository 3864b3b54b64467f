# SPDX-License-Identifier: MIT
"""The application that interviews belong to. It works on its share of them all the time, whatever happens to promptd.

It moves interviews on, times them out, asks for another prompt, deletes some with their prompts, and holds rows locked.
"""

import logging
import random
import threading
from collections import Counter, deque

import psycopg

from .book import AWAITING, FAILED, READY

NAME = "application"
LOCKERS = 4            # as many as promptd has connections: each could keep one waiting
PAUSE_S = (0.01, 0.08)
LOCK_S = ((0.05, 0.5), (0.5, 2.0), (2.0, 6.0))
AT_ONCE = 5            # interviews in one statement
LATE = ("timeout", "cancelled")

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # its connections are lost all the time


class Application:
    def __init__(self, connect, plan, seed):
        """connect(): a connection of the application's to the database."""
        self._connect, self._plan = connect, plan
        self._over = threading.Event()
        self._started = deque(maxlen=500)  # interviews in progress
        self.counts = Counter()
        work = [(self._use, 1), (self._meddle, 1), (self._lock, LOCKERS)]
        self._threads = [threading.Thread(target=self._run, args=(act, random.Random(f"{act.__name__} {number} {seed}")),
                                          name=NAME, daemon=True) for act, count in work for number in range(count)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._over.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, act, chance):
        """A connection for as long as it lasts."""
        connection = None
        while not self._over.wait(chance.uniform(*PAUSE_S)):
            try:
                if connection is None:
                    connection = self._connect()
                    connection.execute("set lock_timeout = '1s'")
                act(connection, chance)
            except psycopg.Error:
                if connection is not None and connection.broken:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def _some(self, chance, count):
        near = self._plan.near()
        return chance.sample(near, min(count, len(near)))

    def _change(self, connection, interviews, old, new):
        """Sets the status where it is one of the old ones. Returns which."""
        changed = connection.execute("update interviews set status = %s where id = any(%s::uuid[]) and status = any(%s) "
                                     "returning id::text", [new, interviews, list(old)]).fetchall()
        self.counts[new] += len(changed)
        return [id for id, in changed]

    def _use(self, connection, chance):
        """Interviews begin as soon as they are ready, and end."""
        ready = connection.execute("select id::text from interviews where id = any(%s::uuid[]) and status = %s",
                                   [self._plan.near(), READY]).fetchall()
        chosen = [id for id, in ready if chance.random() < 0.7]
        if chosen:
            self._started.extend(self._change(connection, chosen, [READY], "in_progress"))
        if len(self._started) > 20:
            self._change(connection, [self._started.popleft() for _ in range(10)], ["in_progress"], "completed")

    def _meddle(self, connection, chance):
        case = chance.random()
        chosen = self._some(chance, chance.randint(1, AT_ONCE))
        if case < 0.15:
            self._change(connection, chosen, AWAITING - {FAILED}, chance.choice(LATE))
        elif case < 0.30:
            self._change(connection, chosen, [FAILED, READY], "enhancing")
        elif case < 0.40:
            self._delete(connection, chosen[:1], chance)
        elif case < 0.50:
            self._change(connection, chosen, AWAITING - {FAILED}, "web_scraping")

    def _delete(self, connection, chosen, chance):
        with connection.transaction():
            if chance.random() < 0.5:
                connection.execute("select from interviews where id = any(%s::uuid[]) for update", [chosen])
            connection.execute("delete from interview_enhanced_prompts where interview_id = any(%s::uuid[])", [chosen])
            if chance.random() < 0.3:
                self._over.wait(chance.uniform(0.01, 0.3))
            deleted = connection.execute("delete from interviews where id = any(%s::uuid[])", [chosen]).rowcount
        self.counts["deleted"] += deleted

    def _lock(self, connection, chance):
        """Somebody looks at interviews for long, and may change them at the end."""
        chosen = self._some(chance, chance.randint(1, 3))
        with connection.transaction(force_rollback=chance.random() < 0.2):
            connection.execute("select from interviews where id = any(%s::uuid[]) order by id "
                               f"for {chance.choice(('update', 'no key update'))}", [chosen])
            self.counts["locked"] += len(chosen)
            self._over.wait(chance.uniform(*chance.choice(LOCK_S)))
            if chance.random() < 0.3:
                self._change(connection, chosen, [READY], "in_progress")
                self._change(connection, chosen, AWAITING - {FAILED}, "timeout")
