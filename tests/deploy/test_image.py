# SPDX-License-Identifier: MIT
"""The container image: built from the checkout, and run as deploy/docker/compose.yaml does."""

import json
import os
import pathlib
import threading
import uuid

import pytest

from containers import IMAGE, SERVERS
from debian import CHECKOUT, FOLDER
from support.certificates import Authority
from support.wait import wait_until

INIT = "/docker-entrypoint-initdb.d"
URL = "postgresql://promptd:not-a-secret@127.0.0.1/interviewly"
PODS = [f"pod-{number}" for number in range(1, 7)]


@pytest.fixture(scope="module", autouse=True)
def tidy(podman):
    yield
    for name in ("promptd", "second", "third", "fourth", *PODS, "servers"):  # those that use another's network go before it
        podman.attempt("rm", "--force", "--volumes", "--time", "2", name)


def make_certificates():
    folder = FOLDER / "tls"
    folder.mkdir()
    made = Authority(str(folder)).issue("server")
    pathlib.Path(made.key).chmod(0o644)  # Redis runs as another user there
    return folder


@pytest.fixture(scope="module")
def servers(podman):
    """One container with Redis and PostgreSQL, made by the files that the compose file mounts."""
    podman.build("tests/deploy/servers.Dockerfile", SERVERS)
    secret = FOLDER / "promptd_password"
    secret.write_text("not-a-secret")
    secret.chmod(0o644)
    mounts = [f"{CHECKOUT}/sql/{name}.sql:{INIT}/{name}.sql:ro" for name in ("01_schema", "02_role", "03_views")]
    mounts.append(f"{CHECKOUT}/deploy/docker/password.sh:{INIT}/04_password.sh:ro")
    mounts.append(f"{secret}:/run/secrets/promptd_password:ro")
    mounts.append(f"{make_certificates()}:/tls:ro")
    options = [word for mount in mounts for word in ("--volume", mount)]
    podman("run", "--detach", "--name", "servers", "--network", "none", "--env", "POSTGRES_DB=interviewly", *options,
           SERVERS, "all")  # fmt: skip
    wait_until(lambda: "servers are ready" in podman("logs", "servers"), "Redis and PostgreSQL", 60,
               seen=lambda: podman("logs", "servers")[-3000:], interval=0.5)  # fmt: skip
    return "servers"


def start(podman, name, *options):
    secret = FOLDER / "database_url"
    secret.write_text(URL + "\n")
    secret.chmod(0o644)
    podman(
        "run", "--detach", "--name", name, "--network", "container:servers", "--read-only", "--read-only-tmpfs=false",
        "--cap-drop", "all", "--security-opt", "no-new-privileges", "--volume", "spool:/var/lib/promptd",
        "--volume", f"{secret}:/run/secrets/database_url:ro",
        "--env", "PROMPTD_DATABASE_URL_FILE=/run/secrets/database_url", "--env", "PROMPTD_ADMIN_LISTEN=0.0.0.0:9797",
        *options, IMAGE,
    )  # fmt: skip
    return name


def sql(podman, statement):
    psql = ["psql", "-h", "/tmp", "-AtX", "-v", "ON_ERROR_STOP=1"]
    return podman("exec", "servers", *psql, "-c", statement, "interviewly")


def publish(podman, count):
    ids = [str(uuid.uuid4()) for _ in range(count)]
    sql(podman, "insert into interviews (id, status) values " + ", ".join(f"('{i}', 'enhancing')" for i in ids))
    send(podman, ids)
    return ids


def send(podman, ids):
    messages = (json.dumps({"interview_id": i, "enhanced_prompt": f"Tell me about project {i}."}) for i in ids)
    commands = "".join(f"PUBLISH interviewly:prompt-ready '=={message}'\n" for message in messages)
    answers = podman("exec", "--interactive", "servers", "redis-cli", text=commands).split()
    assert answers == ["1"] * len(ids), f"not exactly one listener: {answers}"


