/* SPDX-License-Identifier: MIT */
/* The jobs of a run, and the arrays that their ids and texts travel in. */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

/* --- binary arrays (PostgreSQL's array_recv): header, then length and bytes of each element -------------------- */

void array_begin(struct buffer *buffer, unsigned element_type, size_t count)
{
    buffer_append_u32(buffer, count ? 1 : 0); /* dimensions */
    buffer_append_u32(buffer, 0);             /* no nulls */
    buffer_append_u32(buffer, element_type);
    if (!count)
        return;
    buffer_append_u32(buffer, (uint32_t)count);
    buffer_append_u32(buffer, 1); /* lower bound */
}

void array_add(struct buffer *buffer, const void *bytes, size_t length)
{
    buffer_append_u32(buffer, (uint32_t)length);
    buffer_append(buffer, bytes, length);
}

/* --- batches -------------------------------------------------------------------------------------------------- */

enum { BATCH_KEEP_BYTES = 1024 * 1024 };

bool batch_init(struct batch *batch, size_t capacity)
{
    *batch = (struct batch){.capacity = capacity};
    batch->jobs = calloc(capacity, sizeof(struct job *));
    batch->facts = calloc(capacity, sizeof *batch->facts);
    if (batch->jobs && batch->facts)
        return true;
    batch_free(batch);
    return false;
}

void batch_free(struct batch *batch)
{
    free(batch->jobs);
    free(batch->facts);
    buffer_free(&batch->ids);
    buffer_free(&batch->interview_ids);
    buffer_free(&batch->prompts);
    buffer_free(&batch->sources);
    *batch = (struct batch){0};
}

static void batch_keep(struct batch *batch, size_t bytes)
{
    batch->count = 0;
    buffer_reset(&batch->ids, bytes);
    buffer_reset(&batch->interview_ids, bytes);
    buffer_reset(&batch->prompts, bytes);
    buffer_reset(&batch->sources, bytes);
}

void batch_reset(struct batch *batch)
{
    batch_keep(batch, BATCH_KEEP_BYTES);
}

void batch_trim_memory(struct batch *batch)
{
    batch_keep(batch, 0);
}

static int compare_interview_ids(const void *a, const void *b)
{
    const struct job *const *left = a;
    const struct job *const *right = b;
    return memcmp((*left)->content.interview_id, (*right)->content.interview_id, UUID_SIZE);
}

void batch_fill_ids(struct batch *batch)
{
    qsort(batch->jobs, batch->count, sizeof(struct job *), compare_interview_ids);
    array_begin(&batch->ids, PG_UUID, batch->count);
    array_begin(&batch->interview_ids, PG_UUID, batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        array_add(&batch->ids, batch->jobs[i]->prompt_id, UUID_SIZE);
        array_add(&batch->interview_ids, batch->jobs[i]->content.interview_id, UUID_SIZE);
    }
}

/* An element of an array in text form (PostgreSQL manual, 8.15.6). */
static void append_quoted(struct buffer *buffer, const char *text)
{
    buffer_append_char(buffer, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            buffer_append_char(buffer, '\\');
        buffer_append_char(buffer, *text);
    }
    buffer_append_char(buffer, '"');
}

void batch_fill_texts(struct batch *batch)
{
    array_begin(&batch->prompts, PG_TEXT, batch->count);
    buffer_append_char(&batch->sources, '{');
    for (size_t i = 0; i < batch->count; i++) {
        const struct message_content *content = &batch->jobs[i]->content;
        array_add(&batch->prompts, content->prompt, content->prompt_bytes);
        if (i > 0)
            buffer_append_char(&batch->sources, ',');
        append_quoted(&batch->sources, content->source);
    }
    buffer_append(&batch->sources, "}", sizeof "}");
}

void batch_fill_single_text(struct batch *batch)
{
    const struct message_content *content = &batch->jobs[0]->content;
    array_begin(&batch->prompts, PG_TEXT, 1);
    array_add(&batch->prompts, content->prompt, content->prompt_bytes);
    buffer_append(&batch->sources, content->source, strlen(content->source) + 1);
}
