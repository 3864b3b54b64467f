# SPDX-License-Identifier: MIT
"""A queue of one test with promptctl on it."""

from .queue import Queue


class CtlQueue(Queue):
    def __init__(self, server, mode, promptctl):
        super().__init__(server, mode)
        self.redis = server.admin
        self._promptctl = promptctl

    def settings(self, **more):
        return {"redis_mode": self.mode, "redis_url": self.server.url, "redis_channel": self.name, **more}

    def ctl(self, *arguments, **options):
        return self._promptctl(*arguments, **self.settings(**options))

    def on_terminal(self, *arguments, **options):
        return self._promptctl.on_terminal(*arguments, **self.settings(**options))

    def waiting(self):
        """Messages, the one that is taken next first."""
        if self.mode == "list":
            return self.redis.lrange(self.name, 0, -1)[::-1]
        return [fields[b"message"] for _, fields in self.redis.xrange(self.name)]

    def add_dead(self, message=None, **fields):
        """As promptd writes it: what there is nothing to say of is left out. Returns the id."""
        fields = {"message": message, "outcome": "rejected", "reason": "not_json", "at": "2026-11-23T16:01:02.345Z", **fields}
        return self.redis.xadd(self.dead_key, {name: value for name, value in fields.items() if value is not None}).decode()

    def dead_ids(self):
        return [entry.decode() for entry, _ in self.redis.xrange(self.dead_key)]

    def spoil(self):
        """The key is of another type than the mode wants."""
        self.redis.delete(self.name)
        if self.mode == "list":
            self.redis.xadd(self.name, {"message": "x"})
        else:
            self.redis.lpush(self.name, "x")

    def everything(self):
        """All keys of this test's, and what is in them."""
        return {key: self.redis.dump(key) for key in self.redis.keys(f"*{self.name}*")}

    def other_keys(self):
        return set(self.everything()) - {self.name.encode(), self.dead_key.encode()}


def account(queue, *rules):
    """A user `worker` with these rights; returns the URL."""
    queue.redis.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rules)
    return queue.server.url.replace("redis://", "redis://worker:secret@")


def keys_of(queue):
    return [f"~{queue.name}", f"~{{{queue.name}}}:*"]
