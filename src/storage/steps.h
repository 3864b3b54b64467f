/* SPDX-License-Identifier: MIT */
/*
 * The steps of a job in the database: one table, and the decisions between its rows. Without traffic, and pure but for
 * memory. No other file has a switch over steps.
 */
#ifndef PROMPTD_STEPS_H
#define PROMPTD_STEPS_H

#include "promptd/job.h"
#include "promptd/statements.h"

enum step_verdict {
    STEP_NEXT,     /* job->step is the next one */
    STEP_FINISHED, /* job->outcome is final */
    STEP_RETRY,    /* something kept the rows as they were: a failure of the job's own; job->step is to be done again */
    STEP_LOCKED    /* somebody else has locked a row: job->step is to be done again, later */
};

struct step {
    const char *name; /* for the log */
    statements_build *build;
    statements_read *read;
    /* The statement succeeded and said `facts`. With STEP_RETRY, *why says what was missing. */
    enum step_verdict (*succeeded)(struct job *job, const struct job_facts *facts, struct pg_error *why);
    /* It failed for good, sent for this job alone; of the statements of a run, the one with this index did. STEP_NEXT
     * or STEP_FINISHED. */
    enum step_verdict (*failed)(struct job *job, const struct pg_error *failure, int statement);
    bool inserts;          /* its answer is the only word on whether the prompt was inserted by us */
    bool settles;          /* and on whether it was settled by us */
    bool leaves_unsettled; /* until it is done a prompt that is there may be unsettled */
};

const struct step *step_of(enum job_step step);

/* The job's first step. */
void step_start(struct job *job, bool in_transaction);

/* The statements of the job's step may have been committed, or not: their answer never came. */
void step_unanswered(struct job *job, bool with_settle);

/* The job is given up as it is: may its prompt be there, and unsettled? */
bool step_may_be_unsettled(const struct job *job);

#endif
