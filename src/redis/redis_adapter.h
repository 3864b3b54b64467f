/* SPDX-License-Identifier: MIT */
/*
 * hiredis on libuv, one watcher a connection. The adapter that comes with hiredis 0.14 stays silent when a connection
 * is refused or reset; this one hands every poll error to hiredis, which finds out what happened by reading.
 */
#ifndef PROMPTD_REDIS_ADAPTER_H
#define PROMPTD_REDIS_ADAPTER_H

#include <hiredis/async.h>
#include <stdbool.h>
#include <uv.h>

/* hiredis has no limit of its own: it would buffer a reply of any size before its callback sees it. */
struct redis_adapter_cap {
    size_t reply_bytes;
    void (*on_exceeded)(redisAsyncContext *redis); /* may free the context */
};

/* false: the socket cannot be watched or out of memory; the context is untouched and the caller frees it. */
bool redis_adapter_attach(uv_loop_t *loop, redisAsyncContext *redis, const struct redis_adapter_cap *cap);

#endif
