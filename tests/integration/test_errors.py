# SPDX-License-Identifier: MIT
"""What an error of the database leads to: how it is logged, whether it is tried again, and what a wrong setup says."""

import uuid

import pytest

from support.expect import detected_line, expect_nothing_stored, expect_stored, resolved_line, stuck_line
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
TO_READY = "new.status = 'ready'"
TO_FAILED = "new.status = 'failed'"
TRANSIENT = ["40001", "40P01", "55P03"]


# A commit that fails


@pytest.fixture
def sessions_stay(promptd, database):
    """Whatever happens in the test, no connection is given up for it."""
    before = [session[0] for session in database.sessions()]
    yield
    assert [session[0] for session in database.sessions()] == before
    assert [line for line in promptd.find("DEBUG|INFO|ERROR", "lost") if not line.text.startswith("state ")] == []


def test_deferred_trigger_fails_the_commit(promptd, sessions_stay, database, channel):
    """Of a single message, and of one among others."""
    database.trigger(PROMPTS, "insert", "raise exception 'not at the end either';", when="new.prompt ~ 'RUDE'",
                     timing="deferred")
    rude = [channel.publish(database.interview(), "RUDE words, and some more of them")]
    promptd.settle(1)
    polite = [channel.message(interview) for interview in database.interviews(40)]
    rude.append(channel.message(database.interview(), "RUDE words, and others"))
    channel.publish_burst(polite[:20] + rude[1:] + polite[20:])
    counters = promptd.settle(42)  # of a transaction nobody can tell which of its steps the commit has failed for
    assert counters["success"] == 40 and counters["failure"] == 2 and counters["orphaned"] == 0
    expect_stored(database, *polite)
    for message in rude:
        expect_nothing_stored(database, message.interview, "failed")
        assert promptd.one("ERROR", message.interview).fields["sqlstate"] == "P0001"


def test_deferred_foreign_key_fails_the_commit(promptd, sessions_stay, database, channel):
    database.execute(f"alter table {PROMPTS} alter constraint {PROMPTS}_interview_id_fkey deferrable initially deferred")
    unknown = channel.publish(str(uuid.uuid4()))
    known = channel.publish(database.interview())
    assert promptd.settle(2).outcomes() == {"success": 1, "failure": 1}
    expect_stored(database, known)
    promptd.one("ERROR", unknown.interview)


# How errors are logged


def failed_error(promptd, database, channel, text=None):
    """Publishes one message that fails; the error= of its line, None where it has none."""
    message = channel.publish(database.interview(), text)
    assert promptd.settle(1).outcomes() == {"failure": 1}
    return promptd.one("ERROR", message.interview).fields.get("error")


def test_error_is_cut_at_200_characters(promptd, database, channel):
    database.raise_on(PROMPTS, "insert", "'" + "é" * 150 + "' || repeat('0123456789', 100)")
    error = failed_error(promptd, database, channel)
    assert 190 <= len(error) <= 200 and error.startswith("é" * 150 + "0123456789")


def test_detail_and_hint_stay_out(promptd, database, channel):
    database.trigger(PROMPTS, "insert", """raise exception using message = 'the primary message',
                     detail = 'detail: ' || new.prompt, hint = 'hint: call 555-1234', errcode = 'P0001';""")
    assert failed_error(promptd, database, channel) == "the primary message"
    assert promptd.find("DEBUG|INFO|WARNING|ERROR|CRITICAL", "555-1234") == []


def test_detail_of_a_check_constraint_stays_out(promptd, database, channel):
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'RUDE')")
    error = failed_error(promptd, database, channel, "RUDE words of a secret")
    assert "polite" in error and "secret" not in promptd.tail(500)


@pytest.mark.parametrize("expression", [
    "'bad prompt: ' || new.prompt", "substr(new.prompt, 40, 12)", "'12 of it: ' || substr(new.prompt, 40, 12) || '!'",
    "repeat('x', 195) || new.prompt",
], ids=["all of it", "12 characters alone", "12 characters within", "at the end"])
def test_error_that_quotes_the_prompt_is_withheld(promptd, database, channel, expression):
    database.trigger(PROMPTS, "insert", f"raise exception using message = {expression};")
    error = failed_error(promptd, database, channel, "what nobody else may read: umlauts äöü, and secrets")
    # 34 of the prompt's first 35 characters are the marker, which the final judgement looks for.
    for word in ("nobody", "else may", "umlauts"):
        assert word not in (error or "")
    assert promptd.find("ERROR", "sqlstate=P0001") != []


