# SPDX-License-Identifier: MIT
"""The spool: what is on disk ends as if nothing had happened, whatever happens to promptd or the database meanwhile."""

import os
import random
import time

import pytest

from support.expect import detected_line, expect_nothing_stored, expect_stored
from support.postgres import ROLE
from support.redis_server import frame
from support.spool import make_version_1
from support.wait import SLOW, wait_until

PROMPTS = "interview_enhanced_prompts"


def messages_for(channel, interviews, versions=1, text=""):
    return [channel.message(interview, f"Version {version} of the prompt. {text}")
            for version in range(versions) for interview in interviews]


def record_arrivals(database):
    database.execute("create table arrivals (number bigserial, prompt_id uuid)")
    database.trigger(PROMPTS, "insert", "insert into arrivals (prompt_id) values (new.id);", timing="after")


def expect_order_kept(database, messages):
    """Of each interview, the prompts arrived in the order in which they were published."""
    order = {str(id): number for number, id in database.rows("select number, prompt_id from arrivals")}
    last = {}
    for message in messages:
        assert order[message.id] > last.get(message.interview, 0), "a later message overtook an earlier one"
        last[message.interview] = order[message.id]


def expect_empty(promptd, spool):
    promptd.wait_counters(spool_messages=0, spool_bytes=0)
    assert spool.waiting() == []


# As ever


def test_messages_are_stored_and_leave_the_spool(start_spooled, atomicity, database, channel, spool):
    promptd = start_spooled(atomicity=atomicity)
    messages = messages_for(channel, database.interviews(50), versions=10)
    for part in range(0, 500, 50):
        channel.publish_burst(messages[part:part + 50])
    assert promptd.settle(500).outcomes() == {"success": 500}
    expect_stored(database, *messages[::7])
    expect_empty(promptd, spool)
    assert spool.payloads() == 0 and promptd.find("WARNING|ERROR|CRITICAL") == []


def test_burst_is_larger_than_memory(start_spooled, database, channel, spool):
    """Memory is not the bound of a spool."""
    promptd = start_spooled(queue_max_messages=50)
    messages = messages_for(channel, database.interviews(2000))
    channel.publish_burst(messages)
    counters = promptd.settle(2000, timeout=60)
    assert counters.outcomes() == {"success": 2000}
    expect_empty(promptd, spool)


def test_order_is_kept_over_the_spool(start_spooled, atomicity, database, channel, spool):
    record_arrivals(database)
    promptd = start_spooled(atomicity=atomicity)
    messages = messages_for(channel, database.interviews(20), versions=30)
    channel.publish_burst(messages)
    assert promptd.settle(600).outcomes() == {"success": 600}
    expect_order_kept(database, messages)


def make_dead(database, channel):
    """One message for each outcome that makes a dead letter, and two that make none."""
    database.raise_on(PROMPTS, "insert", "no", when="new.prompt ~ 'NOT STORED'")
    database.trigger(PROMPTS, "delete", "if old.prompt ~ 'ORPHAN' then raise exception 'kept'; end if;")
    late, orphan = channel.message(database.interview("completed")), channel.message(database.interview("timeout"), "ORPHAN")
    good = channel.message(database.interview())
    channel.publish_burst([late, orphan, channel.message(database.interview(), "NOT STORED"), frame(b"no json"),
                           frame(b'{"interview_id":"%s"}' % database.interview().encode()), good, good])
    return orphan


DEAD = ["not stored", "orphaned", "rejected", "rejected", "rolled back"]


def test_dead_letters_stay(start_spooled, atomicity, database, channel, spool):
    promptd = start_spooled(atomicity="compensate")
    make_dead(database, channel)
    promptd.settle(7)
    assert promptd.wait_counters(dead_letters=5, spool_messages=0)["orphaned"] == 1
    promptd.stop()
    assert spool.dead() == DEAD and spool.payloads() == 5 and spool.waiting() == []
    promptd = start_spooled()
    counters = promptd.counters()
    assert counters["dead_letters"] == 5 and counters["received"] == 0


