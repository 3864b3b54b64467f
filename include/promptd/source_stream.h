/* SPDX-License-Identifier: MIT */
/*
 * A stream as a source, read as its consumer group promptd: messages wait there, any number of promptd share them, and
 * each leaves Redis once its outcome is final. Needs Redis 6.2.
 *
 * All its keys but redis_channel itself begin with {redis_channel}, braces included, so that a Redis Cluster has them
 * in one slot.
 */
#ifndef PROMPTD_SOURCE_STREAM_H
#define PROMPTD_SOURCE_STREAM_H

#include "promptd/source_open.h"

/* For source_open. NULL when out of memory. */
struct source *source_stream_new(const struct source_options *options);

#endif
