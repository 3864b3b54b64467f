# SPDX-License-Identifier: MIT
"""Every outcome of a valid message: row, interview, log line and counters must tell the same story."""

import re

import pytest

from support.expect import detected_line, expect_nothing_stored, expect_stored, expect_unsettled, stuck_line
from support.redis_server import Message

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"


# Duplicate


def test_same_message_again_is_a_duplicate(promptd, database, channel):
    message = channel.publish(database.interview())
    promptd.settle(1)
    channel.publish_message(message)
    assert promptd.settle(2).outcomes() == {"success": 1, "duplicate": 1}
    expect_stored(database, message)
    assert len(promptd.find("INFO", message.interview)) == 2


def test_id_in_another_case_is_the_same_message(promptd, database, channel):
    message = channel.publish(database.interview())
    channel.publish_message(Message(message.interview.upper(), message.prompt))
    assert promptd.settle(2).outcomes() == {"success": 1, "duplicate": 1}
    assert len(database.prompts(message.interview)) == 1


def test_duplicate_for_a_ready_interview_changes_nothing(promptd, database, channel):
    interview = database.interview("ready")
    message = channel.message(interview)
    database.add_prompt(message)
    before = database.rows(f"select xmin::text, * from {PROMPTS}")
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"duplicate": 1}
    assert database.rows(f"select xmin::text, * from {PROMPTS}") == before


@pytest.mark.parametrize("status", ["enhancing", "failed", "in_progress", "completed", "timeout", "cancelled"])
def test_settled_prompt_is_there_for_ever(promptd, database, channel, status):
    """The interview was ready with it once. What became of its status is the application's business."""
    message = channel.message(database.interview(status))
    database.add_prompt(message)
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"duplicate": 1}
    assert database.prompts(message.interview) == [(message.id, message.prompt, "rag")]
    assert database.status(message.interview) == status
    promptd.one("INFO", message.interview)
    assert promptd.find("ERROR|CRITICAL") == []


# An unsettled prompt: another promptd has inserted it, and was ended before the second step


@pytest.mark.parametrize("status", ["enhancing", "failed", "ready"])
def test_unsettled_prompt_is_settled(promptd, database, channel, status):
    message = channel.message(database.interview(status))
    database.add_prompt(message, unsettled=True)
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


@pytest.mark.parametrize("status", ["completed", "timeout", "in_progress"])
def test_unsettled_prompt_of_an_interview_that_went_on_is_rolled_back(promptd, database, channel, status):
    message = channel.message(database.interview(status))
    database.add_prompt(message, unsettled=True)
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, status)
    promptd.one("ERROR", message.interview)


def test_evidence_of_a_prompt_that_somebody_has_deleted(promptd, database, channel):
    """It speaks of the new one from now on, and goes with its settling."""
    message = channel.message(database.interview())
    database.add_evidence(message)
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_evidence_of_a_deleted_prompt_does_not_stay_with_a_late_message(start_promptd, database, channel):
    """In a transaction, which leaves none of its own, it is for the recovery."""
    promptd = start_promptd(atomicity="compensate")
    message = channel.message(database.interview("timeout"))
    database.add_evidence(message)
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "timeout")


# Not stored: the insert fails


def test_unknown_interview(promptd, database, channel):
    message = channel.publish("00000000-0000-4000-8000-000000000001")
    assert promptd.settle(1).outcomes() == {"failure": 1}
    assert database.prompt_count() == 0 and database.unsettled() == []
    line = promptd.one("ERROR", message.interview)
    assert line.fields["error"] == "there is no such interview" and "sqlstate" not in line.fields
    assert promptd.find("CRITICAL") == []  # there is no interview to mark


def test_check_constraint(promptd, database, channel):
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'RUDE')")
    message = channel.publish(database.interview(), "RUDE words")
    assert promptd.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")
    line = promptd.one("ERROR", message.interview)
    assert line.fields["sqlstate"] == "23514" and "polite" in line.fields["error"]
    assert promptd.find("CRITICAL") == []


def test_trigger_that_raises_on_insert(promptd, database, channel):
    database.raise_on(PROMPTS, "insert", "no prompts today", "P0001")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")
    line = promptd.one("ERROR", message.interview)
    assert line.fields["sqlstate"] == "P0001" and line.fields["error"] == "no prompts today"


