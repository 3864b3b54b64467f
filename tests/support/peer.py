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
