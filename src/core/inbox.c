/* SPDX-License-Identifier: MIT */
/*
 * A queue of ready jobs, and a hash table of the interviews that have one.
 *
 *     ready:      A1 ─▶ B1 ─▶ C1            (taken from the left)
 *     interviews: A: A1 ─behind─▶ A2 ─▶ A3     the head is ready or in work, the rest wait for it
 *                 B: B1
 *                 C: C1 ─▶ C2
 */
#include "promptd/inbox.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { INBOX_FIRST_SLOTS = 64 };

/* One interview with at least one job. A slot without a head is free. */
struct interview {
    struct job *head; /* ready or in work */
    struct job *tail;
};

struct inbox {
    struct inbox_limits limits;
    size_t messages;
    size_t bytes;
    struct job_queue ready;
    struct interview *slots; /* open addressing, linear probing, at most half full */
    size_t slot_count;       /* a power of two */
    size_t used;
    uint64_t seed; /* ids come from outside: nobody may choose which of them collide */
};

static size_t slot_of(const struct inbox *inbox, const uint8_t id[UUID_SIZE])
{
    uint64_t high;
    uint64_t low;
    memcpy(&high, id, sizeof high);
    memcpy(&low, id + sizeof high, sizeof low);
    /* The finaliser of SplitMix64, over both halves. */
    uint64_t hash = (high ^ inbox->seed) * 0xbf58476d1ce4e5b9U;
    hash = (hash ^ (hash >> 30) ^ low) * 0x94d049bb133111ebU;
    hash ^= hash >> 31;
    return (size_t)hash & (inbox->slot_count - 1);
}

/* The interview's slot, or the free one where it belongs. */
static struct interview *interview_find(const struct inbox *inbox, const uint8_t id[UUID_SIZE])
{
    size_t i = slot_of(inbox, id);
    while (inbox->slots[i].head && memcmp(inbox->slots[i].head->content.interview_id, id, UUID_SIZE) != 0)
        i = (i + 1) & (inbox->slot_count - 1);
    return &inbox->slots[i];
}

static bool slots_grow(struct inbox *inbox)
{
    struct interview *old = inbox->slots;
    size_t old_count = inbox->slot_count;
    struct interview *slots = calloc(old_count * 2, sizeof *slots);
    if (!slots)
        return false;
    inbox->slots = slots;
    inbox->slot_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++)
        if (old[i].head)
            *interview_find(inbox, old[i].head->content.interview_id) = old[i];
    free(old);
    return true;
}

/* Frees the slot and closes the gap, so that linear probing finds what stands behind it. */
static void interview_remove(struct inbox *inbox, struct interview *interview)
{
    size_t mask = inbox->slot_count - 1;
    size_t gap = (size_t)(interview - inbox->slots);
    inbox->slots[gap] = (struct interview){0};
    inbox->used--;
    for (size_t i = (gap + 1) & mask; inbox->slots[i].head; i = (i + 1) & mask) {
        size_t home = slot_of(inbox, inbox->slots[i].head->content.interview_id);
        if (((i - home) & mask) < ((i - gap) & mask))
            continue;
        inbox->slots[gap] = inbox->slots[i];
        inbox->slots[i] = (struct interview){0};
        gap = i;
    }
}

struct inbox *inbox_new(const struct inbox_limits *limits)
{
    struct inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox)
        return NULL;
    inbox->slots = calloc(INBOX_FIRST_SLOTS, sizeof *inbox->slots);
    if (!inbox->slots) {
        free(inbox);
        return NULL;
    }
    inbox->slot_count = INBOX_FIRST_SLOTS;
    inbox->limits = *limits;
    TAILQ_INIT(&inbox->ready);
    if (getrandom(&inbox->seed, sizeof inbox->seed, GRND_NONBLOCK) != (ssize_t)sizeof inbox->seed)
        inbox->seed = (uint64_t)(uintptr_t)inbox; /* before the kernel's pool is ready: the address must do */
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
    free(inbox->slots);
    free(inbox);
}

void inbox_set_limits(struct inbox *inbox, const struct inbox_limits *limits)
{
    inbox->limits = *limits;
}

bool inbox_admit(struct inbox *inbox, struct job *job)
{
    size_t size = job_size(job);
    if (inbox->messages >= inbox->limits.max_messages || size > inbox->limits.max_bytes ||
        inbox->bytes > inbox->limits.max_bytes - size)
        return false;
    if (inbox->used * 2 >= inbox->slot_count && !slots_grow(inbox))
        return false;
    struct interview *interview = interview_find(inbox, job->content.interview_id);
    job->behind = NULL;
    if (interview->head) {
        interview->tail->behind = job;
    } else {
        interview->head = job;
        inbox->used++;
        TAILQ_INSERT_TAIL(&inbox->ready, job, link);
    }
    interview->tail = job;
    inbox->messages++;
    inbox->bytes += size;
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
    struct interview *interview = interview_find(inbox, job->content.interview_id);
    inbox->messages--;
    inbox->bytes -= job_size(job);
    struct job *next = job->behind;
    job->behind = NULL;
    if (!next) {
        interview_remove(inbox, interview);
        return;
    }
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
    for (size_t i = 0; i < inbox->slot_count; i++) {
        struct interview *interview = &inbox->slots[i];
        while (interview->head && interview->head->behind) {
            struct job *job = interview->head->behind;
            interview->head->behind = job->behind;
            job->behind = NULL;
            inbox->messages--;
            inbox->bytes -= job_size(job);
            evicted(context, job);
        }
        interview->tail = interview->head;
    }
}

bool inbox_has_ready(const struct inbox *inbox)
{
    return !TAILQ_EMPTY(&inbox->ready);
}

size_t inbox_messages(const struct inbox *inbox)
{
    return inbox->messages;
}

size_t inbox_bytes(const struct inbox *inbox)
{
    return inbox->bytes;
}
