# SPDX-License-Identifier: MIT
"""Many messages at once: nothing is lost, nothing is mixed up, and the bad cost the good nothing."""

import random
from collections import Counter

import pytest

from support.expect import expect_stored
from support.redis_server import Message, frame
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"


def count_stored(database):
    """(prompts, ready interviews), each prompt belonging to a ready interview."""
    return database.rows(f"""select count(*), count(distinct interview_id) from {PROMPTS} join interviews i
                             on i.id = interview_id and i.status = 'ready'""")[0]


def poison(kind, channel, database):
    """(what to publish, the outcome it must have, the interview it is about and the status that one must end with)."""
    if kind == "unknown interview":
        return channel.message("00000000-0000-4000-8000-%012d" % random.getrandbits(32)), "failure", None, None
    if kind == "not json":
        return frame(b'{"interview_id":'), "rejected", None, None
    interview = database.interview("completed" if kind == "too late" else "enhancing")
    if kind == "too late":
        return channel.message(interview), "failure", interview, "completed"
    if kind == "too short":
        return frame(b'{"interview_id":"%s","enhanced_prompt":"short"}' % interview.encode()), "rejected", interview, "failed"
    return channel.message(interview, kind), "failure", interview, "failed"  # "RAISE" and "CONSTRAINT"


KINDS = ["unknown interview", "not json", "too late", "too short", "RAISE", "CONSTRAINT"]


def test_burst_with_poison(promptd, database, channel):
    database.raise_on(PROMPTS, "insert", "poison", "P0001", "new.prompt ~ 'RAISE'")
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'CONSTRAINT')")
    good = [channel.message(interview, f"Prompt number {number} " + "x" * random.randint(0, 3000))
            for number, interview in enumerate(database.interviews(1900))]
    bad = [poison(KINDS[number % len(KINDS)], channel, database) for number in range(100)]
    mixed = good + [payload for payload, *_ in bad]
    random.Random(1).shuffle(mixed)

    channel.publish_burst(mixed)
    counters = promptd.settle(2000, timeout=60)

    outcomes = Counter(outcome for _, outcome, _, _ in bad)
    assert counters.outcomes() == {"success": 1900, **outcomes, "rollback": sum(1 for kind in range(100)
                                                                                if KINDS[kind % len(KINDS)] == "too late")}
    assert count_stored(database) == (1900, 1900) and database.prompt_count() == 1900
    wanted = {message.id: (message.interview, message.prompt) for message in good}
    assert {str(id): (str(interview), prompt) for id, interview, prompt in
            database.rows(f"select id, interview_id, prompt from {PROMPTS}")} == wanted
    for payload, _, interview, status in bad:
        if interview is not None:
            assert database.status(interview) == status
        if isinstance(payload, Message):
            promptd.one("ERROR", payload.interview)
    assert promptd.find("CRITICAL") == []


def test_messages_of_one_interview_keep_their_order(promptd, database, channel):
    database.execute("create table arrivals (number bigserial, prompt_id uuid)")
    database.trigger(PROMPTS, "insert", "insert into arrivals (prompt_id) values (new.id);", timing="after")
    interviews = database.interviews(20)
    messages = [channel.message(interview, f"Version {version} of the prompt.")
                for version in range(25) for interview in interviews]
    channel.publish_burst(messages)
    assert promptd.settle(500).outcomes() == {"success": 500}
    order = [str(id) for id, in database.rows("select prompt_id from arrivals order by number")]
    for interview in interviews:
        published = [message.id for message in messages if message.interview == interview]
        assert [id for id in order if id in set(published)] == published


def test_bad_and_good_messages_of_one_interview_keep_their_order(promptd, database, channel):
    """A rejected message marks the interview failed; a good one after it makes it ready, one before it does not."""
    last_good, last_bad = database.interviews(30), database.interviews(30)
    payloads = []
    for interview in last_good:
        payloads += [frame(b'{"interview_id":"%s"}' % interview.encode()), channel.message(interview)]
    for interview in last_bad:
        payloads += [channel.message(interview), frame(b'{"interview_id":"%s"}' % interview.encode())]
    channel.publish_burst(payloads)
    assert promptd.settle(120).outcomes() == {"success": 60, "rejected": 60}
    assert database.statuses() == {"ready": 60}  # ready is not awaiting: a late bad message does no harm


def test_same_message_50_times_at_once(promptd, database, channel):
    message = channel.message(database.interview())
    channel.publish_burst([message] * 50)
    assert promptd.settle(50).outcomes() == {"success": 1, "duplicate": 49}
    expect_stored(database, message)
    assert database.prompt_count() == 1


