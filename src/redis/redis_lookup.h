/* SPDX-License-Identifier: MIT */
/* The addresses of a name, looked up in libuv's threads, and taken one after the other. */
#ifndef PROMPTD_REDIS_LOOKUP_H
#define PROMPTD_REDIS_LOOKUP_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { REDIS_LOOKUP_MAX = 8 };

struct redis_lookup {
    /* set by the owner: the look-up is over, for `failure`, or with an address (NULL) */
    void (*on_done)(void *context, const char *failure);
    void *context;

    /* private */
    uv_getaddrinfo_t request;
    bool is_under_way;
    char addresses[REDIS_LOOKUP_MAX][NI_MAXHOST]; /* numeric, in the resolver's order (RFC 6724) */
    size_t count;
    size_t next;
};

/* NULL, and on_done follows; or why nothing was begun. */
const char *redis_lookup_begin(struct redis_lookup *lookup, uv_loop_t *loop, const char *host);

/* on_done follows also then: one that runs already is waited for. */
void redis_lookup_cancel(struct redis_lookup *lookup);

bool redis_lookup_has_next(const struct redis_lookup *lookup);
const char *redis_lookup_next(struct redis_lookup *lookup); /* when it has one */
void redis_lookup_forget(struct redis_lookup *lookup);

#endif
