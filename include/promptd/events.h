/* SPDX-License-Identifier: MIT */
/*
 * Outcome events: each outcome is published on a Redis channel, as one JSON object, on a connection of its own.
 *
 * At most once, and never in anybody's way: what waits and what Redis has not answered is bounded, and what is beyond
 * that, or was on its way when the connection was lost, is dropped and counted. While there is no connection, events
 * wait for the next one within the same bound. A spell of drops is logged once.
 */
#ifndef PROMPTD_EVENTS_H
#define PROMPTD_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/breaker.h"
#include "promptd/buffer.h"
#include "promptd/job.h"
#include "promptd/metrics.h"
#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"

struct events;

/* The words for what became of an interview. Borrowed. */
struct events_statuses {
    const char *ready;
    const char *failed;
};

struct events_options {
    uv_loop_t *loop;
    const struct redis_address *address; /* borrowed, like the channel */
    struct redis_tls *tls;               /* borrowed; NULL where the address has none */
    const char *channel;
    struct events_statuses statuses;
    struct link_tuning tuning;
    struct metrics *metrics; /* borrowed: events_published and events_dropped are counted */
};

/* Dials at once. NULL when out of memory. */
struct events *events_new(const struct events_options *options);

/* The outcome of a message, or what the recovery has done for an interview. Until events_close. */
void events_publish(struct events *events, const struct job *job);

void events_set_tuning(struct events *events, const struct link_tuning *tuning);
bool events_are_connected(const struct events *events);
size_t events_waiting(const struct events *events); /* not sent, or not answered */
void events_reset_circuit(struct events *events);

/* What is there is sent, if that can be done within a second; then on_closed is called, and the events are gone. */
void events_close(struct events *events, void (*on_closed)(void *context), void *context);

/* The JSON of one event, without what there is nothing to say about. Never a message's content. */
void events_append(struct buffer *buffer, const struct job *job, const struct events_statuses *statuses,
                   int64_t wall_ms);

#endif
