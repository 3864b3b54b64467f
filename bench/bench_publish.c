/* SPDX-License-Identifier: MIT */
/*
 * Publishes messages of a corpus, as fast as Redis takes them.
 *
 *     bench_publish CORPUS FIRST MESSAGES REDIS_PORT CHANNEL     (CHANNEL: see redis_publish.h)
 *
 * Says "ready" when everything is in memory, waits for a line, and prints on CLOCK_MONOTONIC, in seconds, when it began
 * and when the last answer was there.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "redis_publish.h"

enum { WRITE_BYTES = 256 * 1024 };

/* Sends what the socket takes. */
static size_t send_some(int socket, const char *bytes, size_t length)
{
    ssize_t sent = send(socket, bytes, length < WRITE_BYTES ? length : WRITE_BYTES, MSG_DONTWAIT);
    if (sent >= 0)
        return (size_t)sent;
    if (errno != EAGAIN)
        bench_fail("writing to Redis: %s", strerror(errno));
    return 0;
}

static size_t read_answers(int socket, const struct publish_place *place)
{
    char bytes[16384];
    ssize_t got = read(socket, bytes, sizeof bytes);
    if (got <= 0)
        bench_fail("reading from Redis: %s", got < 0 ? strerror(errno) : "connection closed");
    return publish_count_answers(place, bytes, (size_t)got);
}

static void publish_all(int socket, const struct publish_place *place, const char *bytes, size_t length, size_t count)
{
    size_t sent = 0;
    size_t answered = 0;
    while (answered < count) {
        struct pollfd watch = {.fd = socket, .events = sent < length ? POLLIN | POLLOUT : POLLIN};
        if (poll(&watch, 1, -1) < 0)
            bench_fail("poll: %s", strerror(errno));
        if (watch.revents & POLLOUT)
            sent += send_some(socket, bytes + sent, length - sent);
        if (watch.revents & (POLLIN | POLLHUP | POLLERR))
            answered += read_answers(socket, place);
    }
}

int main(int argc, char *argv[])
{
    if (argc != 6)
        bench_fail("usage: bench_publish CORPUS FIRST MESSAGES REDIS_PORT CHANNEL");
    const struct corpus corpus = corpus_open(argv[1], bench_number(argv[2]), bench_number(argv[3]));
    const struct publish_place place = publish_place(argv[5]);
    struct publish_command *commands = publish_commands(&corpus, &place);
    size_t length = 0;
    for (size_t i = 0; i < corpus.count; i++)
        length += commands[i].length;
    int redis = publish_connect(bench_number(argv[4]));
    (void)puts("ready");
    (void)fflush(stdout);
    (void)getchar();
    int64_t began_ns = bench_now_ns();
    publish_all(redis, &place, commands[0].bytes, length, corpus.count);
    (void)printf("%.6f %.6f\n", (double)began_ns / 1e9, (double)bench_now_ns() / 1e9);
    return 0;
}
