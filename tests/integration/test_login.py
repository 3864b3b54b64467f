# SPDX-License-Identifier: MIT
"""Ways to reach the servers, and what happens when the login is wrong: nothing ends, and it works once fixed."""

from urllib.parse import quote

import pytest

from support.expect import expect_stored, expect_stores_a_message
from support.postgres import PASSWORD_ROLE
from support.queue import MODES, Queue
from support.redis_server import Channel, RedisServer
from support.wait import wait_until

HARD_PASSWORD = "p@ss:w/ö%rd#?&=+ [x]'\\"


def redis_url(server, login="", rest=""):
    return f"redis://{login}127.0.0.1:{server.port}{rest}"


# Redis


def test_redis_password(start_promptd, database, own_redis, own_channel):
    own_redis.admin.config_set("requirepass", HARD_PASSWORD)
    own_redis.log_in(HARD_PASSWORD)
    promptd = start_promptd(on=own_channel, redis_url=redis_url(own_redis, f":{quote(HARD_PASSWORD, safe='')}@"))
    promptd.secrets += [HARD_PASSWORD, quote(HARD_PASSWORD, safe="")]
    expect_stores_a_message(promptd, database, own_channel)


def test_redis_user_and_password(start_promptd, database, own_redis, own_channel):
    own_redis.admin.acl_setuser("worker@site", enabled=True, passwords=["+" + HARD_PASSWORD], reset=True,
                                commands=["+auth", "+subscribe", "+client|setname", "+ping", "+select", "+hello"])
    own_redis.admin.execute_command("ACL", "SETUSER", "worker@site", f"&{own_channel.name}")
    login = f"{quote('worker@site', safe='')}:{quote(HARD_PASSWORD, safe='')}@"
    promptd = start_promptd(on=own_channel, redis_url=redis_url(own_redis, login))
    promptd.secrets += [HARD_PASSWORD, quote(HARD_PASSWORD, safe="")]
    expect_stores_a_message(promptd, database, own_channel)


def refusals(server):
    """How often Redis has turned someone away."""
    return sum(int(entry["count"]) for entry in server.admin.acl_log())


def test_wrong_redis_password_is_fixed(start_promptd, database, own_redis, own_channel):
    own_redis.admin.config_set("requirepass", "the right one")
    own_redis.log_in("the right one")
    promptd = start_promptd(ready=False, on=own_channel, redis_url=redis_url(own_redis, ":not-the-right-one@"))
    promptd.secrets += ["not-the-right-one"]
    line = promptd.wait_line("WARNING|ERROR|CRITICAL", "WRONGPASS")
    wait_until(lambda: refusals(own_redis) >= 3, "three attempts", 20)
    assert promptd.find("WARNING|ERROR|CRITICAL", "WRONGPASS") == [line]
    own_redis.admin.config_set("requirepass", "not-the-right-one")
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)


@pytest.mark.parametrize("events", [None, "the:events"])
@pytest.mark.parametrize("mode", ["pubsub", *MODES])
def test_wrong_redis_password_is_one_line_however_many_connections(start_promptd, own_redis, mode, events):
    own_redis.admin.config_set("requirepass", "the right one")
    own_redis.log_in("the right one")
    place = Channel(own_redis) if mode == "pubsub" else Queue(own_redis, mode)
    promptd = start_promptd(ready=False, on=place, redis_url=redis_url(own_redis, ":not-the-right-one@"), redis_mode=mode,
                            events_channel=events)
    wait_until(lambda: refusals(own_redis) >= 9, "three attempts of each", 20)
    promptd.one("WARNING|ERROR|CRITICAL", "WRONGPASS")
    own_redis.admin.config_set("requirepass", "not-the-right-one")
    promptd.wait_line("INFO", "subscribed" if mode == "pubsub" else "taking messages")
    if events:
        promptd.wait_line("INFO", "ready to publish")
    promptd.one("INFO", "Redis connected")
    promptd.one("WARNING|ERROR|CRITICAL", "WRONGPASS")


@pytest.mark.parametrize("login", ["worker:s3cretWORD@", ":s3cretWORD@", ":s3c@", ":s3c" + "x" * 200 + "@"])
def test_password_that_a_server_quotes_stays_out_of_sight(start_promptd, promptctl, new_folder, closing, login):
    """A server that has no AUTH says what its arguments were."""
    server = closing(RedisServer(new_folder("renamed"), "--rename-command", "AUTH", ""))
    url = f"redis://{login}127.0.0.1:{server.port}"
    promptd = start_promptd(ready=False, redis_url=url)
    promptd.wait_line("ERROR", "ERR (withheld")
    checked = promptctl("check", redis_url=url)
    assert checked.code == 78 and "ERR (withheld" in checked.out
    assert "s3c" not in "".join(line.raw for line in promptd.lines()) + checked.out + checked.err


