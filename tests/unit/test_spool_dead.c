/* SPDX-License-Identifier: MIT */
/* Dead letters of the spool: kept, read, bounded, and put back for another try. */
#include "spool_fixture.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "promptd/dead_letters.h"

/* Which entries of the last fetch are redelivered: "nrn" for new, redelivered, new. */
static const char *redelivered(const struct spool_fixture *fixture)
{
    static char marks[256];
    assert_true(fixture->entry_count < sizeof marks);
    for (size_t i = 0; i < fixture->entry_count; i++)
        marks[i] = fixture->entries[i].redelivered ? 'r' : 'n';
    marks[fixture->entry_count] = '\0';
    return marks;
}

static void replay(const struct spool_fixture *fixture, int64_t sequence)
{
    const struct dead_id id = {.major = (uint64_t)sequence};
    struct dead_result done;
    struct dead_letters *letters = dead_letters_open(fixture->directory, NULL);
    assert_non_null(letters);
    assert_true(dead_letters_replay(letters, &(struct dead_choice){.ids = &id, .count = 1}, 1000, &done, NULL));
    assert_int_equal(done.changed, 1);
    dead_letters_close(letters);
}

static int64_t put_dead(struct spool_fixture *fixture, const char *outcome, const char *text)
{
    int64_t sequence = fixture_put_text(fixture, text);
    spool_set_dead(fixture->spool, sequence, &(struct disposition){.outcome = outcome});
    fixture_settle(fixture);
    return sequence;
}

static void test_redelivered(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    fixture_put_text(fixture, "before");
    int64_t dead = put_dead(fixture, "rolled back", "dead");
    int64_t dead_too = put_dead(fixture, "rolled back", "dead, too");
    fixture_fetch(fixture, 0, 10, 1000);
    assert_string_equal(redelivered(fixture), "n");
    fixture_close(fixture);

    fixture_open(fixture);
    fixture_put_text(fixture, "new");
    replay(fixture, dead);
    replay(fixture, dead_too);
    fixture_put_text(fixture, "new again");
    fixture_fetch(fixture, 0, 10, 1000);
    assert_string_equal(redelivered(fixture), "rnrrn");
    assert_string_equal(fixture->entries[2].payload, "dead");
    assert_int_equal(fixture->grown, 2);
    assert_string_equal(fixture->order, "pgpf"); /* reported before what is behind them */
    fixture_fetch(fixture, fixture->entries[2].sequence, 10, 1000);
    assert_string_equal(redelivered(fixture), "rn");
}

/* So often that what lies between the oldest of them counts as redelivered as well: it was fetched long ago. */
static void test_redelivered_many_times(void **state)
{
    enum { TIMES = 70, KEPT = 60 };
    struct spool_fixture *fixture = *state;
    int64_t dead[TIMES];
    fixture_open(fixture);
    for (int i = 0; i < TIMES; i++)
        dead[i] = put_dead(fixture, "rolled back", "dead");
    for (int i = 0; i < TIMES; i++) {
        replay(fixture, dead[i]);
        fixture_put_text(fixture, "new");
    }
    fixture_fetch(fixture, 0, 1000, 100000);
    assert_int_equal(fixture->entry_count, 2 * TIMES);
    for (size_t i = 0; i < fixture->entry_count; i++)
        assert_true(fixture->entries[i].redelivered == (i % 2 == 0) || (i % 2 == 1 && i / 2 < TIMES - KEPT));
}

/* A replay that nobody has noticed yet is noticed by the fetch that brings it. */
static void test_growth_is_reported_before_a_fetch(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    replay(fixture, put_dead(fixture, "rejected", "dead"));
    fixture->order[0] = '\0';
    fixture_fetch(fixture, 0, 10, 1000);
    assert_string_equal(fixture->order, "gf");
    assert_int_equal(fixture->grown, 1);
}

static void test_set_dead(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    int64_t sequence = fixture_put_text(fixture, "bad");
    char error[] = "new row violates check constraint"; /* borrowed for the call only */
    struct disposition disposition = {.outcome = "rolled back",
                                      .sqlstate = "23514",
                                      .error = error,
                                      .has_interview_id = true,
                                      .interview_id = {1, 2, 3}};
    spool_set_dead(fixture->spool, sequence, &disposition);
    memset(error, 'x', sizeof error - 1);
    fixture_settle(fixture);
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(counts.dead, 1);
    assert_int_equal(counts.dead_bytes, 3);
    fixture_close(fixture);

    fixture_open(fixture);
    assert_int_equal(spool_counts(fixture->spool).dead, 1);
    fixture_fetch(fixture, 0, 10, 1000);
    assert_int_equal(fixture->entry_count, 0);
}

