/* SPDX-License-Identifier: MIT */
/*
 * Which server is the master now? Asks the Sentinels of an address one after the other until one names it, on a
 * connection that is kept as long as its Sentinel answers; the one that answered is asked first the next time.
 *
 * A question ends with on_named or on_silent. It asks each Sentinel once at most, for a second an address at most; one
 * that wants a login is dialled again for it. Whether what they name really is a master is for the caller to ask it.
 * Callbacks never run inside a call of this module.
 */
#ifndef PROMPTD_REDIS_SENTINEL_H
#define PROMPTD_REDIS_SENTINEL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"

struct redis_sentinel;

struct redis_sentinel_options {
    uv_loop_t *loop;
    const struct redis_address *address; /* borrowed for the life of this */
    struct redis_tls *tls;               /* borrowed likewise; NULL where the address has no TLS */
    int64_t watch_ms;                    /* so long after each question it asks again by itself; 0: never */
    /* `sentinel`, an address for people, names `master`; both are valid during the call. */
    void (*on_named)(void *context, const struct redis_endpoint *master, const char *sentinel);
    /* None names one, for `reason`, fit for the log. refused: one answers, and it is a matter of set-up. */
    void (*on_silent)(void *context, const char *reason, bool refused);
    void (*on_closed)(void *context);
    void *context;
};

/* Asks nothing yet. NULL when out of memory. */
struct redis_sentinel *redis_sentinel_new(const struct redis_sentinel_options *options);

/* Asks at once; while a question is under way its answer serves. */
void redis_sentinel_ask(struct redis_sentinel *sentinel);

/* What the last one named is no master: the next question begins with the next Sentinel, which may know better. */
void redis_sentinel_doubt(struct redis_sentinel *sentinel);

/* Ends it in whatever state; on_closed is the last callback, and it is gone. */
void redis_sentinel_close(struct redis_sentinel *sentinel);

#endif
