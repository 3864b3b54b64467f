/* SPDX-License-Identifier: MIT */
/*
 * The messages that were taken from Redis and are not forgotten there yet.
 *
 *     HELD ──outcome──▶ DONE ──sent──▶ ACKING ──answered──▶ freed
 *                        ▲ ▲              │ └─ refused ─▶ REFUSED ─┐
 *                        │ └ connection lost                       │
 *                        └─────────────── a moment later ──────────┘
 *
 * No function calls back. What is returned is owned by the entries until queue_entry_free.
 */
#ifndef PROMPTD_QUEUE_ENTRIES_H
#define PROMPTD_QUEUE_ENTRIES_H

#include <sys/queue.h>

#include "promptd/source.h"
#include "queue_command.h"

enum { QUEUE_ID_SIZE = 48 };

enum queue_entry_state {
    QUEUE_ENTRY_HELD,    /* delivered; leaves when its receipt comes back */
    QUEUE_ENTRY_DONE,    /* has its outcome; leaves when Redis is told, or has forgotten it */
    QUEUE_ENTRY_ACKING,  /* Redis is told; leaves with the answer, or when the connection is lost */
    QUEUE_ENTRY_REFUSED, /* Redis would not; leaves a moment later, to be told again */
    QUEUE_ENTRY_STATES
};

struct queue_entry {
    struct receipt receipt; /* first: the receipt is this */
    TAILQ_ENTRY(queue_entry) link;
    enum queue_entry_state state;
    bool is_seen;      /* at the last verification Redis had it for us */
    bool is_foreign;   /* it had not: another has taken it over */
    bool is_skipped;   /* too large: `length` bytes were not read */
    bool is_dead;      /* it becomes a dead letter, with the words below */
    bool ends_command; /* the command that makes Redis forget it is for none behind it */
    char *words; /* outcome, reason, sqlstate, error, interview_id, prompt_id, at: each with its NUL, "" for none */
    char id[QUEUE_ID_SIZE]; /* a stream's */
    size_t length;
    char payload[]; /* not NUL-terminated */
};

TAILQ_HEAD(queue_entry_list, queue_entry);

struct queue_entries {
    struct queue_entry_list lists[QUEUE_ENTRY_STATES]; /* each in the order in which they came there */
    size_t count;
    size_t bytes;
    int64_t last_number;
};

/* A message as a kind has found it; borrowed. */
struct queue_item {
    const char *id;    /* "": the kind has none */
    const char *bytes; /* NULL: it was skipped */
    size_t length;
};

void queue_entries_init(struct queue_entries *entries);
void queue_entries_free(struct queue_entries *entries); /* all of them */
struct queue_entry *queue_entries_first(const struct queue_entries *entries, enum queue_entry_state state);

/* All of them, one after the other: that behind `entry` (NULL: the first), NULL where there is none. */
struct queue_entry *queue_entries_next(const struct queue_entries *entries, const struct queue_entry *entry);

bool queue_entries_has(struct queue_entries *entries, const struct queue_item *item); /* by its id */
size_t queue_entries_longest(const struct queue_entries *entries);                    /* bytes of the longest payload */

/* A copy, held. NULL when out of memory. */
struct queue_entry *queue_entry_new(struct queue_entries *entries, const struct queue_item *item);
void queue_entry_free(struct queue_entries *entries, struct queue_entry *entry);

/* The only mover: to the end of that list. */
void queue_entry_move(struct queue_entries *entries, struct queue_entry *entry, enum queue_entry_state state);

/* What was told, or refused, is to be told again: so many of them. */
void queue_entries_redo(struct queue_entries *entries, enum queue_entry_state from, size_t most);

/* A verification: after `begin` each message that Redis has for us is compared (false: it is not known here), and `end`
 * draws the consequences: what is done, and Redis does not have, is freed. */
void queue_entries_begin_verifying(struct queue_entries *entries);
bool queue_entries_compare(struct queue_entries *entries, const struct queue_item *item);
void queue_entries_end_verifying(struct queue_entries *entries);

/* It becomes a dead letter. false when out of memory. */
bool queue_entry_set_dead(struct queue_entry *entry, const struct disposition *disposition);

/* The fields of its dead letter, and their values, "" where there is nothing to say; no message where none was read. */
void queue_entry_add_letter(const struct queue_entry *entry, struct queue_command *command);

#endif
