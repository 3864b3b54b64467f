# SPDX-License-Identifier: MIT
"""Redis Sentinel: promptd asks where the master is, follows a failover, and stays with no server that was demoted."""

import signal
import socket
import threading
import time

import pytest

from support.admin import Admin
from support.expect import expect_stored
from support.promptd import run
from support.redis_server import Channel
from support.sentinel import PROGRAM, SERVICE, Group, Sentinel
from support.wait import SLOW, wait_until

PASSWORD = "zqS3cretOfTheGroup"


def need_sentinel():
    if PROGRAM is None:
        pytest.skip("needs redis-sentinel (Debian package redis-sentinel)")


@pytest.fixture
def new_group(new_folder, closing):
    need_sentinel()
    return lambda **options: closing(Group(new_folder, **options))


@pytest.fixture
def group(new_group):
    """To be broken."""
    return new_group()


@pytest.fixture(scope="module")
def calm_group(new_folder):
    """Nobody breaks it: its master stays."""
    need_sentinel()
    group = Group(new_folder, replicas=1)
    yield group
    group.close()


@pytest.fixture
def calm_channel(calm_group):
    return Channel(calm_group.servers[0])


def start(start_promptd, group, channel, **settings):
    return start_promptd(on=channel, **{"redis_url": group.url, **settings})


def url_of(*sentinels, service=SERVICE):
    return f"redis+sentinel://{','.join(each.address for each in sentinels)}/{service}"


def expect_works(promptd, database, channel):
    received = promptd.counters()["received"]
    message = channel.publish(database.interview())
    promptd.settle(received + 1)
    expect_stored(database, message)


def named(promptd):
    """Each master that was said to be named, in order."""
    return [line.fields["master"] for line in promptd.find("INFO", "a Sentinel names the master")]


def address(server):
    return f"127.0.0.1:{server.port}"


def await_subscription(promptd, channel, server, timeout=15.0):
    """On the new master, within the time; returns the channel there."""
    there = Channel(server, channel.name)
    there.published, there.marker = channel.published, channel.marker
    wait_until(lambda: there.subscribers() == 1, "promptd to be subscribed at the new master", timeout,
               seen=lambda: promptd.tail(12))
    return there


# Failover


BREAKDOWNS = {"killed": lambda server: server.stop(signal.SIGKILL), "frozen": lambda server: server.freeze()}


@pytest.mark.parametrize("breakdown", BREAKDOWNS)
def test_failover_is_followed(start_promptd, database, group, breakdown):
    """Also with the heartbeat as shipped, which alone would find a frozen master only after up to 8 s."""
    old = group.master()
    channel = Channel(old)
    promptd = start(start_promptd, group, channel)
    expect_works(promptd, database, channel)
    began = time.monotonic()
    BREAKDOWNS[breakdown](old)
    new = group.master(but=old)
    there = await_subscription(promptd, channel, new, timeout=3.0)
    seconds = time.monotonic() - began
    expect_works(promptd, database, there)
    gap = promptd.wait_line("WARNING", "subscription restored after")
    assert float(gap.text.split("after ")[1].split(" s")[0]) >= min(seconds, 1.0) - 0.2  # deaf since it froze, not since we left
    assert named(promptd) == [address(old), address(new)]
    assert len(promptd.find("ERROR", "Redis connection lost", address(old))) == 1
    assert not promptd.find("CRITICAL")
    expect_old_master_is_let_be(promptd, database, group, old, there)


def expect_old_master_is_let_be(promptd, database, group, old, there):
    """It comes back, and is a master in its own eyes until a Sentinel tells it otherwise."""
    if old.is_running():
        old.thaw()
    else:
        old.start()
    wait_until(old.is_replica, "the old master to be demoted", 20)
    assert old.subscribers(there.name) == 0 and there.subscribers() == 1
    expect_works(promptd, database, there)


