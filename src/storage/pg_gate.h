/* SPDX-License-Identifier: MIT */
/*
 * The gate that spaces the pool's dials: shut after a failure, for a growing, jittered time; after too many of them the
 * circuit opens. A connection that the server refuses while others work is a surplus, and no failure: the gate is shut
 * as well, and the circuit hears nothing of it.
 */
#ifndef PROMPTD_PG_GATE_H
#define PROMPTD_PG_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/breaker.h"

struct pg_gate {
    uv_timer_t *timer; /* active: shut */
    struct breaker breaker;
    struct backoff surplus;
    bool is_of_surplus; /* it is shut for one, and for no other reason */
    bool is_short;      /* the server gives fewer connections than wanted, and that is said */
    void (*on_open)(void *context);
    void *context;
};

/* on_open: it is no longer shut; called from the loop. false when out of memory. */
bool pg_gate_init(struct pg_gate *gate, uv_loop_t *loop, void (*on_open)(void *context), void *context);
void pg_gate_set_tuning(struct pg_gate *gate, int64_t backoff_max_ms, unsigned breaker_failures,
                        int64_t breaker_reset_ms);
void pg_gate_close(struct pg_gate *gate); /* nothing is called back any more */

bool pg_gate_is_shut(const struct pg_gate *gate);

/* One more failure. Failures while the gate is shut belong to the same event. */
void pg_gate_fail(struct pg_gate *gate);
/* Shut for a moment, for no failure. */
void pg_gate_look_again(struct pg_gate *gate);
/* The server answers as it should. */
void pg_gate_succeed(struct pg_gate *gate);

/* The server refuses one more connection for `reason`, and `open` of the `wanted` work. */
void pg_gate_add_surplus(struct pg_gate *gate, size_t open, size_t wanted, const char *reason);
bool pg_gate_has_surplus(const struct pg_gate *gate);
/* There are all that are wanted. */
void pg_gate_end_surplus(struct pg_gate *gate);
/* A connection was lost: there may be room for another now. */
void pg_gate_forget_surplus(struct pg_gate *gate);

bool pg_gate_circuit_is_open(const struct pg_gate *gate);
bool pg_gate_close_circuit(struct pg_gate *gate); /* by hand, and opens; returns whether it was open */

#endif
