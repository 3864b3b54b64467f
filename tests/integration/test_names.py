# SPDX-License-Identifier: MIT
"""A name with several addresses: each is tried, in the resolver's order, and one that hangs costs two seconds."""

import os
import socket
import subprocess
import time

import pytest

from support.expect import expect_stored
from support.redis_server import Channel, RedisServer
from support.wait import SLOW

NAME = "redis.test"
HANGING, WORKING = "127.0.0.1", "127.0.0.2"  # the resolver has them in this order, whatever that of the file is


@pytest.fixture
def server(new_folder, closing):
    return closing(RedisServer(new_folder("redis"), address=WORKING))


@pytest.fixture
def hanging(server, closing):
    """A machine that is gone: its queue of connections is full, and the kernel answers nobody any more."""
    listener = closing(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HANGING, server.port))
    listener.listen(0)
    for _ in range(2):
        waiting = closing(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex((HANGING, server.port))
    return listener


@pytest.fixture
def names(new_folder, monkeypatch):
    """names(*addresses): what is started then knows NAME with them."""

    def know(*addresses):
        hosts = os.path.join(new_folder("hosts"), "hosts")
        with open(hosts, "w", encoding="ascii") as file:
            file.write("".join(f"{address} {NAME}\n" for address in addresses))
        wrapper = f"unshare --mount sh -c 'mount --bind {hosts} /etc/hosts && exec \"$0\" \"$@\"'"
        if subprocess.run(f"{wrapper} true", shell=True, capture_output=True).returncode != 0:
            pytest.skip("needs root and mount namespaces")
        monkeypatch.setenv("PROMPTD_TEST_WRAPPER", f"{wrapper} {os.environ.get('PROMPTD_TEST_WRAPPER', '')}")

    return know


def test_the_daemon_goes_on_after_two_seconds(start_promptd, database, server, hanging, names):
    names(HANGING, WORKING)
    channel = Channel(server)
    started = time.monotonic()
    promptd = start_promptd(on=channel, redis_url=f"redis://{NAME}:{server.port}")
    assert 1.5 < time.monotonic() - started < 4.5 * SLOW
    message = channel.publish(database.interview())
    promptd.settle(1)
    expect_stored(database, message)
    assert not promptd.find("ERROR", "Redis")


def test_the_daemon_goes_on_at_once_where_it_is_refused(start_promptd, server, names):
    names(HANGING, WORKING)
    promptd = start_promptd(on=Channel(server), redis_url=f"redis://{NAME}:{server.port}")
    assert not promptd.find("ERROR", "Redis")


def test_promptctl_goes_on_after_two_seconds(promptctl, server, hanging, names, database):
    names(HANGING, WORKING)
    database.interview()
    started = time.monotonic()
    result = promptctl("check", redis_url=f"redis://{NAME}:{server.port}")
    assert result.code == 0, result
    assert 1.5 < time.monotonic() - started < 4.5 * SLOW


def test_promptctl_goes_on_at_once_where_it_is_refused(promptctl, server, names, database):
    names(HANGING, WORKING)
    database.interview()
    result = promptctl("check", redis_url=f"redis://{NAME}:{server.port}")
    assert result.code == 0, result


def test_no_address_works(promptctl, server, hanging, names):
    names(HANGING)
    result = promptctl("check", redis_url=f"redis://{NAME}:{server.port}")
    assert result.code == 69 and f"Redis at {NAME}:{server.port} cannot be reached: " in result.out


def test_a_name_without_an_address(promptctl, names):
    names("127.0.0.1")
    result = promptctl("check", redis_url="redis://no-such-name.test:1")
    assert result.code == 69 and "no-such-name.test:1 cannot be reached: " in result.out
