/* SPDX-License-Identifier: MIT */
/*
 * A job: one message on its way from arrival to outcome, and all that is known of it.
 *
 *     pipeline ──admit──▶ inbox ──take──▶ store ──outcome──▶ pipeline ──finish──▶ freed
 *
 * A job has one owner at a time. The sections below say who writes what; the queue link belongs to the owner.
 */
#ifndef PROMPTD_JOB_H
#define PROMPTD_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "promptd/message.h"
#include "promptd/source.h"
#include "promptd/text.h"

enum job_kind {
    JOB_MESSAGE,
    JOB_RECOVERY, /* no message: a prompt that stands in promptd_unsettled for too long */
    JOB_MARKING   /* no message: an interview that could not be marked failed */
};

/* What ends a message. Each message gets exactly one. */
enum outcome {
    OUTCOME_NONE, /* not yet */
    OUTCOME_STORED,
    OUTCOME_DUPLICATE,
    OUTCOME_NOT_STORED,
    OUTCOME_ROLLED_BACK,
    OUTCOME_ORPHANED,
    OUTCOME_REJECTED,
    OUTCOME_DROPPED,
    OUTCOME_COUNT
};

/* What made an outcome, fit for the log: log lines, events and dead letters have both as they are. */
struct job_failure {
    char sqlstate[6]; /* the database's word for it; "" where it gave none */
    char text[820];   /* 200 characters of at most four bytes, and some room */
};

/* What it is, and what became of it. What only one stage needs while it has the job stands with that stage: the store
 * has a struct of its own around each. */
struct job {
    TAILQ_ENTRY(job) link; /* in the one queue that its owner keeps it in */

    /* set by the pipeline, constant from then on */
    struct message_content content;
    uint8_t prompt_id[UUID_SIZE];
    size_t payload_bytes;
    size_t held_bytes;       /* in memory, as counted against queue_max_bytes */
    int64_t arrived_us;      /* clock_monotonic_us */
    struct receipt *receipt; /* the source keeps the message until it comes back; NULL: it is in memory only */
    bool redelivered;        /* it was taken in before, by an earlier process or by another */
    bool may_have_prompt; /* rejected by today's rules, but perhaps not by those of then: prompt_id was its prompt's */
    enum job_kind kind;

    struct interview *interview; /* its place in the inbox */

    /* what became of it: set by the store, or by the pipeline for what never gets there */
    enum outcome outcome;             /* as it will be, once what the store still does is done */
    bool undone;                      /* our undo has deleted the prompt */
    bool stuck;                       /* the interview could not be marked failed */
    bool is_failed;                   /* the interview is marked failed, by us or from before */
    struct job_failure *failure;      /* owned; what made the outcome, NULL for stored and duplicate */
    struct job_failure *mark_failure; /* owned; what kept the interview from being marked */
};

TAILQ_HEAD(job_queue, job);

/* `size` is that of the struct which begins with the job. Takes the content over (also on failure, when it is freed).
 * NULL when out of memory. */
struct job *job_new(size_t size, struct message_content *content, size_t payload_bytes, int64_t arrived_us);

/* A job that is no message. NULL when out of memory. */
struct job *job_new_recovery(size_t size, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE]);
struct job *job_new_marking(size_t size, const uint8_t interview_id[UUID_SIZE]);

void job_free(struct job *job);

const char *outcome_name(enum outcome outcome); /* "rolled back" */

#endif
