# SPDX-License-Identifier: MIT
"""promptctl dead: beside a running promptd, without one, and what it refuses."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from support.expect import expect_nothing_stored, expect_stored
from support.process import unprivileged_user
from support.redis_server import frame
from support.spool import Spool, fill_disk
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"


@pytest.fixture
def start(start_promptd, spool, channel):
    def begin(**settings):
        channel.wait_subscribers(0)
        return start_promptd(**{"spool_dir": spool.folder, **settings})

    return begin


@pytest.fixture
def dead(promptctl, spool):
    """dead("list") -> Result, on the test's spool."""
    return lambda *arguments, **options: promptctl("dead", *arguments, **{"spool_dir": spool.folder, **options})


def refuse_inserts(database):
    database.raise_on(PROMPTS, "insert", "no such luck", when="new.prompt ~ 'REFUSED'")


def make_dead(promptd, database, channel, count=3):
    """Messages that the database refuses, and one that is no JSON, in this order."""
    refuse_inserts(database)
    messages = [channel.message(database.interview(), f"REFUSED {number}") for number in range(count)]
    for number, message in enumerate(messages):
        channel.publish_message(message)
        promptd.wait_counters(failure=number + 1)
    channel.publish_raw(frame(b"no\x1b[31m json"))
    promptd.wait_counters(dead_letters=count + 1, spool_messages=0)
    return messages


def ids(result):
    assert result.code == 0, result
    return [int(line.split()[0]) for line in result.lines()]


# Looking


def test_list(start, database, channel, dead):
    messages = make_dead(start(), database, channel)
    result = dead("list")
    assert result.err == "" and len(ids(result)) == 4 and ids(result) == sorted(ids(result))
    for line, message in zip(result.lines(), messages):
        assert re.match(r"\d+ +\d{4}-\d\d-\d\dT[\d:.]+Z +not stored +\d+ ", line)
        assert message.interview in line and "P0001" in line and line.endswith("no such luck")
    assert "rejected" in result.lines()[3] and "not_json" in result.lines()[3]
    assert channel.marker not in result.out and "json" not in result.out.replace("not_json", "")


def test_list_as_json(start, database, channel, dead):
    messages = make_dead(start(), database, channel)
    letters = dead("list", "--json").json()
    assert [letter["id"] for letter in letters] == ids(dead("list"))
    assert [letter["interview_id"] for letter in letters] == [message.interview for message in messages] + [None]
    assert [letter["prompt_id"] for letter in letters[:3]] == [message.id for message in messages]
    first, last = letters[0], letters[3]
    assert (first["outcome"], first["reason"], first["sqlstate"]) == ("not stored", None, "P0001")
    assert (last["outcome"], last["reason"], last["sqlstate"]) == ("rejected", "not_json", None)
    assert first["arrived"] <= first["died"] and first["bytes"] == len(messages[0].framed())


def test_list_of_none(start, dead):
    start()
    result = dead("list")
    assert (result.code, result.out, result.err) == (0, "", "No dead letters.\n")
    assert dead("list", "--json").json() == []


def test_list_on_a_terminal_has_a_heading(start, database, channel, promptctl, spool):
    make_dead(start(), database, channel, 1)
    shown = promptctl.on_terminal("dead", "list", spool_dir=spool.folder)
    assert shown.code == 0 and shown.out.startswith("\x1b[1mID ") and len(shown.lines()) == 3
    plain = promptctl.on_terminal("dead", "list", spool_dir=spool.folder, extra={"NO_COLOR": "1"})
    assert plain.out.startswith("ID ") and "\x1b" not in plain.out


def test_show(start, database, channel, dead):
    messages = make_dead(start(), database, channel, 1)
    first, last = ids(dead("list"))
    shown = dead("show", first)
    facts, payload = shown.out.split("\n\n", 1)
    for word in ("not stored", "P0001", "no such luck", messages[0].interview, messages[0].id):
        assert word in facts
    assert channel.marker not in facts and messages[0].prompt in payload
    assert dead("show", first, "--json").json()["payload"].encode() == messages[0].framed()
    assert dead("show", first, "--raw", stdin=b"").out == messages[0].framed()
    assert "\x1b" not in dead("show", last).out and "no\\x1b[31m json" in dead("show", last).out


