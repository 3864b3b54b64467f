/* SPDX-License-Identifier: MIT */
/* One request to the daemon's admin interface. */
#ifndef PROMPTCTL_HTTP_H
#define PROMPTCTL_HTTP_H

#include <stdbool.h>

#include "promptd/buffer.h"
#include "promptd/error.h"

/* Appends the body of GET `path` to `body`, with a NUL behind it. `listen` is the setting admin_listen; of an address
 * for all interfaces the loopback one is asked. false: ERROR_CONFIG where there is no such interface, ERROR_UNAVAILABLE
 * when nobody answers within some seconds, or not as promptd does. */
bool http_get(const char *listen, const char *path, struct buffer *body, struct error *error);

#endif
