/* SPDX-License-Identifier: MIT */
/* The rows of the redis_modes. */
#include "modes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/text.h"

static const long long LENGTH_MAX = 1LL << 53; /* more there cannot be; sums of some do not overflow */

static void describe_receivers(const redisReply *reply, struct buffer *out)
{
    buffer_printf(out, "%lld receiver%s", reply->integer, reply->integer == 1 ? "" : "s");
}

static void describe_length(const redisReply *reply, struct buffer *out)
{
    buffer_printf(out, "%lld message%s in the list", reply->integer, reply->integer == 1 ? "" : "s");
}

static void describe_entry(const redisReply *reply, struct buffer *out)
{
    buffer_append_text(out, "entry ");
    text_append_escaped(out, reply->str);
}

static const struct mode modes[] = {
    [REDIS_MODE_PUBSUB] = {.name = "pubsub",
                           .command = "PUBLISH",
                           .sent = "published",
                           .answer_type = REDIS_REPLY_INTEGER,
                           .answer = "receivers",
                           .describe_answer = describe_receivers,
                           .up = "subscribed",
                           .down = "not subscribed"},
    [REDIS_MODE_LIST] = {.name = "list",
                         .command = "LPUSH",
                         .sent = "pushed",
                         .answer_type = REDIS_REPLY_INTEGER,
                         .answer = "length",
                         .describe_answer = describe_length,
                         .key_type = "list",
                         .length_command = "LLEN",
                         .missing = "empty: the first message makes it",
                         .up = "connected",
                         .down = "not connected"},
    [REDIS_MODE_STREAM] = {.name = "stream",
                           .command = "XADD",
                           .before_message = {"*", "message"},
                           .sent = "added",
                           .answer_type = REDIS_REPLY_STRING,
                           .answer = "entry",
                           .describe_answer = describe_entry,
                           .key_type = "stream",
                           .length_command = "XLEN",
                           .missing = "not there yet: promptd makes it when it starts",
                           .up = "connected",
                           .down = "not connected"},
};

const struct mode *mode_of(const struct settings *settings)
{
    return &modes[settings->redis_mode];
}

const struct mode *mode_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    }
    return NULL;
}

const struct mode *mode_by_key_type(const char *type)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (modes[i].key_type && strcmp(modes[i].key_type, type) == 0)
            return &modes[i];
    }
    return NULL;
}

redisReply *mode_send(struct redis_client *client, const struct settings *settings, const char *bytes, size_t length,
                      struct error *error)
{
    const struct mode *mode = mode_of(settings);
    const char *words[6] = {mode->command, settings->redis_channel};
    size_t lengths[6];
    int count = 2;
    for (const char *const *word = mode->before_message; *word; word++)
        words[count++] = *word;
    for (int i = 0; i < count; i++)
        lengths[i] = strlen(words[i]);
    words[count] = bytes;
    lengths[count++] = length;
    return redis_client_call(client, count, words, lengths, error);
}

bool mode_ask_type(struct redis_client *client, const char *key, char type[MODE_TYPE_SIZE], struct error *error)
{
    const char *const words[] = {"TYPE", key};
    redisReply *reply = redis_client_call_for(client, REDIS_REPLY_STATUS, 2, words, NULL, error);
    if (!reply)
        return false;
    (void)snprintf(type, MODE_TYPE_SIZE, "%s", reply->str);
    freeReplyObject(reply);
    return true;
}

bool mode_fits_type(const struct settings *settings, const char *type, struct error *error)
{
    const struct mode *mode = mode_of(settings);
    return strcmp(type, "none") == 0 || strcmp(type, mode->key_type) == 0 ||
           error_set(
               error, ERROR_CONFIG,
               "the key %.128s is a %s, and redis_mode=%s needs a %s there: another redis_channel or redis_mode, or"
               " rename that key",
               settings->redis_channel, type, mode->name, mode->key_type);
}

long long mode_ask_number(struct redis_client *client, const char *command, const char *key)
{
    const char *const words[] = {command, key};
    redisReply *reply = redis_client_call_for(client, REDIS_REPLY_INTEGER, 2, words, NULL, NULL);
    bool is_length = reply && reply->integer <= LENGTH_MAX;
    long long number = is_length ? reply->integer : -1;
    freeReplyObject(reply);
    return number;
}

char *mode_key(const struct settings *settings, const char *suffix)
{
    size_t size = strlen(settings->redis_channel) + strlen(suffix) + sizeof "{}";
    char *key = malloc(size);
    if (key)
        (void)snprintf(key, size, "{%s}%s", settings->redis_channel, suffix);
    return key;
}
