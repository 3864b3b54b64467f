# SPDX-License-Identifier: MIT
"""The spool's folder as seen from outside: what is in it, and ways to spoil it."""

import glob
import json
import os
import sqlite3
import struct


class Spool:
    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "spool.db")

    def _rows(self, sql):
        connection = sqlite3.connect(self.path, timeout=10)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def waiting(self):
        """[(interview id, prompt)] in the order of arrival. What is no message has None for both."""
        return [self._read(payload) for payload, in self._rows(
            "select bytes from waiting join payload using (sequence) order by sequence")]

    @staticmethod
    def _read(payload):
        try:
            fields = json.loads(bytes(payload).strip().lstrip(b"="))
            return fields["interview_id"], fields["enhanced_prompt"]
        except (ValueError, KeyError, TypeError):
            return None, None

    def dead(self):
        """The outcomes of the dead letters, sorted."""
        return sorted(outcome for outcome, in self._rows("select outcome from dead_letter"))

    def dead_numbers(self):
        return [number for number, in self._rows("select sequence from dead_letter")]

    def add_dead(self, payloads, outcome="not stored"):
        """Dead letters of a stopped promptd's, as it would have left them."""
        connection = sqlite3.connect(self.path)
        sequence = connection.execute("select seq from sqlite_sequence where name = 'waiting'").fetchone()[0]
        letters, rows = [], []
        for payload in payloads:
            sequence += 1
            letters.append((sequence, len(payload), DIED_MS, outcome))
            rows.append((sequence, DIED_MS, payload_sum(sequence, DIED_MS, payload), payload))
        with connection:
            connection.executemany("insert into payload values (?, ?, ?, ?)", rows)
            connection.executemany("insert into dead_letter(sequence, size, died_ms, outcome) values (?, ?, ?, ?)", letters)
            connection.execute("update sqlite_sequence set seq = ? where name = 'waiting'", (sequence,))
        connection.close()

    def write_at_once(self):
        """Fails if somebody else holds the lock."""
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        connection.execute("begin immediate")
        connection.execute("rollback")
        connection.close()

    def log_size(self):
        """Bytes of SQLite's log."""
        try:
            return os.path.getsize(self.path + "-wal")
        except FileNotFoundError:
            return 0

    def payloads(self):
        return self._rows("select count(*) from payload")[0][0]

    def set_aside(self):
        """The files that were found damaged or foreign."""
        return [path for path in glob.glob(self.path + "*") if "damaged" in path or "foreign" in path]

    def spoil(self, offset=None, length=4096):
        """Garbage over a part of the file; from the beginning to the end without an offset."""
        with open(self.path, "r+b") as file:
            if offset is None:
                length = os.path.getsize(self.path)
            file.seek(offset or 0)
            file.write(b"\xa5" * length)

    def spoil_root(self, name):
        """Garbage over the root page of a table or index, in the file itself."""
        connection = sqlite3.connect(self.path, timeout=10)
        (root,), = connection.execute("select rootpage from sqlite_schema where name = ?", (name,))
        (size,), = connection.execute("pragma page_size")
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        self.spoil((root - 1) * size, size)
        connection.close()

    def truncate(self, length):
        os.truncate(self.path, length)


DIED_MS = 1764000000000


def payload_sum(sequence, arrived_ms, payload):
    """spool_payload_sum() of the daemon."""
    def mix(total, word):
        total = (total ^ word) * 0x9fb21c651e98df25 & 0xffffffffffffffff
        return total ^ total >> 32

    total = 0x50525350
    whole = len(payload) // 8 * 8
    for word in (sequence, arrived_ms, len(payload), *struct.unpack(f"<{whole // 8}Q", payload[:whole]),
                 int.from_bytes(payload[whole:], "big")):
        total = mix(total, word)
    return total - (1 << 64) if total >> 63 else total


VERSION_1 = """
begin;
create table message(sequence integer primary key autoincrement, attempted integer not null, size integer not null);
insert into message select sequence, sequence % 3, size from waiting;
create table dead(sequence integer primary key, size integer not null, buried_ms integer not null, outcome text not null,
 reason text, sqlstate text, error text, interview_id blob, prompt_id blob);
insert into dead select sequence, size, died_ms, outcome, reason, sqlstate, error, interview_id, prompt_id from dead_letter;
delete from sqlite_sequence where name = 'message';
insert into sqlite_sequence select 'message', seq from sqlite_sequence where name = 'waiting';
drop table waiting; drop table dead_letter;
pragma application_id = 1347572560; pragma user_version = 1;
commit;
"""


def make_version_1(path):
    """What promptd 0.1 would have left, of what a stopped promptd has: some messages marked as attempted, some not."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()


def fill_disk(folder):
    """Until there is no room for a byte. Returns the file to remove."""
    path = os.path.join(folder, "filler")
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                pass
    return path
