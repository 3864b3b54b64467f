# SPDX-License-Identifier: MIT
"""promptctl orphans and stuck: what they find, what they change, and what they never touch."""

import threading
import uuid

import pytest

from support.wait import wait_until

AWAITING = ["pending", "not_started", "enhancing", "vector_search", "web_scraping", "processing"]


@pytest.fixture
def prompt(database):
    """prompt(status or interview id, age in seconds) -> (prompt id, interview id)"""
    def store(status="enhancing", age=3600, interview=None):
        interview = interview or database.interview(status)
        id = str(uuid.uuid4())
        database.execute("insert into interview_enhanced_prompts (id, interview_id, prompt, source, created_at)"
                         " values (%s, %s, 'SECRET-PROMPT of the test', 'rag', now() - make_interval(secs => %s))",
                         [id, interview, age])
        return id, interview

    return store


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


def prompt_ids(database):
    return {str(id) for id, in database.rows("select id from interview_enhanced_prompts")}


# orphans


def test_orphans_are_those_whose_interview_is_neither_ready_nor_completed(promptctl, prompt, database):
    found = [prompt(status, 3600 - number)[0]
             for number, status in enumerate(["enhancing", "failed", "timeout", "cancelled"])]
    lost, interview = prompt("enhancing", 60000)
    database.execute("alter table interview_enhanced_prompts drop constraint"
                     " interview_enhanced_prompts_interview_id_fkey")
    database.execute("delete from interviews where id = %s", [interview])
    for status in ("ready", "completed"):
        prompt(status)
    prompt("enhancing", 200)
    result = promptctl("orphans")
    assert result.code == 1 and result.err == "" and first_words(result) == [lost, *found]
    assert "SECRET" not in result.out and f"{lost}  {interview}  - " in result.out
    listed = promptctl("orphans", "--json").json()
    assert [each["prompt_id"] for each in listed] == [lost, *found]
    assert [each["status"] for each in listed] == [None, "enhancing", "failed", "timeout", "cancelled"]
    assert set(listed[0]) == {"prompt_id", "interview_id", "status", "source", "created_at", "age_seconds"}
    assert 60000 <= listed[0]["age_seconds"] < 60100
    assert len(prompt_ids(database)) == 8


def test_no_orphans(promptctl, prompt):
    prompt("ready")
    result = promptctl("orphans")
    assert (result.code, result.out, result.err) == (0, "", "No orphaned prompts.\n")
    result = promptctl("orphans", "--json", "--delete", "--yes")
    assert result.code == 0 and result.json() == []


@pytest.mark.parametrize("age, count", [("0", 3), ("90", 2), ("90s", 2), ("5m", 1), ("1h", 1), ("2d", 0), (None, 1)])
def test_older_than(promptctl, prompt, age, count):
    for seconds in (10, 200, 90000):
        prompt("enhancing", seconds)
    result = promptctl("orphans", *([f"--older-than={age}"] if age else []))
    assert len(result.lines()) == count and result.code == (1 if count else 0)


@pytest.mark.parametrize("age", ["", "x", "-1", "5 m", "1w", "1h30m", "99999999999999999999"])
@pytest.mark.parametrize("command", ["orphans", "stuck"])
def test_bad_duration(promptctl, command, age):
    result = promptctl(command, f"--older-than={age}")
    assert result.code == 64 and "--older-than" in result.err


def test_delete(promptctl, prompt, database):
    doomed, young, kept = prompt("enhancing"), prompt("enhancing", 10), prompt("ready")
    result = promptctl("orphans", "--delete", "--yes")
    assert result.code == 0 and first_words(result) == [doomed[0]] and "1 of 1 deleted" in result.err
    assert prompt_ids(database) == {young[0], kept[0]} and database.status(doomed[1]) == "enhancing"


def test_delete_as_json(promptctl, prompt):
    doomed = prompt("failed")
    [each] = promptctl("orphans", "--delete", "--yes", "--json").json()
    assert each["prompt_id"] == doomed[0] and each["deleted"] is True


