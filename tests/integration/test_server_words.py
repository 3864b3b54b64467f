# SPDX-License-Identifier: MIT
"""What the server itself says is what promptd and promptctl say, also when the connection is closed right behind it."""

import signal
import threading
import time

import pytest
import redis

from support.expect import expect_stores_a_message
from support.peer import Peer, answer, behave
from support.redis_server import Channel, RedisServer
from support.wait import SLOW, wait_until

SECRET = "sesame-opens"

DENIED = "DENIED Redis is running in protected mode because protected mode is enabled"
FULL = "ERR max number of clients reached"

# "resets" may come before the connection is made: hiredis 1 then lets the kernel throw away what was said. No Redis does
# it, for it has nothing unread; promptd gets the words at one dial or another, promptctl has one only.
PARTINGS = {
    "closes": lambda client, words: (client.say(words), client.close()),
    "resets": lambda client, words: (client.say(words), client.reset()),
    "closes when asked": lambda client, words: (client.hear(), client.say(words), client.close()),
    "resets when asked": lambda client, words: (client.hear(), client.say(words), client.reset()),
    "leaves the question unread": lambda client, words: (time.sleep(0.2), client.say(words), client.close()),
}


def refused(promptd, words):
    line = promptd.wait_line("ERROR", "Redis refuses")
    assert words in line.fields["error"]
    return line


# A real server


def test_protected_mode(start_promptd, promptctl, new_folder, far_host, closing):
    """It says so to everybody, and closes the connection."""
    server = closing(RedisServer(new_folder("protected"), host=far_host))
    for login in ("", f":{SECRET}@"):
        url = server.url.replace("//", f"//{login}")
        promptd = start_promptd(ready=False, redis_url=url)
        refused(promptd, "DENIED Redis is running in protected mode")
        checked = promptctl("check", redis_url=url)
        assert checked.code == 78 and "DENIED Redis is running in protected mode" in checked.out


def test_too_many_clients(start_promptd, promptctl, database, own_redis, own_channel):
    own_redis.admin.config_set("maxclients", 1)  # that is the administrator
    promptd = start_promptd(ready=False, on=own_channel)
    refused(promptd, FULL)
    checked = promptctl("check", redis_url=own_redis.url)
    assert checked.code == 69 and FULL in checked.out
    own_redis.admin.config_set("maxclients", 100)
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)


def test_account_without_the_channel(promptctl, own_redis, own_channel):
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", "on", ">right", "+@all", "resetchannels")
    url = f"redis://worker:right@127.0.0.1:{own_redis.port}"
    checked = promptctl("check", redis_url=url)
    assert checked.code == 78 and "NOPERM" in checked.out


@pytest.fixture
def script(own_redis):
    """script(): one that runs until it is killed. The server is silent for so many ms, and then says that it is busy."""
    threads = []

    def run():
        try:
            own_redis.admin.eval("while true do end", 0)
        except redis.ResponseError:
            pass  # it was killed

    def start(silent_ms=100):
        own_redis.admin.config_set("busy-reply-threshold", silent_ms)
        threads.append(threading.Thread(target=run))
        threads[-1].start()
        wait_until(lambda: is_busy(own_redis), "the server to be busy")

    yield start
    end_script(own_redis)
    for thread in threads:
        thread.join()


def is_busy(server):
    with redis.Redis(unix_socket_path=server.socket) as client:
        try:
            client.ping()
        except redis.ResponseError as error:
            return str(error).startswith("BUSY") or "busy running a script" in str(error)
        return False


def end_script(server):
    with redis.Redis(unix_socket_path=server.socket) as client:
        try:
            client.script_kill()
        except redis.ResponseError:
            pass  # none runs


def test_subscription_outlives_a_busy_server(start_promptd, database, own_redis, own_channel, script):
    """That the server is busy is an answer to the heartbeat."""
    promptd = start_promptd(on=own_channel, heartbeat_interval_s=1, heartbeat_timeout_s=1)
    script()
    time.sleep(4.5)  # some heartbeats
    end_script(own_redis)
    expect_stores_a_message(promptd, database, own_channel)
    assert "BUSY Redis is busy" in promptd.one("WARNING|ERROR|CRITICAL", "the subscription stays").fields["error"]
    promptd.wait_line("INFO", "no longer busy")
    assert promptd.counters()["gaps"] == 0


