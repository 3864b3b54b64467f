/* SPDX-License-Identifier: MIT */
/* Ids of entries of a stream. */
#include "stream_id.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static bool parse_number(const char **text, uint64_t *number)
{
    char *end;
    errno = 0;
    if (**text < '0' || **text > '9')
        return false;
    *number = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0;
}

bool stream_id_parse(const char *text, struct dead_id *id)
{
    *id = (struct dead_id){0};
    return parse_number(&text, &id->major) && *text++ == '-' && parse_number(&text, &id->minor) && *text == '\0';
}

void stream_id_format(const struct dead_id *id, char text[DEAD_ID_SIZE])
{
    (void)snprintf(text, DEAD_ID_SIZE, "%" PRIu64 "-%" PRIu64, id->major, id->minor);
}

bool stream_id_is_same(const struct dead_id *left, const struct dead_id *right)
{
    return left->major == right->major && left->minor == right->minor;
}

bool stream_id_is_before(const struct dead_id *left, const struct dead_id *right)
{
    return left->major < right->major || (left->major == right->major && left->minor < right->minor);
}

struct dead_id stream_id_next(const struct dead_id *id)
{
    bool wraps = id->minor == UINT64_MAX && id->major < UINT64_MAX;
    return (struct dead_id){.major = id->major + wraps, .minor = wraps ? 0 : id->minor + (id->minor < UINT64_MAX)};
}
