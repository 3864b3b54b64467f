# SPDX-License-Identifier: MIT
"""rediss://: what is stored through TLS, what is refused and in which words, and networks that fail in the middle of it.

Where hiredis has no TLS (Debian 12), the last tests alone can run: there rediss:// is refused. scripts/test-deploy runs all
of them on Debian 13.
"""

import os
import re
import shutil
import signal

import pytest

from support.certificates import Authority, has_openssl
from support.events import Listener
from support.expect import expect_stored
from support.peer import Peer
from support.promptd import run
from support.proxy import TO_CLIENT, TO_SERVER
from support.queue import MODES, Queue
from support.redis_server import Channel
from support.tls import KeyTurner, TlsRedis, TlsResetter, TlsSentinel
from support.wait import SLOW, wait_until


@pytest.fixture(scope="module")
def authority(new_folder):
    if not has_openssl():
        pytest.skip("needs openssl (Debian package openssl)")
    return Authority(new_folder("ca"))


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue("server")


@pytest.fixture(scope="module")
def server(new_folder, authority, certificate):
    server = TlsRedis(new_folder("redis"), authority, certificate)
    yield server
    server.close()


@pytest.fixture
def new_server(new_folder, authority, certificate, closing):
    def make(*options, certificate=certificate, authority=authority):
        return closing(TlsRedis(new_folder("redis"), authority, certificate, *options))

    return make


def expect_line(promptd, *words):
    """The one line of this outage, with its words."""
    promptd.wait_line("ERROR", "Redis cannot be reached; trying again", *words)


def check(promptctl, **settings):
    """(exit code, {step: (result, detail)}) of promptctl check."""
    result = promptctl("check", "--json", **settings)
    return result.code, {step["step"]: (step["result"], step["detail"]) for step in result.json()}


def stores(promptd, database, channel, size=100):
    received = promptd.counters()["received"]
    message = channel.publish(database.interview(), "x" * size)
    promptd.settle(received + 1)
    expect_stored(database, message)


# What works


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_names_and_addresses(tls, start_promptd, database, server, authority, host):
    channel = Channel(server)
    promptd = start_promptd(on=channel, redis_url=f"rediss://{host}:{server.port}", redis_tls_ca_file=authority.file)
    stores(promptd, database, channel)


def test_user_and_password(tls, start_promptd, database, new_server, authority):
    server = new_server()
    server.admin.execute_command("ACL", "SETUSER", "worker", "on", ">a secret word", "~*", "allchannels", "+@all")
    channel = Channel(server)
    promptd = start_promptd(on=channel, redis_url=f"rediss://worker:a%20secret%20word@localhost:{server.port}/0",
                            redis_tls_ca_file=authority.file)
    promptd.secrets += ["a secret word", "a%20secret%20word"]
    stores(promptd, database, channel)


def test_sentinel(tls, start_promptd, promptctl, database, server, authority, certificate, new_folder, closing):
    """Sentinel and server by TLS: it names an address, which stands in the certificate."""
    sentinel = closing(TlsSentinel(new_folder("sentinel"), server, authority, certificate))
    settings = {"redis_url": f"rediss+sentinel://localhost:{sentinel.port}/mymaster", "redis_tls_ca_file": authority.file}
    channel = Channel(server)
    promptd = start_promptd(on=channel, **settings)
    promptd.one("INFO", "a Sentinel names the master", f"127.0.0.1:{server.port}")
    stores(promptd, database, channel)
    _, steps = check(promptctl, **settings)
    assert steps["redis_sentinels"][0] == "ok" and steps["redis_role"][0] == "ok" and steps["redis_tls"][0] == "ok"


@pytest.mark.parametrize("megabytes", [3, 8, 100])
def test_large_message(tls, start_promptd, database, new_server, authority, megabytes):
    """It is skipped while it is read; those around it are stored, and the connection stays."""
    server = new_server("--client-output-buffer-limit", "pubsub", "0", "0", "0")
    channel = Channel(server)
    promptd = start_promptd(on=channel, redis_url=f"rediss://localhost:{server.port}", redis_tls_ca_file=authority.file)
    before = promptd.peak_memory_kb()
    good = [channel.message(interview) for interview in database.interviews(4)]
    channel.publish_burst([good[0], good[1], b"x" * (megabytes << 20), good[2], good[3]])
    assert promptd.settle(5, timeout=60).outcomes() == {"success": 4, "rejected": 1}
    assert promptd.one("ERROR", "message rejected").fields["bytes"] == str(megabytes << 20)
    assert promptd.find("ERROR|WARNING", "connection") == [] and promptd.peak_memory_kb() - before < 8192
    for message in good:
        expect_stored(database, message)


