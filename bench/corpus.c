/* SPDX-License-Identifier: MIT */
/* Reads the file of messages, and what else the measuring programs share. */
#include "corpus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Before each message: two ids, then the lengths of prompt and payload, in this machine's byte order. */
struct record_header {
    uint8_t interview_id[CORPUS_ID_SIZE];
    uint8_t prompt_id[CORPUS_ID_SIZE];
    uint32_t prompt_bytes;
    uint32_t payload_bytes;
};

void bench_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

int64_t bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

size_t bench_number(const char *argument)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(argument, &end, 10);
    if (errno != 0 || end == argument || *end != '\0')
        bench_fail("%s is not a number", argument);
    return (size_t)number;
}

static const char *map_file(const char *path, size_t *size)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        bench_fail("%s: %s", path, strerror(errno));
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED)
        bench_fail("%s cannot be mapped: %s", path, strerror(errno));
    (void)close(fd);
    *size = (size_t)status.st_size;
    return map;
}

/* The message at `at`; returns how many bytes of the file it takes, 0 where the file ends before it does. */
static size_t read_record(const char *at, size_t left, struct corpus_message *message)
{
    struct record_header header;
    if (left < sizeof header)
        return 0;
    memcpy(&header, at, sizeof header);
    size_t bytes = sizeof header + header.prompt_bytes + header.payload_bytes;
    if (left < bytes)
        return 0;
    *message = (struct corpus_message){
        .interview_id = (const uint8_t *)at,
        .prompt_id = (const uint8_t *)at + CORPUS_ID_SIZE,
        .prompt = at + sizeof header,
        .prompt_bytes = header.prompt_bytes,
        .payload = at + sizeof header + header.prompt_bytes,
        .payload_bytes = header.payload_bytes,
    };
    return bytes;
}

struct corpus corpus_open(const char *path, size_t first, size_t count)
{
    size_t left;
    const char *at = map_file(path, &left);
    struct corpus corpus = {.messages = calloc(count ? count : 1, sizeof *corpus.messages)};
    if (!corpus.messages)
        bench_fail("out of memory");
    for (size_t i = 0; i < first + count; i++) {
        struct corpus_message message;
        size_t bytes = read_record(at, left, &message);
        if (bytes == 0)
            bench_fail("%s has no more than %zu messages", path, i);
        if (i >= first)
            corpus.messages[corpus.count++] = message;
        at += bytes;
        left -= bytes;
    }
    return corpus;
}
