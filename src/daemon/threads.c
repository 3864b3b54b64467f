/* SPDX-License-Identifier: MIT */
/* The thread pool of libuv: made at the start, and as large as the machine allows. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/pg_pool.h"

enum {
    THREADS_LOOK_UPS =
        4, /* of names: each link looks up one at a time, and libuv gives them half of the pool at most */
    THREADS_WANTED = PG_POOL_DIALS_AT_ONCE + PG_POOL_CANCELS_AT_ONCE + THREADS_LOOK_UPS,
    THREADS_LEAST = 2,
    THREADS_SPOOL = 1, /* it makes its own */
    THREADS_GONE_MS = 1000
};

static void *wait_at(void *gate)
{
    (void)pthread_mutex_lock(gate);
    (void)pthread_mutex_unlock(gate);
    return NULL;
}

/* A thread that has ended counts until the kernel is through with it: it is a link of this folder as long. */
static void await_links(nlink_t links)
{
    struct stat status;
    for (int i = 0; i < THREADS_GONE_MS && stat("/proc/self/task", &status) == 0 && status.st_nlink > links; i++)
        clock_sleep_ms(1);
}

/* How many threads can be made, up to so many: tried, for no limit tells (TasksMax=, RLIMIT_NPROC, memory). */
static int count_possible(int wanted)
{
    pthread_t threads[THREADS_WANTED + THREADS_SPOOL];
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    struct stat status = {0};
    int made = 0;
    (void)stat("/proc/self/task", &status);
    (void)pthread_mutex_lock(&gate);
    while (made < wanted && pthread_create(&threads[made], NULL, wait_at, &gate) == 0)
        made++;
    (void)pthread_mutex_unlock(&gate);
    for (int i = 0; i < made; i++)
        (void)pthread_join(threads[i], NULL);
    await_links(status.st_nlink);
    return made;
}

static void do_nothing(uv_work_t *work)
{
    (void)work;
}

static void done_nothing(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

/* libuv makes the pool at its first use, all of it, and aborts where a thread cannot be made. */
bool threads_open(struct daemon *daemon, struct error *error)
{
    char text[16];
    int possible = count_possible(THREADS_WANTED + THREADS_SPOOL) - THREADS_SPOOL;
    if (possible < THREADS_LEAST)
        return error_set(error, ERROR_INTERNAL,
                         "no threads can be made: more are needed than TasksMax=, ulimit -u or memory allow");
    if (possible < THREADS_WANTED)
        log_warning(LOG_FIELDS(log_number("threads", possible), log_number("wanted", THREADS_WANTED)),
                    "not all threads can be made: connections are dialled and cancelled more slowly");
    (void)snprintf(text, sizeof text, "%d", possible);
    (void)setenv("UV_THREADPOOL_SIZE", text, 1);
    int status = uv_queue_work(&daemon->loop, &daemon->first_work, do_nothing, done_nothing);
    return status == 0 || error_set(error, ERROR_INTERNAL, "the thread pool cannot be used: %s", uv_strerror(status));
}
