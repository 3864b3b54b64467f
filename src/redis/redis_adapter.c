/* SPDX-License-Identifier: MIT */
/* The event hooks of a hiredis context, on a uv_poll_t that lives until its own close callback. */
#include "redis_adapter.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"

enum { READ_BYTES = 16384, READS_BEFORE_WRITE_MAX = 256, LAST_WORDS_BYTES_MAX = 65536 };

struct adapter {
    uv_poll_t poll;
    redisAsyncContext *redis; /* NULL once hiredis has let go */
    int events;
    struct redis_adapter_options options;
#if HIREDIS_MAJOR >= 1
    redisContextFuncs functions; /* the own ones, with our read */
    const redisContextFuncs *own;
#else
    int socket;
    int silence; /* nothing can ever be read there */
#endif
};

/* --- reading -------------------------------------------------------------------------------------------------- */

/* What the guard lets pass, into hiredis' reader. false: the context has the error. */
static bool feed(redisContext *context, struct resp_guard *guard, const char *bytes, size_t length)
{
    char passed[READ_BYTES + RESP_GUARD_HEADER_BYTES];
    size_t count = resp_guard_pass(guard, bytes, length, passed);
    if (redisReaderFeed(context->reader, passed, count) == REDIS_OK)
        return true;
    context->err = context->reader->err;
    (void)snprintf(context->errstr, sizeof context->errstr, "%s", context->reader->errstr);
    return false;
}

#if HIREDIS_MAJOR >= 1

/* In the place of the context's own: what it read is in the reader already, so that there is nothing to return. */
static ssize_t read_guarded(redisContext *context, char *bytes, size_t size)
{
    const struct adapter *adapter = ((redisAsyncContext *)context)->ev.data;
    char read[READ_BYTES];
    (void)bytes;
    (void)size;
    ssize_t count = adapter->own->read(context, read, sizeof read);
    if (count <= 0)
        return count;
    return feed(context, adapter->options.guard, read, (size_t)count) ? 0 : -1;
}

static bool prepare(struct adapter *adapter, redisAsyncContext *redis)
{
    adapter->own = redis->c.funcs;
    adapter->functions = *adapter->own;
    adapter->functions.read = read_guarded;
    redis->c.funcs = &adapter->functions;
    redis->ev.data = adapter;
    return true;
}

static void handle_read(struct adapter *adapter)
{
    redisAsyncHandleRead(adapter->redis);
}

static void let_go(struct adapter *adapter)
{
    (void)adapter;
}

#else

/* hiredis finds the error in its context, and gives the connection up then. */
static void read_guarded(redisContext *context, struct resp_guard *guard)
{
    char read[READ_BYTES];
    ssize_t count = recv(context->fd, read, sizeof read, 0);
    if (count > 0) {
        (void)feed(context, guard, read, (size_t)count);
    } else if (count == 0) {
        context->err = REDIS_ERR_EOF;
        (void)snprintf(context->errstr, sizeof context->errstr, "Server closed the connection");
    } else if (errno != EINTR && errno != EAGAIN) {
        context->err = REDIS_ERR_IO;
        (void)snprintf(context->errstr, sizeof context->errstr, "%s", strerror(errno));
    }
}

/* hiredis 0.14 has no read function to replace: it reads where it finds nothing, and works on what it was fed. */
static void handle_read(struct adapter *adapter)
{
    redisAsyncContext *redis = adapter->redis;
    read_guarded(&redis->c, adapter->options.guard);
    redis->c.fd = adapter->silence;
    redisAsyncHandleRead(redis);
    if (adapter->redis)
        redis->c.fd = adapter->socket;
}

static bool prepare(struct adapter *adapter, redisAsyncContext *redis)
{
    adapter->socket = redis->c.fd;
    adapter->silence = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return adapter->silence >= 0;
}

/* hiredis is about to close the context's descriptor: its own. */
static void let_go(struct adapter *adapter)
{
    adapter->redis->c.fd = adapter->socket;
    (void)close(adapter->silence);
}

#endif

void redis_adapter_hear_last_words(const redisAsyncContext *redis)
{
    const struct adapter *adapter = redis->ev.data;
    char read[READ_BYTES];
    char ignored[READ_BYTES + RESP_GUARD_HEADER_BYTES];
    ssize_t count;
    size_t heard = 0;
    while (heard < LAST_WORDS_BYTES_MAX && (count = recv(redis->c.fd, read, sizeof read, MSG_DONTWAIT)) > 0) {
        (void)resp_guard_pass(adapter->options.guard, read, (size_t)count, ignored);
        heard += (size_t)count;
    }
}

/* --- hooks ---------------------------------------------------------------------------------------------------- */

/* Before a write all that is there, within bounds: if the write fails it could not be read any more. What TLS has
 * decrypted already makes no event any more, and is read in any case. */
static void read_ahead(struct adapter *adapter, bool will_write)
{
    const struct resp_guard *guard = adapter->options.guard;
    uint64_t before;
    int rounds = 0;
    do {
        before = guard->received_bytes;
        handle_read(adapter);
        rounds++;
    } while (adapter->redis && (redis_tls_has_unread(adapter->options.session) ||
                                (will_write && guard->received_bytes != before && rounds < READS_BEFORE_WRITE_MAX)));
}

/* Reads first, whatever is ready: what the server said before it closed the connection counts more than a failed
 * write. A connection that is not yet made is for hiredis' write handler, which does not read. */
static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct adapter *adapter = poll->data;
    const struct resp_guard *guard = adapter->options.guard;
    int ready = status < 0 ? adapter->events : events;
    bool is_connected = adapter->redis->c.flags & REDIS_CONNECTED;
    if (status < 0)
        adapter->events = 0; /* libuv has stopped the handle */
    if (is_connected)
        read_ahead(adapter, ready & UV_WRITABLE);
    if (adapter->redis && (guard->fault || guard->was_told))
        adapter->options.on_guarded(adapter->redis);
    if (adapter->redis && (!is_connected || ready & UV_WRITABLE))
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
    let_go(adapter);
    adapter->redis = NULL;
    uv_close((uv_handle_t *)&adapter->poll, on_closed);
}

/* A peer that vanished without a word is noticed by the kernel too, besides the deadlines above it. */
static void set_socket_options(int fd)
{
    const int on = 1;
    const int idle_s = 5;
    const int interval_s = 2;
    const int probes = 3;
    const unsigned user_timeout_ms = 12000;
    bool ok = setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms) == 0;
    if (!ok)
        log_debug(NULL, "TCP keepalive could not be set");
}

bool redis_adapter_attach(redisAsyncContext *redis, const struct redis_adapter_options *options)
{
    struct adapter *adapter = calloc(1, sizeof *adapter);
    if (!adapter)
        return false;
    if (uv_poll_init(options->loop, &adapter->poll, redis->c.fd) != 0) {
        free(adapter);
        return false;
    }
    adapter->poll.data = adapter;
    adapter->redis = redis;
    adapter->options = *options;
    if (!prepare(adapter, redis)) {
        uv_close((uv_handle_t *)&adapter->poll, on_closed);
        return false;
    }
    redis->ev.data = adapter;
    redis->ev.addRead = add_read;
    redis->ev.delRead = del_read;
    redis->ev.addWrite = add_write;
    redis->ev.delWrite = del_write;
    redis->ev.cleanup = cleanup;
    if (redis->c.connection_type == REDIS_CONN_TCP)
        set_socket_options(redis->c.fd);
    return true;
}
