# SPDX-License-Identifier: MIT
"""The checker must see what it is there to see: each thing that must not happen, made up as log lines."""

import pytest

from faults.ledger import Ledger
from faults.load import Published

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
PROMPT = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"
STATE = "daemon: state received={} success={} duplicate=0 failure=0 rejected=0 dropped=0 waiting={}"


def message(index):
    return Published(index, INTERVIEW, PROMPT, b"x" * (100 + index), "plain")


def line(text, level="DEBUG"):
    return f"2026-11-23T16:01:02.345Z {level} {text}\n"


def stage(name, index, sequence=0, outcome=""):
    return line(f"pipeline: message {name} interview_id={INTERVIEW} prompt_id={PROMPT} bytes={100 + index} "
                f"sequence={sequence}" + (f" outcome={outcome}" if outcome else ""))


@pytest.fixture
def play(tmp_path):
    """play([life, ...], ...): what the ledger complains of; each life is lines, and ended politely but for "killed"."""
    def run(*lives, with_spool=False, published=5):
        ledger = Ledger([message(i) for i in range(published)], with_spool)
        for number, (lines, killed) in enumerate(lives):
            path = tmp_path / f"life{number}.log"
            path.write_text("".join(lines))
            ledger.begin_life(str(path))
            ledger.end_life(killed)
        ledger.heard.finish()
        return ledger

    return run


def restored():
    return line("redis: subscription restored after 1.5 s; messages published meanwhile were not received", "WARNING")


def on_disk(sequence):
    return line(f"spool: message is on disk sequence={sequence}")


GOOD = [stage("received", 0), stage("ended", 0, outcome="stored")]
SPOOLED = [stage("received", 0), on_disk(1)]


def test_all_is_well(play):
    assert play((GOOD + [line(STATE.format(1, 1, 0), "INFO")], False)).violations == []
    assert play((SPOOLED + [stage("ended", 0, 1, "stored")], False), with_spool=True).violations == []


@pytest.mark.parametrize("lines, complaint", [
    (GOOD + GOOD[1:], "had ended"),
    (GOOD[:1], "no outcome"),
    (GOOD + [line(STATE.format(1, 0, 0), "INFO")], "do not add up"),
    (GOOD + [line(STATE.format(2, 2, 0), "INFO")], "the lines"),
    (GOOD + GOOD, "never published, or twice"),
    ([stage("received", 0), stage("ended", 0, outcome="stored"), stage("received", 3), stage("ended", 3, outcome="stored")],
     "without a gap"),
    ([stage("received", 2), stage("ended", 2, outcome="stored"), stage("received", 1), stage("ended", 1, outcome="stored")],
     "out of order"),
])
def test_what_must_not_happen(play, lines, complaint):
    violations = play((lines, False)).violations
    assert any(complaint in violation for violation in violations), violations


def test_gap_explains_what_was_not_heard(play):
    lines = GOOD + [restored(), stage("received", 3), stage("ended", 3, outcome="stored")]
    assert play((lines, False)).violations == []


def test_memory_goes_with_sigkill_and_is_counted(play):
    ledger = play((GOOD[:1], True))
    assert ledger.violations == [] and ledger.gone == 1 and ledger.killed_in_memory == {PROMPT}


def test_disk_keeps_over_sigkill(play):
    again = [stage("fetched", 0, 1), stage("ended", 0, 1, "stored")]
    assert play((SPOOLED, True), (again, False), with_spool=True).violations == []
    assert play((SPOOLED, True), with_spool=True).on_disk != {}
    ledger = play((SPOOLED + again[1:], True), (again, False), with_spool=True)
    assert ledger.violations == [] and ledger.again == 1
    ledger = play((SPOOLED + again[1:], False), (again, False), with_spool=True)
    assert "although it had ended" in ledger.violations[0]


def test_number_from_nowhere(play):
    assert "never put" in play(([stage("fetched", 0, 7)], False), with_spool=True).violations[0]