@pytest.mark.parametrize("mode", MODES)
def test_list_and_stream(tls, start_promptd, database, server, authority, mode):
    queue = Queue(server, mode)
    promptd = start_promptd(on=queue, ready=False, redis_mode=mode, redis_url=f"rediss://localhost:{server.port}",
                            redis_tls_ca_file=authority.file)
    promptd.wait_line("INFO", "taking messages")
    promptd.wait_line("INFO", "database connected")
    messages = [queue.push(interview, "x" * 40_000) for interview in database.interviews(20)]
    promptd.settle(20)
    expect_stored(database, messages[0])
    wait_until(lambda: queue.left() == 0, "Redis to have no message left")


def test_outcome_events(tls, start_promptd, database, server, authority, closing):
    channel = Channel(server)
    listener = closing(Listener(server, f"{channel.name}:events"))
    promptd = start_promptd(on=channel, redis_url=server.url, redis_tls_ca_file=authority.file,
                            events_channel=listener.channel)
    promptd.wait_line("INFO", "ready to publish outcome events")
    stores(promptd, database, channel)
    assert listener.wait(1)[0]["outcome"] == "stored"


@pytest.mark.parametrize("asks, code", [(True, 78), (False, 69)], ids=["asked for a certificate", "did not ask"])
def test_reset_before_the_first_answer(tls, start_promptd, promptctl, database, redis_server, certificate, authority, closing,
                                       asks, code):
    """The alert of a server that wants a certificate may be lost with it."""
    peer = closing(TlsResetter(certificate, authority, asks))
    settings = {"redis_url": peer.url, "redis_tls_ca_file": authority.file}
    promptd = start_promptd(ready=False, on=Channel(redis_server), **settings)
    promptd.wait_line("ERROR", "Redis cannot be reached; trying again")
    exit_code, steps = check(promptctl, **settings)
    assert exit_code == code, steps
    said = [detail for _, detail in steps.values()] + [line.raw for line in promptd.find("ERROR", "cannot be reached")]
    wanted = [text for text in said if "wants a client certificate" in text]
    assert len(wanted) == (2 if asks else 0), said


def test_nothing_waits_for_the_next_message(tls, start_promptd, database, server, authority):
    """Of any size, around those of TLS' records and hiredis' reads; with no heartbeat to push it on."""
    channel = Channel(server)
    promptd = start_promptd(on=channel, redis_url=server.url, redis_tls_ca_file=authority.file, heartbeat_interval_s=0,
                            prompt_max_chars=1000000, message_max_bytes=16000000)
    for size in (10, 1000, 16384 - 300, *range(16000, 16500, 50), 32768, 49152, 65536, 300000, 999900):
        stores(promptd, database, channel, size)
    messages = [channel.message(database.interview(), "y" * size) for size in [50, 17000, 999000] * 10]
    channel.publish_burst(messages)
    promptd.wait_counters(waiting=0, success=18 + len(messages))
    expect_stored(database, *messages)


def test_the_server_wants_a_certificate(tls, start_promptd, promptctl, database, new_server, authority):
    server = new_server("--tls-auth-clients", "yes")
    client = authority.issue("client")
    settings = {"redis_url": server.url, "redis_tls_ca_file": authority.file}
    expect_line(start_promptd(ready=False, on=Channel(server), **settings), "wants a client certificate: redis_tls_cert_file")
    code, steps = check(promptctl, **settings)
    assert code == 78, steps
    assert any("wants a client certificate" in detail for _, detail in steps.values()), steps
    settings.update(redis_tls_cert_file=client.file, redis_tls_key_file=client.key)
    channel = Channel(server)
    stores(start_promptd(on=channel, **settings), database, channel)
    code, steps = check(promptctl, **settings)
    assert steps["redis_subscribe"][0] == "ok", steps


