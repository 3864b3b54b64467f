# SPDX-License-Identifier: MIT
"""The admin interface: every route with its fields, what is refused, and where it listens."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
import uuid
from http.client import HTTPResponse

import pytest

from support import admin
from support.admin import Answer
from support.process import Port
from support.promptd import binary, environment
from support.redis_server import Channel
from support.wait import SLOW, wait_until

REDIS_FIELDS = {"status", "listener_running", "circuit_breaker_open", "failures", "max_failures",
                "total_messages_processed", "last_health_check", "last_message_received",
                "time_since_last_message_seconds", "uptime_seconds", "subscribed_channels", "timestamp"}
RESET = "/admin/redis/reset-circuit-breaker"
ROUTES = ["/", "/healthz", "/health", "/readyz", "/health/redis", "/status", "/metrics"]


@pytest.fixture
def served(start_promptd):
    promptd = start_promptd()
    return promptd, admin.of(promptd)


def run_to_its_end(folder, **settings):
    """A promptd that cannot start; nothing of it is judged."""
    return subprocess.run([binary(), "--config", "/dev/null"], env=environment(folder, settings), capture_output=True,
                          text=True, timeout=10 * SLOW)


def test_alive_and_ready(served):
    _, http = served
    assert http.json("/healthz") == {"status": "ok"}
    assert http.json("/health") == {"status": "ok"}
    assert http.json("/readyz") == {"status": "ready", "reasons": []}


def test_redis_as_the_python_listener_had_it(served, channel, database):
    promptd, http = served
    fresh = http.json("/health/redis")
    assert set(fresh) == REDIS_FIELDS
    assert (fresh["status"], fresh["listener_running"], fresh["circuit_breaker_open"]) == ("healthy", True, False)
    assert (fresh["failures"], fresh["max_failures"], fresh["total_messages_processed"]) == (0, 10, 0)
    assert fresh["subscribed_channels"] == [channel.name]
    assert fresh["last_message_received"] is None and fresh["time_since_last_message_seconds"] is None
    assert fresh["last_health_check"].endswith("Z") and fresh["uptime_seconds"] >= 0
    channel.publish(database.interview())
    channel.publish_raw(b"nonsense")
    promptd.settle(2)
    later = http.json("/health/redis")
    assert later["total_messages_processed"] == 2
    assert later["last_message_received"] <= later["timestamp"]
    assert 0 <= later["time_since_last_message_seconds"] < 60


def test_redis_away(start_promptd, own_redis):
    away = Channel(own_redis)
    promptd = start_promptd(on=away, breaker_failures=4, breaker_reset_s=600, backoff_max_s=1)
    http = admin.of(promptd)
    own_redis.stop()
    reasons = wait_until(lambda: http.ask("/readyz").status == 503 and http.json("/readyz", 503)["reasons"], "not ready")
    assert reasons == ["not subscribed to the channel in Redis"]
    wait_until(lambda: http.json("/health/redis")["status"] == "degraded", "the third failure")
    assert http.json("/health/redis")["failures"] == 3
    state = wait_until(lambda: [s for s in [http.json("/health/redis")] if s["status"] == "unhealthy"], "the circuit")[0]
    assert state["circuit_breaker_open"] and state["subscribed_channels"] == [] and state["listener_running"]
    assert http.json("/status")["redis"]["circuit_open"]
    assert http.metrics()["promptd_redis_circuit_open"] == 1
    own_redis.start()
    answer = http.ask(RESET, "POST")
    assert answer.status == 200
    assert answer.json()["redis_circuit_was_open"] and not answer.json()["database_circuit_was_open"]
    wait_until(lambda: http.ask("/readyz").status == 200, "ready again, long before the circuit's 600 s")
    assert http.json("/health/redis")["status"] == "healthy"
    promptd.one("INFO", "circuit closed by hand")


def test_database_away(start_promptd, database, database_proxy, channel):
    promptd = start_promptd(database_url=database.url(port=database_proxy.port))
    http = admin.of(promptd)
    database_proxy.refuse()
    reasons = wait_until(lambda: http.ask("/readyz").status == 503 and http.json("/readyz", 503)["reasons"], "not ready")
    assert reasons == ["the database does not answer, or takes no writes"]
    channel.publish(database.interview())
    wait_until(lambda: http.json("/status")["counters"]["waiting"] == 1, "the message to wait")
    assert http.json("/status")["database"]["up"] is False and http.json("/healthz") == {"status": "ok"}
    database_proxy.restore()
    wait_until(lambda: http.ask("/readyz").status == 200, "ready again")
    promptd.settle(1)


def test_the_whole_state(start_promptd, database, channel, new_folder):
    spool = new_folder("spool")
    promptd = start_promptd(spool_dir=spool)
    http = admin.of(promptd)
    good = channel.publish(database.interview())
    late = channel.publish(database.interview("cancelled"))
    channel.publish_raw(json.dumps({"interview_id": str(uuid.uuid4()), "enhanced_prompt": "short"}).encode())
    promptd.settle(3)
    state = http.json("/status")
    assert list(state) == ["version", "state", "started_at", "timestamp", "uptime_seconds", "pid", "ready", "ready_since",
                           "not_ready", "redis", "database", "events", "queue", "spool", "atomicity", "counters", "history", "orphans",
                           "troubles"]
    assert state["pid"] == promptd.process.pid and state["state"] == "running" and state["ready"] is True
    assert state["redis"]["channel"] == channel.name and state["redis"]["connected"]
    assert state["database"] == {"up": True, "circuit_open": False, "connections": 4, "connections_wanted": 4}
    assert state["queue"] == {"messages": 0, "bytes": 0, "max_messages": 10000, "max_bytes": 67108864}
    assert state["spool"]["directory"] == spool and state["spool"]["writable"]
    wait_until(lambda: http.json("/status")["spool"]["dead_letters"] == 2, "the dead letters")
    counters = state["counters"]
    assert (counters["received"], counters["success"], counters["failure"], counters["rollback"]) == (3, 1, 1, 1)
    assert counters["rejected"] == 1 and counters["rejected_by"]["prompt_too_short"] == 1
    assert state["history"]["interval_seconds"] == 5
    assert [trouble["time"] for trouble in state["troubles"]] == sorted((t["time"] for t in state["troubles"]), reverse=True)
    rejected, rolled_back = sorted(state["troubles"], key=lambda trouble: trouble["outcome"])
    assert (rejected["outcome"], rolled_back["outcome"]) == ("rejected", "rolled back")
    assert (rejected["reason"], rejected["prompt_id"], rejected["sqlstate"]) == ("prompt_too_short", None, None)
    assert rolled_back["interview_id"] == late.interview and uuid.UUID(rolled_back["prompt_id"]).version == 5
    assert "no longer awaiting" in rolled_back["reason"]
    text = http.ask("/status").body.decode()
    assert good.prompt[:20] not in text and late.prompt[:20] not in text


def test_history(start_promptd, database, channel):
    promptd = start_promptd()
    http = admin.of(promptd)
    for _ in range(3):
        channel.publish(database.interview())
    promptd.settle(3)
    points = wait_until(lambda: http.json("/status")["history"]["points"], "the first five seconds")
    assert set(points[0]) == {"time", "received", "stored", "failed", "p50_ms", "p99_ms"}
    assert sum(point["stored"] for point in points) == 3 and points[0]["p99_ms"] >= points[0]["p50_ms"] > 0


def test_an_open_orphan(start_promptd, database, channel):
    promptd = start_promptd(atomicity="compensate", reconcile_interval_s=0)
    http = admin.of(promptd)
    database.raise_on("interview_enhanced_prompts", "delete")
    message = channel.publish(database.interview("cancelled"))
    promptd.wait_line("CRITICAL", "ORPHANED PROMPT DETECTED", message.interview)
    promptd.settle(1)
    state = http.json("/status")
    assert [orphan["interview_id"] for orphan in state["orphans"]] == [message.interview]
    assert state["orphans"][0]["since"] <= state["timestamp"]
    assert state["troubles"][0]["outcome"] == "orphaned" and state["troubles"][0]["sqlstate"] == "P0001"
    assert http.metrics()["promptd_orphans_open"] == 1


def test_only_the_last_hundred_troubles(served, channel):
    promptd, http = served
    for number in range(120):
        channel.publish_raw(b"x" * (number + 1))
    promptd.wait_counters(rejected=120)
    assert len(http.json("/status")["troubles"]) == 100


@pytest.mark.parametrize("path", ROUTES)
def test_head_is_get_without_a_body(served, path):
    _, http = served
    head, get = http.ask(path, "HEAD"), http.ask(path)
    assert head.status == get.status == 200 and head.body == b"" and get.body
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(get.headers["Content-Length"]) == len(get.body)


def test_what_is_not_there(served):
    _, http = served
    for path in ("/nothing", "/healthz/", "/admin", "//", "/%00", "/status%2f..", "/" + "a" * 2000):
        answer = http.ask(path)
        assert (answer.status, answer.json()["status"]) == (404, 404) and answer.json()["error"]
    assert http.ask("/healthz?verbose=1").status == 200


def test_wrong_methods(served):
    _, http = served
    for path in ROUTES:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = http.ask(path, method)
            assert answer.status == 405 and answer.json()["error"] and answer.headers["Allow"] == "GET, HEAD"
    for method in ("GET", "HEAD", "DELETE"):
        answer = http.ask(RESET, method)
        assert answer.status == 405 and answer.headers["Allow"] == "POST"


def test_bodies(served):
    _, http = served
    assert http.ask(RESET, "POST", body=b"x" * 1000).status == 200
    large = http.ask(RESET, "POST", headers={"Content-Length": "100000000"})
    assert large.status == 413 and large.json()["error"]


def answer_to(http, request):
    """What a request gets that is sent as it is."""
    with http.raw() as bare:
        bare.sendall(request)
        response = HTTPResponse(bare)
        response.begin()
        return Answer(response)


MALFORMED = {
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "no colon": b"GET /healthz HTTP/1.1\r\nHost localhost\r\n\r\n",
    "no length": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
    "large length": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "long target": b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_requests(served, fault):
    _, http = served
    assert 400 <= answer_to(http, MALFORMED[fault]).status < 500
    assert http.json("/healthz") == {"status": "ok"}


def test_another_version(served):
    _, http = served
    assert answer_to(http, b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n").status == 505


@pytest.mark.parametrize("nonsense", [b"GARBAGE\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"\x16\x03\x01\x02\0\r\n\r\n"],
                         ids=["garbage", "zeros", "TLS"])
def test_what_is_no_http_is_hung_up_on(served, nonsense):
    _, http = served
    with http.raw(timeout=15) as bare:
        bare.sendall(nonsense)
        assert bare.recv(4096) == b""
    assert http.json("/healthz") == {"status": "ok"}


def test_as_large_as_a_request_may_be(served):
    _, http = served
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 63
    assert answer_to(http, request + b"\r\n").json() == {"status": "ok"}
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
    assert answer_to(http, head + b"y" * (8192 - len(head) - 4) + b"\r\n\r\n").json() == {"status": "ok"}


def test_two_requests_at_once(served):
    _, http = served
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with http.raw() as bare:
        bare.sendall(request + request)
        answers = b""
        while answers.count(b'{"status":"ok"}') < 2:
            answers += bare.recv(65536)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2


def test_what_ends_early_or_comes_in_pieces(served):
    _, http = served
    for nonsense in (b"\x16\x03\x01\x02\x00", b"", b"GET / HT"):
        with http.raw() as bare:
            bare.sendall(nonsense)
    with http.raw() as bare:
        for piece in (b"GET /heal", b"thz HTTP/1.1\r\nHo", b"st: localhost\r\n", b"\r\n"):
            bare.sendall(piece)
            time.sleep(0.02)  # so that it is a piece of its own
        response = HTTPResponse(bare)
        response.begin()
        assert Answer(response).json() == {"status": "ok"}
    assert http.json("/healthz") == {"status": "ok"}


def test_a_browser_on_this_machine_is_no_tool_of_other_sites(served):
    _, http = served
    own = f"{http.address[0]}:{http.address[1]}"
    assert http.ask(RESET, "POST").status == 200
    assert http.ask(RESET, "POST", {"Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}).status == 200
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Origin": f"http://{own}", "Sec-Fetch-Site": "same-site"}, {"Host": "evil.example"}):
        answer = http.ask(RESET, "POST", headers)
        assert answer.status == 403 and answer.json()["error"]
    for path in ROUTES:
        assert http.ask(path, headers={"Host": f"evil.example:{http.address[1]}"}).status == 403
        assert http.ask(path, headers={"Host": "localhost"}).status == 200
        assert "Access-Control-Allow-Origin" not in http.ask(path, headers={"Origin": "http://evil.example"}).headers


def test_the_page_runs_its_own_scripts_only(served):
    _, http = served
    first, second = http.ask("/"), http.ask("/")
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in first.body.decode() and nonce not in second.body.decode()
    assert not re.search(rb"""(src|href|url|import|fetch)\s*[=(]?\s*["'(]*https?://""", first.body)
    assert first.headers["Content-Type"] == "text/html; charset=utf-8"


def test_stopping_is_seen(start_promptd, database, channel):
    promptd = start_promptd(retry_attempts=100, retry_base_ms=200, retry_max_ms=200)
    http = admin.of(promptd)
    database.raise_on("interview_enhanced_prompts", "insert", sqlstate="55P03")
    channel.publish(database.interview())
    promptd.wait_counters(received=1)
    promptd.kill(signal.SIGTERM)
    promptd.wait_line("INFO", "stopping on SIGTERM")
    assert http.json("/status")["state"] == "draining"
    assert http.json("/health/redis")["status"] == "stopped"
    assert "promptd is stopping" in http.json("/readyz", 503)["reasons"]
    database.drop_faults()
    assert promptd.wait_exit() == 0


# --- where it listens ---------------------------------------------------------------------------------------------------


def test_off(start_promptd):
    promptd = start_promptd(admin_listen="off")
    assert not promptd.find("INFO", "admin listening")


def test_ipv6(start_promptd):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("needs IPv6 on loopback")
    promptd = start_promptd(admin_listen="[::1]:0")
    http = admin.of(promptd)
    assert http.url.startswith("http://[::1]:") and http.json("/readyz")["status"] == "ready"


def test_other_machines_may_come(start_promptd):
    promptd = start_promptd(admin_listen="0.0.0.0:0")
    line = promptd.wait_line("WARNING", "has no login")
    http = admin.Admin(line.fields["url"].replace("0.0.0.0", "127.0.0.1"))
    assert http.ask("/metrics", headers={"Host": "promptd:9797"}).status == 200
    assert http.ask(RESET, "POST", {"Host": "promptd:9797"}).status == 200
    assert http.ask(RESET, "POST", {"Host": "evil.example", "Origin": "http://evil.example"}).status == 403


def test_an_address_in_use(start_promptd, new_folder):
    promptd = start_promptd()
    http = admin.of(promptd)
    folder = new_folder("second")
    result = run_to_its_end(folder, admin_listen=f"127.0.0.1:{http.address[1]}", spool_dir=os.path.join(folder, "spool"))
    assert result.returncode == 69
    assert f"admin_listen: 127.0.0.1:{http.address[1]} cannot be bound: Address already in use" in result.stderr


@pytest.mark.parametrize("listen", ["192.0.2.1:9797", "no.such.name.invalid:9797", "unix:/no/such/folder/admin.sock"])
def test_an_address_that_is_none_of_ours(new_folder, listen):
    result = run_to_its_end(new_folder("home"), admin_listen=listen)
    assert result.returncode == 69 and "cannot be bound" in result.stderr


@pytest.mark.parametrize("listen", ["9797", "on", "localhost:x", "unix:relative", "::1:9797"])
def test_what_is_no_address(new_folder, listen):
    result = run_to_its_end(new_folder("home"), admin_listen=listen)
    assert result.returncode == 78 and "admin_listen" in result.stderr and "host:port, unix:/path or off" in result.stderr


def test_a_unix_socket(start_promptd, new_folder):
    path = os.path.join(new_folder("run"), "admin.sock")
    promptd = start_promptd(admin_listen=f"unix:{path}")
    http = admin.of(promptd)
    assert http.url == f"unix:{path}" and http.json("/readyz")["status"] == "ready"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert http.ask("/status", headers={"Host": "whatever"}).status == 200
    second = run_to_its_end(os.path.dirname(path), admin_listen=f"unix:{path}")
    assert second.returncode == 69 and "another process listens there" in second.stderr
    with socket.socket(socket.AF_UNIX) as bare:
        bare.connect(path)
        bare.sendall(b"GET /healthz\r\n\r\n")
        assert bare.recv(4096).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert http.json("/healthz") == {"status": "ok"}
    promptd.stop()
    assert not os.path.exists(path)


def test_a_unix_socket_left_behind(start_promptd, new_folder):
    path = os.path.join(new_folder("run"), "admin.sock")
    first = start_promptd(admin_listen=f"unix:{path}")
    first.crash()
    assert os.path.exists(path)
    second = start_promptd(admin_listen=f"unix:{path}")
    assert admin.of(second).json("/healthz") == {"status": "ok"}


def test_a_file_in_the_way_is_left_alone(new_folder):
    path = os.path.join(new_folder("run"), "precious")
    with open(path, "w", encoding="ascii") as file:
        file.write("keep")
    result = run_to_its_end(os.path.dirname(path), admin_listen=f"unix:{path}")
    assert result.returncode == 69 and "no socket" in result.stderr
    assert os.path.getsize(path) == 4


def test_the_same_port_at_once_again(start_promptd):
    port = Port()
    for _ in range(2):
        promptd = start_promptd(admin_listen=f"127.0.0.1:{port.number}")
        with admin.of(promptd).raw() as held:  # what is closed by the server first lingers
            held.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.recv(100)
            promptd.stop()
    port.release()