def test_insert_privilege_revoked(promptd, database, channel):
    database.execute(f"revoke insert on {PROMPTS} from promptd")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert promptd.one("ERROR", message.interview).fields["sqlstate"] == "42501"
    assert promptd.find("CRITICAL", "42501") != []


def test_insert_that_a_trigger_skips_in_silence(promptd, database, channel):
    """No row and no error: the interview must not become ready without a prompt."""
    database.trigger(PROMPTS, "insert", "return null;")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")
    promptd.one("ERROR", message.interview)


def test_settled_prompt_stays_when_the_insert_fails(promptd, database, channel):
    """An insert that never met it proves nothing about it."""
    message = channel.message(database.interview())
    database.add_prompt(message)
    database.raise_on(PROMPTS, "insert", "no prompts today")
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"failure": 1}
    assert database.prompts(message.interview) == [(message.id, message.prompt, "rag")]
    assert database.status(message.interview) == "failed"


@pytest.mark.parametrize("status", ["completed", "timeout", "ready"])
def test_not_stored_leaves_an_interview_alone_that_is_not_awaiting(promptd, database, channel, status):
    database.raise_on(PROMPTS, "insert")
    message = channel.publish(database.interview(status))
    assert promptd.settle(1)["failure"] == 1  # with two faults at once, either may be found first
    expect_nothing_stored(database, message.interview, status)
    assert promptd.find("CRITICAL") == []


# Rolled back: the update fails


@pytest.mark.parametrize("status", ["completed", "timeout", "cancelled", "something_else"])
def test_interview_that_is_no_longer_awaiting(promptd, database, channel, status):
    message = channel.publish(database.interview(status))
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, status)
    promptd.one("ERROR", message.interview)
    assert promptd.find("CRITICAL") == []


def test_trigger_that_raises_on_ready(promptd, database, channel):
    database.raise_on("interviews", "update", "not ready yet", "P0001", TO_READY)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    line = promptd.one("ERROR", message.interview)
    assert line.fields["sqlstate"] == "P0001" and line.fields["error"] == "not ready yet"
    assert promptd.find("CRITICAL") == []


def test_check_constraint_on_the_status(promptd, database, channel):
    database.execute("alter table interviews add constraint known check (status in ('enhancing', 'failed'))")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert promptd.one("ERROR", message.interview).fields["sqlstate"] == "23514"


def test_update_to_ready_that_a_trigger_skips_in_silence(promptd, database, channel):
    database.trigger("interviews", "update", "return null;", TO_READY)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    promptd.one("ERROR", message.interview)
    assert promptd.find("CRITICAL") == []


def test_that_nothing_was_changed_is_said_whatever_the_prompt_says(promptd, database, channel):
    """The error by which promptd's own statement fails is not the server's, and quotes nothing."""
    database.trigger("interviews", "update", "return null;", TO_READY)
    channel.publish(database.interview(), "Tell me how the interview was not made ready for you.")
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    line = promptd.one("ERROR", "prompt rolled back")
    assert line.fields["error"] == "the update changed no row" and "sqlstate" not in line.fields


def test_trigger_that_keeps_some_of_a_batch(promptd, database, channel):
    """The statement fails as a whole for that, and the others are stored all the same."""
    interviews = database.interviews(40)
    kept = interviews[::7]
    database.trigger("interviews", "update", "return null;",
                     f"new.status = 'ready' and new.id = any('{{{','.join(kept)}}}'::uuid[])")
    messages = [channel.message(interview) for interview in interviews]
    with database.locked():
        channel.publish_burst(messages)
        promptd.wait_counters(received=40)
    assert promptd.settle(40).outcomes() == {"success": 34, "failure": 6, "rollback": 6}
    for message in messages:
        if message.interview in kept:
            expect_nothing_stored(database, message.interview, "failed")
        else:
            expect_stored(database, message)


def test_row_level_security_that_forbids_ready(promptd, database, channel):
    database.execute("""
        alter table interviews enable row level security;
        create policy see on interviews for select to promptd using (true);
        create policy move on interviews for update to promptd using (true) with check (status <> 'ready')""")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert promptd.one("ERROR", message.interview).fields["sqlstate"] == "42501"