def test_show_of_what_is_no_text(start, channel, dead):
    promptd = start()
    payload = b"\xff\x00{}\x00"
    channel.publish_raw(payload)
    promptd.wait_counters(dead_letters=1)
    [letter] = ids(dead("list"))
    assert dead("show", letter, "--raw", stdin=b"").out == payload
    assert base64.b64decode(dead("show", letter, "--json").json()["payload_base64"]) == payload
    assert dead("show", letter).out.endswith("\n\n\\xff\\x00{}\\x00\n")


def test_show_of_an_unknown_id(start, dead):
    start()
    result = dead("show", 17)
    assert result.code == 1 and result.out == "" and "no dead letter 17" in result.err


# Changing


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_replay(start, database, channel, dead, spool, running):
    promptd = start()
    messages = make_dead(promptd, database, channel)
    letters = ids(dead("list"))
    database.drop_faults()
    if not running:
        promptd.stop()
    result = dead("replay", letters[0], letters[2], "--yes")
    assert (result.code, result.out) == (0, "2 dead letters replayed\n")
    if not running:
        assert [interview for interview, _ in spool.waiting()] == [messages[0].interview, messages[2].interview]
        promptd = start()
    promptd.wait_counters(success=2, waiting=0)
    promptd.wait_counters(dead_letters=2, spool_messages=0)
    expect_stored(database, messages[0], messages[2])
    expect_nothing_stored(database, messages[1].interview, "failed")
    assert ids(dead("list")) == [letters[1], letters[3]] and spool.payloads() == 2


def test_replay_of_all_keeps_the_order(start, database, channel, dead, spool):
    promptd = start()
    refuse_inserts(database)
    interview = database.interview()
    messages = [channel.message(interview, f"REFUSED {number}") for number in range(600)]
    channel.publish_burst(messages)
    promptd.wait_counters(dead_letters=600)
    promptd.stop()
    assert dead("replay", "--all", "--yes", "--json").json() == {"replayed": 600}
    assert spool.waiting() == [(message.interview, message.prompt) for message in messages]
    assert spool.payloads() == 600 and spool.dead() == []


def test_replayed_message_dies_again(start, database, channel, dead):
    promptd = start()
    make_dead(promptd, database, channel, 1)
    before = ids(dead("list"))
    assert dead("replay", "--all", "--yes").code == 0
    promptd.wait_counters(failure=2, rejected=2)
    promptd.wait_counters(dead_letters=2, spool_messages=0)
    assert min(ids(dead("list"))) > max(before)


def test_replayed_orphan_may_take_its_prompt_away(start, database, channel, dead):
    """The prompt in the table is this message's own: what could not be deleted before is deleted now."""
    promptd = start(atomicity="compensate", reconcile_interval_s=0)
    database.raise_on(PROMPTS, "delete", "kept")
    message = channel.publish(database.interview("cancelled"))
    promptd.wait_counters(orphaned=1, dead_letters=1)
    database.drop_faults()
    assert dead("replay", "--all", "--yes").code == 0
    promptd.wait_counters(rollback=1, waiting=0)
    expect_nothing_stored(database, message.interview, "cancelled")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_drop(start, database, channel, dead, spool, running):
    promptd = start()
    messages = make_dead(promptd, database, channel)
    letters = ids(dead("list"))
    if not running:
        promptd.stop()
    assert dead("drop", letters[1], letters[1], "--yes").out == "1 dead letter dropped\n"
    assert ids(dead("list")) == [letters[0], letters[2], letters[3]]
    if running:
        promptd.wait_counters(dead_letters=3)
    assert dead("drop", "--all", "--yes").out == "3 dead letters dropped\n"
    assert spool.dead() == [] and spool.payloads() == 0
    assert dead("drop", "--all", "--yes").out == "0 dead letters dropped\n"
    if running:
        promptd.wait_counters(dead_letters=0, spool_messages=0)
    assert database.status(messages[0].interview) == "failed"


def test_changes_while_messages_pour_in(start, database, channel, dead):
    """Neither side may fail for the other's sake."""
    promptd = start()
    refuse_inserts(database)
    interviews = database.interviews(20)
    for _ in range(10):
        channel.publish_burst([channel.message(interview, "REFUSED" if number % 2 else "fine")
                               for number, interview in enumerate(interviews)])
        assert dead("list").code == 0
        assert dead("drop", "--all", "--yes").code == 0
    promptd.wait_counters(received=200, waiting=0)
    assert dead("drop", "--all", "--yes").code == 0
    promptd.wait_counters(dead_letters=0)
    assert promptd.find("WARNING|CRITICAL") == []


