/* SPDX-License-Identifier: MIT */
/* Reading and writing durations. */
#include "duration.h"

#include <stdio.h>

enum { UNITS = 4 };

static const int64_t duration_max_s = INT64_C(3650) * 86400;

static const struct {
    char letter;
    int64_t seconds;
} units[UNITS] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};

bool duration_parse(const char *text, int64_t *seconds)
{
    int64_t number = 0;
    int64_t unit = 1;
    if (*text < '0' || *text > '9')
        return false;
    for (; *text >= '0' && *text <= '9'; text++) {
        number = number * 10 + (*text - '0');
        if (number > duration_max_s)
            return false;
    }
    for (int i = 0; i < UNITS && *text; i++) {
        if (*text == units[i].letter && text[1] == '\0') {
            unit = units[i].seconds;
            text++;
        }
    }
    if (*text != '\0' || number > duration_max_s / unit)
        return false;
    *seconds = number * unit;
    return true;
}

void duration_format(int64_t seconds, char text[DURATION_TEXT_SIZE])
{
    int64_t left = seconds > 0 ? seconds : 0;
    int largest = 0;
    while (largest + 1 < UNITS && left < units[largest].seconds)
        largest++;
    int64_t count = left / units[largest].seconds;
    int64_t rest = left % units[largest].seconds;
    int next = largest + 1;
    if (next < UNITS && rest / units[next].seconds > 0)
        (void)snprintf(text, DURATION_TEXT_SIZE, "%lld%c %lld%c", (long long)count, units[largest].letter,
                       (long long)(rest / units[next].seconds), units[next].letter);
    else
        (void)snprintf(text, DURATION_TEXT_SIZE, "%lld%c", (long long)count, units[largest].letter);
}
