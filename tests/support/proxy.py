# SPDX-License-Identifier: MIT
"""A TCP proxy that stands between promptd and a server, and fails on demand in the ways that networks do.

    proxy = Proxy(("127.0.0.1", port))     # or a path: a unix socket
    proxy.refuse()                         # nobody listens; restore() ends this and every other mode
    proxy.hang_up()                        # connections are taken and closed at once
    proxy.hang_up_next()                   # the same for the next connection only; those before and after it are served
    proxy.cut()                            # the open connections end now, new ones are served
    proxy.delay(0.2)                       # every chunk comes later, in both directions
    proxy.stall()                          # bytes are held back; none is lost, restore() lets them go
    proxy.swallow()                        # bytes vanish, connections stay open for ever
    proxy.deafen()                         # the same for the open connections only; new ones are served
    proxy.deafen_new()                     # the same for the new ones only; the open ones are served
    proxy.lose_reply(pattern)              # the request that matches arrives, its reply does not
    proxy.cut_at(pattern)                  # the request that matches does not arrive; with stay_away=True, and refuse
    proxy.deafen_at(pattern)               # the connection with the request that matches is deaf, from that request on
    proxy.truncate(TO_CLIENT, 1000)        # the next 1,000 bytes pass, then the connection is cut

Everything may be called from the test's thread at any time; when a call returns, it is in force.
"""

import asyncio
import re
import socket
import struct
import threading

from .process import Port

TO_SERVER, TO_CLIENT = "to server", "to client"

# The end of PostgreSQL's answer to a request: ReadyForQuery. What came before it is committed.
POSTGRES_READY = rb"Z\x00\x00\x00\x05[IET]\Z"

# A request may arrive in pieces; a pattern is found if it spans no more than this.
PATTERN_REACH = 256


class _Rule:
    def __init__(self, pattern, action, times, reply_end, stay_away):
        self.pattern = re.compile(pattern, re.IGNORECASE | re.DOTALL)
        self.action = action
        self.left = times
        self.reply_end = re.compile(reply_end, re.DOTALL)
        self.stay_away = stay_away  # and refuse from then on


class _Connection:
    def __init__(self, client_writer, server_writer):
        self.writers = (client_writer, server_writer)
        self.recent = b""          # the end of what went to the server, for patterns across chunks
        self.losing_reply = None   # the rule whose request was let through
        self.deaf = False          # whatever comes from either side vanishes
        self.recent_reply = b""

    def cut(self):
        """With a reset, as from a machine that crashed: what is still unread at the other end is lost."""
        for writer in self.writers:
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
                try:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass  # closed already
            writer.transport.abort()

    def end(self):
        """Politely: what was written is still delivered."""
        for writer in self.writers:
            writer.close()


