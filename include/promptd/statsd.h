/* SPDX-License-Identifier: MIT */
/*
 * Metrics to a StatsD server by UDP: those that have a name for it in the table of metrics.
 *
 * Counters go as what was added since the last flush, durations as a fair sample with its rate. Nothing here ever
 * waits: a datagram that cannot be sent is lost, and the name of the server is looked up beside the loop, again now and
 * then. What is counted until it is known goes with the first flush.
 */
#ifndef PROMPTD_STATSD_H
#define PROMPTD_STATSD_H

#include <uv.h>

#include "promptd/buffer.h"
#include "promptd/metrics.h"

struct statsd;

struct statsd_options {
    uv_loop_t *loop;
    const char *server;      /* host:port; borrowed for the call */
    struct metrics *metrics; /* borrowed; a flush takes the samples of durations out of it */
};

struct statsd *statsd_new(const struct statsd_options *options); /* NULL when out of memory */

/* Sends what has changed. To be called once a second. */
void statsd_flush(struct statsd *statsd);

/* No look-up is begun any more; one that is under way keeps the loop alive, and ends. */
void statsd_stop(struct statsd *statsd);

/* After the loop's end: a last flush, and it is gone. */
void statsd_free(struct statsd *statsd);

/* The lines for what was added to `now` since `before`, each ending in a newline. */
void statsd_append_lines(struct buffer *buffer, const struct metrics *now, const struct metrics *before);

/* How many bytes of whole lines, from the beginning of `lines`, fit in one datagram. */
enum { STATSD_DATAGRAM_BYTES = 1432 };
size_t statsd_datagram_length(const char *lines, size_t length);

#endif
