# SPDX-License-Identifier: MIT
"""The checker must see what it is there to see: each thing that must not happen, made up as log lines."""

import pytest

from faults.latency import HELD_UP, LIMIT_S, Disturbances
from faults.ledger import COUNTERS, INNOCENT_FAILED, LOG, LOST, NOT_RECEIVED, ORPHANS, SPOOL, TWICE, Ledger
from faults.load import Published
from faults.violations import Violations

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
PROMPT = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"
STATE = "daemon: state received={} success={} duplicate=0 failure=0 rejected=0 dropped=0 waiting={}"
BEGAN = 1_795_449_662  # the seconds of the lines' times


def message(index):
    return Published(index, INTERVIEW, PROMPT, b"x" * (100 + index), "plain", at=1.0)


def line(text, level="DEBUG", second=2):
    return f"2026-11-23T16:01:{second:02}.000Z {level} {text}\n"


def stage(name, index, sequence=0, outcome="", second=2):
    return line(f"pipeline: message {name} interview_id={INTERVIEW} prompt_id={PROMPT} bytes={100 + index} "
                f"sequence={sequence}" + (f" outcome={outcome}" if outcome else ""), second=second)


@pytest.fixture
def violations():
    return Violations()


@pytest.fixture
def play(tmp_path, violations):
    """play([life, ...], ...): the ledger; each life is lines, and ended politely but for True."""
    def run(*lives, with_spool=False, published=5):
        ledger = Ledger([message(i) for i in range(published)], with_spool, violations.add)
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


def orphan(what):
    return line(f"store: ORPHANED PROMPT {what} for interview {INTERVIEW}. Prompt ID: {PROMPT}.",
                "CRITICAL" if what == "DETECTED" else "INFO")


GOOD = [stage("received", 0), stage("ended", 0, outcome="stored")]
SPOOLED = [stage("received", 0), on_disk(1)]


def test_all_is_well(play, violations):
    play((GOOD + [line(STATE.format(1, 1, 0), "INFO")], False))
    play((SPOOLED + [stage("ended", 0, 1, "stored")], False), with_spool=True)
    assert not violations.counts()


@pytest.mark.parametrize("lines, rule, complaint", [
    (GOOD + GOOD[1:], TWICE, "had ended"),
    (GOOD[:1], LOST, "ended politely"),
    (GOOD + [line(STATE.format(1, 0, 0), "INFO")], COUNTERS, "do not add up"),
    (GOOD + [line(STATE.format(2, 2, 0), "INFO")], COUNTERS, "the lines"),
    (GOOD + GOOD, NOT_RECEIVED, "never published, or twice"),
    ([stage("received", 0), stage("ended", 0, outcome="stored"), stage("received", 3), stage("ended", 3, outcome="stored")],
     NOT_RECEIVED, "without a gap"),
    ([stage("received", 2), stage("ended", 2, outcome="stored"), stage("received", 1), stage("ended", 1, outcome="stored")],
     NOT_RECEIVED, "out of order"),
    (GOOD + ["no line at all\n"], LOG, "not a log line"),
    (GOOD + [line(f"store: unsettled prompt settled for interview {INTERVIEW}", "INFO")], LOG, "names no prompt"),
    (GOOD + [orphan("RESOLVED")], ORPHANS, "was not told"),
])
def test_what_must_not_happen(play, violations, lines, rule, complaint):
    play((lines, False))
    assert any(complaint in what for what, _ in violations.of_rule[rule]), violations.counts()


def test_gap_explains_what_was_not_heard(play, violations):
    play((GOOD + [restored(), stage("received", 3), stage("ended", 3, outcome="stored")], False))
    assert not violations.counts()


def test_memory_goes_with_sigkill_and_is_counted(play, violations):
    ledger = play((GOOD[:1], True))
    assert not violations.counts() and ledger.gone == 1 and ledger.killed_in_memory == {PROMPT}


def test_what_is_left_unsettled_at_the_end_is_named(play, violations):
    ledger = play((GOOD[:1] + [line(f"store: unsettled at the end interview_id={INTERVIEW} prompt_id={PROMPT}", "WARNING")],
                   False))
    assert not violations.counts() and ledger.named == {PROMPT}


