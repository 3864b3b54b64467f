# SPDX-License-Identifier: MIT
"""Redis goes away, in all the ways that it can: promptd notices in time, comes back, and reports what it missed."""

import re
import signal
import time

import pytest

from support.expect import expect_stored
from support.queue import Queue
from support.redis_server import Channel
from support.wait import SLOW, wait_until

RESTORED = re.compile(r"subscription restored after (\d+\.\d) s.*; messages published meanwhile were not received")
NO_ANSWER = "no answer to the heartbeat"

# One second to the next beat, one for its answer.
BEATING = {"heartbeat_interval_s": 1, "heartbeat_timeout_s": 1}
DEAF_S = 2.0
SLACK_S = 0.7  # of this machine, for the dial and for looking


@pytest.fixture
def proxy(redis_server, new_proxy):
    return new_proxy(redis_server.socket)


@pytest.fixture
def through_proxy(start_promptd, proxy):
    def start(**settings):
        return start_promptd(redis_url=f"redis://127.0.0.1:{proxy.port}", **settings)

    return start


def gaps(promptd):
    """Each gap that was reported: (seconds, cause)."""
    found = [(RESTORED.search(line.text), line) for line in promptd.find("WARNING", "subscription restored")]
    assert all(match for match, _ in found), found
    return [(float(match[1]), line.fields["cause"]) for match, line in found]


def wait_gaps(promptd, count, timeout=15.0):
    wait_until(lambda: len(gaps(promptd)) >= count, f"{count} gap(s) to be reported", timeout,
               seen=lambda: promptd.tail(8))
    found = gaps(promptd)
    assert len(found) == count, found
    return found


def expect_gaps_counted(promptd):
    """The counters say the same as the lines."""
    counters, found = promptd.counters(), gaps(promptd)
    assert counters["gaps"] == len(found) == counters["redis_reconnections"]
    assert abs(counters["gap_ms"] - sum(seconds for seconds, _ in found) * 1000) <= 60 * len(found)


def expect_works(promptd, database, channel):
    received = promptd.counters()["received"]
    message = channel.publish(database.interview())
    promptd.settle(received + 1)
    expect_stored(database, message)


# The heartbeat


def test_connection_that_died_silently_is_dialled_anew_in_time(through_proxy, database, channel, proxy):
    """A firewall has forgotten the connection: nothing arrives, nothing is refused, and no one says so."""
    promptd = through_proxy(**BEATING)
    for round in (1, 2, 3):
        accepted = proxy.accepted
        time.sleep(0.3 * round)  # at different moments between two beats
        proxy.deafen()
        began = time.monotonic()
        wait_until(lambda: proxy.accepted > accepted, "a new dial", 10)
        wait_gaps(promptd, round)
        assert time.monotonic() - began <= (DEAF_S + SLACK_S) * SLOW
    for seconds, cause in gaps(promptd):
        assert cause == NO_ANSWER and 1.0 <= seconds <= (DEAF_S + SLACK_S) * SLOW
    expect_gaps_counted(promptd)
    expect_works(promptd, database, channel)


@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_one_direction_is_dead(through_proxy, database, channel, proxy, direction):
    """The beat gets lost, or its answer does."""
    promptd = through_proxy(**BEATING)
    began = time.monotonic()
    proxy.swallow(direction)
    promptd.wait_line("ERROR", "Redis connection lost", NO_ANSWER)
    assert time.monotonic() - began <= (DEAF_S + SLACK_S) * SLOW
    assert promptd.counters()["subscribed"] == 0
    proxy.restore()
    wait_gaps(promptd, 1)
    expect_gaps_counted(promptd)
    expect_works(promptd, database, channel)


@pytest.mark.parametrize("settings, deaf_s", [(BEATING, DEAF_S), ({}, 8.0)], ids=["1 s and 1 s", "as shipped"])
def test_packets_vanish(start_promptd, database, far_host, far_redis, settings, deaf_s):
    """A link goes down on the way: to both ends the connection looks as well as ever."""
    channel = Channel(far_redis)
    promptd = start_promptd(on=channel, **settings)
    began = time.monotonic()
    far_host.vanish()
    promptd.wait_line("ERROR", "Redis connection lost", timeout=15)
    assert time.monotonic() - began <= (deaf_s + SLACK_S) * SLOW
    assert promptd.counters()["subscribed"] == 0
    far_host.restore()
    (seconds, cause), = wait_gaps(promptd, 1)
    assert cause == NO_ANSWER and seconds <= (deaf_s + 10) * SLOW  # a dial may be under way, and give up after 5 s
    expect_gaps_counted(promptd)
    expect_works(promptd, database, channel)


