/* SPDX-License-Identifier: MIT */
/*
 * What a list and a stream have in common: the engine (queue.c, queue_acks.c, queue_state.c) holds what was taken until
 * its outcome is acknowledged (queue_entries.h); the kind (source_list.c, source_stream.c) knows the commands.
 *
 * Nothing is read before the worker (queue_links.h) has been set up, and has verified: asked what Redis holds for us
 * and we do not know, for the reply may have been lost with a connection.
 */
#ifndef PROMPTD_QUEUE_H
#define PROMPTD_QUEUE_H

#include "queue_acks.h"
#include "queue_state.h"

struct source *queue_new(const struct source_options *options, const struct queue_kind *kind);

void queue_is_set_up(struct queue *queue);
void queue_verified(struct queue *queue);
void queue_take(struct queue *queue, const struct queue_item *item, bool redelivered);
void queue_read_done(struct queue *queue, size_t taken);
void queue_taken_over(struct queue *queue, bool is_more); /* what there was room for */
void queue_doubt(struct queue *queue);     /* a reply had more than could be read: Redis is asked for it */
void queue_make_anew(struct queue *queue); /* Redis has lost what we made there */
void queue_end(struct queue *queue);       /* what was held is given back, or cannot be */

/* The reply to what says that we live. */
void queue_on_kept(void *context, const redisReply *reply);

#endif
