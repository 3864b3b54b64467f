# SPDX-License-Identifier: MIT
"""What the other tests lean on must hold by itself: the proxy's faults, the log parser, the waiting."""

import socket
import threading

import psycopg
import pytest

from support.promptd import Counters, LogLine, parse_state
from support.proxy import POSTGRES_READY, TO_CLIENT
from support.redis_server import Channel, Message, prompt_id
from support.wait import wait_until


def connect(proxy, database):
    return psycopg.connect(database.url(proxy.port, user="postgres"), autocommit=True, connect_timeout=5)


def test_prompt_id_of_the_documented_example():
    assert prompt_id("5F0C2A9E-3b1d-4c8e-9f7a-1d2e3f4a5b6c", "rag", "Tell me about yourself.") == \
        "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"


def test_message_is_framed_as_n8n_does():
    assert Message("ab", "é\n\"", None).framed() == \
        b'=={"interview_id":"ab","enhanced_prompt":"\xc3\xa9\\n\\""}\n'


def test_log_lines_are_taken_apart():
    line = LogLine.parse('2026-11-23T16:01:02.345Z CRITICAL store: ORPHANED. x=1 error="a \\"b\\" c=d" reason=')
    assert (line.level, line.component) == ("CRITICAL", "store")
    assert line.fields == {"x": "1", "error": 'a "b" c=d', "reason": ""}
    assert LogLine.parse("==12==ERROR: AddressSanitizer").level == ""


def test_counters_are_read_and_checked():
    line = LogLine.parse("2026-11-23T16:01:02.345Z INFO daemon: state: received=3 success=1 failure=1 rollback=1 waiting=1")
    counters = parse_state(line)
    counters.check()
    assert counters.outcomes() == {"success": 1, "failure": 1, "rollback": 1}
    with pytest.raises(AssertionError):
        Counters(received=2, success=1).check()


def test_waiting_in_vain_tells_what_was_seen_last():
    with pytest.raises(AssertionError, match="for godot; last seen: 'an empty road'"):
        wait_until(lambda: False, "godot", timeout=0.05, seen=lambda: "an empty road")


def test_each_database_is_new(postgres):
    first, second = postgres.new_database(), postgres.new_database()
    first.interview()
    assert first.statuses() == {"enhancing": 1} and second.statuses() == {}
    first.close()
    second.close()


def test_transient_trigger_counts_tries_across_rollbacks(database):
    tries = database.raise_first(2, "interviews", "insert", "40001")
    for _ in range(2):
        with pytest.raises(psycopg.errors.SerializationFailure):
            database.interview()
    database.interview()
    assert database.tries(tries) == 3


def test_channel_refuses_to_publish_to_nobody(redis_server):
    with pytest.raises(AssertionError, match="0 listeners"):
        Channel(redis_server).publish_raw(b"x")


def test_proxy_serves_and_cuts(database, database_proxy):
    connection = connect(database_proxy, database)
    assert connection.execute("select 1").fetchone() == (1,)
    database_proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    connect(database_proxy, database).close()
    assert database_proxy.accepted == 2


def test_proxy_refuses_hangs_up_and_recovers(database, database_proxy):
    database_proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", database_proxy.port), 5)
    database_proxy.restore()
    database_proxy.hang_up()
    with pytest.raises(psycopg.OperationalError):
        connect(database_proxy, database)
    database_proxy.restore()
    connect(database_proxy, database).close()


def test_proxy_tells_new_connections_from_open_ones(database, database_proxy):
    connection = connect(database_proxy, database)
    database_proxy.hang_up_next()
    with pytest.raises(psycopg.OperationalError):
        connect(database_proxy, database)
    connect(database_proxy, database).close()
    database_proxy.deafen_new()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(database.url(database_proxy.port, user="postgres"), connect_timeout=2)
    assert connection.execute("select 1").fetchone() == (1,)


def test_proxy_to_a_unix_socket(new_proxy, redis_server):
    proxy = new_proxy(redis_server.socket)
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"


def test_proxy_holds_bytes_back_or_loses_them(new_proxy, redis_server):
    proxy = new_proxy(("127.0.0.1", redis_server.port))
    connection = socket.create_connection(("127.0.0.1", proxy.port), 5)
    connection.settimeout(0.1)
    proxy.stall()
    connection.sendall(b"PING\r\n")
    with pytest.raises(socket.timeout):
        connection.recv(100)
    proxy.restore()
    connection.settimeout(5)
    assert connection.recv(100) == b"+PONG\r\n"

    proxy.swallow(TO_CLIENT)
    connection.sendall(b"SET swallowed 1\r\n")
    wait_until(lambda: redis_server.admin.get("swallowed") == b"1", "the request to arrive")
    connection.settimeout(0.1)
    with pytest.raises(socket.timeout):
        connection.recv(100)
    proxy.restore()
    connection.settimeout(5)
    with pytest.raises(ConnectionResetError):
        connection.recv(100)
    connection.close()


def test_proxy_loses_the_reply_after_the_commit(database, database_proxy):
    connection = connect(database_proxy, database)
    interview = database.interview()
    database_proxy.lose_reply(rb"update\s+interviews", reply_end=POSTGRES_READY)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("update interviews set status = 'ready' where id = %s", [interview])
    assert database_proxy.fired == 1 and database.status(interview) == "ready"


def test_proxy_cuts_before_the_request(database, database_proxy):
    connection = connect(database_proxy, database)
    interview = database.interview()
    database_proxy.cut_at(rb"update\s+interviews")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("update interviews set status = 'ready' where id = %s", [interview])
    assert database_proxy.fired == 1 and database.status(interview) == "enhancing"
    connect(database_proxy, database).close()


def test_pooler_in_between(database, new_pgbouncer):
    pooler = new_pgbouncer(pool_size=1)
    with psycopg.connect(database.url(pooler.port), autocommit=True) as connection:
        assert connection.execute("select current_user").fetchone() == ("promptd",)


def test_proxy_ends_a_connection_within_a_reply(new_proxy, redis_server):
    proxy = new_proxy(redis_server.socket)
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as connection:
        proxy.truncate(TO_CLIENT, 3)
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PO"
        assert connection.recv(100) == b""


def test_faults_can_be_taken_away(database):
    database.raise_on("interviews", "insert")
    with pytest.raises(psycopg.errors.RaiseException):
        database.interview()
    database.drop_faults()
    database.interview()


def test_statement_is_held(database):
    def insert():
        with psycopg.connect(database.url(), autocommit=True) as connection:
            connection.execute("insert into promptd_unsettled (prompt_id, interview_id)"
                               " values (gen_random_uuid(), gen_random_uuid())")

    thread = threading.Thread(target=insert)
    with database.held("promptd_unsettled", "insert") as held:
        thread.start()
        database.wait_blocked()
        assert database.unsettled() == []
        held.release()
        thread.join()
    assert len(database.unsettled()) == 1


def test_crash_of_the_server_loses_what_no_commit_waited_for(postgres, database):
    database.execute("set synchronous_commit = on")
    kept = database.interview()
    postgres.hold_writers()
    database.execute("set synchronous_commit = off")
    database.interview()
    database.disconnect()
    postgres.crash()
    postgres.start()
    database.reconnect()
    assert database.rows("select id::text from interviews") == [(kept,)]


def test_errors_in_the_servers_log(database):
    database.raise_on("interviews", "insert", "no")
    assert database.errors() == []
    with pytest.raises(psycopg.errors.RaiseException):
        database.interview()
    assert len(database.errors()) == 1
