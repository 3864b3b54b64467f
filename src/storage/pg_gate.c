/* SPDX-License-Identifier: MIT */
/* A timer, a breaker, and a backoff for what is too much. */
#include "pg_gate.h"

#include <stdlib.h>

#define LOG_COMPONENT "postgres"
#include "promptd/log.h"

enum { GATE_BACKOFF_BASE_MS = 1000 };

static void on_timer(uv_timer_t *timer)
{
    struct pg_gate *gate = timer->data;
    gate->is_of_surplus = false;
    gate->on_open(gate->context);
}

static void shut(struct pg_gate *gate, int64_t wait_ms)
{
    uv_update_time(gate->timer->loop);
    (void)uv_timer_start(gate->timer, on_timer, (uint64_t)wait_ms, 0);
}

bool pg_gate_init(struct pg_gate *gate, uv_loop_t *loop, void (*on_open)(void *context), void *context)
{
    *gate = (struct pg_gate){.breaker.backoff.base_ms = GATE_BACKOFF_BASE_MS,
                             .surplus.base_ms = GATE_BACKOFF_BASE_MS,
                             .timer = calloc(1, sizeof *gate->timer),
                             .on_open = on_open,
                             .context = context};
    if (!gate->timer)
        return false;
    (void)uv_timer_init(loop, gate->timer);
    gate->timer->data = gate;
    return true;
}

void pg_gate_set_tuning(struct pg_gate *gate, int64_t backoff_max_ms, unsigned breaker_failures,
                        int64_t breaker_reset_ms)
{
    gate->breaker.backoff.max_ms = backoff_max_ms;
    gate->surplus.max_ms = backoff_max_ms;
    gate->breaker.max_failures = breaker_failures;
    gate->breaker.reset_ms = breaker_reset_ms;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

void pg_gate_close(struct pg_gate *gate)
{
    uv_close((uv_handle_t *)gate->timer, on_closed);
}

bool pg_gate_is_shut(const struct pg_gate *gate)
{
    return uv_is_active((const uv_handle_t *)gate->timer) != 0;
}

void pg_gate_fail(struct pg_gate *gate)
{
    if (pg_gate_is_shut(gate))
        return;
    bool opened;
    int64_t wait_ms = breaker_fail(&gate->breaker, backoff_chance(), &opened);
    if (opened)
        log_critical(LOG_FIELDS(log_number("failures", gate->breaker.failures)),
                     "database circuit opened; one attempt every %lld s from now on", (long long)(wait_ms / 1000));
    log_debug(LOG_FIELDS(log_number("wait_ms", wait_ms)), "next dial");
    shut(gate, wait_ms);
}

void pg_gate_look_again(struct pg_gate *gate)
{
    shut(gate, GATE_BACKOFF_BASE_MS);
}

void pg_gate_succeed(struct pg_gate *gate)
{
    if (breaker_close(&gate->breaker))
        log_info(NULL, "database circuit closed");
}

/* That is a limit of the role's, the server's or a pooler's. It is said at the second time, when the gate has been
 * waited for: at the first the other connections may be about to go, too. */
void pg_gate_add_surplus(struct pg_gate *gate, size_t open, size_t wanted, const char *reason)
{
    if (pg_gate_is_shut(gate))
        return;
    if (!gate->is_short && pg_gate_has_surplus(gate)) {
        log_warning(
            LOG_FIELDS(log_number("connections", open), log_number("wanted", wanted), log_text("error", reason)),
            "the server gives fewer connections than db_connections; it goes on with those");
        gate->is_short = true;
    }
    gate->is_of_surplus = true;
    shut(gate, backoff_fail(&gate->surplus, backoff_chance()));
}

bool pg_gate_has_surplus(const struct pg_gate *gate)
{
    return gate->surplus.failures > 0;
}

void pg_gate_end_surplus(struct pg_gate *gate)
{
    gate->is_short = false;
    gate->surplus.failures = 0;
}

void pg_gate_forget_surplus(struct pg_gate *gate)
{
    if (!gate->is_of_surplus)
        return;
    gate->is_of_surplus = false;
    gate->surplus.failures = 0;
    (void)uv_timer_stop(gate->timer);
}

bool pg_gate_circuit_is_open(const struct pg_gate *gate)
{
    return gate->breaker.is_open;
}

bool pg_gate_close_circuit(struct pg_gate *gate)
{
    bool was_open = breaker_close(&gate->breaker);
    if (was_open)
        log_info(NULL, "database circuit closed by hand");
    gate->is_of_surplus = false;
    (void)uv_timer_stop(gate->timer);
    return was_open;
}
