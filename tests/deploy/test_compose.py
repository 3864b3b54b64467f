# SPDX-License-Identifier: MIT
"""deploy/docker/compose.yaml, brought up as a whole: docker-compose speaks to podman, in a network that leads nowhere."""

import json
import os
import re
import secrets
import shutil
import subprocess
import uuid

import pytest

from containers import IMAGE, SERVERS
from debian import CHECKOUT, FOLDER, run
from support.wait import wait_until

COMPOSE = CHECKOUT / "deploy/docker/compose.yaml"
OVERRIDE = CHECKOUT / "tests/deploy/compose.machine.yaml"
PORTS = '    ports: ["127.0.0.1:9090:9090"]\n'  # nothing can be published where all share one network
STAND_INS = {
    "docker.io/library/promptd:latest": IMAGE,
    "docker.io/library/redis:8": SERVERS,
    "docker.io/library/postgres:17": SERVERS,
    "docker.io/prom/prometheus:latest": SERVERS,
}


class Stack:
    def __init__(self, podman):
        self.podman = podman
        self.folder = FOLDER / "compose"
        self.folder.mkdir()
        text = COMPOSE.read_text()
        assert text.count(PORTS) == 1
        (self.folder / "compose.yaml").write_text(text.replace(PORTS, ""))
        socket = self.folder / "podman.sock"
        self.environment = os.environ | {
            "DOCKER_HOST": f"unix://{socket}",
            "SECRETS": str(self.folder),
            "COMPOSE_PROJECT_NAME": "stack",
        }
        # All containers have the network of the service: a closed one.
        self.service = subprocess.Popen(
            ["unshare", "--net", "sh", "-ec", f"ip link set lo up; exec podman system service --time=0 unix://{socket}"],
            env=podman.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(socket.exists, "podman's socket", 20)
            self.write_secrets()
        except BaseException:
            self.end_service()
            raise

    def write_secrets(self):
        """As the compose file says that people should."""
        self.password = secrets.token_hex(16)
        url = f"postgresql://promptd:{self.password}@postgres/interviewly"
        for name, text in {
            "postgres_password": secrets.token_hex(16),
            "promptd_password": self.password,
            "database_url": url,
        }.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o644)

    def compose(self, *words):
        command = ["docker-compose", "--project-directory", COMPOSE.parent, "-f", self.folder / "compose.yaml", "-f", OVERRIDE]
        output = run(*command, *words, env=self.environment)
        self.podman.note(f"# docker-compose {' '.join(words)}\n{output}")
        return output

    def inside(self, *command, env=None):
        """In the network of the services."""
        return run("nsenter", f"--net=/proc/{self.service.pid}/ns/net", *command, env=env).strip()

    def run_in(self, service, *command):
        return self.inside("podman", "exec", self.container(service), *command, env=self.podman.environment)

    def log(self, service):
        return self.podman("logs", self.container(service))

    def get(self, url):
        script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
        return self.inside("/usr/bin/python3", "-c", script, url)

    def sql(self, statement):
        return self.run_in("postgres", "psql", "-h", "/tmp", "-AtX", "-c", statement, "interviewly")

    def query(self, expression):
        """What Prometheus knows: {labels that matter: value}."""
        answer = json.loads(self.get(f"http://127.0.0.1:9090/api/v1/query?query={expression}"))
        return [float(result["value"][1]) for result in answer["data"]["result"]]

    def close(self):
        try:
            self.compose("down", "--volumes", "--timeout", "10")
        finally:
            self.end_service()

    def end_service(self):
        self.service.terminate()
        self.service.wait(20)

    def container(self, service):
        return re.search(r"^[0-9a-f]{12,64}$", self.compose("ps", "-q", service), re.M)[0]


@pytest.fixture(scope="module")
def stack(podman, image):
    for program in ("docker-compose", "ip", "nsenter"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    podman.build("tests/deploy/servers.Dockerfile", SERVERS)
    for name, tag in STAND_INS.items():
        podman("tag", tag, name)
    stack = Stack(podman)
    try:
        stack.compose("up", "--detach", "--no-build")
        yield stack
    finally:
        stack.close()


def state(stack):
    return json.loads(stack.get("http://127.0.0.1:9797/status"))


def answers(stack, url):
    try:
        return stack.get(url)
    except AssertionError:  # not yet
        return None


def test_the_services_are_those_of_the_file(stack):
    services = stack.compose("config", "--services").split()
    assert sorted(services) == ["postgres", "prometheus", "promptd", "redis"]


def test_a_message_goes_all_the_way(stack):
    wait_until(lambda: answers(stack, "http://127.0.0.1:9797/readyz"), "promptd to be ready", 60, interval=0.5,
               seen=lambda: stack.log("promptd")[-3000:])  # fmt: skip
    interview = str(uuid.uuid4())
    stack.sql(f"insert into interviews (id, status) values ('{interview}', 'enhancing')")
    message = json.dumps({"interview_id": interview, "enhanced_prompt": "Tell me about your last project."})
    assert stack.run_in("redis", "redis-cli", "publish", "interviewly:prompt-ready", f"=={message}\n") == "1"
    wait_until(lambda: stack.sql(f"select status from interviews where id = '{interview}'") == "ready",
               "the interview to be ready", 20, interval=0.3)  # fmt: skip
    assert state(stack)["counters"]["success"] == 1
    assert stack.password not in stack.log("promptd")


def test_prometheus_has_promptd_and_the_rules(stack):
    wait_until(lambda: answers(stack, "http://127.0.0.1:9090/-/ready"), "Prometheus", 30, interval=0.5,
               seen=lambda: stack.log("prometheus")[-3000:])  # fmt: skip
    wait_until(lambda: stack.query("rag_atomic_operation_success_total") == [1.0], "the message to be in the metrics", 40,
               interval=0.5, seen=lambda: stack.get("http://127.0.0.1:9090/api/v1/targets"))  # fmt: skip
    rules = json.loads(stack.get("http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
    alerts = (CHECKOUT / "deploy/monitoring/promptd.rules.yml").read_text()
    loaded = {rule["name"] for group in rules for rule in group["rules"]}
    assert loaded == set(re.findall(r"alert: (\w+)", alerts)) != set()


def test_the_spool_is_a_volume(stack):
    """Gone and made again, promptd still has what it had on disk: here a dead letter."""
    late = json.dumps({"interview_id": str(uuid.uuid4()), "enhanced_prompt": "Nobody knows this interview."})
    assert stack.run_in("redis", "redis-cli", "publish", "interviewly:prompt-ready", late) == "1"
    wait_until(lambda: state(stack)["spool"]["dead_letters"] == 1, "a dead letter", 20, interval=0.3)
    stack.compose("up", "--detach", "--no-build", "--force-recreate", "--no-deps", "promptd")
    wait_until(lambda: answers(stack, "http://127.0.0.1:9797/readyz"), "promptd to be ready again", 60, interval=0.5)
    assert state(stack)["counters"]["received"] == 0 and state(stack)["spool"]["dead_letters"] == 1
