# SPDX-License-Identifier: MIT
"""The files of sql/: on a fresh database, on one of promptd 0.1, twice, with other column types and row level security."""

import os
import uuid

import psycopg
import pytest

from support.postgres import ROLE

SQL_0_1 = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support/sql-0.1")
BRIN = "interview_enhanced_prompts_created_at_idx"
TEXT = "Tell me about the sea."

# What promptd does, one message each.
INSERT = """
    with k as (select id from interviews where id = any(%(interviews)s::uuid[]) for key share skip locked),
         p as (insert into interview_enhanced_prompts (id, interview_id, prompt, source)
               select %(prompt)s::uuid, k.id, %(text)s, 'rag' from k on conflict (id) do nothing
               returning id, interview_id)
    insert into promptd_unsettled (prompt_id, interview_id) select id, interview_id from p
    on conflict (prompt_id) do update set inserted_at = now() returning prompt_id, true"""
SETTLE = """
    with i as materialized (select id, status::text as status from interviews where id = any(%(interviews)s::uuid[])
                            and status::text = any('{enhancing,failed,ready}') for no key update skip locked),
         u as materialized (select prompt_id, interview_id from promptd_unsettled where prompt_id = %(prompt)s::uuid
                            and interview_id = any(array(select id from i)) for update skip locked),
         m as (update interviews set status = 'ready' where id = any(array(select interview_id from u))
               and status::text <> 'ready' returning id)
    delete from promptd_unsettled where prompt_id = any(array(select prompt_id from u)) and interview_id =
    any(array(select id from m union all select id from i where status = 'ready')) returning prompt_id"""
UNDO = """
    with u as materialized (select prompt_id, xmin from promptd_unsettled where prompt_id = %(prompt)s::uuid
                            for update skip locked),
         p as (delete from interview_enhanced_prompts where id = any(array(select prompt_id from u)) returning id)
    delete from promptd_unsettled where prompt_id = any(array(select prompt_id from u))
    and exists (select from p) returning prompt_id"""
RECOVER = """
    select prompt_id, interview_id from promptd_unsettled where inserted_at < now() - interval '0 s'
    order by inserted_at, prompt_id limit 10"""


@pytest.fixture
def bare(postgres):
    """bare(): a database with nothing in it."""
    made = []

    def make(**options):
        made.append(postgres.new_database(template="template0", **options))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def old(bare, postgres):
    """A database of promptd 0.1."""
    database = bare()
    postgres.apply_sql(database.name, SQL_0_1)
    return database


class Actor:
    """The role promptd with one prompt at a time."""

    def __init__(self, database):
        self._database = database
        self._connection = psycopg.connect(database.url(), autocommit=True)
        self.new_prompt(database.interview())

    def new_prompt(self, interview):
        self.interview, self.prompt = interview, str(uuid.uuid4())

    def run(self, sql):
        values = {"prompt": self.prompt, "interviews": [self.interview], "text": TEXT}
        return self._connection.execute(sql, values).fetchall()

    def close(self):
        self._connection.close()

    def stored(self):
        return self._database.value("select count(*) from interview_enhanced_prompts where id = %s", [self.prompt])


@pytest.fixture
def act(closing):
    return lambda database: closing(Actor(database))


def expect_all_steps(actor, database):
    assert len(actor.run(INSERT)) == len(actor.run(RECOVER)) == len(actor.run(SETTLE)) == 1
    assert database.status(actor.interview) == "ready" and actor.stored() == 1 and actor.run(RECOVER) == []
    assert actor.run(INSERT) == actor.run(SETTLE) == actor.run(UNDO) == [] and actor.stored() == 1
    actor.new_prompt(database.interview())
    assert len(actor.run(INSERT)) == 1
    database.execute("delete from interview_enhanced_prompts where id = %s", [actor.prompt])
    assert len(actor.run(INSERT)) == 1 and len(actor.run(UNDO)) == 1 and actor.stored() == 0


def test_fresh_database(bare, postgres, act):
    database = bare()
    postgres.apply_sql(database.name)
    assert database.rows("""select column_name, data_type, is_nullable, column_default from information_schema.columns
                            where table_name = 'promptd_unsettled' order by ordinal_position""") == [
        ("prompt_id", "uuid", "NO", None), ("interview_id", "uuid", "NO", None),
        ("inserted_at", "timestamp with time zone", "NO", "now()")]
    assert database.rows("""select contype, pg_get_constraintdef(oid) from pg_constraint
                            where conrelid = 'promptd_unsettled'::regclass""") == [("p", "PRIMARY KEY (prompt_id)")]
    assert database.value("select to_regclass(%s)", [BRIN]) is None
    expect_all_steps(act(database), database)