def test_unknown_id_changes_nothing(start, database, channel, dead):
    make_dead(start(), database, channel, 1)
    letters = ids(dead("list"))
    for verb in ("replay", "drop"):
        result = dead(verb, letters[0], 999999, "--yes")
        assert result.code == 1 and "999999" in result.err and result.out == ""
    assert ids(dead("list")) == letters


# Asking


def test_without_a_terminal_it_needs_yes(start, database, channel, dead):
    make_dead(start(), database, channel, 1)
    letters = ids(dead("list"))
    for verb in ("replay", "drop"):
        for arguments in (["--all"], letters):
            result = dead(verb, *arguments, stdin="y\n")
            assert result.code == 64 and "--yes" in result.err and result.out == ""
    assert ids(dead("list")) == letters


@pytest.mark.parametrize("answer, done", [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False),
                                          ("maybe\n", False), ("\x04", False)])
def test_it_asks_on_a_terminal(start, database, channel, dead, promptctl, spool, answer, done):
    make_dead(start(), database, channel, 1)
    result = promptctl.on_terminal("dead", "drop", "--all", answer=answer, spool_dir=spool.folder)
    assert "Drop 2 dead letters for good, messages and all? [y/N] " in result.out
    assert result.code == (0 if done else 1)
    assert ("Nothing was changed." in result.out) != done and len(ids(dead("list"))) == (0 if done else 2)


# What it meets beside it


def peak_memory(pid):
    """KiB; None once it has ended."""
    with open(f"/proc/{pid}/status") as status:
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read())
    return found and int(found.group(1))


def payload(number):
    return frame(b'{"interview_id":"00000000-0000-4000-8000-%012d","enhanced_prompt":"%s"}' % (number, b"x" * 300))


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_list_that_nobody_reads_on(start, database, channel, promptctl, spool, options):
    """As in a pager that is left open: meanwhile the daemon's log must not grow."""
    start().stop()
    spool.add_dead(payload(number) for number in range(20000))
    promptd = start()
    listing = promptctl.start("dead", "list", *options, spool_dir=spool.folder)
    first = listing.stdout.readline()
    interviews = database.interviews(300)
    for version in range(8):
        channel.publish_burst([channel.message(interview, f"Version {version}. " + "w" * 20000)
                               for interview in interviews])
        promptd.wait_counters(success=300 * (version + 1))
    assert listing.poll() is None and spool.log_size() < 30000000  # of 48 MB that were written, and again deleted
    listed = first + listing.stdout.read()
    assert listing.wait(20) == 0 and listing.stderr.read() == ""
    assert len(json.loads(listed) if options else listed.splitlines()) == 20000


@pytest.mark.parametrize("verb, done", [("replay", "replayed"), ("drop", "dropped")])
def test_all_of_very_many(start, database, channel, promptctl, spool, verb, done):
    """Little memory, and the daemon goes on."""
    start().stop()
    spool.add_dead(payload(number) for number in range(12000))
    promptd = start()
    changing = promptctl.start("dead", verb, "--all", "--yes", spool_dir=spool.folder)
    messages, peak_kib = [], 0
    while changing.poll() is None:
        peak_kib = peak_memory(changing.pid) or peak_kib
        messages.append(channel.publish(database.interview(), "fine"))
        wait_until(lambda: promptd.counters()["received"] >= len(messages), "the message")
    assert changing.stdout.read() == f"12000 dead letters {done}\n" and changing.stderr.read() == ""
    assert 0 < peak_kib < 30000
    wait_until(lambda: promptd.counters()["waiting"] == 0, "all to end", timeout=60)
    expect_stored(database, *messages)
    promptd.wait_counters(success=len(messages), failure=12000 if verb == "replay" else 0, dropped=0)
    assert promptd.find("WARNING|CRITICAL") == []





