# SPDX-License-Identifier: MIT
"""A pooler in transaction mode in between: statements meet other sessions, outcomes stay the same."""

import psycopg
import pytest

from support.expect import detected_line, expect_nothing_stored, expect_stored, stuck_line
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"


@pytest.fixture(params=[1, 3])
def pooler(request, new_pgbouncer):
    return new_pgbouncer(pool_size=request.param)


@pytest.fixture
def pooled(start_promptd, atomicity, database, pooler):
    return start_promptd(atomicity=atomicity, database_url=database.url(pooler.port), retry_base_ms=10,
                         sessions=1)


def test_outcomes(pooled, database, channel):
    database.execute(f"alter table {PROMPTS} add constraint polite check (prompt !~ 'RUDE')")
    database.raise_on("interviews", "update", "not ready", when="new.status = 'ready' and old.status = 'processing'")
    stored = channel.publish(database.interview())
    channel.publish_message(stored)
    begun = channel.message(database.interview())
    database.add_prompt(begun, unsettled=True)
    channel.publish_message(begun)
    rude = channel.publish(database.interview(), "RUDE words")
    late = channel.publish(database.interview("completed"))
    kept = channel.publish(database.interview("processing"))
    unknown = channel.publish("00000000-0000-4000-8000-000000000001")
    rejected = database.interview()
    channel.publish_raw(b'{"interview_id":"%s"}' % rejected.encode())
    assert pooled.settle(8).outcomes() == {"success": 2, "duplicate": 1, "failure": 4, "rollback": 2, "rejected": 1}
    expect_stored(database, stored, begun)
    expect_nothing_stored(database, rude.interview, "failed")
    expect_nothing_stored(database, late.interview, "completed")
    expect_nothing_stored(database, kept.interview, "failed")
    assert database.status(rejected) == "failed" and database.unsettled() == []
    assert pooled.one("ERROR", rude.interview).fields["sqlstate"] == "23514"
    assert pooled.one("ERROR", unknown.interview).fields["error"] == "there is no such interview"


def test_check_tells_what_the_pooler_refuses_from_what_passes(new_pgbouncer, database, promptctl):
    """It has one code, 08P01, for both."""
    def check(pooler, password=None, name=database.name):
        result = promptctl("check", database_url=database.url(pooler.port, password=password).replace(database.name, name))
        [line] = [line for line in result.lines() if "database connection" in line]
        return result.code, line

    pooler = new_pgbouncer(pool_size=1, passwords={"promptd": "right"})
    assert check(pooler, "right")[0] == 0
    for outcome, words in ((check(pooler, "wrong-word"), "authentication failed"), (check(pooler, "right", "gone"), "gone"),
                           (check(pooler, "right", "unknown"), "no such database: unknown")):
        assert outcome[0] == 78 and "the pooler refuses" in outcome[1] and words in outcome[1], outcome
        assert "wrong-word" not in outcome[1]
    full = new_pgbouncer(pool_size=1, max_clients=1)
    with psycopg.connect(database.url(full.port), prepare_threshold=None):
        code, line = check(full)
    assert code == 69 and "no more connections" in line


def test_recovery(start_promptd, atomicity, database, pooler):
    promptd = start_promptd(atomicity=atomicity, database_url=database.url(pooler.port), sessions=1, reconcile_interval_s=1)
    interviews = {status: database.interview(status) for status in ("enhancing", "failed", "ready", "timeout")}
    for interview in interviews.values():
        database.add_old_prompt(interview, unsettled=True)
    wait_until(lambda: database.unsettled() == [], "the recovery", seen=database.unsettled)
    promptd.wait_counters(recovered_settled=2, recovered_rolled_back=2)
    assert {status: database.status(interview) for status, interview in interviews.items()} == {
        "enhancing": "ready", "ready": "ready", "failed": "failed", "timeout": "timeout"}
    assert [status for status, interview in interviews.items() if database.prompts(interview)] == ["enhancing", "ready"]


def test_interview_that_somebody_has_locked(pooled, database, channel):
    """It is come back to; the others do not wait, although they have the session in common."""
    locked, *others = database.interviews(20)
    with database.cluster.connect(database.name) as holder, holder.transaction():
        holder.execute("select from interviews where id = %s for update", [locked])
        messages = [channel.message(interview) for interview in [locked, *others]]
        channel.publish_burst(messages)
        pooled.wait_counters(received=20, success=19)
    assert pooled.settle(20).outcomes() == {"success": 20}
    expect_stored(database, *messages)


def test_statement_is_cancelled(start_promptd, atomicity, database, channel, pooler):
    promptd = start_promptd(atomicity=atomicity, database_url=database.url(pooler.port), sessions=1, retry_attempts=2,
                            retry_base_ms=10, statement_timeout_ms=1000)
    slow = database.interview()
    with database.held("interviews", "update", f"new.id = '{slow}' and new.status = 'ready'"):
        message = channel.publish(slow)
        assert promptd.settle(1).outcomes() == {"failure": 1, "rollback": 1}
        assert promptd.one("ERROR", message.interview).fields["sqlstate"] == "57014"
    expect_nothing_stored(database, slow, "failed")


def test_orphaned_and_stuck(start_promptd, database, channel, pooler):
    promptd = start_promptd(database_url=database.url(pooler.port), sessions=1)
    database.raise_on(PROMPTS, "delete", "never forget")
    database.raise_on("interviews", "update", "hands off")
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"failure": 1, "orphaned": 1}
    promptd.one("CRITICAL", detected_line(message))
    promptd.one("CRITICAL", stuck_line(message.interview))


def test_burst(pooled, database, channel):
    database.raise_on(PROMPTS, "insert", "poison", when="new.prompt ~ 'POISON'")
    tries = database.raise_first(2, "interviews", "update", "40001", "new.status = 'ready'")
    messages = [channel.message(interview, "POISON" if number % 50 == 7 else None)
                for number, interview in enumerate(database.interviews(500))]
    channel.publish_burst(messages)
    assert pooled.settle(500).outcomes() == {"success": 490, "failure": 10}
    expect_stored(database, *(message for message in messages if "POISON" not in message.prompt))
    assert database.prompt_count() == 490 and database.tries(tries) > 2


def test_sessions_behind_the_pooler_are_terminated(pooled, database, channel):
    messages = []
    for _ in range(5):
        burst = [channel.message(interview) for interview in database.interviews(50)]
        channel.publish_burst(burst)
        messages += burst
        database.terminate_sessions()
    assert pooled.settle(250, timeout=40).outcomes() == {"success": 250}
    expect_stored(database, *messages)


def test_pooler_is_shared_with_others(pooled, database, channel, pooler):
    """Another client's settings and statements in the same session do not matter."""
    with psycopg.connect(database.url(pooler.port), autocommit=True, prepare_threshold=None) as other:
        for number in range(20):
            other.execute("set statement_timeout = '1h'")
            other.execute("select 'something else'")
            channel.publish(database.interview(), f"Prompt number {number}.")
    assert pooled.settle(20).outcomes() == {"success": 20}
    assert database.statuses() == {"ready": 20}
