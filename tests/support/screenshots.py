# SPDX-License-Identifier: MIT
"""Draws the pictures of the status page into a folder: called by scripts/screenshots. The states are samples; that a
promptd serves such states is shown by integration/test_page.py."""

import os
import sys
import tempfile

from .browser import Browser
from .page_server import PageServer, sample_id, sample_points, sample_status, time_before, trouble


def orphan():
    status = sample_status()
    status["orphans"] = [{"interview_id": sample_id(50), "prompt_id": sample_id(1050), "since": time_before(190)}]
    status["troubles"].insert(0, trouble(190, "orphaned", 50, "permission denied for table interview_enhanced_prompts",
                                         "42501"))
    status["counters"].update(failure=20, orphaned=1, received=status["counters"]["received"] + 1)
    status["history"]["points"][-38]["failed"] = 1
    status["spool"].update(dead_letters=1, dead_bytes=2100)
    return status


def database_away():
    status = sample_status()
    status.update(ready=False, ready_since=time_before(42),
                  not_ready=["the database does not answer, or takes no writes"])
    status["database"].update(up=False, connections=0)
    status["history"]["points"] = sample_points(until=42)
    status["queue"].update(messages=40, bytes=81231)
    status["spool"].update(messages=912, bytes=2412000)
    status["counters"].update(waiting=912, received=status["counters"]["received"] + 909)
    return status


PICTURES = {
    "status-page": (sample_status, {}),
    "status-page-dark": (sample_status, {"dark": True}),
    "status-page-phone": (sample_status, {"width": 360, "height": 740}),
    "status-page-orphan": (orphan, {}),
    "status-page-database-away": (database_away, {"dark": True}),
}


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        browser, server = Browser(scratch), PageServer()
        try:
            for name, (state, look) in PICTURES.items():
                server.status = state()
                browser.look(**look)
                browser.open(server.url)
                browser.wait_text("#updated", "as of")
                path = os.path.join(folder, f"{name}.png")
                browser.picture(path)
                print(path)
        finally:
            browser.close()
            server.close()


if __name__ == "__main__":
    main()
