/* SPDX-License-Identifier: MIT */
/*
 * Where dead letters are kept, for promptctl dead: the spool, or Redis. The commands (dead.c) know only this.
 */
#ifndef PROMPTCTL_DEAD_STORE_H
#define PROMPTCTL_DEAD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/commands.h"
#include "promptd/error.h"

/* What stands later in the store is larger, by `major` and then by `minor`. */
struct dead_id {
    uint64_t major;
    uint64_t minor;
};

enum { DEAD_ID_SIZE = 48 };

/* Texts are borrowed for the callback; NULL where there is nothing to say. */
struct dead_entry {
    struct dead_id id;
    const char *outcome;
    const char *reason;
    const char *sqlstate;
    const char *error;
    const char *interview_id;
    const char *prompt_id;
    const char *arrived;
    const char *died;
    bool has_message; /* false: it was too large, and was not read */
    uint64_t size;    /* bytes of the message */
};

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

struct dead_store {
    const struct dead_ops *ops;
};

/* Returns false to end the reading without an error. */
typedef bool dead_store_take(void *context, const struct dead_entry *entry);

struct dead_ops {
    bool ids_are_numbers; /* in --json */
    bool (*parse_id)(const char *text, struct dead_id *id);
    void (*format_id)(const struct dead_id *id, char text[DEAD_ID_SIZE]);

    /* NULL with *error. What it returns begins with a struct dead_store. */
    struct dead_store *(*open)(const struct ctl *ctl, struct error *error);
    void (*close)(struct dead_store *store);

    /* Each, oldest first, or with `only` that one. Nothing is locked while `take` runs. */
    bool (*read)(struct dead_store *store, const struct dead_id *only, dead_store_take *take, void *context,
                 struct error *error);

    /* The message as it arrived, borrowed until the next call. */
    bool (*get_message)(struct dead_store *store, const struct dead_id *id, const char **bytes, size_t *length,
                        struct error *error);

    /* How many there are, and an id that none of them is above. */
    bool (*count)(struct dead_store *store, uint64_t *count, struct dead_id *last, struct error *error);

    /* A replay puts them back at the end of the queue; else they are gone for good. One that is gone meanwhile is left
     * out. */
    bool (*change)(struct dead_store *store, bool replay, const struct dead_choice *choice, struct dead_result *result,
                   struct error *error);
};

extern const struct dead_ops dead_spool;
extern const struct dead_ops dead_redis;

#endif