@pytest.mark.parametrize("undo_works", [True, False])
def test_prompt_that_somebody_deletes_each_time(start_promptd, database, channel, undo_works):
    """A trigger of the application deletes it, and keeps the interview as it is: that is no success, and has an end."""
    promptd = start_promptd()
    database.trigger("interviews", "update", f"if new.status = 'ready' then delete from {PROMPTS}; return null; end if;")
    if not undo_works:
        database.raise_on("promptd_unsettled", "delete", "never forget")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback" if undo_works else "orphaned": 1}
    assert len(database.prompts(message.interview)) == len(database.unsettled()) == (not undo_works)
    assert database.status(message.interview) == "failed"


# The interview cannot be marked


def expect_stuck(promptd, database, message, **details):
    assert promptd.settle(1).outcomes() == {"failure": 1, **details}
    expect_nothing_stored(database, message.interview, "enhancing")
    promptd.one("ERROR", message.interview)
    line = promptd.one("CRITICAL", stuck_line(message.interview))
    assert line.text.startswith("INTERVIEW STUCK: ")
    return line


def test_update_privilege_revoked(promptd, database, channel):
    """No row of it may be locked either: the prompt is not inserted."""
    database.execute("revoke update on interviews from promptd")
    line = expect_stuck(promptd, database, channel.publish(database.interview()))
    assert line.fields["sqlstate"] == "42501"
    assert line.fields["error"] == "permission denied for table interviews"


def test_trigger_that_raises_on_every_update(promptd, database, channel):
    database.raise_on("interviews", "update", "hands off", "P0001")
    line = expect_stuck(promptd, database, channel.publish(database.interview()), rollback=1)
    assert line.fields["sqlstate"] == "P0001" and line.fields["error"] == "hands off"


def test_every_update_skipped_in_silence(promptd, database, channel):
    database.trigger("interviews", "update", "return null;")
    expect_stuck(promptd, database, channel.publish(database.interview()), rollback=1)


def test_row_level_security_that_hides_the_update(start_promptd, atomicity, database, channel):
    """It looks like a row that somebody else has locked, for as long as promptd has patience."""
    promptd = start_promptd(atomicity=atomicity, lock_patience_s=1)
    database.execute("""
        alter table interviews enable row level security;
        create policy see on interviews for select to promptd using (true);
        create policy move on interviews for update to promptd using (false)""")
    expect_stuck(promptd, database, channel.publish(database.interview()))


def test_stuck_interview_is_marked_later(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, reconcile_interval_s=1)
    database.raise_on("interviews", "update", "hands off", "P0001")
    message = channel.publish(database.interview())
    expect_stuck(promptd, database, message, rollback=1)
    database.drop_faults()
    promptd.wait_line("INFO", f"INTERVIEW NO LONGER STUCK: {message.interview}")
    expect_nothing_stored(database, message.interview, "failed")
    promptd.one("CRITICAL", stuck_line(message.interview))


def test_not_stored_and_stuck(promptd, database, channel):
    database.raise_on(PROMPTS, "insert", "no prompts today")
    database.raise_on("interviews", "update", "hands off", when="new.status = 'failed'")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "enhancing")
    assert promptd.one("ERROR", message.interview).fields["error"] == "no prompts today"
    assert promptd.one("CRITICAL", stuck_line(message.interview)).fields["error"] == "hands off"


# Orphaned: the delete fails too. Only possible where the steps are statements of their own.


def expect_orphaned(promptd, database, message, status):
    assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}
    expect_unsettled(database, message, status)  # the record of the orphan
    return promptd.one("CRITICAL", detected_line(message))


def test_delete_privilege_revoked(start_promptd, database, channel):
    promptd = start_promptd()
    database.execute(f"revoke delete on {PROMPTS} from promptd")
    message = channel.publish(database.interview("completed"))
    line = expect_orphaned(promptd, database, message, "completed")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z CRITICAL store: "
        rf"ORPHANED PROMPT DETECTED for interview {message.interview}\. Prompt ID: {message.id}\. "
        r'Manual cleanup required\. sqlstate=42501 error="permission denied for table interview_enhanced_prompts".*',
        line.raw)


def test_trigger_that_raises_on_delete(start_promptd, database, channel):
    promptd = start_promptd()
    database.raise_on(PROMPTS, "delete", "never forget", "P0001")
    database.raise_on("interviews", "update", "not ready", "P0001", TO_READY)
    message = channel.publish(database.interview())
    line = expect_orphaned(promptd, database, message, "failed")
    assert line.fields["sqlstate"] == "P0001" and line.fields["error"] == "never forget"


