/* SPDX-License-Identifier: MIT */
/* Messages to Redis as cheaply as can be: the commands stand ready in memory, and only write and read remain. */
#ifndef BENCH_REDIS_PUBLISH_H
#define BENCH_REDIS_PUBLISH_H

#include <stdbool.h>

#include "corpus.h"

struct publish_command {
    char *bytes;
    size_t length;
};

/* A socket, connected to 127.0.0.1:port, without Nagle's delay. */
int publish_connect(size_t port);

/* Where messages go: a channel as it is (PUBLISH), list:KEY (LPUSH) or stream:KEY (XADD). The text is borrowed. */
struct publish_place {
    const char *command; /* what stands before the payload, in Redis' protocol */
    size_t command_bytes;
    char answer; /* stands in each answer once, and in none of another kind */
    bool one_listener;
};

struct publish_place publish_place(const char *text);

/* The commands of all messages, one behind the other in one piece of memory that the first one owns. */
struct publish_command *publish_commands(const struct corpus *corpus, const struct publish_place *place);

/* Writes all bytes to a blocking socket. */
void publish_write(int socket, const char *bytes, size_t length);

/* Counts the answers in what was read: none may be an error, and where it is a channel each must say that there was
 * exactly one listener. */
size_t publish_count_answers(const struct publish_place *place, const char *bytes, size_t length);

#endif