def test_silence_that_becomes_a_busy_server(start_promptd, database, own_redis, own_channel, script):
    """A heartbeat takes the silence for a dead connection; the gap is over as soon as the script is."""
    promptd = start_promptd(on=own_channel, heartbeat_interval_s=1, heartbeat_timeout_s=1, backoff_max_s=60,
                            breaker_failures=3, breaker_reset_s=3600)
    script(silent_ms=5000)
    promptd.wait_line("ERROR", "Redis refuses", "BUSY ")
    time.sleep(3.5)  # some attempts
    end_script(own_redis)
    ended = time.monotonic()
    promptd.wait_line("WARNING", "subscription restored")
    assert time.monotonic() - ended < 2.5 * SLOW
    expect_stores_a_message(promptd, database, own_channel)
    assert promptd.find("CRITICAL") == []


def test_busy_server_is_dialled_again_each_second(start_promptd, database, own_redis, own_channel, script):
    """No backoff that grows, and no circuit that opens."""
    script()
    promptd = start_promptd(ready=False, redis_url=own_redis.url, redis_channel=own_channel.name, backoff_max_s=60,
                            breaker_failures=2, breaker_reset_s=3600)
    refused(promptd, "BUSY ")
    time.sleep(4.5)  # some attempts
    end_script(own_redis)
    ended = time.monotonic()
    promptd.wait_line("INFO", "subscribed")
    assert time.monotonic() - ended < 2.5 * SLOW
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)
    promptd.one("WARNING|ERROR|CRITICAL")  # said once


# It ends after so many seconds by the server's own clock.
SCRIPT = """
local function now() local time = redis.call('TIME') return time[1] + time[2] / 1000000 end
local ends = now() + ARGV[1]
while now() < ends do end
"""


# As shipped, in a smaller measure: a heartbeat of 5 s and 3 s, a server that is silent for 5 s, and a script of 40 s.
@pytest.mark.parametrize("interval, timeout, silent_s, script_s", [(2, 1, 2, 16)])
def test_script_costs_its_own_time_and_a_heartbeat(start_promptd, database, own_redis, interval, timeout, silent_s,
                                                   script_s):
    """Wherever between two heartbeats it begins: some are answered, some are not and cost the connection."""
    own_redis.admin.config_set("busy-reply-threshold", 1000 * silent_s)
    running = {}
    for number in range(4):
        channel = Channel(own_redis, f"script:{number}")
        running[channel] = start_promptd(on=channel, heartbeat_interval_s=interval, heartbeat_timeout_s=timeout)
        time.sleep(interval / 4)
    waiting = {channel: [] for channel in running}
    own_redis.admin.eval(SCRIPT, 0, script_s)
    ended = time.monotonic()
    while waiting:
        assert time.monotonic() - ended < interval * SLOW, waiting
        for channel, messages in list(waiting.items()):
            messages.append(channel.publish(database.interview(), listeners=0))
            if any(database.prompts(message.interview) for message in messages):
                del waiting[channel]
    lost = [promptd.counters()["gaps"] for promptd in running.values()]
    assert set(lost) == {0, 1}, lost
    assert not any(promptd.find("CRITICAL") for promptd in running.values())


def test_server_that_is_loading_is_dialled_again_each_second(start_promptd, closing):
    def serve(client):
        while client.number < 4:
            client.hear()
            client.say(b"-LOADING Redis is loading the dataset in memory\r\n")
        behave(client)

    promptd = start_promptd(ready=False, redis_url=closing(Peer(serve)).url, backoff_max_s=60, breaker_failures=2,
                            breaker_reset_s=3600)
    refused(promptd, "LOADING ")
    promptd.wait_line("INFO", "subscribed")
    promptd.one("WARNING|ERROR|CRITICAL")


# One that parts at once


@pytest.mark.parametrize("words", [DENIED, FULL])
@pytest.mark.parametrize("parting", PARTINGS)
def test_words_before_the_end(start_promptd, promptctl, closing, parting, words):
    peer = closing(Peer(lambda client: PARTINGS[parting](client, f"-{words}\r\n".encode())))
    for login in ("", f":{SECRET}@", f"worker:{SECRET}@"):
        url = peer.url.replace("//", f"//{login}")
        refused(start_promptd(ready=False, redis_url=url), words)
        if parting == "resets":
            continue
        checked = promptctl("check", redis_url=url)
        assert checked.code == (78 if words == DENIED else 69), checked.out
        assert words in checked.out


