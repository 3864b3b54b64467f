# SPDX-License-Identifier: MIT
"""promptctl check: each step of the dry run, on good and on broken set-ups; and nothing is changed by it."""

import os

import pytest
import redis

from support.events import Listener
from support.postgres import PASSWORD_ROLE, ROLE
from support.wait import wait_until

STEPS = ["redis_connection", "redis_login", "redis_listeners", "redis_subscribe", "database_connection",
         "database_writes", "database_tables", "database_views", "awaiting_statuses", "insert_prompt", "ready_status",
         "failed_status", "delete_prompt"]


@pytest.fixture
def check(promptctl, database):
    """check(**settings) -> (exit code, {step: result}, {step: details}), on a database with an interview."""
    interview = database.interview()

    def run(**settings):
        result = promptctl("check", "--json", **settings)
        steps = result.json()
        assert database.status(interview) == "enhancing" and database.prompt_count() == 0
        assert list(dict.fromkeys(step["step"] for step in steps)) == STEPS
        details = {}
        for step in steps:
            details[step["step"]] = f"{details.get(step['step'], '')}\n{step['detail']}".strip()
        return result.code, {step["step"]: step["result"] for step in steps}, details

    return run


def expect_failure(outcome, code, step, *words):
    """Only that step failed, and says why; what needs it was not tried, all else is well."""
    exit_code, results, details = outcome
    assert exit_code == code, outcome
    assert [name for name, result in results.items() if result == "failed"] == [step], details
    for word in words:
        assert word in details[step]


def test_all_is_well(promptctl, database, check):
    code, results, _ = check()
    assert code == 0 and set(results.values()) == {"ok"}
    result = promptctl("check")
    assert result.code == 0 and result.err == "" and [line[:8] for line in result.lines()] == ["ok      "] * len(STEPS)
    assert [line[8:29].strip().replace(" ", "_") for line in result.lines()] == STEPS


def test_colours_on_a_terminal(promptctl, database):
    database.interview()
    assert "\x1b[32mok" in promptctl.on_terminal("check").out


# Redis


def test_others_listen(check, channel, start_promptd):
    assert "nobody else" in check()[2]["redis_listeners"]
    start_promptd()
    code, results, details = check()
    assert code == 0 and results["redis_listeners"] == "note" and details["redis_listeners"].startswith("1 other listens")
    start_promptd()
    assert check()[2]["redis_listeners"].startswith("2 others listen")


def test_redis_is_away(check):
    outcome = check(redis_url="redis://127.0.0.1:1")
    expect_failure(outcome, 69, "redis_connection", "127.0.0.1:1", "refused")
    assert outcome[1]["redis_login"] == outcome[1]["redis_subscribe"] == "skipped"
    assert outcome[1]["delete_prompt"] == "ok"


def test_redis_is_silent(check, own_redis):
    own_redis.freeze()
    expect_failure(check(redis_url=own_redis.url), 69, "redis_login", "no answer")
    own_redis.thaw()


@pytest.mark.parametrize("login, word", [("", "NOAUTH"), (":wrong@", "WRONGPASS"), ("nobody:wrong@", "WRONGPASS")])
def test_redis_login_is_refused(check, own_redis, login, word):
    own_redis.admin.config_set("requirepass", "secret")
    expect_failure(check(redis_url=f"redis://{login}127.0.0.1:{own_redis.port}"), 78, "redis_login", word)
    own_redis.log_in("secret")


def test_redis_account_may_not_subscribe(check, own_redis):
    own_redis.admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&other", "+@all")
    expect_failure(check(redis_url=f"redis://reader:secret@127.0.0.1:{own_redis.port}"), 78, "redis_subscribe", "NOPERM")


def test_redis_account_with_just_what_is_needed(check, own_redis):
    own_redis.admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "&*", "+subscribe")
    code, results, _ = check(redis_url=f"redis://reader:secret@127.0.0.1:{own_redis.port}")
    assert code == 0 and results["redis_listeners"] == "note" and results["redis_subscribe"] == "ok"


