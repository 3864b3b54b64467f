/* SPDX-License-Identifier: MIT */
/* What the source around the spool has in memory, and the bounds on it. */
#include "spooled_memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    MESSAGE_BYTES = 512, /* what a message in memory takes besides its payload, more or less */
    LEAST_FROM_DISK = 64 /* messages that are delivered from disk however much memory holds: they are older */
};

void spooled_memory_init(struct spooled_memory *memory, const struct source_tuning *tuning)
{
    *memory = (struct spooled_memory){.tuning = tuning};
    STAILQ_INIT(&memory->refused);
}

size_t spooled_memory_cost(size_t length)
{
    return length + MESSAGE_BYTES;
}

static size_t used_bytes(const struct spooled_memory *memory)
{
    return memory->out_bytes + memory->put_bytes + memory->refused_bytes;
}

static bool has_bytes(const struct spooled_memory *memory, size_t bytes)
{
    size_t max_bytes = memory->tuning->memory_max_bytes;
    size_t used = used_bytes(memory);
    return used <= max_bytes && bytes <= max_bytes - used;
}

/* A message that is alone has room: what it takes besides its payload may be more than is allowed. */
static bool may_hold(const struct spooled_memory *memory, size_t bytes)
{
    return used_bytes(memory) == 0 || has_bytes(memory, bytes);
}

static bool is_full(const struct spooled_memory *memory)
{
    return memory->out + memory->puts + memory->refused_count >= memory->tuning->memory_max_messages;
}

bool spooled_memory_has_room(const struct spooled_memory *memory, size_t length)
{
    return memory->room > 0 && (spooled_memory_cost(length) <= memory->room_bytes || memory->out == 0);
}

size_t spooled_memory_deliverable(const struct spooled_memory *memory)
{
    size_t half = (memory->tuning->memory_max_messages + 1) / 2;
    size_t used = memory->out + memory->puts;
    size_t bytes = memory->out_bytes + memory->puts_bytes;
    if (is_full(memory))
        half = half < LEAST_FROM_DISK ? half : LEAST_FROM_DISK;
    if (used >= half || bytes > memory->tuning->memory_max_bytes / 2 || memory->puts >= memory->room ||
        (used > 0 && MESSAGE_BYTES + memory->puts_bytes > memory->room_bytes))
        return 0;
    size_t room = memory->room - memory->puts; /* those are on their way to be delivered, too */
    return room < half - used ? room : half - used;
}

void spooled_memory_take_out(struct spooled_memory *memory, size_t bytes)
{
    memory->out++;
    memory->out_bytes += bytes;
    memory->room -= memory->room > 0;
    memory->room_bytes -= bytes < memory->room_bytes ? bytes : memory->room_bytes;
}

void spooled_memory_take_back(struct spooled_memory *memory, size_t bytes)
{
    memory->out--;
    memory->out_bytes -= bytes;
}

struct spooled_put *spooled_memory_begin_put(struct spooled_memory *memory, const struct delivery *delivery,
                                             bool may_go_on)
{
    size_t size = sizeof(struct spooled_put) + delivery->length;
    size_t cost = spooled_memory_cost(delivery->length);
    bool at_once = may_go_on && memory->refused_count == 0 && spooled_memory_deliverable(memory) > 0 &&
                   has_bytes(memory, size + cost) && memory->puts_bytes + cost <= memory->room_bytes;
    /* What finds no room in memory waits on disk only: just its way there is bounded. */
    struct spooled_put *put = may_hold(memory, size) ? malloc(size) : NULL;
    if (!put)
        return NULL;
    *put = (struct spooled_put){
        .arrived_us = delivery->arrived_us,
        .at_once = at_once,
        .held_bytes = at_once ? size + cost : size,
        .length = delivery->length,
    };
    memcpy(put->payload, delivery->bytes, delivery->length);
    memory->put_bytes += put->held_bytes;
    memory->puts += at_once;
    memory->puts_bytes += at_once ? cost : 0;
    return put;
}

void spooled_memory_end_put(struct spooled_memory *memory, const struct spooled_put *put)
{
    memory->put_bytes -= put->held_bytes;
    memory->puts -= put->at_once;
    memory->puts_bytes -= put->at_once ? spooled_memory_cost(put->length) : 0;
}

bool spooled_memory_keep(struct spooled_memory *memory, struct spooled_put *put, int64_t behind_sequence)
{
    size_t cost = spooled_memory_cost(put->length);
    if (is_full(memory) || !may_hold(memory, cost))
        return false;
    put->behind_sequence = behind_sequence;
    STAILQ_INSERT_TAIL(&memory->refused, put, link);
    memory->refused_count++;
    memory->refused_bytes += cost;
    return true;
}

const struct spooled_put *spooled_memory_oldest(const struct spooled_memory *memory)
{
    return STAILQ_FIRST(&memory->refused);
}

struct spooled_put *spooled_memory_remove_oldest(struct spooled_memory *memory)
{
    struct spooled_put *put = STAILQ_FIRST(&memory->refused);
    STAILQ_REMOVE_HEAD(&memory->refused, link);
    memory->refused_count--;
    memory->refused_bytes -= spooled_memory_cost(put->length);
    return put;
}
