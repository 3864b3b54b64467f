# SPDX-License-Identifier: MIT
"""What speaks TLS: a Redis, and a wrapper around one."""

import os
import re
import selectors
import socket
import subprocess
import threading

from .process import Port, end
from .redis_server import RedisServer
from .wait import wait_until


class TlsRedis(RedisServer):
    """Listens with TLS alone; the tests' own connection goes through its unix socket."""

    def __init__(self, folder, authority, certificate, *options, **more):
        self.authority = authority
        self.certificate = certificate
        super().__init__(folder, *options, **more)

    @property
    def url(self):
        return f"rediss://{self.address}:{self.port}"

    @property
    def plain_url(self):
        return f"redis://{self.address}:{self.port}"

    def listening(self):
        return ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", self.certificate.file, "--tls-key-file",
                self.certificate.key, "--tls-ca-cert-file", self.authority.file, "--tls-auth-clients", "optional"]


class KeyTurner:
    """TLS in front of a plain Redis by `openssl s_server`, for one connection: it can ask for new keys (KeyUpdate), speak an
    old TLS, or have a second certificate for those who say the right name (SNI)."""

    def __init__(self, folder, certificate, target, *options):
        self._port = Port()
        self.turned = 0
        self._target = socket.create_connection(target)
        self.log_path = os.path.join(folder, "s_server.log")
        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                ["openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", certificate.file, "-key",
                 certificate.key, "-naccept", "1", *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True)
        self._greeting = b""
        self._connected = False
        self._thread = threading.Thread(target=self._carry, daemon=True)
        wait_until(self._listens, "openssl s_server to listen", 10)
        self._thread.start()

    @property
    def port(self):
        return self._port.number

    def _listens(self):
        self._greeting += os.read(self._process.stdout.fileno(), 4096)
        return b"ACCEPT" in self._greeting

    def turn_keys(self):
        """New keys for what we send, and the other side is asked for the same."""
        self._process.stdin.write(b"K\n")
        self.turned += 1

    def _carry(self):
        out, selector = self._process.stdout.fileno(), selectors.DefaultSelector()
        selector.register(out, selectors.EVENT_READ)
        selector.register(self._target, selectors.EVENT_READ)
        seen = b""
        while True:
            for key, _ in selector.select():
                data = os.read(out, 65536) if key.fd == out else self._target.recv(65536)
                if not data:
                    return
                if key.fd != out:
                    self._process.stdin.write(data)
                    continue
                seen += data
                commands = self._commands(seen)
                if commands:
                    self._target.sendall(commands)
                    seen = b""

    @staticmethod
    def _commands(seen):
        """s_server tells of the session and of keys between the bytes that it passes on."""
        found = re.findall(rb"\*\d+\r\n(?:\$\d+\r\n[^\r]*\r\n)+", seen)
        return b"".join(found)

    def close(self):
        end(self._process)
        self._target.close()
        self._thread.join(5)
        self._process.stdin.close()
        self._process.stdout.close()
        self._port.release()
