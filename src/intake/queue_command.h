/* SPDX-License-Identifier: MIT */
/* Commands to Redis, as they are put together, and what can be said of any reply. */
#ifndef PROMPTD_QUEUE_COMMAND_H
#define PROMPTD_QUEUE_COMMAND_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QUEUE_ARGUMENTS_MAX = 288, QUEUE_NUMBERS_MAX = 8, QUEUE_ERROR_SIZE = 200 };

/* What it points to must live until it is sent. */
struct queue_command {
    int argc;
    const char *argv[QUEUE_ARGUMENTS_MAX];
    size_t lengths[QUEUE_ARGUMENTS_MAX];
    char numbers[QUEUE_NUMBERS_MAX][24];
    int number_count;
};

/* Its first words: queue_command_begin(&command, "LLEN", key). */
#define queue_command_begin(command, ...) queue_command_begin_with(command, (const char *const[]){__VA_ARGS__, NULL})
void queue_command_begin_with(struct queue_command *command, const char *const words[]);
void queue_command_add(struct queue_command *command, const char *text);
void queue_command_add_number(struct queue_command *command, int64_t number);
void queue_command_add_bytes(struct queue_command *command, const char *bytes, size_t length);

bool queue_is_error(const redisReply *reply, const char *beginning);
const redisReply *queue_array(const redisReply *reply, size_t index);   /* NULL: there is no such array */
const redisReply *queue_field(const redisReply *map, const char *name); /* of name and value in turn; NULL: none */
uint64_t queue_number(const redisReply *reply);                         /* 0 where it is none; NULL may be given */

#endif