def test_messages_on_their_way_are_a_sign_of_life(through_proxy, database, channel, proxy):
    """The answer to the beat is queued behind messages on a slow line: that is no dead connection."""
    promptd = through_proxy(**BEATING)
    proxy.delay(0.05)
    messages = [channel.message(interview, "s" * 40000) for interview in database.interviews(120)]
    channel.publish_burst(messages)
    assert promptd.settle(120, timeout=60).outcomes() == {"success": 120}
    assert gaps(promptd) == []


def test_redis_that_accepts_and_says_nothing_at_the_start(start_promptd, database, channel, proxy):
    proxy.swallow()
    promptd = start_promptd(ready=False, redis_url=f"redis://127.0.0.1:{proxy.port}", **BEATING)
    promptd.wait_line("ERROR", "Redis cannot be reached")
    assert promptd.counters()["subscribed"] == 0
    proxy.restore()
    promptd.wait_ready(channel, database)
    assert gaps(promptd) == []  # it was never subscribed before
    expect_works(promptd, database, channel)


def test_redis_is_frozen(start_promptd, database, own_redis):
    """It still accepts, by the kernel's grace, and answers nothing."""
    own = Channel(own_redis)
    promptd = start_promptd(on=own, **BEATING)
    began = time.monotonic()
    own_redis.freeze()
    promptd.wait_line("ERROR", "Redis connection lost", NO_ANSWER)
    assert time.monotonic() - began <= (DEAF_S + SLACK_S) * SLOW
    time.sleep(1)
    own_redis.thaw()
    (seconds, cause), = wait_gaps(promptd, 1)
    assert cause == NO_ANSWER and seconds >= 2.0
    assert len(promptd.find("ERROR|CRITICAL")) == 1
    expect_gaps_counted(promptd)
    own.wait_subscribers(1)
    expect_works(promptd, database, own)


def test_redis_is_frozen_for_less_than_the_timeout(start_promptd, database, own_redis):
    own = Channel(own_redis)
    promptd = start_promptd(on=own, heartbeat_interval_s=1, heartbeat_timeout_s=4)
    for _ in range(3):
        own_redis.freeze()
        time.sleep(1.5)
        own_redis.thaw()
        own.publish(database.interview())
    assert promptd.settle(3).outcomes() == {"success": 3}
    assert gaps(promptd) == [] and promptd.find("WARNING|ERROR|CRITICAL") == []


def test_promptd_itself_is_frozen(start_promptd, database, channel, redis_server):
    """Late is who reads late: answers that lie unread prove the connection all the same."""
    promptd = start_promptd(**BEATING)
    published = 0
    for pause in (2.3, 2.7, 3.1):
        promptd.freeze()
        channel.publish_burst([channel.message(interview) for interview in database.interviews(50)])
        published += 50
        time.sleep(pause)
        promptd.thaw()
        assert promptd.settle(published).outcomes() == {"success": published}
    assert gaps(promptd) == [] and promptd.find("WARNING|ERROR|CRITICAL") == []
    assert promptd.counters()["redis_reconnections"] == 0
    assert len(redis_server.admin.client_list(_type="pubsub")) == 1


def test_heartbeat_can_be_turned_off(through_proxy, database, channel, proxy):
    promptd = through_proxy(heartbeat_interval_s=0, heartbeat_timeout_s=1)
    proxy.stall()
    time.sleep(3)
    channel.publish(database.interview())
    proxy.restore()
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert gaps(promptd) == []


# Cut off by Redis


def test_subscribers_are_killed_again_and_again(start_promptd, database, channel, redis_server):
    promptd = start_promptd()
    for round in (1, 2, 3):
        redis_server.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        found = wait_gaps(promptd, round)
        assert all(seconds <= 2 * SLOW and cause for seconds, cause in found)
        expect_works(promptd, database, channel)
    expect_gaps_counted(promptd)


def test_output_buffer_limit(start_promptd, database, own_redis):
    """Too slow a reader is cut off by Redis, and what was still in its buffer is lost: a gap like any other."""
    own_redis.admin.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    own = Channel(own_redis)
    promptd = start_promptd(on=own)
    messages = [own.message(interview, "b" * 45000) for interview in database.interviews(1500)]
    promptd.freeze()
    published = 0
    for message in messages:  # 5 MB, and what the kernel keeps for both of them
        if own.subscribers() == 0:
            break
        own.publish_message(message, listeners=0)
        published += 1
    wait_until(lambda: own.subscribers() == 0, "Redis to cut promptd off")
    assert 5_000_000 / 45_000 / 5 < published < len(messages)
    promptd.thaw()
    wait_gaps(promptd, 1)
    counters = promptd.wait_counters(waiting=0)
    assert counters.outcomes() == {"success": counters["received"]}
    assert 0 < counters["received"] < published
    assert database.prompt_count() == counters["received"]
    own.wait_subscribers(1)
    expect_works(promptd, database, own)
    expect_gaps_counted(promptd)