def test_dead_letters_survive_a_crash(start_spooled, database, channel, spool):
    promptd = start_spooled()
    make_dead(database, channel)
    promptd.wait_counters(dead_letters=5, spool_messages=0)
    promptd.crash()
    promptd = start_spooled()
    assert promptd.counters()["dead_letters"] == 5 and spool.dead() == DEAD


def test_message_that_was_not_read_leaves_a_letter_without_it(start_spooled, database, channel, spool, promptctl):
    def dead(*arguments):
        return promptctl("dead", *arguments, spool_dir=spool.folder)

    promptd = start_spooled(message_max_bytes=4096)
    before, after = channel.message(database.interview()), channel.message(database.interview())
    channel.publish_burst([before.framed(), frame(b"x" * 5000), after.framed()])
    promptd.settle(3)
    expect_stored(database, before, after)
    counters = promptd.wait_counters(dead_letters=1, spool_messages=0)
    assert counters.outcomes() == {"success": 2, "rejected": 1}
    promptd.crash()
    promptd = start_spooled(message_max_bytes=4096)
    assert promptd.counters()["received"] == 0 and promptd.counters()["dead_letters"] == 1
    [letter] = dead("list", "--json").json()
    assert (letter["outcome"], letter["reason"], letter["bytes"]) == ("rejected", "too_large", None)
    assert "it was too large, and was not read" in dead("show", letter["id"]).out
    refused, left = dead("replay", letter["id"], "--yes"), dead("replay", "--all", "--yes")
    assert refused.code == left.code == 1 and "cannot be replayed" in refused.err
    assert left.out == "0 dead letters replayed\n" and "1 without a message stays" in left.err
    assert dead("drop", letter["id"], "--yes").code == 0 and spool.payloads() == 0
    promptd.wait_counters(dead_letters=0)


def test_spool_of_version_1(start_spooled, atomicity, database, channel, database_proxy, spool, promptctl):
    """What promptd 0.1 left is stored as ever, in its order, and its dead letters are there."""
    record_arrivals(database)
    promptd = start_spooled(atomicity=atomicity)
    channel.publish_burst([frame(b"no json")] * 3)
    promptd.wait_counters(dead_letters=3)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = messages_for(channel, database.interviews(40), versions=3)
    channel.publish_burst(messages)
    promptd.wait_counters(spool_messages=120)
    promptd.stop()
    make_version_1(spool.path)
    assert "promptd converts it when it starts" in promptctl("dead", "list", spool_dir=spool.folder).err
    database_proxy.restore()
    promptd = start_spooled(atomicity=atomicity)
    promptd.one("INFO", "the spool of promptd 0.1 was converted")
    assert promptd.settle(120).outcomes() == {"success": 120}
    expect_stored(database, *messages)
    expect_order_kept(database, messages)
    expect_empty(promptd, spool)
    assert len(promptctl("dead", "list", spool_dir=spool.folder).lines()) == 3
    assert promptd.find("WARNING|ERROR|CRITICAL") == [] and spool.set_aside() == []


# The database is away


def test_what_waits_survives_a_crash(start_spooled, atomicity, database, channel, database_proxy, spool):
    record_arrivals(database)
    promptd = start_spooled(atomicity=atomicity)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = messages_for(channel, database.interviews(20), versions=20)
    channel.publish_burst(messages)
    promptd.wait_line("DEBUG", "message is on disk", count=400)
    promptd.crash()
    assert spool.waiting() == [(message.interview, message.prompt) for message in messages]

    promptd = start_spooled(ready=False, atomicity=atomicity)  # still away
    counters = promptd.counters()
    assert counters["received"] == counters["waiting"] == counters["spool_messages"] == 400
    promptd.crash()

    database_proxy.restore()
    promptd = start_spooled(atomicity=atomicity)
    later = messages_for(channel, [message.interview for message in messages[:20]], text="The last one.")
    channel.publish_burst(later)
    assert promptd.settle(420).outcomes() == {"success": 420}
    expect_stored(database, *messages, *later)
    expect_order_kept(database, messages + later)
    expect_empty(promptd, spool)


