# SPDX-License-Identifier: MIT
"""Metrics: Prometheus' format and names, what adds up, and StatsD."""

import re
import shutil
import socket
import subprocess

import pytest

from support import admin
from support.wait import wait_until

NAMES = """
    rag_atomic_operation_success_total rag_atomic_operation_failure_total rag_rollback_total rag_orphaned_prompt_total
    rag_duplicate_total rag_messages_received_total rag_messages_dropped_total
    rag_atomic_operation_duration_seconds_count rag_atomic_operation_duration_seconds_sum
    promptd_waiting_messages promptd_queue_messages promptd_queue_bytes promptd_spool_messages promptd_spool_bytes
    promptd_dead_letters promptd_orphans_open promptd_unsettled_prompts promptd_db_connections promptd_redis_connected
    promptd_redis_circuit_open promptd_db_circuit_open promptd_subscription_gaps_total promptd_subscription_gap_seconds_total
    promptd_retries_total
""".split()
REASONS = """
    too_large invalid_utf8 not_json trailing_data not_object duplicate_field missing_interview_id invalid_interview_id
    missing_enhanced_prompt invalid_enhanced_prompt prompt_too_short prompt_too_long prompt_has_nul invalid_source
""".split()


def rejected(metrics):
    return sum(value for name, value in metrics.items() if name.startswith("rag_messages_rejected_total{"))


def adds_up(metrics):
    ended = sum(metrics[name] for name in ("rag_atomic_operation_success_total", "rag_duplicate_total",
                                           "rag_atomic_operation_failure_total", "rag_messages_dropped_total"))
    return metrics["rag_messages_received_total"] == ended + rejected(metrics) + metrics["promptd_waiting_messages"]


def test_every_name_from_the_start(start_promptd):
    metrics = admin.of(start_promptd()).metrics()
    assert [name for name in NAMES if name not in metrics] == []
    for reason in REASONS:
        assert metrics[f'rag_messages_rejected_total{{reason="{reason}"}}'] == 0
    assert sum(name.startswith("rag_messages_rejected_total") for name in metrics) == len(REASONS)
    for link in ("redis", "database"):
        assert metrics[f'promptd_reconnections_total{{link="{link}"}}'] == 0
    for result in ("settled", "rolled_back"):
        assert metrics[f'promptd_recovered_total{{result="{result}"}}'] == 0
    assert [name for name in metrics if re.fullmatch(r'promptd_build_info\{version="[0-9.]+"\}', name)]
    assert metrics["promptd_redis_connected"] == 1 and metrics["promptd_db_connections"] == 4


def test_promtool_has_nothing_to_say(start_promptd, database, channel):
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    promptd = start_promptd()
    channel.publish(database.interview())
    promptd.settle(1)
    answer = admin.of(promptd).ask("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    checked = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_it_adds_up_at_every_moment(start_promptd, database, channel):
    promptd = start_promptd()
    http = admin.of(promptd)
    interviews = [database.interview() for _ in range(50)]
    for number in range(400):
        if number % 10 == 9:
            channel.publish_raw(b"{")
        else:
            channel.publish(interviews[number % 50], f"Prompt number {number // 2} of many.")
        if number % 20 == 0:
            assert adds_up(http.metrics())
    promptd.settle(400)
    metrics = http.metrics()
    assert adds_up(metrics) and metrics["promptd_waiting_messages"] == 0
    assert metrics['rag_messages_rejected_total{reason="not_json"}'] == 40
    state = http.json("/status")["counters"]
    line = promptd.counters()
    for name in ("received", "success", "duplicate", "failure", "rejected", "dropped", "waiting"):
        assert state[name] == line[name]


def test_durations(start_promptd, database, channel):
    promptd = start_promptd()
    channel.publish(database.interview())
    channel.publish(database.interview("cancelled"))
    channel.publish_raw(b"no operation at all")
    promptd.settle(3)
    metrics = admin.of(promptd).metrics()
    name = "rag_atomic_operation_duration_seconds"
    assert metrics[f"{name}_count"] == 2 == metrics[f'{name}_bucket{{le="+Inf"}}']
    assert 0 < metrics[f"{name}_sum"] < 60
    buckets = [(float(match[1]), value) for metric, value in metrics.items()
               if (match := re.fullmatch(name + r'_bucket\{le="([0-9.]+)"\}', metric))]
    assert buckets == sorted(buckets) and buckets[0][0] == 0.0005 and buckets[-1][0] == 60
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)