@pytest.mark.parametrize("parting", PARTINGS)
def test_arguments_of_the_login_stay_out_of_sight(start_promptd, promptctl, closing, parting):
    quote = f"-ERR unknown command `AUTH`, with args beginning with: `worker`, `{SECRET}`, \r\n".encode()
    peer = closing(Peer(lambda client: PARTINGS[parting](client, quote)))
    url = peer.url.replace("//", f"//worker:{SECRET}@")
    promptd = start_promptd(ready=False, redis_url=url)
    promptd.secrets += [SECRET]
    refused(promptd, "ERR (withheld")
    checked = promptctl("check", redis_url=url)
    assert ("ERR (withheld" in checked.out or parting == "resets") and SECRET not in checked.out + checked.err


def test_end_of_a_subscription(start_promptd, closing):
    def serve(client):
        if client.number == 0:
            while client.hear()[0] != b"SUBSCRIBE":
                client.say(b"+OK\r\n")
            client.say(b"*3\r\n$9\r\nsubscribe\r\n$5\r\nready\r\n:1\r\n-ERR the server goes home\r\n")
            client.reset()
        else:
            behave(client)

    promptd = start_promptd(ready=False, redis_url=closing(Peer(serve)).url, redis_channel="ready")
    assert "ERR the server goes home" in promptd.wait_line("ERROR", "Redis connection lost").fields["error"]
    promptd.wait_line("WARNING", "subscription restored")


# Redis before 6, which has passwords but no users


def old_server(password):
    """What 5.0 answers."""
    def serve(client):
        while True:
            words = client.hear()
            if words[0] == b"AUTH" and len(words) != 2:
                client.say(b"-ERR wrong number of arguments for 'auth' command\r\n")
            elif words[0] == b"AUTH" and words[1] != password.encode():
                client.say(b"-ERR invalid password\r\n")
            elif words[0] == b"PUBLISH":
                client.say(b":1\r\n")
            else:
                answer(client, words)

    return serve


def test_server_that_knows_no_users(start_promptd, promptctl, new_folder, database, closing):
    peer = closing(Peer(old_server(SECRET)))
    url = peer.url.replace("//", f"//worker:{SECRET}@")
    promptd = start_promptd(ready=False, redis_url=url)
    promptd.secrets += [SECRET]
    promptd.wait_line("INFO", "subscribed")
    promptd.wait_line("INFO", "logged in with the password alone")
    assert promptd.find("WARNING|ERROR|CRITICAL") == [] and peer.accepted == 1
    checked = promptctl("check", redis_url=url)
    assert "ok      redis login" in checked.out and "ok      redis subscribe" in checked.out
    prompt = new_folder("prompt") + "/prompt"
    with open(prompt, "w", encoding="ascii") as file:
        file.write("A prompt for an old server.")
    assert promptctl("publish", "--interview", database.interview(), prompt, redis_url=url).code == 0


def test_wrong_password_for_a_server_that_knows_no_users(start_promptd, promptctl, closing):
    """It is tried once more, and no third time."""
    peer = closing(Peer(old_server("another")))
    url = peer.url.replace("//", f"//worker:{SECRET}@")
    promptd = start_promptd(ready=False, redis_url=url)
    promptd.secrets += [SECRET]
    refused(promptd, "ERR invalid password")
    checked = promptctl("check", redis_url=url)
    assert checked.code == 78 and "ERR invalid password" in checked.out


# The heartbeat, turned off


@pytest.mark.parametrize("under_way", [False, True])
def test_heartbeat_is_turned_off(start_promptd, closing, new_folder, under_way):
    """By a reload; also while a beat is under way, whose answer comes late, or not at all."""
    config = new_folder("conf") + "/promptd.conf"
    beats = []

    def write(interval):
        with open(config, "w", encoding="ascii") as file:
            file.write(f"heartbeat_interval_s = {interval}\n")

    def serve(client):
        while True:
            words = client.hear()
            beats.append(words[0] == b"SUBSCRIBE")
            if sum(beats) <= 1 or not under_way:
                answer(client, words)

    write(1)
    peer = closing(Peer(serve))
    promptd = start_promptd(ready=False, config=config, redis_url=peer.url, heartbeat_timeout_s=2)
    wait_until(lambda: sum(beats) >= 2, "a heartbeat")
    write(0)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("INFO", "settings reloaded")
    seen = sum(beats)
    time.sleep(3)  # longer than the timeout
    assert sum(beats) <= seen + 1
    assert promptd.find("WARNING|ERROR|CRITICAL") == [] and peer.accepted == 1