def test_redis_that_cannot_save(check, own_redis):
    """It refuses what writes, and PING; a channel is as good as ever."""
    os.mkdir(os.path.join(own_redis.folder, "dump.rdb"))
    own_redis.admin.config_set("save", "3600 1")
    own_redis.admin.bgsave()
    wait_until(lambda: own_redis.admin.info("persistence")["rdb_last_bgsave_status"] == "err", "the save to fail")
    with pytest.raises(redis.ResponseError, match="MISCONF|RDB snapshots"):
        own_redis.admin.ping()
    code, results, _ = check(redis_url=own_redis.url)
    own_redis.admin.config_set("save", "")  # or it does not end
    assert code == 0 and set(results.values()) == {"ok"}, results


@pytest.fixture
def events(promptctl, channel):
    """events(**settings): the step about the events' channel, and the exit code."""
    def run(**settings):
        result = promptctl("check", "--json", events_channel=f"{channel.name}:events", **settings)
        (step,) = (step for step in result.json() if step["step"] == "redis_events")
        return result.code, step["result"], step["detail"]

    return run


def test_events_may_be_published(events, channel, closing, database):
    listener = closing(Listener(channel.server, f"{channel.name}:events"))
    assert events() == (0, "ok", f"may be published on {channel.name}:events")
    channel.server.admin.publish(listener.channel, "{}")
    listener.wait(1)  # and that was all: nobody has heard of the check


@pytest.mark.parametrize("rights, code, result, words", [
    ("+subscribe +multi +discard +publish", 0, "ok", "may be published"),
    ("+subscribe +multi +discard", 78, "failed", "NOPERM"),
    ("+subscribe +publish", 0, "note", "cannot be tried"),
])
def test_account_and_events(events, own_redis, database, rights, code, result, words):
    own_redis.admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "&*", *rights.split())
    outcome = events(redis_url=f"redis://reader:secret@127.0.0.1:{own_redis.port}")
    assert outcome[:2] == (code, result) and words in outcome[2]


def test_account_that_may_not_use_the_channel_of_events(events, own_redis, channel, database):
    own_redis.admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", f"&{channel.name}", "+@all")
    outcome = events(redis_url=f"redis://reader:secret@127.0.0.1:{own_redis.port}")
    assert outcome[:2] == (78, "failed") and "NOPERM" in outcome[2]


def test_events_while_redis_is_away(events):
    assert events(redis_url="redis://127.0.0.1:1") == (69, "skipped", "not tried")


# PostgreSQL


def test_database_is_away(check):
    outcome = check(database_url="postgresql://127.0.0.1:1/nothing")
    expect_failure(outcome, 69, "database_connection", "port 1", "refused")
    assert outcome[1]["insert_prompt"] == "skipped" and outcome[1]["redis_subscribe"] == "ok"


def test_database_is_silent(check, database, new_proxy, postgres):
    proxy = new_proxy(("127.0.0.1", postgres.port))
    proxy.swallow()
    expect_failure(check(database_url=database.url(proxy.port)), 69, "database_connection", "no answer within 10 s")


def test_both_are_away(check):
    code, results, _ = check(database_url="postgresql://127.0.0.1:1/nothing", redis_url="redis://127.0.0.1:1")
    assert code == 69 and set(results.values()) == {"failed", "skipped"}


def test_what_is_wrong_counts_over_what_is_away(check, database):
    assert check(database_url=database.url() + "x", redis_url="redis://127.0.0.1:1")[0] == 78


@pytest.mark.parametrize("url, word", [
    (lambda database: database.url(user=PASSWORD_ROLE), "wants a password"),
    (lambda database: database.url(user=PASSWORD_ROLE, password="wrong-word"), "28P01"),
    (lambda database: database.url(user="stranger"), "stranger"),
    (lambda database: database.url() + "x", "does not exist"),
    (lambda database: "host=localhost nonsense=1", "database_url"),
], ids=["no password", "wrong password", "no role", "no database", "no URL"])
def test_database_login_is_refused(check, database, url, word):
    outcome = check(database_url=url(database))
    expect_failure(outcome, 78, "database_connection", word)
    assert "wrong-word" not in str(outcome)


