/* SPDX-License-Identifier: MIT */
/* A process with a spool is killed at any moment: what it was told is on disk is there. */
#include "spool_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 12, OUTSTANDING = 50, MOST = 200000 };

/* What the child says of each message, in one write that a kill does not split. */
struct confirmation {
    uint32_t number;
    int64_t sequence;
};

/* The child: puts without end, finishes every fifth, and confirms the others. */
static struct {
    struct spool *spool;
    uint32_t next;
    int fd;
    char payloads[OUTSTANDING][FIXTURE_PAYLOAD_MAX];
} child;

static void child_put(size_t slot)
{
    uint32_t number = child.next++;
    size_t length = fixture_payload(number, child.payloads[slot]);
    if (!spool_put(child.spool, child.payloads[slot], length, (void *)slot))
        _exit(9);
}

static void child_on_put(void *context, void *token, enum spool_put_result result, int64_t sequence)
{
    (void)context;
    size_t slot = (size_t)token;
    struct confirmation confirmation = {.sequence = sequence};
    confirmation.number = (uint32_t)strtoul(child.payloads[slot], NULL, 10);
    if (result != SPOOL_PUT_OK)
        _exit(8);
    if (confirmation.number % 5 == 0)
        spool_finish(child.spool, sequence);
    else if (write(child.fd, &confirmation, sizeof confirmation) != sizeof confirmation)
        _exit(7);
    child_put(slot);
}

static void child_run(const char *directory, uint32_t first, int fd)
{
    uv_loop_t loop;
    child.next = first;
    child.fd = fd;
    if (uv_loop_init(&loop) != 0)
        _exit(6);
    child.spool = spool_open(&(struct spool_options){.loop = &loop,
                                                     .directory = directory,
                                                     .limits = {.waiting_bytes = UINT64_C(1) << 40},
                                                     .on_put = child_on_put},
                             NULL);
    if (!child.spool)
        _exit(5);
    for (size_t slot = 0; slot < OUTSTANDING; slot++)
        child_put(slot);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    _exit(4);
}

/* Kills it after `ms`; what it had confirmed by then is appended. */
static size_t kill_child(struct spool_fixture *fixture, uint32_t first, unsigned ms, struct confirmation *confirmed,
                         size_t count)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        child_run(fixture->directory, first, ends[1]);
    }
    close(ends[1]);
    struct confirmation one;
    uint64_t end = uv_hrtime() + ms * UINT64_C(1000000);
    bool killed = false;
    while (read(ends[0], &one, sizeof one) == sizeof one) {
        assert_true(count < MOST);
        confirmed[count++] = one;
        if (!killed && uv_hrtime() > end) {
            assert_int_equal(kill(pid, SIGKILL), 0);
            killed = true;
        }
    }
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return count;
}

/* Everything that was confirmed is there, as it was put, in the order of its number; nothing is there twice. */
static void check_all(struct spool_fixture *fixture, const struct confirmation *confirmed, size_t count)
{
    int64_t after = 0;
    size_t found = 0;
    uint64_t rows = 0;
    fixture_open(fixture);
    uint64_t waiting = spool_counts(fixture->spool).waiting;
    do {
        fixture_fetch(fixture, after, 500, 4000000);
        for (size_t i = 0; i < fixture->entry_count; i++, rows++) {
            const struct fixture_entry *entry = &fixture->entries[i];
            uint32_t number;
            assert_true(fixture_payload_is_sound(entry->payload, entry->length, &number));
            assert_true(entry->sequence > after);
            assert_true(entry->redelivered);
            after = entry->sequence;
            if (found < count && confirmed[found].sequence == after) {
                assert_int_equal(confirmed[found].number, number);
                found++;
            }
        }
    } while (!fixture->end);
    assert_int_equal(found, count);
    assert_int_equal(rows, waiting);
    assert_int_equal(fixture_logged(fixture, "CRITICAL"), 0);
}

static void test_killed_while_putting(void **state)
{
    struct spool_fixture *fixture = *state;
    unsigned random = 20261123;
    struct confirmation *confirmed = calloc(MOST, sizeof *confirmed);
    assert_non_null(confirmed);
    for (int round = 0; round < ROUNDS; round++) {
        random = random * 1103515245 + 12345;
        fixture_shell("rm -rf '%s'", fixture->directory);
        size_t count = kill_child(fixture, 1, 20 + (random >> 16) % 200, confirmed, 0);
        assert_true(count > 0);
        check_all(fixture, confirmed, count);
        fixture_close(fixture);
    }
    free(confirmed);
}

/* Killed, started, killed: what the first left is still there after the second. */
static void test_killed_again(void **state)
{
    struct spool_fixture *fixture = *state;
    struct confirmation *confirmed = calloc(MOST, sizeof *confirmed);
    assert_non_null(confirmed);
    size_t count = 0;
    for (unsigned round = 0; round < 4; round++) {
        size_t before = count;
        count = kill_child(fixture, 1 + round * 10000000, 60, confirmed, count);
        assert_true(count > before);
        assert_true(before == 0 || confirmed[before].sequence > confirmed[before - 1].sequence);
    }
    check_all(fixture, confirmed, count);
    free(confirmed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_killed_while_putting, spool_fixture_setup, spool_fixture_teardown),
        cmocka_unit_test_setup_teardown(test_killed_again, spool_fixture_setup, spool_fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
