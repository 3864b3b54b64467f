/* SPDX-License-Identifier: MIT */
/* A row for each kind of source. */
#include "promptd/source_open.h"

#define LOG_COMPONENT "redis"
#include "promptd/log.h"

struct source_kind {
    struct source *(*make)(const struct source_options *options);
    bool keeps; /* its messages until their outcome: it needs no spool */
};

static const struct source_kind kinds[] = {
    [REDIS_MODE_PUBSUB] = {.make = source_pubsub_new},
    [REDIS_MODE_LIST] = {.make = source_list_new, .keeps = true},
    [REDIS_MODE_STREAM] = {.make = source_stream_new, .keeps = true},
};

struct source *source_open(enum redis_mode mode, const struct source_options *options, struct error *error)
{
    const struct source_kind *kind = &kinds[mode];
    bool has_spool = options->directory && options->directory[0];
    if (has_spool && !kind->keeps)
        return source_spooled_new(options, kind->make, error);
    if (has_spool)
        log_info(NULL, "no spool is used: messages stay in Redis until their outcome");
    struct source *source = kind->make(options);
    if (!source)
        (void)error_set(error, ERROR_INTERNAL, "out of memory");
    return source;
}
