/* SPDX-License-Identifier: MIT */
/* A Redis client that can do nothing but send messages. */
#include "redis_publish.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { COMMAND_EXTRA_BYTES = 64 };

int publish_connect(size_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        bench_fail("Redis on port %zu: %s", port, strerror(errno));
    return fd;
}

struct publish_place publish_place(const char *text)
{
    static char command[1024];
    struct publish_place place = {.command = command, .answer = ':'};
    const char *begin = "*3\r\n$7\r\nPUBLISH\r\n";
    const char *end = "";
    const char *name = text;
    if (strncmp(text, "list:", 5) == 0) {
        begin = "*3\r\n$5\r\nLPUSH\r\n";
        name = text + 5;
    } else if (strncmp(text, "stream:", 7) == 0) {
        begin = "*5\r\n$4\r\nXADD\r\n";
        end = "$1\r\n*\r\n$7\r\nmessage\r\n";
        name = text + 7;
        place.answer = '-'; /* of an entry's id */
    }
    place.one_listener = name == text;
    int length = snprintf(command, sizeof command, "%s$%zu\r\n%s\r\n%s", begin, strlen(name), name, end);
    if (length < 0 || (size_t)length >= sizeof command)
        bench_fail("the channel's name is too long");
    place.command_bytes = (size_t)length;
    return place;
}

struct publish_command *publish_commands(const struct corpus *corpus, const struct publish_place *place)
{
    size_t room = 0;
    for (size_t i = 0; i < corpus->count; i++)
        room += corpus->messages[i].payload_bytes + place->command_bytes + COMMAND_EXTRA_BYTES;
    struct publish_command *commands = calloc(corpus->count + 1, sizeof *commands);
    if (!commands)
        bench_fail("out of memory");
    commands[0].bytes = malloc(room + 1);
    char *at = commands[0].bytes;
    if (!at)
        bench_fail("out of memory");
    for (size_t i = 0; i < corpus->count; i++) {
        const struct corpus_message *message = &corpus->messages[i];
        commands[i].bytes = at;
        memcpy(at, place->command, place->command_bytes);
        at += place->command_bytes;
        at += sprintf(at, "$%zu\r\n", message->payload_bytes);
        memcpy(at, message->payload, message->payload_bytes);
        memcpy(at + message->payload_bytes, "\r\n", 2);
        at += message->payload_bytes + 2;
        commands[i].length = (size_t)(at - commands[i].bytes);
    }
    return commands;
}

void publish_write(int socket, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(socket, bytes, length);
        if (written < 0)
            bench_fail("writing to Redis: %s", strerror(errno));
        bytes += written;
        length -= (size_t)written;
    }
}

/* Of a channel every answer is ":1\r\n"; of a list ":N\r\n"; of a stream "$N\r\nID\r\n". */
size_t publish_count_answers(const struct publish_place *place, const char *bytes, size_t length)
{
    const char *allowed = place->one_listener ? ":1\r\n" : "$:-0123456789\r\n";
    size_t answers = 0;
    for (size_t i = 0; i < length; i++) {
        if (!strchr(allowed, bytes[i]) || bytes[i] == '\0')
            bench_fail("Redis answers that not exactly one listener is there, or with an error");
        answers += bytes[i] == place->answer;
    }
    return answers;
}
