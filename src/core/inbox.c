/* SPDX-License-Identifier: MIT */
/*
 * A queue of ready jobs, and a hash table of the interviews that have one.
 *
 *     ready:      A1 ─▶ B1 ─▶ C1            (taken from the left)
 *     interviews: A: A1, waiting: A2 ─▶ A3     the head is ready or in work, the rest wait for it
 *                 B: B1
 *                 C: C1 ─▶ C2
 */
#include "inbox_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* uthash lets a chain grow to ten before it makes more of them, and with thousands of interviews each entry of a chain
 * is a miss of the cache. Much shorter, and it makes millions of chains for the sake of a few collisions. */
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 6U

/* Handed to uthash ready-made: its HASH_FUNCTION knows no inbox, and so no key. */
static unsigned hash_of(const struct inbox *inbox, const uint8_t id[UUID_SIZE])
{
    return (unsigned)siphash(inbox->key, id, UUID_SIZE);
}

/* NOLINTBEGIN(readability-function-size,clang-analyzer-*): the macros of uthash are long, and the analyzer takes them
 * to break the table's lists */
static struct interview *interview_find(const struct inbox *inbox, const uint8_t id[UUID_SIZE], unsigned hash)
{
    struct interview *interview;
    HASH_FIND_BYHASHVALUE(hh, inbox->interviews, id, UUID_SIZE, hash, interview);
    return interview;
}

static struct interview *interview_add(struct inbox *inbox, const uint8_t id[UUID_SIZE], unsigned hash)
{
    struct interview *interview = calloc(1, sizeof *interview);
    if (!interview)
        return NULL;
    memcpy(interview->id, id, UUID_SIZE);
    TAILQ_INIT(&interview->waiting);
    HASH_ADD_BYHASHVALUE(hh, inbox->interviews, id, UUID_SIZE, hash, interview);
    if (interview->hh.tbl)
        return interview;
    free(interview);
    return NULL;
}

static void interview_remove(struct inbox *inbox, struct interview *interview)
{
    HASH_DEL(inbox->interviews, interview);
    free(interview);
}

static void interviews_free(struct inbox *inbox)
{
    while (inbox->interviews)
        interview_remove(inbox, inbox->interviews);
}
/* NOLINTEND(readability-function-size,clang-analyzer-*) */

struct inbox *inbox_new(const struct inbox_limits *limits)
{
    struct inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox)
        return NULL;
    if (getentropy(inbox->key, sizeof inbox->key) != 0) {
        free(inbox);
        return NULL;
    }
    inbox->limits = *limits;
    TAILQ_INIT(&inbox->ready);
    return inbox;
}

static void free_evicted(void *context, struct job *job)
{
    (void)context;
    job_free(job);
}

void inbox_free(struct inbox *inbox)
{
    if (!inbox)
        return;
    inbox_evict(inbox, free_evicted, NULL);
    interviews_free(inbox); /* those with a job in work */
    free(inbox);
}

void inbox_set_limits(struct inbox *inbox, const struct inbox_limits *limits)
{
    inbox->limits = *limits;
}

/* A message that is alone always has it: what it takes besides its prompt may be more than is allowed. */
static bool has_room(const struct inbox *inbox, const struct job *job)
{
    size_t max_bytes = inbox->limits.max_bytes;
    return job->kind != JOB_MESSAGE || inbox->messages == 0 ||
           (inbox->messages < inbox->limits.max_messages && job->held_bytes <= max_bytes &&
            inbox->bytes <= max_bytes - job->held_bytes);
}

static void forget(struct inbox *inbox, const struct job *job)
{
    if (job->kind != JOB_MESSAGE)
        return;
    inbox->messages--;
    inbox->bytes -= job->held_bytes;
}

bool inbox_admit(struct inbox *inbox, struct job *job)
{
    if (!has_room(inbox, job))
        return false;
    const uint8_t *id = job->content.interview_id;
    unsigned hash = hash_of(inbox, id);
    struct interview *interview = interview_find(inbox, id, hash);
    if (interview) {
        TAILQ_INSERT_TAIL(&interview->waiting, job, link);
    } else {
        interview = interview_add(inbox, id, hash);
        if (!interview)
            return false;
        interview->head = job;
        TAILQ_INSERT_TAIL(&inbox->ready, job, link);
    }
    job->interview = interview;
    if (job->kind == JOB_MESSAGE) {
        inbox->messages++;
        inbox->bytes += job->held_bytes;
    }
    return true;
}

struct job *inbox_take(struct inbox *inbox)
{
    struct job *job = TAILQ_FIRST(&inbox->ready);
    if (!job)
        return NULL;
    TAILQ_REMOVE(&inbox->ready, job, link);
    return job;
}

void inbox_finish(struct inbox *inbox, struct job *job)
{
    struct interview *interview = job->interview;
    forget(inbox, job);
    struct job *next = TAILQ_FIRST(&interview->waiting);
    if (!next) {
        interview_remove(inbox, interview);
        return;
    }
    TAILQ_REMOVE(&interview->waiting, next, link);
    interview->head = next;
    TAILQ_INSERT_TAIL(&inbox->ready, next, link);
}

void inbox_evict(struct inbox *inbox, inbox_evicted evicted, void *context)
{
    for (struct job *job = inbox_take(inbox); job; job = inbox_take(inbox)) {
        inbox_finish(inbox, job);
        evicted(context, job);
    }
    /* What is left waits behind a job in work. */
    for (struct interview *interview = inbox->interviews; interview; interview = interview->hh.next) {
        struct job *job;
        while ((job = TAILQ_FIRST(&interview->waiting))) {
            TAILQ_REMOVE(&interview->waiting, job, link);
            forget(inbox, job);
            evicted(context, job);
        }
    }
}

static bool is_done_by(const struct job *job, const struct job *other)
{
    return other->kind == JOB_MESSAGE || memcmp(other->prompt_id, job->prompt_id, UUID_SIZE) == 0;
}

bool inbox_has_same(const struct inbox *inbox, const struct job *job)
{
    const uint8_t *id = job->content.interview_id;
    const struct interview *interview = interview_find(inbox, id, hash_of(inbox, id));
    if (!interview || is_done_by(job, interview->head))
        return interview != NULL;
    const struct job *other = TAILQ_FIRST(&interview->waiting);
    while (other && !is_done_by(job, other))
        other = TAILQ_NEXT(other, link);
    return other != NULL;
}

size_t inbox_messages(const struct inbox *inbox)
{
    return inbox->messages;
}

size_t inbox_bytes(const struct inbox *inbox)
{
    return inbox->bytes;
}