def test_wrong_password_is_not_forgiven_where_anyone_may_come_in(start_promptd, database, own_redis, own_channel):
    """The default user needs no password here; subscribing as that one in spite of the refusal would hide the mistake."""
    own_redis.admin.acl_setuser("worker", enabled=True, passwords=["+right"], reset=True, commands=["+@all"])
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", "allchannels")
    promptd = start_promptd(ready=False, on=own_channel, redis_url=redis_url(own_redis, "worker:wrong@"))
    promptd.wait_line("WARNING|ERROR|CRITICAL", "WRONGPASS")
    wait_until(lambda: refusals(own_redis) >= 2, "two attempts", 20)
    assert own_channel.subscribers() == 0
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", ">wrong")
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)


def test_missing_redis_password_is_fixed(start_promptd, database, own_redis, own_channel):
    own_redis.admin.config_set("requirepass", "secret")
    own_redis.log_in("secret")
    promptd = start_promptd(ready=False, on=own_channel)
    promptd.wait_line("WARNING|ERROR|CRITICAL", "NOAUTH")
    own_redis.admin.config_set("requirepass", "")
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)


def test_user_without_the_channel_is_fixed(start_promptd, database, own_redis, own_channel):
    own_redis.admin.acl_setuser("worker", enabled=True, passwords=["+right"], reset=True, commands=["+@all"])
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", "resetchannels", "&another")
    promptd = start_promptd(ready=False, on=own_channel, redis_url=redis_url(own_redis, "worker:right@"))
    line = promptd.wait_line("WARNING|ERROR|CRITICAL", "NOPERM")
    wait_until(lambda: refusals(own_redis) >= 3, "three attempts", 20)
    assert promptd.find("WARNING|ERROR|CRITICAL", "NOPERM") == [line]
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", f"&{own_channel.name}")
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)


def test_permission_is_taken_away_and_given_back(start_promptd, database, own_redis, own_channel):
    """Redis ends the connections of a user whose channels are taken away."""
    own_redis.admin.acl_setuser("worker", enabled=True, passwords=["+right"], reset=True, commands=["+@all"])
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", f"&{own_channel.name}")
    promptd = start_promptd(on=own_channel, redis_url=redis_url(own_redis, "worker:right@"))
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", "resetchannels")
    promptd.wait_line("WARNING|ERROR|CRITICAL", "NOPERM")
    own_redis.admin.execute_command("ACL", "SETUSER", "worker", f"&{own_channel.name}")
    promptd.wait_ready(own_channel, database)
    expect_stores_a_message(promptd, database, own_channel)


@pytest.mark.parametrize("rest", ["/", "/0", "/3"])
def test_number_of_the_redis_database(start_promptd, database, channel, redis_server, rest):
    """Channels are not per database: the publisher's number does not matter."""
    promptd = start_promptd(redis_url=redis_url(redis_server, rest=rest))
    expect_stores_a_message(promptd, database, channel)


def test_redis_by_name(start_promptd, database, channel, redis_server):
    promptd = start_promptd(redis_url=f"redis://localhost:{redis_server.port}")
    expect_stores_a_message(promptd, database, channel)


def test_redis_by_unix_socket(start_promptd, database, channel, redis_server):
    promptd = start_promptd(redis_url=f"unix://{redis_server.socket}")
    expect_stores_a_message(promptd, database, channel)


def test_redis_name_that_does_not_exist(start_promptd):
    promptd = start_promptd(ready=False, redis_url="redis://no-such-host.invalid:6379")
    promptd.wait_line("WARNING|ERROR|CRITICAL", "no-such-host.invalid")


@pytest.mark.parametrize("name", ["plain", "with space", "ümläut:*[glob]", "%s%n%d"])
def test_channel_names(start_promptd, database, redis_server, name):
    channel = Channel(redis_server, f"{name}:{database.name}")
    expect_stores_a_message(start_promptd(on=channel), database, channel)


# PostgreSQL


@pytest.fixture
def password_role(postgres, database):
    """set_password(text): what the role with a password must give from now on."""
    def set_password(password):
        quoted = "null" if password is None else "'" + password.replace("'", "''") + "'"
        database.execute(f"alter role {PASSWORD_ROLE} password {quoted}")

    yield set_password
    set_password(None)


