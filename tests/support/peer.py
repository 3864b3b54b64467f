# SPDX-License-Identifier: MIT
"""A peer that is no Redis, or none that behaves. For what a real server cannot be brought to say; all else is tested
with a real one.

    peer = Peer(lambda client: client.say(b"+OK\\r\\n"))    # called for each connection, on a thread of its own
    peer = Peer(subscribes)                               # behaves: takes any login, and one subscription
"""

import socket
import struct
import threading

from .process import Port


# What no Redis says to anybody: no RESP, what RESP2 has not, and what promises more than anybody could read.
NONSENSE = {
    "nothing but a line end": b"\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "noise": bytes(range(128, 256)) * 100,
    "zeros": bytes(1000),
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "RESP3 push": b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\na\r\n",
    "RESP3 map": b"%1\r\n+a\r\n+b\r\n",
    "RESP3 null": b"_\r\n",
    "RESP3 double": b",1.5\r\n",
    "RESP3 attribute": b"|1\r\n+a\r\n+b\r\n",
    "nested too deep": b"*1\r\n" * 10,
    "huge array": b"*2147483647\r\n",
    "many arrays": b"*65535\r\n" * 7,
    "array beyond numbers": b"*99999999999999999999999\r\n",
    "negative count": b"*-5\r\n",
    "string beyond 512 MB": b"$536870913\r\n",
    "negative length": b"$-5\r\n",
    "length that is no number": b"$1x\r\n",
    "endless line": b"+" + b"a" * 100_000,
    "string without an end": b"$2\r\nOKOK\r\n",
}


class Gone(Exception):
    """The other end has closed the connection."""


class Client:
    """One connection, as the peer sees it."""

    def __init__(self, connection, number):
        self.number = number  # counts from 0
        self._socket = connection
        self._file = connection.makefile("rb")

    def hear(self):
        """The next command, as its words."""
        head = self._file.readline()
        if not head:
            raise Gone()
        words = []
        for _ in range(int(head[1:])):
            length = int(self._file.readline()[1:])
            words.append(self._file.read(length + 2)[:-2])
        return words

    def hear_some(self):
        """Whatever has come, if it is no command."""
        return self._socket.recv(65536)

    def say(self, data):
        self._socket.sendall(data)

    def close(self):
        """Politely; a reset if something that came lies unread."""
        self._file.close()
        self._socket.close()

    def reset(self):
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def answer(client, words):
    """What Redis answers to the commands that promptd sends, but for the messages."""
    if words[0] == b"SUBSCRIBE":
        client.say(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(words[1]), words[1]))
    else:
        client.say(b"+OK\r\n")


def subscribe(client):
    """Up to the first subscription; returns the channel."""
    while True:
        words = client.hear()
        answer(client, words)
        if words[0] == b"SUBSCRIBE":
            return words[1]


def behave(client):
    while True:
        answer(client, client.hear())


def message(channel, payload):
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(payload), payload)


class Peer:
    def __init__(self, serve):
        self.accepted = 0
        self._serve = serve
        self._port = Port()
        self._connections = []
        self._listener = socket.create_server(("127.0.0.1", self._port.number))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self):
        return self._port.number

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._connections.append(connection)
            client = Client(connection, self.accepted)
            self.accepted += 1
            threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client):
        try:
            self._serve(client)
        except (Gone, OSError, ValueError):
            pass  # the other end has gone, or this end was closed

    def close(self):
        for each in (self._listener, *self._connections):
            try:
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
            except OSError:
                pass
            each.close()
        self._port.release()
