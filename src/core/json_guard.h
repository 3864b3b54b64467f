/* SPDX-License-Identifier: MIT */
/*
 * A lexical pass over JSON text, before cJSON sees it.
 *
 * cJSON takes more for JSON than RFC 8259 does: control bytes as white space and inside strings, numbers such as 01 and
 * 1., \uZZZZ, a byte order mark before the value. It cuts strings at \u0000, and reads numbers as the locale has them.
 * The guard refuses the former and hides the latter. It knows tokens only: whether they stand in a lawful order is left
 * to cJSON.
 */
#ifndef PROMPTD_JSON_GUARD_H
#define PROMPTD_JSON_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum {
    JSON_DEPTH_MAX = 1000, /* objects and arrays inside one another; one more is refused */
    JSON_NUL_BYTE = 0xff,  /* stands for U+0000 in masked text; no UTF-8 has it */
    JSON_NUL_WIDTH = 6,    /* that many times for each: the length of the escape */
};

struct json_guard {
    size_t length;       /* bytes of the value, from its first to its last */
    bool needs_mask;     /* it holds a \u0000 escape or a number */
    const char *longest; /* the content of its longest string, in `bytes`; NULL where all are empty */
    size_t longest_length;
};

/*
 * Looks at the JSON value that `bytes`, valid UTF-8, begin with; white space may stand before it, whatever follows it
 * is not looked at. false: this is not JSON, or nested too deep, and *guard is not to be read.
 */
bool json_guard_scan(const char *bytes, size_t length, struct json_guard *guard);

/*
 * Changes a value that json_guard_scan let pass, in place and without changing its length: each \u0000 escape becomes
 * JSON_NUL_WIDTH times JSON_NUL_BYTE, which cJSON hands through, and each number becomes 0.
 */
void json_guard_mask(char *value, size_t length);

/*
 * For people, of bytes that are no JSON value: which byte, from 0, is the first that cannot stand where it does;
 * `length` where the value ends too early. This one knows the order of tokens, too, and which escapes there are.
 */
size_t json_guard_fault(const char *bytes, size_t length);

#endif
