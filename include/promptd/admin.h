/* SPDX-License-Identifier: MIT */
/*
 * The admin interface: health, state, metrics and the status page by HTTP, on the daemon's own loop.
 *
 * It promises to stay out of the way: connections, their silence and the size of requests are bounded. Nothing it says
 * holds a prompt or a password. It has no login, and so looks at where a request comes from: a browser that another
 * site leads here gets nothing and does nothing.
 */
#ifndef PROMPTD_ADMIN_H
#define PROMPTD_ADMIN_H

#include <stdbool.h>
#include <uv.h>

#include "promptd/error.h"
#include "promptd/health.h"

struct admin;

struct admin_options {
    uv_loop_t *loop;
    const char *listen;                                 /* host:port or unix:/path; borrowed for the call */
    void (*look)(void *context, struct health *health); /* fills it; called inside of an answer */
    /* Closes the circuits by hand, and has both servers tried at once. Says which of them were open. */
    void (*reset_circuits)(void *context, bool *redis, bool *database);
    void *context;
};

/* Binds, blocking for the look-up of a name, and logs where. NULL with ERROR_UNAVAILABLE when it cannot be bound. */
struct admin *admin_open(const struct admin_options *options, struct error *error);

/* Ends all connections at once, and removes a Unix socket; it is gone when the loop has turned. */
void admin_close(struct admin *admin);

#endif
