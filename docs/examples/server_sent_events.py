#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Passes promptd's outcome events on to browsers, as server-sent events. Needs the package redis.

In the browser: new EventSource("/interviews/ID/events").onmessage = e => show(JSON.parse(e.data).status)
Anyone may ask here about any interview: in your backend whoever asks is logged in, and may see it.
"""
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

REDIS = redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
CHANNEL = os.environ.get("EVENTS_CHANNEL", "interviewly:prompt-events")


class Browser(BaseHTTPRequestHandler):
    def do_GET(self):
        interview = self.path.removeprefix("/interviews/").removesuffix("/events").lower()
        with REDIS.pubsub(ignore_subscribe_messages=True) as events:
            events.subscribe(CHANNEL)
            events.get_message(timeout=5)  # the confirmation: from here on nothing is missed
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            # Here belongs a look at the interview's status in the database: what has ended before has no event any more.
            while self.pass_on(interview, events.get_message(timeout=15)):
                pass

    def pass_on(self, interview, message):
        event = json.loads(message["data"]) if message else {}
        line = ":\n\n"  # nothing for so long: a comment, which finds out whether the browser is still there
        if event.get("interview_id") == interview:  # the event's reason is for the operators of promptd
            line = "data: " + json.dumps({"outcome": event["outcome"], "status": event.get("status")}) + "\n\n"
        elif event:
            return True
        try:
            self.wfile.write(line.encode())
        except ConnectionError:
            return False
        return True


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Browser).serve_forever()
