/* SPDX-License-Identifier: MIT */
/* The spool on a disk that refuses, for a while or for good, and with a file that is damaged while it is in use. */
#include "spool_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

static const char refusal[] = "spool cannot be written";
static const char recovery[] = "spool can be written again";

static char large[20000];

/* No file of this process may grow beyond `bytes`: writes fail, as on a disk that is full, with another error. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int unlimited_teardown(void **state)
{
    limit_files(RLIM_INFINITY);
    return spool_fixture_teardown(state);
}

/* Puts until the disk refuses; the sequences that are on disk stand in fixture->puts. */
static size_t fill(struct spool_fixture *fixture)
{
    while (fixture_put(fixture, large, sizeof large).result == SPOOL_PUT_OK)
        assert_true(fixture->put_count < 10000);
    assert_int_equal(fixture->puts[fixture->put_count - 1].result, SPOOL_PUT_FAILED);
    assert_int_equal(fixture->puts[fixture->put_count - 1].sequence, 0);
    return fixture->put_count - 1;
}

static void check_refusing(struct spool_fixture *fixture, size_t stored)
{
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_false(counts.writable);
    assert_int_equal(counts.waiting, stored);
    assert_int_equal(counts.waiting_bytes, stored * sizeof large);
    assert_int_equal(fixture_logged(fixture, refusal), 1);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void pass_seconds(struct spool_fixture *fixture, double seconds)
{
    uint64_t until = uv_hrtime() + (uint64_t)(seconds * 1e9);
    while (uv_hrtime() < until)
        (void)uv_run(&fixture->loop, UV_RUN_ONCE);
}

static void test_refused_for_a_while(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    int64_t old = fixture_put_text(fixture, "old");
    spool_finish(fixture->spool, old);
    fixture_settle(fixture);
    fixture->put_count = 0;
    limit_files(300000);
    size_t stored = fill(fixture);
    assert_true(stored > 2);
    check_refusing(fixture, stored);

    /* Puts fail at once; outcomes wait. */
    for (int i = 0; i < 20; i++)
        assert_int_equal(fixture_put(fixture, large, sizeof large).result, SPOOL_PUT_FAILED);
    spool_finish(fixture->spool, fixture->puts[0].sequence);
    spool_set_dead(fixture->spool, fixture->puts[1].sequence, &(struct disposition){.outcome = "rolled back"});
    double before = cpu_seconds();
    pass_seconds(fixture, 2.5);
    assert_true(cpu_seconds() - before < 1.0); /* tried again, not all the time */
    check_refusing(fixture, stored);
    fixture_fetch(fixture, 0, 1, 1); /* it only reads */
    assert_int_equal(fixture->entries[0].sequence, fixture->puts[0].sequence);

    limit_files(RLIM_INFINITY);
    fixture_wait(fixture, spool_counts(fixture->spool).writable);
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, stored - 2);
    assert_int_equal(counts.dead, 1);
    assert_int_equal(fixture_put(fixture, large, sizeof large).result, SPOOL_PUT_OK);
    fixture_wait(fixture, fixture_logged(fixture, recovery) == 1);
    assert_int_equal(fixture_logged(fixture, refusal), 1);

    limit_files(300000); /* a new change of state has its own line */
    (void)fill(fixture);
    assert_int_equal(fixture_logged(fixture, refusal), 2);
    limit_files(RLIM_INFINITY);
    fixture_close(fixture);
    fixture_open(fixture);
    assert_int_equal(spool_counts(fixture->spool).dead, 1);
}

static void test_good_again_is_noticed_without_work(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    limit_files(300000);
    size_t stored = fill(fixture);
    limit_files(RLIM_INFINITY);
    fixture_wait(fixture, spool_counts(fixture->spool).writable);
    assert_int_equal(spool_counts(fixture->spool).waiting, stored);
    fixture_wait(fixture, fixture_logged(fixture, recovery) == 1);
}