def test_demoted_master_is_left(start_promptd, database, group):
    """The old one lives on, and would take subscribers: Redis itself closes nothing until a Sentinel tells it to."""
    old = group.master()
    channel = Channel(old)
    promptd = start(start_promptd, group, channel, heartbeat_interval_s=0)
    group.sentinels[0].ask("FAILOVER", SERVICE)
    new = group.master(but=old)
    there = await_subscription(promptd, channel, new, timeout=3.0)
    assert old.subscribers(channel.name) == 0
    expect_works(promptd, database, there)
    assert named(promptd) == [address(old), address(new)]
    promptd.one("ERROR", "Redis connection lost", f"the Sentinels name another master: {address(new)}")


def test_start_amid_a_failover(start_promptd, database, group):
    """The Sentinels still name a master that is frozen: it costs 2 s a try, and the next answer is another."""
    old = group.master()
    channel = Channel(group.servers[1])
    old.freeze()
    promptd = start(start_promptd, group, channel, ready=False)
    there = await_subscription(promptd, channel, group.master(but=old), timeout=4.0)
    expect_works(promptd, database, there)


def test_new_master_closes_the_wait_of_an_open_circuit(start_promptd, database, group):
    """No failover without a majority: dials fail until the circuit opens. With the Sentinels the master comes back."""
    old = group.master()
    channel = Channel(old)
    promptd = start(start_promptd, group, channel, breaker_failures=2, breaker_reset_s=3600)
    for sentinel in group.sentinels[1:]:
        sentinel.stop()
    old.stop(signal.SIGKILL)
    promptd.wait_line("CRITICAL", "Redis circuit opened")
    for sentinel in group.sentinels[1:]:
        sentinel.start()
    there = await_subscription(promptd, channel, group.master(but=old), timeout=3.0)
    promptd.wait_line("INFO", "Redis circuit closed")
    expect_works(promptd, database, there)


def test_failover_opens_no_circuit(start_promptd, database, group):
    """However often it is looked at: five failures in a row take as long as without Sentinels, 7.5 s and more."""
    old = group.master()
    channel = Channel(old)
    promptd = start(start_promptd, group, channel, breaker_failures=5, backoff_max_s=30)
    old.stop(signal.SIGKILL)
    await_subscription(promptd, channel, group.master(but=old), timeout=3.0)
    dials = promptd.find("DEBUG", "to=connecting")
    assert len(dials) > 5 and not promptd.find("CRITICAL")


# Sentinels that are away, wrong, or late


def test_dead_and_frozen_sentinels_are_passed_over(start_promptd, database, group, closing):
    channel = Channel(group.master())
    group.sentinels[0].stop()
    group.sentinels[1].freeze()
    began = time.monotonic()
    promptd = start(start_promptd, group, channel)
    assert time.monotonic() - began <= 3.0 * SLOW
    expect_works(promptd, database, channel)
    assert promptd.one("INFO", "a Sentinel names the master").fields["sentinel"] == group.sentinels[2].address


def test_all_sentinels_away_is_told_once_and_costs_nothing(start_promptd, database, group):
    channel = Channel(group.master())
    promptd = start(start_promptd, group, channel)
    for sentinel in group.sentinels:
        sentinel.stop()
    line = promptd.wait_line("WARNING", "no Sentinel can be asked; a failover would go unnoticed")
    assert "Connection refused" in line.fields["error"]
    expect_works(promptd, database, channel)
    time.sleep(2.5)  # two more rounds of questions
    group.sentinels[1].start()
    answered = promptd.wait_line("INFO", "a Sentinel answers again")
    assert answered.fields["sentinel"] == group.sentinels[1].address
    expect_works(promptd, database, channel)
    assert len(promptd.find("WARNING", "no Sentinel can be asked")) == 1
    assert not promptd.find("ERROR") and promptd.counters()["gaps"] == 0


def test_all_sentinels_away_at_the_start(start_promptd, database, group):
    channel = Channel(group.master())
    for sentinel in group.sentinels:
        sentinel.stop()
    promptd = start(start_promptd, group, channel, ready=False, backoff_max_s=3600, breaker_failures=1, breaker_reset_s=3600)
    line = promptd.wait_line("ERROR", "Redis cannot be reached; trying again", "no Sentinel answers")
    assert line.fields["server"] == f"master {SERVICE}"
    promptd.wait_line("CRITICAL", "Redis circuit opened")
    group.sentinels[2].start()
    promptd.wait_ready(channel, database)
    expect_works(promptd, database, channel)


