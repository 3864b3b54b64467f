/* SPDX-License-Identifier: MIT */
/* The event hooks of a hiredis context, on a uv_poll_t that lives until its own close callback. */
#include "redis_adapter.h"

#include <stdlib.h>

struct adapter {
    uv_poll_t poll;
    redisAsyncContext *redis; /* NULL once hiredis has let go */
    int events;
    struct redis_adapter_cap cap;
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct adapter *adapter = poll->data;
    int ready = status < 0 ? adapter->events : events;
    if (status < 0)
        adapter->events = 0; /* libuv has stopped the handle */
    if (ready & UV_READABLE)
        redisAsyncHandleRead(adapter->redis);
    if (adapter->redis && adapter->redis->c.reader->len > adapter->cap.reply_bytes)
        adapter->cap.on_exceeded(adapter->redis);
    if (adapter->redis && ready & UV_WRITABLE)
        redisAsyncHandleWrite(adapter->redis);
}

static void watch(struct adapter *adapter, int events)
{
    if (events == adapter->events)
        return;
    adapter->events = events;
    if (events == 0)
        (void)uv_poll_stop(&adapter->poll);
    else if (uv_poll_start(&adapter->poll, events, on_poll) != 0)
        adapter->events = 0; /* only for a closing handle; the link's deadlines notice a silent connection */
}

static void add_read(void *data)
{
    struct adapter *adapter = data;
    watch(adapter, adapter->events | UV_READABLE);
}

static void del_read(void *data)
{
    struct adapter *adapter = data;
    watch(adapter, adapter->events & ~UV_READABLE);
}

static void add_write(void *data)
{
    struct adapter *adapter = data;
    watch(adapter, adapter->events | UV_WRITABLE);
}

static void del_write(void *data)
{
    struct adapter *adapter = data;
    watch(adapter, adapter->events & ~UV_WRITABLE);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void cleanup(void *data)
{
    struct adapter *adapter = data;
    adapter->redis = NULL;
    uv_close((uv_handle_t *)&adapter->poll, on_closed);
}

bool redis_adapter_attach(uv_loop_t *loop, redisAsyncContext *redis, const struct redis_adapter_cap *cap)
{
    struct adapter *adapter = calloc(1, sizeof *adapter);
    if (!adapter)
        return false;
    if (uv_poll_init(loop, &adapter->poll, redis->c.fd) != 0) {
        free(adapter);
        return false;
    }
    adapter->poll.data = adapter;
    adapter->redis = redis;
    adapter->cap = *cap;
    redis->ev.data = adapter;
    redis->ev.addRead = add_read;
    redis->ev.delRead = del_read;
    redis->ev.addWrite = add_write;
    redis->ev.delWrite = del_write;
    redis->ev.cleanup = cleanup;
    return true;
}
