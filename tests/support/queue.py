# SPDX-License-Identifier: MIT
"""A list or a stream of one test: what is pushed there, and what Redis says of it."""

import redis

from .process import Port
from .redis_server import Channel, Message, RedisServer
from .wait import wait_until

MODES = ("list", "stream")


class ClusterNode(RedisServer):
    """Its bus has a port that was looked for, too: the usual one, 10,000 higher, may be an outgoing connection's."""

    def __init__(self, folder):
        self._bus = Port()
        super().__init__(folder, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no",
                         "--cluster-port", str(self._bus.number))

    @property
    def bus_port(self):
        return self._bus.number

    def close(self):
        super().close()
        self._bus.release()


def new_cluster(new_folder, closing):
    """Two servers of a Redis Cluster: the first has all keys, the second says so."""
    servers = [closing(ClusterNode(new_folder("redis"))) for _ in range(2)]
    servers[0].admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    servers[1].admin.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus_port)

    def knows():
        try:
            servers[1].admin.get("x")
        except redis.ResponseError as error:
            return "MOVED" in str(error) or str(error).startswith("16287 ")
        return False

    wait_until(knows, "the second server to know who has the keys", 30)
    return servers


class Queue(Channel):
    """Keys as the contract names them; `mode` is promptd's redis_mode."""

    def __init__(self, server, mode, name=None):
        super().__init__(server, name)
        self.mode = mode
        self.dead_key = f"{{{self.name}}}:dead"

    def add(self, client, payload):
        if self.mode == "list":
            client.lpush(self.name, payload)
        else:
            client.xadd(self.name, {"message": payload})

    def length(self, client):
        return client.llen(self.name) if self.mode == "list" else client.xlen(self.name)

    def push_raw(self, payload):
        self.add(self.server.admin, payload)

    def push(self, interview, text=None, source="rag"):
        message = self.message(interview, text, source)
        self.push_message(message)
        return message

    def push_message(self, message):
        self.published.append(message.prompt)
        self.push_raw(message.framed())

    def push_burst(self, payloads):
        pipeline = self.server.admin.pipeline(transaction=False)
        for payload in payloads:
            if isinstance(payload, Message):
                self.published.append(payload.prompt)
                payload = payload.framed()
            self.add(pipeline, payload)
        pipeline.execute()

    def subscribers(self):
        """promptds that take messages here."""
        admin = self.server.admin
        if self.mode == "list":
            return len(admin.keys(f"{{{self.name}}}:consumer:*"))
        return sum(1 for line in admin.client_list() if line["cmd"].startswith("xreadgroup"))

    def backlog(self):
        """Not taken by anyone."""
        admin = self.server.admin
        if self.mode == "list":
            return admin.llen(self.name)
        return sum(group["lag"] or 0 for group in admin.xinfo_groups(self.name) if group["name"] == b"promptd")

    def pending(self):
        """Taken, and not acknowledged."""
        admin = self.server.admin
        if self.mode == "list":
            return sum(admin.llen(key) for key in admin.keys(f"{{{self.name}}}:processing:*"))
        return admin.xpending(self.name, "promptd")["pending"]

    def left(self):
        """Whatever Redis has of messages, but for the dead."""
        if self.mode == "stream":
            return self.server.admin.xlen(self.name)
        return self.backlog() + self.pending()

    def wait_empty(self, timeout=20.0):
        wait_until(lambda: self.left() == 0, "Redis to have no message left", timeout,
                   seen=lambda: (self.backlog(), self.pending()))

    def payloads(self):
        """Of all that is left, whoever has taken it."""
        admin = self.server.admin
        if self.mode == "stream":
            return [fields[b"message"] for _, fields in admin.xrange(self.name)]
        pipeline = admin.pipeline(transaction=True)
        for key in (self.name, *admin.keys(f"{{{self.name}}}:processing:*")):
            pipeline.lrange(key, 0, -1)
        return [payload for payloads in pipeline.execute() for payload in payloads]

    def give_up(self, consumer, client):
        """As if nothing had been heard of this one for as long as others wait before they take what it had."""
        if self.mode == "list":
            client.delete(f"{{{self.name}}}:consumer:{consumer}")
            return
        pending = client.xpending_range(self.name, "promptd", "-", "+", 100_000, consumer)
        ids = [entry["message_id"] for entry in pending]
        if ids:
            client.xclaim(self.name, "promptd", consumer, 0, ids, idle=60000, justid=True)

    def dead(self):
        return [{name.decode(): value.decode("utf-8", "replace") for name, value in fields.items()}
                for _, fields in self.server.admin.xrange(self.dead_key)]