def test_the_server_does_not_accept_the_certificate(tls, start_promptd, new_server, new_folder, authority):
    server = new_server("--tls-auth-clients", "yes")
    stranger = Authority(new_folder("stranger"), "stranger").issue("client")
    promptd = start_promptd(ready=False, on=Channel(server), redis_url=server.url, redis_tls_ca_file=authority.file,
                            redis_tls_cert_file=stranger.file, redis_tls_key_file=stranger.key)
    expect_line(promptd, "does not accept the client certificate (redis_tls_cert_file): unknown CA")


def test_check_describes_it(tls, promptctl, database, server, authority, new_server):
    database.interview()
    code, steps = check(promptctl, redis_url=server.url, redis_tls_ca_file=authority.file)
    assert code == 0 and steps["redis_tls"][0] == "ok"
    assert re.fullmatch(r"TLSv1\.3, TLS_\w+; the server's certificate ends on \d{4}-\d\d-\d\d, in (29|30) days",
                        steps["redis_tls"][1])
    soon = new_server("--tls-protocols", "TLSv1.2", certificate=authority.issue("soon", days=2))
    code, steps = check(promptctl, redis_url=soon.url, redis_tls_ca_file=authority.file)
    assert code == 0 and steps["redis_tls"][0] == "note" and steps["redis_tls"][1].startswith("TLSv1.2, ")


def test_promptctl_publishes(tls, start_promptd, promptctl, database, server, authority):
    channel = Channel(server)
    settings = {"redis_url": server.url, "redis_tls_ca_file": authority.file}
    promptd = start_promptd(on=channel, **settings)
    result = promptctl("publish", "--interview", database.interview(), "-", stdin="Tell me about yourself.",
                       redis_channel=channel.name, **settings)
    assert result.code == 0, result
    promptd.settle(1)


def test_outcome_events_take_it_too(tls, start_promptd, database, server, authority, closing):
    channel = Channel(server)
    listener = closing(Listener(server, f"{channel.name}:events"))
    promptd = start_promptd(on=channel, redis_url=server.url, redis_tls_ca_file=authority.file,
                            events_channel=f"{channel.name}:events")
    promptd.wait_line("INFO", "ready to publish outcome events")
    message = channel.publish(database.interview())
    (event,) = listener.wait(1)
    assert event["interview_id"] == message.interview and event["outcome"] == "stored"


# What is refused


def expect_refusal(start_promptd, promptctl, url, ca_file, *words):
    settings = {"redis_url": url, "redis_tls_ca_file": ca_file}
    promptd = start_promptd(ready=False, **settings)
    expect_line(promptd, *words)
    wait_until(lambda: promptd.counters() and len(promptd.find("DEBUG", "next dial")) >= 3, "three attempts", 20)
    assert len(promptd.find("ERROR", "Redis")) == 1
    code, steps = check(promptctl, **settings)
    assert code == 78 and steps["redis_connection"][0] == "ok" and steps["redis_tls"][0] == "failed", steps
    assert all(word in steps["redis_tls"][1] for word in words), steps["redis_tls"]
    assert steps["redis_login"][0] == steps["redis_subscribe"][0] == "skipped"


def test_an_expired_certificate(tls, start_promptd, promptctl, authority, new_server):
    server = new_server(certificate=authority.issue("expired", days=0))
    expect_refusal(start_promptd, promptctl, server.url, authority.file, "the server's certificate has expired")


def test_an_unknown_ca(tls, start_promptd, promptctl, new_folder, server):
    other = Authority(new_folder("other"), "other")
    words = ["from a CA that is unknown here", "redis_tls_ca_file"]
    expect_refusal(start_promptd, promptctl, server.url, other.file, *words)
    expect_refusal(start_promptd, promptctl, server.url, "", *words)


@pytest.mark.parametrize("names, host", [("DNS:other.test", "localhost"), ("DNS:localhost", "127.0.0.1"),
                                         ("DNS:127.0.0.1", "127.0.0.1"), ("IP:127.0.0.2", "127.0.0.1"),
                                         ("DNS:*", "localhost"), ("DNS:l*.test,DNS:localhost.test", "localhost")])
def test_another_name(tls, start_promptd, promptctl, authority, new_server, names, host):
    server = new_server(certificate=authority.issue("misnamed", names))
    expect_refusal(start_promptd, promptctl, f"rediss://{host}:{server.port}", authority.file,
                   f"the server's certificate is for another name, not for {host}")