def test_disk_keeps_over_sigkill(play, violations):
    again = [stage("fetched", 0, 1), stage("ended", 0, 1, "stored")]
    play((SPOOLED, True), (again, False), with_spool=True)
    assert play((SPOOLED, True), with_spool=True).on_disk != {}
    ledger = play((SPOOLED + again[1:], True), (again, False), with_spool=True)
    assert not violations.counts() and ledger.again == 1
    play((SPOOLED + again[1:], False), (again, False), with_spool=True)
    assert "although it had ended" in violations.of_rule[TWICE][0][0]


def test_number_from_nowhere(play, violations):
    play(([stage("fetched", 0, 7)], False), with_spool=True)
    assert "never put" in violations.of_rule[SPOOL][0][0]


def test_orphan_is_told_once_for_recovery_and_once_for_each_message(play):
    failed = [stage("received", 0), orphan("DETECTED"), stage("ended", 0, outcome="orphaned")]
    assert not play((failed + [orphan("DETECTED")], False)).told_too_often()
    assert play((failed + [orphan("DETECTED")] * 2, False)).told_too_often() == [PROMPT]
    ledger = play((failed + [orphan("RESOLVED")], False))
    assert not ledger.open_orphans() and not ledger.told_too_often()


def test_recovery_and_stuck_interviews_are_noted(play):
    lines = [line(f"store: unsettled prompt rolled back for interview {INTERVIEW} prompt_id={PROMPT}", "INFO"),
             line(f"store: INTERVIEW STUCK: {INTERVIEW} could not be marked failed. sqlstate=P0001", "CRITICAL")]
    ledger = play((lines, False))
    assert ledger.recovered[PROMPT] == {"rolled back": 1} and ledger.recoveries["rolled_back"] == 1
    assert ledger.stuck == {INTERVIEW: 1}
    assert not play((lines + [line(f"store: INTERVIEW NO LONGER STUCK: {INTERVIEW}", "INFO")], False)).stuck


@pytest.mark.parametrize("sqlstate, complaints", [("53100", 1), ("57014", 0)])
def test_innocent_may_fail_of_nothing_but_a_locked_table(play, violations, sqlstate, complaints):
    play((GOOD[:1] + [line(f"store: message not stored for interview {INTERVIEW} prompt_id={PROMPT} sqlstate={sqlstate}",
                           "ERROR"), stage("ended", 0, outcome='"not stored"')], False)).judge_innocents(BEGAN)
    assert len(violations.of_rule[INNOCENT_FAILED]) == complaints


def came_and_ended(seconds):
    return [stage("received", 0, second=2), stage("ended", 0, outcome="stored", second=2 + seconds)]


@pytest.mark.parametrize("seconds, disturbed, complaints", [
    (1, 0, 0),
    (LIMIT_S + 2, 0, 1),
    (LIMIT_S + 2, 3, 0),     # so much of it while a fault held everyone up
    (LIMIT_S + 5, 3, 1),
])
def test_innocent_is_held_up(play, violations, seconds, disturbed, complaints):
    ledger = play((came_and_ended(int(seconds)), False))
    if disturbed:
        ledger.innocents.disturbances.begin(BEGAN + 1)
        ledger.innocents.disturbances.end(BEGAN + 1 + disturbed)
    ledger.judge_innocents(BEGAN + 100)
    assert len(violations.of_rule[HELD_UP]) == complaints
    assert ledger.innocents.waits == [int(seconds) - disturbed]


def test_innocent_that_never_ends_is_held_up_once(tmp_path, violations):
    path = tmp_path / "life.log"
    path.write_text(GOOD[0])
    ledger = Ledger([message(0)], False, violations.add)
    ledger.begin_life(str(path))
    ledger.follow()
    ledger.judge_innocents(BEGAN + LIMIT_S - 1)
    assert not violations.counts()
    for later in (1, 2):
        ledger.judge_innocents(BEGAN + LIMIT_S + later)
    assert violations.counts() == {HELD_UP: 1}


def test_disturbances_overlap():
    disturbances = Disturbances()
    for begin, end in ((10, 12), (20, 25)):
        disturbances.begin(begin)
        disturbances.begin(begin + 1)  # another fault of the same round
        disturbances.end(end)
    assert [disturbances.overlap(*span) for span in ((0, 5), (0, 11), (11, 22), (0, 30), (13, 19))] == [0, 1, 3, 7, 0]
    disturbances.begin(30)
    assert disturbances.overlap(24, 32) == 3
