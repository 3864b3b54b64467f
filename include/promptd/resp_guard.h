/* SPDX-License-Identifier: MIT */
/*
 * What a server sends, looked at before hiredis reads it. hiredis trusts its peer: it buffers a reply of any size,
 * allocates any count of elements, and ends the process over a reply that its subscribe path did not expect.
 *
 * The guard lets whole, well-formed replies of RESP2 pass, as many as commands were sent. Behind these, once
 * subscribed, there may be only ["subscribe", channel, n] and ["message", channel, bytes], which are handed to the
 * subscriber as they come: hiredis would copy each message three times, and make eight allocations for it. An error
 * that nobody asked for is kept from hiredis and noted. Anything else is a fault: from there on nothing passes.
 *
 * A bulk string of more than bulk_bytes is left out. In its place stands the integer of its length, which is larger
 * than bulk_bytes: `$104857600` and the bytes become `:104857600`. So who expects a string and finds an integer there
 * knows what was left out. With leaves_out the same becomes of what a reply has no room for: a string, or an array
 * inside of an array, in whose place stands the integer of its count.
 *
 * No input or output, and no allocation but for a message that comes in pieces. These may be of any size.
 */
#ifndef PROMPTD_RESP_GUARD_H
#define PROMPTD_RESP_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"

enum {
    RESP_GUARD_HEADER_BYTES = 24, /* of `$N`, `*N`, `:N` with their line end; held back until they are whole */
    RESP_GUARD_NESTING = 7,       /* hiredis' own bound */
    RESP_GUARD_TLS_ALERT = 0x15,  /* how a record begins in which a TLS server complains of a plain client */
    RESP_GUARD_ERROR_SIZE = 256
};

/* A fault that is one of set-up. */
#define RESP_GUARD_SPEAKS_TLS "this port speaks TLS: rediss://"

/* Both are called inside resp_guard_pass, which goes on behind them: the guard may be muted, but neither fed nor freed.
 */
struct resp_subscriber {
    void (*on_subscribed)(void *context);
    void (*on_message)(void *context, const char *bytes, size_t length); /* NULL: too many are to come */
    void *context;
};

struct resp_guard_limits {
    size_t bulk_bytes;  /* longer bulk strings are left out */
    size_t reply_bytes; /* a longer reply, without what is left out, is a fault */
    bool leaves_out;    /* a longer reply is no fault: what has no room is left out */
};

enum resp_guard_state {
    RESP_GUARD_HEADER, /* in or before the line that begins an element */
    RESP_GUARD_TEXT,   /* in a status or an error */
    RESP_GUARD_BULK,   /* in a bulk string that passes */
    RESP_GUARD_SKIP    /* in one that is left out */
};

struct resp_guard {
    struct resp_guard_limits limits;
    const char *fault; /* NULL, or what is wrong with the peer, for the log */
    bool was_told;     /* an error that nobody asked for came: `error`; whoever acts on it sets this to false */
    char error[RESP_GUARD_ERROR_SIZE]; /* the last one; raw: it may quote what was sent */
    uint64_t received_bytes;

    /* private */
    unsigned expected;   /* replies to commands, before all else */
    const char *channel; /* NULL: not subscribed */
    size_t channel_length;
    enum resp_guard_state state;
    const struct resp_subscriber *subscriber;
    bool is_push; /* this reply is the subscription's */
    char header[RESP_GUARD_HEADER_BYTES];
    size_t header_length;
    unsigned depth;
    uint32_t left[RESP_GUARD_NESTING]; /* elements still to come, of each array around */
    unsigned left_out_from;            /* the depth inside of the array that is left out; 0: there is none */
    uint32_t elements;                 /* announced in this reply, without those that are left out */
    size_t reply_bytes;
    uint64_t bulk_left;     /* with its line end */
    const char *must_equal; /* the rest of what this bulk string must be; NULL: anything */
    bool is_message;
    const char *message; /* NULL: left out, which was said */
    size_t message_length;
    struct buffer pieces; /* of the message */
    bool is_error;
    bool text_ends; /* the line end has begun */
    bool last_was_error;
    size_t text_length;
};

/* For a new connection; the limits stay. */
void resp_guard_reset(struct resp_guard *guard);

/* Gives back what a message in pieces took. */
void resp_guard_free(struct resp_guard *guard);

/* A command is sent: one reply more. */
void resp_guard_expect(struct resp_guard *guard);

/* SUBSCRIBE is sent; channel and subscriber are borrowed until the reset. */
void resp_guard_subscribe(struct resp_guard *guard, const char *channel, size_t length,
                          const struct resp_subscriber *subscriber);

/* Nothing is handed out any more, until the next SUBSCRIBE. */
void resp_guard_mute(struct resp_guard *guard);

/* Returns how many bytes it wrote to `out`, which has room for length + RESP_GUARD_HEADER_BYTES. */
size_t resp_guard_pass(struct resp_guard *guard, const char *bytes, size_t length, char *out);

/* The last reply, if it was an error and whole, else NULL. */
const char *resp_guard_last_error(const struct resp_guard *guard);

#endif
