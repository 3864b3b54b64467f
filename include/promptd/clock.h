/* SPDX-License-Identifier: MIT */
/* The two clocks: monotonic for durations and deadlines, wall for what people read. */
#ifndef PROMPTD_CLOCK_H
#define PROMPTD_CLOCK_H

#include <stdint.h>

int64_t clock_monotonic_us(void); /* microseconds, arbitrary origin, never goes back */
int64_t clock_wall_ms(void);      /* milliseconds since 1970-01-01 UTC */

void clock_sleep_ms(unsigned ms);

/* RFC 3339 in UTC with milliseconds, "2026-11-23T16:01:02.345Z" and its NUL. */
enum { CLOCK_TEXT_SIZE = 25 };
void clock_format_wall(int64_t wall_ms, char text[CLOCK_TEXT_SIZE]);

#endif