def test_a_plain_port(tls, start_promptd, promptctl, redis_server):
    """Redis waits for the end of a line in what it hears."""
    url, words = redis_server.url.replace("redis:", "rediss:"), "no answer to the TLS handshake; perhaps this port does not"
    promptd = start_promptd(ready=False, redis_url=url)
    code, steps = check(promptctl, redis_url=url)
    assert code == 69 and words in steps["redis_tls"][1], steps
    expect_line(promptd, words)


def test_a_plain_port_that_answers(tls, start_promptd, promptctl, authority, closing):
    """It gives itself away. A Redis with too many clients does not even read, and may be a reset before it is an answer."""
    def refuse(client):
        client.hear_some()
        client.say(b"-ERR max number of clients reached\r\n")
        client.close()

    url = closing(Peer(refuse)).url.replace("redis:", "rediss:")
    expect_refusal(start_promptd, promptctl, url, authority.file, "this port does not speak TLS: redis://")


def test_an_old_protocol(tls, start_promptd, certificate, new_folder, closing, redis_server, authority):
    old = closing(KeyTurner(new_folder("old"), certificate, ("127.0.0.1", redis_server.port), "-tls1_1", "-cipher",
                            "ALL:@SECLEVEL=0"))
    promptd = start_promptd(ready=False, redis_url=f"rediss://localhost:{old.port}", redis_tls_ca_file=authority.file)
    expect_line(promptd, "the server does not speak TLS 1.2 or later")


# Files


def test_files_at_the_start(tls, new_folder, authority, promptctl):
    folder = new_folder("files")
    good, other = authority.issue("good"), authority.issue("other")
    locked, garbage = os.path.join(folder, "locked.key"), os.path.join(folder, "garbage")
    with open(garbage, "w", encoding="ascii") as file:
        file.write("this is no certificate\n")
    openssl_pass = os.system(f"openssl ec -in {good.key} -aes128 -passout pass:secret -out {locked} 2>{folder}/log")
    assert openssl_pass == 0
    pair = {"redis_tls_cert_file": good.file, "redis_tls_key_file": good.key}
    for wrong, name, words in [
        ({"redis_tls_ca_file": "/no/such/file"}, "redis_tls_ca_file", "cannot be read: No such file or directory"),
        ({"redis_tls_ca_file": garbage}, "redis_tls_ca_file", "has no usable certificate in it"),
        ({**pair, "redis_tls_cert_file": folder}, "redis_tls_cert_file", "has no usable certificate in it"),
        ({**pair, "redis_tls_cert_file": garbage}, "redis_tls_cert_file", "has no usable certificate in it"),
        ({**pair, "redis_tls_key_file": "/no/such/file"}, "redis_tls_key_file", "cannot be read: No such file"),
        ({**pair, "redis_tls_key_file": garbage}, "redis_tls_key_file", "has no usable private key in it"),
        ({**pair, "redis_tls_key_file": other.key}, "redis_tls_key_file", "does not belong to the certificate"),
        ({**pair, "redis_tls_key_file": locked}, "redis_tls_key_file", "has a key with a passphrase"),
        ({"redis_tls_cert_file": good.file}, "redis_tls_cert_file", "redis_tls_key_file is empty"),
        ({"redis_tls_key_file": good.key}, "redis_tls_key_file", "redis_tls_cert_file is empty"),
    ]:
        settings = {"redis_url": "rediss://localhost", **wrong}
        for arguments in [["--check"], []]:
            result = run(folder, *arguments, settings=settings)
            assert result.returncode == 78, result
            assert result.stderr.startswith(f"promptd: setting {name}: value ") and words in result.stderr, result.stderr
            assert len(result.stderr.splitlines()) == 1
        code, steps = check(promptctl, **settings)
        assert code == 78 and steps["redis_connection"][0] == "failed" and words in steps["redis_connection"][1], steps
    assert run(folder, "--check", settings={"redis_url": "redis://localhost", "redis_tls_ca_file": garbage}).returncode == 0


