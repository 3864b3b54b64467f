/* SPDX-License-Identifier: MIT */
/* The spool on a disk that works: what is put is there, in order, bounded, counted, over restarts. */
#include "spool_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_put_fetch_finish(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    int64_t first = fixture_put_text(fixture, "one");
    int64_t second = fixture_put_text(fixture, "two");
    assert_true(second > first);
    assert_int_equal(spool_counts(fixture->spool).waiting, 2);
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 6);
    assert_int_equal(spool_counts(fixture->spool).last_sequence, second);

    fixture_fetch(fixture, 0, 10, 1000);
    assert_int_equal(fixture->entry_count, 2);
    assert_true(fixture->end);
    assert_int_equal(fixture->entries[0].sequence, first);
    assert_string_equal(fixture->entries[0].payload, "one");
    assert_true(fixture->entries[0].arrived_ms > INT64_C(1600000000000));
    assert_string_equal(fixture->entries[1].payload, "two");

    spool_finish(fixture->spool, first);
    spool_finish(fixture->spool, second);
    fixture_settle(fixture);
    assert_int_equal(spool_counts(fixture->spool).waiting, 0);
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 0);
    fixture_close(fixture);

    fixture_open(fixture);
    fixture_fetch(fixture, 0, 10, 1000);
    assert_int_equal(fixture->entry_count, 0);
    assert_true(fixture->end);
}

static void test_any_bytes_are_a_payload(void **state)
{
    struct spool_fixture *fixture = *state;
    const char bytes[] = "nul \0 and \xff\xfe and ' quotes";
    size_t large_size = 3000000;
    char *large = malloc(large_size);
    assert_non_null(large);
    for (size_t i = 0; i < large_size; i++)
        large[i] = (char)(i * 7);
    fixture_open(fixture);
    assert_int_equal(fixture_put(fixture, bytes, sizeof bytes).result, SPOOL_PUT_OK);
    assert_int_equal(fixture_put(fixture, "", 0).result, SPOOL_PUT_OK);
    assert_int_equal(fixture_put(fixture, large, large_size).result, SPOOL_PUT_OK);
    fixture_close(fixture);
    fixture_open(fixture);
    fixture_fetch(fixture, 0, 10, 10000000);
    assert_int_equal(fixture->entry_count, 3);
    assert_int_equal(fixture->entries[0].length, sizeof bytes);
    assert_memory_equal(fixture->entries[0].payload, bytes, sizeof bytes);
    assert_int_equal(fixture->entries[1].length, 0);
    assert_int_equal(fixture->entries[2].length, large_size);
    assert_memory_equal(fixture->entries[2].payload, large, large_size);
    free(large);
}

static void test_fetch_keeps_its_bounds(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    for (int i = 0; i < 5; i++)
        fixture_put_text(fixture, "0123456789");
    fixture_fetch(fixture, 0, 2, 1000);
    assert_int_equal(fixture->entry_count, 2);
    assert_false(fixture->end);
    fixture_fetch(fixture, fixture->entries[1].sequence, 10, 25);
    assert_int_equal(fixture->entry_count, 2); /* a third would be beyond 25 bytes */
    assert_false(fixture->end);
    fixture_fetch(fixture, fixture->entries[1].sequence, 10, 3);
    assert_int_equal(fixture->entry_count, 1); /* at least one, however large */
    assert_true(fixture->end);
    fixture_put_text(fixture, "0123456789");
    fixture_fetch(fixture, fixture->entries[0].sequence, 1, 1000);
    assert_int_equal(fixture->entry_count, 1);
    assert_true(fixture->end); /* exactly the last one */
}

