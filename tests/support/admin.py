# SPDX-License-Identifier: MIT
"""The admin interface of a promptd, as a client sees it."""

import http.client
import json
import re
import socket
from urllib.parse import urlsplit

from .wait import SLOW

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? ([^ ]+)")


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        assert self.headers["Content-Type"] == "application/json"
        assert self.headers["Cache-Control"] == "no-store"
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Admin:
    """url: http://host:port/ or unix:/path, as the log has it."""

    def __init__(self, url):
        self.url = url
        self.unix_path = url.removeprefix("unix:") if url.startswith("unix:") else None
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port)

    def connection(self, timeout=5.0):
        if self.unix_path:
            return UnixConnection(self.unix_path, timeout * SLOW)
        return http.client.HTTPConnection(*self.address, timeout=timeout * SLOW)

    def ask(self, path, method="GET", headers=None, body=None, timeout=5.0):
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def json(self, path, status=200):
        answer = self.ask(path)
        assert answer.status == status, (answer.status, answer.body)
        return answer.json()

    def metrics(self):
        """{"name" or 'name{label="x"}': number} of one answer."""
        answer = self.ask("/metrics")
        assert answer.status == 200
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {match[1] + (match[2] or ""): float(match[3]) for match in map(SAMPLE.fullmatch, lines)}

    def raw(self, timeout=5.0):
        """A bare connection, for what is no proper request."""
        bare = socket.create_connection(self.address, timeout * SLOW)
        return bare


def of(promptd):
    """That of a promptd that was started with admin_listen."""
    return Admin(promptd.wait_line("INFO", "admin listening").fields["url"])