def test_delete_that_a_trigger_skips_in_silence(start_promptd, database, channel):
    """The row is still there: an orphan, although no statement has failed."""
    promptd = start_promptd()
    database.trigger(PROMPTS, "delete", "return null;")
    message = channel.publish(database.interview("completed"))
    expect_orphaned(promptd, database, message, "completed")


def test_evidence_that_cannot_be_deleted(start_promptd, database, channel):
    """Prompt and evidence go together or not at all."""
    promptd = start_promptd()
    database.raise_on("promptd_unsettled", "delete", "never forget")
    message = channel.publish(database.interview("completed"))
    assert expect_orphaned(promptd, database, message, "completed").fields["error"] == "never forget"


def test_orphaned_and_stuck(start_promptd, database, channel):
    promptd = start_promptd()
    database.execute(f"revoke delete on {PROMPTS} from promptd")
    database.raise_on("interviews", "update", "hands off")
    message = channel.publish(database.interview())
    expect_orphaned(promptd, database, message, "enhancing")
    assert promptd.one("CRITICAL", stuck_line(message.interview)).fields["error"] == "hands off"


def test_transaction_leaves_no_orphan(start_promptd, database, channel):
    promptd = start_promptd(atomicity="transaction")
    database.execute(f"revoke delete on {PROMPTS} from promptd")
    message = channel.publish(database.interview("completed"))
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "completed")
    assert promptd.find("CRITICAL") == []


# Statuses


def test_failed_interview_is_fixed_by_a_good_prompt(promptd, database, channel):
    interview = database.interview()
    channel.publish_raw(b'{"interview_id":"%s"}' % interview.encode())
    promptd.settle(1)
    assert database.status(interview) == "failed"
    message = channel.publish(interview)
    assert promptd.settle(2).outcomes() == {"success": 1, "rejected": 1}
    expect_stored(database, message)


def test_awaiting_statuses_of_ones_own(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, awaiting_statuses="queued, on hold")
    stored = [channel.publish(database.interview(status)) for status in ("queued", "on hold", "ready")]
    refused = channel.publish(database.interview("enhancing"))
    assert promptd.settle(4).outcomes() == {"success": 3, "failure": 1, "rollback": 1}
    expect_stored(database, *stored)
    expect_nothing_stored(database, refused.interview, "enhancing")


def test_any_status_is_awaiting(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, awaiting_statuses="*")
    message = channel.publish(database.interview("completed"))
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_any_status_is_marked_failed(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, awaiting_statuses="*")
    database.raise_on(PROMPTS, "insert")
    message = channel.publish(database.interview("strange"))
    assert promptd.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")


def test_other_names_for_ready_and_failed(start_promptd, atomicity, database, channel):
    promptd = start_promptd(atomicity=atomicity, ready_status="READY!", failed_status="it's broken")
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'RUDE')")
    good, bad = channel.publish(database.interview()), channel.publish(database.interview(), "RUDE words")
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1}
    assert database.status(good.interview) == "READY!" and database.status(bad.interview) == "it's broken"


COLUMN_TYPES = {
    "varchar": ("alter table interviews alter status type varchar(20)",
                f"alter table {PROMPTS} alter source type varchar(20)"),
    "enum": ("create type state as enum ('enhancing', 'ready', 'failed', 'completed')",
             "alter table interviews alter status type state using status::state",
             "create type origin as enum ('rag', 'existing_data', 'new_data', 'fallback')",
             f"alter table {PROMPTS} alter source type origin using source::origin"),
}


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("types", COLUMN_TYPES)
def test_types_of_the_applications_columns(start_promptd, atomicity, database, channel, types, count):
    database.execute("drop view promptd_orphans, promptd_stuck")
    for change in COLUMN_TYPES[types]:
        database.execute(change)
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'RUDE')")
    promptd = start_promptd(atomicity=atomicity, db_connections=1)
    good = [channel.message(interview, source="fallback") for interview in database.interviews(count)]
    rude = [channel.message(interview, "RUDE words") for interview in database.interviews(count)]
    late = [channel.message(interview) for interview in database.interviews(count, "completed")]
    for messages in (good, good, rude, late):
        channel.publish_burst(messages)
    assert promptd.settle(4 * count).outcomes() == {"success": count, "duplicate": count, "failure": 2 * count,
                                                    "rollback": count}
    expect_stored(database, *good)
    for message in rude:
        expect_nothing_stored(database, message.interview, "failed")
    for message in late:
        expect_nothing_stored(database, message.interview, "completed")
