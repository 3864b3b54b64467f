/* SPDX-License-Identifier: MIT */
/*
 * The two connections to Redis of a list or a stream: one reads, and may block for it; the other, the worker, does all
 * the rest. Here they are dialled, looked over, kept alive and given up; what is said over them is the queue's
 * business.
 *
 * Callbacks never run inside a call.
 */
#ifndef PROMPTD_QUEUE_LINKS_H
#define PROMPTD_QUEUE_LINKS_H

#include "promptd/redis_link.h"
#include "promptd/source_open.h"
#include "queue_command.h"

enum {
    QUEUE_BLOCK_MS = 5000, /* longest wait for a message */
    QUEUE_CALLS_MAX = 24
};

/* Borrowed for the links' life. */
struct queue_links_options {
    const struct source_options *source;
    const char *mode;
    void (*on_worker_login)(void *context); /* and its version will do: to be set up, and confirmed */
    void (*on_worker_lost)(void *context);
    void (*on_reader_up)(void *context);
    void (*on_reader_lost)(void *context);
    void (*on_closed)(void *context); /* the last callback */
    void *context;
};

struct queue_links {
    struct queue_links_options options;
    struct redis_link *reader;
    struct redis_link *worker;
    uint64_t alive_ms; /* when Redis last answered, on the loop's clock; 0: never yet */

    /* private */
    char reader_id[24];  /* its number there: by it a read that blocks is ended; "": unknown */
    bool is_reading;     /* sent, and not answered */
    uint64_t read_ms;    /* when something last came of it */
    uint64_t read_bytes; /* that the reader had received by then */
    bool warned_policy;
    uint64_t complained_ms; /* when a refusal last got a line */
    int open;
    struct redis_call calls[QUEUE_CALLS_MAX]; /* one for each function that replies go to */
};

/* Dials. false when out of memory: the process ends. */
bool queue_links_open(struct queue_links *links, const struct queue_links_options *options, size_t bulk_max_bytes);
void queue_links_close(struct queue_links *links);

/* After a change of the source's tuning. */
void queue_links_set_tuning(struct queue_links *links, size_t bulk_max_bytes);

/* Over the worker. The reply goes to on_reply, with the options' context. NULL: nobody waits for it. */
void queue_links_ask(struct queue_links *links, const struct queue_command *command,
                     void (*on_reply)(void *context, const redisReply *reply));

/* Over the reader; several may be part of one read. One that is overdue costs the connection. */
void queue_links_read(struct queue_links *links, const struct queue_command *command,
                      void (*on_reply)(void *context, const redisReply *reply));
void queue_links_end_read(struct queue_links *links);

/* Has Redis answer the read that is under way, at once. */
void queue_links_unblock(struct queue_links *links);

/* Once a second. */
void queue_links_tick(struct queue_links *links);

/* An error, or something else than an answer, to what there is no going on without: that connection is given up. */
void queue_links_refuse(struct queue_links *links, struct redis_link *link, const redisReply *reply);

/* An error reply to something that can wait: one line an hour. */
void queue_links_complain(struct queue_links *links, const char *what, const redisReply *reply);

/* Closes the circuits by hand. Returns whether one was open. */
bool queue_links_reset_circuit(struct queue_links *links);

bool queue_links_are_up(const struct queue_links *links);
void queue_links_get_status(const struct queue_links *links, struct source_status *status);

#endif
