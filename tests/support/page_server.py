# SPDX-License-Identifier: MIT
"""The status page without a promptd: served with promptd's own policy, over a state of the caller's choice.

For states that would take ten minutes, or a hostile database, to come about by themselves, and for the pictures of the
manual. What a real promptd serves is tested in integration/test_page.py."""

import http.server
import json
import os
import random
import re
import threading
from datetime import datetime, timedelta, timezone

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "src/report/page")
POLICY = ("default-src 'none'; script-src 'nonce-n'; style-src 'nonce-n'; img-src data:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")

NOW = datetime(2026, 11, 24, 16, 1, 2, tzinfo=timezone.utc)
REASONS = ("too_large", "invalid_utf8", "not_json", "trailing_data", "not_object", "duplicate_field",
           "missing_interview_id", "invalid_interview_id", "missing_enhanced_prompt", "invalid_enhanced_prompt",
           "prompt_too_short", "prompt_too_long", "prompt_has_nul", "invalid_source")


def page():
    """As the build puts it together, and promptd serves it."""
    def part(name):
        with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
            return file.read()

    return re.sub(r"\{\{(\w+\.\w+)\}\}", lambda match: part(match[1]), part("index.html")).replace("{{nonce}}", "n")


def time_before(seconds):
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def sample_id(number):
    return f"{number * 0x9E3779B1 % 2**32:08x}-3b1d-4c8e-9f7a-{number * 0x51ED270B % 2**48:012x}"


def sample_points(rate=14, until=0):
    """Ten minutes of a workday; the same for each call. Nothing is stored in the last `until` seconds."""
    chance, points = random.Random(7), []
    for i in range(120):
        age = (119 - i) * 5
        burst = 0.8 if 70 < i < 78 else 0
        received = max(0, round(5 * rate * (1 + 0.45 * (i / 120) + 0.3 * chance.uniform(-1, 1) + burst)))
        stored = 0 if age < until else received
        p50 = 0 if not stored else 2.2 + chance.random() + (1.5 if 70 < i < 78 else 0)
        points.append({"time": time_before(age), "received": received, "stored": stored, "failed": 0,
                       "p50_ms": p50, "p99_ms": p50 * (2.2 + 2 * chance.random() ** 3)})
    return points


def sample_status():
    """A promptd that is well, as its /status says it."""
    points = sample_points()
    return {
        "version": "0.2.0", "state": "running", "started_at": time_before(2 * 86400 + 11000),
        "timestamp": time_before(0),
        "uptime_seconds": 2 * 86400 + 11000, "pid": 4127, "ready": True,
        "ready_since": time_before(2 * 86400 + 10998), "not_ready": [],
        "redis": {"server": "redis.internal:6379", "channel": "interviewly:prompt-ready", "mode": "pubsub",
                  "connected": True, "circuit_open": False, "failures": 0, "last_message_received": time_before(0.3),
                  "last_health_check": time_before(2.1), "gaps": 1, "gap_seconds": 7.2},
        "database": {"up": True, "circuit_open": False, "connections": 4, "connections_wanted": 4},
        "queue": {"messages": 3, "bytes": 7412, "max_messages": 10000, "max_bytes": 67108864},
        "spool": {"directory": "/var/lib/promptd", "messages": 3, "bytes": 7412, "max_bytes": 1073741824,
                  "dead_letters": 0, "dead_bytes": 0, "writable": True},
        "atomicity": "compensate",
        "counters": {"received": 1284011, "success": 1283204, "duplicate": 771, "failure": 19, "rollback": 17,
                     "orphaned": 0, "rejected": 14,
                     "rejected_by": dict.fromkeys(REASONS, 0) | {"prompt_too_short": 11, "not_json": 3},
                     "dropped": 0, "waiting": 3, "retries": 42, "redis_reconnections": 1, "database_reconnections": 1},
        "history": {"interval_seconds": 5, "points": points},
        "orphans": [],
        "troubles": [trouble(3 * 3600, "rolled back", 5, "no longer awaiting"),
                     trouble(5 * 3600 + 240, "rejected", 6, "prompt_too_short", prompt=False),
                     trouble(21 * 3600, "not stored", 7, "value too long for type character varying(100)", "22001")],
    }


def trouble(age, outcome, number, reason, sqlstate=None, prompt=True):
    return {"time": time_before(age), "outcome": outcome, "interview_id": sample_id(number),
            "prompt_id": sample_id(number + 1000) if prompt else None, "reason": reason, "sqlstate": sqlstate}


class PageServer:
    """Serves the page at url, and `status` (a dict, or bytes as they are) at url/status."""

    def __init__(self, status=None):
        self.status = status or sample_status()
        self.posts = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/":
                    self.answer("text/html; charset=utf-8", page().encode(), POLICY)
                elif self.path == "/status":
                    raw = isinstance(outer.status, bytes)
                    self.answer("application/json", outer.status if raw else json.dumps(outer.status).encode())
                else:
                    self.send_error(404)

            def do_POST(self):
                outer.posts.append(self.path)
                self.answer("application/json", b"{}")

            def answer(self, kind, body, policy=None):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
