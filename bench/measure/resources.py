# SPDX-License-Identifier: MIT
"""What promptd takes while it does nothing, after a burst, at its bounds, and to start. All settings as shipped."""

import time

from support.redis_server import DEFAULT_CHANNEL
from support.wait import wait_until

BURST = 10000
SETTLE_S = 3


def _idle(stand, corpus, seconds):
    stand.reset(corpus, 0)
    process = stand.start_promptd()
    time.sleep(1)
    cpu, began = process.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    share = (process.cpu_seconds() - cpu) / (time.monotonic() - began)
    resident = process.status_kib("VmRSS")
    process.stop()
    return {"idle_cpu_percent": share * 100, "idle_kib": resident}


def _burst(stand, corpus):
    stand.reset(corpus, BURST)
    process = stand.start_promptd()
    publisher = stand.publisher(corpus, BURST)
    stand.publish(publisher)
    stand.wait_stored(corpus, BURST, BURST)
    stand.publish_end(publisher)
    time.sleep(SETTLE_S)
    results = {"burst_peak_kib": process.status_kib("VmHWM"), "after_burst_kib": process.status_kib("VmRSS")}
    process.stop()
    return results


def _bounds(stand, corpus):
    """More than the default bounds admit, while PostgreSQL stands still. What is too much is dropped, as documented."""
    stand.reset(corpus, corpus.count)
    process = stand.start_promptd()
    publisher = stand.publisher(corpus, corpus.count)
    stand.cluster.freeze()
    try:
        stand.publish(publisher)
        stand.publish_end(publisher)
        process.wait_quiet()
    finally:
        stand.cluster.thaw()
    process.wait_quiet(1)
    time.sleep(SETTLE_S)
    results = {"peak_kib": process.status_kib("VmHWM"), "after_kib": process.status_kib("VmRSS")}
    process.stop()
    return results


def _start_seconds(stand):
    wait_until(lambda: stand.redis.subscribers(DEFAULT_CHANNEL) == 0, "the channel to be empty", 5)
    process = stand.start_promptd(wait=False)
    while stand.redis.subscribers(DEFAULT_CHANNEL) == 0:
        time.sleep(0.0005)
    seconds = time.monotonic() - process.started
    time.sleep(0.2)
    process.stop()
    return seconds


def measure(stand, corpora, sizes_at_bounds, idle_seconds, starts, clock):
    results = {**_idle(stand, corpora[2048], idle_seconds), **_burst(stand, corpora[2048])}
    bounds = [_bounds(stand, corpora[size]) for size in sizes_at_bounds]
    results["bounds_peak_kib"] = max(result["peak_kib"] for result in bounds)
    results["after_bounds_kib"] = max(result["after_kib"] for result in bounds)
    results["start_ms"] = sorted(_start_seconds(stand) * 1000 for _ in range(starts))
    for name, value in results.items():
        clock.say(f"{name}: {value:.4g}" if not isinstance(value, list) else f"{name}: {value[0]:.0f} to {value[-1]:.0f}")
    return results
