/* SPDX-License-Identifier: MIT */
/*
 * One connection to Redis, from the look-up of its name until it is over; then another one can be begun. All that is
 * said to a Redis or a Sentinel goes over one: of links, of the question to the Sentinels, of promptctl.
 *
 * It calls on_login once it is logged in; its user then sends what it wants, and confirms the connection when that is
 * answered. From the look-up to the confirmation one deadline runs; of several addresses that are tried each but the
 * last gets 2 s for a sign of life. Whatever the peer sends is looked at before hiredis reads it (resp_guard): replies
 * that are none end the connection.
 *
 * Callbacks never run inside a call of this module, and a new connection may be begun in each of them.
 */
#ifndef PROMPTD_REDIS_DIAL_H
#define PROMPTD_REDIS_DIAL_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"
#include "promptd/resp_guard.h"

struct redis_dial;

/* Where the replies of a command go. Borrowed until the dial is closed; no reply comes after the connection is lost. */
struct redis_call {
    void (*on_reply)(void *context, const redisReply *reply);
    void *context;
};

/* How it ended. */
struct redis_dial_end {
    char reason[256];     /* fit for the log */
    bool was_connected;   /* the server, or what stands in front of it, had taken the connection */
    bool was_up;          /* it had been confirmed */
    bool refused;         /* the server itself said no: a matter of set-up */
    bool misfit;          /* the two do not agree on TLS: likewise */
    bool busy;            /* it said that it is busy, which passes */
    bool silent;          /* nothing came in time */
    bool no_master;       /* it let us in, and is not the master that is wanted */
    unsigned passed_over; /* addresses that gave no sign of life, before the last */
    struct redis_tls_summary tls;
};

struct redis_dial_options {
    uv_loop_t *loop;
    const struct redis_address *address; /* how to log in; borrowed */
    bool wants_master;                   /* a server that says that it is none is given up */
    struct redis_tls *tls;               /* borrowed; NULL where the address has no TLS */
    int64_t timeout_ms;
    struct resp_guard_limits limits;
    void (*on_login)(void *context);
    void (*on_over)(void *context, const struct redis_dial_end *end);
    void (*on_busy)(void *context, const char *error); /* as struct redis_link_options has it */
    void (*on_closed)(void *context);
    void *context;
};

/* NULL when out of memory. */
struct redis_dial *redis_dial_new(const struct redis_dial_options *options);

/* When none is under way. The server is borrowed until it is over, and has no more than where it is. */
void redis_dial_begin(struct redis_dial *dial, const struct redis_address *server);

/* Sends a command; lengths in bytes, NULL: strlen. A send that fails loses the connection. */
void redis_dial_command(struct redis_dial *dial, int argc, const char *const *argv, const size_t *lengths,
                        const struct redis_call *call);

/* SUBSCRIBE: its answers and the messages go to the subscriber. It and the channel are borrowed until the dial is
 * closed. From then on the connection takes no other command. */
void redis_dial_subscribe(struct redis_dial *dial, const char *channel, const struct resp_subscriber *subscriber);

/* false: it does not wait for that. */
bool redis_dial_confirm(struct redis_dial *dial, unsigned *passed_over);

bool redis_dial_is_up(const struct redis_dial *dial);              /* confirmed */
uint64_t redis_dial_received_bytes(const struct redis_dial *dial); /* of this connection, or the last */
int64_t redis_dial_progress(const struct redis_dial *dial); /* grows with each byte that comes, or arrives there */
void redis_dial_describe_tls(const struct redis_dial *dial, struct redis_tls_summary *summary);
void redis_dial_set_limits(struct redis_dial *dial, const struct resp_guard_limits *limits);

/* Gives it up, for a reason that is fit for the log, or for an error reply, of which nothing is shown that may quote a
 * password; on_over follows. false: it is being given up already, or there is none. */
bool redis_dial_drop(struct redis_dial *dial, const char *reason);
bool redis_dial_refuse(struct redis_dial *dial, const char *error);

/* Ends it in whatever state; on_closed is the last callback. From there on it may be freed, and until then it may be
 * called: it does nothing any more. */
void redis_dial_close(struct redis_dial *dial);
void redis_dial_free(struct redis_dial *dial);

#endif