def test_sentinel_that_knows_better_is_asked_next(start_promptd, database, calm_group, calm_channel, new_folder, closing):
    """One that was left behind names a replica: ROLE tells, and another Sentinel is believed."""
    stale = closing(Sentinel(new_folder("sentinel"), calm_group.servers[1], 9))
    began = time.monotonic()
    promptd = start(start_promptd, calm_group, calm_channel, redis_url=url_of(stale, calm_group.sentinels[0]))
    assert time.monotonic() - began <= 3.0 * SLOW
    assert named(promptd) == [address(calm_group.servers[1]), address(calm_group.servers[0])]
    line = promptd.one("ERROR", "Redis cannot be reached", "no master")
    assert line.fields["server"] == address(calm_group.servers[1])
    expect_works(promptd, database, calm_channel)


def test_master_is_unknown(start_promptd, database, calm_group, calm_channel):
    promptd = start(start_promptd, calm_group, calm_channel, ready=False,
                    redis_url=url_of(*calm_group.sentinels, service="nobody"))
    line = promptd.wait_line("ERROR", "Redis refuses; trying again", "Sentinel knows no master named nobody")
    assert any(each.address in line.fields["error"] for each in calm_group.sentinels)
    for sentinel in calm_group.sentinels:
        sentinel.ask("MONITOR", "nobody", "127.0.0.1", calm_group.servers[0].port, 2)
    promptd.wait_ready(calm_channel, database)
    expect_works(promptd, database, calm_channel)
    for sentinel in calm_group.sentinels:
        sentinel.ask("REMOVE", "nobody")


def test_server_in_the_place_of_a_sentinel(start_promptd, redis_server):
    promptd = start_promptd(ready=False, redis_url=f"redis+sentinel://127.0.0.1:{redis_server.port}/{SERVICE}")
    promptd.wait_line("ERROR", "Redis refuses; trying again", "Sentinel refuses: ERR unknown command", str(redis_server.port))


@pytest.fixture
def pretender(closing):
    """pretender(bytes) -> the address of someone who answers so to the first that is said on each connection"""
    def begin(answer):
        listener = closing(socket.create_server(("127.0.0.1", 0)))
        taken = []  # kept open: it does not hang up

        def serve():
            try:
                while True:
                    connection, _ = listener.accept()
                    taken.append(connection)
                    connection.recv(65536)
                    connection.sendall(answer)
            except OSError:
                pass  # closed: the test is over

        threading.Thread(target=serve, daemon=True).start()
        return "127.0.0.1:%d" % listener.getsockname()[1]

    return begin


@pytest.mark.parametrize("answer", [
    b"",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"+OK\r\n",
    b":26379\r\n",
    b"*0\r\n",
    b"*1\r\n$9\r\n127.0.0.1\r\n",
    b"*2\r\n:1\r\n:2\r\n",
    b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
    b"*2\r\n$4\r\na\x00\x1bb\r\n$4\r\n6379\r\n",
    b"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n",
    b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n",
    b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n-637\r\n",
    b"*2\r\n$300\r\n" + b"h" * 300 + b"\r\n$4\r\n6379\r\n",
    b"*2\r\n$400000000\r\n" + b"h" * 1000000,
    b"-ERR \x1b[31m\x00 what?\r\n",
], ids=lambda answer: answer[:24].decode("ascii", "backslashreplace") or "nothing")
def test_pretender_is_passed_over(start_promptd, database, calm_group, calm_channel, pretender, promptctl, answer):
    address = pretender(answer)
    promptd = start(start_promptd, calm_group, calm_channel,
                    redis_url=f"redis+sentinel://{address},{calm_group.sentinels[0].address}/{SERVICE}")
    expect_works(promptd, database, calm_channel)
    assert named(promptd) == [f"127.0.0.1:{calm_group.servers[0].port}"]
    alone = promptctl("publish", "--interview", database.interview(), "-", stdin=calm_channel.prompt(),
                      redis_url=f"redis+sentinel://{address}/{SERVICE}")
    assert alone.code in (69, 78) and address in alone.err, alone


