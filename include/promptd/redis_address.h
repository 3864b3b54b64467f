/* SPDX-License-Identifier: MIT */
/* redis_url taken apart. */
#ifndef PROMPTD_REDIS_ADDRESS_H
#define PROMPTD_REDIS_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/error.h"

/* Strings are owned; free with redis_address_free. */
struct redis_address {
    char *host; /* NULL for a unix socket; without the brackets of an IPv6 address */
    int port;
    char *unix_path; /* NULL for TCP */
    char *user;      /* NULL: none; percent-decoded */
    char *password;  /* NULL: none; percent-decoded */
    int database;    /* 0 where the URL names none */
    bool tls;        /* rediss:// */
};

/* false with a phrase in *error ("has no host") when it is not a usable URL. */
bool redis_address_parse(const char *url, struct redis_address *address, struct error *error);
void redis_address_free(struct redis_address *address);

enum { REDIS_ADDRESS_NAME_SIZE = 272 };

/* The server, for people: 127.0.0.1:6379, [::1]:6379, /path. */
void redis_address_name(const struct redis_address *address, char name[REDIS_ADDRESS_NAME_SIZE]);

/* An error reply, for people. A server that does not know AUTH quotes its arguments: where that may be the password
 * only the code of the error remains. */
void redis_address_copy_error(const struct redis_address *address, const char *reply, char *out, size_t size);

/* For the settings: whether a link can be made to it, with a phrase as above. */
bool redis_address_validate(const char *url, struct error *phrase);

#endif
