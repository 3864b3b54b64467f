# SPDX-License-Identifier: MIT
"""A real Prometheus, with the shipped configuration but for addresses and intervals, scrapes a real promptd."""

import json
import os
import re
import shutil
import urllib.parse
import urllib.request

import pytest

from support.expect import detected_line
from support.postgres import ROLE
from support.process import Port, end, spawn, wait_for_server
from support.wait import wait_until

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "deploy/monitoring")
METRIC = re.compile(r"\b(?:rag|promptd)_[a-z_]+\b")
SERIES = re.compile(r"^([a-z_]+)[{ ]", re.MULTILINE)


class Prometheus:
    def __init__(self, folder, target):
        self.log_path = os.path.join(folder, "prometheus.log")
        self._port = Port()
        self._url = f"http://127.0.0.1:{self._port.number}"
        shutil.copy(os.path.join(FOLDER, "promptd.rules.yml"), folder)
        with open(os.path.join(FOLDER, "prometheus.yml"), encoding="utf-8") as file:
            shipped = file.read()
        assert shipped.count("15s") == 2 and shipped.count('["127.0.0.1:9797"]') == 1
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(shipped.replace("15s", "1s").replace("127.0.0.1:9797", target))
        with open(self.log_path, "wb") as log:
            self._process = spawn(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                                   f"--web.listen-address=127.0.0.1:{self._port.number}"], stdout=log, stderr=log)
        wait_for_server(self._process, self._answers, "Prometheus", self.log_path)

    def _answers(self):
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, path, **parameters):
        """The data of an API call that must succeed."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            reply = json.load(answer)
        assert reply["status"] == "success", reply
        return reply["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def firing(self):
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    def close(self):
        end(self._process)
        self._port.release()


@pytest.fixture
def watch(new_folder, closing):
    """watch(promptd): a Prometheus that has scraped it."""
    def start(promptd):
        prometheus = closing(Prometheus(new_folder("prometheus"), promptd.admin_url.split("//")[1]))
        wait_until(lambda: prometheus.query('promptd_ready{job="promptd"} == 1'), "Prometheus to scrape", 20,
                   interval=0.1)
        return prometheus

    return start


def exported(promptd):
    with urllib.request.urlopen(promptd.admin_url + "/metrics", timeout=10) as answer:
        return set(SERIES.findall(answer.read().decode()))


def test_an_orphan_raises_its_alert(start_promptd, watch, database, channel):
    promptd = start_promptd(atomicity="compensate")
    prometheus = watch(promptd)
    assert prometheus.firing() == {}
    database.raise_on("interviews", "update", "not ready", when="new.status = 'ready'")
    database.execute(f"revoke delete on interview_enhanced_prompts from {ROLE}")
    message = channel.publish(database.interview())
    promptd.wait_line("CRITICAL", detected_line(message))
    alert = wait_until(lambda: prometheus.firing().get("PromptdOrphanedPrompt"), "the alert", 20, interval=0.1)
    assert alert["labels"]["severity"] == "critical" and alert["labels"]["instance"] in promptd.admin_url
    assert alert["annotations"]["runbook_url"] == "docs/RUNBOOK.md#promptdorphanedprompt"


def test_rules_name_only_what_exists(start_promptd, watch):
    promptd = start_promptd()
    known = exported(promptd)
    groups = watch(promptd).ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 10 and all(rule["health"] in ("ok", "unknown") for rule in rules)
    for rule in rules:
        assert set(METRIC.findall(rule["query"])) <= known, rule["name"]
        assert rule["annotations"]["runbook_url"] == "docs/RUNBOOK.md#" + rule["name"].lower()
        assert rule["annotations"]["summary"] and rule["annotations"]["description"] and rule["labels"]["severity"]


def dashboard_queries():
    with open(os.path.join(FOLDER, "grafana-dashboard.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["description"]
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]


def test_dashboard_shows_what_exists(start_promptd, watch, database, channel, new_folder):
    """Every query names only metrics of promptd's, is understood by Prometheus, and finds something."""
    promptd = start_promptd(spool_dir=new_folder("spool"))
    known = exported(promptd)
    prometheus = watch(promptd)
    for _ in range(3):
        channel.publish(database.interview())
    channel.publish_raw(b"not JSON")
    promptd.settle(4)
    values = {"$__rate_interval": "1m", "$job": "promptd", "$instance": ".*"}
    for title, expression in dashboard_queries():
        names = set(METRIC.findall(expression))
        assert names <= known or names <= {"up"}, f"{title}: {names - known}"
        for variable, value in values.items():
            expression = expression.replace(variable, value)
        wait_until(lambda: prometheus.query(expression), f"{title}: {expression}", 15, interval=0.2)
