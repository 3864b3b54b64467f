# SPDX-License-Identifier: MIT
"""A pooler in transaction mode in between: statements meet other sessions, outcomes stay the same."""

import psycopg
import pytest

from support.expect import detected_line, expect_nothing_stored, expect_stored, stuck_line

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
    stored = channel.publish(database.interview())
    channel.publish_message(stored)
    rude = channel.publish(database.interview(), "RUDE words")
    late = channel.publish(database.interview("completed"))
    rejected = database.interview()
    channel.publish_raw(b'{"interview_id":"%s"}' % rejected.encode())
    assert pooled.settle(5).outcomes() == {"success": 1, "duplicate": 1, "failure": 2, "rollback": 1, "rejected": 1}
    expect_stored(database, stored)
    expect_nothing_stored(database, rude.interview, "failed")
    expect_nothing_stored(database, late.interview, "completed")
    assert database.status(rejected) == "failed"
    assert pooled.one("ERROR", rude.interview).fields["sqlstate"] == "23514"


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
