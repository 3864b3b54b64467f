/* SPDX-License-Identifier: MIT */
/* redis_url taken apart. */
#ifndef PROMPTD_REDIS_ADDRESS_H
#define PROMPTD_REDIS_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/error.h"

enum { REDIS_SENTINELS_MAX = 16, REDIS_ADDRESS_NAME_SIZE = 272 };

/* Of a host's name. */
#define REDIS_NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_"

struct redis_endpoint {
    char *host; /* without the brackets of an IPv6 address */
    int port;
};

/* Strings are owned; free with redis_address_free. */
struct redis_address {
    char *host; /* NULL for a unix socket, and where Sentinels must be asked; without the brackets of an IPv6 address */
    int port;
    char *unix_path; /* NULL for TCP */
    char *service;   /* what the Sentinels call the master; NULL: there are none to ask */
    struct redis_endpoint sentinels[REDIS_SENTINELS_MAX];
    size_t sentinel_count;
    char *user;     /* NULL: none; percent-decoded */
    char *password; /* NULL: none; percent-decoded */
    int database;   /* 0 where the URL names none */
    bool tls;       /* rediss://, rediss+sentinel:// */
};

/* false with a phrase in *error ("has no host") when it is not a usable URL. */
bool redis_address_parse(const char *url, struct redis_address *address, struct error *error);
void redis_address_free(struct redis_address *address);

/* For people: 127.0.0.1:6379, [::1]:6379. */
void redis_endpoint_name(const struct redis_endpoint *endpoint, char name[REDIS_ADDRESS_NAME_SIZE]);

/* The server likewise, or /path, or "master mymaster" as long as no Sentinel has been asked where that is. */
void redis_address_name(const struct redis_address *address, char name[REDIS_ADDRESS_NAME_SIZE]);

/* An error reply, for people. A server that does not know AUTH quotes its arguments: where that may be the password
 * only the code of the error remains. */
void redis_address_copy_error(const struct redis_address *address, const char *reply, char *out, size_t size);

/* Of a Redis Cluster's "MOVED slot host:port" the server, whose host is written to `host`; "" stands for the one that
 * says so. false: it is another error. */
bool redis_address_read_moved(const char *reply, char host[REDIS_ADDRESS_NAME_SIZE], struct redis_endpoint *server);

/* For the settings: whether a link can be made to it, with a phrase as above. */
bool redis_address_validate(const char *url, struct error *phrase);

#endif
