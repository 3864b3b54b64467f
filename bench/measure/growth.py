# SPDX-License-Identifier: MIT
"""How promptd's cost grows: with connections, the size of batches, and the number of messages that wait."""

import time

from .stand import ROOMY
from .throughput import run_listener

CONNECTIONS = (1, 2, 4, 8, 16)
BATCHES = (1, 4, 16, 64, 256, 1024)
WAITING = (1, 10, 100, 1000, 10000, 100000)
SWEEP_COUNT = 20000
SMALL_BATCH_COUNT = 5000


def _sweep(stand, corpus, setting, results, clock):
    for value, runs in results.items():
        count = SMALL_BATCH_COUNT if setting == "batch_max" and value < 16 else SWEEP_COUNT
        result = run_listener(stand, corpus, count, lambda: stand.start_promptd(**ROOMY, **{setting: value}))
        runs.append(result)
        clock.say(f"{setting} {value}: {result['rate']:.0f}/s, {result['cpu_us']:.1f} µs")


def run_waiting(stand, corpus, count, **settings):
    """PostgreSQL is frozen until all messages are there; then it has to take them as fast as it can."""
    stand.reset(corpus, count)
    process = stand.start_promptd(**ROOMY, **settings)
    publisher = stand.publisher(corpus, count)
    cpu_start = process.cpu_seconds()
    stand.cluster.freeze()
    try:
        stand.publish(publisher)
        stand.publish_end(publisher)
        process.wait_quiet()
        cpu_taken_in = process.cpu_seconds()
    finally:
        stand.cluster.thaw()
    began = time.monotonic()
    ended = stand.wait_stored(corpus, count, count)
    process.wait_quiet(0.02)
    cpu_end = process.cpu_seconds()
    process.stop()
    return {"drain_us": (ended - began) / count * 1e6, "cpu_us": (cpu_end - cpu_start) / count * 1e6,
            "cpu_drain_us": (cpu_end - cpu_taken_in) / count * 1e6}


def _waiting(stand, corpus, results, clock):
    for count, runs in results.items():
        result = run_waiting(stand, corpus, count)
        runs.append(result)
        clock.say(f"{count} waiting: {result['drain_us']:.1f} µs each, {result['cpu_us']:.1f} µs of promptd")


def measure(stand, corpus, runs, clock):
    """{what grows: {its value: [result of each run]}}."""
    results = {"db_connections": {value: [] for value in CONNECTIONS}, "batch_max": {value: [] for value in BATCHES},
               "waiting": {count: [] for count in WAITING}}
    for _ in clock.rounds(runs):
        for setting in ("db_connections", "batch_max"):
            _sweep(stand, corpus, setting, results[setting], clock)
        _waiting(stand, corpus, results["waiting"], clock)
    return results