def test_error_that_quotes_a_prompt_of_short_lines_is_withheld(promptd, database, channel):
    database.trigger(PROMPTS, "insert", "raise exception using message = substr(new.prompt, 36);")
    assert failed_error(promptd, database, channel, "ab\ncd\nef\ngh\nij\nkl") == "(withheld: it quotes the prompt)"


def test_outage_that_quotes_the_prompt_is_withheld(promptd, database, channel):
    database.trigger(PROMPTS, "insert", "raise exception using message = 'full: ' || new.prompt, errcode = '53100';")
    channel.publish(database.interview())
    assert "withheld" in promptd.wait_line("ERROR", "takes no writes").fields["error"]
    database.drop_faults()
    assert promptd.settle(1).outcomes() == {"success": 1}  # the final judgement looks for the prompt


def test_error_that_quotes_an_orphan_is_withheld_also_later(start_promptd, database, channel):
    promptd = start_promptd(reconcile_interval_s=1)
    interview = database.interview()
    database.raise_on("interviews", "update", when=f"{TO_READY} and new.id = '{interview}'")
    database.trigger(PROMPTS, "delete", "raise exception using message = 'no: ' || old.prompt, errcode = '42501';")
    channel.publish(interview)
    promptd.settle(1)
    promptd.one("CRITICAL", "ORPHANED PROMPT DETECTED", "withheld")
    channel.publish(database.interview())  # what is stored lets the set-up be complained about anew
    promptd.settle(2)
    promptd.wait_line("CRITICAL", "because of its set-up", "withheld", count=2)


def test_error_that_quotes_11_characters_is_shown(promptd, database, channel):
    database.trigger(PROMPTS, "insert", "raise exception using message = '<' || substr(new.prompt, 36, 11) || '>';")
    assert failed_error(promptd, database, channel, "hello world, how are you?") == "<hello world>"


def test_error_of_one_message_is_not_judged_by_the_others_alone(promptd, database, channel):
    """In a batch the error may quote any of the prompts: none of them may reach the log."""
    database.trigger(PROMPTS, "insert", "raise exception using message = 'bad: ' || new.prompt;",
                     when="new.prompt ~ 'POISON'")
    with database.locked():
        first = channel.publish(database.interview())
        database.wait_blocked()
        others = [channel.message(database.interview(), f"number {n} " + ("POISON" if n == 5 else "of many"))
                  for n in range(10)]
        channel.publish_burst(others)
        promptd.wait_counters(received=11)
    assert promptd.settle(11).outcomes() == {"success": 10, "failure": 1}
    expect_stored(database, first, *(message for n, message in enumerate(others) if n != 5))


def test_error_of_many_lines_stays_one_line(promptd, database, channel):
    database.raise_on(PROMPTS, "insert", "E'first\\nsecond\\r\\n\\x1b[31mred\\x07 \\\\ \"quoted\" tab\\there'")
    error = failed_error(promptd, database, channel)
    for word in ("first", "second", "red", "quoted", "here"):
        assert word in error
    assert promptd.lines()[-1].level != ""  # the final judgement looks for control characters


# A wrong setup


@pytest.mark.parametrize("sqlstate", ["42501", "42P01", "3F000", "0A000", "28000"])
def test_wrong_setup_raises_one_critical_line(promptd, database, channel, sqlstate):
    database.raise_on(PROMPTS, "insert", "set up wrong", sqlstate)
    messages = [channel.publish(database.interview()) for _ in range(5)]
    assert promptd.settle(5).outcomes() == {"failure": 5}
    assert len(promptd.find("ERROR", f"sqlstate={sqlstate}")) == 5
    assert len(promptd.find("CRITICAL", sqlstate)) == 1
    for message in messages:
        expect_nothing_stored(database, message.interview, "failed")


def test_error_of_the_message_raises_no_critical_line(promptd, database, channel):
    database.raise_on(PROMPTS, "insert", "bad data", "22023")
    failed_error(promptd, database, channel)
    assert promptd.find("CRITICAL") == []


SETUPS = {
    "missing table": (f"alter table {PROMPTS} rename to elsewhere", f"alter table elsewhere rename to {PROMPTS}",
                      [PROMPTS]),
    "missing interviews": ("alter table interviews rename to elsewhere", "alter table elsewhere rename to interviews",
                           ["interviews"]),
    "missing column": (f"alter table {PROMPTS} rename source to origin", f"alter table {PROMPTS} rename origin to source",
                       [PROMPTS, "source"]),
    "missing status": ("alter table interviews rename status to state", "alter table interviews rename state to status",
                       ["interviews", "status"]),
    "no insert": (f"revoke insert on {PROMPTS} from promptd", f"grant insert on {PROMPTS} to promptd",
                  [PROMPTS, "insert"]),
    "no delete": (f"revoke delete on {PROMPTS} from promptd", f"grant delete on {PROMPTS} to promptd",
                  [PROMPTS, "delete"]),
    "no update": ("revoke update on interviews from promptd", "grant update (status) on interviews to promptd",
                  ["interviews", "update"]),
    "no select": ("revoke select on interviews from promptd", "grant select (id, status) on interviews to promptd",
                  ["interviews", "select"]),
}


