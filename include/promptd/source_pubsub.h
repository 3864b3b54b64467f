/* SPDX-License-Identifier: MIT */
/*
 * The Pub/Sub source: keeps one channel subscribed, and hands on what is published there. Redis keeps nothing for it,
 * so there are no receipts, and it cannot wait: what finds no room is the sink's to drop.
 *
 * Its heartbeat subscribes again to the same channel, which Redis answers: an answer proves that the subscription
 * itself lives, end to end. Without one within the timeout the connection is given up and dialled anew.
 */
#ifndef PROMPTD_SOURCE_PUBSUB_H
#define PROMPTD_SOURCE_PUBSUB_H

#include "promptd/source_open.h"

/* For source_open, and for sources that stand around it. NULL when out of memory. */
struct source *source_pubsub_new(const struct source_options *options);

#endif
