/* SPDX-License-Identifier: MIT */
/*
 * The steps of a job in the database: one table, and the decisions between its rows. Without traffic, and pure but for
 * memory. No other file has a switch over steps.
 */
#ifndef PROMPTD_STEPS_H
#define PROMPTD_STEPS_H

#include "promptd/job.h"
#include "promptd/statements.h"

/* What is done next for a job. What each is in the database is in statements_sql.c, what comes after it in steps.c. */
enum job_step {
    JOB_INSERT,   /* insert the prompt and its row in promptd_unsettled; where it can be, settle in the same flush */
    JOB_TRANSACT, /* atomicity = transaction: insert the prompt and move the interview in one transaction */
    JOB_SETTLE,   /* move the interview to ready, and take the row out of promptd_unsettled */
    JOB_RECOVER,  /* the same for what was left behind: an interview that is failed waits no longer */
    JOB_UNDO,     /* take the row out of promptd_unsettled, and delete the prompt */
    JOB_MARK,     /* mark the interview failed, if it is awaiting */
    JOB_VERIFY,   /* a step changed nothing: look at prompt, evidence and interview */
    JOB_STEP_COUNT
};

/* A job, and what is known of it in here. Whoever makes a job for the store makes it so large. */
struct task {
    struct job job; /* what stands around it is told by its address: the first */
    enum job_step step;
    enum job_step verifies; /* JOB_VERIFY: the step that changed nothing */
    bool held;              /* that step had all rows that it needed, so that something keeps them as they are */
    bool in_transaction;    /* atomicity = transaction */
    bool inserted;          /* our insert returned the prompt, or its answer never came */
    bool settle_unanswered; /* a settle was sent, and its answer never came */
    unsigned vanished;      /* how often its inserted prompt was gone before it was settled, and no crash explains it */
    unsigned batch_limit;   /* most jobs that may share a statement with it; 0: no limit of its own */
    unsigned attempts;      /* failures of its own in this step */
    unsigned outages;       /* in a row, met by statements with this job in them */
    int64_t locked_since_ms; /* on the loop's clock: when this step first met a lock of somebody else; 0: it has not */
    int64_t due_ms;          /* on the loop's clock: when the next attempt may start */
};

static inline struct task *task_of(struct job *job)
{
    return (struct task *)job;
}

enum step_verdict {
    STEP_NEXT,     /* task->step is the next one */
    STEP_FINISHED, /* its job's outcome is final */
    STEP_RETRY, /* something kept the rows as they were: a failure of the job's own; task->step is to be done again */
    STEP_LOCKED /* somebody else has locked a row: task->step is to be done again, later */
};

struct step {
    const char *name; /* for the log */
    statements_build *build;
    statements_read *read;
    /* The statement succeeded and said `facts`. With STEP_RETRY, *why says what was missing. */
    enum step_verdict (*succeeded)(struct task *task, const struct job_facts *facts, struct pg_error *why);
    /* It failed for good, sent for this job alone; of the statements of a run, the one with this index did. STEP_NEXT
     * or STEP_FINISHED. */
    enum step_verdict (*failed)(struct task *task, const struct pg_error *failure, int statement);
    bool inserts;          /* its answer is the only word on whether the prompt was inserted by us */
    bool settles;          /* and on whether it was settled by us */
    bool leaves_unsettled; /* until it is done a prompt that is there may be unsettled */
};

const struct step *step_of(enum job_step step);

/* The job's first step. */
void step_start(struct task *task, bool in_transaction);

/* The statements of the job's step may have been committed, or not: their answer never came. */
void step_unanswered(struct task *task, bool with_settle);

/* The job is given up as it is: may its prompt be there, and unsettled? */
bool step_may_be_unsettled(const struct task *task);

#endif
