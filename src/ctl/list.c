/* SPDX-License-Identifier: MIT */
/* Columns as wide as what stands in them, or JSON. */
#include "list.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "promptd/text.h"

void list_begin(struct list *list, const struct ctl *ctl, const char *const *headings)
{
    *list = (struct list){
        .headings = headings,
        .json = ctl_has(ctl, CTL_OPTION_JSON),
        .heading = isatty(STDOUT_FILENO) != 0,
        .bold = ctl->colour,
    };
    while (headings[list->columns]) {
        if (list->heading)
            list->widths[list->columns] = strlen(headings[list->columns]);
        list->columns++;
    }
}

/* The last column is not filled up. */
static void append_padded(const struct list *list, size_t column, const char *text, struct buffer *line)
{
    buffer_append_text(line, text);
    if (column + 1 == list->columns) {
        buffer_append_char(line, '\n');
        return;
    }
    for (size_t i = utf8_count(text, strlen(text)); i < list->widths[column] + 2; i++)
        buffer_append_char(line, ' ');
}

static void append_heading(struct list *list, struct buffer *block)
{
    list->heading = false;
    buffer_append_text(block, list->bold ? OUTPUT_BOLD : "");
    for (size_t i = 0; i < list->columns; i++)
        append_padded(list, i, list->headings[i], block);
    buffer_append_text(block, list->bold ? OUTPUT_PLAIN : "");
}

static void flush(struct list *list)
{
    struct buffer block = {.failed = list->cells.failed};
    if (list->heading && list->cell_count > 0)
        append_heading(list, &block);
    const char *cell = list->cells.data;
    for (size_t i = 0; i < list->cell_count && !block.failed; i++) {
        append_padded(list, i % list->columns, cell, &block);
        cell += strlen(cell) + 1;
    }
    output_write(&block);
    buffer_reset(&list->cells, SIZE_MAX);
    list->cell_count = 0;
}

void list_cell(struct list *list, const char *text)
{
    size_t column = list->cell_count % list->columns;
    size_t start = list->cells.length;
    text_append_escaped(&list->cells, text && *text ? text : "-");
    size_t width = list->cells.failed ? 0 : utf8_count(list->cells.data + start, list->cells.length - start);
    buffer_append_char(&list->cells, '\0');
    if (width > list->widths[column])
        list->widths[column] = width;
    list->cell_count++;
    if (column + 1 < list->columns)
        return;
    list->rows++;
    if (list->cell_count >= (size_t)LIST_BLOCK_ROWS * list->columns)
        flush(list);
}

void list_object(struct list *list, struct buffer *object)
{
    (void)fputs(list->rows++ == 0 ? "[\n" : ",\n", stdout);
    output_write(object);
}

void list_end(struct list *list)
{
    if (list->json)
        (void)fputs(list->rows == 0 ? "[]\n" : "\n]\n", stdout);
    else
        flush(list);
    buffer_free(&list->cells);
}