def test_read_only_database(check, database):
    database.execute(f"alter database {database.name} set default_transaction_read_only = on")
    outcome = check()
    expect_failure(outcome, 78, "database_writes", "read-only")
    assert outcome[1]["insert_prompt"] == "skipped"


@pytest.mark.parametrize("sql, words", [
    ("drop table interview_enhanced_prompts cascade", ["table interview_enhanced_prompts is missing"]),
    ("alter table interview_enhanced_prompts drop column prompt", ["column interview_enhanced_prompts.prompt is missing"]),
    ("alter table interview_enhanced_prompts alter prompt type bytea using ''", ["bytea instead of text"]),
    (f"revoke delete on interview_enhanced_prompts from {ROLE}", ["may not delete", ROLE]),
    (f"revoke insert on interview_enhanced_prompts from {ROLE}", ["may not insert"]),
    (f"revoke update (status) on interviews from {ROLE}; revoke select (id) on interviews from {ROLE}",
     ["may not update column interviews.status", "may not select column interviews.id"]),
    ("drop table promptd_unsettled cascade", ["table promptd_unsettled is missing", "apply sql/01_schema.sql"]),
    ("alter table promptd_unsettled drop column interview_id cascade", ["column promptd_unsettled.interview_id is missing"]),
    (f"revoke delete on promptd_unsettled from {ROLE}", ["may not delete on table promptd_unsettled; apply sql/"]),
    (f"revoke update (inserted_at) on promptd_unsettled from {ROLE}", ["may not update column promptd_unsettled.inserted_at"]),
], ids=lambda value: value.strip().splitlines()[0] if isinstance(value, str) else "")
def test_tables_and_privileges(promptctl, database, sql, words):
    database.interview()
    database.execute(sql)
    result = promptctl("check", "--json")
    failed = [step for step in result.json() if step["result"] == "failed"]
    assert result.code == 78 and {step["step"] for step in failed} == {"database_tables"}
    for word in words:
        assert word in str(failed)


def test_one_transaction_needs_no_promptd_unsettled(promptctl, database):
    database.interview()
    database.execute("drop table promptd_unsettled cascade")
    result = promptctl("check", "--json", atomicity="transaction")
    tables = [(step["result"], step["detail"]) for step in result.json() if step["step"] == "database_tables"]
    assert result.code == 0 and [verdict for verdict, _ in tables] == ["note", "ok"]
    assert "promptd_unsettled is missing" in tables[0][1] and "sql/01_schema.sql" in tables[0][1]


def test_views_are_missing(check, database):
    database.execute("drop view promptd_orphans")
    code, results, details = check()
    assert code == 0 and results["database_views"] == "note" and "sql/03_views.sql" in details["database_views"]


def test_status_that_the_column_does_not_take(check, database):
    database.execute("alter table interviews add check (status <> 'ready')")
    expect_failure(check(), 78, "ready_status", "ready", "check constraint")


def test_status_that_the_enum_does_not_have(check, database):
    database.execute("drop view promptd_orphans, promptd_stuck; create type state as enum ('enhancing', 'ready');"
                     "alter table interviews alter status type state using status::state")
    outcome = check()
    expect_failure(outcome, 78, "failed_status", "failed", "enum")
    assert outcome[1]["ready_status"] == "ok"


def test_source_that_the_column_does_not_take(check, database):
    database.execute("alter table interview_enhanced_prompts add check (source in ('rag', 'new_data', 'fallback'))")
    outcome = check()
    expect_failure(outcome, 78, "insert_prompt", "existing_data")
    assert outcome[1]["delete_prompt"] == "ok"


def test_trigger_that_raises_or_keeps_things_from_happening(check, database):
    database.raise_on("interviews", "update", "never ready", when="new.status = 'ready'")
    database.trigger("interview_enhanced_prompts", "delete", "return null;")
    code, results, details = check()
    assert code == 78 and results["insert_prompt"] == results["failed_status"] == "ok"
    assert "never ready" in details["ready_status"] and "no row was changed" in details["delete_prompt"]


