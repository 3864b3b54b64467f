/* SPDX-License-Identifier: MIT */
/*
 * The Pub/Sub source: keeps one channel subscribed, and hands on what is published there.
 *
 * Its heartbeat subscribes again to the same channel, which Redis answers: an answer proves that the subscription
 * itself lives, end to end. Without one within the timeout the connection is given up and dialled anew.
 */
#ifndef PROMPTD_SOURCE_PUBSUB_H
#define PROMPTD_SOURCE_PUBSUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/redis_address.h"

struct source_pubsub;

/* What may change while it runs. */
struct source_pubsub_tuning {
    int64_t backoff_max_ms;
    unsigned breaker_failures;
    int64_t breaker_reset_ms;
    int64_t heartbeat_interval_ms; /* 0: no heartbeat */
    int64_t heartbeat_timeout_ms;
    size_t message_max_bytes; /* messages up to twice as long are handed on, to be rejected; longer ones are not read */
};

struct source_pubsub_options {
    uv_loop_t *loop;
    const struct redis_address *address; /* borrowed for the source's life */
    const char *channel;                 /* borrowed likewise */
    struct source_pubsub_tuning tuning;
    /* One message as published; the bytes are valid during the call. */
    void (*on_message)(void *context, const char *bytes, size_t length);
    /* A message too long to be read was on its way; its connection is given up. */
    void (*on_oversize)(void *context, size_t bytes);
    /* The subscription is back after so long without one. */
    void (*on_gap)(void *context, double seconds);
    void *context;
};

struct source_pubsub *source_pubsub_new(const struct source_pubsub_options *options); /* NULL when out of memory */
void source_pubsub_set_tuning(struct source_pubsub *source, const struct source_pubsub_tuning *tuning);
bool source_pubsub_is_subscribed(const struct source_pubsub *source);
unsigned source_pubsub_failures(const struct source_pubsub *source); /* of the link, in a row */
bool source_pubsub_circuit_is_open(const struct source_pubsub *source);

/* False from a while after the heartbeat was sent until its answer, or the end of the connection. */
bool source_pubsub_heartbeat_is_well(const struct source_pubsub *source);

/* When the subscription last proved that it lives, by an answer or a message, on the loop's clock; 0: never yet. */
uint64_t source_pubsub_last_alive_ms(const struct source_pubsub *source);

/* Closes the circuit by hand, and dials at once if it waits. Returns whether it was open. */
bool source_pubsub_close_circuit(struct source_pubsub *source);

/* No message comes after this call; on_closed is the last callback, and the source is gone. */
void source_pubsub_close(struct source_pubsub *source, void (*on_closed)(void *context), void *context);

#endif
