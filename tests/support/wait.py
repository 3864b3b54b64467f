# SPDX-License-Identifier: MIT
"""Waiting for conditions instead of for time."""

import os
import time

# Sanitizers and valgrind slow everything down; they set a factor for every limit.
SLOW = float(os.environ.get("PROMPTD_TEST_SLOW", "1"))


def wait_until(condition, what, timeout=10.0, seen=None, interval=0.01):
    """Polls until condition() is true and returns its value. `seen` gives the state to show when it never is."""
    limit = timeout * SLOW
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            last = seen() if seen else value
            raise AssertionError(f"waited {limit:g} s for {what}; last seen: {last!r}")
        time.sleep(interval)