static void test_callbacks_come_in_the_order_of_the_calls(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    for (intptr_t i = 0; i < 3; i++)
        assert_true(spool_put(fixture->spool, "x", 1, (void *)i));
    spool_fetch(fixture->spool, 0, 100, 1000);
    for (intptr_t i = 3; i < 5; i++)
        assert_true(spool_put(fixture->spool, "x", 1, (void *)i));
    assert_string_equal(fixture->order, ""); /* never inside a call */
    fixture_wait(fixture, fixture->put_count == 5);
    assert_string_equal(fixture->order, "pppfpp");
    assert_int_equal(fixture->entry_count, 3); /* what was put before it, and no more */
    for (intptr_t i = 0; i < 5; i++) {
        assert_ptr_equal(fixture->puts[i].token, (void *)i);
        assert_true(i == 0 || fixture->puts[i].sequence > fixture->puts[i - 1].sequence);
    }
}

static void test_unknown_sequences_do_no_harm(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    int64_t sequence = fixture_put_text(fixture, "x");
    spool_finish(fixture->spool, sequence + 1000);
    spool_set_dead(fixture->spool, sequence + 1001, &(struct disposition){.outcome = "rejected"});
    spool_finish(fixture->spool, sequence);
    spool_finish(fixture->spool, sequence); /* twice */
    fixture_settle(fixture);
    assert_int_equal(spool_counts(fixture->spool).waiting, 0);
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 0);
    assert_int_equal(spool_counts(fixture->spool).dead, 0);
}

static void test_max_bytes(void **state)
{
    struct spool_fixture *fixture = *state;
    assert_true(fixture_try_open(fixture, 10, 1000));
    assert_int_equal(fixture_put(fixture, "123456", 6).result, SPOOL_PUT_OK);
    assert_int_equal(fixture_put(fixture, "12345", 5).result, SPOOL_PUT_FULL);
    int64_t sequence = fixture->puts[0].sequence;
    assert_int_equal(spool_counts(fixture->spool).waiting, 1);
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 6);
    assert_int_equal(fixture_put(fixture, "1234", 4).result, SPOOL_PUT_OK);
    assert_int_equal(fixture_put(fixture, "1", 1).result, SPOOL_PUT_FULL);
    spool_set_limits(fixture->spool, &(struct spool_limits){.waiting_bytes = 11, .dead_bytes = 1000});
    assert_int_equal(fixture_put(fixture, "1", 1).result, SPOOL_PUT_OK);
    fixture_close(fixture);
    assert_true(fixture_try_open(fixture, 11, 1000));
    assert_int_equal(fixture_put(fixture, "1", 1).result, SPOOL_PUT_FULL);
    spool_set_dead(fixture->spool, sequence, &(struct disposition){.outcome = "rejected"});
    fixture_wait(fixture, spool_counts(fixture->spool).dead == 1);
    assert_int_equal(fixture_put(fixture, "123456", 6).result, SPOOL_PUT_OK); /* dead letters do not count */
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 11);
    assert_int_equal(spool_counts(fixture->spool).dead_bytes, 6);
}

static void test_puts_under_way_count(void **state)
{
    struct spool_fixture *fixture = *state;
    assert_true(fixture_try_open(fixture, 10, 10));
    assert_true(spool_put(fixture->spool, "123456", 6, NULL));
    assert_int_equal(spool_counts(fixture->spool).waiting, 1);
    assert_int_equal(spool_counts(fixture->spool).waiting_bytes, 6);
    assert_true(spool_put(fixture->spool, "123456", 6, NULL));
    fixture_wait(fixture, fixture->put_count == 2);
    assert_int_equal(fixture->puts[0].result, SPOOL_PUT_OK);
    assert_int_equal(fixture->puts[1].result, SPOOL_PUT_FULL);
    assert_int_equal(spool_counts(fixture->spool).waiting, 1);
}

static void test_sequences_never_go_back(void **state)
{
    struct spool_fixture *fixture = *state;
    int64_t last = 0;
    for (int i = 0; i < 4; i++) {
        fixture_open(fixture);
        assert_true(spool_counts(fixture->spool).last_sequence >= last);
        int64_t sequence = fixture_put_text(fixture, "x");
        assert_true(sequence > last);
        last = sequence;
        spool_finish(fixture->spool, sequence);
        fixture_close(fixture);
    }
}

