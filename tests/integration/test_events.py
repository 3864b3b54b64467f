# SPDX-License-Identifier: MIT
"""Outcome events: what is published for each outcome, and that they never stand in anybody's way."""

import datetime
import http.client
import json
import os
import re
import signal
import socket
import sys
import time
import uuid

import pytest

from support import admin
from support.events import Listener
from support.expect import expect_stored, stuck_line, unstuck_line
from support.postgres import ROLE
from support.process import Port, end, spawn, wait_for_server
from support.redis_server import Channel
from support.wait import SLOW, wait_until

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"
TO_FAILED = "new.status = 'failed'"
AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
BEATING = {"heartbeat_interval_s": 1, "heartbeat_timeout_s": 1}
PUBLISH = rb"PUBLISH"


@pytest.fixture
def listen(channel, closing):
    return lambda server=channel.server, name=f"{channel.name}:events": closing(Listener(server, name))


@pytest.fixture
def listener(listen):
    return listen()


@pytest.fixture
def start(start_promptd, channel):
    """A promptd that is ready to publish events, too."""
    def start(*arguments, **settings):
        promptd = start_promptd(*arguments, **{"events_channel": f"{channel.name}:events", **settings})
        promptd.wait_line("INFO", "ready to publish outcome events")
        return promptd

    return start


@pytest.fixture
def told(listener, channel):
    """told(count): the events, without their time, which is now, and without a word of any prompt."""
    def told(count=1):
        events = listener.wait(count)
        for event in events:
            at = event.pop("at")
            age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(at.replace("Z", "+00:00"))
            assert AT.fullmatch(at) and abs(age.total_seconds()) < 30 * SLOW
        assert channel.marker.encode() not in b"".join(listener.raw())
        return events

    return told


@pytest.fixture
def proxy(redis_server, new_proxy):
    return new_proxy(redis_server.socket)


@pytest.fixture
def through_proxy(start, proxy):
    return lambda *arguments, **settings: start(*arguments, redis_url=f"redis://127.0.0.1:{proxy.port}", **settings)


def about(message, outcome, status=None, **more):
    """What is told of a message with a prompt."""
    event = {"interview_id": message.interview, "outcome": outcome, "prompt_id": message.id, "source": message.source, **more}
    return {**event, "status": status} if status else event


def connections(server):
    return [client["id"] for client in server.admin.client_list() if client["name"] == "promptd"]


# Each outcome


def test_stored_and_duplicate(start, atomicity, database, channel, told):
    promptd = start(atomicity=atomicity)
    message = channel.publish(database.interview(), source="fallback")
    promptd.settle(1)
    channel.publish_message(message)
    promptd.settle(2)
    assert told(2) == [about(message, "stored", "ready"), about(message, "duplicate")]
    assert list(told(2)[0]) == ["interview_id", "outcome", "status", "prompt_id", "source"]
    promptd.wait_counters(events_published=2, events_dropped=0)
    assert admin.of(promptd).metrics()["promptd_events_published_total"] == 2
    assert admin.of(promptd).json("/status")["events"] == {"channel": f"{channel.name}:events", "connected": True, "waiting": 0}


def test_not_stored(start, atomicity, database, channel, told):
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'RUDE')")
    promptd = start(atomicity=atomicity)
    rude = channel.publish(database.interview(), "RUDE words")
    nobody = channel.publish(str(uuid.uuid4()))
    assert promptd.settle(2).outcomes() == {"failure": 2}
    events = sorted(told(2), key=lambda event: "sqlstate" in event)
    assert events[0] == about(nobody, "not stored", reason="there is no such interview")
    assert "polite" in events[1].pop("reason")
    assert events[1] == about(rude, "not stored", "failed", sqlstate="23514")


def test_rolled_back(start, atomicity, database, channel, told):
    database.raise_on("interviews", "update", "not ready", "P0001", TO_READY)
    promptd = start(atomicity=atomicity)
    refused = channel.publish(database.interview())
    promptd.settle(1)
    late = channel.publish(database.interview("timeout"))
    assert promptd.settle(2).outcomes() == {"failure": 2, "rollback": 2}
    assert told(2) == [about(refused, "rolled back", "failed", reason="not ready", sqlstate="P0001"),
                       about(late, "rolled back", reason="the interview is no longer awaiting its prompt (status timeout)")]


