# SPDX-License-Identifier: MIT
"""The plots of docs/PERFORMANCE.md."""

import os

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen first)

from .report import TITLES, spread, values_of  # noqa: E402

COLOURS = {"limit": "#999999", "promptd": "#1f6fb4", "promptd, spool": "#5fa3d8", "promptd, transaction": "#12406a",
           "promptd, list": "#7a5fb4", "promptd, stream": "#b48fd8",
           "pgbench": "#c0c0c0", "asyncio": "#d98a2b", "node": "#4d9a4d", "two round trips": "#999999",
           "two round trips, seen by the reader": "#777777"}
# Reproducible files: no time of day, and the same names inside for the same drawing.
plt.rcParams.update({"svg.hashsalt": "promptd", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False,
                     "axes.spines.right": False, "axes.axisbelow": True, "figure.figsize": (7.2, 3.8)})


def _save(figure, folder, name):
    figure.tight_layout()
    figure.savefig(os.path.join(folder, name + ".svg"), metadata={"Date": None})
    plt.close(figure)


def _error_bars(results, key):
    """Medians, and how far minimum and maximum are from them."""
    spreads = [spread(values_of(runs, key)) for runs in results]
    return ([median for _, median, _ in spreads],
            [[median - low for low, median, _ in spreads], [high - median for _, median, high in spreads]])


def _systems_of_all_sizes(results):
    first, *others = results.values()
    return [name for name in first if all(name in systems for systems in others)]


def throughput(results, folder):
    figure, axes = plt.subplots()
    names = _systems_of_all_sizes(results)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        medians, errors = _error_bars([systems[name] for systems in results.values()], "rate")
        places = [group + (i - (len(names) - 1) / 2) * width for group in range(len(results))]
        axes.bar(places, medians, width * 0.92, yerr=errors, label=name, color=COLOURS[name], ecolor="#333333",
                 error_kw={"linewidth": 0.8})
    axes.set_yscale("log")
    axes.set_xticks(range(len(results)), [TITLES[size] for size in results])
    axes.set_xlabel("size of the prompt")
    axes.set_ylabel("messages a second")
    axes.grid(axis="y", which="major", color="#dddddd")
    axes.legend(fontsize=8, ncols=2)
    _save(figure, folder, "throughput")


def cpu(results, folder):
    figure, axes = plt.subplots()
    for name in _systems_of_all_sizes(results):
        runs = [systems[name] for systems in results.values()]
        if "cpu_us" in runs[0][0]:
            medians, errors = _error_bars(runs, "cpu_us")
            axes.errorbar([size / 1024 for size in results], medians, yerr=errors, marker="o", label=name,
                          color=COLOURS[name])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([size / 1024 for size in results], [TITLES[size] for size in results])
    axes.set_xlabel("size of the prompt")
    axes.set_ylabel("µs of processor a message")
    axes.grid(color="#dddddd")
    axes.legend(fontsize=8)
    _save(figure, folder, "cpu")


def latency(results, folder):
    figure, axes = plt.subplots(1, len(results), sharey=True, squeeze=False)
    for column, (rate, systems) in zip(axes[0], results.items()):
        for i, (name, runs) in enumerate(systems.items()):
            for key, shade in (("p99_us", 0.45), ("p50_us", 1.0)):
                medians, errors = _error_bars([runs], key)
                column.bar([i], [medians[0] / 1000], 0.7, yerr=[[e[0] / 1000] for e in errors], color=COLOURS[name],
                           alpha=shade, error_kw={"linewidth": 0.8})
        column.set_xticks(range(len(systems)), [name.replace(", ", ",\n") for name in systems], fontsize=7, rotation=30)
        column.set_title(f"{rate} messages/s", fontsize=10)
        column.grid(axis="y", color="#dddddd")
    axes[0][0].set_ylabel("ms: p50 dark, p99 light")
    _save(figure, folder, "latency")


def _line(folder, name, results, key, x_label, y_label):
    figure, axes = plt.subplots()
    medians, errors = _error_bars(list(results.values()), key)
    axes.errorbar(list(results), medians, yerr=errors, marker="o", color=COLOURS["promptd"])
    axes.set_xscale("log")
    axes.set_xticks(list(results), [f"{value:,}" for value in results])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#dddddd")
    _save(figure, folder, name)


def waiting(results, folder):
    figure, axes = plt.subplots()
    for key, label, colour in (("drain_us", "time until the last is stored", "promptd"),
                               ("cpu_us", "processor time of promptd, all in all", "asyncio")):
        medians, errors = _error_bars(list(results.values()), key)
        axes.errorbar(list(results), medians, yerr=errors, marker="o", label=label, color=COLOURS[colour])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(results), [f"{value:,}" for value in results])
    axes.set_xlabel("messages that wait when the database comes back")
    axes.set_ylabel("µs a message")
    axes.grid(color="#dddddd")
    axes.legend(fontsize=8)
    _save(figure, folder, "waiting")


def draw(folder, results):
    if "throughput" in results:
        throughput(results["throughput"], folder)
        cpu(results["throughput"], folder)
    if "latency" in results:
        latency(results["latency"], folder)
    if "growth" in results:
        _line(folder, "connections", results["growth"]["db_connections"], "rate", "db_connections", "messages a second")
        _line(folder, "batches", results["growth"]["batch_max"], "rate", "batch_max", "messages a second")
        waiting(results["growth"]["waiting"], folder)
