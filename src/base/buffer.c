/* SPDX-License-Identifier: MIT */
/* A growable byte buffer: doubling capacity, errors remembered. */
#include "promptd/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_FIRST_CAPACITY = 256 };

bool buffer_reserve(struct buffer *buffer, size_t length)
{
    if (buffer->failed)
        return false;
    if (buffer->capacity - buffer->length >= length)
        return true;
    if (length > SIZE_MAX / 4 || buffer->length > SIZE_MAX / 4) {
        buffer->failed = true;
        return false;
    }
    size_t capacity = buffer->capacity ? buffer->capacity : BUFFER_FIRST_CAPACITY;
    while (capacity - buffer->length < length)
        capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t length)
{
    if (length == 0 || !buffer_reserve(buffer, length))
        return;
    memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_char(struct buffer *buffer, char c)
{
    buffer_append(buffer, &c, 1);
}

void buffer_append_u32(struct buffer *buffer, uint32_t value)
{
    const unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                    (unsigned char)(value >> 8), (unsigned char)value};
    buffer_append(buffer, bytes, sizeof bytes);
}

void buffer_append_number(struct buffer *buffer, int64_t number)
{
    char digits[sizeof "-9223372036854775808"];
    char *at = digits + sizeof digits;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *--at = '-';
    buffer_append(buffer, at, (size_t)(digits + sizeof digits - at));
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    size_t room = buffer->capacity - buffer->length;
    int length = vsnprintf(room ? buffer->data + buffer->length : NULL, room, format, args);
    va_end(args);
    if (length < 0)
        buffer->failed = true;
    bool fits = length >= 0 && (size_t)length < room && !buffer->failed;
    if (!fits && !buffer->failed && buffer_reserve(buffer, (size_t)length + 1)) {
        (void)vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, again);
        fits = true;
    }
    if (fits)
        buffer->length += (size_t)length;
    va_end(again);
}

void buffer_reset(struct buffer *buffer, size_t keep)
{
    if (buffer->capacity > keep) {
        buffer_free(buffer);
        return;
    }
    buffer->length = 0;
    buffer->failed = false;
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}