@pytest.mark.parametrize("name", SETUPS)
def test_setup_is_checked_at_connection(start_promptd, database, channel, name):
    """One clear line names what is missing; the daemon stays up, and works once it is fixed."""
    breaks, fixes, words = SETUPS[name]
    interview = database.interview()
    database.execute(breaks)
    promptd = start_promptd(ready=False)
    channel.wait_subscribers(1)

    def named():
        return [line for line in promptd.lines() if line.level in ("ERROR", "CRITICAL")
                and all(word in line.text.lower() for word in words)]

    wait_until(named, f"a line that names {words}", seen=lambda: promptd.tail(8))
    database.execute(fixes)
    message = channel.publish(interview)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    texts = [line.text for line in named()]
    assert len(set(texts)) == len(texts), "said more than once"


# Transient errors


@pytest.fixture
def quick(start_promptd, atomicity):
    """One connection, and short waits between tries."""
    return start_promptd(atomicity=atomicity, db_connections=1, retry_base_ms=10, retry_max_ms=50)


@pytest.mark.parametrize("sqlstate", TRANSIENT)
def test_transient_error_on_insert_is_retried(quick, database, channel, sqlstate):
    tries = database.raise_first(2, PROMPTS, "insert", sqlstate)
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert database.tries(tries) == 3
    assert quick.find("ERROR|CRITICAL") == []


@pytest.mark.parametrize("sqlstate", TRANSIENT)
def test_transient_error_on_update_is_retried(quick, database, channel, sqlstate):
    tries = database.raise_first(2, "interviews", "update", sqlstate, TO_READY)
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert database.tries(tries) == 3


def test_transient_error_on_insert_is_given_up(quick, database, channel):
    tries = database.raise_first(1000, PROMPTS, "insert", "40001")
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert database.tries(tries) == 3
    assert quick.one("ERROR", message.interview).fields["sqlstate"] == "40001"


def test_transient_error_on_update_is_given_up(quick, database, channel):
    tries = database.raise_first(1000, "interviews", "update", "55P03", TO_READY)
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert database.tries(tries) == 3


@pytest.mark.parametrize("attempts", [1, 5])
def test_number_of_tries(start_promptd, atomicity, database, channel, attempts):
    promptd = start_promptd(atomicity=atomicity, retry_attempts=attempts, retry_base_ms=10, retry_max_ms=10)
    tries = database.raise_first(1000, PROMPTS, "insert", "40P01")
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1}
    assert database.tries(tries) == attempts


def test_transient_error_on_delete_is_retried(start_promptd, database, channel):
    promptd = start_promptd(retry_base_ms=10, retry_max_ms=50)
    tries = database.raise_first(2, PROMPTS, "delete", "40001")
    message = channel.publish(database.interview("completed"))
    assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
    expect_nothing_stored(database, message.interview, "completed")
    assert database.tries(tries) == 3


def test_transient_error_on_marking_is_retried(quick, database, channel):
    database.raise_on(PROMPTS, "insert")
    tries = database.raise_first(2, "interviews", "update", "40P01", TO_FAILED)
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"failure": 1}
    expect_nothing_stored(database, message.interview, "failed")
    assert database.tries(tries) == 3
    assert quick.find("CRITICAL") == []


def test_transient_error_on_marking_is_given_up(quick, database, channel):
    database.raise_on(PROMPTS, "insert")
    database.raise_first(1000, "interviews", "update", "40P01", TO_FAILED)
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"failure": 1}
    assert quick.one("CRITICAL", stuck_line(message.interview)).fields["sqlstate"] == "40P01"


