/* SPDX-License-Identifier: MIT */
/* host:port as settings have it: 127.0.0.1:9797, localhost:9797, [::1]:9797. Pure. */
#ifndef PROMPTD_ENDPOINT_H
#define PROMPTD_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/error.h"

enum { ENDPOINT_HOST_SIZE = 256, ENDPOINT_PORT_SIZE = 6 };

struct endpoint {
    char host[ENDPOINT_HOST_SIZE]; /* without the brackets of an IPv6 address */
    char port[ENDPOINT_PORT_SIZE];
};

/* false with a phrase ("has no port"), ERROR_CONFIG. `endpoint` may be NULL. */
bool endpoint_parse(const char *text, struct endpoint *endpoint, struct error *phrase);

/* Where to listen: host:port, unix:/path, or off. The same, for a setting's check. */
bool endpoint_validate_listen(const char *text, struct error *phrase);

/* The path of unix:/path; NULL where `text` is something else. */
const char *endpoint_unix_path(const char *text);

#endif