def test_same_message_50_times_for_a_completed_interview(promptd, database, channel):
    """Each may be stored and rolled back, none may be left."""
    message = channel.message(database.interview("completed"))
    channel.publish_burst([message] * 50)
    counters = promptd.settle(50)
    assert counters["failure"] + counters["duplicate"] == 50 and counters["failure"] >= 1
    assert counters["rollback"] == counters["failure"]
    assert database.prompt_count() == 0 and database.status(message.interview) == "completed"


def test_same_failing_message_50_times_in_one_batch(promptd, database, channel):
    """A duplicate within the batch of a message that cannot be stored is no more stored than the first."""
    database.raise_on(PROMPTS, "insert", "no", "P0001", "new.prompt ~ 'POISON'")
    message = channel.message(database.interview(), "POISON")
    channel.publish_burst([message] * 50)
    assert promptd.settle(50).outcomes() == {"failure": 50}
    assert database.prompt_count() == 0 and database.status(message.interview) == "failed"


@pytest.mark.parametrize("batch_max", [1, 2, 7])
def test_small_batches(start_promptd, atomicity, database, channel, batch_max):
    promptd = start_promptd(atomicity=atomicity, batch_max=batch_max)
    messages = [channel.message(interview) for interview in database.interviews(100)]
    channel.publish_burst(messages)
    assert promptd.settle(100).outcomes() == {"success": 100}
    assert count_stored(database) == (100, 100)


@pytest.mark.parametrize("connections", [1, 16])
def test_few_and_many_connections(start_promptd, atomicity, database, channel, connections):
    promptd = start_promptd(atomicity=atomicity, db_connections=connections)
    messages = [channel.message(interview) for interview in database.interviews(500)]
    channel.publish_burst(messages)
    assert promptd.settle(500).outcomes() == {"success": 500}
    assert count_stored(database) == (500, 500)
    assert len(database.sessions()) <= connections


def test_large_prompts_in_one_batch(promptd, database, channel):
    """Far more bytes than fit a socket's buffer."""
    with database.locked():
        messages = [channel.message(interview, "\U0001f680" * 49000) for interview in database.interviews(100)]
        channel.publish_burst(messages)
        promptd.wait_counters(received=100)
    assert promptd.settle(100).outcomes() == {"success": 100}
    assert database.value(f"select count(*) from {PROMPTS} where length(prompt) = %s",
                          [len(messages[0].prompt)]) == 100


@pytest.fixture
def two_promptds(start_promptd, atomicity, database, channel):
    """Both receive every message; whatever they do to prompts is booked."""
    database.execute("create table book (prompt_id uuid, event text)")
    for event, row in (("insert", "new"), ("delete", "old")):
        database.trigger(PROMPTS, event, f"insert into book values ({row}.id, '{event}');", timing="after")
    promptds = [start_promptd(atomicity=atomicity) for _ in range(2)]
    assert channel.subscribers() == 2
    return promptds


@pytest.mark.parametrize("burst_size", [1, 100, 300])
def test_two_promptds_on_one_channel(two_promptds, database, channel, burst_size):
    """Of each message one counts it as stored and the other as a duplicate, and it is inserted once."""
    messages = [channel.message(interview) for interview in database.interviews(300)]
    for first in range(0, 300, burst_size):
        channel.publish_burst(messages[first:first + burst_size])
    counters = [promptd.settle(300, timeout=60) for promptd in two_promptds]
    assert sum(each["success"] for each in counters) == sum(each["duplicate"] for each in counters) == 300
    expect_stored(database, *messages)
    assert count_stored(database) == (300, 300) and database.prompt_count() == 300
    assert dict(database.rows("select event, count(*) from book group by event")) == {"insert": 300}
    assert database.errors() == []


@pytest.mark.parametrize("burst_size", [1, 50])
def test_two_promptds_and_late_messages(two_promptds, database, channel, burst_size):
    """Both count a failure: neither finds anything that the other has not done already."""
    late = [channel.message(interview) for interview in database.interviews(50, "completed")]
    good = [channel.message(interview) for interview in database.interviews(50)]
    mixed = [message for pair in zip(late, good) for message in pair]
    for first in range(0, 100, burst_size):
        channel.publish_burst(mixed[first:first + burst_size])
    counters = [promptd.settle(100, timeout=60) for promptd in two_promptds]
    for each in counters:
        assert (each["failure"], each["rollback"], each["orphaned"]) == (50, 50, 0)
        assert each["success"] + each["duplicate"] == 50
    assert sum(each["success"] for each in counters) == 50
    expect_stored(database, *good)
    assert database.prompt_count() == 50 and database.unsettled() == []
    assert database.statuses() == {"ready": 50, "completed": 50}
    assert database.errors() == []


def test_second_daemon_takes_over(start_promptd, atomicity, database, channel):
    first, second = start_promptd(atomicity=atomicity), start_promptd(atomicity=atomicity)
    first.stop()
    wait_until(lambda: channel.subscribers() == 1, "the first to leave")
    message = channel.publish(database.interview())
    assert second.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
