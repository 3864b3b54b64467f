# SPDX-License-Identifier: MIT
"""Whoever listens to promptd's outcome events."""

import json

from .wait import wait_until


class Listener:
    def __init__(self, server, channel):
        self.channel = channel
        self._pubsub = server.admin.pubsub()
        self._confirmed = False
        self._heard = []
        self._pubsub.subscribe(channel)
        wait_until(lambda: self.raw() is not None and self._confirmed, f"the subscription of {channel}")

    def raw(self):
        """The payloads so far, oldest first."""
        while True:
            message = self._pubsub.get_message(timeout=0)
            if message is None:
                return self._heard
            if message["type"] == "message":
                self._heard.append(message["data"])
            else:
                self._confirmed = True

    def wait(self, count, timeout=10.0):
        """The events, once there are `count` of them."""
        wait_until(lambda: len(self.raw()) >= count, f"{count} events on {self.channel}", timeout, seen=self.raw)
        assert len(self._heard) == count, self._heard
        return [json.loads(payload) for payload in self._heard]

    def forget(self):
        self._heard.clear()

    def close(self):
        self._pubsub.close()
