/* SPDX-License-Identifier: MIT */
/*
 * When to dial again: backoff after single failures, and a circuit that opens after too many in a row.
 *
 *     CLOSED ──max_failures in a row──▶ OPEN ──reset_ms later, one attempt──▶ HALF_OPEN ──▶ CLOSED or OPEN
 *
 * Pure: the caller keeps the time and passes chance in. Fed by the link alone, never by what messages bring.
 */
#ifndef PROMPTD_BREAKER_H
#define PROMPTD_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/backoff.h"

enum breaker_state {
    BREAKER_CLOSED,   /* attempts follow each other after the backoff */
    BREAKER_OPEN,     /* no attempt until reset_ms have passed */
    BREAKER_HALF_OPEN /* one attempt is under way and decides */
};

struct breaker {
    struct backoff backoff;
    unsigned max_failures; /* in a row */
    int64_t reset_ms;
    enum breaker_state state;
    unsigned failures; /* in a row */
};

/* Counts a failure and returns how long to wait, in ms. *opened: the circuit was closed until now. */
int64_t breaker_fail(struct breaker *breaker, double chance, bool *opened);

/* The wait is over: an attempt starts. */
void breaker_attempt(struct breaker *breaker);

/* Also how the circuit is closed by hand. Returns whether it was open until now. */
bool breaker_close(struct breaker *breaker);

#endif
