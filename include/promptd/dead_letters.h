/* SPDX-License-Identifier: MIT */
/*
 * Dead letters as promptctl sees them: listed, read, replayed and dropped in the spool's database, beside a running
 * daemon or without one. Blocking.
 *
 * Changes are made in short transactions with a pause between them, so a daemon never waits long; it notices them
 * within a second. A file that the daemon has replaced meanwhile is not changed any more. A replay gives the message a
 * new sequence, behind all that waits, for that is how the daemon finds it. No transaction is open while the caller
 * does something with what was read: SQLite's log would grow for as long.
 */
#ifndef PROMPTD_DEAD_LETTERS_H
#define PROMPTD_DEAD_LETTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/error.h"
#include "promptd/text.h"

struct dead_letters;

/* Texts are borrowed for the callback; NULL where there is nothing to say. */
struct dead_letter {
    int64_t id;         /* its sequence in the spool */
    int64_t size;       /* bytes of its payload */
    bool has_message;   /* false: it was too large, and was not read */
    int64_t arrived_ms; /* wall clock */
    int64_t died_ms;    /* wall clock */
    const char *outcome;
    const char *reason;
    const char *sqlstate;
    const char *error;
    bool has_interview_id;
    uint8_t interview_id[UUID_SIZE];
    bool has_prompt_id;
    uint8_t prompt_id[UUID_SIZE];
};

struct dead_letters_change {
    bool replay;                /* they wait again, as if they had just come; else they are gone, payload and all */
    uint64_t waiting_max_bytes; /* replay: it ends when so much is waiting, or new messages would find no room */
};

/* `ids`, ascending, each once; or, where that is NULL, all letters up to `last`. */
struct dead_letters_choice {
    const int64_t *ids;
    size_t count;
    int64_t last;
};

struct dead_letters_result {
    size_t changed;         /* on disk, also after a failure half-way */
    size_t without_message; /* of a replay of all: they stay */
};

/* Opens the spool of `directory`. NULL with ERROR_SPOOL: no spool there, not ours to open, damaged, or foreign. */
struct dead_letters *dead_letters_open(const char *directory, struct error *error);
void dead_letters_close(struct dead_letters *letters);

/* Calls `take` for each, oldest first, or for the one with `id` unless that is 0. `take` returns false to end the
 * reading without an error. false with ERROR_SPOOL when the database cannot be read. */
typedef bool dead_letters_take(void *context, const struct dead_letter *letter);
bool dead_letters_read(struct dead_letters *letters, int64_t id, dead_letters_take *take, void *context,
                       struct error *error);

/* The message as it arrived, borrowed until the next call. false with ERROR_SPOOL when it is missing or damaged. */
bool dead_letters_payload(struct dead_letters *letters, int64_t id, const char **bytes, size_t *length,
                          struct error *error);

/* How many there are, and the highest id that was ever given. */
bool dead_letters_count(struct dead_letters *letters, uint64_t *count, int64_t *last, struct error *error);

/* One that is gone meanwhile, or cannot be replayed, is left out. false with ERROR_SPOOL. */
bool dead_letters_change(struct dead_letters *letters, const struct dead_letters_change *change,
                         const struct dead_letters_choice *choice, struct dead_letters_result *done,
                         struct error *error);

#endif
