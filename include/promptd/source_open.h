/* SPDX-License-Identifier: MIT */
/* Opens the source that the settings ask for: the only place that knows the kinds. */
#ifndef PROMPTD_SOURCE_OPEN_H
#define PROMPTD_SOURCE_OPEN_H

#include <uv.h>

#include "promptd/error.h"
#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"
#include "promptd/settings.h"
#include "promptd/source.h"

/* What it points to is borrowed for the source's life. */
struct source_options {
    uv_loop_t *loop;
    const struct redis_address *address;
    struct redis_tls *tls; /* NULL: the address has none */
    const char *channel;   /* or the key of a list or stream */
    const char *directory; /* of the spool; NULL or "": none */
    struct source_tuning tuning;
    struct source_sink sink;
};

/* It dials, and delivers, once the loop runs. NULL with an error when it cannot be opened. */
struct source *source_open(enum redis_mode mode, const struct source_options *options, struct error *error);

#endif
