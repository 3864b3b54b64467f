/* SPDX-License-Identifier: MIT */
/* PUBLISH as cheaply as can be: the commands stand ready in memory, and only write and read remain. */
#ifndef BENCH_REDIS_PUBLISH_H
#define BENCH_REDIS_PUBLISH_H

#include "corpus.h"

struct publish_command {
    char *bytes;
    size_t length;
};

/* A socket, connected to 127.0.0.1:port, without Nagle's delay. */
int publish_connect(size_t port);

/* The commands of all messages, one behind the other in one piece of memory that the first one owns. */
struct publish_command *publish_commands(const struct corpus *corpus, const char *channel);

/* Writes all bytes to a blocking socket. */
void publish_write(int socket, const char *bytes, size_t length);

/* Counts the answers in what was read: each must say that there was exactly one listener. */
size_t publish_count_answers(const char *bytes, size_t length);

#endif
