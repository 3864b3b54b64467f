# SPDX-License-Identifier: MIT
"""The Debian package and its service, on a booted Debian 12 and 13: one story a release, told in the order below."""

import pytest

from debian import run
from machine import Failed
from support.spool import make_version_1
from support.wait import wait_until

SETTINGS = "/etc/promptd/promptd.conf"
URL = "postgresql:///interviewly?host=/run/postgresql"
DROP_IN = "/run/systemd/system/promptd.service.d/test.conf"


# --- the package itself


def test_lintian_finds_nothing(debian):
    report = run("lintian", "--tag-display-limit", "0", "--fail-on", "error,warning", debian.packages[0])
    findings = [line for line in report.splitlines() if line[:2] in ("E:", "W:")]
    assert findings == []


# --- install, with Redis and PostgreSQL down


def test_it_installs_and_starts_during_an_outage(machine):
    machine.run("apt-get -y install --no-install-recommends /root/promptd_*-1_*.deb")
    assert machine.is_active()
    assert machine.run("systemctl is-enabled promptd") == "enabled"
    assert machine.run("stat -c '%a %U:%G' /var/lib/promptd /var/log/promptd").split("\n") == [
        "700 promptd:promptd",
        "750 promptd:promptd",
    ]
    assert machine.run(f"stat -c '%a %U:%G' {SETTINGS}") == "640 root:promptd"
    assert machine.run("getent passwd promptd").endswith(":/var/lib/promptd:/usr/sbin/nologin")
    machine.wait_journal("Redis cannot be reached")
    machine.wait_status("Redis")
    assert "database" in machine.show("StatusText")
    assert machine.is_active()


def test_the_unit_is_hardened(machine):
    assert machine.run("systemd-analyze verify --man=no promptd.service") == ""
    report = machine.run(
        "systemd-analyze security --offline=true --threshold=15 $(systemctl show -P FragmentPath promptd)"
    )
    assert "Overall exposure level" in report
    pid = machine.show("MainPID")
    status = machine.run(f"cat /proc/{pid}/status")
    assert "CapEff:\t0000000000000000" in status and "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status


def test_the_servers_come_and_messages_are_stored(machine):
    machine.run("systemctl start redis-server")
    machine.postgres("start")
    machine.run("su postgres -c 'createdb interviewly'")
    for name in ("01_schema", "02_role", "03_views"):
        machine.run(f"su postgres -c 'psql -q -v ON_ERROR_STOP=1 interviewly' </usr/share/promptd/sql/{name}.sql")
    machine.run(f"sed -i 's|^#database_url =.*|database_url = {URL}|' {SETTINGS}")
    machine.run("systemctl restart promptd")
    machine.wait_status("Ready;")
    machine.wait_ready(machine.publish(20))


# --- the service


def test_reload(machine):
    pid = machine.show("MainPID")
    machine.run(f"sed -i 's/^#batch_max.*//; $ a batch_max = 7' {SETTINGS}")
    machine.run("systemctl reload promptd")
    machine.wait_journal("settings reloaded")
    machine.run(f"echo 'batch_max = 8' >>{SETTINGS}")
    machine.run("systemctl reload promptd")
    machine.wait_journal("settings not reloaded; nothing was changed")
    machine.run(f"sed -i '/^batch_max/d' {SETTINGS}; systemctl reload promptd")
    wait_until(machine.is_active, "the unit to be active after the reload", seen=lambda: machine.show("ActiveState"))
    assert machine.show("MainPID") == pid


@pytest.mark.parametrize("connections", [30, 64])
def test_any_number_of_connections(machine, connections):
    """With half of the unit's tasks: TasksMax= itself need not be enforced where the tests run."""
    limit = int(machine.show("TasksMax"))
    machine.run(f"mkdir -p {DROP_IN.rpartition('/')[0]}; printf '[Service]\\nLimitNPROC={limit // 2}\\n' >{DROP_IN}")
    machine.run(f"echo 'db_connections = {connections}' >>{SETTINGS}; systemctl daemon-reload; systemctl restart promptd")
    machine.wait_status("Ready;")
    wait_until(lambda: machine.gauge("promptd_db_connections") == connections, f"{connections} connections", 30,
               seen=lambda: (machine.gauge("promptd_db_connections"), machine.journal("--lines", "20")))  # fmt: skip
    machine.wait_ready(machine.publish(100))
    assert machine.show("NRestarts") == "0"
    assert int(machine.run(f"ls /proc/{machine.show('MainPID')}/task | wc -l")) < limit // 2
    machine.run(f"sed -i '/^db_connections/d' {SETTINGS}; rm {DROP_IN}; systemctl daemon-reload; systemctl restart promptd")
    machine.wait_status("Ready;")


def test_a_url_from_a_credential(machine):
    machine.run("mkdir -p -m 700 /etc/credstore")
    machine.run(
        f"umask 077; echo '{URL}&application_name=by-credential' >/etc/credstore/promptd.database_url"
    )
    machine.run("systemctl restart promptd")
    machine.wait_status("Ready;")
    assert machine.sql("select count(*) > 0 from pg_stat_activity where application_name = 'by-credential'") == "t"
    machine.run("rm /etc/credstore/promptd.database_url; systemctl restart promptd")
    machine.wait_status("Ready;")
    assert machine.sql("select count(*) from pg_stat_activity where application_name = 'by-credential'") == "0"