static void test_letter_without_a_message(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    int64_t before = fixture_put_text(fixture, "before");
    spool_add_dead(fixture->spool, &(struct disposition){.outcome = "rejected", .reason = "too_large"});
    int64_t after = fixture_put_text(fixture, "after");
    fixture_settle(fixture);
    assert_true(after > before);
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, 2);
    assert_int_equal(counts.dead, 1);
    assert_int_equal(counts.dead_bytes, 0);
    fixture_fetch(fixture, 0, 10, 1000);
    assert_int_equal(fixture->entry_count, 2);
    fixture_close(fixture);

    fixture_open(fixture);
    assert_int_equal(spool_counts(fixture->spool).dead, 1);
    assert_int_equal(spool_counts(fixture->spool).waiting, 2);
}

struct reading {
    const char *path;
    char letters[256]; /* "outcome:bytes " of each */
};

/* While the letter is looked at, for however long, everything in the log can go to the database. */
static bool read_letter(void *context, const struct dead_letter *letter)
{
    struct reading *reading = context;
    size_t used = strlen(reading->letters);
    (void)snprintf(reading->letters + used, sizeof reading->letters - used, "%s:%" PRIu64 " ", letter->outcome,
                   letter->size);
    sqlite3 *other = NULL;
    int left = -1;
    int moved = -1;
    assert_int_equal(sqlite3_open(reading->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "pragma user_version", NULL, NULL, NULL), SQLITE_OK); /* it knows of the log */
    assert_int_equal(sqlite3_wal_checkpoint_v2(other, NULL, SQLITE_CHECKPOINT_TRUNCATE, &left, &moved), SQLITE_OK);
    assert_int_equal(left, 0);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    return true;
}

static const char *read_letters(struct spool_fixture *fixture)
{
    static struct reading reading;
    reading = (struct reading){.path = fixture_path(fixture, "spool.db")};
    struct dead_letters *letters = dead_letters_open(fixture->directory, NULL);
    assert_non_null(letters);
    assert_true(dead_letters_read(letters, NULL, read_letter, &reading, NULL));
    dead_letters_close(letters);
    return reading.letters;
}

static void test_letters_are_read_without_a_lock(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    assert_string_equal(read_letters(fixture), "");
    (void)put_dead(fixture, "rejected", "a");
    (void)put_dead(fixture, "orphaned", "bb");
    assert_string_equal(read_letters(fixture), "rejected:1 orphaned:2 ");
}

/* Each letter counts with 256 bytes more than its payload. */
static void test_dead_letters_have_a_bound_of_their_own(void **state)
{
    static const char full[] = "dead letters are full (spool_dead_max_bytes)";
    struct spool_fixture *fixture = *state;
    assert_true(fixture_try_open(fixture, 1000, (256 * 4) + 12));
    (void)put_dead(fixture, "rejected", "a");
    (void)put_dead(fixture, "not stored", "bb");
    (void)put_dead(fixture, "rejected", "ccc");
    (void)put_dead(fixture, "orphaned", "dddd");
    assert_int_equal(fixture_logged(fixture, full), 0);
    (void)put_dead(fixture, "rejected", "e");
    assert_string_equal(read_letters(fixture), "not stored:2 rejected:3 orphaned:4 rejected:1 ");
    (void)put_dead(fixture, "rolled back", "ffffff"); /* one byte too many, so both rejected ones go */
    assert_string_equal(read_letters(fixture), "not stored:2 orphaned:4 rolled back:6 ");
    assert_int_equal(fixture_logged(fixture, "the oldest rejected ones were dropped letters=1"), 1);

    /* None that may go is left: those that are there stay, a new one is not kept. */
    spool_set_dead(
        fixture->spool, fixture_put_text(fixture, "h"),
        &(struct disposition){.outcome = "not stored", .has_interview_id = true, .interview_id = {0xab, 0xcd}});
    (void)put_dead(fixture, "rejected", "i");
    assert_string_equal(read_letters(fixture), "not stored:2 orphaned:4 rolled back:6 ");
    assert_int_equal(fixture_logged(fixture, "a message is not kept interview_id=abcd0000"), 1);
    assert_int_equal(fixture_logged(fixture, full), 2);
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(counts.dead, 3);
    assert_int_equal(counts.dead_bytes, 12);
    assert_int_equal(fixture_put(fixture, "waits", 5).result, SPOOL_PUT_OK); /* no business of theirs */

    spool_set_limits(fixture->spool, &(struct spool_limits){.waiting_bytes = 1000, .dead_bytes = 10000});
    (void)put_dead(fixture, "rejected", "j");
    assert_int_equal(spool_counts(fixture->spool).dead, 4);
    fixture_close(fixture);
    assert_true(fixture_try_open(fixture, 1000, 10)); /* a bound is for new ones */
    assert_int_equal(spool_counts(fixture->spool).dead, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOL_TEST(function) cmocka_unit_test_setup_teardown(function, spool_fixture_setup, spool_fixture_teardown)
        SPOOL_TEST(test_redelivered),
        SPOOL_TEST(test_redelivered_many_times),
        SPOOL_TEST(test_growth_is_reported_before_a_fetch),
        SPOOL_TEST(test_set_dead),
        SPOOL_TEST(test_letter_without_a_message),
        SPOOL_TEST(test_letters_are_read_without_a_lock),
        SPOOL_TEST(test_dead_letters_have_a_bound_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