def test_two_at_once(start, promptctl, spool):
    """Each letter is changed by one of them."""
    start().stop()
    spool.add_dead(payload(number) for number in range(10000))
    both = [promptctl.start("dead", verb, "--all", "--yes", "--json", spool_dir=spool.folder)
            for verb in ("replay", "replay", "drop")]
    changed = [json.loads(one.stdout.read()) for one in both]
    assert [one.wait(20) for one in both] == [0, 0, 0]
    replayed = [result["replayed"] for result in changed[:2]]
    assert sum(replayed) + changed[2]["dropped"] == 10000 and spool.dead() == []
    assert len(spool.waiting()) == sum(replayed) == len({interview for interview, _ in spool.waiting()})


def test_stopped_in_the_middle(start, promptctl, spool):
    """By Ctrl-Z: it holds no lock then, or the daemon could not write until it is continued."""
    start().stop()
    spool.add_dead(payload(number) for number in range(30000))
    changing = promptctl.start("dead", "drop", "--all", "--yes", group=True, spool_dir=spool.folder)
    wait_until(lambda: len(spool.dead()) < 30000, "the first to be dropped")
    for _ in range(20):
        changing.send_signal(signal.SIGTSTP)
        assert os.waitid(os.P_PID, changing.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED
        spool.write_at_once()
        changing.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, changing.pid, os.WCONTINUED)
    assert changing.stdout.read() == "30000 dead letters dropped\n" and changing.wait(20) == 0


def test_folder_that_is_read_only(start, database, channel, dead, new_folder, spool):
    """Disks are made so when they fail. A copy can be read."""
    promptd = start()
    make_dead(promptd, database, channel)
    promptd.stop()
    folder = new_folder("read-only")
    for options in (["--bind", spool.folder], ["-o", "remount,bind,ro"]):
        if subprocess.run(["mount", *options, folder], capture_output=True).returncode != 0:
            pytest.skip("needs root and CAP_SYS_ADMIN (to mount a file system)")
    try:
        for arguments in (["list"], ["drop", "--all", "--yes"]):
            result = dead(*arguments, spool_dir=folder)
            assert result.code == 73 and "the file system is read-only" in result.err and result.out == ""
        copy = shutil.copytree(folder, os.path.join(new_folder("copy"), "spool"))
    finally:
        subprocess.run(["umount", folder], check=True)
    assert ids(dead("list", spool_dir=copy)) == ids(dead("list"))


def test_disk_is_full(start, database, channel, dead, small_disk):
    """It says so, and changes nothing."""
    spool = Spool(os.path.join(small_disk, "spool"))
    promptd = start(spool_dir=spool.folder)
    make_dead(promptd, database, channel)
    letters = ids(dead("list", spool_dir=spool.folder))
    filler = fill_disk(small_disk)
    for verb in ("replay", "drop"):
        result = dead(verb, "--all", "--yes", spool_dir=spool.folder)
        assert result.code == 73 and "disk is full" in result.err and result.out == ""
    assert ids(dead("list", spool_dir=spool.folder)) == letters
    os.remove(filler)
    assert dead("drop", "--all", "--yes", spool_dir=spool.folder).code == 0
    promptd.wait_counters(dead_letters=0)


def test_file_that_is_a_link(start, dead, spool, new_folder):
    """The daemon refuses it, too. Root follows nobody's links."""
    start().stop()
    other = os.path.join(new_folder("elsewhere"), "spool.db")
    os.rename(spool.path, other)
    os.symlink(other, spool.path)
    result = dead("list")
    assert result.code == 73 and "spool.db is not a regular file" in result.err


@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_file_that_is_replaced_while_it_asks(start, database, channel, dead, promptctl, spool, verb):
    """What were done to the file that was set aside would be done to nothing. That one could still be changed: only an
    index of it is damaged, which these letters are not in."""
    promptd = start()
    make_dead(promptd, database, channel, 20)
    letters = ids(dead("list"))

    def damage():
        spool.spoil_root("rejected")

        def is_replaced():
            channel.publish_raw(frame(b"garbage"))
            return promptd.find("CRITICAL", "is damaged", "set aside")

        wait_until(is_replaced, "the damage to be noticed")
        wait_until(lambda: promptd.counters()["waiting"] == 0, "the rest")

    result = promptctl.on_terminal("dead", verb, *letters[:20], answer="y\n", meanwhile=damage, spool_dir=spool.folder)
    assert result.code == 73 and "was replaced meanwhile" in result.out and "20 dead letters " + verb not in result.out
    assert ids(dead("list"))[:21] == letters  # all were taken over
    assert dead("drop", *letters[:20], "--yes").out == "20 dead letters dropped\n"
    assert dead("drop", "--all", "--yes").code == 0
    promptd.wait_counters(dead_letters=0)
    promptd.one("CRITICAL", "is damaged", "set aside")