def ready(podman, ids):
    wanted = ", ".join(f"'{i}'" for i in ids)
    return int(sql(podman, f"select count(*) from interviews where status = 'ready' and id in ({wanted})"))


def wait_ready(podman, ids):
    wait_until(lambda: ready(podman, ids) == len(ids), f"{len(ids)} prompts to be stored", 60, interval=0.3,
               seen=lambda: ready(podman, ids))  # fmt: skip


def state(podman, name):
    return json.loads(podman.attempt("exec", name, "promptctl", "status", "--json")[1])


def wait_healthy(podman, name):
    wait_until(lambda: podman.attempt("healthcheck", "run", name)[0] == 0, "a healthy container", 60, interval=0.3,
               seen=lambda: podman("logs", name)[-3000:])  # fmt: skip


def test_what_the_image_says_of_itself(podman, image):
    config = image["Config"]
    assert config["User"] == "promptd"
    assert config["Entrypoint"] == ["/usr/sbin/promptd"] and not config.get("Cmd")
    assert image["Healthcheck"]["Test"] == ["CMD", "promptctl", "status"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    base = podman.inspect("image", "docker.io/library/debian:trixie-slim")["Size"]
    added = (image["Size"] - base) / 1e6
    podman.note(f"the image: {image['Size'] / 1e6:.0f} MB, {added:.0f} MB above its base")
    assert added < 60, f"{added:.0f} MB above its base"
    # podman complains on a machine without systemd that it has no timers for the health check.
    output = podman("run", "--rm", "--network", "none", "--no-healthcheck", IMAGE, "--version")
    assert output.splitlines()[-1].startswith("promptd ")


def test_it_runs_with_nothing_to_spare(podman, image, servers):
    name = start(podman, "promptd")
    wait_healthy(podman, name)
    status = podman.process_status(name)
    assert status["Uid"].split() == ["10001"] * 4
    assert status["CapEff"] == status["CapBnd"] == "0000000000000000"
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    wait_ready(podman, publish(podman, 100))
    resident = int(podman.process_status(name)["VmRSS"].split()[0]) / 1024
    podman.note(f"resident memory of promptd: {resident:.1f} MB")
    assert resident < 64
    assert "not-a-secret" not in podman("logs", name)


def test_a_stop_loses_nothing(podman, image, servers):
    before = state(podman, "promptd")["counters"]["received"]
    ids = publish(podman, 300)
    wait_until(lambda: state(podman, "promptd")["counters"]["received"] == before + 300, "the messages", 20)
    podman("stop", "--time", "10", "promptd")
    assert podman.inspect("container", "promptd")["State"]["ExitCode"] == 0
    assert podman("logs", "promptd").splitlines()[-1].endswith("stopped")
    start(podman, "second")
    wait_ready(podman, ids)


def test_the_spool_outlives_a_container_that_was_killed(podman, image, servers):
    name = "second"
    wait_healthy(podman, name)
    pg_ctl = ["exec", "--env", "PGDATA=/tmp/data", "servers", "/usr/lib/postgresql/17/bin/pg_ctl", "--wait"]
    ids = [str(uuid.uuid4()) for _ in range(20)]
    sql(podman, "insert into interviews (id, status) values " + ", ".join(f"('{i}', 'enhancing')" for i in ids))
    podman(*pg_ctl, "--mode", "fast", "stop")
    send(podman, ids)
    wait_until(lambda: state(podman, name)["spool"]["messages"] == 20, "the messages to be in the spool", 30)
    podman("kill", "--signal", "KILL", name)
    podman("wait", name)
    podman(*pg_ctl, "-o", "-k /tmp", "-l", "/tmp/postgres.log", "start")
    start(podman, "third")
    wait_ready(podman, ids)


def test_redis_by_tls(podman, image, servers):
    """With a CA of one's own; without naming it the server is refused."""
    podman.attempt("stop", "--time", "10", "third")
    url = "rediss://127.0.0.1:6380"
    code, output = podman.attempt(
        "run", "--rm", "--network", "container:servers", "--no-healthcheck", "--env", f"PROMPTD_REDIS_URL={url}",
        "--entrypoint", "promptctl", IMAGE, "check")  # fmt: skip
    assert code == 78 and "from a CA that is unknown here" in output, output
    name = start(podman, "fourth", "--env", f"PROMPTD_REDIS_URL={url}", "--env", "PROMPTD_REDIS_TLS_CA_FILE=/ca.crt",
                 "--volume", f"{FOLDER}/tls/ca.crt:/ca.crt:ro")  # fmt: skip
    wait_healthy(podman, name)
    wait_ready(podman, publish(podman, 100))
    assert "redis tls            TLSv1.3" in podman.attempt("exec", name, "promptctl", "check")[1]


def settings_of_kubernetes(port):
    """All pods of this test have one address: only their ports differ."""
    lines = (CHECKOUT / "deploy/kubernetes/base/promptd.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings["PROMPTD_ADMIN_LISTEN"] = f"127.0.0.1:{port}"
    for name in ("database_url", "redis_url"):
        settings[f"PROMPTD_{name.upper()}_FILE"] = f"/run/secrets/promptd/{name}"
    return [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]


def start_pod(podman, name):
    """As the Deployment of deploy/kubernetes does; once it is ready."""
    secret = FOLDER / "urls"
    secret.mkdir(exist_ok=True)
    for file, url in (("database_url", URL), ("redis_url", "redis://127.0.0.1:6379")):
        (secret / file).write_text(url)
        (secret / file).chmod(0o440)
        os.chown(secret / file, 0, 10001)  # fsGroup
    podman(
        "run", "--detach", "--name", name, "--network", "container:servers", "--user", "10001:10001", "--read-only",
        "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--no-healthcheck",
        "--volume", f"{secret}:/run/secrets/promptd:ro", *settings_of_kubernetes(9800 + int(name[-1])), IMAGE,
    )  # fmt: skip
    wait_until(lambda: podman.attempt("exec", name, "promptctl", "status", "--quiet")[0] == 0, "a ready pod", 60,
               interval=0.3, seen=lambda: podman("logs", name)[-3000:])  # fmt: skip
    return name


class Workflow(threading.Thread):
    """Adds entries to the stream until it is told to stop, twenty each time."""

    def __init__(self, podman):
        super().__init__()
        self.podman, self.ids, self.over = podman, [], threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            ids = [str(uuid.uuid4()) for _ in range(20)]
            sql(self.podman, "insert into interviews (id, status) values " + ", ".join(f"('{i}', 'enhancing')" for i in ids))
            messages = (json.dumps({"interview_id": i, "enhanced_prompt": f"Tell me about project {i}."}) for i in ids)
            commands = "".join(f"XADD interviewly:prompt-ready * message '=={message}'\n" for message in messages)
            self.podman("exec", "--interactive", "servers", "redis-cli", text=commands)
            self.ids += ids

    def end(self):
        self.over.set()
        self.join()


def test_an_update_as_kubernetes_does_it(podman, image, servers):
    """Three pods, each replaced once its successor is ready, by SIGTERM, while messages come all the time."""
    podman.attempt("stop", "--time", "10", "fourth")
    running = [start_pod(podman, name) for name in PODS[:3]]
    workflow = Workflow(podman)
    workflow.start()
    try:
        for name in PODS[3:]:
            start_pod(podman, name)
            old = running.pop(0)
            podman("stop", "--time", "30", old)
            assert podman.inspect("container", old)["State"]["ExitCode"] == 0
            before = len(workflow.ids)
            wait_until(lambda: len(workflow.ids) > before, "more messages", 30)
    finally:
        workflow.end()
    wait_ready(podman, workflow.ids)
    stored = sum(podman("logs", name).count("prompt stored for interview") for name in PODS)
    assert stored == len(workflow.ids), "a message was stored by two, or by nobody"
    podman.note(f"an update of three pods: {stored} messages")
    for name in PODS:
        assert not any(level in podman("logs", name) for level in (" ERROR ", " CRITICAL "))
