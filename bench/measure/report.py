# SPDX-License-Identifier: MIT
"""The table of ratios, the JSON file, and what was measured on."""

import json
import os
import platform
import subprocess

from .latency import BARE, percentile
from .queues import ASYNCIO, name_of
from .scale import MESSAGES
from .stand import QUEUES
from .throughput import SEQUENTIAL

TITLES = {512: "512 B", 2048: "2 KB", 8192: "8 KB", 49152: "48 KB"}


def spread(values):
    """(minimum, median, maximum)."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return ordered[0], median, ordered[-1]


def values_of(results, key):
    return [result[key] for result in results]


def ratios(ours, theirs, key="rate"):
    """Of the runs one by one: both were measured in the same turn."""
    return [a[key] / b[key] for a, b in zip(ours, theirs)]


def better_of(systems, names):
    """The results of whichever is faster in the median."""
    present = [name for name in names if name in systems]
    return max(present, key=lambda name: spread(values_of(systems[name], "rate"))[1])


def machine():
    def first(command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_gib = int(file.readline().split()[1]) / 1024 / 1024
    return {"cores": os.cpu_count(), "processor": model, "memory_gib": round(memory_gib, 1),
            "kernel": platform.release(), "redis": first(["redis-server", "--version"]).split()[2],
            "python": platform.python_version()}


def _row(name, values, unit=""):
    low, median, high = spread(values)
    digits = 2 if high < 100 else 0
    return f"  {name:<44}{low:>10.{digits}f}{median:>10.{digits}f}{high:>10.{digits}f}  {unit}"


def _head(title, runs):
    return f"\n{title + f' ({runs} runs)':<46}{'minimum':>10}{'median':>10}{'maximum':>10}"


def throughput_lines(results):
    for size, systems in results.items():
        yield _head(f"Throughput, {TITLES[size]}", len(systems["limit"]))
        for name, runs in systems.items():
            yield _row(name, values_of(runs, "rate"), "messages/s")
        best = better_of(systems, ("asyncio", "node"))
        yield _row("promptd / limit", ratios(systems["promptd"], systems["limit"]))
        if "promptd" + SEQUENTIAL in systems:
            yield _row("promptd / limit" + SEQUENTIAL,
                       ratios(systems["promptd" + SEQUENTIAL], systems["limit" + SEQUENTIAL]))
        yield _row("promptd, transaction / limit", ratios(systems["promptd, transaction"], systems["limit"]))
        yield _row(f"promptd / {best}", ratios(systems["promptd"], systems[best]))
        yield _row("promptd / pgbench", ratios(systems["promptd"], systems["pgbench"]))
        yield _row("promptd with spool / without", ratios(systems["promptd, spool"], systems["promptd"]))
        for mode in QUEUES:
            yield _row(f"promptd, {mode} / promptd", ratios(systems[f"promptd, {mode}"], systems["promptd"]))
        for name, runs in systems.items():
            if "cpu_us" in runs[0]:
                yield _row(f"CPU of {name}", values_of(runs, "cpu_us"), "µs a message")


def latency_lines(results):
    for rate, systems in results.items():
        bare, seen = (systems[name] for name in BARE)
        yield _head(f"Latency at {rate} messages/s", len(bare))
        for name, runs in systems.items():
            yield _row(f"{name}, p50", values_of(runs, "p50_us"), "µs")
            yield _row(f"{name}, p99", values_of(runs, "p99_us"), "µs")
        yield _row("promptd / two round trips, p50", ratios(systems["promptd"], bare, "p50_us"))
        for mode in QUEUES:
            yield _row(f"promptd, {mode} / promptd, p50", ratios(systems[f"promptd, {mode}"], systems["promptd"], "p50_us"))
        yield _row("promptd / the same, seen by the reader, p50", ratios(systems["promptd"], seen, "p50_us"))


def queue_lines(results):
    systems = results["systems"]
    yield _head("Lists and streams, 2 KB", len(systems["Pub/Sub"]))
    for name, runs in systems.items():
        yield _row(name, values_of(runs, "rate"), "messages/s")
    for name, runs in systems.items():
        if name not in ("Pub/Sub", ASYNCIO):
            yield _row(f"{name} / Pub/Sub", ratios(runs, systems["Pub/Sub"]))
    yield _row(f"{name_of('stream', 1)} / {ASYNCIO}", ratios(systems[name_of("stream", 1)], systems[ASYNCIO]))
    for name, runs in systems.items():
        yield _row(f"CPU of {name}", values_of(runs, "cpu_us"), "µs a message")
    for mode, kib in results["waiting_peak_kib"].items():
        title = f"{mode}, {results['waiting']:,} waiting in Redis, at most"
        yield f"  {title:<44}{kib / 1024:>10.1f}  MiB"


def growth_lines(results):
    for setting in ("db_connections", "batch_max"):
        yield _head(f"Throughput by {setting}", len(next(iter(results[setting].values()))))
        for value, runs in results[setting].items():
            yield _row(f"{value}", values_of(runs, "rate"), "messages/s")
    yield _head("Cost by messages waiting", len(next(iter(results["waiting"].values()))))
    for count, runs in results["waiting"].items():
        yield _row(f"{count}, time", values_of(runs, "drain_us"), "µs a message")
        yield _row(f"{count}, CPU of promptd", values_of(runs, "cpu_us"), "µs a message")


def resource_lines(results):
    yield "\nResources, all settings as shipped"
    for title, key in (("resident, idle", "idle_kib"), ("resident, after a burst of 10,000", "after_burst_kib"),
                       ("resident at most, in that burst", "burst_peak_kib"),
                       ("resident at most, at the bounds", "bounds_peak_kib"),
                       ("resident, after the bounds were reached", "after_bounds_kib")):
        yield f"  {title:<44}{results[key] / 1024:>10.1f}  MiB"
    yield f"  {'processor time, idle':<44}{results['idle_cpu_percent']:>10.3f}  %"
    starts = results["start_ms"]
    yield f"  {'start to subscribed, median':<44}{percentile(starts, 0.5):>10.0f}  ms (at most {starts[-1]:.0f})"


def scale_lines(results):
    for rows, whats in results.items():
        yield _head(f"With {rows:,} interviews and prompts", len(whats["stuck"]))
        for name, runs in whats.items():
            if name == MESSAGES:
                yield _row("promptd", values_of(runs, "rate"), "messages/s")
            else:
                yield _row(f"promptctl {name}", values_of(runs, "ms"), "ms")


LINES = {"throughput": throughput_lines, "latency": latency_lines, "queues": queue_lines, "growth": growth_lines, "scale": scale_lines,
         "resources": resource_lines}


def table(results):
    return "\n".join(line for part, lines in LINES.items() if part in results for line in lines(results[part])) + "\n"


def write(folder, results):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, "results.txt"), "w", encoding="utf-8") as file:
        file.write(table(results))
