# SPDX-License-Identifier: MIT
"""What speaks TLS: a Redis, and a wrapper around one."""

import contextlib
import os
import re
import selectors
import socket
import ssl
import struct
import subprocess
import threading

import redis

from .process import Port, end, spawn, wait_for_server
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


class TlsSentinel:
    """One Sentinel, which speaks TLS to whoever asks it and to the server that it watches."""

    def __init__(self, folder, server, authority, certificate, service="mymaster"):
        self._port = Port()
        self.log_path = os.path.join(folder, "sentinel.log")
        config = os.path.join(folder, "sentinel.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write("\n".join([
                "port 0", f"tls-port {self.port}", "bind 127.0.0.1", f"dir {folder}", f"tls-cert-file {certificate.file}",
                f"tls-key-file {certificate.key}", f"tls-ca-cert-file {authority.file}", "tls-auth-clients optional",
                "tls-replication yes", f"sentinel monitor {service} 127.0.0.1 {server.port} 1", ""]))
        self._admin = redis.Redis(port=self.port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False)
        with open(self.log_path, "ab") as log:
            self._process = spawn(["redis-server", config, "--sentinel"], stdout=log, stderr=log)
        wait_for_server(self._process, self._answers, "Sentinel", self.log_path)

    @property
    def port(self):
        return self._port.number

    def _answers(self):
        try:
            return self._admin.ping()
        except redis.ConnectionError:
            return False

    def close(self):
        self._admin.close()
        end(self._process)
        self._port.release()


class TlsResetter:
    """Finishes the handshake and resets the connection, as a server's reset that overtakes its alert looks to a client."""

    def __init__(self, certificate, authority, asks):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.file, certificate.key)
        self._context.load_verify_locations(authority.file)
        self._context.verify_mode = ssl.CERT_OPTIONAL if asks else ssl.CERT_NONE
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rediss://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as client:
                client.recv(1)  # the handshake is over, and the first command is there
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


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
