# SPDX-License-Identifier: MIT
"""promptctl orphans: it goes by promptd_unsettled, and with --scan by what the interview's newest status allows."""

import os
import threading
import time
import uuid

import pytest

from support.wait import wait_until

SQL_0_1 = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support/sql-0.1")
AWAITING = ["pending", "not_started", "enhancing", "vector_search", "web_scraping", "processing"]
IN_USE = ["ready", "in_progress", "completed", "timeout", "cancelled", "paused"]

DELETE = ("orphans", "--delete", "--yes")
SCAN_AND_DELETE = ("orphans", "--scan", "--delete", "--yes")


@pytest.fixture
def prompt(database):
    """prompt(status, age in seconds, unsettled) -> (prompt id, interview id)"""
    def store(status="enhancing", age=3600, unsettled=False):
        interview = database.interview(status)
        return database.add_old_prompt(interview, age, unsettled), interview

    return store


@pytest.fixture
def unsettled(prompt):
    return lambda status="enhancing", age=3600: prompt(status, age, True)


@pytest.fixture
def other(postgres, database):
    """Another session, in a transaction."""
    with postgres.connect(database.name) as connection:
        connection.autocommit = False
        yield connection
        connection.rollback()


def lose_interview(database, interview):
    database.execute("alter table interview_enhanced_prompts drop constraint if exists"
                     " interview_enhanced_prompts_interview_id_fkey")
    database.execute("delete from interviews where id = %s", [interview])


def first_words(result):
    return [line.split()[0] for line in result.lines()]


def prompt_ids(database):
    return {str(id) for id, in database.rows("select id from interview_enhanced_prompts")}


def evidence(database):
    return {str(id) for id, in database.rows("select prompt_id from promptd_unsettled")}


# What is found


def test_orphans_are_what_is_unsettled(promptctl, prompt, unsettled, database):
    """Whatever the interview's status; and nothing else, whatever its status."""
    found = [unsettled(status, 3600 - number)[0] for number, status in enumerate(["enhancing", "failed", *IN_USE])]
    lost, interview = unsettled("enhancing", 60000)
    lose_interview(database, interview)
    gone = str(uuid.uuid4())
    database.execute("insert into promptd_unsettled values (%s, %s, now() - interval '1 day')", [gone, interview])
    for status in ("ready", "enhancing", "failed", "in_progress"):
        prompt(status)
    unsettled("enhancing", 200)
    result = promptctl("orphans")
    assert result.code == 1 and result.err == "" and first_words(result) == [gone, lost, *found]
    assert "SECRET" not in result.out and f"{lost}  {interview}  - " in result.out
    listed = promptctl("orphans", "--json").json()
    assert [each["prompt_id"] for each in listed] == [gone, lost, *found]
    assert [each["status"] for each in listed] == [None, None, "enhancing", "failed", *IN_USE]
    assert set(listed[0]) == {"prompt_id", "interview_id", "status", "source", "created_at", "age_seconds"}
    assert 60000 <= listed[1]["age_seconds"] < 60100 and listed[0]["source"] is None


def test_no_orphans(promptctl, prompt):
    prompt("ready")
    for arguments in ([], ["--scan"]):
        result = promptctl("orphans", *arguments)
        assert (result.code, result.out, result.err) == (0, "", "No orphaned prompts.\n")
        result = promptctl("orphans", "--json", "--delete", "--yes", *arguments)
        assert result.code == 0 and result.json() == []


@pytest.mark.parametrize("age, count", [("0", 3), ("90", 2), ("90s", 2), ("5m", 1), ("1h", 1), ("2d", 0), (None, 1)])
def test_older_than(promptctl, prompt, unsettled, age, count):
    for seconds in (10, 200, 90000):
        prompt("enhancing", seconds)
        unsettled("enhancing", seconds)
    arguments = [f"--older-than={age}"] if age else []
    result = promptctl("orphans", *arguments)
    assert len(result.lines()) == count and result.code == (1 if count else 0)
    assert len(promptctl("orphans", "--scan", *arguments).lines()) == 2 * count


