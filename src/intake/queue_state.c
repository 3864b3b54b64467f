/* SPDX-License-Identifier: MIT */
/* What a queue is called in Redis, and what there is room for. */
#include "queue_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_MAX = 256,  /* messages in one read */
    HELD_MAX = 4096, /* the rest is for other promptd */
    JOB_BYTES = 512  /* at most what a message in work takes besides its prompt */
};

/* ---- names ---- */

bool queue_name_keys(struct queue *queue, const char *const suffixes[])
{
    const char *channel = queue->options.channel;
    for (size_t i = 0; suffixes[i]; i++) {
        size_t size = strlen(channel) + strlen(suffixes[i]) + 3;
        queue->keys[i] = malloc(size);
        if (!queue->keys[i])
            return false;
        (void)snprintf(queue->keys[i], size, suffixes[i][0] ? "{%s}%s" : "%s%s", channel, suffixes[i]);
    }
    return true;
}

/* Unique among all machines and all times: whoever comes later must not take another's messages for its own. */
bool queue_name_consumer(struct queue *queue)
{
    char host[64] = "";
    uint32_t chance;
    if (getentropy(&chance, sizeof chance) != 0)
        return false;
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(queue->consumer, sizeof queue->consumer, "%s-%ld-%08x", host[0] ? host : "promptd", (long)getpid(),
                   (unsigned)chance);
    return true;
}

/* ---- room ---- */

/* A reply is in memory as a whole: so many messages fit, should each be as large as may be. */
size_t queue_readable(const struct queue *queue)
{
    size_t held_bytes = 2 * queue->entries.bytes; /* each has a job, too */
    size_t max_bytes = queue->options.tuning.memory_max_bytes;
    size_t bytes = held_bytes < max_bytes ? max_bytes - held_bytes : 0;
    size_t each_bytes = queue->bulk_max_bytes + JOB_BYTES;
    size_t by_bytes = (bytes < queue->room_bytes ? bytes : queue->room_bytes) / each_bytes;
    size_t count = queue->room < READ_MAX ? queue->room : READ_MAX;
    if (queue->entries.count >= HELD_MAX || queue->room == 0 || (by_bytes == 0 && queue->entries.count > 0))
        return 0;
    return by_bytes == 0 ? 1 : by_bytes < count ? by_bytes : count;
}

size_t queue_page(const struct queue *queue)
{
    size_t count = queue->options.tuning.memory_max_bytes / queue->bulk_max_bytes;
    return count < 1 ? 1 : count < QUEUE_PAGE ? count : QUEUE_PAGE;
}

/* ---- what is next ---- */

bool queue_has(const struct queue *queue, enum queue_entry_state state)
{
    return queue_entries_first(&queue->entries, state);
}

void queue_go_on(struct queue *queue)
{
    if (!queue->is_closing)
        (void)uv_timer_start(&queue->later, queue->on_later, 0, 0);
}
