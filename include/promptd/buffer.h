/* SPDX-License-Identifier: MIT */
/* The one growable byte buffer. A failed allocation is remembered, so that callers check once, at the end. */
#ifndef PROMPTD_BUFFER_H
#define PROMPTD_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialised is empty and valid. `data` is owned by the buffer. */
struct buffer {
    char *data;
    size_t length;   /* bytes in use */
    size_t capacity; /* bytes allocated */
    bool failed;     /* an allocation failed; what was appended since then is missing */
};

void buffer_append(struct buffer *buffer, const void *bytes, size_t length);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_append_char(struct buffer *buffer, char c);
void buffer_append_number(struct buffer *buffer, int64_t number); /* in decimal */
void buffer_append_u32(struct buffer *buffer, uint32_t value);    /* big-endian, as PostgreSQL's wire has it */
void buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room for at least `length` more bytes; false when out of memory. */
bool buffer_reserve(struct buffer *buffer, size_t length);

/* Empties it. Memory above `keep` bytes is given back. */
void buffer_reset(struct buffer *buffer, size_t keep);
void buffer_free(struct buffer *buffer);

#endif
