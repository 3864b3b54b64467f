# SPDX-License-Identifier: MIT
"""The campaign's table: what each fault did, and how long it took until all was well again."""

import statistics
from dataclasses import dataclass, field


@dataclass
class Row:
    times: int = 0
    in_flight: int = 0     # the most
    lost: int = 0
    memory: int = 0        # gone with SIGKILL, as the contract says
    twice: int = 0
    unreported: int = 0
    deaf: list = field(default_factory=list)       # seconds of each gap
    recovery: list = field(default_factory=list)   # seconds from the lifting to a message stored that was sent after it


COLUMNS = ("fault", "times", "in flight", "lost", "in memory", "duplicated", "unreported", "gap max", "recovery", "max")


def _seconds(values, of):
    return f"{of(values):.2f} s" if values else "-"


def _cells(name, row):
    return (name, row.times, row.in_flight, row.lost, row.memory, row.twice, row.unreported, _seconds(row.deaf, max),
            _seconds(row.recovery, statistics.median), _seconds(row.recovery, max))


def table(rows):
    """rows: {fault: Row}."""
    cells = [COLUMNS] + [tuple(map(str, _cells(name, row))) for name, row in sorted(rows.items())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = [" | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))) for line in cells]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(lines)


LEGEND = """\
in flight: the most messages without an outcome when the fault began. lost: taken in, and no outcome. in memory: gone with
SIGKILL and on no disk, as the contract says (without a spool: all that waited; with it: what had just arrived).
duplicated: ended twice, but for what ends again after SIGKILL. unreported: prompts without `ready` that no line names.
gap max: the longest time without a subscription. recovery: from the lifting of a round's last fault to the first outcome
`stored` of a message that was published after that, median and max."""
