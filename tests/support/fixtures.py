# SPDX-License-Identifier: MIT
"""The fixtures: servers for a session or a module, a database and a channel for a test, and promptd."""

import os
import shutil
import subprocess
import tempfile

import pytest

from .pgbouncer import PROGRAM as PGBOUNCER
from .pgbouncer import PgBouncer
from .network import FarHost
from .postgres import Cluster
from .process import tail
from .promptctl import Promptctl
from .promptd import Promptd, run
from .proxy import Proxy
from .queue import MODES, Queue
from .redis_server import Channel, RedisServer
from .spool import Spool

ATOMICITIES = ("compensate", "transaction")

_running = pytest.StashKey()


def _base_folder():
    """Memory where there is enough of it: making a database is then twenty times as fast as on a slow disk."""
    memory = "/dev/shm"
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30:
        return memory
    return tempfile.gettempdir()


@pytest.fixture(scope="session")
def workdir():
    """A folder with a short name (unix sockets) that other accounts may pass through."""
    path = tempfile.mkdtemp(prefix="promptd-test-", dir=_base_folder())
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def new_folder(workdir):
    count = 0

    def make(name):
        nonlocal count
        count += 1
        path = os.path.join(workdir, f"{name}{count}")
        os.mkdir(path, 0o755)
        return path

    return make


