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
#include "promptd/dead_letters.h"
#include "promptd/error.h"

enum { DEAD_ID_SIZE = 48 };

struct dead_store {
    const struct dead_ops *ops;
};

struct dead_ops {
    bool ids_are_numbers; /* in --json */
    bool (*parse_id)(const char *text, struct dead_id *id);
    void (*format_id)(const struct dead_id *id, char text[DEAD_ID_SIZE]);

    /* NULL with *error. What it returns begins with a struct dead_store. */
    struct dead_store *(*open)(const struct ctl *ctl, struct error *error);
    void (*close)(struct dead_store *store);

    /* Each, oldest first, or with `only` that one. Nothing is locked while `take` runs. */
    bool (*read)(struct dead_store *store, const struct dead_id *only, dead_letter_take *take, void *context,
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
