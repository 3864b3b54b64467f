/* SPDX-License-Identifier: MIT */
/* Writes JSON into a buffer, which remembers a lack of memory; keys are ours and need no escapes. */
#ifndef PROMPTD_JSON_H
#define PROMPTD_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/buffer.h"
#include "promptd/text.h"

/* `key` is NULL inside an array, and for the outermost value. */
void json_open(struct buffer *buffer, const char *key, char bracket);     /* '{' or '[' */
void json_close(struct buffer *buffer, char bracket);                     /* '}' or ']' */
void json_text(struct buffer *buffer, const char *key, const char *text); /* NULL: null */
void json_number(struct buffer *buffer, const char *key, uint64_t number);
void json_decimal(struct buffer *buffer, const char *key, double number); /* with three decimals */
void json_boolean(struct buffer *buffer, const char *key, bool value);
void json_time(struct buffer *buffer, const char *key, int64_t wall_ms);     /* RFC 3339; 0: null */
void json_uuid(struct buffer *buffer, const char *key, const uint8_t *uuid); /* NULL: null */

#endif
