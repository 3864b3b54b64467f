/* SPDX-License-Identifier: MIT */
/* A spool of promptd 0.1 is converted in place and nothing of it is lost; one of a later promptd is refused. */
#include "spool_fixture.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"
#include "promptd/dead_letters.h"
#include "spool_db.h"

/* As promptd 0.1.0 made it. */
static const char version_1_sql[] =
    "pragma page_size = 8192; pragma auto_vacuum = incremental; pragma application_id = 1347572560;"
    "pragma user_version = 1; pragma journal_mode = wal;"
    "CREATE TABLE message(sequence INTEGER PRIMARY KEY AUTOINCREMENT, attempted INTEGER NOT NULL,"
    " size INTEGER NOT NULL);"
    "CREATE TABLE payload(sequence INTEGER PRIMARY KEY, arrived_ms INTEGER NOT NULL, sum INTEGER NOT NULL,"
    " bytes BLOB NOT NULL);"
    "CREATE TABLE dead(sequence INTEGER PRIMARY KEY, size INTEGER NOT NULL, buried_ms INTEGER NOT NULL,"
    " outcome TEXT NOT NULL, reason TEXT, sqlstate TEXT, error TEXT, interview_id BLOB, prompt_id BLOB);"
    "insert into sqlite_sequence(name, seq) values('message', 0)";

static const char *const outcomes[] = {"not stored",      "rolled back", "orphaned",
                                       "orphan resolved", "rejected",    "dropped"};
enum { OUTCOMES = sizeof outcomes / sizeof outcomes[0], MESSAGES = 200, LAST = 5000 };

static void execute(sqlite3 *db, const char *sql)
{
    char *failure = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &failure) != SQLITE_OK)
        fail_msg("%s: %s", failure, sql);
}

static void add_payload(sqlite3 *db, int64_t sequence, uint32_t number)
{
    char payload[FIXTURE_PAYLOAD_MAX];
    size_t length = fixture_payload(number, payload);
    int64_t arrived_ms = INT64_C(1700000000000) + number;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, "insert into payload values(?1, ?2, ?3, ?4)", -1, &statement, NULL),
                     SQLITE_OK);
    (void)sqlite3_bind_int64(statement, 1, sequence);
    (void)sqlite3_bind_int64(statement, 2, arrived_ms);
    (void)sqlite3_bind_int64(statement, 3, spool_payload_sum(sequence, arrived_ms, payload, length));
    (void)sqlite3_bind_blob64(statement, 4, payload, length, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
}

static sqlite3 *open_file(const struct spool_fixture *fixture)
{
    sqlite3 *db = NULL;
    fixture_shell("mkdir -p '%s'", fixture->directory);
    assert_int_equal(sqlite3_open(fixture_path(fixture, "spool.db"), &db), SQLITE_OK);
    return db;
}

/* Messages 1, 3, 5…: every third attempted, by two daemons and by a replay; then dead letters of every outcome. */
static void make_version_1(const struct spool_fixture *fixture)
{
    char payload[FIXTURE_PAYLOAD_MAX];
    char sql[512];
    sqlite3 *db = open_file(fixture);
    execute(db, version_1_sql);
    execute(db, "begin");
    for (uint32_t i = 0; i < MESSAGES; i++) {
        (void)snprintf(sql, sizeof sql, "insert into message values(%u, %" PRId64 ", %zu)", 1 + i * 2,
                       i % 3 > 0   ? INT64_C(0)
                       : i % 2 > 0 ? INT64_C(1)
                                   : INT64_C(4611686018427387903) - i / 100,
                       fixture_payload(i, payload));
        execute(db, sql);
        add_payload(db, 1 + i * 2, i);
    }
    for (uint32_t i = 0; i < OUTCOMES; i++) {
        (void)snprintf(sql, sizeof sql,
                       "insert into dead values(%u, %zu, %u, '%s', 'why', '23514', 'error of it',"
                       " x'000102030405060708090a0b0c0d0e0f', x'0f0e0d0c0b0a09080706050403020100')",
                       1000 + i, fixture_payload(1000 + i, payload), 77 + i, outcomes[i]);
        execute(db, sql);
        add_payload(db, 1000 + i, 1000 + i);
    }
    (void)snprintf(sql, sizeof sql, "update sqlite_sequence set seq = %d; commit", LAST);
    execute(db, sql);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static bool check_letter(void *context, const struct dead_letter *letter)
{
    uint32_t *next = context;
    uint32_t i = (*next)++;
    char died[CLOCK_TEXT_SIZE];
    char arrived[CLOCK_TEXT_SIZE];
    clock_format_wall(77 + i, died);
    clock_format_wall(INT64_C(1700000000000) + 1000 + i, arrived);
    assert_int_equal(letter->id.major, 1000 + i);
    assert_string_equal(letter->outcome, outcomes[i]);
    assert_string_equal(letter->reason, "why");
    assert_string_equal(letter->sqlstate, "23514");
    assert_string_equal(letter->error, "error of it");
    assert_string_equal(letter->died, died);
    assert_string_equal(letter->arrived, arrived);
    assert_string_equal(letter->interview_id + 34, "0f");
    assert_string_equal(letter->prompt_id + 34, "00");
    return true;
}

/* What version 1 held, as it is in the open spool. */
static void check_contents(struct spool_fixture *fixture)
{
    fixture_fetch(fixture, 0, 2 * MESSAGES, 10000000);
    assert_int_equal(fixture->entry_count, MESSAGES);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        const struct fixture_entry *entry = &fixture->entries[i];
        uint32_t number;
        assert_int_equal(entry->sequence, 1 + i * 2);
        assert_int_equal(entry->arrived_ms, INT64_C(1700000000000) + i);
        assert_true(entry->redelivered);
        assert_true(fixture_payload_is_sound(entry->payload, entry->length, &number));
        assert_int_equal(number, i);
    }
    assert_int_equal(spool_counts(fixture->spool).dead, OUTCOMES);
    uint32_t letters_read = 0;
    struct dead_letters *letters = dead_letters_open(fixture->directory, NULL);
    assert_non_null(letters);
    assert_true(dead_letters_read(letters, NULL, check_letter, &letters_read, NULL));
    assert_int_equal(letters_read, OUTCOMES);
    const char *bytes;
    size_t length;
    uint32_t number;
    assert_true(dead_letters_payload(letters, &(struct dead_id){.major = 1002}, &bytes, &length, NULL));
    assert_true(fixture_payload_is_sound(bytes, length, &number));
    dead_letters_close(letters);
}