@pytest.mark.parametrize("settings, found", [
    ({}, ["failed", *AWAITING]),
    ({"awaiting_statuses": "*"}, ["failed"]),
    ({"awaiting_statuses": "enhancing,queued"}, ["enhancing", "queued", "failed"]),
    ({"awaiting_statuses": "enhancing", "failed_status": "broken", "ready_status": "prepared"}, ["enhancing", "broken"]),
], ids=["shipped", "any", "listed", "others"])
def test_scan_leaves_alone_what_may_be_in_use(promptctl, prompt, unsettled, database, settings, found):
    """An interview in a status that is neither awaiting nor failed has been moved on by the application."""
    prompts = {status: prompt(status)[0] for status in ["failed", "broken", "prepared", "queued", *AWAITING, *IN_USE]}
    lost, interview = prompt("completed")
    lose_interview(database, interview)
    known = unsettled("in_progress", 7200)[0]
    listed = promptctl("orphans", "--scan", "--json", **settings).json()
    assert {each["prompt_id"]: each["found_by"] for each in listed} == \
        {known: "unsettled", lost: "scan", **{prompts[status]: "scan" for status in found}}
    before = prompt_ids(database)
    result = promptctl(*SCAN_AND_DELETE, **settings)
    assert result.code == 0 and f"{len(listed)} of {len(listed)} deleted" in result.err
    assert before - prompt_ids(database) == {known, lost, *(prompts[status] for status in found)}
    assert evidence(database) == set() and promptctl("orphans", "--scan", **settings).code == 0


def test_database_of_0_1(promptctl, database, postgres, prompt):
    """Its view of that name goes by the status: nothing may be deleted by it."""
    prompt("in_progress")
    database.execute("drop view promptd_orphans, promptd_stuck; drop table promptd_unsettled")
    postgres.apply_sql(database.name, SQL_0_1)
    for arguments in (["orphans"], ["orphans", "--scan"], DELETE, SCAN_AND_DELETE):
        result = promptctl(*arguments)
        assert result.code == 78 and "promptd_unsettled" in result.err and "sql/01_schema.sql" in result.err
    with open(f"{postgres.sql_folder}/01_schema.sql", encoding="utf-8") as schema:
        database.execute(schema.read())
    database.execute("grant select on promptd_unsettled to promptd")
    assert promptctl("orphans").code == 0 and len(prompt_ids(database)) == 1


# What is deleted


def test_delete(promptctl, prompt, unsettled, database):
    doomed, young, kept = unsettled("in_progress"), unsettled("enhancing", 10), prompt("enhancing")
    result = promptctl(*DELETE)
    assert result.code == 0 and first_words(result) == [doomed[0]] and "1 of 1 deleted" in result.err
    assert prompt_ids(database) == {young[0], kept[0]} and evidence(database) == {young[0]}
    assert database.status(doomed[1]) == "in_progress"


@pytest.mark.parametrize("settings, status, after", [
    ({}, "enhancing", "failed"), ({}, "pending", "failed"), ({}, "failed", "failed"), ({}, "ready", "ready"),
    ({}, "completed", "completed"), ({}, "something_else", "something_else"),
    ({"awaiting_statuses": "waiting", "failed_status": "broken"}, "waiting", "broken"),
    ({"awaiting_statuses": "waiting", "failed_status": "broken"}, "enhancing", "enhancing"),
    ({"awaiting_statuses": "*"}, "something_else", "failed"), ({"awaiting_statuses": "*"}, "ready", "ready")], ids=str)
def test_interview_that_waits_is_failed_then(promptctl, unsettled, database, settings, status, after):
    _, interview = unsettled(status)
    assert promptctl(*DELETE, **settings).code == 0
    assert database.status(interview) == after and evidence(database) == set()


def test_scanned_prompt_leaves_its_interview_alone(promptctl, prompt, database):
    _, interview = prompt("enhancing")
    assert promptctl(*SCAN_AND_DELETE).code == 0 and prompt_ids(database) == set()
    assert database.status(interview) == "enhancing"


