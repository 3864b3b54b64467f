# SPDX-License-Identifier: MIT
"""The ACL rules of docs/OPERATIONS.md, word for word: they suffice for a promptd's whole life, and none is too much."""

import hashlib
import pathlib
import re

import pytest

from support.expect import expect_stored
from support.queue import MODES, Queue
from support.redis_server import DEFAULT_CHANNEL, frame
from support.wait import wait_until

OPERATIONS = pathlib.Path(__file__).resolve().parents[2] / "docs/OPERATIONS.md"
PASSWORD = "a-password-of-the-test"


def rules(mode):
    section = OPERATIONS.read_text().split("### ACL rules\n")[1]
    found = re.search(rf"For {mode} mode.*?\n\n    ACL SETUSER promptd ([^\n]*)", section, re.DOTALL)[1]
    return found.replace("PASSWORD", PASSWORD).split()


def command(rule):
    return rule.lstrip("+").split("|")[0]


@pytest.fixture(params=MODES)
def queue(request, own_redis):
    queue = Queue(own_redis, request.param)
    queue.name, queue.dead_key = DEFAULT_CHANNEL, f"{{{DEFAULT_CHANNEL}}}:dead"
    own_redis.admin.execute_command("ACL", "SETUSER", "promptd", *rules(request.param))
    return queue


@pytest.fixture
def start(start_taking, queue):
    def run(**settings):
        promptd = start_taking(redis_url=f"redis://promptd:{PASSWORD}@127.0.0.1:{queue.server.port}", **settings)
        promptd.secrets.append(PASSWORD)
        return promptd

    return run


def leave_behind(queue, message, poison):
    """As a consumer that is gone; the second was delivered five times by then."""
    admin = queue.server.admin
    queue.published += [message.prompt, poison.prompt]
    if queue.mode == "list":
        admin.lpush(f"{{{queue.name}}}:processing:ghost", message.framed(), poison.framed())
        admin.hset(f"{{{queue.name}}}:deliveries", hashlib.sha1(poison.framed()).hexdigest(), 4)
        return
    admin.xgroup_create(queue.name, "promptd", "0", mkstream=True)
    ids = [admin.xadd(queue.name, {"message": each.framed()}) for each in (message, poison)]
    admin.xreadgroup("promptd", "ghost", {queue.name: ">"})
    for id, deliveries in zip(ids, (1, 5)):
        admin.xclaim(queue.name, "promptd", "ghost", 0, [id], idle=60000, retrycount=deliveries)


def test_rules_suffice_and_none_is_too_much(start, queue, database, promptctl):
    """Stored, rejected, too large, taken over, given up, given back, and the group made again."""
    admin = queue.server.admin
    left = queue.message(database.interview(), "what another one left behind")
    leave_behind(queue, left, queue.message(database.interview(), "what kills whoever takes it"))
    admin.config_resetstat()
    promptd = start(message_max_bytes=150000, shutdown_timeout_s=1)
    queue.push_raw(frame(b"{no json"))
    queue.push_raw(frame(b"x" * 200000))
    messages = [queue.push(interview) for interview in database.interviews(20)]
    assert promptd.settle(24, timeout=40).outcomes() == {"success": 21, "rejected": 2, "dropped": 1}
    expect_stored(database, left, *messages)
    wait_until(lambda: len(queue.dead()) == 3 and queue.left() == 0, "Redis to have the dead letters only", seen=queue.left)
    assert admin.acl_log() == []
    check = promptctl("check", redis_mode=queue.mode, redis_channel=queue.name, redis_url=promptd.settings["redis_url"])
    assert check.code == 0 and "FAILED" not in check.out, check.out + check.err
    admin.execute_command("ACL", "LOG", "RESET")  # what check may not look at, it says
    held = database.interview()
    with database.cluster.connect(database.name) as holder:
        holder.execute("begin")
        holder.execute("select from interviews where id = %s for update", [held])
        queue.push(held)
        wait_until(lambda: queue.pending() == 1, "the last to be taken", seen=queue.pending)
        promptd.stop()
        holder.execute("rollback")
    if queue.mode == "stream":
        admin.xgroup_destroy(queue.name, "promptd")  # as of a Redis that was emptied
    second = start()
    assert second.settle(1).outcomes() == {"success": 1}
    second.stop()
    assert admin.acl_log() == []
    used = {name.removeprefix("cmdstat_").split("|")[0] for name in admin.info("commandstats")}
    spare = [rule for rule in rules(queue.mode) if rule.startswith("+") and command(rule) not in used]
    assert spare == []
