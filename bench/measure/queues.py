# SPDX-License-Identifier: MIT
"""Lists and streams with several promptds, beside a consumer in asyncio; and with a million messages waiting in Redis."""

from support.wait import wait_until

from .stand import QUEUES, ROOMY, place_of
from .throughput import FAST_COUNT, SLOW_COUNT, run_listener

PROMPTDS = (1, 2, 3)
ASYNCIO = "asyncio, stream"
WORKED_ON = 20000  # of those that wait, until the memory is looked at


def name_of(mode, promptds):
    return f"{mode}, {promptds} promptd" + ("s" if promptds > 1 else "")


def _systems(stand):
    """{name: (function that starts it, mode, how many messages)}."""
    fast, slow = FAST_COUNT[2048], SLOW_COUNT[2048]
    systems = {"Pub/Sub": (lambda: stand.start_promptd(**ROOMY), "pubsub", fast)}
    for mode in QUEUES:
        for promptds in PROMPTDS:
            systems[name_of(mode, promptds)] = (
                lambda mode=mode, promptds=promptds: stand.start_promptds(promptds, redis_mode=mode), mode, fast)
    systems[ASYNCIO] = (lambda: stand.start_asyncio("stream"), "stream", slow)
    return systems


def waiting_peak_kib(stand, corpus, mode, count, worked_on):
    """The same messages again and again, until so many wait; settings as shipped. Looked at when some are stored."""
    stand.reset(corpus, corpus.count)
    for _ in range(0, count, corpus.count):
        publisher = stand.publisher(corpus, corpus.count, place=place_of(mode))
        stand.publish(publisher)
        stand.publish_end(publisher)
    process = stand.start_promptd(wait=False, redis_mode=mode)
    wait_until(lambda: stand.ready_count() >= worked_on, "some of the messages to be stored", 120)
    peak = process.status_kib("VmHWM")
    process.stop()
    stand.redis.admin.flushall()
    return peak


def measure(stand, corpus, runs, waiting, clock):
    results = {"systems": {}, "waiting": waiting, "waiting_peak_kib": {}}
    systems = _systems(stand)
    for run in clock.rounds(runs):
        names = list(systems)
        for name in names[run % len(names):] + names[:run % len(names)]:
            start, mode, count = systems[name]
            result = run_listener(stand, corpus, count, start, mode)
            results["systems"].setdefault(name, []).append(result)
            clock.say(f"{name}: {result['rate']:.0f}/s, {result['cpu_us']:.1f} µs")
    for mode in QUEUES:
        peak = results["waiting_peak_kib"][mode] = waiting_peak_kib(stand, corpus, mode, waiting, WORKED_ON)
        clock.say(f"{mode}, {waiting} messages waiting: {peak / 1024:.1f} MiB")
    return results