def test_prompt_stays_where_its_interview_cannot_be_marked(promptctl, unsettled, database, other):
    """It would wait for ever, and nothing would name it. The next one is dealt with."""
    raises, keeps, restores, locked, works = stay = [unsettled("enhancing", 7200 - age) for age in range(5)]
    stay.remove(works)
    database.trigger("interviews", "update", f"if old.id = '{raises[1]}' then raise 'never failed'; end if;"
                     f" if old.id = '{keeps[1]}' then return null; end if; new.status := old.status;",
                     when=f"old.id in ('{raises[1]}', '{keeps[1]}', '{restores[1]}')")
    other.execute("select from interviews where id = %s for update", [locked[1]])
    result = promptctl(*DELETE)
    assert result.code == 78 and "1 of 5 deleted" in result.err and "never failed" in result.err
    assert f"{locked[0]}: left alone, somebody else has it locked" in result.err
    assert result.err.count("no error, and nothing was changed") == 2
    assert [id in result.err for id, _ in (*stay, works)] == [True, True, True, True, False]
    assert prompt_ids(database) == evidence(database) == {id for id, _ in stay}
    assert {database.status(interview) for _, interview in stay} == {"enhancing"}
    assert database.status(works[1]) == "failed"


def test_interview_that_is_locked_for_a_moment_is_waited_for(promptctl, unsettled, database, other):
    _, interview = unsettled("enhancing")
    other.execute("select from interviews where id = %s for update", [interview])
    results = []
    ctl = threading.Thread(target=lambda: results.append(promptctl(*DELETE)))
    ctl.start()
    wait_until(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                                      " and datname = current_database()"), "promptctl to wait for the lock")
    other.rollback()
    ctl.join()
    assert results[0].code == 0 and "1 of 1 deleted" in results[0].err
    assert database.status(interview) == "failed" and evidence(database) == set()


@pytest.mark.parametrize("arguments", [DELETE, SCAN_AND_DELETE])
def test_delete_as_json(promptctl, unsettled, arguments):
    doomed = unsettled("failed")
    [each] = promptctl(*arguments, "--json").json()
    assert each["prompt_id"] == doomed[0] and each["deleted"] is True


def test_evidence_without_a_prompt_goes_too(promptctl, unsettled, database):
    id, _ = unsettled()
    database.execute("delete from interview_enhanced_prompts where id = %s", [id])
    assert promptctl(*DELETE).code == 0 and evidence(database) == set()


@pytest.mark.parametrize("event, body, words", [
    ("delete", "raise 'kept';", "kept"), ("delete", "return null;", "no error, and nothing was changed")])
@pytest.mark.parametrize("arguments", [DELETE, SCAN_AND_DELETE])
def test_orphan_that_cannot_be_deleted_holds_up_no_other(promptctl, prompt, database, event, body, words, arguments):
    has_evidence = arguments is DELETE
    stays, goes = prompt("enhancing", 7200, has_evidence), prompt("enhancing", 3600, has_evidence)
    database.trigger("interview_enhanced_prompts", event, body, when=f"old.id = '{stays[0]}'")
    result = promptctl(*arguments)
    assert result.code == 78 and words in result.err and stays[0] in result.err and "1 of 2 deleted" in result.err
    assert prompt_ids(database) == {stays[0]} and goes[0] in result.out
    assert evidence(database) == ({stays[0]} if has_evidence else set())


# Beside others who are at work


def settle(database, id, interview):
    database.execute("update interviews set status = 'ready' where id = %s", [interview])
    database.execute("delete from promptd_unsettled where prompt_id = %s", [id])


@pytest.mark.parametrize("now", ["ready", "in_progress"])
def test_prompt_is_settled_while_it_asks(promptctl, unsettled, database, now):
    id, interview = unsettled()

    def meanwhile():
        settle(database, id, interview)
        database.execute("update interviews set status = %s where id = %s", [now, interview])

    result = promptctl.on_terminal("orphans", "--delete", answer="y\n", meanwhile=meanwhile)
    assert result.code == 0 and "0 of 1 deleted" in result.out and "1 had changed meanwhile" in result.out
    assert prompt_ids(database) == {id} and database.status(interview) == now


@pytest.mark.parametrize("now", IN_USE)
def test_application_moves_the_interview_on_while_it_asks(promptctl, prompt, database, now):
    id, interview = prompt("failed")
    result = promptctl.on_terminal("orphans", "--scan", "--delete", answer="y\n", meanwhile=lambda: database.execute(
        "update interviews set status = %s where id = %s", [now, interview]))
    assert result.code == 0 and "0 of 1 deleted" in result.out and "1 had changed meanwhile" in result.out
    assert prompt_ids(database) == {id} and database.status(interview) == now


