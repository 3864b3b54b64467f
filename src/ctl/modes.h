/* SPDX-License-Identifier: MIT */
/* What differs with redis_mode: a row for each. What check tries and where dead letters are is in two tables of the
 * same order, in check_redis.c and dead.c; no other place asks for the mode. */
#ifndef PROMPTCTL_MODES_H
#define PROMPTCTL_MODES_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/buffer.h"
#include "promptd/settings.h"
#include "redis.h"

struct mode {
    const char *name; /* as redis_mode and /status have it */

    /* A message is sent by: command, redis_channel, these words, message. */
    const char *command;
    const char *before_message[3]; /* ends with NULL */
    const char *sent;              /* how that is told: "published" */
    int answer_type;               /* of the reply */
    const char *answer;            /* what it says, in --json: "receivers" */
    void (*describe_answer)(const redisReply *reply, struct buffer *out);

    /* A message waits in Redis, under the key redis_channel of this type; NULL: nothing waits. */
    const char *key_type;
    const char *length_command; /* of that key */
    const char *missing;        /* what is to be said where there is no such key */

    /* Of the link, in promptctl status. */
    const char *up;
    const char *down;
};

const struct mode *mode_of(const struct settings *settings);
const struct mode *mode_by_name(const char *name);     /* NULL: unknown */
const struct mode *mode_by_key_type(const char *type); /* whose messages wait under such a key; NULL: none */

/* The reply, to be freed with freeReplyObject; NULL with *error. */
redisReply *mode_send(struct redis_client *client, const struct settings *settings, const char *bytes, size_t length,
                      struct error *error);

/* What TYPE says of a key, "none" where there is none. false with *error, also where it may not be asked. */
enum { MODE_TYPE_SIZE = 32 };
bool mode_ask_type(struct redis_client *client, const char *key, char type[MODE_TYPE_SIZE], struct error *error);

/* What a command such as LLEN answers; -1: no number. */
long long mode_ask_number(struct redis_client *client, const char *command, const char *key);

/* Whether redis_channel, which is of this type, is a key that the mode can use; false with ERROR_CONFIG. */
bool mode_fits_type(const struct settings *settings, const char *type, struct error *error);

/* A key that goes with redis_channel: {redis_channel} and the suffix, so that a Redis Cluster has all in one slot. To
 * be freed; NULL when out of memory. */
char *mode_key(const struct settings *settings, const char *suffix);

#endif