def test_another_ready_status_is_ready_too(promptctl, prompt, database):
    kept, doomed, shipped = prompt("prepared"), prompt("enhancing"), prompt("ready")
    assert promptctl("orphans").code == 1
    result = promptctl("orphans", "--delete", "--yes", ready_status="prepared")
    assert result.code == 0 and first_words(result) == [doomed[0]]
    assert prompt_ids(database) == {kept[0], shipped[0]}


@pytest.mark.parametrize("now", ["ready", "completed"])
def test_interview_gets_ready_while_its_orphan_is_deleted(promptctl, prompt, database, postgres, now):
    """It is an orphan when it is listed, and in the statement's own snapshot; the lock shows that it no longer is."""
    id, interview = prompt("enhancing")
    results = []
    with postgres.connect(database.name) as other:
        other.autocommit = False
        other.execute("update interviews set status = %s where id = %s", [now, interview])
        ctl = threading.Thread(target=lambda: results.append(promptctl("orphans", "--delete", "--yes")))
        ctl.start()
        wait_until(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                                          " and application_name = 'promptctl'"), "promptctl to wait for the lock")
        other.commit()
        ctl.join()
    assert results[0].code in (0, 1) and "0 of 1 deleted" in results[0].err and "left alone" in results[0].err
    assert prompt_ids(database) == {id} and database.status(interview) == now


def test_orphan_that_cannot_be_deleted_holds_up_no_other(promptctl, prompt, database):
    stays, goes = prompt("enhancing", 7200), prompt("enhancing", 3600)
    database.trigger("interview_enhanced_prompts", "delete", f"if old.id = '{stays[0]}' then raise 'kept'; end if;")
    result = promptctl("orphans", "--delete", "--yes")
    assert result.code != 0 and "kept" in result.err and stays[0] in result.err and "1 of 2 deleted" in result.err
    assert prompt_ids(database) == {stays[0]} and goes[0] in result.out


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


def test_status_may_be_an_enum(promptctl, prompt, aged, database, postgres):
    interview, id = aged("enhancing"), prompt("failed")[0]
    database.execute("drop view promptd_orphans, promptd_stuck; create type state as enum ('enhancing', 'failed');"
                     "alter table interviews alter status type state using status::state")
    with open(f"{postgres.sql_folder}/03_views.sql", encoding="utf-8") as views:
        database.execute(views.read())
    assert promptctl("orphans", "--delete", "--yes").code == promptctl("stuck", "--fail", "--yes").code == 0
    assert database.status(interview) == "failed" and id not in prompt_ids(database)


@pytest.mark.parametrize("command, option", [("orphans", "--delete"), ("stuck", "--fail")])
def test_without_a_terminal_it_needs_yes(promptctl, prompt, database, command, option):
    id, interview = prompt("enhancing")
    database.execute("update interviews set created_at = now() - interval '1 hour'")
    for stdin in ("", "y\n"):
        result = promptctl(command, option, stdin=stdin)
        assert result.code == 64 and "--yes" in result.err and result.out == ""
    assert promptctl(command, option, database_url="postgresql://127.0.0.1:1/x").code == 64
    assert prompt_ids(database) == {id} and database.status(interview) == "enhancing"


@pytest.mark.parametrize("answer, done", [("y\n", True), ("n\n", False), ("\n", False)])
def test_it_asks_on_a_terminal(promptctl, prompt, database, answer, done):
    id, interview = prompt("enhancing")
    database.execute("update interviews set created_at = now() - interval '1 hour'")
    result = promptctl.on_terminal("stuck", "--fail", answer=answer)
    assert "Mark 1 stuck interview as failed? [y/N] " in result.out and "INTERVIEW ID" in result.out
    assert result.code == (0 if done else 1) and database.status(interview) == ("failed" if done else "enhancing")
    result = promptctl.on_terminal("orphans", "--delete", answer=answer)
    assert "Delete 1 orphaned prompt? [y/N] " in result.out
    assert result.code == (0 if done else 1) and prompt_ids(database) == (set() if done else {id})


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


def test_statement_that_takes_too_long(promptctl, database, postgres, prompt):
    prompt("enhancing")
    with postgres.connect(database.name) as other:
        other.autocommit = False
        other.execute("lock table interviews")
        result = promptctl("orphans", statement_timeout_ms=200)
    assert result.code == 69 and "statement_timeout_ms" in result.err