def test_applied_twice_it_changes_nothing(bare, postgres):
    """Nor does it touch what somebody has chosen since."""
    database = bare()
    postgres.apply_sql(database.name)
    database.execute(f"alter table promptd_unsettled set (fillfactor = 42, autovacuum_vacuum_threshold = 7);"
                     f"alter table interview_enhanced_prompts alter prompt set compression pglz;"
                     f"grant select on promptd_orphans, promptd_unsettled to {ROLE} with grant option")
    before = postgres.dump_schema(database.name)
    interview = database.interview()
    database.execute("insert into promptd_unsettled values (gen_random_uuid(), %s, '2026-01-01')", [interview])
    postgres.apply_sql(database.name)
    assert postgres.dump_schema(database.name) == before
    assert database.value("select count(*) from promptd_orphans where interview_id = %s", [interview]) == 1


def test_upgrade_from_0_1(old, bare, postgres, act):
    """What is missing is added, the rest stays, rows and all; the search's index is left to its owner."""
    interview = old.interview("ready")
    old.execute("insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
                " values (gen_random_uuid(), %s, %s, 'rag')", [interview, TEXT])
    prompts = old.prompts(interview)
    before = postgres.dump_schema(old.name)
    postgres.apply_sql(old.name)
    assert old.prompts(interview) == prompts and old.status(interview) == "ready"
    after = postgres.dump_schema(old.name)
    assert [each for each in before - after if not each.startswith("CREATE VIEW public.promptd_orphans")] == []
    fresh = bare()
    postgres.apply_sql(fresh.name)
    assert [each.split(" ON ")[0] for each in after ^ postgres.dump_schema(fresh.name)] == [f"CREATE INDEX {BRIN}"]
    expect_all_steps(act(old), old)
    postgres.apply_sql(old.name)
    assert postgres.dump_schema(old.name) == after


def test_upgrade_of_a_view_with_other_types(old, postgres):
    """`create or replace` cannot do that. Its owner stays its owner, and what was granted stays granted."""
    old.execute("drop view promptd_orphans; alter table interview_enhanced_prompts alter created_at type timestamp")
    postgres.apply_sql(old.name, SQL_0_1)
    old.execute('''create role reader; create role "its owner"; alter view promptd_orphans owner to "its owner";
                   grant select on promptd_orphans to public;
                   grant select, insert on promptd_orphans to reader with grant option''')

    def view():
        acl, owner = old.rows("select relacl::text[], relowner::regrole::text from pg_class"
                              " where relname = 'promptd_orphans'")[0]
        return sorted(acl), owner

    before = view()
    postgres.apply_sql(old.name)
    assert view() == before and before[1] == '"its owner"' and len(before[0]) == 4
    assert "promptd_unsettled" in old.value("select pg_get_viewdef('promptd_orphans'::regclass)")


def test_view_that_others_depend_on(old, postgres):
    """As long as its columns keep their types it is replaced under them."""
    old.execute("create view mine as select prompt_id from promptd_orphans")
    postgres.apply_sql(old.name)
    interview = old.interview("in_progress")
    old.execute("insert into promptd_unsettled values (gen_random_uuid(), %s)", [interview])
    assert old.value("select count(*) from mine") == 1


def test_owner_of_the_tables_applies_it(bare, postgres, act):
    """Who is no superuser; the views read with this owner's rights."""
    with postgres.connect("postgres") as connection:
        connection.execute("create role app login createrole")
    database = bare(owner="app")
    for folder in (SQL_0_1, None):
        postgres.apply_sql(database.name, folder, user="app")
    assert database.value("select relowner::regrole::text from pg_class where relname = 'promptd_orphans'") == "app"
    expect_all_steps(act(database), database)


def test_partitioned_interviews(bare, postgres, act, promptctl):
    """Their key is not unique by itself, so that there is no foreign key, and a notice says so."""
    database = bare()
    database.execute("""create table interviews (id uuid, status text not null, created_at timestamptz default now(),
                            primary key (id, created_at)) partition by range (created_at);
                        create table interviews_old partition of interviews for values from (minvalue) to ('2026-01-01');
                        create table interviews_new partition of interviews default""")
    said = postgres.apply_file(database.name, "01_schema.sql")
    assert "NOTICE" in said and "interview_enhanced_prompts has no foreign key" in said
    postgres.apply_sql(database.name)
    assert postgres.apply_file(database.name, "01_schema.sql") == ""
    expect_all_steps(act(database), database)
    for _ in range(2):
        postgres.apply_file(database.name, "04_indexes.sql")
    assert database.value("select count(*) from pg_indexes where indexname ~ '^interviews_(old|new)_awaiting_idx$'") == 2
    assert promptctl("check", database_url=database.url()).code == 0


@pytest.mark.parametrize("table", ["interviews", "interview_enhanced_prompts", "promptd_unsettled"])
def test_no_second_table(bare, postgres, table):
    """One that exists in another schema is not made again, empty."""
    database = bare()
    postgres.apply_sql(database.name)
    database.execute(f"create schema app; alter table {table} set schema app")
    before = postgres.dump_schema(database.name)
    said = postgres.apply_file(database.name, "01_schema.sql", check=False)
    assert "ERROR" in said and f"no table {table}, but there is app.{table}" in said and "PGOPTIONS" in said
    assert postgres.dump_schema(database.name) == before


