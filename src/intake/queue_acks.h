/* SPDX-License-Identifier: MIT */
/* From a message's outcome until Redis has forgotten it. */
#ifndef PROMPTD_QUEUE_ACKS_H
#define PROMPTD_QUEUE_ACKS_H

#include "queue_state.h"

/* As the source's. What ends badly is to become a dead letter. */
void queue_acknowledge(struct queue *queue, struct queue_entry *entry, const struct disposition *disposition);
void queue_acknowledge_more(struct queue *queue);

/* For kinds: has Redis forget the entries that are ACKING, up to `last`. */
void queue_forget(struct queue *queue, const struct queue_command *command, struct queue_entry *last);

/* An entry that was delivered too often: a dead letter without having been looked at. */
void queue_add_dead_letter(struct queue *queue, const struct queue_item *item);

/* So many became dead letters like that in Redis itself. */
void queue_count_dead_letters(struct queue *queue, uint64_t messages);

#endif