def test_interview_that_was_failed_before(start, atomicity, database, channel, told):
    """There is nothing left to mark, and nothing else to say than that it is failed."""
    database.raise_on(PROMPTS, "insert", "no prompts today")
    promptd = start(atomicity=atomicity)
    message = channel.publish(database.interview("failed"))
    promptd.settle(1)
    assert told() == [about(message, "not stored", "failed", reason="no prompts today", sqlstate="P0001")]


def test_orphaned_and_resolved(start, database, channel, told, listener):
    database.raise_on("interviews", "update", "not ready", when=TO_READY)
    database.execute(f"revoke delete on {PROMPTS} from {ROLE}")
    promptd = start(atomicity="compensate", reconcile_interval_s=1, recover_after_s=1)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}
    (event,) = told()
    assert "permission denied" in event.pop("reason")
    assert event == about(message, "orphaned", "failed", sqlstate="42501")
    listener.forget()
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    promptd.wait_line("INFO", "ORPHANED PROMPT RESOLVED")
    (event,) = told()
    assert (event["interview_id"], event["prompt_id"], event["outcome"]) == (message.interview, message.id, "rolled back")
    assert event["status"] == "failed" and "source" not in event


def test_rejected(start, atomicity, database, channel, told):
    promptd = start(atomicity=atomicity)
    interview = database.interview()
    channel.publish_raw(json.dumps({"interview_id": interview, "enhanced_prompt": channel.marker[:9]}).encode())
    promptd.settle(1)
    channel.publish_raw(b"good morning")
    promptd.settle(2)
    assert told(2) == [
        {"interview_id": interview, "outcome": "rejected", "status": "failed", "reason": "prompt_too_short"},
        {"outcome": "rejected", "reason": "not_json"}]


def test_dropped(start, atomicity, database, channel, told):
    promptd = start(atomicity=atomicity, queue_max_messages=1)
    with database.locked():
        stored = channel.publish(database.interview())
        promptd.wait_counters(received=1)
        dropped = channel.publish(database.interview())
        promptd.wait_counters(dropped=1)
        assert told() == [about(dropped, "dropped", reason="the queue is full (queue_max_messages, queue_max_bytes)")]
    promptd.settle(2)
    assert told(2)[1] == about(stored, "stored", "ready")


def test_stuck_and_no_longer(start, atomicity, database, channel, told, listener):
    """No status while nothing was changed; it comes with the mark."""
    database.raise_on("interviews", "update", "never", when=f"{TO_READY} or {TO_FAILED}")
    promptd = start(atomicity=atomicity, reconcile_interval_s=1)
    message = channel.publish(database.interview())
    promptd.wait_line("CRITICAL", stuck_line(message.interview))
    assert told() == [about(message, "rolled back", reason="never", sqlstate="P0001")]
    listener.forget()
    database.drop_faults()
    promptd.wait_line("INFO", unstuck_line(message.interview))
    assert told() == [{"interview_id": message.interview, "outcome": "no longer stuck", "status": "failed"}]


def test_what_the_recovery_does(start, database, channel, told):
    waiting, gone = (channel.message(database.interview(status)) for status in ("enhancing", "timeout"))
    database.leave_unsettled(waiting, gone)
    start(reconcile_interval_s=1, recover_after_s=1)
    events = sorted(told(2), key=lambda event: event["outcome"], reverse=True)
    assert events[0] == {"interview_id": waiting.interview, "outcome": "settled", "status": "ready", "prompt_id": waiting.id}
    assert events[1] == {"interview_id": gone.interview, "outcome": "rolled back", "prompt_id": gone.id,
                         "reason": "the interview is no longer awaiting its prompt (status timeout)"}


