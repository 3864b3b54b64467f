/* SPDX-License-Identifier: MIT */
/*
 * The inbox: jobs in order of arrival, bounded, one at a time per interview.
 *
 * A job is *ready* when no earlier job of its interview is without an outcome; else it waits behind that one. So the
 * store may work on any number of ready jobs, in any order and on any connection, and the jobs of one interview still
 * end in the order in which they arrived.
 */
#ifndef PROMPTD_INBOX_H
#define PROMPTD_INBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/job.h"

struct inbox;

/* Both count every message that was admitted and not finished, also those in work. Jobs that are no messages need no
 * room: whoever makes them bounds their number. */
struct inbox_limits {
    size_t max_messages;
    size_t max_bytes; /* held_bytes of each */
};

struct inbox *inbox_new(const struct inbox_limits *limits); /* NULL, and errno: no memory, or no random numbers */
void inbox_free(struct inbox *inbox);                       /* frees the jobs that were never taken too */
void inbox_set_limits(struct inbox *inbox, const struct inbox_limits *limits);

/* Takes the job over. false: a bound is reached or out of memory, the job stays with the caller. */
bool inbox_admit(struct inbox *inbox, struct job *job);

/* The oldest ready job, or NULL. It counts as in work, and stays known to the inbox, until inbox_finish. */
struct job *inbox_take(struct inbox *inbox);

/* The job has its outcome: it counts no longer, and the next one of its interview becomes ready. Does not free it. */
void inbox_finish(struct inbox *inbox, struct job *job);

/* Finishes every job that is not in work and hands it to the caller, each interview's in order. */
typedef void (*inbox_evicted)(void *context, struct job *job);
void inbox_evict(struct inbox *inbox, inbox_evicted evicted, void *context);

/* For a job that is no message: is there a message of its interview, which sees to it, or another job of its prompt;
 * ready, waiting or in work? */
bool inbox_has_same(const struct inbox *inbox, const struct job *job);

size_t inbox_messages(const struct inbox *inbox); /* as the limits count */
size_t inbox_bytes(const struct inbox *inbox);

#endif
