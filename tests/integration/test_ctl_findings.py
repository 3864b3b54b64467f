# SPDX-License-Identifier: MIT
"""promptctl stuck: what it finds, what it changes, and what it never touches; and what it has in common with orphans."""

import threading

import pytest

from support.wait import wait_until

AWAITING = ["pending", "not_started", "enhancing", "vector_search", "web_scraping", "processing"]


@pytest.fixture
def aged(database):
    """aged(status, seconds) -> the interview, made so long ago"""
    def make(status="enhancing", age=3600):
        interview = database.interview(status)
        database.execute("update interviews set created_at = now() - make_interval(secs => %s) where id = %s",
                         [age, interview])
        return interview

    return make


def first_words(result):
    return [line.split()[0] for line in result.lines()]


# stuck


def test_stuck_are_those_that_await(promptctl, aged):
    found = [aged(status, 3600 - number) for number, status in enumerate(AWAITING)]
    for status in ("failed", "ready", "completed", "timeout", "cancelled"):
        aged(status)
    aged("enhancing", 200)
    result = promptctl("stuck")
    assert result.code == 1 and result.err == "" and first_words(result) == found
    listed = promptctl("stuck", "--json").json()
    assert [each["interview_id"] for each in listed] == found and [each["status"] for each in listed] == AWAITING
    assert set(listed[0]) == {"interview_id", "status", "created_at", "age_seconds"}
    assert len(promptctl("stuck", "--older-than=10s").lines()) == 7


def test_none_is_stuck(promptctl, aged):
    aged("ready")
    result = promptctl("stuck")
    assert (result.code, result.out, result.err) == (0, "", "No stuck interviews.\n")


def test_fail(promptctl, aged, database):
    interviews = [aged("enhancing"), aged("pending")]
    young, late = aged("enhancing", 10), aged("timeout")
    result = promptctl("stuck", "--fail", "--yes")
    assert result.code == 0 and "2 of 2 failed" in result.err
    assert [database.status(each) for each in [*interviews, young, late]] == \
        ["failed", "failed", "enhancing", "timeout"]
    assert promptctl("stuck").code == 0


def test_statuses_are_those_of_the_settings(promptctl, aged, database):
    queued, broken = aged("queued"), aged("broken")
    aged("enhancing")
    result = promptctl("stuck", "--fail", "--yes", awaiting_statuses="queued,broken", failed_status="broken")
    assert first_words(result) == [queued] and database.status(queued) == database.status(broken) == "broken"


def test_any_status_may_be_awaiting(promptctl, aged, database):
    found = [aged("whatever"), aged("enhancing")]
    over = {each: each for each in ("ready", "failed", "completed", "prepared")}
    interviews = {status: aged(status) for status in over}
    result = promptctl("stuck", "--fail", "--yes", awaiting_statuses="*", ready_status="prepared")
    assert result.code == 0 and set(first_words(result)) == set(found)
    assert {status: database.status(interview) for status, interview in interviews.items()} == over


@pytest.mark.parametrize("now", ["ready", "timeout"])
def test_interview_moves_on_while_it_is_marked(promptctl, aged, database, postgres, now):
    interview = aged("enhancing")
    results = []
    with postgres.connect(database.name) as other:
        other.autocommit = False
        other.execute("update interviews set status = %s where id = %s", [now, interview])
        ctl = threading.Thread(target=lambda: results.append(promptctl("stuck", "--fail", "--yes")))
        ctl.start()
        wait_until(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                                          " and application_name = 'promptctl'"), "promptctl to wait for the lock")
        other.commit()
        ctl.join()
    assert "0 of 1 failed" in results[0].err and database.status(interview) == now


# Both


@pytest.fixture
def orphan(database):
    """orphan() -> (prompt id, interview id), of an interview that is stuck, too"""
    def make():
        interview = database.interview()
        database.execute("update interviews set created_at = now() - interval '1 hour'")
        return database.add_old_prompt(interview, unsettled=True), interview

    return make


def is_there(database, id):
    return database.value("select count(*) from interview_enhanced_prompts where id = %s", [id]) == 1


@pytest.mark.parametrize("age", ["", "x", "-1", "5 m", "1w", "1h30m", "99999999999999999999"])
@pytest.mark.parametrize("command", ["orphans", "stuck"])
def test_bad_duration(promptctl, command, age):
    result = promptctl(command, f"--older-than={age}")
    assert result.code == 64 and "--older-than" in result.err


def test_columns_may_be_enums(promptctl, orphan, database, postgres):
    id, interview = orphan()
    scanned = database.add_old_prompt(interview)
    database.execute("drop view promptd_orphans, promptd_stuck; create type state as enum ('enhancing', 'failed');"
                     "create type origin as enum ('rag');"
                     "alter table interviews alter status type state using status::state;"
                     "alter table interview_enhanced_prompts alter source type origin using source::origin")
    postgres.apply_sql(database.name)
    result = promptctl("orphans", "--delete", "--scan", "--yes")
    assert result.code == promptctl("stuck", "--fail", "--yes").code == 0 and "2 of 2 deleted" in result.err
    assert database.status(interview) == "failed" and not is_there(database, id) and not is_there(database, scanned)


@pytest.mark.parametrize("command, option", [("orphans", "--delete"), ("stuck", "--fail")])
def test_without_a_terminal_it_needs_yes(promptctl, orphan, database, command, option):
    id, interview = orphan()
    for stdin in ("", "y\n"):
        result = promptctl(command, option, stdin=stdin)
        assert result.code == 64 and "--yes" in result.err and result.out == ""
    assert promptctl(command, option, database_url="postgresql://127.0.0.1:1/x").code == 64
    assert is_there(database, id) and database.status(interview) == "enhancing"


@pytest.mark.parametrize("answer, done", [("y\n", True), ("n\n", False), ("\n", False)])
def test_it_asks_on_a_terminal(promptctl, orphan, database, answer, done):
    id, interview = orphan()
    result = promptctl.on_terminal("stuck", "--fail", answer=answer)
    assert "Mark 1 stuck interview as failed? [y/N] " in result.out and "INTERVIEW ID" in result.out
    assert result.code == (0 if done else 1) and database.status(interview) == ("failed" if done else "enhancing")
    result = promptctl.on_terminal("orphans", "--delete", answer=answer)
    assert "Delete 1 orphaned prompt? [y/N] " in result.out and "PROMPT ID" in result.out
    assert result.code == (0 if done else 1) and is_there(database, id) != done


@pytest.mark.parametrize("command", ["orphans", "stuck"])
def test_view_is_missing(promptctl, database, command):
    database.execute(f"drop view promptd_{command}")
    result = promptctl(command)
    assert result.code == 78 and f"promptd_{command}" in result.err and "sql/03_views.sql" in result.err


@pytest.mark.parametrize("command", ["orphans", "stuck"])
def test_database_is_away(promptctl, database, command):
    assert promptctl(command, database_url="postgresql://127.0.0.1:1/x").code == 69
    assert promptctl(command, database_url=database.url() + "x").code == 78
    assert promptctl(command, database_url="host=localhost nonsense=1").code == 78
    assert promptctl(command, "extra").code == 64


def test_statement_that_takes_too_long(promptctl, database, postgres, orphan):
    orphan()
    with postgres.connect(database.name) as other:
        other.autocommit = False
        other.execute("lock table interviews")
        result = promptctl("orphans", statement_timeout_ms=200)
    assert result.code == 69 and "statement_timeout_ms" in result.err
