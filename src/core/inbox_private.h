/* SPDX-License-Identifier: MIT */
/* What the inbox is made of; for inbox.c, and for its test, which looks at how the ids spread over the table. */
#ifndef PROMPTD_INBOX_PRIVATE_H
#define PROMPTD_INBOX_PRIVATE_H

/* Out of memory, uthash shall leave the table as it was instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "promptd/inbox.h"
#include "promptd/siphash.h"

/* One interview with at least one job. It stands apart from its jobs: to hand the place in the table from one job to
 * the next could fail for want of memory, and what is finished must go. */
struct interview {
    uint8_t id[UUID_SIZE];
    struct job *head;         /* ready or in work */
    struct job_queue waiting; /* for the head's outcome */
    UT_hash_handle hh;
};

struct inbox {
    struct inbox_limits limits;
    size_t messages;
    size_t bytes;
    struct job_queue ready;
    struct interview *interviews;  /* uthash: the first of them, or NULL */
    uint8_t key[SIPHASH_KEY_SIZE]; /* ids come from outside: nobody may choose which of them collide */
};

#endif