def test_tables_go_where_the_interviews_are(bare, postgres, act):
    """Also when another schema comes first in the search path."""
    database = bare()
    database.execute(f"""create table interviews (id uuid primary key, status text not null, created_at timestamptz);
                         create schema first; alter database {database.name} set search_path = first, public""")
    postgres.apply_sql(database.name)
    assert database.rows("""select distinct relnamespace::regnamespace::text from pg_class
                            where relname ~ '^(interview|promptd)' and relkind in ('r', 'v')""") == [("public",)]
    expect_all_steps(act(database), database)


@pytest.mark.parametrize("status", ["text", "varchar(20)", "state"])
@pytest.mark.parametrize("source", ["text", "varchar(20)", "origin"])
def test_types_of_status_and_source(bare, postgres, act, status, source):
    database = bare()
    database.execute(f"""
        create type state as enum ('enhancing', 'ready', 'failed', 'completed');
        create type origin as enum ('rag', 'existing_data', 'new_data', 'fallback');
        create table interviews (id uuid primary key, status {status} not null, created_at timestamptz default now());
        create table interview_enhanced_prompts (id uuid primary key, interview_id uuid, prompt text, source {source},
                                                 created_at timestamptz default now())""")
    postgres.apply_sql(database.name)
    actor = act(database)
    assert len(actor.run(INSERT)) == 1
    [row] = database.rows("select prompt_id::text, interview_id::text, status::text, source::text from promptd_orphans")
    assert row == (actor.prompt, actor.interview, "enhancing", "rag")
    assert len(actor.run(SETTLE)) == 1 and database.rows("select from promptd_orphans") == []
    postgres.apply_sql(database.name)


def test_row_level_security(bare, postgres, act):
    """Turned on later it hides every row; the file for the role makes the policies."""
    database = bare()
    postgres.apply_sql(database.name)
    actor = act(database)
    actor.run(INSERT)
    for table in ("interviews", "interview_enhanced_prompts", "promptd_unsettled"):
        database.execute(f"alter table {table} enable row level security")
    assert actor.run(RECOVER) == actor.run(SETTLE) == actor.run(UNDO) == []
    postgres.apply_sql(database.name)
    assert len(actor.run(SETTLE)) == 1
    actor.new_prompt(database.interview())
    expect_all_steps(actor, database)
    postgres.apply_sql(database.name)


@pytest.mark.parametrize("privilege, statement", [
    ("select", INSERT), ("select", SETTLE), ("insert (prompt_id)", INSERT), ("insert (interview_id)", INSERT),
    ("update (inserted_at)", INSERT), ("update (inserted_at)", UNDO), ("delete", SETTLE), ("delete", UNDO),
])
def test_no_privilege_is_more_than_needed(database, act, privilege, statement):
    actor = act(database)
    actor.run(INSERT)
    database.execute(f"revoke {privilege} on promptd_unsettled from {ROLE}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="promptd_unsettled"):
        actor.run(statement)


@pytest.mark.parametrize("statement", [
    "update promptd_unsettled set prompt_id = %(prompt)s::uuid returning 1",
    "update promptd_unsettled set interview_id = %(prompt)s::uuid returning 1",
    "insert into promptd_unsettled values (%(prompt)s::uuid, %(prompt)s::uuid, '2026-01-01') returning 1",
    "update interview_enhanced_prompts set prompt = '' returning 1",
    "update interviews set created_at = null returning 1",
    "select created_at from interviews",
])
def test_the_role_may_do_nothing_else(act, database, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        act(database).run(statement)


def test_orphans_go_by_the_evidence(database):
    """Whatever the interview's status; also without an interview, and without the prompt."""
    ids = [str(uuid.uuid4()) for _ in range(4)]
    for id, status in zip(ids, ("in_progress", "ready", "enhancing")):
        database.execute("insert into interview_enhanced_prompts (id, interview_id, prompt, source) values"
                         " (%s, %s, %s, 'rag')", [id, database.interview(status), TEXT])
    database.execute("insert into promptd_unsettled select id, interview_id, now() - interval '1 hour'"
                     " from interview_enhanced_prompts where id = any(%s::uuid[])", [ids[1:3]])
    database.execute("insert into promptd_unsettled values (%s, gen_random_uuid(), now() - interval '2 hours')", [ids[3]])
    assert database.rows("""select prompt_id::text, status, source, extract(epoch from age)::int / 3600
                            from promptd_orphans order by age, status desc""") == [
        (ids[1], "ready", "rag", 1), (ids[2], "enhancing", "rag", 1), (ids[3], None, None, 2)]
