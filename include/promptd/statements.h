/* SPDX-License-Identifier: MIT */
/* The SQL: what each step sends for a batch of jobs, and what its answer says about each of them. */
#ifndef PROMPTD_STATEMENTS_H
#define PROMPTD_STATEMENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/buffer.h"
#include "promptd/job.h"
#include "promptd/pg_session.h"

/* Statuses as the settings name them; borrowed. */
struct statement_statuses {
    const char *ready;
    const char *failed;
    char *const *awaiting;
    size_t awaiting_count;
    bool any_is_awaiting; /* awaiting_statuses = * */
};

/* The jobs of one run and the memory of its parameters, used again from run to run. */
struct batch {
    enum job_step step;
    bool is_lone;      /* JOB_INSERT of a single job, with its update in the same run, as a transaction of its own */
    struct job **jobs; /* sorted by prompt id: replicas that store the same prompts lock in the same order */
    size_t count;
    size_t capacity;
    struct buffer ids;
    struct buffer interview_ids;
    struct buffer prompts;
    struct buffer sources;
    struct buffer held_ids;  /* interviews whose prompts shall be on disk before a look is answered */
    struct job_facts *facts; /* one a job */
};

/* What an answer says about one job. */
struct job_facts {
    bool changed;      /* the step's statement returned the job's row */
    bool inserted;     /* JOB_TRANSACT: its insert did too */
    bool update_ran;   /* JOB_INSERT: the update has run as well */
    bool moved;        /* and returned the interview's row */
    bool prompt_there; /* looks only, as all that follows */
    bool interview_there;
    bool is_ready;
    bool is_failed;
    bool is_awaiting;   /* also failed, where that is among the awaiting statuses */
    const char *status; /* the interview's; borrowed from the answer */
};

struct statements; /* the fixed parameters: statuses */

struct statements *statements_new(const struct statement_statuses *statuses); /* NULL when memory is out */
void statements_free(struct statements *statements);

bool batch_init(struct batch *batch, size_t capacity);
void batch_free(struct batch *batch);
/* Ready for the next run: no jobs, and no more memory kept than a usual batch needs. */
void batch_reset(struct batch *batch);
void batch_give_back(struct batch *batch); /* the same, and its buffers' memory is freed */

/* Fills `out` for the batch's step. Returns how many statements; 0 when memory is out. */
int statements_build(struct statements *statements, struct batch *batch, struct pg_statement out[PG_STATEMENTS_MAX]);

/* Fills batch->facts from the statements of an answer that are committed; the batch's step is the first of them. false
 * when the answer is not of the expected form. */
bool statements_read(const struct statements *statements, struct batch *batch, const struct pg_answer *answer);

/*
 * Finds prompts with a UUIDv5, older than ten minutes and younger than a day, whose interview is awaiting (failed
 * apart), without those in `known`: rows of prompt id and interview id, at most 20. `parameter` holds the parameters
 * until the answer. false when memory is out.
 */
bool statements_build_find(const struct statements *statements, const uint8_t (*known)[UUID_SIZE], size_t known_count,
                           struct buffer *parameter, struct pg_statement *out);

/* One statement; each row of its answer is a sentence naming a table, column or privilege that is missing. */
void statements_build_check(struct pg_statement *out);

/* Asks for the server process that runs the statement, for pg_session_met_backend. */
void statements_build_meet(struct pg_statement *out);
bool statements_read_meet(const struct pg_answer *answer, int statement, int32_t *pid); /* false: not as expected */

#endif
