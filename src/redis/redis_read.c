/* SPDX-License-Identifier: MIT */
/* hiredis' redisBufferRead, with the guard in between. */
#include "promptd/redis_read.h"

#include <stdio.h>

#if HIREDIS_MAJOR < 1
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#endif

static bool feed(redisContext *context, struct resp_guard *guard, const char *bytes, size_t length)
{
    char passed[REDIS_READ_BYTES + RESP_GUARD_HEADER_BYTES];
    size_t count = resp_guard_pass(guard, bytes, length, passed);
    if (redisReaderFeed(context->reader, passed, count) == REDIS_OK)
        return true;
    context->err = context->reader->err;
    (void)snprintf(context->errstr, sizeof context->errstr, "%s", context->reader->errstr);
    return false;
}

#if HIREDIS_MAJOR >= 1

bool redis_read(redisContext *context, struct resp_guard *guard)
{
    char bytes[REDIS_READ_BYTES];
    ssize_t count = context->funcs->read(context, bytes, sizeof bytes);
    return count > 0 ? feed(context, guard, bytes, (size_t)count) : count == 0;
}

#else

/* What hiredis finds in its context: then it gives the connection up. */
static bool set_error(redisContext *context, int type, const char *text)
{
    context->err = type;
    (void)snprintf(context->errstr, sizeof context->errstr, "%s", text);
    return false;
}

bool redis_read(redisContext *context, struct resp_guard *guard)
{
    char bytes[REDIS_READ_BYTES];
    ssize_t count = recv(context->fd, bytes, sizeof bytes, 0);
    if (count > 0)
        return feed(context, guard, bytes, (size_t)count);
    if (count == 0)
        return set_error(context, REDIS_ERR_EOF, "Server closed the connection");
    bool is_for_later = errno == EINTR || errno == EAGAIN;
    return is_for_later || set_error(context, REDIS_ERR_IO, strerror(errno));
}

#endif