def test_a_reload_takes_new_files(tls, start_promptd, database, new_folder, new_server, authority):
    """The server's CA changes. What is connected stays so; the next connection needs the new file."""
    folder = new_folder("live")
    ca_file, config = os.path.join(folder, "ca.crt"), os.path.join(folder, "promptd.conf")
    shutil.copy(authority.file, ca_file)
    with open(config, "w", encoding="ascii") as file:
        file.write(f"redis_tls_ca_file = {ca_file}\nbatch_max = 7\n")
    server = new_server()
    channel = Channel(server)
    promptd = start_promptd(on=channel, redis_url=server.url, config=config)
    next_authority = Authority(new_folder("next"), "next")
    server.stop()
    server.authority, server.certificate = next_authority, next_authority.issue("server")
    server.start()
    promptd.wait_line("ERROR", "Redis cannot be reached", "from a CA that is unknown here")

    with open(ca_file, "w", encoding="ascii") as file:
        file.write("half a file")
    promptd.kill(signal.SIGHUP)
    line = promptd.wait_line("ERROR", "settings not reloaded; nothing was changed")
    assert f'setting redis_tls_ca_file: value "{ca_file}"' in line.fields["error"]
    shutil.copy(next_authority.file, ca_file)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    channel.wait_subscribers(1)
    stores(promptd, database, channel)

    with open(config, "w", encoding="ascii") as file:
        file.write(f"redis_tls_ca_file = {authority.file}\n")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded", count=2)
    assert not promptd.find("WARNING", "need a restart")
    stores(promptd, database, channel)  # it is still connected
    server.stop()
    server.start()
    promptd.wait_line("ERROR", "Redis cannot be reached", "from a CA that is unknown here", count=2, timeout=20)


