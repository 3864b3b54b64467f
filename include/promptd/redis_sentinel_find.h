/* SPDX-License-Identifier: MIT */
/* redis_sentinel for programs without a loop: one question, and the call waits for its end. */
#ifndef PROMPTD_REDIS_SENTINEL_FIND_H
#define PROMPTD_REDIS_SENTINEL_FIND_H

#include <stdbool.h>

#include "promptd/error.h"
#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"

/*
 * Whom the Sentinels of the address name, by TLS where there is `tls`; the host of *master is the caller's to free.
 * false with a phrase: ERROR_CONFIG where one of them answers and refuses, ERROR_UNAVAILABLE where none does.
 */
bool redis_sentinel_find(const struct redis_address *address, struct redis_tls *tls, struct redis_endpoint *master,
                         struct error *phrase);

#endif
