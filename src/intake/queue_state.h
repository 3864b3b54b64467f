/* SPDX-License-Identifier: MIT */
/* What the engine of lists and streams and their kinds share: see queue.h. */
#ifndef PROMPTD_QUEUE_STATE_H
#define PROMPTD_QUEUE_STATE_H

#include "promptd/source_open.h"
#include "queue_entries.h"
#include "queue_links.h"

enum {
    QUEUE_TAKEOVER_MS = 45000, /* what a consumer has left alone for so long is another's */
    QUEUE_BATCH_MAX = 256,     /* acknowledgements on their way at a time */
    QUEUE_DELIVERIES_MAX = 5,  /* without an outcome: it kills whoever takes it */
    QUEUE_PAGE = 64,           /* messages looked at in one reply, besides reading */
    QUEUE_NAME_SIZE = 96,
    QUEUE_KEYS_MAX = 6,
    QUEUE_KEY_SIZE = 768
};

/* Of the keys, for both kinds. */
enum { QUEUE_KEY_MAIN, QUEUE_KEY_DEAD, QUEUE_KEY_FIRST };

/* A part of a script: the dead letter. Its keys are those of the messages and of the dead; its first argument is
 * redis_dead_max, and those from the fifth on are the letter's fields. */
#define QUEUE_LETTER_SCRIPT                                                                                            \
    "if tonumber(ARGV[1]) > 0 then\n"                                                                                  \
    "  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[1], '*', unpack(ARGV, 5))\n"                                         \
    "end\n"

/* What is awaited, and what may be done meanwhile. */
enum queue_state {
    QUEUE_DOWN,      /* for the worker to log in and set up; nothing is read or acknowledged */
    QUEUE_UNSURE,    /* for the read that is under way to end, to verify: nothing is read or acknowledged */
    QUEUE_VERIFYING, /* for Redis to say what it holds for us: likewise */
    QUEUE_STALE,     /* something may be held for us that is unknown here; as unsure, but acknowledgements go on */
    QUEUE_READY      /* messages; leaves when a connection is lost, or after a doubt */
};

struct queue;

struct queue_kind {
    const char *mode;
    size_t size;                       /* of its struct, which begins with struct queue */
    bool knows_no_deliveries;          /* a message that was delivered before looks like a new one */
    bool (*init)(struct queue *queue); /* names the keys; false: out of memory */
    /* What Redis must have; ends with queue_is_set_up. */
    void (*set_up)(struct queue *queue);
    /* Asks what Redis holds for us: what queue_entries_compare does not know is taken; then queue_verified. */
    void (*verify)(struct queue *queue);
    /* Takes up to `count` messages, on the reader: queue_take for each, then queue_read_done. */
    void (*read)(struct queue *queue, size_t count);
    /* Has Redis forget the entries that are ACKING, in their order, and keep the dead letters: queue_forget for each
     * command. What is dead goes with its letter, or not at all. */
    void (*forget)(struct queue *queue);
    void (*keep_alive)(struct queue *queue);
    /* What the dead have left, and the figures in queue->status. */
    void (*look)(struct queue *queue);
    /* Takes what others have left, as much as there is room for: comes before reading while queue->takes_over. NULL: it
     * is put back for all, and read. */
    void (*take_over)(struct queue *queue);
    /* The last command: what is held may be taken at once; ends with queue_end. */
    void (*give_back)(struct queue *queue);
};

struct queue {
    struct source source; /* first: the source is this */
    struct source_options options;
    const struct queue_kind *kind;
    struct queue_links links;
    char consumer[QUEUE_NAME_SIZE]; /* unique to this process */
    char *keys[QUEUE_KEYS_MAX];     /* of the kind; owned */
    struct queue_entries entries;
    size_t bulk_max_bytes; /* a longer message is not read: message_max_bytes, or more while a longer one is held */
    struct source_status status; /* figures that are kept */

    enum queue_state state;
    size_t room;
    size_t room_bytes;
    size_t reading;      /* asked for, not answered; 0: no read is under way */
    uint64_t read_ms;    /* when that was */
    bool read_rests;     /* the server does not block: not before the next tick */
    bool takes_over;     /* others have left more than was taken so far */
    bool is_taking_over; /* an answer is outstanding */
    bool has_released;   /* something that Redis holds for us is not known here: verified soon */
    uint64_t alive_ms;   /* when we last said that we live */
    uint64_t look_ms;    /* when the next look is due */
    bool ack_refused;    /* Redis refuses acknowledgements, and that stands in the log */
    bool was_ready;
    bool is_stopped;
    bool is_giving_back;
    bool is_closing;
    uv_timer_t tick;
    uv_timer_t later;
    uv_timer_cb on_later; /* what has ended is acknowledged, and more is read */
    int open_handles;
    void (*on_closed)(void *context);
    void *closed_context;
};

bool queue_name_keys(struct queue *queue, const char *const suffixes[]); /* "" for redis_channel itself */
bool queue_name_consumer(struct queue *queue);
size_t queue_page(const struct queue *queue); /* messages that one reply may have, should each be as large as may be */
size_t queue_readable(const struct queue *queue); /* messages that there is room for */
bool queue_has(const struct queue *queue, enum queue_entry_state state);

/* Soon, and once for all that happens in this turn of the loop; never once its links are being closed. */
void queue_go_on(struct queue *queue);

#endif
