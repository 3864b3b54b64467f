/* SPDX-License-Identifier: MIT */
/* A connection that is made in the very turn of the loop in which it is given up, by somebody whose turn came first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "promptd/redis_dial.h"

static struct world {
    uv_loop_t loop;
    struct redis_dial *dial;
    uv_poll_t first; /* ready before the dial's own socket is */
    int pipe[2];
    int listener;
    struct sockaddr_un place;
    void (*give_up)(void);
    unsigned logins;
    unsigned ends;
    unsigned closed;
    char reason[256];
} world;

static void on_login(void *context)
{
    (void)context;
    world.logins++;
}

static void on_over(void *context, const struct redis_dial_end *end)
{
    (void)context;
    world.ends++;
    (void)snprintf(world.reason, sizeof world.reason, "%s", end->reason);
}

static void on_closed(void *context)
{
    (void)context;
    world.closed++;
}

static void on_first(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    uv_close((uv_handle_t *)poll, NULL);
    world.give_up();
}

static void close_dial(void)
{
    redis_dial_close(world.dial);
}

static void drop_dial(void)
{
    assert_true(redis_dial_drop(world.dial, "no more"));
}

static void begin(const struct redis_address *address, void (*give_up)(void))
{
    world.give_up = give_up;
    world.logins = world.ends = world.closed = 0;
    assert_int_equal(uv_loop_init(&world.loop), 0);
    world.dial = redis_dial_new(&(struct redis_dial_options){
        .loop = &world.loop,
        .address = address,
        .timeout_ms = 60000,
        .limits = {.bulk_bytes = 1024, .reply_bytes = 1024},
        .on_login = on_login,
        .on_over = on_over,
        .on_closed = on_closed,
    });
    assert_non_null(world.dial);
    assert_int_equal(uv_poll_init(&world.loop, &world.first, world.pipe[0]), 0);
    assert_int_equal(uv_poll_start(&world.first, UV_READABLE, on_first), 0);
    redis_dial_begin(world.dial, address);
}

static void end(void)
{
    for (int i = 0; i < 10 && world.closed == 0; i++)
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    assert_int_equal(world.closed, 1);
    assert_int_equal(uv_loop_close(&world.loop), 0);
    redis_dial_free(world.dial);
}

static void test_closed(void **state)
{
    (void)state;
    const struct redis_address address = {.unix_path = world.place.sun_path};
    begin(&address, close_dial);
    end();
    assert_int_equal(world.logins, 0);
    assert_int_equal(world.ends, 0);
}

static void test_dropped(void **state)
{
    (void)state;
    const struct redis_address address = {.unix_path = world.place.sun_path};
    begin(&address, drop_dial);
    for (int i = 0; i < 10 && world.ends == 0; i++)
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    assert_int_equal(world.ends, 1);
    assert_int_equal(world.logins, 0);
    assert_string_equal(world.reason, "no more");
    redis_dial_close(world.dial);
    end();
}

static int set_up(void **state)
{
    (void)state;
    char folder[] = "/tmp/promptd-test-dial-XXXXXX";
    world.place.sun_family = AF_UNIX;
    if (!mkdtemp(folder) || pipe(world.pipe) != 0 || write(world.pipe[1], "", 1) != 1)
        return -1;
    (void)snprintf(world.place.sun_path, sizeof world.place.sun_path, "%s/redis", folder);
    world.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    return bind(world.listener, (const struct sockaddr *)&world.place, sizeof world.place) != 0 ||
           listen(world.listener, 8) != 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)close(world.listener);
    (void)close(world.pipe[0]);
    (void)close(world.pipe[1]);
    (void)unlink(world.place.sun_path);
    *strrchr(world.place.sun_path, '/') = '\0';
    return rmdir(world.place.sun_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_dropped),
    };
    return cmocka_run_group_tests_name("redis_dial", tests, set_up, tear_down);
}