@pytest.fixture(scope="session")
def postgres(new_folder):
    repository = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    cluster = Cluster(new_folder("pg"), os.environ.get("PROMPTD_SQL_DIR") or os.path.join(repository, "sql"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def redis_server(new_folder):
    server = RedisServer(new_folder("redis"))
    yield server
    server.close()


@pytest.fixture
def closing():
    """closing(thing): has it closed when the test is over, and after its promptd has been."""
    things = []

    def remember(thing):
        things.append(thing)
        return thing

    yield remember
    for thing in reversed(things):
        thing.close()


@pytest.fixture
def own_redis(new_folder, closing):
    """A server of this test's own, to be stopped, restarted and reconfigured."""
    return closing(RedisServer(new_folder("redis")))


@pytest.fixture
def own_channel(own_redis):
    return Channel(own_redis)


@pytest.fixture
def far_host(closing):
    try:
        return closing(FarHost())
    except OSError as error:
        pytest.skip(f"needs root and network namespaces (iproute2): {error}")


@pytest.fixture
def far_redis(new_folder, far_host, closing):
    """A server at the other end of a link that can be taken down."""
    return closing(RedisServer(new_folder("redis"), "--protected-mode", "no", host=far_host))


@pytest.fixture
def database(postgres):
    database = postgres.new_database()
    yield database
    database.close()


@pytest.fixture
def channel(redis_server):
    return Channel(redis_server)


@pytest.fixture(params=MODES)
def queue(request, redis_server):
    return Queue(redis_server, request.param)


@pytest.fixture(params=ATOMICITIES)
def atomicity(request):
    return request.param


@pytest.fixture
def new_proxy(closing):
    return lambda target: closing(Proxy(target))


@pytest.fixture
def database_proxy(new_proxy, postgres):
    return new_proxy(("127.0.0.1", postgres.port))


@pytest.fixture
def small_disk(new_folder):
    """A file system of two megabytes, to be filled."""
    folder = new_folder("disk")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", folder], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("needs root and CAP_SYS_ADMIN (to mount a small file system)")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def new_pgbouncer(new_folder, database, closing):
    if PGBOUNCER is None:
        pytest.skip("needs pgbouncer (Debian package pgbouncer)")
    return lambda pool_size, **options: closing(PgBouncer(new_folder("pgbouncer"), database, pool_size, **options))


@pytest.fixture
def start_promptd(request, new_folder, database, channel, closing):
    """start_promptd(*arguments, ready=True, on=channel, config=file, extra={}, shell='exec "$@" 2>&-', **settings): a promptd,
    ready to receive.

    It works on the test's database and channel unless the settings say otherwise. When the test is over each one is
    stopped and judged: see Promptd.judge.
    """
    running = request.node.stash.setdefault(_running, [])
    folder = new_folder("promptd")
    channels = [channel]
    empty = os.path.join(folder, "empty.conf")  # keeps the machine's own settings away
    open(empty, "w", encoding="ascii").close()

    def start(*arguments, ready=True, on=None, config=empty, extra=None, stderr=None, sessions=None, shell=None,
              **settings):
        on = on or channel
        channels.append(on)
        defaults = {"redis_url": on.server.url, "redis_channel": on.name, "database_url": database.url(),
                    "log_level": "debug", "admin_listen": "127.0.0.1:0", "backoff_max_s": 1, "retry_base_ms": 10, "retry_max_ms": 100}
        chosen = {name: value for name, value in {**defaults, **settings}.items() if value is not None}
        listeners, others = on.server.listeners(), [session[0] for session in database.sessions()]
        promptd = Promptd(folder, f"promptd{len(running) + 1}", chosen, ["--config", config, *arguments], extra, stderr,
                          shell)
        running.append(promptd)
        if ready:
            promptd.wait_ready(on, database, listeners, others, sessions)
        return promptd

    yield start
    failures = []
    for promptd in running:
        try:
            promptd.judge([prompt for each in channels for prompt in each.published], channel.marker)
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="module")
def has_tls(new_folder):
    return run(new_folder("probe"), "--check", "--redis-url=rediss://localhost").returncode == 0


@pytest.fixture
def tls(has_tls):
    if not has_tls:
        pytest.skip("needs a hiredis with TLS (Debian 13)")


@pytest.fixture
def without_tls(has_tls):
    if has_tls:
        pytest.skip("needs a hiredis without TLS (Debian 12)")


@pytest.fixture
def start_taking(start_promptd, queue):
    """start_taking(**settings): a promptd that takes messages from the test's queue and has the database."""
    def start(**settings):
        promptd = start_promptd(on=queue, redis_mode=queue.mode, ready=False, **settings)
        promptd.wait_line("INFO", "taking messages")
        promptd.wait_line("INFO", "database connected")
        return promptd

    return start


@pytest.fixture
def promptd(start_promptd, atomicity):
    """A promptd as shipped, in either atomicity."""
    return start_promptd(atomicity=atomicity)


@pytest.fixture
def promptctl(new_folder, redis_server, database, channel):
    """promptctl(*arguments, **settings) with the test's own Redis, channel and database."""
    folder = new_folder("promptctl")
    empty = os.path.join(folder, "empty.conf")
    open(empty, "w", encoding="ascii").close()
    return Promptctl(folder, empty, redis_url=redis_server.url, redis_channel=channel.name, database_url=database.url())


def _is_honest_skip(report):
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return not hasattr(report, "wasxfail") and "needs " in reason


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the logs of a failed test; a skip that does not name what the machine lacks is a failure."""
    report = (yield).get_result()
    if report.skipped and not _is_honest_skip(report):
        report.outcome = "failed"
        report.longrepr = f"a skip must name what the machine lacks (\"needs ...\"): {report.longrepr}"
    if report.failed:
        for promptd in item.stash.get(_running, []):
            report.sections.append((f"log of {promptd.name}", promptd.tail()))
        cluster = item.funcargs.get("postgres") if hasattr(item, "funcargs") else None
        if cluster is not None:
            report.sections.append(("log of PostgreSQL", tail(cluster.log_path, 12)))


@pytest.fixture
def spool(new_folder):
    return Spool(new_folder("spool"))


@pytest.fixture
def start_spooled(start_promptd, spool, database, channel, database_proxy):
    """A promptd with the spool, its database behind the proxy."""
    def begin(ready=True, **settings):
        channel.wait_subscribers(0)
        promptd = start_promptd(ready=ready, **{"spool_dir": spool.folder,
                                                "database_url": database.url(database_proxy.port), **settings})
        if not ready:
            channel.wait_subscribers(1)
        return promptd

    return begin