def test_database_password(start_promptd, database, channel, password_role):
    password_role(HARD_PASSWORD)
    promptd = start_promptd(database_url=database.url(user=PASSWORD_ROLE, password=quote(HARD_PASSWORD, safe="")))
    promptd.secrets += [HARD_PASSWORD, quote(HARD_PASSWORD, safe="")]
    expect_stores_a_message(promptd, database, channel)


def test_wrong_database_password_is_fixed(start_promptd, postgres, database, channel, password_role):
    password_role("the right one")
    promptd = start_promptd(ready=False, database_url=database.url(user=PASSWORD_ROLE, password="not-the-right-one"))
    promptd.secrets += ["not-the-right-one"]
    channel.wait_subscribers(1)
    promptd.wait_line("WARNING|ERROR|CRITICAL", "password authentication failed")
    message = channel.publish(database.interview())
    assert promptd.wait_counters(received=1)["waiting"] == 1
    password_role("not-the-right-one")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_missing_database_is_fixed(start_promptd, postgres, database, channel):
    promptd = start_promptd(ready=False, database_url=database.url().replace(database.name, database.name + "_moved"))
    promptd.wait_line("WARNING|ERROR|CRITICAL", f"{database.name}_moved")
    database.disconnect()
    with postgres.connect("postgres") as connection:
        connection.execute(f"alter database {database.name} rename to {database.name}_moved")
    database.name += "_moved"
    database.reconnect()
    promptd.wait_ready(channel, database)
    expect_stores_a_message(promptd, database, channel)


def test_too_many_connections_is_fixed(start_promptd, database, channel):
    """Refused for want of room: an outage like any other."""
    database.execute(f"alter database {database.name} connection limit 0")
    promptd = start_promptd(ready=False)
    promptd.wait_line("WARNING|ERROR|CRITICAL", "too many connections")
    channel.wait_subscribers(1)
    message = channel.publish(database.interview())
    database.execute(f"alter database {database.name} connection limit -1")
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_database_by_keywords_and_unix_socket(start_promptd, postgres, database, channel):
    promptd = start_promptd(
        database_url=f"host={postgres.folder} port={postgres.port} dbname={database.name} user=promptd")
    expect_stores_a_message(promptd, database, channel)


def test_database_by_libpqs_own_variables(start_promptd, postgres, database, channel):
    promptd = start_promptd(database_url=None, extra={
        "PGHOST": postgres.folder, "PGPORT": str(postgres.port), "PGDATABASE": database.name, "PGUSER": "promptd"})
    expect_stores_a_message(promptd, database, channel)


def test_second_host_is_tried(start_promptd, postgres, database, channel, database_proxy):
    database_proxy.refuse()
    hosts = f"127.0.0.1:{database_proxy.port},127.0.0.1:{postgres.port}"
    promptd = start_promptd(database_url=f"postgresql://promptd@{hosts}/{database.name}")
    expect_stores_a_message(promptd, database, channel)


def test_database_in_another_schema(start_promptd, atomicity, postgres, database, channel):
    """The tables are found by the role's search path."""
    database.execute(f"""create schema app; grant usage on schema app to promptd;
                         alter table interviews set schema app;
                         alter table interview_enhanced_prompts set schema app;
                         alter table promptd_unsettled set schema app;
                         alter role promptd in database {database.name} set search_path = app;
                         alter database {database.name} set search_path = app""")
    database.disconnect()
    database.reconnect()
    promptd = start_promptd(atomicity=atomicity)
    expect_stores_a_message(promptd, database, channel)


# Where the addresses come from


def test_addresses_in_files(start_promptd, new_folder, database, channel, redis_server):
    folder = new_folder("secrets")
    for name, url in (("redis", redis_server.url), ("database", database.url())):
        with open(f"{folder}/{name}", "w", encoding="ascii") as file:
            file.write(url + "\n")
    promptd = start_promptd(redis_url=None, database_url=None, extra={
        "PROMPTD_REDIS_URL_FILE": f"{folder}/redis", "PROMPTD_DATABASE_URL_FILE": f"{folder}/database"})
    expect_stores_a_message(promptd, database, channel)


def test_addresses_under_their_common_names(start_promptd, database, channel, redis_server):
    promptd = start_promptd(redis_url=None, database_url=None,
                            extra={"REDIS_URL": redis_server.url, "DATABASE_URL": database.url()})
    expect_stores_a_message(promptd, database, channel)


def test_promptds_own_addresses_count_over_common_names(start_promptd, database, channel):
    promptd = start_promptd(extra={"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/no"})
    expect_stores_a_message(promptd, database, channel)