def test_spool_holds_far_more_than_memory(start_spooled, atomicity, database, channel, database_proxy, spool):
    record_arrivals(database)
    promptd = start_spooled(atomicity=atomicity, queue_max_messages=50)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = messages_for(channel, database.interviews(100), versions=20)
    channel.publish_burst(messages)
    counters = promptd.wait_counters(received=2000, spool_messages=2000)
    assert counters["waiting"] == 2000 and counters["queue_messages"] <= 50
    database_proxy.restore()
    most = 0
    while counters["waiting"]:
        counters = promptd.counters()
        most = max(most, counters["queue_messages"])
    assert counters.outcomes() == {"success": 2000} and most <= 50
    expect_order_kept(database, messages)
    assert database.prompt_count() == 2000
    expect_empty(promptd, spool)


def test_database_comes_and_goes(start_spooled, atomicity, database, channel, database_proxy, spool):
    record_arrivals(database)
    promptd = start_spooled(atomicity=atomicity, queue_max_messages=100)
    interviews, messages = database.interviews(50), []
    for version in range(12):
        fresh = messages_for(channel, interviews, text=f"Round {version}.")
        channel.publish_burst(fresh)
        messages += fresh
        (database_proxy.refuse, database_proxy.restore, database_proxy.cut)[version % 3]()
        time.sleep(0.1)
    database_proxy.restore()
    assert promptd.settle(len(messages), timeout=60).outcomes() == {"success": len(messages)}
    expect_order_kept(database, messages)
    expect_empty(promptd, spool)


def test_ends_in_time_and_leaves_the_rest_to_the_next_start(start_spooled, atomicity, database, channel, database_proxy, spool):
    promptd = start_spooled(atomicity=atomicity, shutdown_timeout_s=2)
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    messages = messages_for(channel, database.interviews(300))
    channel.publish_burst(messages)
    promptd.wait_counters(received=300)
    began = time.monotonic()
    promptd.stop()
    assert time.monotonic() - began < 2 + SLOW
    assert len(spool.waiting()) == 300 and spool.dead() == []
    database_proxy.restore()
    promptd = start_spooled(atomicity=atomicity)
    assert promptd.settle(300).outcomes() == {"success": 300}
    expect_stored(database, *messages)


def test_ends_in_time_with_statements_that_hang(start_spooled, atomicity, database, channel, spool):
    """What is in the middle of its steps is left to the next start as well, and named."""
    promptd = start_spooled(atomicity=atomicity, shutdown_timeout_s=1)
    with database.locked():
        messages = messages_for(channel, database.interviews(30))
        channel.publish_burst(messages)
        promptd.wait_counters(received=30)
        database.wait_blocked()
        promptd.stop()
        for message in messages:
            assert promptd.find("INFO|ERROR", message.interview)
        assert promptd.find("CRITICAL") == []
    assert len(spool.waiting()) == 30
    promptd = start_spooled(atomicity=atomicity)
    assert promptd.settle(30).outcomes() == {"success": 30}
    expect_stored(database, *messages)


# Killed


@pytest.fixture
def killed_between_two_steps(start_spooled, database, channel):
    """The prompt is inserted, the interview is not ready, and promptd is no more."""
    def make():
        promptd = start_spooled(atomicity="compensate")
        message = channel.message(database.interview())
        with database.interviews_locked():
            channel.publish_message(message)
            wait_until(database.unsettled, "the prompt to be inserted")
            promptd.crash()
        assert len(database.prompts(message.interview)) == 1
        return message

    return make


def test_killed_between_two_steps(killed_between_two_steps, start_spooled, database):
    message = killed_between_two_steps()
    promptd = start_spooled(atomicity="compensate")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_killed_between_two_steps_of_a_prompt_that_is_now_late(killed_between_two_steps, start_spooled, database):
    """It is known to be unsettled, and so it is deleted."""
    message = killed_between_two_steps()
    database.execute("update interviews set status = 'timeout'")
    promptd = start_spooled(atomicity="compensate")
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "timeout")


