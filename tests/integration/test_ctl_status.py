# SPDX-License-Identifier: MIT
"""promptctl status: of a real promptd, ready and not, and of what is none."""

import json
import re
import socket
import threading

import pytest

from support.process import Port


@pytest.fixture
def status(promptctl):
    """status(promptd, *arguments) -> Result"""
    def ask(promptd, *arguments, **options):
        listen = promptd if isinstance(promptd, str) else promptd.admin_url.removeprefix("http://")
        return promptctl("status", *arguments, **{"admin_listen": listen, **options})

    return ask


@pytest.fixture
def answering(closing):
    """answering(bytes) -> the address of someone who answers so to every request"""
    def begin(answer):
        listener = closing(socket.create_server(("127.0.0.1", 0)))

        def serve():
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
            except OSError:
                pass  # closed: the test is over

        threading.Thread(target=serve, daemon=True).start()
        return "127.0.0.1:%d" % listener.getsockname()[1]

    return begin


def http(body, code=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (code, len(body), body)


def test_ready(status, start_promptd, database, channel):
    promptd = start_promptd()
    channel.publish(database.interview())
    rejected = database.interview()
    channel.publish_raw(b'{"interview_id": "%s"}' % rejected.encode())
    promptd.settle(2)
    result = status(promptd)
    assert result.code == 0 and result.err == "" and re.match(r"promptd +ready\n", result.out)
    for words in (f"subscribed: {channel.name} at ", "up: 4 of 4 connections", "0 of 10000 messages", "spool      none",
                  "2 received: 1 stored, 0 duplicate, 0 failed, 1 rejected, 0 dropped, 0 waiting",
                  f"rejected, interview {rejected}: missing_enhanced_prompt", f"pid {promptd.process.pid}, "):
        assert words in result.out, result.out
    assert "\x1b" not in result.out and channel.marker not in result.out


def test_json_is_the_daemons_own(status, start_promptd):
    promptd = start_promptd()
    result = status(promptd, "--json")
    assert result.code == 0 and result.json()["ready"] is True and result.json()["pid"] == promptd.process.pid


def test_quiet(status, start_promptd):
    result = status(start_promptd(), "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_unix_socket(status, start_promptd, new_folder):
    path = f"unix:{new_folder('admin')}/admin.sock"
    start_promptd(admin_listen=path)
    assert status(path).code == 0


def test_daemon_on_all_interfaces_is_asked_on_loopback(status, start_promptd):
    promptd = start_promptd(admin_listen="0.0.0.0:0")
    port = promptd.admin_url.rsplit(":", 1)[1]
    assert status(f"0.0.0.0:{port}").code == 0


def test_not_ready(status, start_promptd, own_redis, database):
    own_redis.stop()
    promptd = start_promptd(ready=False, redis_url=own_redis.url)
    result = status(promptd)
    assert result.code == 1 and "not ready: " in result.out and "not subscribed" in result.out
    assert status(promptd, "--quiet").code == 1 and status(promptd, "--json").json()["ready"] is False
    own_redis.start()


def test_spool_and_orphans(status, start_promptd, database, channel, new_folder):
    folder = new_folder("spool")
    promptd = start_promptd(spool_dir=folder)
    database.raise_on("interview_enhanced_prompts", "delete", "kept")
    message = channel.publish(database.interview("cancelled"))
    promptd.wait_counters(orphaned=1, dead_letters=1)
    result = status(promptd)
    assert f"orphan     prompt {message.id} of interview {message.interview} since " in result.out
    assert "1 dead letter (promptctl dead list)" in result.out and "promptctl orphans --delete" in result.out
    database.drop_faults()


def test_colours_on_a_terminal(promptctl, start_promptd):
    listen = start_promptd().admin_url.removeprefix("http://")
    assert "\x1b[32mready" in promptctl.on_terminal("status", admin_listen=listen).out


# Nobody there, or somebody else


def test_nobody_listens(status, new_folder):
    port = Port()
    for listen in (f"127.0.0.1:{port.number}", f"unix:{new_folder('admin')}/none.sock"):
        for arguments in ([], ["--json"], ["--quiet"]):
            result = status(listen, *arguments)
            assert result.code == 69 and result.out == "" and listen in result.err
    port.release()


@pytest.mark.parametrize("answer", [http(b"hello"), http(b"{}"), http(b'{"ready": "yes"}'), http(b"[true]"), http(b""),
                                    http(b'{"ready": true}', b"404 Not Found"), b"SSH-2.0-OpenSSH\r\n", b"",
                                    http(b"{" * 2000), http(b" " * 9000000)],
                         ids=["text", "empty object", "wrong type", "array", "empty", "404", "another protocol", "hang up",
                              "deep", "huge"])
def test_somebody_else(status, answering, answer):
    result = status(answering(answer))
    assert result.code == 69 and result.out == "" and len(result.err.splitlines()) == 1


def test_answer_of_another_version(status, answering):
    """What it does not have is left empty; what it has cannot speak to the terminal."""
    result = status(answering(http(json.dumps({"ready": True, "version": "9\x1b[31m", "redis": 7, "troubles": {"a": 1},
                                               "not_ready": [3], "orphans": ["x"]}).encode())))
    assert result.code == 0 and "9\\x1b[31m" in result.out and "\x1b" not in result.out


def test_silent_daemon(status, start_promptd):
    promptd = start_promptd()
    listen = promptd.admin_url.removeprefix("http://")
    promptd.freeze()
    result = status(listen)
    promptd.thaw()
    assert result.code == 69 and "timed out" in result.err.lower()


def test_no_proxy_is_asked(status, start_promptd):
    assert status(start_promptd(), extra={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}).code == 0


@pytest.mark.parametrize("listen, word", [("off", "off"), ("127.0.0.1:0", "port 0")])
def test_address_that_cannot_be_asked(status, listen, word):
    result = status(listen)
    assert result.code == 78 and word in result.err
