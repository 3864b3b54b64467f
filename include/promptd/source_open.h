/* SPDX-License-Identifier: MIT */
/* Opens the source that the settings ask for: the only place that knows the kinds, which stand below. */
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

/*
 * Pub/Sub: keeps one channel subscribed, and hands on what is published there. Redis keeps nothing for it, so there are
 * no receipts, and it cannot wait: what finds no room is the sink's to drop. Its heartbeat subscribes again to the same
 * channel, which Redis answers: an answer proves that the subscription itself lives, end to end.
 *
 * A list, or a stream that is read as its consumer group promptd: messages wait there, any number of promptd share
 * them, and each leaves Redis once its outcome is final. Needs Redis 6.2. All keys but redis_channel itself begin with
 * {redis_channel}, braces included, so that a Redis Cluster has them in one slot.
 *
 * NULL when out of memory.
 */
struct source *source_pubsub_new(const struct source_options *options);
struct source *source_list_new(const struct source_options *options);
struct source *source_stream_new(const struct source_options *options);

/*
 * The spool as a source: it stands around one that keeps nothing, whose sink it is, and makes it one that keeps every
 * message, on disk, until its outcome. Opens the spool, blocking. NULL with ERROR_SPOOL when it cannot be used; see
 * spool_open.
 */
struct source *source_spooled_new(const struct source_options *options,
                                  struct source *(*inner_new)(const struct source_options *options),
                                  struct error *error);

#endif
