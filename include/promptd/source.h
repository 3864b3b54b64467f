/* SPDX-License-Identifier: MIT */
/*
 * Where messages come from, and what becomes of each there once its outcome is final.
 *
 *     source ──delivery──▶ pipeline ──▶ … ──▶ outcome
 *        ▲                                       │
 *        └───── acknowledge, or release ─────────┘
 *
 * Redis Pub/Sub, a list, a stream and the spool differ in one thing: what happens after the outcome. A source that
 * keeps a message until then gives a receipt with it, and every receipt comes back exactly once. A source that can
 * wait delivers only as much as was demanded; one that cannot delivers what comes.
 *
 * The kinds are in src/intake, and source_open (promptd/source_open.h) makes them. Callbacks run on the loop, and never
 * inside a call, but for what source_demand, source_stop and source_close say.
 */
#ifndef PROMPTD_SOURCE_H
#define PROMPTD_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/breaker.h"
#include "promptd/disposition.h"

/* A source's own mark of a message that it keeps; each kind puts it at the head of what it needs to know. */
struct receipt {
    int64_t number; /* for the log; 0: the message is in memory only, and to release it is to lose it */
    bool returns;   /* released while promptd runs, it is delivered again */
};

struct delivery {
    const char *bytes;       /* valid during the call; NULL: larger than message_max_bytes, and skipped */
    size_t length;           /* bytes, of what was skipped, too */
    int64_t arrived_us;      /* clock_monotonic_us, as if this process had been there */
    bool redelivered;        /* it was taken in before, by an earlier process or by another */
    bool is_counted;         /* on_received or on_found has counted it */
    const char *refusal;     /* not NULL: the source has no room for it, for this reason; it is to be dropped */
    struct receipt *receipt; /* NULL: nobody waits for an answer */
};

/* Who gets the messages. */
struct source_sink {
    void (*on_delivery)(void *context, const struct delivery *delivery);
    /* A message has come that is kept, and delivered later. */
    void (*on_received)(void *context, const char *bytes, size_t length);
    /* So many are there from before, or were put back by a person. */
    void (*on_found)(void *context, uint64_t messages);
    /* So many that were counted will never be delivered. */
    void (*on_lost)(void *context, uint64_t messages);
    void *context;
};

/* What may change while it runs. */
struct source_tuning {
    struct link_tuning link;
    size_t message_max_bytes;
    size_t memory_max_messages; /* that it has in memory, those without an outcome included */
    size_t memory_max_bytes;
    size_t dead_max;               /* dead letters in Redis */
    uint64_t spool_max_bytes;      /* payloads that wait on disk */
    uint64_t spool_dead_max_bytes; /* dead letters, each with its payload and 256 bytes */
};

enum { SOURCE_SERVER_SIZE = 300 };

struct source_status {
    const char *mode;                /* as redis_mode has it */
    char server[SOURCE_SERVER_SIZE]; /* for people */
    bool is_up;                      /* what is published now arrives */
    bool heartbeat_is_well;          /* false: an answer is overdue */
    bool circuit_is_open;
    unsigned failures;           /* of the link to Redis, in a row */
    uint64_t last_alive_ms;      /* when Redis last proved that it is there, on the loop's clock; 0: never yet */
    int64_t last_message_ms;     /* when a message last came, on that clock; 0: never yet */
    uint64_t gaps;               /* since the start: times of deafness that have ended */
    uint64_t gap_ms;             /* how long they lasted together */
    uint64_t reconnections;      /* to Redis */
    size_t kept;                 /* counted and not delivered yet, in memory or on disk */
    size_t kept_in_memory;       /* those of them that are in memory, except those that only go to disk */
    size_t memory_bytes;         /* of all of them, also on their way to disk */
    const char *spool_directory; /* NULL: there is no spool, and what follows is 0 */
    bool spool_is_writable;
    bool spool_is_gone;      /* removed: what is released, or on disk only, no next start will find */
    uint64_t spool_messages; /* without an outcome, those in memory included */
    uint64_t spool_bytes;
    bool keeps_queue;     /* the messages wait in Redis, and what follows is known */
    uint64_t backlog;     /* not taken by anyone yet, when Redis was last asked */
    uint64_t pending;     /* taken and not acknowledged, by all */
    uint64_t consumers;   /* promptds that share it */
    uint64_t redelivered; /* since the start: messages that were delivered before */
    uint64_t dead_letters;
    uint64_t dead_letter_bytes;     /* as spool_dead_max_bytes counts them */
    uint64_t dead_letters_dropped;  /* since the start: rejected ones that made room */
    uint64_t dead_letters_not_kept; /* since the start: new ones that found none */
};

struct source;

struct source_ops {
    void (*demand)(struct source *source, size_t messages, size_t bytes); /* NULL: it cannot wait */
    /* This and the next one NULL: it gives no receipts. */
    void (*acknowledge)(struct source *source, struct receipt *receipt, const struct disposition *disposition);
    void (*release)(struct source *source, struct receipt *receipt);
    void (*set_tuning)(struct source *source, const struct source_tuning *tuning);
    void (*get_status)(const struct source *source, struct source_status *status);
    bool (*reset_circuit)(struct source *source);
    void (*stop)(struct source *source);
    void (*close)(struct source *source, void (*on_closed)(void *context), void *context);
};

/* The head of each kind's own struct. */
struct source {
    const struct source_ops *ops;
};

/* There is room for so much from now on, instead of what was said before; 0: none. Payloads count in bytes. What is in
 * memory already may be delivered inside this call; a demand that is made in a delivery only notes it. */
static inline void source_demand(struct source *source, size_t messages, size_t bytes)
{
    if (source->ops->demand)
        source->ops->demand(source, messages, bytes);
}

/* The outcome is final. It went well (NULL), and the message is forgotten; else it is kept as a dead letter. */
static inline void source_acknowledge(struct source *source, struct receipt *receipt,
                                      const struct disposition *disposition)
{
    source->ops->acknowledge(source, receipt, disposition);
}

/* There is no outcome, for promptd stops or memory is short: the message is kept, and delivered again later, by whoever
 * is there then. */
static inline void source_release(struct source *source, struct receipt *receipt)
{
    source->ops->release(source, receipt);
}

static inline void source_set_tuning(struct source *source, const struct source_tuning *tuning)
{
    source->ops->set_tuning(source, tuning);
}
static inline void source_get_status(const struct source *source, struct source_status *status)
{
    *status = (struct source_status){0};
    source->ops->get_status(source, status);
}

/* Closes the circuit to Redis by hand, and dials at once if it waits. Returns whether it was open. */
static inline bool source_reset_circuit(struct source *source)
{
    return source->ops->reset_circuit(source);
}

/* Nothing more is taken in. What is in memory only is delivered still, inside this call or later; what is kept
 * elsewhere stays there. Receipts go on being taken. */
static inline void source_stop(struct source *source)
{
    source->ops->stop(source);
}

/* After source_stop, when every receipt has come back. What is in memory only is delivered with a refusal, inside this
 * call or before on_closed. on_closed is the last callback, perhaps inside this call, and the source is gone. */
static inline void source_close(struct source *source, void (*on_closed)(void *context), void *context)
{
    source->ops->close(source, on_closed, context);
}

#endif