def test_a_mistake_in_a_reload_changes_nothing(tls, start_promptd, database, new_folder, server, authority):
    config = os.path.join(new_folder("mistake"), "promptd.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"redis_tls_ca_file = {authority.file}\nprompt_max_chars = 500\n")
    channel = Channel(server)
    promptd = start_promptd(on=channel, redis_url=server.url, config=config)
    with open(config, "w", encoding="ascii") as file:
        file.write("redis_tls_ca_file = /no/such/file\nprompt_max_chars = 1000\n")
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("ERROR", "settings not reloaded; nothing was changed", "No such file")
    channel.publish(database.interview(), "z" * 700)
    assert promptd.settle(1).outcomes() == {"rejected": 1}


# Networks


def test_new_keys_in_the_middle(tls, start_promptd, database, new_folder, closing, redis_server, certificate, authority):
    turner = closing(KeyTurner(new_folder("keys"), certificate, ("127.0.0.1", redis_server.port)))
    channel = Channel(redis_server)
    promptd = start_promptd(on=channel, redis_url=f"rediss://localhost:{turner.port}", redis_tls_ca_file=authority.file,
                            heartbeat_interval_s=1)
    for _ in range(5):
        turner.turn_keys()
        stores(promptd, database, channel, 2000)
    heard = len(promptd.lines())
    promptd.wait_line("DEBUG", "message received", count=5)
    wait_until(lambda: promptd.counters()["redis_reconnections"] == 0, "no reconnection", 5)
    assert not promptd.find("ERROR", "Redis") and heard


def test_the_name_is_said_to_the_server(tls, start_promptd, database, new_folder, closing, redis_server, authority):
    """SNI: servers of many names show the certificate of the one that is asked for."""
    other, right = authority.issue("other", "DNS:other.test"), authority.issue("right", "DNS:localhost")
    turner = closing(KeyTurner(new_folder("names"), other, ("127.0.0.1", redis_server.port), "-servername", "localhost",
                               "-cert2", right.file, "-key2", right.key))
    channel = Channel(redis_server)
    promptd = start_promptd(on=channel, redis_url=f"rediss://localhost:{turner.port}", redis_tls_ca_file=authority.file)
    stores(promptd, database, channel)


def test_a_cut_in_the_middle_of_a_record(tls, start_promptd, database, server, authority, new_proxy):
    channel = Channel(server)
    proxy = new_proxy(("127.0.0.1", server.port))
    promptd = start_promptd(on=channel, redis_url=f"rediss://localhost:{proxy.port}", redis_tls_ca_file=authority.file)
    for cut, bytes_before in enumerate([3, 700, 20000], 1):
        proxy.truncate(TO_CLIENT, bytes_before)
        channel.publish_raw(channel.message(database.interview(), "w" * 40000).framed())
        promptd.wait_line("ERROR", "Redis connection lost", count=cut)
        promptd.wait_line("WARNING", "subscription restored after", count=cut)
        stores(promptd, database, channel)
    assert promptd.counters().outcomes() == {"success": 3}


def test_a_cut_in_the_handshake(tls, start_promptd, database, server, authority, new_proxy):
    channel = Channel(server)
    proxy = new_proxy(("127.0.0.1", server.port))
    proxy.truncate(TO_CLIENT, 100)
    promptd = start_promptd(ready=False, on=channel, redis_url=f"rediss://localhost:{proxy.port}",
                            redis_tls_ca_file=authority.file)
    expect_line(promptd, "TLS handshake")
    promptd.wait_ready(channel, database)
    stores(promptd, database, channel)


def test_silence_in_the_handshake(tls, start_promptd, promptctl, database, server, authority, new_proxy):
    channel = Channel(server)
    proxy = new_proxy(("127.0.0.1", server.port))
    proxy.swallow()
    settings = {"redis_url": f"rediss://localhost:{proxy.port}", "redis_tls_ca_file": authority.file}
    promptd = start_promptd(ready=False, on=channel, **settings)
    expect_line(promptd, "no answer to the TLS handshake")
    assert promptd.cpu_seconds() < 1.5 * SLOW  # it sleeps meanwhile, for five seconds
    code, steps = check(promptctl, **settings)
    assert code == 69 and "no answer to the TLS handshake" in steps["redis_tls"][1], steps
    proxy.restore()
    promptd.wait_ready(channel, database)
    stores(promptd, database, channel)


@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
def test_silence_later(tls, start_promptd, database, server, authority, new_proxy, direction):
    channel = Channel(server)
    proxy = new_proxy(("127.0.0.1", server.port))
    promptd = start_promptd(on=channel, redis_url=f"rediss://localhost:{proxy.port}", redis_tls_ca_file=authority.file,
                            heartbeat_interval_s=1, heartbeat_timeout_s=1)
    proxy.swallow(direction)
    promptd.wait_line("ERROR", "Redis connection lost", "no answer to the heartbeat")
    proxy.restore()
    promptd.wait_line("WARNING", "subscription restored after")
    stores(promptd, database, channel)


def test_small_pieces(tls, start_promptd, database, server, authority, new_proxy):
    channel = Channel(server)
    proxy = new_proxy(("127.0.0.1", server.port))
    proxy.delay(0.05)
    promptd = start_promptd(on=channel, redis_url=f"rediss://localhost:{proxy.port}", redis_tls_ca_file=authority.file)
    stores(promptd, database, channel, 40000)


# With or without TLS


def test_a_tls_port_spoken_to_plainly(start_promptd, promptctl, server):
    url = server.plain_url
    expect_line(start_promptd(ready=False, redis_url=url), "this port speaks TLS: rediss://")
    code, steps = check(promptctl, redis_url=url)
    assert code == 69 and "this port speaks TLS: rediss://" in steps["redis_login"][1], steps


def test_an_alert_to_a_plain_client(start_promptd, promptctl, closing):
    """Other servers than Redis' own say it in TLS' way."""
    def complain(client):
        client.hear()
        client.say(b"\x15\x03\x01\x00\x02\x02\x46")
        client.close()

    url = closing(Peer(complain)).url
    expect_line(start_promptd(ready=False, redis_url=url), "this port speaks TLS: rediss://")
    code, steps = check(promptctl, redis_url=url)
    assert code == 78 and "this port speaks TLS: rediss://" in steps["redis_login"][1], steps


def test_it_is_refused_where_hiredis_has_none(without_tls, new_folder, promptctl):
    for url in ("rediss://localhost", "rediss://u:hunter2@localhost:6380/1"):
        for arguments in [["--check"], ["--print-config"], []]:
            result = run(new_folder("refused"), *arguments, settings={"redis_url": url})
            assert result.returncode == 78 and "hunter2" not in result.stderr
            assert len(result.stderr.splitlines()) == 1
            for word in ("PROMPTD_REDIS_URL", "TLS", "hiredis", "Debian 13", "image", "stunnel"):
                assert word in result.stderr
        assert promptctl("check", redis_url=url).code == 78
        assert run(new_folder("refused"), f"--redis-url={url}").returncode == 64