def test_scanned_prompt_gets_evidence_while_it_asks(promptctl, prompt, database):
    """It is another one of the same id then, and promptd's business."""
    id, interview = prompt("enhancing")
    result = promptctl.on_terminal("orphans", "--scan", "--delete", answer="y\n", meanwhile=lambda: database.execute(
        "insert into promptd_unsettled values (%s, %s)", [id, interview]))
    assert result.code == 0 and "0 of 1 deleted" in result.out and prompt_ids(database) == evidence(database) == {id}


def test_interview_comes_back_while_it_asks(promptctl, prompt, database):
    id, interview = prompt("enhancing")
    lose_interview(database, interview)
    result = promptctl.on_terminal("orphans", "--scan", "--delete", answer="y\n", meanwhile=lambda: database.execute(
        "insert into interviews values (%s, 'in_progress')", [interview]))
    assert result.code == 0 and "0 of 1 deleted" in result.out and prompt_ids(database) == {id}


@pytest.fixture
def left_alone(promptctl, postgres):
    """left_alone(arguments, id, waits): of two prompts this one is, within a short wait or without any."""
    def expect(arguments, id, waits):
        with open(postgres.log_path, encoding="utf-8") as log:
            log.seek(0, os.SEEK_END)
            started = time.monotonic()
            result = promptctl(*arguments)
            assert time.monotonic() - started < 8  # statement_timeout_ms is 10 s
            assert log.read().count("due to lock timeout") == waits  # it is waited for once
        assert result.code == 1 and f"{id}: left alone, somebody else has it locked" in result.err
        assert "1 of 2 deleted" in result.err

    return expect


@pytest.mark.parametrize("lock, waits", [
    ("select from promptd_unsettled where prompt_id = '{id}' for update", False),
    ("delete from promptd_unsettled where prompt_id = '{id}'", False),
    ("select from interview_enhanced_prompts where id = '{id}' for update", True),
])
def test_locked_evidence_is_left_alone(promptctl, unsettled, database, other, left_alone, lock, waits):
    (id, _), _ = unsettled("enhancing", 7200), unsettled("enhancing")
    other.execute(lock.format(id=id))
    left_alone(DELETE, id, waits)
    assert prompt_ids(database) == evidence(database) == {id}
    other.rollback()
    assert promptctl(*DELETE).code == 0 and prompt_ids(database) == evidence(database) == set()


@pytest.mark.parametrize("lock, waits", [
    ("select from interviews where id = '{interview}' for update", False),
    ("select from interviews where id = '{interview}' for no key update", False),
    ("update interviews set status = 'in_progress' where id = '{interview}'", False),
    ("select from interview_enhanced_prompts where id = '{id}' for update", True),
])
def test_locked_interview_is_left_alone(promptctl, prompt, database, other, left_alone, lock, waits):
    (id, interview), _ = prompt("failed", 7200), prompt("failed")
    other.execute(lock.format(id=id, interview=interview))
    left_alone(SCAN_AND_DELETE, id, waits)
    assert prompt_ids(database) == {id}
    other.commit()
    result = promptctl(*SCAN_AND_DELETE)
    moved_on = database.status(interview) == "in_progress"
    assert result.code == 0 and prompt_ids(database) == ({id} if moved_on else set())


def test_somebody_else_deletes_both(promptctl, unsettled, database, other):
    id, _ = unsettled()
    other.execute("delete from interview_enhanced_prompts; delete from promptd_unsettled")
    assert promptctl(*DELETE).code == 1
    other.commit()
    assert promptctl(*DELETE).code == 0 and id not in prompt_ids(database)


@pytest.mark.parametrize("arguments", [DELETE, SCAN_AND_DELETE])
def test_what_a_statement_could_not_delete_is_tried_once_more(promptctl, prompt, database, arguments):
    """It may not have seen what somebody else was doing."""
    prompt("enhancing", 3600, arguments is DELETE)
    database.execute("create sequence tries")
    database.trigger("interview_enhanced_prompts", "delete", "if nextval('tries') = 1 then return null; end if;")
    result = promptctl(*arguments)
    assert result.code == 0 and "1 of 1 deleted" in result.err and prompt_ids(database) == set()


