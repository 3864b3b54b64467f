/* SPDX-License-Identifier: MIT */
/* The decisions of the store, without its traffic: what the answer to a step means for a job. Pure, but for memory. */
#ifndef PROMPTD_STORE_STEPS_H
#define PROMPTD_STORE_STEPS_H

#include "promptd/job.h"
#include "promptd/statements.h"

enum step_verdict {
    STEP_ON,   /* job->step is the next one */
    STEP_DONE, /* job->outcome is final */
    STEP_AGAIN /* nothing changed although it should have: an error of its own, job->step is to be done again */
};

/* The statement of job->step succeeded and said `facts`. With STEP_AGAIN, *why says what was missing. */
enum step_verdict step_succeeded(struct job *job, const struct job_facts *facts, struct job_failure *why);

/*
 * The statement of job->step, sent for this job alone, failed for good; failed_statement as in struct pg_answer.
 * STEP_ON or STEP_DONE. When it returns with job->outcome OUTCOME_ORPHANED for the first time, *orphaned is set.
 */
enum step_verdict step_failed(struct job *job, const struct job_failure *failure, int failed_statement, bool *orphaned);

/* Where a job begins. */
enum job_step step_first(const struct job *job, bool in_transaction);

#endif
