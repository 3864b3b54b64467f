/* SPDX-License-Identifier: MIT */
/* A row for each kind of source. */
#include "promptd/source_open.h"

#include "promptd/source_pubsub.h"
#include "promptd/source_spooled.h"

struct source_kind {
    struct source *(*new)(const struct source_options *options);
    bool keeps; /* its messages until their outcome: it needs no spool */
};

static const struct source_kind kinds[] = {
    [REDIS_MODE_PUBSUB] = {.new = source_pubsub_new},
};

struct source *source_open(enum redis_mode mode, const struct source_options *options, struct error *error)
{
    const struct source_kind *kind = &kinds[mode];
    if (!kind->keeps && options->directory && options->directory[0])
        return source_spooled_new(options, kind->new, error);
    struct source *source = kind->new (options);
    if (!source)
        (void)error_set(error, ERROR_INTERNAL, "out of memory");
    return source;
}
