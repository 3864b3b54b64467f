# SPDX-License-Identifier: MIT
"""The heartbeat, wherever messages come from: a channel, a list, a stream."""

import os
import signal
import subprocess
import time

import pytest

from support.admin import Admin
from support.queue import Queue
from support.redis_server import Channel
from support.wait import SLOW, wait_until

TUNABLES = "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"  # what is freed is overwritten


@pytest.fixture(params=["pubsub", "list", "stream"])
def source(request, own_redis):
    """(where messages come from, its redis_mode), on a Redis of its own."""
    mode = request.param
    return (Channel(own_redis) if mode == "pubsub" else Queue(own_redis, mode)), mode


def await_link(promptd, mode):
    promptd.wait_line("INFO", "subscribed" if mode == "pubsub" else "taking messages")
    promptd.wait_line("INFO", "database connected")


def test_ready_says_that_the_beat_is_unanswered(start_promptd, own_redis, source):
    place, mode = source
    promptd = start_promptd(on=place, redis_mode=mode, ready=False, heartbeat_interval_s=1, heartbeat_timeout_s=10)
    await_link(promptd, mode)
    admin = Admin(promptd.admin_url)
    wait_until(lambda: admin.ask("/readyz").status == 200, "promptd to be ready")
    own_redis.freeze()
    reasons = wait_until(lambda: admin.ask("/readyz").json()["reasons"], "not ready any more")
    assert reasons == ["Redis has not answered the last heartbeat"]
    own_redis.thaw()
    wait_until(lambda: admin.ask("/readyz").status == 200, "promptd to be ready again")
    assert promptd.find("WARNING|ERROR|CRITICAL") == []


def test_shorter_interval_counts_from_the_reload_on(start_promptd, own_redis, source, new_folder):
    place, mode = source
    path = os.path.join(new_folder("settings"), "promptd.conf")

    def write(interval_s):
        with open(path, "w", encoding="ascii") as file:
            file.write(f"heartbeat_interval_s = {interval_s}\nheartbeat_timeout_s = 1\n")

    write(600)
    promptd = start_promptd(on=place, redis_mode=mode, ready=False, config=path)
    await_link(promptd, mode)
    write(1)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    own_redis.freeze()
    promptd.wait_line("WARNING|ERROR", "no answer to the heartbeat")
    own_redis.thaw()


@pytest.mark.parametrize("source", ["list", "stream"], indirect=True)
def test_one_connection_is_gone_long_before_the_other(start_promptd, own_redis, source, new_folder):
    """The look-up of a name hangs, and cannot be cancelled, when promptd stops."""
    place, mode = source
    folder = new_folder("resolver")
    code, library, hangs = (os.path.join(folder, name) for name in ("resolver.c", "resolver.so", "hangs"))
    with open(code, "w", encoding="ascii") as file:
        file.write(f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    int is_ours = node && strcmp(node, "redis.test") == 0;
    while (is_ours && access("{hangs}", F_OK) == 0)
        usleep(10000);
    return real(is_ours ? "127.0.0.1" : node, service, hints, found);
}}
""")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, code, "-ldl"], check=True)
    if SLOW > 1:  # the sanitizer's library wants to be the first, and overwrites nothing: it sees each use
        sanitizer = subprocess.run(["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True).stdout
        library = f"{sanitizer.strip()} {library}"
    promptd = start_promptd(on=place, redis_mode=mode, ready=False, redis_url=f"redis://redis.test:{own_redis.port}",
                            extra={"LD_PRELOAD": library, "GLIBC_TUNABLES": TUNABLES})
    await_link(promptd, mode)
    with open(hangs, "w", encoding="ascii"):
        pass
    clients = wait_until(lambda: [client for client in own_redis.admin.client_list() if client["name"] == "promptd"]
                         if any("b" in client["flags"] for client in own_redis.admin.client_list()) else None, "a read that blocks")
    lookups = len(promptd.find("DEBUG", "to=resolving"))
    for client in clients:
        if "b" not in client["flags"]:
            own_redis.admin.client_kill(client["addr"])
    wait_until(lambda: len(promptd.find("DEBUG", "to=resolving")) > lookups, "the name to be looked up again")
    promptd.kill(signal.SIGTERM)
    time.sleep(2.5)  # its clock would have ticked twice
    os.remove(hangs)
    assert promptd.wait_exit() == 0
