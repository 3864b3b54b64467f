/* SPDX-License-Identifier: MIT */
/*
 * A list on standard output: for people lines in columns, with a heading where standard output is a terminal and not
 * elsewhere, so that each line begins with an id; with --json one array of objects. Rows are written in blocks, so a
 * list of any length takes little memory.
 */
#ifndef PROMPTCTL_LIST_H
#define PROMPTCTL_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/buffer.h"
#include "promptd/commands.h"

enum { LIST_COLUMNS_MAX = 8, LIST_BLOCK_ROWS = 500 };

struct list {
    const char *const *headings; /* ends with NULL */
    size_t columns;
    size_t widths[LIST_COLUMNS_MAX]; /* characters; they only grow */
    struct buffer cells;             /* each with a NUL */
    size_t cell_count;
    size_t rows; /* in all */
    bool heading;
    bool json;
    bool bold;
};

void list_begin(struct list *list, const struct ctl *ctl, const char *const *headings);

/* The row's cells in their order, or with list->json its object. A NULL text is "-". Control characters are escaped. */
void list_cell(struct list *list, const char *text);
void list_object(struct list *list, struct buffer *object);

void list_end(struct list *list);

#endif
