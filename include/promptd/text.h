/* SPDX-License-Identifier: MIT */
/* Pure functions on text: UTF-8, UUIDs, quoting. Nothing here allocates but through the buffer it is given. */
#ifndef PROMPTD_TEXT_H
#define PROMPTD_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"

/* Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. NUL bytes are valid. */
bool utf8_is_valid(const char *bytes, size_t length);

/* Code points in valid UTF-8. */
size_t utf8_count(const char *bytes, size_t length);

enum { UUID_SIZE = 16, UUID_TEXT_SIZE = 37 };

/* The 8-4-4-4-12 form of RFC 9562, either case, of exactly `length` bytes; nothing else passes. */
bool uuid_parse(const char *text, size_t length, uint8_t uuid[UUID_SIZE]);

/* Lower case, with a NUL. */
void uuid_format(const uint8_t uuid[UUID_SIZE], char text[UUID_TEXT_SIZE]);

/* Appends a logfmt value: bare where that is unambiguous, else in double quotes. Control characters and bytes that are
 * not UTF-8 become \n, \t, \r or \xHH, so the result is one printable line. */
void text_append_logfmt(struct buffer *buffer, const char *value);

/* The same escapes, never quoted: for the message of a line. */
void text_append_escaped(struct buffer *buffer, const char *value);

/* Appends a JSON string with its quotes (RFC 8259); bytes that are not UTF-8 become U+FFFD. */
void text_append_json(struct buffer *buffer, const char *value);

/* Copies a URL or conninfo with every password shown as ***: user info of URLs, password= in query or conninfo. */
void text_append_redacted(struct buffer *buffer, const char *url);

/* Words of `text`, between single spaces, in lines of at most `width` bytes, each indented and ended. */
void text_append_wrapped(struct buffer *buffer, const char *text, size_t indent, size_t width);

/* True when `text` holds a run of at least `count` code points that also stands in `secret`. Both are valid UTF-8. */
bool text_quotes(const char *text, const char *secret, size_t secret_length, size_t count);

#endif