class Proxy:
    def __init__(self, target):
        self.target = target
        self.accepted = 0      # connections taken since the start
        self.fired = 0         # how often a pattern has matched
        self._port = Port()
        self._connections = set()
        self._cuts = 0
        self._rules = []
        self._delay = 0.0
        self._swallowing = frozenset()
        self._refusing = False
        self._hanging_up = False
        self._hanging_up_next = False
        self._deafening_new = False
        self._truncate = {}    # direction: bytes that still pass
        self._server = None
        self._loop = asyncio.new_event_loop()
        self._flowing = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._open())

    @property
    def port(self):
        return self._port.number

    @property
    def open(self):
        return len(self._connections)

    def close(self):
        self._call(self._shut(cut=True))
        self._call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._port.release()

    # Modes

    def refuse(self):
        self._call(self._shut(cut=True))

    def hang_up(self):
        async def apply():
            self._hanging_up = True
            self._cut_all()
            if self._server is None:
                await self._open()
        self._call(apply())

    def hang_up_next(self):
        def apply():
            self._hanging_up_next = True
        self._call(self._do(apply))

    def cut(self):
        self._call(self._do(self._cut_all))

    def delay(self, seconds):
        self._delay = seconds

    def stall(self, *directions):
        def apply():
            for direction in directions or (TO_SERVER, TO_CLIENT):
                self._flowing[direction].clear()
        self._call(self._do(apply))

    def swallow(self, *directions):
        def apply():
            self._swallowing = frozenset(directions or (TO_SERVER, TO_CLIENT))
        self._call(self._do(apply))

    def deafen(self):
        """As when a firewall forgets its connections: they stay open, and carry nothing any more."""
        def apply():
            for connection in self._connections:
                connection.deaf = True
        self._call(self._do(apply))

    def deafen_new(self):
        def apply():
            self._deafening_new = True
        self._call(self._do(apply))

    def restore(self):
        """Back to faithful service. Connections that lost bytes are cut: nothing could mend them."""
        async def apply():
            lost = bool(self._swallowing)
            self._delay, self._swallowing = 0.0, frozenset()
            self._hanging_up = self._hanging_up_next = self._deafening_new = False
            self._rules.clear()
            self._truncate.clear()
            if lost:
                self._cut_all()
            for flowing in self._flowing.values():
                flowing.set()
            if self._server is None:
                await self._open()
        self._call(apply())

    # Faults at a certain place

    def lose_reply(self, pattern, times=1, reply_end=rb"\Z", stay_away=False):
        """Lets the request through, waits for the end of the server's reply, and cuts instead of passing it on."""
        self._add(_Rule(pattern, "lose reply", times, reply_end, stay_away))

    def cut_at(self, pattern, times=1, stay_away=False):
        self._add(_Rule(pattern, "cut", times, rb"\Z", stay_away))

    def deafen_at(self, pattern, times=1):
        self._add(_Rule(pattern, "deafen", times, rb"\Z", False))

    def truncate(self, direction, after_bytes):
        """Once: for the connection that gets so far first."""
        def apply():
            self._truncate = {direction: after_bytes}
        self._call(self._do(apply))

    def _add(self, rule):
        self._call(self._do(lambda: self._rules.append(rule)))

    # The loop's side

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    @staticmethod
    async def _do(function):
        function()

    async def _open(self):
        if not self._flowing:
            self._flowing = {TO_SERVER: asyncio.Event(), TO_CLIENT: asyncio.Event()}
            for flowing in self._flowing.values():
                flowing.set()
        self._refusing = False
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _shut(self, cut):
        self._refusing = True
        if self._server is not None:
            self._server.close()
            self._server = None
        if cut:
            self._cut_all()
        await asyncio.sleep(0)

    def _cut_all(self):
        self._cuts += 1
        for connection in list(self._connections):
            connection.cut()

    async def _serve(self, client_reader, client_writer):
        self.accepted += 1
        if self._refusing:  # it was taken just before
            client_writer.transport.abort()
            return
        if self._hanging_up or self._hanging_up_next:
            self._hanging_up_next = False
            client_writer.transport.abort()
            return
        cuts = self._cuts
        try:
            if isinstance(self.target, str):
                server_reader, server_writer = await asyncio.open_unix_connection(self.target)
            else:
                server_reader, server_writer = await asyncio.open_connection(*self.target)
        except OSError:
            client_writer.transport.abort()
            return
        connection = _Connection(client_writer, server_writer)
        if cuts != self._cuts:  # it was on its way meanwhile
            connection.cut()
            return
        connection.deaf = self._deafening_new
        self._connections.add(connection)
        pumps = [asyncio.ensure_future(self._pump(connection, TO_SERVER, client_reader, server_writer)),
                 asyncio.ensure_future(self._pump(connection, TO_CLIENT, server_reader, client_writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in connection.writers:
                writer.close()

    async def _pump(self, connection, direction, reader, writer):
        while True:
            try:
                data = await reader.read(65536)
            except OSError:
                return
            if not data:
                return
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flowing[direction].wait()
            if direction in self._swallowing or connection.deaf:
                continue
            passes = self._check_request if direction == TO_SERVER else self._check_reply
            if not passes(connection, data):
                if connection.losing_reply is None:
                    connection.cut()
                    return
                continue
            if connection.deaf:
                continue
            last = self._is_last(direction, data)
            try:
                writer.write(data[:last])
                await writer.drain()
            except OSError:
                return
            if last is not None:
                connection.end()
                return

    def _is_last(self, direction, data):
        """How many of these bytes may pass before the connection ends; None: all, and it goes on."""
        left = self._truncate.get(direction)
        if left is None:
            return None
        self._truncate[direction] = left - len(data)
        if left > len(data):
            return None
        del self._truncate[direction]
        return left

    def _check_request(self, connection, data):
        """False: the connection is to be cut before these bytes."""
        seen = connection.recent + data
        connection.recent = seen[-PATTERN_REACH:]
        for rule in self._rules:
            if rule.left > 0 and connection.losing_reply is None and rule.pattern.search(seen):
                rule.left -= 1
                self.fired += 1
                connection.recent = b""
                if rule.action == "cut":
                    self._stay_away_after(rule)
                    return False
                if rule.action == "deafen":
                    connection.deaf = True
                    return True
                connection.losing_reply = rule
        return True

    def _check_reply(self, connection, data):
        """False: not to be passed on; with losing_reply cleared the whole reply has come and the time to cut is now."""
        rule = connection.losing_reply
        if rule is None:
            return True
        connection.recent_reply = (connection.recent_reply + data)[-PATTERN_REACH:]
        if rule.reply_end.search(connection.recent_reply):
            connection.losing_reply = None
            self._stay_away_after(rule)
        return False

    def _stay_away_after(self, rule):
        """Before anyone can have dialled again."""
        if rule.stay_away and self._server is not None:
            self._refusing = True
            self._server.close()
            self._server = None
            self._cut_all()
