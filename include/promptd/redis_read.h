/* SPDX-License-Identifier: MIT */
/* What comes from the server, on its way through a resp_guard into hiredis' reader, and where it goes from there. */
#ifndef PROMPTD_REDIS_READ_H
#define PROMPTD_REDIS_READ_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#include "promptd/resp_guard.h"

enum { REDIS_READ_BYTES = 16384 }; /* at once, at most */

/* Where the replies of a command go. Borrowed until whatever it was handed to is closed; no reply comes after the
 * connection is lost. */
struct redis_call {
    void (*on_reply)(void *context, const redisReply *reply);
    void *context;
};

/* Reads once from the socket, or from TLS, in hiredis' place. true also where nothing was there; false: the context has
 * the error. */
bool redis_read(redisContext *context, struct resp_guard *guard);

#endif
