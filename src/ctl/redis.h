/* SPDX-License-Identifier: MIT */
/*
 * A blocking connection to the Redis of the settings, for one command or two. Each call ends within 5 s; one that sends
 * or brings many bytes may take as long as these go on, at 100 kB a second or more.
 */
#ifndef PROMPTCTL_REDIS_H
#define PROMPTCTL_REDIS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#include "promptd/error.h"
#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"
#include "promptd/resp_guard.h"
#include "promptd/settings.h"

struct redis_client {
    redisContext *context;   /* NULL: none that is of use */
    struct resp_guard guard; /* of context: what is no reply of Redis ends the connection, before hiredis reads it */
    struct redis_address address;
    struct redis_tls *tls;  /* NULL: the address has none */
    struct ssl_st *session; /* of context; NULL: no TLS */
    bool is_connected;      /* the server, or what stands in front of it, has taken the connection */
    bool has_answered;
    bool is_lost;        /* and a call has said so */
    bool in_transaction; /* between MULTI and its end */
    char server[300];    /* for people: "127.0.0.1:6379", "unix:/path" */
};

/*
 * Connects, by TLS where the address says so. ERROR_UNAVAILABLE: cannot be reached, does not answer, or is not ready
 * for anyone (loading, too many clients); ERROR_CONFIG: the server refuses us, or we its certificate. Either names the
 * server. After a failure only redis_client_close may follow.
 */
bool redis_client_connect(struct redis_client *client, const struct settings *settings, struct error *error);
bool redis_client_login(struct redis_client *client, struct error *error);

/* Where Sentinels named the server: it must say that it is a master, or not want to say. After the login. */
bool redis_client_check_role(struct redis_client *client, struct error *error);

bool redis_client_open(struct redis_client *client, const struct settings *settings,
                       struct error *error);                /* all of it */
bool redis_client_is_up(const struct redis_client *client); /* no call has lost it */
void redis_client_close(struct redis_client *client);

/* At most 20 words. In a Redis Cluster the client goes to the server that has the key, but not within a transaction.
 * The reply, to be freed with freeReplyObject; NULL with *error as above, also for an error reply. */
redisReply *redis_client_call(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                              struct error *error);

/* The same for a reply of one type, as REDIS_REPLY_INTEGER; of another one it is ERROR_UNAVAILABLE. */
redisReply *redis_client_call_for(struct redis_client *client, int type, int argc, const char *const *argv,
                                  const size_t *lengths, struct error *error);

/* Sets *error for a reply to `command` that Redis does not give; false. */
bool redis_client_misunderstand(const struct redis_client *client, const char *command, struct error *error);

#endif
