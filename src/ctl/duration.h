/* SPDX-License-Identifier: MIT */
/* Durations as people write and read them. */
#ifndef PROMPTCTL_DURATION_H
#define PROMPTCTL_DURATION_H

#include <stdbool.h>
#include <stdint.h>

enum { DURATION_TEXT_SIZE = 48 };

/* "90", "90s", "5m", "1h", "2d" as seconds; at most ten years. false for anything else. */
bool duration_parse(const char *text, int64_t *seconds);

/* The two largest units that count: "42s", "5m 3s", "2d 4h". A time in the future is "0s". */
void duration_format(int64_t seconds, char text[DURATION_TEXT_SIZE]);

#endif