/* What is on disk goes on while the disk is full. */
static void test_fetch_while_the_disk_refuses(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    int64_t sequence = fixture_put_text(fixture, "first");
    limit_files(300000);
    (void)fill(fixture);
    fixture_fetch(fixture, 0, 10, 1000);
    assert_int_equal(fixture->entry_count, 1);
    assert_int_equal(fixture->entries[0].sequence, sequence);
    assert_false(spool_counts(fixture->spool).writable);
    limit_files(RLIM_INFINITY);
    fixture_wait(fixture, spool_counts(fixture->spool).writable);
    spool_finish(fixture->spool, sequence);
    fixture_settle(fixture);
    fixture_close(fixture);
    fixture_open(fixture);
    fixture_fetch(fixture, 0, 1, 1);
    assert_true(fixture->entries[0].sequence > sequence);
}

static void test_close_while_the_disk_refuses(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    limit_files(300000);
    size_t stored = fill(fixture);
    spool_finish(fixture->spool, fixture->puts[0].sequence);
    spool_finish(fixture->spool, fixture->puts[1].sequence);
    assert_true(spool_put(fixture->spool, large, sizeof large, NULL));
    size_t puts = fixture->put_count;
    fixture_close(fixture);
    assert_int_equal(fixture->put_count, puts + 1);
    assert_int_equal(fixture_logged(fixture, "2 messages that are done with will be taken up again"), 1);
    limit_files(RLIM_INFINITY);
    fixture_open(fixture);
    assert_int_equal(spool_counts(fixture->spool).waiting, stored);
}

