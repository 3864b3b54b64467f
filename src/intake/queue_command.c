/* SPDX-License-Identifier: MIT */
/* Commands to Redis, and what can be said of any reply. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "queue.h"

enum { COMPLAIN_MS = 3600000, QUEUE_ERROR_SIZE = 200, QUEUE_HOST_SIZE = 256 };

void queue_command_begin(struct queue_command *command, const char *name)
{
    command->argc = 0;
    command->number_count = 0;
    queue_command_add(command, name);
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

void queue_send(struct queue *queue, struct redis_link *link, const struct queue_command *command, int number,
                void (*on_reply)(void *context, const redisReply *reply))
{
    struct redis_call *call = NULL;
    if (on_reply) {
        call = &queue->calls[number];
        *call = (struct redis_call){.on_reply = on_reply, .context = queue};
    }
    redis_link_command(link, command->argc, (const char **)(uintptr_t)command->argv, command->lengths, call);
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

/* Fit for the log: an unknown command is quoted with its arguments, which may be a message. */
static void copy_error(const redisReply *reply, char *text, size_t size)
{
    (void)snprintf(text, size, "%s", reply->str);
    char *arguments = strstr(text, ", with args");
    if (arguments)
        *arguments = '\0';
}

/* "MOVED slot host:port" */
static bool is_moved(const redisReply *reply, char host[QUEUE_HOST_SIZE], struct redis_endpoint *server)
{
    const char *place = strncmp(reply->str, "MOVED ", 6) == 0 ? strrchr(reply->str, ' ') : NULL;
    const char *colon = place ? strrchr(place, ':') : NULL;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (port <= 0 || port > UINT16_MAX)
        return false;
    (void)snprintf(host, QUEUE_HOST_SIZE, "%.*s", (int)(colon - place - 1), place + 1);
    *server = (struct redis_endpoint){.host = host, .port = (int)port};
    return true;
}

void queue_refused(struct queue *queue, const redisReply *reply)
{
    struct redis_endpoint server;
    char host[QUEUE_HOST_SIZE];
    if (is_moved(reply, host, &server)) { /* all keys are in one slot: so are both connections */
        redis_link_redirect(queue->worker, &server);
        redis_link_redirect(queue->reader, &server);
        return;
    }
    char text[QUEUE_ERROR_SIZE];
    copy_error(reply, text, sizeof text);
    redis_link_refuse(queue->worker, text);
}

void queue_reader_refused(struct queue *queue, const redisReply *reply)
{
    char text[QUEUE_ERROR_SIZE];
    copy_error(reply, text, sizeof text);
    if (strncmp(text, "MOVED ", 6) == 0)
        redis_link_drop(queue->worker,
                        "the queue has moved within the Redis Cluster"); /* its first question tells where */
    redis_link_refuse(queue->reader, text);
}

void queue_complain(struct queue *queue, const char *what, const redisReply *reply)
{
    uint64_t now_ms = uv_now(queue->options.loop);
    if (reply->type != REDIS_REPLY_ERROR)
        return;
    if (queue->complained_ms > 0 && now_ms - queue->complained_ms < COMPLAIN_MS)
        return;
    char text[QUEUE_ERROR_SIZE];
    copy_error(reply, text, sizeof text);
    queue->complained_ms = now_ms;
    log_warning(LOG_FIELDS(log_text("error", text)), "Redis refuses %s; there may be more, for an hour", what);
}

size_t queue_page(const struct queue *queue)
{
    size_t count = queue->options.tuning.memory_max_bytes / queue->options.tuning.message_max_bytes;
    return count < 1 ? 1 : count < QUEUE_PAGE ? count : QUEUE_PAGE;
}
