# SPDX-License-Identifier: MIT
"""From the moment a message is due to be published to the moment its commit is visible, in open loop."""

import subprocess

from .stand import place_of


def percentile(values, share):
    """The smallest value that so many of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


BARE = {"two round trips": "-", "two round trips, seen by the reader": "="}  # bench_latency.c tells them apart


def run(stand, corpus, count, rate, start, mode="pubsub"):
    """Of the listener that `start` starts; or of two bare round trips on an idle connection, one of BARE's values."""
    stand.reset(corpus, count)
    process = start() if callable(start) else None
    channel = place_of(mode) if process else start
    output = subprocess.run([stand.program("bench_latency"), corpus.path, "0", str(count), str(rate),
                             str(stand.redis.port), channel, stand.conninfo],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    if process:
        process.stop()
    micros = [float(line) for line in output.splitlines()]
    return {"p50_us": percentile(micros, 0.5), "p99_us": percentile(micros, 0.99), "max_us": max(micros),
            "count": len(micros)}


def measure(stand, corpus, rates, seconds, runs, with_node, clock):
    """{rate: {system: [result of each run]}}."""
    starts = {**BARE, "promptd": stand.start_promptd,
              "promptd, transaction": lambda: stand.start_promptd(atomicity="transaction"),
              "promptd, list": lambda: stand.start_promptd(redis_mode="list"),
              "promptd, stream": lambda: stand.start_promptd(redis_mode="stream"), "asyncio": stand.start_asyncio}
    if with_node:
        starts["node"] = stand.start_node
    results = {rate: {} for rate in rates}
    for number in clock.rounds(runs):
        for rate in rates:
            for name, start in starts.items():
                result = run(stand, corpus, int(rate * seconds), rate, start, name.removeprefix("promptd, "))
                results[rate].setdefault(name, []).append(result)
                clock.say(f"{rate}/s, run {number + 1}, {name}: p50 {result['p50_us']:.0f} µs, p99 {result['p99_us']:.0f} µs")
    return results