static void test_somebody_locks_the_database(void **state)
{
    struct spool_fixture *fixture = *state;
    sqlite3 *other = NULL;
    fixture_open(fixture);
    assert_int_equal(sqlite3_open(fixture_path(fixture, "spool.db"), &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "begin immediate", NULL, NULL, NULL), SQLITE_OK);
    uint64_t since = uv_hrtime();
    assert_true(spool_put(fixture->spool, "x", 1, NULL));
    pass_seconds(fixture, 1);
    assert_int_equal(fixture->put_count, 0); /* a short lock is waited for */
    fixture_wait(fixture, fixture->put_count == 1);
    assert_int_equal(fixture->puts[0].result, SPOOL_PUT_FAILED);
    assert_true(uv_hrtime() - since < UINT64_C(9000000000));
    assert_int_equal(fixture_logged(fixture, "database is locked"), 1);
    assert_int_equal(sqlite3_exec(other, "rollback", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    fixture_wait(fixture, spool_counts(fixture->spool).writable);
    assert_int_equal(fixture_put(fixture, "x", 1).result, SPOOL_PUT_OK);
}

/* Pages of the payloads are overwritten while the spool is open, behind its back. */
static void test_damaged_while_in_use(void **state)
{
    enum { COUNT = 8000 }; /* more than SQLite keeps in memory */
    struct spool_fixture *fixture = *state;
    char payload[FIXTURE_PAYLOAD_MAX];
    fixture_open(fixture);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(fixture_put(fixture, payload, fixture_payload(i, payload)).result, SPOOL_PUT_OK);
    fixture_close(fixture);

    fixture_open(fixture);
    int64_t last = spool_counts(fixture->spool).last_sequence;
    fixture_fetch(fixture, 0, 10, 1000000);
    int64_t after = fixture->entries[9].sequence;
    assert_int_equal(fixture->entry_count, 10);
    /* Other processes: closing a file in this one would drop SQLite's locks. */
    fixture_shell("dd if=/dev/zero of='%s' bs=8192 seek=400 count=3 conv=notrunc 2>/dev/null",
                  fixture_path(fixture, "spool.db"));
    size_t fetched = 10;
    do {
        fixture_fetch(fixture, after, 1000, 4000000);
        for (size_t i = 0; i < fixture->entry_count; i++) {
            uint32_t number;
            assert_true(fixture_payload_is_sound(fixture->entries[i].payload, fixture->entries[i].length, &number));
            assert_true(fixture->entries[i].sequence > after);
            after = fixture->entries[i].sequence;
        }
        fetched += fixture->entry_count;
    } while (!fixture->end);
    assert_true(fetched < COUNT);
    assert_true(fetched > COUNT - 100);
    assert_int_equal(spool_counts(fixture->spool).waiting, fetched);
    assert_int_equal(fixture_logged(fixture, "CRITICAL"), 1);
    assert_int_equal(fixture_logged(fixture, "set aside as spool.db.damaged-"), 1);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1);
    assert_true(fixture_put_text(fixture, "goes on") > last);
    fixture_close(fixture);
    fixture_open(fixture);
    assert_int_equal(fixture_logged(fixture, "CRITICAL"), 1);
    assert_int_equal(spool_counts(fixture->spool).waiting, fetched + 1);
}

static void execute_beside(struct spool_fixture *fixture, const char *sql)
{
    sqlite3 *other = NULL;
    assert_int_equal(sqlite3_open(fixture_path(fixture, "spool.db"), &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
}

/* The same again at once: it is not replaced for ever, it is out of use for a while. */
static void test_damaged_again_and_again(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    fixture_put_text(fixture, "x");
    execute_beside(fixture, "update payload set sum = sum + 1");
    fixture_fetch(fixture, 0, 10, 1000);
    assert_int_equal(fixture->entry_count, 0);
    fixture_put_text(fixture, "y");
    execute_beside(fixture, "update payload set sum = sum + 1");
    spool_fetch(fixture->spool, 0, 10, 1000);
    fixture_wait(fixture, !spool_counts(fixture->spool).writable);
    pass_seconds(fixture, 1.5);
    assert_int_equal(fixture->fetches, 1);
    assert_int_equal(fixture_logged(fixture, "set aside"), 1);
    assert_int_equal(fixture_logged(fixture, refusal), 1);
}

/* Its own mount namespace, so that nothing is left behind, whatever happens. */
static bool mount_small_disk(const char *directory)
{
    int spaces = CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
    return unshare(spaces) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("spool", directory, "tmpfs", 0, "size=1m") == 0;
}

static void test_full_disk(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_shell("mkdir '%s'", fixture->directory);
    if (!mount_small_disk(fixture->directory)) {
        (void)fprintf(stderr, "skipped: full disk: mounting a tmpfs is not allowed here\n");
        skip();
    }
    fixture_open(fixture);
    size_t stored = fill(fixture);
    check_refusing(fixture, stored);
    assert_int_equal(fixture_logged(fixture, "disk is full"), 1);
    /* Room enough for what takes some away. */
    for (size_t i = 0; i < stored; i++)
        spool_finish(fixture->spool, fixture->puts[i].sequence);
    fixture_shell("mount -o remount,size=4m '%s'", fixture->directory);
    fixture_wait(fixture, spool_counts(fixture->spool).writable);
    assert_int_equal(spool_counts(fixture->spool).waiting, 0);
    fixture_close(fixture);

    fixture_shell("rm -f '%s'/*; dd if=/dev/zero of='%s/fill' bs=4096 2>/dev/null || true", fixture->directory,
                  fixture->directory);
    assert_false(fixture_try_open(fixture, 1000, 1000));
    assert_int_equal(fixture->error.code, ERROR_SPOOL);
    assert_non_null(strstr(fixture->error.text, "full"));
    fixture_shell("umount '%s'", fixture->directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOL_TEST(function) cmocka_unit_test_setup_teardown(function, spool_fixture_setup, unlimited_teardown)
        SPOOL_TEST(test_refused_for_a_while),
        SPOOL_TEST(test_good_again_is_noticed_without_work),
        SPOOL_TEST(test_fetch_while_the_disk_refuses),
        SPOOL_TEST(test_close_while_the_disk_refuses),
        SPOOL_TEST(test_somebody_locks_the_database),
        SPOOL_TEST(test_damaged_while_in_use),
        SPOOL_TEST(test_damaged_again_and_again),
        SPOOL_TEST(test_full_disk), /* the last one: it leaves the process in its own namespace */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
