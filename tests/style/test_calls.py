#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads the symbols of what was built: no layer calls one above it, no files include or call each other in a circle,
and no name is known to others that nobody else uses.

The folder of the build is $PROMPTD_BUILD. Calls through pointers, which is how what is below speaks upwards, are no
symbols.
"""
import os
import pathlib
import subprocess
import unittest

from test_layers import INCLUDE, LAYERS, ROOT, Tree, real_tree

BUILD = pathlib.Path(os.environ.get("PROMPTD_BUILD", ROOT / "build" / "dev"))
NM = os.environ.get("NM", "nm")

# The status page, made a C array.
GENERATED = {"src/generated/page.c": "src/report/page.c"}


def source_of(built):
    """src/daemon/CMakeFiles/promptd.dir/main.c.o as src/daemon/main.c."""
    parts = list(built.relative_to(BUILD).parts)
    at = parts.index("CMakeFiles")
    path = "/".join(parts[:at] + parts[at + 2:]).removesuffix(".o")
    return GENERATED.get(path, path)


def read_symbols(*folders):
    """{source: (symbols that it defines, symbols that it needs)}"""
    built = {str(path): source_of(path) for folder in folders for path in BUILD.glob(f"{folder}/**/*.c.o")}
    symbols = {source: (set(), set()) for source in built.values()}
    listing = subprocess.run([NM, "-A", *sorted(built)], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        path, _, rest = line.partition(":")
        *_, kind, name = rest.split()
        defined, needed = symbols[built[path]]
        if kind == "U":
            needed.add(name)
        elif kind.isupper():
            defined.add(name)
    return symbols


def calls(symbols):
    """{source: {other source: a symbol of it}}; each program has a main of its own."""
    owner = {name: source for source, (defined, _) in symbols.items() for name in defined if name != "main"}
    graph = {}
    for source, (_, needed) in symbols.items():
        graph[source] = {owner[name]: name for name in sorted(needed) if owner.get(name, source) != source}
    return graph


def upward_calls(graph):
    tree = Tree({path: "" for path in graph})
    for source, others in sorted(graph.items()):
        for other, name in sorted(others.items()):
            if tree.layer(other) not in LAYERS[tree.layer(source)]:
                yield f"{source}: {tree.layer(source)} must not call {name}, which is {tree.layer(other)}"


def unneeded(symbols, users):
    """What begins with __ comes from the sanitizers."""
    needed = set().union(*(names for _, names in [*symbols.values(), *users.values()]))
    for source, (defined, _) in sorted(symbols.items()):
        for name in sorted(defined - needed - {"main"}):
            if not name.startswith("__"):
                yield f"{source}: nobody else uses {name}"


def includes(tree):
    graph = {}
    for path, text in tree.files.items():
        here = pathlib.PurePath(path).parent
        names = [name for bracket, name in INCLUDE.findall(text) if bracket == '"']
        graph[path] = [f"include/{name}" if name.startswith("promptd/") else str(here / name) for name in names]
    return graph


def circles(graph):
    """The sets of nodes that reach each other, each sorted (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1 or node in graph.get(node, ()):
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


class TestCalls(unittest.TestCase):
    def test_the_sources(self):
        symbols = read_symbols("src")
        sources = {path for path in real_tree().files if path.endswith(".c")}
        self.assertEqual(sorted(sources - set(symbols)), [], f"not built in {BUILD}")
        symbols = {path: found for path, found in symbols.items() if path in sources or path in GENERATED.values()}
        graph = calls(symbols)
        self.assertEqual(list(upward_calls(graph)), [])
        self.assertEqual(circles(graph), [])
        self.assertEqual(circles(includes(real_tree())), [])
        self.assertEqual(list(unneeded(symbols, read_symbols("tests", "bench"))), [])

    def test_upward_calls_are_found(self):
        symbols = {
            "src/base/log.c": ({"log_open"}, {"inbox_new", "malloc"}),
            "src/core/inbox.c": ({"inbox_new"}, {"log_open"}),
        }
        self.assertEqual(list(upward_calls(calls(symbols))),
                         ["src/base/log.c: base must not call inbox_new, which is core"])
        self.assertEqual(circles(calls(symbols)), [["src/base/log.c", "src/core/inbox.c"]])

    def test_names_that_nobody_needs_are_found(self):
        symbols = {
            "src/base/log.c": ({"log_open", "log_for_a_test", "log_shut"}, set()),
            "src/daemon/main.c": ({"main"}, {"log_open"}),
        }
        users = {"tests/unit/test_log.c": ({"main"}, {"log_for_a_test"})}
        self.assertEqual(list(unneeded(symbols, users)), ["src/base/log.c: nobody else uses log_shut"])

    def test_circles_are_found(self):
        self.assertEqual(circles({"a": ["b"], "b": ["c"], "c": ["d"], "d": ["b"], "e": ["a", "d"]}), [["b", "c", "d"]])
        self.assertEqual(circles({"a": ["b", "c"], "b": ["c"], "c": []}), [])
        self.assertEqual(circles({"a": ["a"]}), [["a"]])
        headers = {"include/promptd/a.h": '#include "promptd/b.h"\n', "include/promptd/b.h": '#include "promptd/a.h"\n'}
        self.assertEqual(circles(includes(Tree(headers))), [["include/promptd/a.h", "include/promptd/b.h"]])


if __name__ == "__main__":
    unittest.main()
