/* SPDX-License-Identifier: MIT */
/*
 * The store: takes jobs, runs their steps against PostgreSQL in batches, and gives each back with its outcome.
 *
 * Batches are adaptive: whatever has become ready while the connections were busy goes in the next statement, up to
 * batch_max. There is no timer and no waiting for more: alone at low load, hundreds at high load.
 *
 * A batch whose statement fails is sent again in parts, until the culprit stands alone; the others never notice. Only a
 * job that is alone with its failure uses up an attempt. An outage uses up none: it is one when a connection is lost,
 * or when a statement fails with an outage's code and a harmless probe fails, too. What somebody else has locked is
 * come back to; nothing waits for it.
 */
#ifndef PROMPTD_STORE_H
#define PROMPTD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/metrics.h"
#include "promptd/pg_pool.h"
#include "promptd/pipeline.h"
#include "promptd/statements.h"

struct store;

/* What may change while it runs. */
struct store_tuning {
    size_t batch_max;        /* messages in a statement */
    unsigned retry_attempts; /* in all, for transient errors of a job's own */
    int64_t retry_base_ms;
    int64_t retry_max_ms;
    int64_t lock_patience_ms;      /* how long a step comes back to a row that somebody else has locked */
    int64_t reconcile_interval_ms; /* between rounds of the recovery; 0: there is none */
    int64_t recover_after_s;       /* what stands in promptd_unsettled for longer is its business */
    struct pg_pool_tuning pool;
};

struct store_options {
    uv_loop_t *loop;
    const char *database_url; /* borrowed for the store's life */
    size_t connections;
    bool in_transaction;                /* atomicity = transaction */
    struct statement_statuses statuses; /* borrowed for the store's life */
    const char *source;                 /* any that the table takes; borrowed */
    struct store_tuning tuning;
    struct metrics *metrics;   /* borrowed */
    struct pipeline *pipeline; /* jobs are taken from it, and go back there with their outcome; borrowed */
};

struct store *store_new(const struct store_options *options); /* NULL when out of memory; dials at once */
void store_set_tuning(struct store *store, const struct store_tuning *tuning); /* until store_close */

/* There may be something to take. Work starts before the loop waits again, with all that has come until then. */
void store_kick(struct store *store);

/* Frees the memory of batches that are not under way. */
void store_trim_memory(struct store *store);

bool store_is_up(const struct store *store);
bool store_circuit_is_open(const struct store *store);
bool store_close_circuit(struct store *store);       /* by hand; returns whether it was open */
size_t store_connections(const struct store *store); /* open ones */

/* Of the struct that the store has around each job: for the pipeline, which makes them. */
size_t store_job_size(void);

/* The job is abandoned as it is: may its prompt be there, and unsettled? For the pipeline. */
bool store_may_be_unsettled(const struct job *job);

/* Orphans that were reported and are not known to be gone. Returns how many are in the list. */
size_t store_list_orphans(const struct store *store, struct open_orphan *list, size_t max);

/* Cancels what the server is still doing and ends the connections. Jobs without an outcome go to pipeline_abandon;
 * on_closed is the last callback, and the store is gone. */
void store_close(struct store *store, void (*on_closed)(void *context), void *context);

/* After store_close, when a session's thread does not return in time: what is in work is abandoned too, at once. */
void store_abandon(struct store *store);

#endif
