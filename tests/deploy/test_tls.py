# SPDX-License-Identifier: MIT
"""Debian 13 has a hiredis with TLS: the package is installed there, and the integration tests of what comes from Redis are
run on it."""

import re
import shutil

from debian import CHECKOUT

PACKAGES = "redis-server postgresql openssl iproute2 python3 python3-pytest python3-redis python3-psycopg"
FILES = ("integration/test_tls.py integration/test_first_light.py integration/test_large_messages.py "
         "integration/test_strange_peers.py integration/test_ctl_strange_peers.py")


def test_the_package_speaks_tls(debian13):
    """In a network of its own, so that no port is anybody else's."""
    root = debian13.base.copy("trixie-tls")
    root.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    root.write("etc/postgresql-common/createcluster.d/none.conf", "create_main_cluster = false\n")
    package = debian13.packages[0]
    shutil.copy2(package, root.file("root"))
    for name in ("tests", "sql"):
        shutil.copytree(CHECKOUT / name, root.file(f"source/{name}"), ignore=shutil.ignore_patterns("__pycache__"))
    try:
        with root.mounted():
            root.install(f"{PACKAGES} /root/{package.name}")
            report = root.run(
                f"""cd /source/tests
                export PROMPTD_BINARY=/usr/sbin/promptd PROMPTCTL_BINARY=/usr/bin/promptctl PYTHONDONTWRITEBYTECODE=1
                unshare --net sh -ec 'ip link set lo up
                exec python3 -m pytest -p no:cacheprovider -rs -q --tb=short {FILES}' 2>&1"""
            )
    finally:
        shutil.rmtree(root.path)
    assert int(re.search(r"(\d+) passed", report)[1]) > 30, report
    assert "needs a hiredis with TLS" not in report and "needs openssl" not in report, report
