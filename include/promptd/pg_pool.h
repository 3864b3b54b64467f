/* SPDX-License-Identifier: MIT */
/*
 * The connections to PostgreSQL: keeps a fixed number of sessions open, and decides when to dial again.
 *
 * While the database is away one dial at a time is made, with growing, jittered waits in between; the change of state
 * is logged once, with its reason, and its end once, with its length. An idle database is asked for a sign of life now
 * and then, so that "up" is the truth. The first statement of each session checks that tables, columns and privileges
 * are there, and names what is not. Fewer connections than wanted, while one works, are no failure of the server.
 */
#ifndef PROMPTD_PG_POOL_H
#define PROMPTD_PG_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/pg_session.h"
#include "promptd/schema_check.h"

struct pg_pool;

/* The threads that it keeps busy at most, whatever the number of connections: dials and cancels go in turn. */
enum { PG_POOL_DIALS_AT_ONCE = 4, PG_POOL_CANCELS_AT_ONCE = 8 };

/* What may change while it runs. */
struct pg_pool_tuning {
    int64_t statement_timeout_ms;
    int64_t backoff_max_ms;
    unsigned breaker_failures; /* in a row, until the circuit opens */
    int64_t breaker_reset_ms;
    int64_t ping_interval_ms;  /* of the idle database; 0: never */
    struct schema_needs needs; /* where the evidence is missing that it asks for, the database counts as away */
};

struct pg_pool_options {
    uv_loop_t *loop;
    const char *database_url; /* borrowed for the pool's life */
    size_t connections;
    const char *source; /* for statements_build_probe; borrowed */
    struct pg_pool_tuning tuning;
    void (*on_idle)(void *context); /* a session has become usable */
    void (*on_up)(void *context);   /* the database is there (again), and takes writes */
    void (*on_closed)(void *context);
    void *context;
};

struct pg_pool *pg_pool_new(const struct pg_pool_options *options); /* NULL when out of memory; dials at once */
void pg_pool_set_tuning(struct pg_pool *pool, const struct pg_pool_tuning *tuning);

/* An open, idle session, or NULL; only while the pool is up. It stays the pool's; it is busy from pg_session_run to its
 * answer. */
struct pg_session *pg_pool_idle(struct pg_pool *pool);

/* A statement met an outage's code, and so did the probe after it, on this session: it is given up. `of_writes`: the
 * server answers, but cannot write; it is up again when a probe can. */
void pg_pool_report_outage(struct pg_pool *pool, struct pg_session *session, const struct pg_error *failure,
                           bool of_writes);

/* The answer to a schema check, asked because a statement failed. Returns whether nothing can be stored: the pool is
 * not up then, until a later check finds what is missing. */
bool pg_pool_report_schema(struct pg_pool *pool, const struct pg_answer *answer);

bool pg_pool_has_evidence(const struct pg_pool *pool); /* the table promptd_unsettled is there, and may be used */
bool pg_pool_is_up(const struct pg_pool *pool);        /* at least one session is usable, and the server takes writes */
size_t pg_pool_open_count(const struct pg_pool *pool);
bool pg_pool_circuit_is_open(const struct pg_pool *pool);

/* Closes the circuit by hand, and dials at once. Returns whether it was open. */
bool pg_pool_close_circuit(struct pg_pool *pool);

/* Ends all sessions; runs in flight are answered with PG_LOST; on_closed is the last callback, and the pool is gone. */
void pg_pool_close(struct pg_pool *pool);

#endif