static void test_version_1_is_converted(void **state)
{
    struct spool_fixture *fixture = *state;
    make_version_1(fixture);
    fixture_open(fixture);
    check_contents(fixture);
    assert_int_equal(spool_counts(fixture->spool).last_sequence, LAST);
    assert_int_equal(fixture_put_text(fixture, "new"), LAST + 1);
    assert_int_equal(fixture_logged(fixture, "INFO spool: the spool of promptd 0.1 was converted"), 1);
    fixture_close(fixture);

    fixture_open(fixture);
    assert_int_equal(fixture_logged(fixture, "converted"), 1); /* once */
    assert_int_equal(fixture_logged(fixture, "CRITICAL"), 0);
    assert_int_equal(fixture_files(fixture, "spool.db."), 0);
    assert_int_equal(spool_counts(fixture->spool).waiting, MESSAGES + 1);
}

/* The daemon that runs may be one of 0.1 still. */
static void test_promptctl_does_not_convert(void **state)
{
    struct spool_fixture *fixture = *state;
    struct error error;
    make_version_1(fixture);
    fixture_shell("cp '%s' '%s/before'", fixture_path(fixture, "spool.db"), fixture->root);
    assert_null(dead_letters_open(fixture->directory, &error));
    assert_non_null(strstr(error.text, "it is of promptd 0.1; promptd converts it when it starts"));
    fixture_shell("cmp '%s' '%s/before'", fixture_path(fixture, "spool.db"), fixture->root);
}

/* The root of each table in turn, and what they are found by. */
static void test_damaged_version_1_is_taken_over(void **state)
{
    struct spool_fixture *fixture = *state;
    for (int page = 1; page <= 5; page++) {
        fixture_shell("rm -rf '%s'", fixture->directory);
        fixture_forget_log(fixture);
        make_version_1(fixture);
        fixture_shell("dd if=/dev/zero of='%s' bs=8192 seek=%d count=1 conv=notrunc 2>/dev/null",
                      fixture_path(fixture, "spool.db"), page);
        fixture_open(fixture);
        struct spool_counts counts = spool_counts(fixture->spool);
        assert_int_equal(counts.waiting + counts.dead, MESSAGES + OUTCOMES);
        assert_int_equal(fixture_logged(fixture, "converted") + fixture_logged(fixture, "set aside as"), 1);
        if (counts.dead > 0)
            check_contents(fixture);
        fixture_close(fixture);
    }
}

static void test_later_version_is_refused(void **state)
{
    struct spool_fixture *fixture = *state;
    struct error error;
    fixture_open(fixture);
    fixture_put_text(fixture, "x");
    fixture_close(fixture);
    sqlite3 *db = open_file(fixture);
    execute(db, "pragma user_version = 3; alter table waiting add column more");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_false(fixture_try_open(fixture, 1000, 1000));
    assert_int_equal(fixture->error.code, ERROR_SPOOL);
    assert_non_null(strstr(fixture->error.text, "it is of a later promptd, which alone can read it"));
    assert_null(dead_letters_open(fixture->directory, &error));
    assert_non_null(strstr(error.text, "it is of a later promptd"));
    assert_int_equal(fixture_files(fixture, "spool.db."), 0); /* not set aside */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOL_TEST(function) cmocka_unit_test_setup_teardown(function, spool_fixture_setup, spool_fixture_teardown)
        SPOOL_TEST(test_version_1_is_converted),
        SPOOL_TEST(test_promptctl_does_not_convert),
        SPOOL_TEST(test_damaged_version_1_is_taken_over),
        SPOOL_TEST(test_later_version_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
