/* SPDX-License-Identifier: MIT */
/* Decodes what stands between the quotes of a long JSON string: cJSON does it byte by byte, this in runs. */
#ifndef PROMPTD_JSON_STRING_H
#define PROMPTD_JSON_STRING_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The content of a string that json_guard_scan let pass, as cJSON would decode it after json_guard_mask: U+0000 is
 * masked. *decoded is NUL-terminated and belongs to the caller, from malloc; NULL where an escape is unknown, or half
 * of a surrogate pair is missing. false when out of memory.
 */
bool json_string_decode(const char *content, size_t length, char **decoded);

#endif