def test_time_in_the_spool_counts(start_promptd, database, database_proxy, channel, new_folder):
    promptd = start_promptd(database_url=database.url(port=database_proxy.port), spool_dir=new_folder("spool"))
    http = admin.of(promptd)
    database_proxy.refuse()
    wait_until(lambda: http.metrics()["promptd_db_up"] == 0, "the database to be missed")
    channel.publish(database.interview())
    wait_until(lambda: http.metrics()["promptd_spool_messages"] == 1, "the message to be on disk")
    wait_until(lambda: http.json("/health/redis")["time_since_last_message_seconds"] > 1.2, "a second to pass")
    database_proxy.restore()
    promptd.settle(1)
    assert http.metrics()["rag_atomic_operation_duration_seconds_sum"] > 1.2


# --- StatsD -------------------------------------------------------------------------------------------------------------


class Listener:
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.datagrams = []

    def lines(self):
        while True:
            try:
                self.datagrams.append(self.socket.recv(65536))
            except BlockingIOError:
                return [line for datagram in self.datagrams for line in datagram.decode().split("\n")]

    def count(self, name):
        return sum(int(match[1]) for line in self.lines() if (match := re.fullmatch(re.escape(name) + r":(\d+)\|c", line)))

    def durations(self):
        return [(float(match[1]), float(match[2] or 1)) for line in self.lines()
                if (match := re.fullmatch(r"rag\.atomic_operation_duration:([0-9.]+)\|ms(?:\|@([0-9.]+))?", line))]

    def close(self):
        self.socket.close()


@pytest.fixture
def listener(closing):
    return closing(Listener())


def test_statsd(start_promptd, database, channel, listener):
    promptd = start_promptd(statsd=f"127.0.0.1:{listener.port}", atomicity="compensate")
    promptd.wait_line("INFO", "metrics are sent to StatsD")
    database.raise_on("interview_enhanced_prompts", "delete", when="old.prompt like '%Stay%'")
    for _ in range(3):
        channel.publish(database.interview())
    channel.publish(database.interview("cancelled"))
    channel.publish(database.interview("cancelled"), "Stay where you are, prompt.")
    promptd.settle(5)
    wanted = {"rag.atomic_operation_success": 3, "rag.atomic_operation_failure": 2, "rag.rollback_count": 1,
              "rag.orphaned_prompt_count": 1}
    wait_until(lambda: all(listener.count(name) == value for name, value in wanted.items()), "the counters",
               seen=listener.lines)
    assert len(listener.durations()) == 5 and all(0 < ms < 60000 for ms, _ in listener.durations())
    channel.publish(database.interview())
    promptd.settle(6)
    wait_until(lambda: listener.count("rag.atomic_operation_success") == 4, "what was added")
    allowed = set(wanted) | {"rag.atomic_operation_duration"}
    assert {line.split(":")[0] for line in listener.lines()} == allowed


def test_statsd_in_a_flood(start_promptd, database, channel, listener):
    promptd = start_promptd(statsd=f"127.0.0.1:{listener.port}")
    promptd.wait_line("INFO", "metrics are sent to StatsD")
    channel.publish_burst([channel.message(interview) for interview in database.interviews(2000)])
    promptd.settle(2000, timeout=60)
    wait_until(lambda: listener.count("rag.atomic_operation_success") == 2000, "every one", seen=listener.lines)
    assert all(len(datagram) <= 1432 for datagram in listener.datagrams)
    durations = listener.durations()
    assert len(durations) < 2000 and any(rate < 1 for _, rate in durations)
    assert abs(sum(1 / rate for _, rate in durations) - 2000) < 20


def test_the_last_counts_before_the_end(start_promptd, database, channel, listener):
    promptd = start_promptd(statsd=f"127.0.0.1:{listener.port}")
    promptd.wait_line("INFO", "metrics are sent to StatsD")
    for _ in range(5):
        channel.publish(database.interview())
    promptd.settle(5)
    promptd.stop()
    assert listener.count("rag.atomic_operation_success") == 5


def test_statsd_by_a_name_that_is_not_found(start_promptd, database, channel):
    promptd = start_promptd(statsd="no.such.name.invalid:8125")
    promptd.wait_line("WARNING", "StatsD server's name is not found")
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}


def test_a_statsd_that_is_away(start_promptd, database, channel, listener):
    listener.close()
    promptd = start_promptd(statsd=f"127.0.0.1:{listener.port}")
    channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}


@pytest.mark.parametrize("nothing", ["off", ""])
def test_no_statsd(start_promptd, database, channel, nothing):
    promptd = start_promptd(statsd=nothing)
    channel.publish(database.interview())
    promptd.settle(1)
    assert promptd.find("WARNING|INFO", "StatsD") == []


def test_what_is_no_statsd_server(start_promptd):
    promptd = start_promptd("--statsd", "localhost", ready=False)
    assert promptd.wait_exit() == 64
    assert "statsd" in promptd.tail() and "has no port" in promptd.tail()
