# SPDX-License-Identifier: MIT
"""Measures promptd beside the limit of PostgreSQL and beside what users would write instead. Called by bench/run."""

import argparse
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "tests")]

from measure import corpus, growth, latency, plots, queues, report, resources, scale, throughput  # noqa: E402 (after the path is set)
from measure.stand import Stand  # noqa: E402

PARTS = ("throughput", "latency", "queues", "resources", "growth", "scale")


class Clock:
    """Says what happens, and stops a part in time where the machine is slower than expected."""

    def __init__(self):
        self._began = time.monotonic()
        self._part_ends = None

    def say(self, text):
        print(f"  {time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def part(self, seconds):
        self._part_ends = time.monotonic() + seconds

    def rounds(self, wanted):
        """Numbers of rounds; none is begun that would, by the longest before, end too late, but for the first."""
        longest = 0
        for number in range(wanted):
            began = time.monotonic()
            if number > 0 and began + longest > self._part_ends:
                self.say(f"no time for more than {number} of {wanted} rounds")
                return
            yield number
            longest = max(longest, time.monotonic() - began)


def arguments():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the results go")
    parser.add_argument("--quick", action="store_true", help="about a minute: 2 KB and 8 KB, two runs, no queues, growth or scale")
    parser.add_argument("--without-node", action="store_true", help="for machines without npm's registry")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given again")
    return parser.parse_args()


def plan(quick):
    """How much of everything; of each part, for how many seconds at most another round is begun."""
    if quick:
        return {"runs": {2048: 2, 8192: 1}, "share": 0.5, "parts": {"throughput": 45, "latency": 15, "resources": 20},
                "messages": {2048: 20000, 8192: 12000}, "sequential": {2048: 20000}, "rates": (500,),
                "latency_seconds": 2, "latency_runs": 1, "bounds": (8192,), "idle_seconds": 2, "starts": 3}
    return {"runs": {512: 3, 2048: 5, 8192: 5, 49152: 3}, "share": 1,
            "parts": {"throughput": 360, "latency": 200, "queues": 150, "resources": 40, "growth": 140, "scale": 300},
            "messages": {512: 60000, 2048: 100000, 8192: 12000, 49152: 2500}, "sequential": {2048: 40000},
            "rates": (50, 500), "latency_seconds": 6, "latency_runs": 2, "bounds": (8192, 49152), "idle_seconds": 10,
            "starts": 7, "growth_runs": 2, "scale_runs": 5, "queue_runs": 5, "waiting": 1000000}


def measure(stand, wanted, parts, with_node):
    clock = Clock()
    corpora, sequential = corpus.make(stand.folder, wanted["messages"], wanted["sequential"])
    for messages in [*corpora.values(), *sequential.values()]:
        messages.install(stand.database)
    clock.say("servers and messages are there")
    # The first to write finds cold caches, and no WAL segments to use again.
    throughput.run_limit(stand, corpora[2048], wanted["messages"][2048])
    os.sync()  # nor shall the kernel write all this back in the middle of what is measured first
    results = {"machine": report.machine(),
               "postgresql": stand.database.value("select current_setting('server_version')")}
    run = {
        "throughput": lambda: throughput.measure(stand, corpora, sequential, wanted["runs"], wanted["share"], with_node,
                                                 clock),
        "latency": lambda: latency.measure(stand, corpora[2048], wanted["rates"], wanted["latency_seconds"],
                                           wanted["latency_runs"], with_node, clock),
        "resources": lambda: resources.measure(stand, corpora, wanted["bounds"], wanted["idle_seconds"],
                                               wanted["starts"], clock),
        "queues": lambda: queues.measure(stand, corpora[2048], wanted["queue_runs"], wanted["waiting"], clock),
        "growth": lambda: growth.measure(stand, corpora[2048], wanted["growth_runs"], clock),
        "scale": lambda: scale.measure(stand, corpora[2048], wanted["scale_runs"], clock),
    }
    for part, seconds in wanted["parts"].items():
        if part in parts:
            clock.part(seconds)
            results[part] = run[part]()
    return results


def main():
    options = arguments()
    wanted = plan(options.quick)
    stand = Stand(os.path.abspath(options.build))
    try:
        results = measure(stand, wanted, options.only or PARTS, not options.without_node)
    finally:
        stand.close()
    report.write(options.output, results)
    plots.draw(options.output, results)
    print(report.table(results))
    print(f"  Results and plots: {options.output}")


main()