def test_names_and_ipv6(start_promptd, database, calm_group, calm_channel):
    port = calm_group.sentinels[0].port
    try:
        socket.create_connection(("::1", port)).close()
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error}")
    for hosts in (f"[::1]:{port}", f"localhost:{port}", f"nowhere.invalid:{port},[::1]:{port}"):
        promptd = start(start_promptd, calm_group, calm_channel, redis_url=f"redis+sentinel://{hosts}/{SERVICE}")
        expect_works(promptd, database, calm_channel)
        promptd.stop()


# Passwords


@pytest.fixture
def guarded_group(new_group):
    """Servers and Sentinels want the same password."""
    server = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    lines = (f"requirepass {PASSWORD}", f"sentinel sentinel-pass {PASSWORD}", f"sentinel auth-pass {SERVICE} {PASSWORD}")
    return new_group(server_options=server, sentinel_lines=lines, password=PASSWORD)


def test_password_for_servers_and_sentinels(start_promptd, database, promptctl, guarded_group):
    old = guarded_group.master()
    channel = Channel(old)
    url = guarded_group.url_with(f"default:{PASSWORD}@")
    promptd = start(start_promptd, guarded_group, channel, redis_url=url)
    promptd.secrets.append(PASSWORD)
    expect_works(promptd, database, channel)
    assert promptctl("check", redis_url=url, redis_channel=channel.name).code == 0
    guarded_group.sentinels[0].ask("FAILOVER", SERVICE)
    there = await_subscription(promptd, channel, guarded_group.master(but=old), timeout=3.0)
    expect_works(promptd, database, there)


def test_sentinels_refuse_the_password(start_promptd, promptctl, guarded_group):
    channel = Channel(guarded_group.master())
    url = guarded_group.url_with(":zqWrongPassword@")
    promptd = start(start_promptd, guarded_group, channel, ready=False, redis_url=url)
    promptd.secrets.append("zqWrongPassword")
    promptd.wait_line("ERROR", "Redis refuses; trying again", "Sentinel refuses: WRONGPASS")
    result = promptctl("check", redis_url=url, redis_channel=channel.name)
    assert result.code == 78 and "Sentinel refuses: WRONGPASS" in result.out and "zqWrong" not in result.out + result.err
    bare = start(start_promptd, guarded_group, channel, ready=False)
    bare.wait_line("ERROR", "Redis refuses; trying again", "Sentinel refuses: NOAUTH")


def test_password_for_the_servers_alone(start_promptd, database, new_group):
    """The Sentinels want none, and would refuse one that is given unasked."""
    group = new_group(server_options=("--requirepass", PASSWORD, "--masterauth", PASSWORD),
                      sentinel_lines=(f"sentinel auth-pass {SERVICE} {PASSWORD}",), password=PASSWORD)
    channel = Channel(group.master())
    promptd = start(start_promptd, group, channel, redis_url=group.url_with(f":{PASSWORD}@"))
    promptd.secrets.append(PASSWORD)
    expect_works(promptd, database, channel)


def test_account_that_may_not_ask_for_the_role(start_promptd, database, promptctl, calm_group, calm_channel):
    for server in calm_group.servers:
        server.admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "+subscribe", "+select", "&*")
    url = calm_group.url_with("reader:secret@")
    promptd = start(start_promptd, calm_group, calm_channel, redis_url=url)
    expect_works(promptd, database, calm_channel)
    steps = {step["step"]: step for step in promptctl("check", "--json", redis_url=url, redis_channel=calm_channel.name).json()}
    assert steps["redis_role"]["result"] == "note" and "NOPERM" in steps["redis_role"]["detail"]


# What people see


def test_status_and_publish(start_promptd, database, promptctl, calm_group, calm_channel, tmp_path):
    promptd = start(start_promptd, calm_group, calm_channel)
    master = address(calm_group.servers[0])
    assert Admin(promptd.admin_url).json("/status")["redis"]["server"] == master
    assert master in promptctl("status", admin_listen=promptd.admin_url.removeprefix("http://")).out
    prompt = tmp_path / "prompt"
    prompt.write_text(calm_channel.prompt())
    interview = database.interview()
    result = promptctl("publish", "--interview", interview, prompt, redis_url=calm_group.url, redis_channel=calm_channel.name)
    assert result.code == 0, result
    promptd.wait_counters(success=1)


