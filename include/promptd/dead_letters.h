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

/* What stands later is larger, by `major` and then by `minor`. In the spool `major` is its sequence, and `minor` 0. */
struct dead_id {
    uint64_t major;
    uint64_t minor;
};

/* Texts are borrowed for the callback; NULL where there is nothing to say. */
struct dead_letter {
    struct dead_id id;
    const char *outcome;
    const char *reason;
    const char *sqlstate;
    const char *error;
    const char *interview_id;
    const char *prompt_id;
    const char *arrived; /* wall clock, as clock_format_wall writes it */
    const char *died;    /* the same */
    bool has_message;    /* false: it was too large, and was not read */
    uint64_t size;       /* bytes of the message */
};

/* Returns false to end the reading without an error. */
typedef bool dead_letter_take(void *context, const struct dead_letter *letter);

/* `ids`, ascending, each once; or, where that is NULL, all letters up to `last`. */
struct dead_choice {
    const struct dead_id *ids;
    size_t count;
    struct dead_id last;
};

struct dead_result {
    size_t changed;         /* for certain, also after a failure half-way */
    size_t without_message; /* of a replay of all: they stay, for nothing of them could be put back */
};

struct dead_letters;

/* Opens the spool of `directory`. NULL with ERROR_SPOOL: no spool there, not ours to open, damaged, or foreign. */
struct dead_letters *dead_letters_open(const char *directory, struct error *error);
void dead_letters_close(struct dead_letters *letters);

/* Calls `take` for each, oldest first, or for `only` that one unless it is NULL. false with ERROR_SPOOL when the
 * database cannot be read. */
bool dead_letters_read(struct dead_letters *letters, const struct dead_id *only, dead_letter_take *take, void *context,
                       struct error *error);

/* The message as it arrived, borrowed until the next call. false with ERROR_SPOOL when it is missing or damaged. */
bool dead_letters_payload(struct dead_letters *letters, const struct dead_id *id, const char **bytes, size_t *length,
                          struct error *error);

/* How many there are, and the highest id that was ever given. */
bool dead_letters_count(struct dead_letters *letters, uint64_t *count, struct dead_id *last, struct error *error);

/* Drops them for good, payload and all. One that is gone meanwhile is left out. false with ERROR_SPOOL. */
bool dead_letters_drop(struct dead_letters *letters, const struct dead_choice *choice, struct dead_result *result,
                       struct error *error);

/* The same, but they wait again, as if they had just come. One that has no message is left out. It ends with an error
 * when `waiting_max_bytes` are waiting, or new messages would find no room. */
bool dead_letters_replay(struct dead_letters *letters, const struct dead_choice *choice, uint64_t waiting_max_bytes,
                         struct dead_result *result, struct error *error);

#endif
