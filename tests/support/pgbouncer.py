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
    def __init__(self, folder, database, pool_size, passwords=None, max_clients=100):
        """passwords: {role: password}, of those that may log in; else everybody may, with any."""
        self._port = Port()
        self.log_path = os.path.join(folder, "pgbouncer.log")
        settings = os.path.join(folder, "pgbouncer.ini")
        users = os.path.join(folder, "users")
        with open(users, "w", encoding="ascii") as file:
            file.writelines(f'"{role}" "{password}"\n' for role, password in (passwords or {}).items())
        with open(settings, "w", encoding="ascii") as file:
            file.write(f"""\
[databases]
{database.name} = host=127.0.0.1 port={database.cluster.port} dbname={database.name} user={ROLE}
gone = host=127.0.0.1 port={database.cluster.port} dbname=gone user={ROLE}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = {"scram-sha-256" if passwords else "any"}
auth_file = {users}
max_client_conn = {max_clients}
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
