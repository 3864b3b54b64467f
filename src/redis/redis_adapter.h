/* SPDX-License-Identifier: MIT */
/*
 * hiredis on libuv, one watcher a connection. The adapter that comes with hiredis 0.14 stays silent when a connection
 * is refused or reset; this one hands every poll error to hiredis, which finds out what happened by reading. And it
 * reads in hiredis' place, so that a resp_guard sees every byte first.
 */
#ifndef PROMPTD_REDIS_ADAPTER_H
#define PROMPTD_REDIS_ADAPTER_H

#include <hiredis/async.h>
#include <stdbool.h>
#include <uv.h>

#include "promptd/redis_tls.h"
#include "promptd/resp_guard.h"

struct redis_adapter_options {
    uv_loop_t *loop;
    struct ssl_st *session;   /* the context's TLS; NULL: none */
    struct resp_guard *guard; /* borrowed until the context is freed, with its watcher */
    /* The guard has a fault, or was told an error; the replies before that have been delivered. May free the context.
     */
    void (*on_guarded)(redisAsyncContext *redis);
};

/* false: the socket cannot be watched or out of memory; the context is untouched and the caller frees it. */
bool redis_adapter_attach(redisAsyncContext *redis, const struct redis_adapter_options *options);

/*
 * For the connect and disconnect callbacks, of a connection without TLS that is lost: gives the guard what the server
 * said before it closed the connection, and hiredis did not come to read. None of it reaches hiredis.
 */
void redis_adapter_hear_last_words(const redisAsyncContext *redis);

#endif
