/* SPDX-License-Identifier: MIT */
/*
 * The spool: messages on disk from before they are worked on until their outcome is final, and dead letters after it.
 *
 *     put ─▶ a row ─▶ finish: gone
 *                └──▶ set_dead: a dead letter, for people
 *
 * One SQLite database in a folder of its own (WAL, synchronous = FULL), written by one thread. Calls only queue work;
 * what has come while one commit was under way goes in the next (group commit). Callbacks run on the loop, in the
 * order of the calls, and never inside a call. A callback says that the work is on disk.
 *
 * Which rows are in somebody's memory is not the spool's business: they are numbered in order, so the caller knows by
 * the last number that it has.
 *
 * Only one daemon uses a folder, by a lock on the file spool.lock. promptctl may read and write the database beside a
 * running daemon: each change is one SQLite transaction.
 */
#ifndef PROMPTD_SPOOL_H
#define PROMPTD_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/disposition.h"
#include "promptd/error.h"

struct spool;

enum spool_put_result {
    SPOOL_PUT_OK,    /* on disk */
    SPOOL_PUT_FULL,  /* spool_max_bytes is reached: not taken */
    SPOOL_PUT_FAILED /* the disk refuses: not taken; the spool has logged the change of state, once */
};

/* A message read back. The payload is borrowed for the callback. */
struct spool_entry {
    int64_t sequence;   /* grows with each put, also over restarts; > 0 */
    int64_t arrived_ms; /* wall clock */
    const char *payload;
    size_t length;
    bool redelivered; /* not put by this process, but by an earlier one, or by promptctl dead replay */
};

enum { SPOOL_LETTER_BYTES = 256 }; /* what a dead letter counts besides its payload, or tiny ones would fill the disk */

/* Bytes of payloads. */
struct spool_limits {
    uint64_t waiting_bytes; /* a message beyond it is not taken */
    uint64_t dead_bytes; /* with SPOOL_LETTER_BYTES each; beyond it letters that were "rejected" are dropped, the oldest
                          * first; where there is none the new one is not kept, with an ERROR line */
};

struct spool_options {
    uv_loop_t *loop;
    const char *directory; /* must exist or be creatable (mode 0700); copied */
    struct spool_limits limits;
    void (*on_put)(void *context, void *token, enum spool_put_result result, int64_t sequence);
    /* Entries in order of their sequence. `end`: no further row was there. */
    void (*on_fetched)(void *context, const struct spool_entry *entries, size_t count, bool end);
    /* So many rows were added from outside (promptctl dead replay): worth a fetch. Noticed within a second, and
     * reported before a fetch or a put brings them, or what is behind them. */
    void (*on_grown)(void *context, uint64_t added);
    void *context;
};

struct spool_counts {
    uint64_t waiting; /* rows that are not dead, including puts under way */
    uint64_t waiting_bytes;
    uint64_t dead;
    uint64_t dead_bytes;
    uint64_t rejected_dropped; /* letters that made room for others, since the start */
    uint64_t not_kept;         /* new letters without room, since the start */
    int64_t last_sequence;     /* the highest given so far; 0 where there is none */
    bool writable;             /* false from a failed write to the next good one */
    bool in_place; /* false while the folder or the file is gone: its rows are of no use to the next start */
};

/*
 * Opens or creates, blocking; before the loop runs. A file of promptd 0.1 is converted. A damaged or foreign file is
 * set aside under another name in the same folder with a CRITICAL line, what can be read of it is taken over, and a new
 * one is begun; a truncated tail is no damage beyond what it held. NULL with ERROR_SPOOL when the folder cannot be
 * used, another daemon holds it, or the file is of a later promptd.
 */
struct spool *spool_open(const struct spool_options *options, struct error *error);

/* Stores a payload; it is borrowed until on_put(token). false: out of memory, and nothing is called back. */
bool spool_put(struct spool *spool, const char *payload, size_t length, void *token);

/* Reads up to max_messages rows (at least one, if any, however large; else up to max_bytes) with sequence > after. One
 * fetch at a time. Nothing is written for it: it works while the disk refuses. */
void spool_fetch(struct spool *spool, int64_t after, size_t max_messages, size_t max_bytes);

/* The outcome is final. Nothing is called back; a write that fails is tried again. Should the process die before it is
 * on disk, the message is taken up again, and ends as a duplicate. */
void spool_finish(struct spool *spool, int64_t sequence);
void spool_set_dead(struct spool *spool, int64_t sequence, const struct disposition *disposition);

/* A dead letter of a message that was too large and not read: there is no message in it. Where 65,536 are on their way
 * already, as while the disk refuses, it is not kept, and counted. */
void spool_add_dead(struct spool *spool, const struct disposition *disposition);

void spool_set_limits(struct spool *spool, const struct spool_limits *limits);
struct spool_counts spool_counts(const struct spool *spool);

/* Writes what is queued, closes the database and calls on_closed, with a context of its own; the spool is gone. Queued
 * puts are called back; a fetch that has not begun is dropped. No other call may follow. */
void spool_close(struct spool *spool, void (*on_closed)(void *context), void *context);

#endif
