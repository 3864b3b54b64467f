/* SPDX-License-Identifier: MIT */
/* promptctl at work beside the spool: both get their turn, and neither takes the other's room. */
#include "spool_fixture.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"
#include "promptd/dead_letters.h"

enum {
    PAGE = 256,
    PAGES = 40
}; /* letters in one transaction of dead_letters_change, and how many of those there are */

static void put_dead(struct spool_fixture *fixture, size_t count)
{
    size_t before = fixture->put_count;
    for (size_t i = 0; i < count; i++)
        assert_true(spool_put(fixture->spool, "dead", 4, NULL));
    fixture_wait(fixture, fixture->put_count == before + count);
    for (size_t i = before; i < before + count; i++)
        spool_set_dead(fixture->spool, fixture->puts[i].sequence, &(struct disposition){.outcome = "rolled back"});
    fixture_settle(fixture);
    assert_int_equal(spool_counts(fixture->spool).dead, count);
}

/* ---- turns ---- */

struct other {
    const char *directory;
    atomic_bool holds; /* the lock */
    atomic_bool stop;
    atomic_bool ended;
    size_t changed;
};

/* Transactions as a slow disk makes them, with short pauses between them. */
static void hold_lock_again_and_again(void *argument)
{
    struct other *other = argument;
    sqlite3 *sqlite = NULL;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/spool.db", other->directory);
    assert_int_equal(sqlite3_open(path, &sqlite), SQLITE_OK);
    (void)sqlite3_busy_timeout(sqlite, 10000);
    while (!other->stop) {
        assert_int_equal(sqlite3_exec(sqlite, "begin immediate", NULL, NULL, NULL), SQLITE_OK);
        other->holds = true;
        clock_sleep_ms(300);
        other->holds = false;
        assert_int_equal(sqlite3_exec(sqlite, "commit", NULL, NULL, NULL), SQLITE_OK);
        clock_sleep_ms(5);
    }
    assert_int_equal(sqlite3_close(sqlite), SQLITE_OK);
}

static void test_a_short_pause_of_somebody_else_is_enough(void **state)
{
    enum { PUTS = 5 };
    struct spool_fixture *fixture = *state;
    struct other other = {.directory = fixture->directory};
    uv_thread_t thread;
    fixture_open(fixture);
    assert_int_equal(uv_thread_create(&thread, hold_lock_again_and_again, &other), 0);
    int64_t took_us = 0;
    for (int i = 0; i < PUTS; i++) {
        while (!other.holds)
            clock_sleep_ms(1);
        int64_t begin_us = clock_monotonic_us();
        (void)fixture_put_text(fixture, "new");
        took_us += clock_monotonic_us() - begin_us;
    }
    other.stop = true;
    assert_int_equal(uv_thread_join(&thread), 0);
    assert_in_range(took_us / PUTS, 0, 600000); /* twice the lock */
}

static void drop_all(void *argument)
{
    struct other *other = argument;
    struct dead_letters *letters = dead_letters_open(other->directory, NULL);
    struct dead_result done;
    assert_non_null(letters);
    assert_true(dead_letters_drop(letters, &(struct dead_choice){.last.major = INT64_MAX}, &done, NULL));
    other->changed = done.changed;
    dead_letters_close(letters);
    other->ended = true;
}

static void test_many_changes_leave_turns(void **state)
{
    struct spool_fixture *fixture = *state;
    struct other other = {.directory = fixture->directory};
    uv_thread_t thread;
    size_t puts = 0;
    fixture_open(fixture);
    put_dead(fixture, (size_t)PAGE * PAGES);
    assert_int_equal(uv_thread_create(&thread, drop_all, &other), 0);
    while (!other.ended) {
        (void)fixture_put_text(fixture, "new");
        puts++;
    }
    assert_int_equal(uv_thread_join(&thread), 0);
    assert_int_equal(other.changed, PAGE * PAGES);
    assert_in_range(puts, PAGES / 2, SIZE_MAX);
    fixture_wait(fixture, spool_counts(fixture->spool).dead == 0);
    assert_int_equal(fixture_logged(fixture, "CRITICAL"), 0);
}

/* ---- room ---- */

static size_t replay_all(struct spool_fixture *fixture, uint64_t waiting_max_bytes, bool *complete)
{
    struct error error;
    uint64_t count;
    struct dead_choice all = {0};
    struct dead_result done;
    struct dead_letters *letters = dead_letters_open(fixture->directory, NULL);
    assert_non_null(letters);
    assert_true(dead_letters_count(letters, &count, &all.last, NULL));
    assert_int_equal(count, spool_counts(fixture->spool).dead);
    *complete = dead_letters_replay(letters, &all, waiting_max_bytes, &done, &error);
    assert_true(*complete || strstr(error.text, "half of spool_max_bytes"));
    dead_letters_close(letters);
    fixture_wait(fixture, spool_counts(fixture->spool).dead == count - done.changed);
    return done.changed;
}

/* Letters of four bytes. */
static void test_replay_leaves_room_for_new_messages(void **state)
{
    struct spool_fixture *fixture = *state;
    bool complete;
    fixture_open(fixture);
    put_dead(fixture, 1000);
    int64_t first = fixture_put_text(fixture, "waiting!");
    assert_int_equal(replay_all(fixture, 2008, &complete), 500);
    assert_false(complete);
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 2008);
    assert_int_equal(replay_all(fixture, 2008, &complete), 0);
    assert_false(complete);
    spool_finish(fixture->spool, first);
    fixture_settle(fixture);
    assert_int_equal(replay_all(fixture, 2008, &complete), 2);
    assert_false(complete);
    assert_int_equal(replay_all(fixture, 4000, &complete), 498); /* exactly what there is room for */
    assert_true(complete);
    assert_int_equal(replay_all(fixture, 4000, &complete), 0);
    assert_true(complete);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOL_TEST(function) cmocka_unit_test_setup_teardown(function, spool_fixture_setup, spool_fixture_teardown)
        SPOOL_TEST(test_a_short_pause_of_somebody_else_is_enough),
        SPOOL_TEST(test_many_changes_leave_turns),
        SPOOL_TEST(test_replay_leaves_room_for_new_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