def test_check_names_the_sentinels(promptctl, database, calm_group, calm_channel):
    database.interview()

    def check(url, code):
        result = promptctl("check", "--json", redis_url=url, redis_channel=calm_channel.name)
        assert result.code == code, result
        return {step["step"]: (step["result"], step["detail"]) for step in result.json()}

    master = address(calm_group.servers[0])
    steps = check(calm_group.url, 0)
    assert list(steps)[:4] == ["redis_sentinels", "redis_connection", "redis_login", "redis_role"]
    assert steps["redis_sentinels"][0] == "ok" and f"3 of 3 name {master}" in steps["redis_sentinels"][1]
    assert all(f"{each.address} names {master}" in steps["redis_sentinels"][1] for each in calm_group.sentinels)
    assert steps["redis_connection"] == ("ok", master) and steps["redis_role"] == ("ok", f"{master} is a master")

    result, detail = check(f"redis+sentinel://127.0.0.1:1,{calm_group.sentinels[0].address}/{SERVICE}", 0)["redis_sentinels"]
    assert result == "note" and f"1 of 2 name {master}" in detail and "Connection refused (127.0.0.1:1)" in detail

    steps = check(f"redis+sentinel://127.0.0.1:1/{SERVICE}", 69)
    assert steps["redis_sentinels"][0] == steps["redis_connection"][0] == "failed" and steps["redis_role"][0] == "skipped"
    steps = check(url_of(calm_group.sentinels[0], service="nobody"), 78)
    assert "Sentinel knows no master named nobody" in steps["redis_sentinels"][1]


def test_check_of_a_replica(promptctl, database, calm_group, calm_channel, new_folder, closing):
    """A Sentinel that was left behind names it."""
    database.interview()
    stale = closing(Sentinel(new_folder("sentinel"), calm_group.servers[1], 9))
    result = promptctl("check", "--json", redis_url=url_of(stale), redis_channel=calm_channel.name)
    steps = {step["step"]: step for step in result.json()}
    assert result.code == 69 and steps["redis_role"]["result"] == "failed" and "it is no master" in steps["redis_role"]["detail"]
    assert steps["redis_subscribe"]["result"] == "skipped"


@pytest.mark.parametrize("url, phrase", [
    ("redis+sentinel://a:1,b:2", "has no service behind its Sentinels"),
    ("redis+sentinel://a:1,,b:2/mymaster", "has an empty host in its list"),
    ("redis+sentinel://a:1,b:zz/mymaster", "has a port that is not a number from 1 to 65535"),
    ("redis+sentinel://a:1,b:2/mymaster/zero", "has a database that is not a number"),
    ("redis+sentinel://a:1,user:zqhunter2@b:2/mymaster", "percent-encode"),
    ("redis+sentinel://user:zqhun/ter2@a:1,b:2/mymaster", "percent-encode"),
])
def test_bad_url_ends_the_start(tmp_path, url, phrase):
    result = run(str(tmp_path), settings={"redis_url": url})
    assert result.returncode == 78 and phrase in result.stderr and "redis_url" in result.stderr.lower(), result
    assert "zqhun" not in result.stdout + result.stderr and "ter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("url, shown", [
    ("redis+sentinel://a:1,[::1]:2,b/mymaster/3", "redis+sentinel://a:1,[::1]:2,b/mymaster/3"),
    ("redis+sentinel://user:zqhunter2@a:1,[::1]:2,b/mymaster", "redis+sentinel://user:***@a:1,[::1]:2,b/mymaster"),
    ("redis+sentinel://:zqhunter2@[::1],b/mymaster", "redis+sentinel://:***@[::1],b/mymaster"),
])
def test_password_is_not_shown(tmp_path, url, shown):
    result = run(str(tmp_path), "--print-config", settings={"redis_url": url})
    assert result.returncode == 0 and shown in result.stdout and "zqhunter2" not in result.stdout + result.stderr, result