def test_an_orphan_is_critical_in_the_journal(machine):
    machine.sql("""
        create function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$;
        create trigger refuse_ready before update on interviews for each row when (new.status = 'ready')
            execute function refuse();
        create trigger refuse_delete before delete on interview_enhanced_prompts for each row execute function refuse();
    """)
    (interview,) = machine.publish(1)
    line = f"ORPHANED PROMPT DETECTED for interview {interview}. Prompt ID: "
    wait_until(lambda: line in machine.run("journalctl -u promptd -p crit -o cat --no-pager"), "the orphan's line", 20)
    assert "prompt stored for interview" not in machine.run("journalctl -u promptd -p crit -o cat --no-pager")
    machine.sql("drop function refuse() cascade; delete from interview_enhanced_prompts where interview_id = "
                f"'{interview}'")  # fmt: skip


def test_a_hang_ends_by_the_watchdog_and_loses_nothing(machine):
    machine.run(f"mkdir -p {DROP_IN.rpartition('/')[0]}; printf '[Service]\\nWatchdogSec=2s\\n' >{DROP_IN}")
    machine.run("systemctl daemon-reload; systemctl restart promptd")
    machine.wait_status("Ready;")
    ids = machine.publish_into_outage(30)
    pid = machine.show("MainPID")
    machine.run(f"kill -STOP {pid}")
    wait_until(lambda: machine.show("NRestarts") == "1", "the watchdog's restart", 60,
               seen=lambda: machine.run("systemctl status promptd; true"))  # fmt: skip
    machine.run("journalctl -u promptd --no-pager | grep -i watchdog")
    assert "watchdog" in machine.run("journalctl --no-pager | grep 'promptd.service: .*result'")
    assert machine.show("MainPID") != pid
    machine.postgres("start")
    machine.wait_ready(ids)
    machine.run(f"rm {DROP_IN}; systemctl daemon-reload")


def test_a_stop_loses_nothing(machine):
    machine.run("systemctl restart promptd")
    machine.wait_status("Ready;")
    ids = machine.publish(200)
    wait_until(lambda: machine.gauge("rag_messages_received_total") == 200, "the messages to be received", 20)
    machine.run("systemctl stop promptd")
    assert machine.shows("Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    machine.run("systemctl start promptd")
    machine.wait_ready(ids)


def test_bad_settings_do_not_loop(machine):
    machine.run(f"echo 'batch_max = many' >>{SETTINGS}")
    with pytest.raises(Failed):
        machine.run("systemctl restart promptd")
    assert machine.shows("ActiveState", "ExecMainStatus", "NRestarts") == {
        "ActiveState": "failed",
        "ExecMainStatus": "78",
        "NRestarts": "0",
    }
    assert "setting batch_max: value" in machine.journal()
    machine.run(f"sed -i '/^batch_max/d' {SETTINGS}; systemctl restart promptd")
    machine.wait_status("Ready;")


# --- upgrade, reboot, removal


def test_an_upgrade_keeps_messages_that_wait(machine):
    ids = machine.publish_into_outage(50)
    before = machine.show("MainPID")
    machine.run("apt-get -y install --no-install-recommends /root/promptd_*-2_*.deb")
    assert machine.run("dpkg-query -W -f '${Version}' promptd").endswith("-2")
    assert machine.is_active() and machine.show("MainPID") != before
    assert "host=/run/postgresql" in machine.run(f"cat {SETTINGS}")
    machine.postgres("start")
    machine.wait_ready(ids)


def test_an_upgrade_from_0_1(machine):
    """As it leaves things: messages in a spool of format 1, and a database without promptd_unsettled. The messages wait
    until sql/ is applied, and then all of them are stored."""
    ids = machine.publish_into_outage(30)
    dead_letters = machine.gauge("promptd_dead_letters")
    machine.run("systemctl stop promptd")
    make_version_1(machine.root.path / "var/lib/promptd/spool.db")
    machine.postgres("start")
    machine.sql("drop table promptd_unsettled cascade")
    machine.run("systemctl start promptd")
    machine.wait_journal("the spool of promptd 0.1 was converted")
    machine.wait_journal("table promptd_unsettled is missing: apply sql/01_schema.sql")
    assert machine.gauge("promptd_spool_messages") == 30 and machine.gauge("promptd_ready") == 0
    status, output = machine.try_to("su promptd -s /bin/sh -c promptctl\\ check")
    assert status == 78 and "promptd_unsettled" in output
    for name in ("01_schema", "02_role", "03_views"):
        machine.run(f"su postgres -c 'psql -q -v ON_ERROR_STOP=1 interviewly' </usr/share/promptd/sql/{name}.sql")
    machine.wait_ready(ids)
    assert machine.gauge("promptd_dead_letters") == dead_letters
    machine.wait_status("Ready;")


def test_a_reboot_into_an_outage(machine):
    ids = machine.publish_into_outage(10)
    machine.power_off()
    machine.boot()
    wait_until(machine.is_active, "promptd to be active after the boot", seen=lambda: machine.show("ActiveState"))
    machine.wait_status("Redis")
    assert machine.run("systemctl is-system-running") == "running"
    machine.run("systemctl start redis-server")
    machine.postgres("start")
    machine.wait_ready(ids, 60)


def test_a_removal_keeps_what_is_not_the_packages(machine):
    machine.run("apt-get -y remove promptd")
    assert machine.show("ActiveState") == "inactive"
    machine.run(f"test ! -e /usr/sbin/promptd && test -e {SETTINGS} && test -e /var/lib/promptd/spool.db")


def test_a_purge_leaves_nothing_but_the_user(machine):
    machine.run("apt-get -y purge promptd")
    left = machine.run("find /etc /usr /var /run /lib -xdev -name '*promptd*' -print")
    assert [path for path in left.splitlines() if not path.startswith("/var/cache/apt/")] == []
    assert machine.try_to("dpkg-query -W promptd")[0] == 1
    assert "promptd" in machine.run("getent passwd promptd")
    assert machine.run("systemctl is-system-running") == "running"