def test_killed_and_the_prompt_of_another_is_not_deleted(start_spooled, database, channel, database_proxy):
    """It was on disk only: what is found present then is somebody else's."""
    promptd = start_spooled()
    database_proxy.refuse()
    promptd.wait_line("ERROR", "database lost")
    message = channel.publish(database.interview("completed"))
    promptd.wait_line("DEBUG", "message is on disk")
    promptd.crash()
    database.add_prompt(message)
    database_proxy.restore()
    promptd = start_spooled()
    assert promptd.settle(1).outcomes() == {"duplicate": 1}
    assert len(database.prompts(message.interview)) == 1


def test_orphan_is_reported_over_a_crash(killed_between_two_steps, start_spooled, database):
    """The delete is refused when promptd is back."""
    message = killed_between_two_steps()
    database.execute("update interviews set status = 'cancelled'")
    database.execute(f"revoke delete on {PROMPTS} from {ROLE}")
    promptd = start_spooled(atomicity="compensate")
    promptd.wait_line("CRITICAL", detected_line(message))
    assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_under_load(start_spooled, atomicity, database, channel, spool, seed):
    """Whatever was on disk at a kill ends; nothing ends twice, and no prompt is left without its interview."""
    chance = random.Random(seed)
    must_end, published, kills = {}, [], 0
    interviews = iter(database.interviews(16000))
    while kills < 7 or len(must_end) <= 20:  # a quick machine has little on disk at a random moment
        promptd = start_spooled(atomicity=atomicity, batch_max=chance.choice([1, 20, 256]))
        for _ in range(chance.randint(1, 12)):
            fresh = messages_for(channel, [next(interviews) for _ in range(chance.randint(1, 60))])
            channel.publish_burst(fresh)
            published += fresh
            time.sleep(chance.uniform(0, 0.02))
        promptd.crash()
        kills += 1
        must_end.update(spool.waiting())
    promptd = start_spooled(atomicity=atomicity)
    counters = promptd.wait_counters(waiting=0, spool_messages=0)
    assert counters["success"] + counters["duplicate"] == counters["received"]  # which had ended, and the disk did not know
    by_interview = {message.interview: message for message in published}
    expect_stored(database, *(by_interview[interview] for interview in must_end))
    stored = {str(id) for id, in database.rows(f"select id from {PROMPTS}")}
    assert stored <= {message.id for message in published}
    assert database.statuses().get("ready", 0) == len(stored) == database.prompt_count()
    assert promptd.find("CRITICAL") == [] and spool.dead() == []


# The folder


def refused(promptd):
    assert promptd.wait_exit() == 73
    return promptd.one("CRITICAL", "cannot start").fields["error"]


def test_second_daemon_on_the_folder(start_spooled, start_promptd, spool, database, channel):
    first = start_spooled()
    error = refused(start_promptd(ready=False, spool_dir=spool.folder))
    assert spool.folder in error and "another promptd" in error and str(first.process.pid) in error
    message = channel.publish(database.interview())
    first.settle(1)
    expect_stored(database, message)


def test_folder_of_a_crashed_daemon_is_free(start_spooled, channel):
    start_spooled().crash()
    start_spooled()


def test_unusable_folders(start_promptd, new_folder):
    folder = new_folder("spool")
    file = os.path.join(folder, "file")
    open(file, "wb").close()
    for path in (file, os.path.join(file, "below"), os.path.join(folder, "no", "such")):
        assert path in refused(start_promptd(ready=False, spool_dir=path))


def test_read_only_folder(start_promptd, small_disk):
    os.system(f"mount -o remount,ro {small_disk}")
    error = refused(start_promptd(ready=False, spool_dir=small_disk))
    assert small_disk in error and "read-only" in error


def test_folder_is_made_and_private(start_spooled, spool, new_folder):
    path = os.path.join(new_folder("spool"), "made")
    start_spooled(spool_dir=path).stop()
    assert os.stat(path).st_mode & 0o777 == 0o700
    assert all(os.stat(os.path.join(path, name)).st_mode & 0o077 == 0 for name in os.listdir(path))