@pytest.mark.parametrize("sqlstate", ["40001", "23514"])
def test_one_culprit_fails_no_other_of_its_batch(quick, database, channel, sqlstate):
    database.raise_on(PROMPTS, "insert", "poison", sqlstate, "new.prompt ~ 'POISON'")
    with database.locked():
        channel.publish(database.interview())
        database.wait_blocked()
        messages = [channel.message(interview, "POISON" if n == 7 else None)
                    for n, interview in enumerate(database.interviews(30))]
        channel.publish_burst(messages)
        quick.wait_counters(received=31)
    assert quick.settle(31).outcomes() == {"success": 30, "failure": 1}
    culprit = messages.pop(7)
    expect_nothing_stored(database, culprit.interview, "failed")
    expect_stored(database, *messages)


def test_culprit_on_update_fails_no_other_of_its_batch(quick, database, channel):
    interviews = database.interviews(30)
    database.raise_on("interviews", "update", "poison", "23514", f"{TO_READY} and new.id = '{interviews[7]}'")
    with database.locked():
        messages = [channel.message(interview) for interview in interviews]
        channel.publish_burst(messages)
        quick.wait_counters(received=30)
    assert quick.settle(30).outcomes() == {"success": 29, "failure": 1, "rollback": 1}
    culprit = messages.pop(7)
    expect_nothing_stored(database, culprit.interview, "failed")
    expect_stored(database, *messages)


# The code of an outage, from a trigger

OUTAGE_CODES = ["53400", "08006", "57P01", "25006"]
TRIGGERS = {"insert": (PROMPTS, "insert", "new.interview_id = '{}'", {"failure": 1}),
            "update": ("interviews", "update", TO_READY + " and new.id = '{}'", {"failure": 1, "rollback": 1})}


@pytest.mark.parametrize("with_spool", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("where", TRIGGERS)
@pytest.mark.parametrize("sqlstate", OUTAGE_CODES)
def test_outage_code_of_one_message_holds_up_no_other(start_promptd, atomicity, database, channel, new_folder, sqlstate, where,
                                                      with_spool):
    """Only this message ever meets it, and a harmless statement works: it is the message's own error, and has its tries."""
    settings = {"spool_dir": new_folder("spool")} if with_spool else {}
    promptd = start_promptd(atomicity=atomicity, retry_attempts=3, **settings)
    interviews = database.interviews(601)
    table, event, when, outcomes = TRIGGERS[where]
    tries = database.raise_first(1000, table, event, sqlstate, when.format(interviews[300]))
    messages = [channel.message(interview) for interview in interviews]
    channel.publish_burst(messages)
    assert promptd.settle(601, timeout=10).outcomes() == {"success": 600, **outcomes}
    poison = messages.pop(300)
    assert promptd.one("ERROR", poison.interview).fields["sqlstate"] == sqlstate
    assert promptd.find("CRITICAL") == [] and len(promptd.find("WARNING|ERROR")) == 1
    expect_nothing_stored(database, poison.interview, "failed")
    expect_stored(database, *messages[::20])
    assert database.statuses() == {"ready": 600, "failed": 1} and database.prompt_count() == 600
    assert promptd.counters()["retries"] == 2 and database.tries(tries) >= 3


def test_outage_code_that_comes_and_goes(quick, database, channel):
    """Within its tries the message is stored like any other."""
    database.raise_first(2, "interviews", "update", "57P01", TO_READY)
    message = channel.publish(database.interview())
    assert quick.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    assert quick.find("WARNING|ERROR|CRITICAL") == []


def test_outage_code_when_it_is_undone(start_promptd, database, channel):
    """The delete has its tries, too; then it is an orphan, and tried again."""
    promptd = start_promptd(atomicity="compensate", retry_attempts=2, reconcile_interval_s=1)
    interview = database.interview("completed")
    database.raise_on(PROMPTS, "delete", "not now", "57P03", f"old.interview_id = '{interview}'")
    late = channel.publish(interview)
    good = [channel.publish(database.interview()) for _ in range(5)]
    assert promptd.settle(6).outcomes() == {"success": 5, "failure": 1, "orphaned": 1}
    assert promptd.one("CRITICAL", detected_line(late)).fields["sqlstate"] == "57P03"
    database.drop_faults()
    promptd.wait_line("INFO", resolved_line(late))
    expect_nothing_stored(database, interview, "completed")
    expect_stored(database, *good)


def test_lock_wait_ends_by_the_statement_timeout(start_promptd, atomicity, database, channel):
    """A statement that takes too long is tried again, and succeeds once the lock is gone."""
    promptd = start_promptd(atomicity=atomicity, statement_timeout_ms=200, retry_attempts=10, retry_base_ms=10,
                            retry_max_ms=10)
    with database.locked():
        message = channel.publish(database.interview())
        database.wait_blocked()
        first = database.blocked_since()
        wait_until(lambda: database.blocked_since() not in ([], first), "the statement to be tried again")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
