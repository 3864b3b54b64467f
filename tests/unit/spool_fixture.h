/* SPDX-License-Identifier: MIT */
/* A spool in a folder of its own, with a loop, and everything that it called back. */
#ifndef PROMPTD_TESTS_SPOOL_FIXTURE_H
#define PROMPTD_TESTS_SPOOL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include <cmocka.h>

#include "promptd/spool.h"

struct fixture_put {
    void *token;
    enum spool_put_result result;
    int64_t sequence;
};

struct fixture_entry {
    int64_t sequence;
    int64_t arrived_ms;
    char *payload;
    size_t length;
    bool redelivered;
};

struct spool_fixture {
    char root[64];      /* a temporary folder */
    char directory[96]; /* root/spool */
    char log_file[96];  /* root/log: what the spool said */
    uv_loop_t loop;
    uv_timer_t ticker;   /* so that waiting for something that never comes ends */
    struct spool *spool; /* NULL: closed */
    struct error error;  /* of an open that failed */

    struct fixture_put *puts; /* in the order of the callbacks; since the last open */
    size_t put_count;
    struct fixture_entry *entries; /* of the last fetch */
    size_t entry_count;
    bool end;
    size_t fetches;
    uint64_t grown;
    bool closed;
    char order[4096]; /* one letter a callback: p, f, g */
};

/* cmocka's setup and teardown. The teardown closes what is open and fails when the loop is not clean. */
int spool_fixture_setup(void **state);
int spool_fixture_teardown(void **state);

bool fixture_try_open(struct spool_fixture *fixture, uint64_t waiting_bytes, uint64_t dead_bytes);
void fixture_open(struct spool_fixture *fixture);
void fixture_close(struct spool_fixture *fixture);

/* Turns the loop until the condition holds; fails after 20 s. */
#define fixture_wait(fixture, condition)                                                                               \
    do {                                                                                                               \
        uint64_t give_up_ = uv_hrtime() + UINT64_C(20000000000);                                                       \
        while (!(condition)) {                                                                                         \
            if (uv_hrtime() > give_up_)                                                                                \
                fail_msg("waited 20 s in vain for %s", #condition);                                                    \
            (void)uv_run(&(fixture)->loop, UV_RUN_ONCE);                                                               \
        }                                                                                                              \
    } while (0)

/* These wait for the callback. */
struct fixture_put fixture_put(struct spool_fixture *fixture, const char *payload, size_t length);
int64_t fixture_put_text(struct spool_fixture *fixture, const char *text);
void fixture_fetch(struct spool_fixture *fixture, int64_t after, size_t max_messages, size_t max_bytes);

/* A fetch of nothing, behind what was queued: once it is called back, all of that is on disk. */
void fixture_settle(struct spool_fixture *fixture);

/* How often `text` stands in what was logged. */
unsigned fixture_logged(const struct spool_fixture *fixture, const char *text);
void fixture_forget_log(struct spool_fixture *fixture);

/* The number of files in the spool's folder whose name begins so. */
unsigned fixture_files(const struct spool_fixture *fixture, const char *prefix);

/* The path of a file in the spool's folder; overwritten by the next call. */
const char *fixture_path(const struct spool_fixture *fixture, const char *name);

/* Payload number `number`, which can be known again: its number, and a text of that length made from it. */
enum { FIXTURE_PAYLOAD_MAX = 40000 };
size_t fixture_payload(uint32_t number, char payload[FIXTURE_PAYLOAD_MAX]);
bool fixture_payload_is_sound(const char *payload, size_t length, uint32_t *number);

/* Runs sh -c and fails when it fails. */
void fixture_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
