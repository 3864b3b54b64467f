/* SPDX-License-Identifier: MIT */
/* The file of messages that bench/measure/corpus.py writes: what is published, and the same already parsed. */
#ifndef BENCH_CORPUS_H
#define BENCH_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CORPUS_ID_SIZE = 16 };

struct corpus_message {
    const uint8_t *interview_id;
    const uint8_t *prompt_id;
    const char *prompt;
    size_t prompt_bytes;
    const char *payload; /* as it is published */
    size_t payload_bytes;
};

struct corpus {
    struct corpus_message *messages;
    size_t count;
};

/* Maps the file, and indexes `count` messages from `first` on. What goes wrong ends the program, with a line that says
 * so; so does a file with fewer messages. */
struct corpus corpus_open(const char *path, size_t first, size_t count);

/* The number in an argument, or the end of the program. */
size_t bench_number(const char *argument);

_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t bench_now_ns(void);

#endif
