/* SPDX-License-Identifier: MIT */
/*
 * One connection to Redis: look up the name, connect, log in, and dial again when it is lost. Where the address has
 * Sentinels they are asked first who is the master, and watched: one that they no longer name is given up.
 *
 * The link calls on_login once it is logged in; its user then sends what opens the subscription, and confirms the link
 * when that is answered. From the look-up to the confirmation one deadline runs; of several addresses that are tried in
 * one dial, each but the last gets 2 s for a sign of life. After a failure the next dial waits, longer each time; only
 * a confirmation resets the wait. Each change of state is logged once. A server that says that it is busy is dialled
 * again each second, and that is no failure.
 *
 * A confirmed connection that has died in silence is found by a heartbeat: what on_beat sends must be answered in time.
 *
 * Whatever the peer sends is looked at before hiredis reads it (resp_guard): replies that are none cost the connection.
 *
 * Callbacks never run inside a call of this module.
 */
#ifndef PROMPTD_REDIS_LINK_H
#define PROMPTD_REDIS_LINK_H

#include <stdbool.h>
#include <uv.h>

#include "promptd/breaker.h"
#include "promptd/redis_address.h"
#include "promptd/redis_dial.h"
#include "promptd/redis_tls.h"

struct redis_link;

struct redis_link_options {
    uv_loop_t *loop;
    const struct redis_address *address; /* borrowed for the link's life */
    struct redis_tls *tls;               /* borrowed likewise; NULL where the address has no TLS */
    struct link_tuning tuning;
    struct resp_guard_limits limits; /* redis_dial_set_limits changes them */
    bool is_second; /* another link to the same server has the lines about it: this one logs refusals only */
    void (*on_login)(void *context);
    /* The confirmed connection is gone, for `reason`; fit for the log. Not called for failed dials. */
    void (*on_lost)(void *context, const char *reason);
    /* The server answered SUBSCRIBE with an error that says that it is busy; fit for the log. The link stays. */
    void (*on_busy)(void *context, const char *error); /* NULL where there is no SUBSCRIBE */
    /* To send what is answered, and say so then: redis_link_answered. NULL: no heartbeat. */
    void (*on_beat)(void *context);
    void (*on_closed)(void *context);
    void *context;
};

/* Dials at once. NULL when out of memory: the process ends. */
struct redis_link *redis_link_new(const struct redis_link_options *options);

/* The connection: what is said over it between on_login and on_lost (redis_dial_command, redis_dial_subscribe), and how
 * it is given up (redis_dial_drop, redis_dial_refuse): on_lost follows if it was confirmed, and a new dial. All else is
 * the link's. */
struct redis_dial *redis_link_dial(const struct redis_link *link);

void redis_link_confirm(struct redis_link *link);
void redis_link_answered(struct redis_link *link); /* a beat, or by what else it proves to live */
/* The answer to the last beat: nothing has come for a second since it was sent. */
bool redis_link_is_overdue(const struct redis_link *link);
void redis_link_set_tuning(struct redis_link *link, const struct link_tuning *tuning);
bool redis_link_is_up(const struct redis_link *link);        /* confirmed */
unsigned redis_link_failures(const struct redis_link *link); /* in a row */

bool redis_link_circuit_is_open(const struct redis_link *link);

/* The server in use, or last tried: see redis_address_name. */
void redis_link_server_name(const struct redis_link *link, char name[REDIS_ADDRESS_NAME_SIZE]);

/* For on_lost: whether the connection may have been of no use for a while. It was given up because nothing answered the
 * heartbeat, or because the Sentinels name another server. */
bool redis_link_was_deaf(const struct redis_link *link);

/* Closes the circuit by hand, and dials at once if it waits. Returns whether it was open. */
bool redis_link_close_circuit(struct redis_link *link);

/* A Redis Cluster has the key on another server, which is dialled from now on, at once; a host "" is the one it was.
 * Where a dial to it fails the address counts again. Not with Sentinels. */
void redis_link_redirect(struct redis_link *link, const struct redis_endpoint *server);

/* Ends it in whatever state; on_closed is the last callback, and the link is gone. */
void redis_link_close(struct redis_link *link);

#endif
