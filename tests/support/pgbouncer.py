# SPDX-License-Identifier: MIT
"""A private PgBouncer in transaction mode: every transaction may run in another session."""

import os
import shutil
import signal
import socket

from .postgres import ROLE
from .process import Port, end, give_to, spawn, unprivileged_user, wait_for_server

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


class PgBouncer:
    def __init__(self, folder, database, pool_size):
        self._port = Port()
        self.log_path = os.path.join(folder, "pgbouncer.log")
        settings = os.path.join(folder, "pgbouncer.ini")
        with open(settings, "w", encoding="ascii") as file:
            file.write(f"""\
[databases]
{database.name} = host=127.0.0.1 port={database.cluster.port} dbname={database.name} user={ROLE}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
server_reset_query_always = 0
""")
        give_to(folder, unprivileged_user())
        with open(self.log_path, "wb") as log:
            self._process = spawn([PROGRAM, settings], user=unprivileged_user(), stdout=log, stderr=log, cwd=folder)
        wait_for_server(self._process, self._answers, "PgBouncer", self.log_path)

    @property
    def port(self):
        return self._port.number

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def close(self):
        """At once: what a polite signal means to clients that are still there differs from version to version."""
        end(self._process, signal.SIGKILL)
        self._port.release()