def test_statuses_have_the_names_of_the_settings(start, database, channel, told):
    promptd = start(ready_status="done", failed_status="broken", awaiting_statuses="enhancing")
    good = channel.publish(database.interview())
    promptd.settle(1)
    bad = database.interview()
    channel.publish_raw(json.dumps({"interview_id": bad}).encode())
    promptd.settle(2)
    assert [(event["interview_id"], event["status"]) for event in told(2)] == [(good.interview, "done"), (bad, "broken")]


def test_server_that_quotes_the_prompt(start, database, channel, told):
    """Its words about it stay out of the events as they stay out of the log."""
    database.raise_on(PROMPTS, "insert", "'no: ' || new.prompt")
    promptd = start()
    channel.publish(database.interview())
    promptd.settle(1)
    assert "withheld" in told()[0]["reason"]


# Who hears them, and over what


def test_everyone_who_listens_hears_each_in_order(start, database, channel, listener, listen):
    second = listen()
    promptd = start()
    messages = [channel.message(interview) for interview in database.interviews(500)]
    channel.publish_burst(messages)
    promptd.settle(500)
    events = listener.wait(500)
    assert events == second.wait(500)
    assert sorted(event["prompt_id"] for event in events) == sorted(message.id for message in messages)


def test_connection_of_their_own_and_none_without_them(start, start_promptd, database, channel, redis_server):
    start_promptd().stop()
    wait_until(lambda: connections(redis_server) == [], "the connections to end")
    promptd = start_promptd()
    assert len(connections(redis_server)) == 1
    channel.publish(database.interview())
    assert promptd.settle(1)["events_published"] == 0
    assert admin.of(promptd).json("/status")["events"] is None
    promptd.stop()
    start()
    wait_until(lambda: len(connections(redis_server)) == 2, "two connections")


def test_spooled_messages(start, database, channel, told, new_folder):
    promptd = start(spool_dir=new_folder("spool"))
    good, late = channel.publish(database.interview()), channel.publish(database.interview("timeout"))
    promptd.settle(2)
    assert {event["interview_id"]: event["outcome"] for event in told(2)} == {good.interview: "stored",
                                                                             late.interview: "rolled back"}


# Never in the way


def test_connection_that_dies_in_silence_holds_nothing_up(through_proxy, proxy, database, channel, listener):
    """What was on its way is dropped; the heartbeat finds out, and what comes then is published again."""
    promptd = through_proxy(**BEATING)
    proxy.deafen_at(PUBLISH)
    messages = [channel.message(interview) for interview in database.interviews(200)]
    channel.publish_burst(messages)
    promptd.settle(200)
    expect_stored(database, *messages)
    promptd.wait_line("WARNING", "connection for outcome events lost", "no answer to the heartbeat")
    promptd.wait_line("INFO", "ready to publish outcome events", count=2)
    assert promptd.one("ERROR", "outcome events are dropped").fields["error"] == "no answer to the heartbeat"
    last = channel.publish(database.interview())
    promptd.settle(201)
    assert listener.wait(1)[0]["interview_id"] == last.interview
    promptd.wait_counters(events_published=1, events_dropped=200)
    assert admin.of(promptd).metrics()["promptd_events_dropped_total"] == 200
    assert promptd.find("WARNING", "subscription restored") == []


def test_idle_connection_that_dies_in_silence_costs_no_event(through_proxy, proxy, database, channel, listener):
    promptd = through_proxy(**BEATING)
    proxy.deafen_at(rb"PING")
    promptd.wait_line("INFO", "ready to publish outcome events", count=2)
    promptd.wait_line("WARNING", "connection for outcome events lost", "no answer to the heartbeat")
    channel.publish(database.interview())
    promptd.settle(1)
    listener.wait(1)
    promptd.wait_counters(events_published=1, events_dropped=0)


