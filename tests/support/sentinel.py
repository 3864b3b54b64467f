# SPDX-License-Identifier: MIT
"""A master, its replicas, and the Sentinels that watch over them: real ones, on loopback."""

import os
import shutil
import signal

import redis

from .process import Port, end, spawn, wait_for_server
from .redis_server import RedisServer
from .wait import wait_until

PROGRAM = shutil.which("redis-sentinel")
SERVICE = "mymaster"
DOWN_AFTER_MS = 1000


class Sentinel:
    def __init__(self, folder, master, quorum, *lines):
        self.folder = folder
        self.log_path = os.path.join(folder, "sentinel.log")
        self._config = os.path.join(folder, "sentinel.conf")
        self._port = Port()
        self._process = None
        with open(self._config, "w", encoding="ascii") as file:
            file.write("\n".join([
                f"port {self.port}", "bind 127.0.0.1 -::1", f"dir {folder}",
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {quorum}",
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {SERVICE} 5000", *lines, ""]))
        self.admin = redis.Redis(port=self.port, password=self._password(lines))
        self.start()

    @staticmethod
    def _password(lines):
        return next((line.split()[1] for line in lines if line.startswith("requirepass ")), None)

    @property
    def port(self):
        return self._port.number

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        with open(self.log_path, "ab") as log:
            self._process = spawn([PROGRAM, self._config], stdout=log, stderr=log)
        wait_for_server(self._process, self._answers, "Sentinel", self.log_path)

    def _answers(self):
        try:
            return self.admin.ping()
        except redis.ConnectionError:
            return False

    def ask(self, *words):
        """Words as they are: redis-py cannot ask a Sentinel that has a password."""
        return self.admin.execute_command("SENTINEL", *words)

    def master_port(self):
        return int(self.ask("GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def sees_all(self, replicas, sentinels):
        """It may take part in a failover: it knows everybody, and each of them is well."""
        known = [*self.ask("REPLICAS", SERVICE), *self.ask("SENTINELS", SERVICE)]
        states = [dict(zip(each[::2], each[1::2])) if isinstance(each, list) else each for each in known]
        flags = [state.get(b"flags", state.get("flags")) for state in states]
        return len(flags) == replicas + sentinels - 1 and {bytes(f) if isinstance(f, bytes) else f.encode()
                                                           for f in flags} <= {b"slave", b"sentinel"}

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self, with_signal=signal.SIGTERM):
        if self._process is not None:
            self.thaw()
            end(self._process, with_signal)
            self._process = None

    def close(self):
        self.admin.close()
        self.stop()
        self._port.release()


class Group:
    """One master and `replicas` more servers under the eyes of three Sentinels."""

    def __init__(self, new_folder, replicas=1, server_options=(), sentinel_lines=(), password=None):
        """`password` is that of the servers, where the options give them one."""
        self.servers, self.sentinels = [], []
        self._password = password
        try:
            self._start(new_folder, replicas, server_options, sentinel_lines)
        except BaseException:
            self.close()
            raise

    def _start(self, new_folder, replicas, server_options, sentinel_lines):
        self.servers.append(RedisServer(new_folder("redis"), *server_options))
        follow = ["--replicaof", f"127.0.0.1 {self.servers[0].port}", "--repl-diskless-sync-delay", "0"]
        for _ in range(replicas):
            self.servers.append(RedisServer(new_folder("redis"), *server_options, *follow))
        if self._password:
            for server in self.servers:
                server.log_in(self._password)
        for _ in range(3):
            self.sentinels.append(Sentinel(new_folder("sentinel"), self.servers[0], 2, *sentinel_lines))
        self.wait_whole()

    def wait_whole(self):
        """Every Sentinel knows all the others and all the servers: a failover would succeed."""
        wait_until(lambda: all(each.sees_all(len(self.servers) - 1, 3) for each in self.sentinels),
                   "the Sentinels to know each other and the replicas", 40,
                   seen=lambda: [(each.ask("REPLICAS", SERVICE), each.ask("SENTINELS", SERVICE))
                                 for each in self.sentinels])

    @property
    def url(self):
        return self.url_with()

    def url_with(self, user_info="", path=f"/{SERVICE}"):
        return f"redis+sentinel://{user_info}{','.join(each.address for each in self.sentinels)}{path}"

    def server_at(self, port):
        return next(server for server in self.servers if server.port == port)

    def master(self, but=None):
        """Whom the Sentinels agree on, once that is another than `but`."""
        def agreed():
            ports = {each.master_port() for each in self.sentinels}
            return len(ports) == 1 and not (but and but.port in ports) and self.server_at(ports.pop())

        return wait_until(agreed, "the Sentinels to agree on a master", 40,
                          seen=lambda: [each.master_port() for each in self.sentinels])

    def close(self):
        for each in [*self.sentinels, *self.servers]:
            each.close()
