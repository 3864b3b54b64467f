/* SPDX-License-Identifier: MIT */
/*
 * What the source around the spool has in memory, and the bounds on it: messages that are on their way to disk, those
 * that the disk refused, and those that were delivered and have no outcome. It counts and keeps; nothing is sent or
 * delivered from here.
 *
 * Half of memory is for what was delivered, the other half for what is on its way to disk, or was refused by it.
 */
#ifndef PROMPTD_SPOOLED_MEMORY_H
#define PROMPTD_SPOOLED_MEMORY_H

#include <sys/queue.h>

#include "promptd/source.h"

/* A message that is on its way to disk, or was refused by it. */
struct spooled_put {
    STAILQ_ENTRY(spooled_put) link;
    int64_t arrived_us;
    int64_t behind_sequence; /* refused: what the spool has up to here goes before it */
    bool at_once;            /* it goes on once it is on disk; else it stays on disk only */
    size_t held_bytes;       /* counted against the bounds until then */
    size_t length;
    char payload[];
};

STAILQ_HEAD(spooled_puts, spooled_put);

struct spooled_memory {
    const struct source_tuning *tuning; /* borrowed: memory_max_* */
    size_t room;                        /* demanded, and not delivered yet */
    size_t room_bytes;
    size_t out; /* delivered, and without an outcome */
    size_t out_bytes;
    size_t puts;       /* messages on their way to disk and then on */
    size_t puts_bytes; /* what they will take then */
    size_t put_bytes;  /* of all that is on its way to disk */
    struct spooled_puts refused;
    size_t refused_count;
    size_t refused_bytes;
};

void spooled_memory_init(struct spooled_memory *memory, const struct source_tuning *tuning);

/* What a message of that length takes when it was delivered, in bytes. */
size_t spooled_memory_cost(size_t length);

/* Room for this message in what was demanded. One that is alone is delivered however large it is. */
bool spooled_memory_has_room(const struct spooled_memory *memory, size_t length);

/* How many more may be delivered from disk now. */
size_t spooled_memory_deliverable(const struct spooled_memory *memory);

void spooled_memory_take_out(struct spooled_memory *memory, size_t bytes);
void spooled_memory_take_back(struct spooled_memory *memory, size_t bytes);

/* A message begins its way to disk, and goes on at once if it may and there is room for it. NULL: there is none even
 * for the way, or there is no memory. It is the caller's to free, after `end`. */
struct spooled_put *spooled_memory_begin_put(struct spooled_memory *memory, const struct delivery *delivery,
                                             bool may_go_on);
void spooled_memory_end_put(struct spooled_memory *memory, const struct spooled_put *put);

/* After its end: the disk refused it, and it is kept. false: there is no room. */
bool spooled_memory_keep(struct spooled_memory *memory, struct spooled_put *put, int64_t behind_sequence);

/* The oldest of those, NULL: none. */
const struct spooled_put *spooled_memory_oldest(const struct spooled_memory *memory);
struct spooled_put *spooled_memory_remove_oldest(struct spooled_memory *memory); /* the caller's to free */

#endif
