/* SPDX-License-Identifier: MIT */
/*
 * The connection to the Redis of the settings, for programs that wait: redis_dial on a loop of its own. Each call ends
 * within 5 s, and opening within 2 s more for each further address of a name and 1 s more for each Sentinel's; a call
 * that sends or brings many bytes may take as long as these go on, at 100 kB a second or more. Closing waits for a name
 * server that has not answered yet.
 */
#ifndef PROMPTCTL_REDIS_H
#define PROMPTCTL_REDIS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "promptd/error.h"
#include "promptd/redis_address.h"
#include "promptd/redis_dial.h"
#include "promptd/redis_tls.h"
#include "promptd/settings.h"

/* Not to be moved while it is open. */
struct redis_client {
    struct redis_address address;
    char server[REDIS_ADDRESS_NAME_SIZE]; /* for people: "127.0.0.1:6379", "/path" */
    struct redis_dial_end end;            /* how far it came, and why no farther; once it is open, tls alone */

    /* private */
    struct redis_tls *tls; /* NULL: the address has none */
    uv_loop_t loop;
    uv_timer_t tick;
    struct redis_dial *dial; /* NULL: not even begun */
    struct redis_call ping;
    struct redis_call call;
    struct resp_subscriber subscriber;
    bool is_answered;    /* what was asked last */
    redisReply *reply;   /* to that; the caller's */
    bool is_over;        /* the connection: `end` */
    bool subscribes;     /* an error that nobody asked for is the answer to that */
    bool in_transaction; /* between MULTI and its end */
};

/*
 * Connects, by TLS where the address says so, logs in, and makes sure that the server answers, and is a master where
 * Sentinels name it. ERROR_UNAVAILABLE: cannot be reached, does not answer, or is not ready for anyone (loading, too
 * many clients); ERROR_CONFIG: the server refuses us, or we its certificate. Either names the server. After a failure
 * only redis_client_close may follow.
 */
bool redis_client_open(struct redis_client *client, const struct settings *settings, struct error *error);
bool redis_client_is_up(const struct redis_client *client); /* no call has lost it */
void redis_client_close(struct redis_client *client);

/* In a Redis Cluster the client goes to the server that has the key, but not within a transaction. The reply, to be
 * freed with freeReplyObject; NULL with *error as above, also for an error reply; a connection that is lost is
 * ERROR_UNAVAILABLE. */
redisReply *redis_client_call(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                              struct error *error);

/* The same for a reply of one type, as REDIS_REPLY_INTEGER; of another one it is ERROR_UNAVAILABLE. */
redisReply *redis_client_call_for(struct redis_client *client, int type, int argc, const char *const *argv,
                                  const size_t *lengths, struct error *error);

/* SUBSCRIBE, which has its own way. Nothing else may be called after it. The channel is borrowed until it is closed. */
bool redis_client_subscribe(struct redis_client *client, const char *channel, struct error *error);

/* Sets *error for a reply to `command` that Redis does not give; false. */
bool redis_client_misunderstand(const struct redis_client *client, const char *command, struct error *error);

#endif
