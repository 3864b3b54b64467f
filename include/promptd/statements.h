/* SPDX-License-Identifier: MIT */
/*
 * The SQL: what each step sends for a batch of jobs, and what its answer says about each of them.
 *
 * No statement waits for a lock on an interview or on a row of promptd_unsettled: what somebody else has locked is
 * passed over. A write returns each interview for which it held all rows that it needed, and whether it changed them.
 */
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
    bool settles;      /* an insert: its settle goes in the same flush, as a transaction of its own */
    bool has_evidence; /* there is a table promptd_unsettled; with atomicity = transaction there need not be */
    struct job **jobs; /* sorted by interview id once the statements are built; each interview once */
    size_t count;
    size_t capacity;
    struct buffer ids;
    struct buffer interview_ids;
    struct buffer prompts;
    struct buffer sources;
    struct job_facts *facts; /* one a job */
};

/* What a write did with one job's rows. */
struct write_facts {
    bool held;    /* it had all rows that it needed */
    bool changed; /* and changed them */
};

/* What an answer says about one job. */
struct job_facts {
    struct write_facts write;  /* of the step's own statement */
    struct write_facts settle; /* of the settle that went with an insert */
    bool settle_ran;           /* and is committed */
    bool prompt_there;         /* of a look only, as all that follows */
    bool unsettled;            /* there is a row in promptd_unsettled */
    bool interview_there;
    bool is_ready;
    bool is_failed;
    bool is_awaiting;   /* also failed, where that is among the awaiting statuses */
    const char *status; /* the interview's; borrowed from the answer */
};

struct statements; /* the fixed parameters: statuses */

struct statements *statements_new(const struct statement_statuses *statuses); /* NULL when out of memory */
void statements_free(struct statements *statements);

bool batch_init(struct batch *batch, size_t capacity);
void batch_free(struct batch *batch);
/* Ready for the next run: no jobs, and no more memory kept than a usual batch needs. */
void batch_reset(struct batch *batch);
void batch_trim_memory(struct batch *batch); /* the same, and its buffers' memory is freed */

/* The texts, for promptctl check; the parameters stand at each in statements_sql.c. */
extern const char statements_insert_sql[];
extern const char statements_insert_single_sql[];
extern const char statements_settle_sql[];
extern const char statements_settle_single_sql[];
extern const char statements_undo_sql[];
extern const char statements_mark_sql[];
extern const char statements_transact_insert_sql[];
extern const char statements_transact_move_sql[];
extern const char statements_probe_insert_sql[];

/* Fill `out` for the batch, whose parameters stay in it. Return how many statements; 0 when out of memory. */
typedef int statements_build(const struct statements *statements, struct batch *batch,
                             struct pg_statement out[PG_STATEMENTS_MAX]);
statements_build statements_build_insert;
statements_build statements_build_transact;
statements_build statements_build_settle;
statements_build statements_build_recover;
statements_build statements_build_undo;
statements_build statements_build_mark;
statements_build statements_build_verify;

/* Fill batch->facts from those statements of an answer that are committed. false when the answer is not of the expected
 * form. */
typedef bool statements_read(const struct statements *statements, struct batch *batch, const struct pg_answer *answer);
statements_read statements_read_write; /* one statement that writes; of an insert, its settle too */
statements_read statements_read_verify;

/* Is this the error by which a statement fails when something keeps the interview from being made ready without an
 * error of its own? */
bool statements_is_suppressed(const char *sqlstate, const char *text);

/* And the one by which an insert fails whose row has got another id than the message's? */
bool statements_is_replaced(const char *sqlstate, const char *text);

/* A page of what stands in promptd_unsettled: prompt id, interview id; by prompt id, from the one after `after` on. */
enum { UNSETTLED_PAGE_ROWS = 256 };

/* Those older than `older_than_s`, and of whatever age those whose ids `parameters` holds, an array as batch.h makes
 * it. It gets the others, and keeps them until the answer. false when out of memory. */
bool statements_build_unsettled(int64_t older_than_s, const uint8_t after[UUID_SIZE], struct buffer *parameters,
                                struct pg_statement *out);

/*
 * Does the server work? A statement that changes nothing; or, with `writes`, some that need room on the disk and leave
 * nothing behind, with any source that the table takes. Returns how many. The answer is read by
 * statements_probe_passed.
 */
int statements_build_probe(bool writes, const char *source, struct pg_statement out[PG_STATEMENTS_MAX]);
bool statements_probe_passed(bool writes, const struct pg_answer *answer);

#endif
