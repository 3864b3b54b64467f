/* SPDX-License-Identifier: MIT */
/* JSON, a value at a time. */
#include "promptd/json.h"

#include <inttypes.h>

#include "promptd/clock.h"

/* A comma, unless this is the first value of an object or array, or of all. */
static void begin(struct buffer *buffer, const char *key)
{
    const char *last = buffer->length > 0 ? &buffer->data[buffer->length - 1] : "{";
    if (*last != '{' && *last != '[')
        buffer_append_char(buffer, ',');
    if (key)
        buffer_printf(buffer, "\"%s\":", key);
}

void json_open(struct buffer *buffer, const char *key, char bracket)
{
    begin(buffer, key);
    buffer_append_char(buffer, bracket);
}

void json_close(struct buffer *buffer, char bracket)
{
    buffer_append_char(buffer, bracket);
}

void json_text(struct buffer *buffer, const char *key, const char *text)
{
    begin(buffer, key);
    if (text)
        text_append_json(buffer, text);
    else
        buffer_append_text(buffer, "null");
}

void json_number(struct buffer *buffer, const char *key, uint64_t number)
{
    begin(buffer, key);
    buffer_printf(buffer, "%" PRIu64, number);
}

void json_decimal(struct buffer *buffer, const char *key, double number)
{
    begin(buffer, key);
    buffer_printf(buffer, "%.3f", number);
}

void json_boolean(struct buffer *buffer, const char *key, bool value)
{
    begin(buffer, key);
    buffer_append_text(buffer, value ? "true" : "false");
}

void json_time(struct buffer *buffer, const char *key, int64_t wall_ms)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_wall(wall_ms, text);
    json_text(buffer, key, wall_ms ? text : NULL);
}

void json_uuid(struct buffer *buffer, const char *key, const uint8_t *uuid)
{
    char text[UUID_TEXT_SIZE];
    if (uuid)
        uuid_format(uuid, text);
    json_text(buffer, key, uuid ? text : NULL);
}
