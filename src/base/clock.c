/* SPDX-License-Identifier: MIT */
/* Reading and printing the clocks. */
#include "promptd/clock.h"

#include <string.h>
#include <time.h>

int64_t clock_monotonic_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC,
                        &now); /* cannot fail: the clock is required by POSIX and the pointer is good */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_monotonic_ms(void)
{
    return clock_monotonic_us() / 1000;
}

int64_t clock_wall_span_ms(int64_t from_ms, int64_t to_ms, int64_t most_ms)
{
    if (from_ms < 0 || from_ms > to_ms || to_ms - from_ms > most_ms)
        return 0;
    return to_ms - from_ms;
}

int64_t clock_wall_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void clock_sleep_ms(unsigned ms)
{
    const struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&rest, NULL); /* a signal may end it early */
}

/* Under load there are thousands of times in a second: what they share is printed once. */
void clock_format_wall(int64_t wall_ms, char text[CLOCK_TEXT_SIZE])
{
    static _Thread_local time_t printed_seconds = -1;
    static _Thread_local char printed[CLOCK_TEXT_SIZE];
    time_t seconds = (time_t)(wall_ms / 1000);
    if (seconds != printed_seconds || !printed[0]) {
        struct tm utc;
        if (!gmtime_r(&seconds, &utc) || utc.tm_year < 0 || utc.tm_year + 1900 > 9999)
            utc = (struct tm){.tm_year = 70, .tm_mday = 1};
        (void)strftime(printed, sizeof printed, "%Y-%m-%dT%H:%M:%S.000Z", &utc);
        printed_seconds = seconds;
    }
    memcpy(text, printed, CLOCK_TEXT_SIZE);
    unsigned ms = (unsigned)(wall_ms % 1000) % 1000;
    char *digits = text + sizeof "yyyy-mm-ddThh:mm:ss." - 1;
    digits[0] = (char)('0' + ms / 100);
    digits[1] = (char)('0' + ms / 10 % 10);
    digits[2] = (char)('0' + ms % 10);
}
