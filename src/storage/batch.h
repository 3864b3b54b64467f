/* SPDX-License-Identifier: MIT */
/* What statements.c fills its parameters with; the life of a batch is in promptd/statements.h. */
#ifndef PROMPTD_BATCH_H
#define PROMPTD_BATCH_H

#include "promptd/statements.h"

/* PostgreSQL's binary form of a one-dimensional array without nulls; then its `count` elements. Without memory the
 * buffer has failed. */
void array_begin(struct buffer *buffer, unsigned element_type, size_t count);
void array_add(struct buffer *buffer, const void *bytes, size_t length);
enum { ARRAY_HEADER_BYTES = 6 * sizeof(uint32_t) }; /* what stands before the bytes of the first element */

/* Sorts the jobs by interview, and fills in their ids. */
void batch_fill_ids(struct batch *batch);
/* The prompts in binary form; the sources as text, which the server takes for whatever type the column has. */
void batch_fill_texts(struct batch *batch);
/* The same of a batch of one, whose source is its own text. */
void batch_fill_single_text(struct batch *batch);

#endif
