# SPDX-License-Identifier: MIT
"""What must not have happened, by rule; and what the book and the logs say of it."""

import glob
import os
import threading
from collections import defaultdict

import psycopg

SHOWN = 5            # of each rule
LINES = 60           # of the logs, for each violation

# The contract's first section, in bold. All others are the checker's own words.
DELETED = "a settled prompt was deleted"
EMPTY = "ready without its prompt"


class Violations:
    def __init__(self):
        self.of_rule = defaultdict(list)   # rule: [(what, interview)]
        self._lock = threading.Lock()

    def __len__(self):
        return sum(map(len, self.of_rule.values()))

    def add(self, rule, what, interview=""):
        with self._lock:
            self.of_rule[rule].append((what, interview))

    def counts(self):
        return {rule: len(found) for rule, found in sorted(self.of_rule.items())}

    def lines(self):
        """The first of each rule, for people."""
        for rule, found in sorted(self.of_rule.items(), key=lambda item: item[0] not in (DELETED, EMPTY)):
            yield f"VIOLATION ({len(found)} times): {rule}"
            yield from (f"    {what}" for what, _ in found[:SHOWN])

    def write_evidence(self, folder, connection):
        """violations.txt: for the first of each rule, the book's rows and the logs' lines of its interview."""
        with open(os.path.join(folder, "violations.txt"), "w", encoding="utf-8") as file:
            for rule, found in sorted(self.of_rule.items()):
                for what, interview in found[:SHOWN]:
                    file.write(f"{rule}: {what}\n")
                    file.writelines(f"    {line}\n" for line in _evidence(folder, connection, interview))
                    file.write("\n")


def _evidence(folder, connection, interview):
    if not interview:
        return
    try:
        rows = connection.execute(
            "select at at time zone 'utc', seq, tx, pid, who, program, what, prompt, old, new from fault_book "
            "where interview = %s order by seq", [interview]).fetchall()
    except (psycopg.Error, AttributeError):
        rows = []
    for at, seq, tx, pid, who, program, what, prompt, old, new in rows:
        yield (f"{at:%H:%M:%S.%f} book: {what} {prompt or ''} {f'{old} -> {new}' if old else ''} "
               f"seq={seq} tx={tx} by {who} ({program}, backend {pid})")
    for path in sorted(glob.glob(os.path.join(folder, "promptd*.log"))):
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            found = [line.rstrip() for line in file if interview in line]
        for line in found[:LINES]:
            yield f"{os.path.basename(path)}: {line}"