def test_what_is_not_answered_is_bounded(through_proxy, proxy, channel):
    """Without a heartbeat nothing finds out: then a bound is what keeps memory."""
    promptd = through_proxy(heartbeat_interval_s=0, log_level="info")
    proxy.deafen_at(PUBLISH)
    for _ in range(12):
        channel.publish_burst([b"no message"] * 1000)
    promptd.settle(12000)
    assert promptd.counters()["events_dropped"] == 2000
    assert admin.of(promptd).json("/status")["events"]["waiting"] == 10000
    assert "too many" in promptd.one("ERROR", "outcome events are dropped").fields["error"]
    began = time.monotonic()
    promptd.stop()
    assert time.monotonic() - began < 3 * SLOW


def test_a_reload_turns_the_heartbeat_on(through_proxy, proxy, database, channel, new_folder):
    path = os.path.join(new_folder("reload"), "settings.conf")

    def write(seconds):
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"heartbeat_interval_s = {seconds}\nheartbeat_timeout_s = 1\n")

    write(0)
    promptd = through_proxy(config=path)
    proxy.deafen_at(PUBLISH)
    channel.publish(database.interview())
    promptd.settle(1)
    write(1)
    promptd.kill(signal.SIGHUP)
    promptd.wait_line("ERROR", "outcome events are dropped", "no answer to the heartbeat")
    promptd.wait_counters(events_dropped=1)


def test_events_wait_for_the_connection(through_proxy, proxy, database, channel, listener):
    promptd = through_proxy()
    with database.locked():
        messages = [channel.publish(interview) for interview in database.interviews(20)]
        promptd.wait_counters(received=20)
        proxy.refuse()
        promptd.wait_line("DEBUG", "state changed from=up to=waiting", count=2)
    promptd.settle(20)
    assert listener.raw() == []
    proxy.restore()
    assert sorted(event["prompt_id"] for event in listener.wait(20)) == sorted(message.id for message in messages)
    promptd.wait_counters(events_published=20, events_dropped=0)


def test_redis_at_the_start_away(start_promptd, channel, listener, database, proxy):
    message = channel.message(database.interview())
    database.leave_unsettled(message)
    proxy.refuse()
    promptd = start_promptd(ready=False, redis_url=f"redis://127.0.0.1:{proxy.port}", recover_after_s=1,
                            events_channel=listener.channel)
    promptd.wait_line("INFO", "unsettled prompt settled")
    proxy.restore()
    assert listener.wait(1)[0]["outcome"] == "settled"


def test_account_that_may_not_publish(start, own_redis, listen, database, told):
    """One line, each event counted; the messages do not notice."""
    own = Channel(own_redis)
    rules = ("reset", "on", ">secret", f"&{own.name}*", "+subscribe")
    own_redis.admin.execute_command("ACL", "SETUSER", "reader", *rules)
    promptd = start(on=own, redis_url=f"redis://reader:secret@127.0.0.1:{own_redis.port}",
                    events_channel=f"{own.name}:events", **BEATING)
    messages = [own.publish(interview) for interview in database.interviews(10)]
    promptd.settle(10)
    expect_stored(database, *messages)
    promptd.wait_counters(events_published=0, events_dropped=10)
    line = promptd.one("ERROR", "")
    assert "outcome events are dropped" in line.text and "NOPERM" in line.fields["error"]
    time.sleep(2.5)  # its PING is refused as well, and is a sign of life
    own_redis.admin.execute_command("ACL", "SETUSER", "reader", "+publish")
    heard = listen(own_redis, f"{own.name}:events")
    last = own.publish(database.interview())
    promptd.settle(11)
    assert heard.wait(1)[0]["prompt_id"] == last.id
    received = 11
    while not promptd.find("INFO", "outcome events are published again"):  # ten seconds after the last drop
        own.publish(database.interview())
        received += 1
        promptd.settle(received)
        heard.wait(received - 10)
    assert promptd.one("INFO", "outcome events are published again").fields["dropped"] == "10"
    assert len(promptd.find("ERROR", "")) == 1 and promptd.find("WARNING", "") == []
    promptd.secrets.append("secret")


