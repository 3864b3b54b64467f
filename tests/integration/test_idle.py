# SPDX-License-Identifier: MIT
"""With nothing to do promptd does next to nothing."""

import glob
import time

from support import admin
from support.wait import SLOW

SECONDS = 6


def cpu_ns(pid):
    """What all of its threads have used so far."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path, encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def test_under_a_thousandth_of_a_processor(start_promptd, new_folder):
    promptd = start_promptd(spool_dir=new_folder("spool"), statsd="127.0.0.1:9")
    http = admin.of(promptd)
    http.json("/healthz")
    before = cpu_ns(promptd.process.pid)
    time.sleep(SECONDS)  # the measure itself is time
    used = (cpu_ns(promptd.process.pid) - before) / 1e9 / SECONDS
    assert used < 0.001 * SLOW, f"{used:.4%} of a processor"