def test_redis_is_restarted_several_times(start_promptd, database, own_redis):
    own = Channel(own_redis)
    promptd = start_promptd(on=own)
    for round, with_signal in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
        own_redis.stop(with_signal)
        promptd.wait_line("ERROR", "Redis connection lost", count=round)
        own_redis.start()
        wait_gaps(promptd, round)
        own.wait_subscribers(1)
        expect_works(promptd, database, own)
    expect_gaps_counted(promptd)
    assert len(promptd.find("ERROR|CRITICAL")) == 2


# The circuit

QUICK = {"breaker_failures": 3, "backoff_max_s": 1}


def test_circuit_opens_once_and_closes_by_itself(through_proxy, database, channel, proxy):
    promptd = through_proxy(breaker_reset_s=1, **QUICK)
    proxy.refuse()
    promptd.wait_line("CRITICAL", "circuit opened")
    assert promptd.counters()["redis_circuit_open"] == 1
    proxy.hang_up()  # it still does not work
    accepted = proxy.accepted
    wait_until(lambda: proxy.accepted >= accepted + 3, "three more attempts, a second apart", 10)
    promptd.one("CRITICAL", "circuit opened")
    proxy.restore()
    wait_gaps(promptd, 1)
    assert promptd.counters()["redis_circuit_open"] == 0
    assert len(promptd.find("WARNING|ERROR|CRITICAL")) == 3  # lost, opened, the gap
    expect_works(promptd, database, channel)


def test_open_circuit_waits(through_proxy, proxy):
    """One attempt each reset time, and none between."""
    promptd = through_proxy(breaker_reset_s=2, **QUICK)
    proxy.hang_up()
    promptd.wait_line("CRITICAL", "circuit opened", timeout=15)
    accepted, began = proxy.accepted, time.monotonic()
    wait_until(lambda: proxy.accepted >= accepted + 2, "two attempts", 10)
    assert time.monotonic() - began >= 3.8
    proxy.restore()
    wait_gaps(promptd, 1)


def test_circuit_is_closed_by_hand(through_proxy, database, channel, proxy):
    promptd = through_proxy(breaker_reset_s=3600, **QUICK)
    proxy.refuse()
    promptd.wait_line("CRITICAL", "circuit opened", timeout=15)
    promptd.kill(signal.SIGUSR2)  # too early: it opens again, and says so again
    promptd.wait_line("CRITICAL", "circuit opened", count=2, timeout=15)
    proxy.restore()
    began = time.monotonic()
    promptd.kill(signal.SIGUSR2)
    wait_gaps(promptd, 1)
    assert time.monotonic() - began < 2 * SLOW
    assert promptd.counters()["redis_circuit_open"] == 0
    expect_works(promptd, database, channel)


def test_circuit_does_not_open_early(through_proxy, database, channel, proxy):
    """Failures count in a row: what works in between begins anew."""
    promptd = through_proxy(breaker_failures=3, breaker_reset_s=3600)
    for round in (1, 2, 3):
        accepted = proxy.accepted
        proxy.hang_up()
        wait_until(lambda: proxy.accepted > accepted, "an attempt", 5)
        proxy.restore()
        wait_gaps(promptd, round)
    assert promptd.find("CRITICAL") == []
    expect_works(promptd, database, channel)


@pytest.mark.parametrize("mode, links", [("pubsub", 2), ("list", 3)])
def test_outage_is_told_once_however_many_connections(start_promptd, own_redis, mode, links):
    place = Channel(own_redis) if mode == "pubsub" else Queue(own_redis, mode)
    taking = "subscribed" if mode == "pubsub" else "taking messages"
    promptd = start_promptd(ready=False, on=place, redis_mode=mode, events_channel="the:events", breaker_failures=2,
                            breaker_reset_s=3600)
    promptd.wait_line("INFO", taking)
    promptd.wait_line("INFO", "ready to publish outcome events")
    own_redis.stop()
    promptd.wait_line("DEBUG", "next dial wait_ms=3600000", count=links)
    promptd.one("ERROR", "Redis connection lost")
    promptd.one("CRITICAL", "Redis circuit opened")
    own_redis.start()
    promptd.kill(signal.SIGUSR2)
    promptd.wait_line("INFO", taking, count=2)
    promptd.wait_line("INFO", "ready to publish outcome events", count=2)
    promptd.one("INFO", "Redis circuit closed by hand")
    promptd.one("INFO", "Redis connection back")
    own_redis.stop()  # another one
    promptd.wait_line("ERROR", "Redis connection lost", count=2)
    own_redis.start()
    promptd.wait_line("INFO", taking, count=3)
    promptd.wait_line("INFO", "ready to publish outcome events", count=3)
    assert len(promptd.find("ERROR|CRITICAL")) == 3 and len(promptd.find("INFO", "Redis connection back")) == 2
