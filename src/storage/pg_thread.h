/* SPDX-License-Identifier: MIT */
/* What of libpq blocks, in libuv's thread pool: to dial, and to ask for a cancel. Neither can be interrupted. */
#ifndef PROMPTD_PG_THREAD_H
#define PROMPTD_PG_THREAD_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct pg_dial {
    uv_work_t work;
    bool in_thread;
    const char *database_url; /* borrowed */
    int64_t statement_timeout_ms;
    PGconn *connection; /* what it has made */
    /* The connection is the receiver's, and may be NULL; `failure` is NULL where it is non-blocking and in pipeline
     * mode.
     */
    void (*on_done)(void *context, PGconn *connection, const char *failure);
    void *context;
};

/* Returns libuv's error, or 0: then on_done follows. */
int pg_dial_start(struct pg_dial *dial, uv_loop_t *loop);

struct pg_cancel {
    uv_work_t work;
    bool in_thread;
    PGcancel *request;
    void (*on_done)(void *context);
    void *context;
};

/* Asks the server to cancel what runs on the connection. Returns whether on_done follows. */
bool pg_cancel_start(struct pg_cancel *cancel, uv_loop_t *loop, PGconn *connection);

#endif
