/* SPDX-License-Identifier: MIT */
/*
 * The store: takes jobs, runs their steps against PostgreSQL in batches, and gives each back with its outcome.
 *
 * Batches are adaptive: whatever has become ready while the connections were busy goes in the next statement, up to
 * batch_max. There is no timer and no waiting for more: alone at low load, hundreds at high load.
 *
 * A batch whose statement fails is sent again in halves, until the culprit stands alone; the others never notice. Only
 * a job that is alone with its failure uses up an attempt. An outage uses up none.
 */
#ifndef PROMPTD_STORE_H
#define PROMPTD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/job.h"
#include "promptd/metrics.h"
#include "promptd/pg_pool.h"
#include "promptd/statements.h"

struct store;

/* What may change while it runs. */
struct store_tuning {
    size_t batch_max;        /* messages in a statement */
    unsigned retry_attempts; /* in all, for transient errors of a job's own */
    int64_t retry_base_ms;
    int64_t retry_max_ms;
    int64_t settle_timeout_ms; /* database away: an inserted prompt unsettled for so long is reported as an orphan */
    int64_t reconcile_interval_ms; /* between searches for orphans that nobody reported; 0: none */
    struct pg_pool_tuning pool;
};

struct store_options {
    uv_loop_t *loop;
    const char *database_url; /* borrowed for the store's life */
    size_t connections;
    bool in_transaction;                /* atomicity = transaction */
    struct statement_statuses statuses; /* borrowed for the store's life */
    struct store_tuning tuning;
    struct metrics *metrics;                                 /* borrowed */
    struct job *(*take)(void *context);                      /* the next job that may be worked on, or NULL */
    void (*on_orphan)(void *context, const struct job *job); /* its prompt could not be deleted; the outcome follows */
    void (*on_outcome)(void *context, struct job *job);      /* job->outcome is final; the job is the caller's again */
    /* An unreported orphan was found in the data. */
    void (*on_found)(void *context, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE]);
    void (*on_up)(void *context); /* the database is there (again) */
    void (*on_closed)(void *context);
    void *context;
};

struct store *store_new(const struct store_options *options); /* NULL when memory is out; dials at once */
void store_set_tuning(struct store *store, const struct store_tuning *tuning);

/* There may be something to take. Work starts before the loop waits again, with all that has come until then. */
void store_kick(struct store *store);

/* Frees the memory of batches that are not under way. */
void store_give_back(struct store *store);

/* From now on only what was taken is finished. */
void store_stop_taking(struct store *store);

bool store_is_up(const struct store *store);
bool store_circuit_is_open(const struct store *store);
bool store_close_circuit(struct store *store);       /* by hand; returns whether it was open */
size_t store_connections(const struct store *store); /* open ones */

/* Ends the connections. Jobs without an outcome are handed to `unfinished`, and then belong to the caller; on_closed is
 * the last callback, and the store is gone. */
void store_close(struct store *store, void (*unfinished)(void *context, struct job *job));

/* After store_close, when a session's thread does not come home in time: what is in work is handed out too, at once. */
void store_abandon(struct store *store);

#endif
