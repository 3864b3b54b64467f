/* SPDX-License-Identifier: MIT */
/* URLs with a password in them, before anybody parses or shows them (RFC 3986, 3.2.1 and 2.1). */
#ifndef PROMPTD_URL_H
#define PROMPTD_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/error.h"

/* false, and what is wrong in words that quote nothing, where an unencoded character may belong to the password or to
 * what follows it. What is no URL at all, as "key = value", passes. */
bool url_check_password(const char *url, struct error *phrase);

/* The name of the first parameter behind the ?, or of the one after `last`; its length in bytes, not 0. NULL: there is
 * none. */
const char *url_next_parameter(const char *url, const char *last, size_t *length);

#endif
