# SPDX-License-Identifier: MIT
"""Tables that are not as sql/ makes them: what promptctl check and the daemon say, and what works all the same."""

import pytest

from support.expect import expect_nothing_stored, expect_stored
from support.postgres import ROLE
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"
DROP_VIEWS = "drop view promptd_orphans, promptd_stuck;"
ONLY_SELECT = f"create policy shown on interviews for select to {ROLE} using (true);"


def row_security(table):
    return f"alter table {table} enable row level security;"


# What is wrong: what is done to the tables, what is said of it, and whether messages wait for it.
FAULTS = {
    "no policy on interviews": (row_security("interviews"), ["row level security", "interviews", "select, update", "02_role.sql"]),
    "a policy for select only": (row_security("interviews") + ONLY_SELECT, ["row level security", f"lets role {ROLE} update"]),
    "a policy for another role": (row_security("interviews") + "create policy own on interviews to postgres using (true)",
                                  ["row level security", "select, update"]),
    "no policy on prompts": (row_security(PROMPTS), ["row level security", PROMPTS, "delete, insert, select"]),
    "no policy on the evidence": (row_security("promptd_unsettled"), ["row level security", "promptd_unsettled", "delete, insert"]),
    "interviews without an index": ("alter table interviews drop constraint interviews_pkey cascade",
                                    ["interviews.id has no index", "add primary key"]),
    "prompts without a key": (f"alter table {PROMPTS} drop constraint {PROMPTS}_pkey", [f"{PROMPTS}.id has no unique index"]),
    "a key for a part of the prompts": (f"alter table {PROMPTS} drop constraint {PROMPTS}_pkey;"
                                        f"create unique index on {PROMPTS} (id) where source = 'rag'", ["no unique index"]),
    "evidence without a key": ("alter table promptd_unsettled drop constraint promptd_unsettled_pkey",
                               ["promptd_unsettled.prompt_id has no unique index"]),
    "no USAGE": ("create schema app; alter table interviews set schema app",
                 ["app.interviews exists", "no USAGE on schema app", 'search_path is "$user", public']),
    "another schema": (f"create schema app; grant usage on schema app to {ROLE}; alter table {PROMPTS} set schema app",
                       [f"app.{PROMPTS} exists", 'search_path is "$user", public', "sql/README.md"]),
    "ids of type text": (DROP_VIEWS + "alter table interviews drop constraint interviews_pkey cascade;"
                         "alter table interviews alter id type text, add primary key (id)",
                         ["interviews.id has type text instead of uuid", "sql/README.md"]),
    "a short prompt": (DROP_VIEWS + f"alter table {PROMPTS} alter prompt type varchar(49999)",
                       ["character varying(49999)", "50000 characters (prompt_max_chars)"]),
    "a short prompt's domain": (DROP_VIEWS + f"create domain short as varchar(20); alter table {PROMPTS} alter prompt type short",
                                ["has type short", "50000 characters"]),
    "a padded prompt": (DROP_VIEWS + f"alter table {PROMPTS} alter prompt type char(60000)", ["instead of text"]),
    "a short status": (DROP_VIEWS + "alter table interviews alter status type varchar(5) using left(status, 5)",
                       ["interviews.status", "6 characters"]),
    "a short source": (DROP_VIEWS + f"alter table {PROMPTS} alter source type varchar(10)", [f"{PROMPTS}.source", "13 characters"]),
    "a status that is a number": (DROP_VIEWS + "alter table interviews alter status type int using 1",
                                  ["interviews.status has type integer instead of text, varchar or an enum"]),
    "a domain over an enum": (DROP_VIEWS + "create type state as enum ('enhancing', 'ready', 'failed'); create domain states as"
                              " state; alter table interviews alter status type states using status::state",
                              ["interviews.status is a domain over an enum", "state"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_names_it(promptctl, database, fault):
    sql, words = FAULTS[fault]
    database.interview()
    database.execute(sql)
    result = promptctl("check", "--json")
    failed = [step for step in result.json() if step["result"] == "failed"]
    assert result.code == 78 and [step["step"] for step in failed] == ["database_tables"], failed
    for word in words:
        assert word in failed[0]["detail"]
    assert {step["result"] for step in result.json()[-5:]} == {"skipped"}
    database.execute("truncate interviews cascade" if fault != "no USAGE" else "truncate app.interviews cascade")
    assert promptctl("check").code == 78


@pytest.mark.parametrize("fault", ["a policy for select only", "prompts without a key", "another schema", "a short prompt"])
def test_the_daemon_says_it_once(start_promptd, database, fault):
    sql, words = FAULTS[fault]
    database.execute(sql)
    promptd = start_promptd(ready=False, heartbeat_interval_s=1, db_connections=2)
    promptd.wait_line("CRITICAL", "database set up wrong", *words[:1])
    database.wait_sessions(2)
    line = promptd.one("CRITICAL", "database set up wrong")
    for word in words:
        assert word in line.text


def test_what_is_still_wrong_is_not_said_again(start_promptd, database):
    """One thing is fixed, another breaks, a third stays as it is."""
    database.execute(f"revoke delete on {PROMPTS} from promptd; revoke insert on {PROMPTS} from promptd")
    promptd = start_promptd(ready=False, heartbeat_interval_s=1)
    promptd.wait_line("CRITICAL", "may not delete on")
    database.execute(f"grant insert on {PROMPTS} to promptd; revoke update on interviews from promptd")
    promptd.wait_line("CRITICAL", "may not update")
    promptd.one("CRITICAL", "may not delete on")
    database.execute(f"grant delete on {PROMPTS} to promptd; grant update (status) on interviews to promptd")
    promptd.wait_line("INFO", "database set up right")


def test_row_security_that_is_fixed(start_promptd, database, postgres):
    database.execute(row_security("interviews"))
    promptd = start_promptd(ready=False, heartbeat_interval_s=1)
    promptd.wait_line("CRITICAL", "row level security")
    postgres.apply_sql(database.name)
    promptd.wait_line("INFO", "database set up right")


def test_row_security_that_comes_later(start_promptd, database):
    """Nothing fails by it: interviews are just not there any more."""
    promptd = start_promptd(heartbeat_interval_s=1)
    database.execute(row_security("interviews"))
    promptd.wait_line("CRITICAL", "row level security is on for table interviews", timeout=30)


def test_tables_that_come_later(start_promptd, database, channel):
    """Without a restart and without a message."""
    database.execute(f"alter table interviews rename to away; alter table {PROMPTS} rename to prompts_away")
    promptd = start_promptd(ready=False, heartbeat_interval_s=1)
    promptd.wait_line("CRITICAL", "table interviews is missing")
    database.execute(f"alter table away rename to interviews; alter table prompts_away rename to {PROMPTS}")
    promptd.wait_line("INFO", "database set up right")
    message = channel.publish(database.interview())
    promptd.settle(1)
    expect_stored(database, message)


def test_policies_that_show_nothing(promptctl, database):
    database.interviews(3)
    database.execute(row_security("interviews") + f"create policy none on interviews to {ROLE} using (false); analyze interviews")
    result = promptctl("check", "--json")
    [failed] = [step for step in result.json() if step["result"] == "failed"]
    assert result.code == 78 and failed["step"] == "insert_prompt"
    assert "row level security shows promptd no interview of about 3" in failed["detail"]


# What works

WORKING = {
    "varchar": (f"alter table {PROMPTS} alter prompt type varchar, alter source type varchar(13);"
                "alter table interviews alter status type varchar(20)"),
    "long varchar": f"alter table {PROMPTS} alter prompt type varchar(50000)",
    "domains": ("create domain long_text as text check (value <> ''); create domain word as varchar(20);"
                f"alter table {PROMPTS} alter prompt type long_text, alter source type word;"
                "alter table interviews alter status type word"),
    "domains of ids": (f"create domain key as uuid; alter table {PROMPTS} drop constraint {PROMPTS}_interview_id_fkey;"
                       f"alter table interviews alter id type key; alter table {PROMPTS} alter id type key,"
                       " alter interview_id type key"),
    "a source that is a domain over an enum": (
        "create type origin as enum ('rag', 'existing_data', 'new_data', 'fallback'); create domain origins as origin;"
        f"alter table {PROMPTS} alter source type origins using source::origin"),
    "another unique index": f"alter table {PROMPTS} drop constraint {PROMPTS}_pkey; create unique index on {PROMPTS} (id)",
}


@pytest.mark.parametrize("types", WORKING)
def test_what_works_is_no_fault(start_promptd, atomicity, promptctl, database, postgres, channel, types):
    database.execute(DROP_VIEWS + WORKING[types])
    postgres.apply_sql(database.name)
    database.interview()
    result = promptctl("check", "--json", atomicity=atomicity)
    assert result.code == 0 and {step["result"] for step in result.json()} == {"ok"}, result.out
    promptd = start_promptd(atomicity=atomicity)
    alone = channel.publish(database.interview())
    promptd.settle(1)
    messages = [channel.message(interview) for interview in database.interviews(20)]
    channel.publish_burst(messages)
    assert promptd.settle(21).outcomes() == {"success": 21}
    expect_stored(database, alone, *messages)


def test_ids_of_type_text(start_promptd, atomicity, promptctl, database, postgres, channel):
    """As sql/README.md has it: a view with casts, in a schema of its own."""
    interview = database.interview()
    database.execute(f"""{DROP_VIEWS} drop table {PROMPTS}, promptd_unsettled;
        alter table interviews drop constraint interviews_pkey;
        alter table interviews alter id type text, add primary key (id);
        create unique index on interviews ((id::uuid));
        create schema for_promptd;
        create view for_promptd.interviews as select id::uuid as id, status, created_at from public.interviews;
        alter role {ROLE} in database {database.name} set search_path = for_promptd;
        alter database {database.name} set search_path = for_promptd""")
    postgres.apply_sql(database.name)
    database.reconnect()
    assert promptctl("check", atomicity=atomicity).code == 0
    promptd = start_promptd(atomicity=atomicity)
    message = channel.publish(interview)
    promptd.settle(1)
    expect_stored(database, message)
    assert database.value("select status from public.interviews where id = %s", [interview]) == "ready"
    assert promptctl("stuck").code == promptctl("orphans").code == 0


# A trigger that takes the id away

REPLACE_ID = "new.id = gen_random_uuid();"


@pytest.mark.parametrize("atomicity", ["compensate", "transaction"])
def test_check_finds_an_id_that_is_replaced(promptctl, database, atomicity):
    database.interview()
    database.trigger(PROMPTS, "insert", REPLACE_ID)
    result = promptctl("check", "--json", atomicity=atomicity)
    failed = [step for step in result.json() if step["result"] == "failed"]
    assert result.code == 78 and {step["step"] for step in failed} == {"insert_prompt"}
    assert "another id than promptd's" in failed[0]["detail"]


def test_an_id_that_is_replaced_is_not_stored(promptd, database, channel):
    """Nor left behind, nor inserted again; and it costs no other message its own."""
    alone, *bad = database.interviews(4)
    database.trigger(PROMPTS, "insert", REPLACE_ID, when=f"new.interview_id in ('{alone}', '{bad[0]}', '{bad[1]}', '{bad[2]}')")
    channel.publish(alone)
    promptd.settle(1)
    assert promptd.one("ERROR", alone).fields["error"] == "a trigger or a rule has given the prompt another id"
    messages = [channel.message(interview) for interview in [*bad, *database.interviews(20)]]
    channel.publish_burst(messages)
    assert promptd.settle(24).outcomes() == {"success": 20, "failure": 4}
    expect_stored(database, *messages[3:])
    for interview in (alone, *bad):
        expect_nothing_stored(database, interview, "failed")


# awaiting_statuses


@pytest.mark.parametrize("awaiting, missing", [
    ('["pending","enhancing"]', '["pending", "enhancing"]'), ("enhancing,queud", "queud"), ("pending,queued", "pending, queued"),
    ("enhancing", None), (None, None),
])
@pytest.mark.parametrize("analysed", [False, True])
def test_awaiting_statuses_that_no_interview_has(promptctl, database, awaiting, missing, analysed):
    database.interview("enhancing")
    database.interview("completed")
    if analysed:
        database.execute("analyze interviews")
    result = promptctl("check", "--json", awaiting_statuses=awaiting)
    [step] = [step for step in result.json() if step["step"] == "awaiting_statuses"]
    assert result.code == 0 and step["result"] == ("note" if missing else "ok")
    if missing:
        assert f"no interview of 2 that were looked at has the status {missing};" in step["detail"]
        assert "completed, enhancing" in step["detail"]


def test_shipped_statuses_that_no_interview_has(promptctl, database):
    database.interview("completed")
    [step] = [step for step in promptctl("check", "--json").json() if step["step"] == "awaiting_statuses"]
    assert step["result"] == "note"


# A created_at that does not say when


@pytest.fixture
def zoneless(database, postgres):
    """The server's zone is ahead of the one in which the application writes."""
    database.execute(f"""{DROP_VIEWS} alter table interviews alter created_at type timestamp;
        alter table {PROMPTS} alter created_at type timestamp;
        alter database {database.name} set timezone = 'Asia/Kolkata'""")
    postgres.apply_sql(database.name)
    interview = database.interview()
    database.execute("update interviews set created_at = (now() - interval '10 minutes') at time zone 'utc'")
    prompt = database.add_old_prompt(database.interview("failed"))
    database.execute(f"update {PROMPTS} set created_at = now() at time zone 'utc'")
    return interview, prompt


def test_zoneless_ages_change_nothing(promptctl, database, zoneless):
    interview, _ = zoneless
    result = promptctl("stuck", "--fail", "--yes", "--older-than=1h")
    assert result.code == 78 and "interviews.created_at has no time zone" in result.err and f"alter role {ROLE}" in result.err
    assert database.status(interview) == "enhancing"
    result = promptctl("orphans", "--scan", "--delete", "--yes", "--older-than=1h")
    assert result.code == 78 and f"{PROMPTS}.created_at has no time zone" in result.err and database.prompt_count() == 1
    listed = promptctl("stuck", "--json", "--older-than=1h")
    assert "is read in Asia/Kolkata" in listed.err and listed.json()[0]["age_seconds"] > 5 * 3600
    check = promptctl("check", "--json")
    notes = [step["detail"] for step in check.json() if step["result"] == "note"]
    assert check.code == 0 and len(notes) == 2 and "stuck --fail refuses" in notes[0] and "--scan --delete refuses" in notes[1]


def test_zoneless_ages_in_the_zone_that_is_said(promptctl, database, zoneless):
    interview, _ = zoneless
    database.execute(f"alter role {ROLE} in database {database.name} set timezone = 'UTC'")
    environment = {"PGTZ": "America/New_York"}
    assert promptctl("stuck", "--older-than=1h", extra=environment).code == 0
    assert promptctl("orphans", "--scan", "--delete", "--yes", "--older-than=1h", extra=environment).code == 0
    assert database.prompt_count() == 1 and promptctl("check").out.count("!  ") == 0
    [stuck] = promptctl("stuck", "--json", extra=environment).json()
    assert stuck["interview_id"] == interview and 600 <= stuck["age_seconds"] < 660
    assert promptctl("stuck", "--fail", "--yes").code == 0 and database.status(interview) == "failed"


# Large tables

MANY = 120000


@pytest.fixture
def large(database):
    database.execute(f"""insert into interviews (id, status, created_at)
                         select gen_random_uuid(), 'completed', now() - interval '1 day' from generate_series(1, {MANY})""")
    database.execute("vacuum analyze interviews")
    return database


def views_note(promptctl):
    notes = [step["detail"] for step in promptctl("check", "--json").json()
             if step["step"] == "database_views" and step["result"] == "note"]
    return notes[0] if notes else None


def scans_of_interviews(database):
    """Each session adds its own to the figure when it ends, which is a moment after its client has ended."""
    others = """select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and backend_type = 'client backend'"""
    wait_until(lambda: database.value(others) == 0, "all other sessions to end")
    if database.value("show server_version_num") >= "150000":
        database.execute("select pg_stat_force_next_flush()")
    return database.value("select seq_scan from pg_stat_user_tables where relname = 'interviews'")


@pytest.mark.parametrize("types", ["", "varchar(20)", "state"])
def test_index_of_stuck(promptctl, large, postgres, types):
    if types:
        large.execute(f"{DROP_VIEWS} create type state as enum ('enhancing', 'completed', 'failed', 'ready');"
                      f"alter table interviews alter status type {types} using status::{types}")
        postgres.apply_sql(large.name)
        large.execute("analyze interviews")
    assert "sql/04_indexes.sql" in views_note(promptctl)
    for _ in range(2):
        postgres.apply_file(large.name, "04_indexes.sql")
    large.execute("analyze interviews")
    assert views_note(promptctl) is None
    waits = large.interview()
    large.execute("update interviews set created_at = now() - interval '1 hour' where id = %s", [waits])
    large.add_old_prompt(waits, unsettled=True)
    before = scans_of_interviews(large)
    assert [each["interview_id"] for each in promptctl("stuck", "--json").json()] == [waits]
    assert [each["interview_id"] for each in promptctl("orphans", "--json").json()] == [waits]
    assert scans_of_interviews(large) == before


def test_awaiting_statuses_of_a_large_table(promptctl, large):
    """A sample without them proves nothing of the shipped ones; those that somebody has written down are named."""
    for awaiting, result in ((None, "not_tried"), ("queued", "note"), ("completed", "ok")):
        [step] = [step for step in promptctl("check", "--json", awaiting_statuses=awaiting).json()
                  if step["step"] == "awaiting_statuses"]
        assert step["result"] == result, step


def test_index_of_other_statuses(promptctl, large, postgres):
    postgres.apply_file(large.name, "04_indexes.sql")
    postgres.apply_file(large.name, "04_indexes.sql", awaiting="queued,it's")
    assert large.value("select count(*) from pg_indexes where tablename = 'interviews'") == 2
    large.execute("update interviews set status = 'queued' where id in (select id from interviews limit 3); analyze interviews")
    assert "sql/04_indexes.sql" in views_note(promptctl)
    check = promptctl("check", "--json", awaiting_statuses="queued,failed").json()
    assert [step["result"] for step in check if step["step"] == "database_views"] == ["ok"]