def test_login_is_refused(start_promptd, own_redis, database):
    own = Channel(own_redis)
    own_redis.admin.config_set("requirepass", "secret")
    promptd = start_promptd(ready=False, on=own, events_channel=f"{own.name}:events")
    promptd.wait_line("ERROR", "Redis refuses", "NOAUTH", timeout=5)
    assert promptd.find("INFO", "ready to publish") == []
    own_redis.log_in("secret")
    own_redis.admin.config_set("requirepass", "")
    promptd.wait_line("INFO", "ready to publish outcome events")


# A backend that passes them on


@pytest.fixture
def backend(redis_server, listener, closing):
    """The example of docs/, at work: a connection to it."""
    class Backend:
        program = os.path.join(os.path.dirname(__file__), "../../docs/examples/server_sent_events.py")

        def __init__(self):
            self.port = Port()
            self.process = spawn([sys.executable, "-B", self.program], env={
                "REDIS_URL": redis_server.url, "EVENTS_CHANNEL": listener.channel, "PORT": str(self.port.number)})
            wait_for_server(self.process, self._answers, "the example", os.devnull)

        def _answers(self):
            try:
                socket.create_connection(("127.0.0.1", self.port.number)).close()
                return True
            except ConnectionRefusedError:
                return False

        def ask(self, interview):
            connection = closing(http.client.HTTPConnection("127.0.0.1", self.port.number, timeout=10 * SLOW))
            connection.request("GET", f"/interviews/{interview}/events")
            return connection.getresponse()

        def close(self):
            end(self.process)
            self.port.release()

    return closing(Backend())


def test_browser_is_told_at_once(start, database, channel, listener, backend):
    promptd = start()
    mine, other = database.interview(), database.interview("timeout")
    answer, other_answer = backend.ask(mine), backend.ask(other.upper())
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"
    channel.publish(other)
    promptd.settle(1)
    channel.publish(mine)
    assert answer.readline() == b'data: {"outcome": "stored", "status": "ready"}\n' and answer.readline() == b"\n"
    assert other_answer.readline() == b'data: {"outcome": "rolled back", "status": null}\n'


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_last_outcomes_are_told(start, atomicity, database, channel, listener, number):
    promptd = start(atomicity=atomicity)
    with database.locked():
        messages = [channel.message(interview) for interview in database.interviews(300)]
        channel.publish_burst(messages)
        promptd.wait_counters(received=300)
        database.wait_blocked()
        promptd.kill(number)
        wait_until(lambda: channel.subscribers() == 0, "promptd to stop receiving")
    assert promptd.wait_exit() == 0
    assert sorted(event["prompt_id"] for event in listener.wait(300)) == sorted(message.id for message in messages)


def test_what_is_given_up_at_the_end_is_told(start, database, channel, told):
    promptd = start(atomicity="transaction", shutdown_timeout_s=1)
    with database.locked():
        message = channel.publish(database.interview())
        promptd.wait_counters(received=1)
        database.wait_blocked()
        promptd.stop()
        assert told() == [about(message, "dropped", reason="promptd had to stop before the message was stored")]


@pytest.mark.parametrize("waiting", [0, 5])
def test_end_over_a_connection_that_is_dead(through_proxy, proxy, database, channel, waiting):
    promptd = through_proxy(heartbeat_interval_s=0)
    proxy.deafen_at(PUBLISH if waiting else rb"PING")
    for interview in database.interviews(waiting):
        channel.publish(interview)
    promptd.settle(waiting)
    began = time.monotonic()
    promptd.stop()
    assert time.monotonic() - began < 3 * SLOW
    assert len(promptd.find("INFO", "no outcome events any more", f"dropped={waiting}")) == (waiting > 0)


def test_end_while_redis_is_away(through_proxy, proxy, database, channel):
    promptd = through_proxy()
    with database.locked():
        channel.publish(database.interview())
        promptd.wait_counters(received=1)
        proxy.refuse()
        promptd.wait_line("DEBUG", "state changed from=up to=waiting", count=2)
    promptd.settle(1)
    began = time.monotonic()
    promptd.stop()
    assert time.monotonic() - began < 3 * SLOW
    promptd.one("ERROR", "outcome events are dropped", "promptd stops")
