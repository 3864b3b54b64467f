# SPDX-License-Identifier: MIT
"""The campaign's tables: what each fault did and how long it took until all was well again; and what became of messages."""

import statistics
from collections import Counter
from dataclasses import dataclass, field

from .latency import percentile


@dataclass
class Row:
    times: int = 0
    in_flight: int = 0     # the most
    lost: int = 0
    memory: int = 0        # gone with SIGKILL, as the contract says
    twice: int = 0
    deaf: list = field(default_factory=list)       # seconds of each gap
    recovery: list = field(default_factory=list)   # seconds from the lifting to a message stored that was sent after it


COLUMNS = ("fault", "times", "in flight", "lost", "in memory", "duplicated", "gap max", "recovery", "max")


def _seconds(values, of):
    return f"{of(values):.2f} s" if values else "-"


def _cells(name, row):
    return (name, row.times, row.in_flight, row.lost, row.memory, row.twice, _seconds(row.deaf, max),
            _seconds(row.recovery, statistics.median), _seconds(row.recovery, max))


def _layout(columns, rows):
    cells = [columns] + [tuple(map(str, row)) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [" | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))) for line in cells]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(lines)


def table(rows):
    """rows: {fault: Row}."""
    return _layout(COLUMNS, [_cells(name, row) for name, row in sorted(rows.items())])


OUTCOMES = ("stored", "duplicate", "not stored", "rolled back", "orphaned", "rejected", "dropped")


def messages(nodes):
    """One line for each promptd: what became of its messages, and how long innocent ones waited."""
    columns = ("promptd", "lives", "received", *OUTCOMES, "recovered", "again", "waited p50", "p99", "max")
    return _layout(columns, [_messages_of(node.name, node.ledger) for node in nodes])


def _messages_of(name, ledger):
    return (name, ledger.life, len(ledger.heard.received), *(ledger.totals[outcome] for outcome in OUTCOMES),
            _recovered([ledger]), ledger.again, *_waits([ledger], 0.5, 0.99, 1.0))


def _recovered(ledgers):
    total = sum((Counter(counts) for ledger in ledgers for counts in ledger.recovered.values()), Counter())
    return f"{total['settled']}+{total['rolled back']}"


def _waits(ledgers, *shares):
    waits = [wait for ledger in ledgers for wait in ledger.innocents.waits]
    return [f"{percentile(waits, share):.2f} s" for share in shares]


def overview(runs):
    """One line for each run, of run_of()."""
    return _layout(("run", "time", "faults", "lives", "SIGKILLs", "cuts", "received", "stored", "duplicate", "failed",
                    "rejected", "dropped", "recovered", "orphans", "waited p99", "max", "violations"), runs)


def run_of(campaign):
    ledgers, rows = campaign.ledgers(), campaign.rows
    totals = sum((ledger.totals for ledger in ledgers), Counter())
    cuts = sum(row.times for name, row in rows.items() if " link " in name)
    return (campaign.name, f"{campaign.seconds:.0f} s", campaign.faults(), sum(ledger.life for ledger in ledgers),
            sum(ledger.kills for ledger in ledgers), cuts, sum(len(ledger.heard.received) for ledger in ledgers),
            totals["stored"], totals["duplicate"], totals["not stored"] + totals["rolled back"], totals["rejected"],
            totals["dropped"], _recovered(ledgers), totals["orphaned"], *_waits(ledgers, 0.99, 1.0),
            len(campaign.violations))


LEGEND = """\
in flight: the most messages without an outcome when the fault began. lost: taken in, and no outcome. in memory: gone with
SIGKILL and on no disk, as the contract says (without a spool: all that waited; with it: what had just arrived; of a list or
a stream it is what Redis gives to another).
duplicated: ended twice, but for what ends again after SIGKILL. gap max: the longest time without a subscription. recovery:
from the lifting of a round's last fault to the first outcome `stored` or `duplicate`, in each promptd, of a message that was
published after that, median and max. cuts: faults of links. recovered: settled and rolled back by recovery. failed: not
stored or rolled back. again: ended again after SIGKILL. waited: from arrival to outcome, innocent messages only, without
the time in which a fault held everyone up."""
