# SPDX-License-Identifier: MIT
"""bench/ works when somebody wants to measure: its programs and its stand, with a few messages and no judgement of time."""

import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "bench"))

from measure import corpus, growth, latency, queues, report, scale, throughput  # noqa: E402 (after the path is set)
from measure.stand import QUEUES, Stand  # noqa: E402

MESSAGES = 600  # more than two full batches


@pytest.fixture(scope="module")
def stand():
    """In the build folder that the promptd under test comes from."""
    stand = Stand(os.path.dirname(os.path.dirname(os.path.dirname(os.environ["PROMPTD_BINARY"]))))
    yield stand
    stand.close()


@pytest.fixture(scope="module")
def corpora(stand):
    random, sequential = corpus.make(stand.folder, {2048: MESSAGES}, {2048: MESSAGES})
    corpora = {"random": random[2048], "sequential": sequential[2048]}
    for messages in corpora.values():
        messages.install(stand.database)
    return corpora


@pytest.fixture
def messages(corpora, request):
    return corpora[getattr(request, "param", "random")]


both_kinds_of_ids = pytest.mark.parametrize("messages", ["random", "sequential"], indirect=True)


@pytest.fixture
def stored(stand, messages):
    """Looks afterwards whether each row is what the corpus says, as the measured must have done all of the work."""
    yield
    with open(messages.path, "rb") as file:
        content = file.read()
    rows = stand.database.rows("""select p.id, p.interview_id, p.prompt, i.status
                                  from interview_enhanced_prompts p join interviews i on i.id = p.interview_id""")
    assert len(rows) == MESSAGES
    if messages.path.endswith("sequential"):
        assert sorted(row[1].int & 0xffff for row in rows) == list(range(MESSAGES))
    for prompt_id, interview, prompt, status in rows:
        at = content.index(interview.bytes + prompt_id.bytes)
        length = int.from_bytes(content[at + 32:at + 36], sys.byteorder)
        assert content[at + 40:at + 40 + length].decode() == prompt and status == "ready"


@both_kinds_of_ids
def test_limit(stand, messages, stored):
    assert throughput.run_limit(stand, messages, MESSAGES)["rate"] > 0


@both_kinds_of_ids
def test_listener(stand, messages, stored):
    result = throughput.run_listener(stand, messages, MESSAGES, stand.start_promptd)
    assert result["rate"] > 0 and result["cpu_us"] > 0 and result["peak_kib"] > 0


@pytest.mark.parametrize("mode", QUEUES)
def test_queue(stand, messages, stored, mode):
    assert throughput.run_queue(stand, messages, MESSAGES, mode)["rate"] > 0


@pytest.mark.parametrize("mode", QUEUES)
def test_queue_of_two(stand, messages, stored, mode):
    result = throughput.run_listener(stand, messages, MESSAGES, lambda: stand.start_promptds(2, redis_mode=mode), mode)
    assert result["rate"] > 0 and result["cpu_us"] > 0


@pytest.mark.parametrize("mode", QUEUES)
def test_many_wait_in_a_queue(stand, messages, mode):
    assert queues.waiting_peak_kib(stand, messages, mode, 5 * MESSAGES, MESSAGES) > 0


@pytest.mark.parametrize("mode", QUEUES)
def test_latency_of_a_queue(stand, messages, stored, mode):
    result = latency.run(stand, messages, MESSAGES, 500, lambda: stand.start_promptd(redis_mode=mode), mode)
    assert result["count"] == MESSAGES


def test_latency(stand, messages, stored):
    for start in [*latency.BARE.values(), stand.start_promptd]:
        result = latency.run(stand, messages, MESSAGES, 500, start)
        assert result["count"] == MESSAGES and 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"]


def test_waiting(stand, messages, stored):
    assert growth.run_waiting(stand, messages, MESSAGES)["drain_us"] > 0


def test_scale(stand, messages):
    results = scale.run(stand, messages, 1000, 100, 1)
    assert set(results) == {"orphans", "stuck", "check", scale.WITHOUT_INDEX, scale.MESSAGES}
    assert all(result.get("ms", result.get("rate")) > 0 for runs in results.values() for result in runs)
    assert "With 1,000 interviews" in report.table({"scale": {1000: results}})


def test_spread():
    assert report.spread([3, 1, 2]) == (1, 2, 3) and report.spread([4, 1, 2, 3]) == (1, 2.5, 4)