static void test_close_writes_what_is_queued(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    for (int i = 0; i < 1000; i++)
        assert_true(spool_put(fixture->spool, "x", 1, NULL));
    fixture_close(fixture);
    assert_int_equal(fixture->put_count, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(fixture->puts[i].result, SPOOL_PUT_OK);
    fixture_open(fixture);
    assert_int_equal(spool_counts(fixture->spool).waiting, 1000);
    spool_fetch(fixture->spool, 0, 10, 10); /* begun or not: it does not hold the end up */
    fixture_close(fixture);
}

static void test_files_are_private(void **state)
{
    struct spool_fixture *fixture = *state;
    struct stat status;
    mode_t before = umask(0277);
    fixture_open(fixture);
    fixture_put_text(fixture, "secret");
    assert_int_equal(stat(fixture->directory, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    const char *const files[] = {"spool.db", "spool.db-wal", "spool.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(stat(fixture_path(fixture, files[i]), &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
    }
    fixture_close(fixture);
    (void)umask(before);
}

static void test_second_opener_is_refused(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    struct error error;
    struct spool_options options = {.loop = &fixture->loop, .directory = fixture->directory};
    assert_null(spool_open(&options, &error));
    assert_int_equal(error.code, ERROR_SPOOL);
    char expected[128];
    (void)snprintf(expected, sizeof expected, "in use by another promptd (pid %ld)", (long)getpid());
    assert_non_null(strstr(error.text, expected));
    assert_non_null(strstr(error.text, fixture->directory));
    fixture_put_text(fixture, "undisturbed");
    fixture_close(fixture);
    fixture_open(fixture); /* and the lock goes with the spool */
}

static void refuse(struct spool_fixture *fixture, const char *expected)
{
    assert_false(fixture_try_open(fixture, 100, 100));
    assert_int_equal(fixture->error.code, ERROR_SPOOL);
    if (!strstr(fixture->error.text, expected))
        fail_msg("\"%s\" does not say \"%s\"", fixture->error.text, expected);
}

static void test_folders_that_cannot_be_used(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_shell("touch '%s/file'", fixture->root);
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/file", fixture->root);
    refuse(fixture, "is not a folder");
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/file/below", fixture->root);
    refuse(fixture, "is not a folder");
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/none/below", fixture->root);
    refuse(fixture, "does not exist");
    (void)snprintf(fixture->directory, sizeof fixture->directory, "/proc/spool");
    refuse(fixture, "spool_dir /proc/spool");
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/odd", fixture->root);
    fixture_shell("mkdir -p '%s/spool.db'", fixture->directory);
    refuse(fixture, "spool.db is not a regular file");
    fixture_shell("rmdir '%s/spool.db' && mkfifo '%s/spool.db'", fixture->directory, fixture->directory);
    refuse(fixture, "spool.db is not a regular file");
    fixture_shell("rm '%s/spool.db' && mkdir '%s/none' && ln -s '%s/none' '%s/link'", fixture->directory, fixture->root,
                  fixture->root, fixture->root);
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/link", fixture->root);
    fixture_open(fixture); /* a link to a folder is one */
}

static void test_folder_without_permission(void **state)
{
    enum { NOBODY = 65534 };
    struct spool_fixture *fixture = *state;
    fixture_shell("mkdir '%s' && chmod 555 '%s' && chmod 755 '%s'", fixture->directory, fixture->directory,
                  fixture->root);
    uid_t user = geteuid();
    if (user == 0) /* root may write everywhere */
        assert_int_equal(seteuid(NOBODY), 0);
    refuse(fixture, "has no permission");
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/spool/below", fixture->root);
    refuse(fixture, "has no permission");
    assert_int_equal(seteuid(user), 0);
}

static void test_no_payload_in_the_log(void **state)
{
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    fixture_put_text(fixture, "SECRET-OF-THE-PROMPT");
    fixture_close(fixture);
    fixture_shell("dd if=/dev/zero of='%s' bs=1 count=100 conv=notrunc 2>/dev/null", fixture_path(fixture, "spool.db"));
    fixture_open(fixture);
    fixture_fetch(fixture, 0, 10, 1000);
    assert_true(fixture_logged(fixture, "CRITICAL") > 0);
    assert_int_equal(fixture_logged(fixture, "SECRET"), 0);
}

/* In KiB; 0 where a sanitizer keeps what was freed. */
static size_t resident_kib(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 0;
#endif
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (size_t)usage.ru_maxrss;
}

/* A backlog goes in, comes back in order, goes away; memory stays small, and so does the file in the end. */
static void test_hundred_thousand(void **state)
{
    struct spool_fixture *fixture = *state;
    enum { COUNT = 100000, AT_ONCE = 5000, SIZE = 1000 };
    static char payload[SIZE];
    size_t before_kib = resident_kib();
    fixture_open(fixture);
    for (size_t sent = 0; sent < COUNT;) {
        for (int i = 0; i < AT_ONCE; i++, sent++)
            assert_true(spool_put(fixture->spool, payload, SIZE, (void *)sent));
        fixture_wait(fixture, fixture->put_count == sent);
    }
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, COUNT);
    assert_int_equal(counts.waiting_bytes, (uint64_t)COUNT * SIZE);
    fixture_close(fixture);

    fixture_open(fixture);
    assert_int_equal(spool_counts(fixture->spool).waiting, COUNT);
    struct stat status;
    assert_int_equal(stat(fixture_path(fixture, "spool.db"), &status), 0);
    assert_true(status.st_size > 100000000);
    size_t fetched = 0;
    int64_t after = 0;
    do {
        fixture_fetch(fixture, after, 1024, 4 * 1024 * 1024);
        for (size_t i = 0; i < fixture->entry_count; i++) {
            assert_true(fixture->entries[i].sequence > after);
            after = fixture->entries[i].sequence;
            spool_finish(fixture->spool, after);
        }
        fetched += fixture->entry_count;
    } while (!fixture->end);
    assert_int_equal(fetched, COUNT);
    fixture_settle(fixture);
    counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(counts.waiting_bytes, 0);
    assert_true(resident_kib() - before_kib < (size_t)200 * 1024);

    uint64_t give_up = uv_hrtime() + UINT64_C(60000000000);
    do { /* the surplus goes back in slices, one a second */
        (void)uv_run(&fixture->loop, UV_RUN_ONCE);
        assert_int_equal(stat(fixture_path(fixture, "spool.db"), &status), 0);
        assert_true(uv_hrtime() < give_up);
    } while (status.st_size > 40000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOL_TEST(function) cmocka_unit_test_setup_teardown(function, spool_fixture_setup, spool_fixture_teardown)
        SPOOL_TEST(test_put_fetch_finish),
        SPOOL_TEST(test_any_bytes_are_a_payload),
        SPOOL_TEST(test_fetch_keeps_its_bounds),
        SPOOL_TEST(test_callbacks_come_in_the_order_of_the_calls),
        SPOOL_TEST(test_unknown_sequences_do_no_harm),
        SPOOL_TEST(test_max_bytes),
        SPOOL_TEST(test_puts_under_way_count),
        SPOOL_TEST(test_sequences_never_go_back),
        SPOOL_TEST(test_close_writes_what_is_queued),
        SPOOL_TEST(test_files_are_private),
        SPOOL_TEST(test_second_opener_is_refused),
        SPOOL_TEST(test_folders_that_cannot_be_used),
        SPOOL_TEST(test_folder_without_permission),
        SPOOL_TEST(test_no_payload_in_the_log),
        SPOOL_TEST(test_hundred_thousand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