def test_interview_that_is_not_awaiting_proves_little(promptctl, database):
    database.interview("completed")
    database.raise_on("interviews", "update", "completed is completed", when="old.status = 'completed'")
    result = promptctl("check", "--json")
    results = {step["step"]: step["result"] for step in result.json()}
    assert result.code == 0 and results["ready_status"] == results["failed_status"] == "note"
    database.execute("alter table interviews add check (status <> 'ready')")
    database.drop_faults()
    assert promptctl("check").code == 78


@pytest.mark.parametrize("atomicity", ["compensate", "transaction"])
@pytest.mark.parametrize("status, code, result", [("completed", 0, "note"), ("enhancing", 78, "failed")])
def test_trigger_that_keeps_an_interview_in_silence(promptctl, database, atomicity, status, code, result):
    database.interview(status)
    database.trigger("interviews", "update", "return null;", when="new.status = 'ready'")
    done = promptctl("check", "--json", atomicity=atomicity)
    (step,) = (step for step in done.json() if step["step"] == "ready_status")
    assert done.code == code and step["result"] == result and "row level security keeps it" in step["detail"]


@pytest.mark.parametrize("atomicity", ["compensate", "transaction"])
@pytest.mark.parametrize("statuses, untried", [
    (["failed", "failed", "enhancing"], set()),
    (["ready", "completed"], set()),
    (["failed", "ready", "completed"], {"failed_status"}),
    (["ready"], {"ready_status", "failed_status"}),
], ids=str)
def test_interviews_that_have_the_status_already(promptctl, database, atomicity, statuses, untried):
    """They are no fault, and prove nothing; one that can be changed is looked for first."""
    for status in statuses:
        database.interview(status)
    result = promptctl("check", "--json", atomicity=atomicity)
    steps = {step["step"]: step for step in result.json()}
    assert result.code == 0 and {name for name, step in steps.items() if step["result"] == "not_tried"} == untried
    assert all("already" in steps[name]["detail"] for name in untried)
    assert {steps[name]["result"] for name in ("ready_status", "failed_status") if name not in untried} <= {"ok"}


@pytest.mark.parametrize("atomicity", ["compensate", "transaction"])
def test_no_interview_to_try_with(promptctl, atomicity):
    """What was only planned does not look like what was tried."""
    result = promptctl("check", "--json", atomicity=atomicity)
    untried = [step for step in result.json() if step["result"] == "not_tried"]
    assert result.code == 0 and [step["step"] for step in untried] == [
        "awaiting_statuses", "insert_prompt", "ready_status", "failed_status",
        *(["delete_prompt"] if atomicity == "compensate" else [])]
    assert [line[0] for line in promptctl("check", atomicity=atomicity).lines()].count("?") == len(untried)


@pytest.mark.parametrize("sql, step, word", [
    ("alter table interview_enhanced_prompts add check (source <> 'fallback')", "insert_prompt", "fallback"),
    ("drop view promptd_orphans, promptd_stuck; create type state as enum ('enhancing', 'ready');"
     "alter table interviews alter status type state using status::state", "failed_status", "enum"),
    ("drop view promptd_orphans; create type origin as enum ('rag', 'new_data', 'fallback');"
     "alter table interview_enhanced_prompts alter source type origin using source::origin", "insert_prompt", "existing_data"),
], ids=["check constraint", "status enum", "source enum"])
def test_no_interview_and_something_wrong(promptctl, database, sql, step, word):
    database.execute(sql)
    result = promptctl("check", "--json")
    [failed] = [each for each in result.json() if each["result"] == "failed"]
    assert result.code == 78 and failed["step"] == step and word in failed["detail"]
    assert [each["result"] for each in result.json()].count("ok") == 8 - ("drop view" in sql)


def test_any_status_may_be_awaiting(check):
    code, results, _ = check(awaiting_statuses="*")
    assert code == 0 and set(results.values()) == {"ok"}


def test_locked_interviews_are_passed_over(check, database, postgres):
    with postgres.connect(database.name) as other:
        other.autocommit = False
        other.execute("select from interviews for update")
        code, results, _ = check()
        assert code == 0 and results["ready_status"] == "not_tried"