# What it refuses


@pytest.mark.parametrize("arguments", [["replay"], ["drop", "--yes"], ["drop", "--all", "1", "--yes"], ["show"],
                                       ["drop", "--yes", "x"], ["drop", "--yes", "0"], ["drop", "--yes", "1x"],
                                       ["show", "99999999999999999999"], ["list", "1"], ["show", "1", "2"],
                                       ["list", "--yes"], [], ["bury"]], ids=" ".join)
def test_bad_command_line(start, dead, arguments):
    start()
    result = dead(*arguments)
    assert result.code == 64 and len(result.err.splitlines()) == 1 and result.out == "", result


def test_no_spool_is_set(dead):
    result = dead("list", spool_dir=None)
    assert result.code == 78 and "spool_dir" in result.err and "--spool-dir" in result.err


def test_folder_that_is_missing(dead, spool):
    result = dead("list", spool_dir=f"{spool.folder}/missing")
    assert result.code == 73 and "missing" in result.err


def test_folder_without_a_spool_stays_as_it_is(dead, spool):
    result = dead("list")
    assert result.code == 73 and "holds no spool" in result.err and os.listdir(spool.folder) == []


def test_file_that_is_no_spool(start, dead, spool):
    start().stop()
    spool.spoil()
    result = dead("list")
    assert result.code == 73 and "spool.db" in result.err and "damaged" in result.err


def give_files_to(spool, user):
    for name in os.listdir(spool.folder):
        shutil.chown(f"{spool.folder}/{name}", user, "nogroup")


@pytest.mark.parametrize("mode", [0o700, 0o777], ids=oct)
def test_someone_else_is_sent_away(start, promptctl, spool, mode):
    """Files of a third account beside the database would lock the daemon out."""
    if unprivileged_user() is None:
        pytest.skip("needs root (to be somebody else)")
    start()
    os.chmod(spool.folder, mode)
    result = promptctl("dead", "list", spool_dir=spool.folder, user="nobody")
    assert result.code == 73 and "belongs to user root" in result.err


def test_folder_that_belongs_to_the_group_only(start, database, channel, promptctl, spool):
    """A volume of Kubernetes with fsGroup, or of OpenShift: the folder is root's, the files are the daemon's."""
    if unprivileged_user() is None:
        pytest.skip("needs root (to be somebody else)")
    promptd = start()
    make_dead(promptd, database, channel)
    promptd.stop()
    shutil.chown(spool.folder, "root", "nogroup")
    os.chmod(spool.folder, 0o2775)
    give_files_to(spool, "nobody")
    owners = {"spool_dir": spool.folder, "user": "nobody"}
    letters = ids(promptctl("dead", "list", **owners))
    assert promptctl("dead", "show", letters[0], **owners).code == 0
    assert promptctl("dead", "replay", letters[0], "--yes", **owners).out == "1 dead letter replayed\n"
    assert promptctl("dead", "drop", "--all", "--yes", **owners).out == "3 dead letters dropped\n"
    stranger = promptctl("dead", "list", spool_dir=spool.folder, user="daemon")
    assert stranger.code == 73 and "spool.db belongs to user nobody" in stranger.err


def test_root_leaves_the_owner_its_files(start, database, channel, dead, spool):
    """Root's promptctl on the stopped daemon of another account: that one starts again all the same."""
    if unprivileged_user() is None:
        pytest.skip("needs root (to be somebody else)")
    promptd = start()
    make_dead(promptd, database, channel, 1)
    promptd.stop()
    shutil.chown(spool.folder, "nobody", "nogroup")
    give_files_to(spool, "nobody")
    assert dead("replay", "--all", "--yes").code == 0
    owner = os.stat(spool.folder).st_uid
    assert {os.stat(f"{spool.folder}/{name}").st_uid for name in os.listdir(spool.folder)} == {owner}
