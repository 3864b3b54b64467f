/* SPDX-License-Identifier: MIT */
/* The two clocks: monotonic for durations and deadlines, wall for what people read. */
#ifndef PROMPTD_CLOCK_H
#define PROMPTD_CLOCK_H

#include <stdint.h>

int64_t clock_monotonic_us(void); /* microseconds, arbitrary origin, never goes back */
int64_t clock_monotonic_ms(void); /* the same in milliseconds, as uv_now has it */
int64_t clock_wall_ms(void);      /* milliseconds since 1970-01-01 UTC */

void clock_sleep_ms(unsigned ms);

/* From one time of the wall clock to another, which may have been set in between: 0 where the second is the earlier
 * one, or where it would be longer than `most_ms`, which it cannot be. */
int64_t clock_wall_span_ms(int64_t from_ms, int64_t to_ms, int64_t most_ms);

/* RFC 3339 in UTC with milliseconds, "2026-11-23T16:01:02.345Z" and its NUL. */
enum { CLOCK_TEXT_SIZE = 25 };
void clock_format_wall(int64_t wall_ms, char text[CLOCK_TEXT_SIZE]);

#endif
