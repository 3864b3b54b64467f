# SPDX-License-Identifier: MIT
"""The SQL of docs/RUNBOOK.md, word for word, with no more rights than promptd's own role."""
import pathlib
import re

import psycopg
import pytest

from support.postgres import ROLE

RUNBOOK = pathlib.Path(__file__).resolve().parents[2] / "docs/RUNBOOK.md"


@pytest.fixture
def runbook(database):
    """Runs the statements of a section that begin so, with the ids put in: what it prints, or how many it changed."""
    def run(section, begin, prompt=None, interview=None):
        text = RUNBOOK.read_text().split(f"\n### {section}\n")[1].split("\n### ")[0]
        code = "\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE))
        statements = re.findall(rf"^{begin} [^;]*;", code, re.MULTILINE)
        assert len(statements) == 1, f"{section}: {begin}"
        sql = statements[0].replace("<prompt-id>", str(prompt)).replace("<interview-id>", str(interview))
        with psycopg.connect(database.url(user=ROLE), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else cursor.rowcount
    return run


@pytest.mark.parametrize("unsettled", [True, False])
@pytest.mark.parametrize("status, after", [
    ("enhancing", "failed"), ("failed", "failed"), ("timeout", "timeout"), ("in_progress", "in_progress")])
def test_orphans_by_hand(runbook, database, unsettled, status, after):
    interview = database.interview(status)
    id = database.add_old_prompt(interview, 360, unsettled)
    listed = [str(row[0]) for row in runbook("Orphans", "select")]
    assert listed == ([id] if unsettled else [])
    assert runbook("Orphans", "with", id, interview) == len(listed)
    runbook("Orphans", "update", id, interview)
    assert database.prompt_count() == 1 - len(listed)
    assert database.value("select count(*) from promptd_unsettled") == 0
    assert database.status(interview) == after


def test_interviews_without_a_prompt_by_hand(runbook, database):
    waiting, done = database.interview("enhancing"), database.interview("ready")
    database.execute("update interviews set created_at = now() - interval '6 minutes'")
    section = "Interviews without a prompt"
    assert [str(row[0]) for row in runbook(section, "select")] == [waiting]
    assert runbook(section, "update", interview=waiting) == 1
    assert runbook(section, "update", interview=done) == 0
    assert (database.status(waiting), database.status(done)) == ("failed", "ready")
