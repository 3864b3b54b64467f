# SPDX-License-Identifier: MIT
"""What differs by redis_mode, one row each: how messages are sent, what Redis must be, and which books are kept."""

from dataclasses import dataclass, field
from typing import Callable

from support.queue import Queue
from support.redis_server import Channel

from .ledger import Ledger
from .queue_ledger import QueueLedger


@dataclass(frozen=True)
class Mode:
    name: str
    open: Callable              # open(server, name): the channel, list or stream
    ledger: Callable            # ledger(published, with_spool, complain, name): the books of one promptd
    keeps_queue: bool = False   # messages wait in Redis until their outcome, and no spool is used
    redis_options: tuple = ()
    settings: dict = field(default_factory=dict)


def _queue(name):
    """What a push was answered for is on Redis' disk, and it keeps every dead letter. There is room for so few at once that
    even a slow machine works on them in time; the rest waits in Redis."""
    return Mode(name, lambda server, key: Queue(server, name, key), QueueLedger, keeps_queue=True,
                redis_options=("--appendonly", "yes", "--appendfsync", "always"),
                settings={"redis_mode": name, "redis_dead_max": 1_000_000, "queue_max_messages": 1000})


MODES = {mode.name: mode for mode in (Mode("pubsub", Channel, Ledger), _queue("list"), _queue("stream"))}
