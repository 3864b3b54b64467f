#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Has SPIN search the model completely, in several worlds; and again without each guard, which must find an error.

    check.py build       the model as programs, one for each way in which it is compiled
    check.py protocol    in every world: no error
    check.py mutations   without each of the guards: an error
    check.py deep        larger worlds; takes minutes and 2 GB
    check.py story NAME  the shortest way to an error without the guard NAME, or in the world NAME

With --in FOLDER the programs stay there, and are built again only when the model is newer. SPIN's own exit status says
nothing: what it prints does.
"""
import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE / "storing.pml"

# name: what the model, and what SPIN's search is compiled with. -DNP finds cycles, and so runs that never end.
PROGRAMS = {
    "anybody": (["-DANYBODY"], ["-DSAFETY"]),
    "promptd": ([], ["-DSAFETY"]),
    "two_prompts": (["-DPROMPTS=2"], ["-DSAFETY"]),
    "ending": ([], ["-DNP"]),
    "shortest": ([], ["-DSAFETY", "-DBFS"]),
    "shortest_two_prompts": (["-DPROMPTS=2"], ["-DSAFETY", "-DBFS"]),
}

# name: the program, and the variables of the model that are not 0
WORLDS = {
    "anybody": ("anybody", {}),
    "faults": ("promptd", {"FAULTS": 2}),
    "locks": ("promptd", {"FAULTS": 1, "LOCKS": 1}),
    "deletions": ("promptd", {"FAULTS": 1, "DELETIONS": 1}),
    "regenerations": ("promptd", {"FAULTS": 1, "REGENERATIONS": 1}),
    "two prompts": ("two_prompts", {"FAULTS": 1, "LOCKS": 1}),
    "mixed atomicity": ("promptd", {"FAULTS": 1, "DELETIONS": 1, "TRANSACTS": 2}),
    "transaction": ("promptd", {"FAULTS": 2, "LOCKS": 1, "DELETIONS": 1, "REGENERATIONS": 1, "TRANSACTS": 3}),
    "every run ends": ("ending", {"FAULTS": 1, "DELETIONS": 1}),
}
DEEP_WORLDS = {
    "three faults": ("promptd", {"FAULTS": 3}),
    "faults, locks": ("promptd", {"FAULTS": 2, "LOCKS": 1}),
    "faults, deletions": ("promptd", {"FAULTS": 2, "DELETIONS": 1}),
    "locks, deletions": ("promptd", {"FAULTS": 1, "LOCKS": 1, "DELETIONS": 1, "REGENERATIONS": 1}),
    "two prompts": ("two_prompts", {"FAULTS": 2, "LOCKS": 1}),
    "mixed atomicity": ("promptd", {"FAULTS": 2, "DELETIONS": 1, "TRANSACTS": 2}),
    "every run ends": ("ending", {"FAULTS": 2, "LOCKS": 1}),
}

# The world in which a guard is missed, where it is not `deletions`.
MISSED_IN = {
    "undo_removes_leftover": "every run ends",
    "transact_needs_interview": "mixed atomicity",
    "transact_fails_if_not_moved": "transaction",
    "transact_removes_leftover": "mixed atomicity",
    "transact_looks_again": "mixed atomicity",
    "mark_commit_is_synchronous": "locks",
}

# What it means that an assertion with this in it is violated; the first that fits counts.
MEANINGS = {
    "non-progress cycle": "a run never ends",
    "excused": "an interview is made ready without its prompt",
    "!(settled[p])": "a settled prompt is deleted",
    "||settled[p]": "stored is reported, and is not so",
    "reported_failed": "what was reported as failed is made ready",
    "reported_stuck": "an interview waits for ever, and nobody is told",
    "reported_orphan": "a prompt stays unsettled, and nobody is told",
    "outcome": "a message has no outcome",
    "!(settled[0])||prompt[": "a settled prompt is gone",
    "!(settled[0])|| !(evidence[": "a settled prompt counts as unsettled",
    "settled[0]|| !(prompt[": "a prompt counts as settled, and is not so",
    "status==": "a status is overwritten that was not awaiting",
}


def read_guards():
    """{name: number}, as the model has them."""
    return dict(re.findall(r"^#define ([a-z]\w+) +(\d+)\b", MODEL.read_text(), re.MULTILINE))


def run(command, folder):
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}")


def build(folder, name):
    """Returns the folder that has the program, `pan`."""
    folder = folder / name
    program = folder / "pan"
    sources = [pathlib.Path(__file__), *HERE.glob("*.pml")]
    if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        folder.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        for_model, for_search = PROGRAMS[name]
        run(["spin", "-a", *for_model, MODEL], folder)
        # -O2 would take longer to compile than it saves.
        run(["cc", "-O1", "-w", *for_search, "-o", "pan", "pan.c"], folder)
    return folder


def build_all(folder, names):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: build(folder, name), names))


def programs_of(worlds):
    return {program for program, _ in worlds.values()}


class Search:
    def __init__(self, folder, world, without=0):
        program, variables = world
        self.folder = build(folder, program)
        self.environment = {name: str(value) for name, value in {**variables, "WITHOUT": without}.items()}
        # The depth that a search may reach: with `anybody`, who never ends, it is half of all states.
        arguments = ["-m1000000", "-n", "-w22"] + (["-l"] if program == "ending" else [])
        started = time.monotonic()
        text = self.pan(*arguments)
        self.seconds = time.monotonic() - started
        found = re.search(r"depth reached (\d+), errors: (\d+)\n\s*([\d.e+]+) states, stored", text)
        if not found:
            sys.exit(f"the search did not finish:\n{text}")
        self.depth, self.errors, self.states = int(found[1]), int(found[2]), int(float(found[3]))
        self.complete = not re.search(r"too small|not completed|out of memory|MEMLIM|aborted", text)
        error = re.search(r"^pan:1: (.*?)(?: \(at depth \d+\))?$", text, re.MULTILINE)
        self.error = error[1] if error else ""
        for part, meaning in MEANINGS.items():
            if part in self.error:
                self.error = meaning
                break

    def pan(self, *arguments):
        return subprocess.run(["./pan", *arguments], cwd=self.folder, env=self.environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def print(self, name, judgement):
        print(f"{name:29} {self.errors:6} {self.states:10,} {self.depth:7,} {self.seconds:7.1f}  {judgement}",
              flush=True)


def print_head(name):
    print(f"{name:29} {'errors':>6} {'states':>10} {'depth':>7} {'seconds':>7}")


def check_worlds(folder, worlds):
    """Returns the names of those with an error, or not searched completely."""
    build_all(folder, programs_of(worlds))
    failed = []
    print_head("world")
    for name, world in worlds.items():
        search = Search(folder, world)
        good = search.errors == 0 and search.complete
        search.print(name, "" if good else f"FAILED: {search.error or 'not searched completely'}")
        if not good:
            failed.append(name)
    return failed


def check_mutations(folder):
    """Returns the names of the guards that nobody misses."""
    guards = read_guards()
    worlds = {name: WORLDS[MISSED_IN.get(name, "deletions")] for name in guards}
    build_all(folder, programs_of(worlds))
    failed = []
    print_head("without")
    for name, number in guards.items():
        search = Search(folder, worlds[name], number)
        missed = search.errors > 0 and search.error
        search.print(name, search.error if missed else "FAILED: no error")
        if not missed:
            failed.append(name)
    return failed


def tell_story(folder, name):
    guards = read_guards()
    if name not in guards and name not in WORLDS:
        sys.exit(f"there is neither a guard nor a world {name}")
    program, variables = WORLDS[MISSED_IN.get(name, "deletions") if name in guards else name]
    shortest = {"promptd": "shortest", "two_prompts": "shortest_two_prompts"}.get(program, program)
    search = Search(folder, (shortest, variables), guards.get(name, 0))
    if not search.errors:
        sys.exit("no error")
    print(re.split(r"#processes|spin: trail", search.pan("-r", f"{MODEL.name}.trail", "-S"))[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "protocol", "mutations", "deep", "story"])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--in", dest="folder", type=pathlib.Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.resolve()
        if options.command == "build":
            return build_all(folder, programs_of(WORLDS))
        if options.command == "story":
            return tell_story(folder, options.name)
        if options.command == "mutations":
            return check_mutations(folder)
        return check_worlds(folder, WORLDS if options.command == "protocol" else DEEP_WORLDS)


if __name__ == "__main__":
    failures = main()
    sys.exit(f"failed: {', '.join(failures)}" if failures else 0)
