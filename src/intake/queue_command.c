/* SPDX-License-Identifier: MIT */
/* Commands to Redis, and what can be said of any reply. */
#include "queue_command.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void queue_command_begin_with(struct queue_command *command, const char *const words[])
{
    command->argc = 0;
    command->number_count = 0;
    for (size_t i = 0; words[i]; i++)
        queue_command_add(command, words[i]);
}

void queue_command_add(struct queue_command *command, const char *text)
{
    queue_command_add_bytes(command, text, strlen(text));
}

void queue_command_add_number(struct queue_command *command, int64_t number)
{
    assert(command->number_count < QUEUE_NUMBERS_MAX);
    char *text = command->numbers[command->number_count++];
    (void)snprintf(text, sizeof command->numbers[0], "%" PRId64, number);
    queue_command_add(command, text);
}

void queue_command_add_bytes(struct queue_command *command, const char *bytes, size_t length)
{
    assert(command->argc < QUEUE_ARGUMENTS_MAX);
    command->argv[command->argc] = bytes;
    command->lengths[command->argc++] = length;
}

bool queue_is_error(const redisReply *reply, const char *beginning)
{
    return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, beginning, strlen(beginning)) == 0;
}

const redisReply *queue_array(const redisReply *reply, size_t index)
{
    bool has = reply->type == REDIS_REPLY_ARRAY && index < reply->elements;
    return has && reply->element[index]->type == REDIS_REPLY_ARRAY ? reply->element[index] : NULL;
}

const redisReply *queue_field(const redisReply *map, const char *name)
{
    for (size_t i = 0; i + 1 < map->elements; i += 2)
        if (map->element[i]->type == REDIS_REPLY_STRING && strcmp(map->element[i]->str, name) == 0)
            return map->element[i + 1];
    return NULL;
}

uint64_t queue_number(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0 ? (uint64_t)reply->integer : 0;
}
