/* SPDX-License-Identifier: MIT */
/*
 * When to dial again: backoff after single failures, and a circuit that opens after too many in a row.
 *
 *     closed ──max_failures in a row──▶ open: one attempt each reset_ms ──the first that succeeds──▶ closed
 *
 * Pure: the caller keeps the time and passes chance in. Fed by the link alone, never by what messages bring.
 */
#ifndef PROMPTD_BREAKER_H
#define PROMPTD_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/backoff.h"

/* How a link to Redis is kept; may change while it runs. */
struct link_tuning {
    int64_t backoff_max_ms;
    unsigned breaker_failures; /* in a row, until the circuit opens */
    int64_t breaker_reset_ms;
    int64_t heartbeat_interval_ms; /* 0: no heartbeat */
    int64_t heartbeat_timeout_ms;
};

struct breaker {
    struct backoff backoff;
    unsigned max_failures; /* in a row */
    int64_t reset_ms;
    bool is_open;
    unsigned failures; /* in a row */
};

/* Counts a failure and returns how long to wait, in ms. *opened: the circuit was closed until now. */
int64_t breaker_fail(struct breaker *breaker, double chance, bool *opened);

/* Also how the circuit is closed by hand. Returns whether it was open until now. */
bool breaker_close(struct breaker *breaker);

#endif