# In the middle of a statement: it has its snapshot, and has locked nothing yet


@pytest.fixture
def within(promptctl, database):
    """within(arguments, table, act): promptctl's first statement that looks at a row of the table, once it has asked, is
    held up there while act() runs."""
    def run(arguments, table, act):
        def hold_up():
            database.execute(f"""
                create sequence reached; create sequence go;
                create function hold_up() returns boolean language plpgsql security definer as $$ begin
                    while not (select is_called from go) loop
                        perform nextval('reached'), pg_sleep(0.01);
                    end loop;
                    return true;
                end $$;
                create policy anything on {table} using (true);
                create policy hold_up on {table} as restrictive for select using (hold_up());
                alter table {table} enable row level security""")
            actor.start()

        def act_and_go():
            wait_until(lambda: database.value("select is_called from reached"), "the statement to be held up")
            act()
            database.execute("select nextval('go')")

        actor = threading.Thread(target=act_and_go)
        result = promptctl.on_terminal(*arguments, answer="y\n", meanwhile=hold_up)
        actor.join()
        return result

    return run


def test_interview_moves_on_within_the_statement(within, prompt, database):
    """Its snapshot says that the interview is failed, the row itself that it runs."""
    id, interview = prompt("failed")
    result = within(["orphans", "--scan", "--delete"], "interviews", lambda: database.execute(
        "update interviews set status = 'in_progress' where id = %s", [interview]))
    assert "0 of 1 deleted" in result.out and "1 had changed meanwhile" in result.out and prompt_ids(database) == {id}


def test_prompt_is_given_to_another_interview_within_the_statement(within, prompt, database):
    (id, _), runs = prompt("failed"), database.interview("in_progress")
    result = within(["orphans", "--scan", "--delete"], "interviews", lambda: database.execute(
        "update interview_enhanced_prompts set interview_id = %s where id = %s", [runs, id]))
    assert "0 of 1 deleted" in result.out and "1 had changed meanwhile" in result.out and prompt_ids(database) == {id}


def test_prompt_is_settled_within_the_statement(within, unsettled, database):
    id, interview = unsettled()
    result = within(["orphans", "--delete"], "promptd_unsettled", lambda: settle(database, id, interview))
    assert "0 of 1 deleted" in result.out and "1 had changed meanwhile" in result.out and prompt_ids(database) == {id}


def test_prompt_is_inserted_again_within_the_statement(within, unsettled, database):
    """The evidence is another one than in the snapshot, which does not see its prompt: they may go only together."""
    id, interview = unsettled()
    database.execute("delete from interview_enhanced_prompts")

    def insert():
        database.execute("insert into interview_enhanced_prompts (id, interview_id) values (%s, %s)", [id, interview])
        database.execute("update promptd_unsettled set inserted_at = now()")

    result = within(["orphans", "--delete"], "promptd_unsettled", insert)
    assert "1 of 1 deleted" in result.out and prompt_ids(database) == evidence(database) == set()


def test_nobody_settles_what_is_being_deleted(promptctl, unsettled, database, other):
    id, interview = unsettled()
    database.execute("create sequence reached; create sequence go")
    database.trigger("interview_enhanced_prompts", "delete", """
        while not (select is_called from go) loop
            perform nextval('reached'), pg_sleep(0.01);
        end loop;""")
    results = []
    ctl = threading.Thread(target=lambda: results.append(promptctl(*DELETE)))
    ctl.start()
    wait_until(lambda: database.value("select is_called from reached"), "the deletion to be held up")
    assert other.execute("select from promptd_unsettled for update skip locked").fetchall() == []
    database.execute("select nextval('go')")
    ctl.join()
    assert results[0].code == 0 and prompt_ids(database) == evidence(database) == set()


def test_a_server_cannot_speak_to_the_terminal(promptctl, database):
    database.execute("""
        create function shout() returns uuid language plpgsql as $$ begin raise exception E'bad \\x1b[31mnews'; end $$;
        create or replace view promptd_orphans as select shout() as prompt_id, null::uuid as interview_id,
            ''::text as status, ''::text as source, now() as created_at, interval '1 hour' as age""")
    result = promptctl("orphans")
    assert result.code != 0 and "\x1b" not in result.err and "news" in result.err
