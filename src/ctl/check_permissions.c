/* SPDX-License-Identifier: MIT */
/*
 * promptctl check: whether promptd may do all that it does to a list or a stream.
 *
 * It is tried by the very commands that promptd sends, on its very keys: Redis judges a command when it is queued for a
 * transaction, and the transaction is discarded.
 */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "modes.h"
#include "promptd/buffer.h"

enum { COMMAND_WORDS_MAX = 12 };

static const char *const list_commands[] = {
    "BLMOVE @ @:processing:check RIGHT LEFT 1",
    "LMOVE @ @:processing:check RIGHT LEFT",
    "LMOVE @:processing:check @ LEFT RIGHT",
    "LRANGE @:processing:check 0 0",
    "LINDEX @:processing:check 0",
    "LREM @:processing:check -1 message",
    "LSET @:processing:check 0 message",
    "LPOP @:processing:check",
    "LLEN @",
    "SET @:consumer:check 1 PX 1",
    "EXISTS @:consumer:check",
    "DEL @:consumer:check",
    "SADD @:consumers check",
    "SRANDMEMBER @:consumers 1",
    "SREM @:consumers check",
    "HINCRBY @:deliveries message 1",
    "HDEL @:deliveries message",
    "EXPIRE @:deliveries 1",
    "XADD @:dead * message message",
    "XLEN @:dead",
    "EVAL return 1 @:processing:check",
    NULL,
};

static const char *const stream_commands[] = {
    "XREADGROUP GROUP promptd check COUNT 1 STREAMS @ >",
    "XACK @ promptd 0-1",
    "XDEL @ 0-1",
    "XCLAIM @ promptd check 0 0-1 JUSTID",
    "XPENDING @ promptd - + 1",
    "XGROUP CREATE @ promptd 0 MKSTREAM",
    "XGROUP DELCONSUMER @ promptd check",
    "XINFO GROUPS @",
    "XINFO CONSUMERS @ promptd",
    "XLEN @",
    "XADD @:dead * message message",
    "EVAL return 1 @",
    NULL,
};

/* A command as a row has it: @ is redis_channel, and @:dead a key that goes with it. */
struct tried_command {
    char *text;
    const char *words[COMMAND_WORDS_MAX];
    char *keys[COMMAND_WORDS_MAX];
    int count;
};

static void free_command(struct tried_command *command)
{
    for (int i = 0; i < command->count; i++)
        free(command->keys[i]);
    free(command->text);
}

static bool split_command(const struct settings *settings, const char *row, struct tried_command *command)
{
    char *rest = NULL;
    *command = (struct tried_command){.text = strdup(row)};
    bool good = command->text != NULL;
    for (char *word = good ? strtok_r(command->text, " ", &rest) : NULL;
         good && word && command->count < COMMAND_WORDS_MAX; word = strtok_r(NULL, " ", &rest)) {
        command->words[command->count] = strcmp(word, "@") == 0 ? settings->redis_channel : word;
        if (strncmp(word, "@:", 2) == 0) {
            command->keys[command->count] = mode_key(settings, word + 1);
            command->words[command->count] = command->keys[command->count];
            good = command->keys[command->count] != NULL;
        }
        command->count++;
    }
    return good;
}

static const char *key_in(const struct settings *settings, const struct tried_command *command)
{
    for (int i = 0; i < command->count; i++) {
        if (command->keys[i] || command->words[i] == settings->redis_channel)
            return command->words[i];
    }
    return NULL;
}

/* false with *error, which names the command and its key. */
static bool try_command(struct redis_client *client, const struct settings *settings, const char *row,
                        struct error *error)
{
    struct tried_command command;
    struct error cause = {.code = ERROR_INTERNAL, .text = "out of memory"};
    bool split = split_command(settings, row, &command);
    redisReply *reply = NULL;
    if (split)
        reply = redis_client_call_for(client, REDIS_REPLY_STATUS, command.count, command.words, NULL, &cause);
    const char *key = key_in(settings, &command);
    if (!reply)
        (void)error_set(error, cause.code, "%.*s%s%.128s: %s", (int)strcspn(row, " "), row, key ? " on " : "",
                        key ? key : "", cause.text);
    freeReplyObject(reply);
    free_command(&command);
    return reply != NULL;
}

/* The names of the commands, each once. */
static void name_commands(const char *const *rows, struct buffer *out)
{
    const char *before = "";
    for (; *rows; rows++) {
        size_t length = strcspn(*rows, " ");
        if (strncmp(before, *rows, length + 1) == 0)
            continue;
        before = *rows;
        buffer_append_text(out, out->length > 0 ? " " : "");
        buffer_append(out, *rows, length);
    }
    buffer_append_char(out, '\0');
}

static void report_permissions(struct check *check, const char *const *rows)
{
    struct buffer names = {0};
    name_commands(rows, &names);
    check_report_step(check, "redis_permissions", CHECK_OK, "%s", names.failed ? "" : names.data);
    buffer_free(&names);
}

static bool begin_trial(struct check *check, struct redis_client *client)
{
    const struct settings *settings = &check->ctl->settings;
    struct error error;
    (void)mode_ask_number(client, mode_of(settings)->length_command,
                          settings->redis_channel); /* finds it in a cluster */
    if (try_command(client, settings, "MULTI", &error))
        return true;
    check_fail(check, "redis_permissions", &error);
    check_report_step(check, "redis_permissions", CHECK_SKIPPED, "the others were not tried, for want of MULTI");
    return false;
}

/* Comes last: the connection is closed after it, whatever becomes of the transaction. */
static void check_commands(struct check *check, struct redis_client *client, const char *const *rows)
{
    struct error error;
    size_t refused = 0;
    const struct settings *settings = &check->ctl->settings;
    if (!begin_trial(check, client))
        return;
    for (const char *const *row = rows; *row && redis_client_is_up(client); row++) {
        if (try_command(client, settings, *row, &error))
            continue;
        check_fail(check, "redis_permissions", &error);
        refused++;
        if (error.code == ERROR_CONFIG)
            continue;
        check_report_step(check, "redis_permissions", CHECK_SKIPPED,
                          "the others were not tried: this may pass by itself");
        break;
    }
    (void)try_command(client, settings, "DISCARD", NULL);
    if (refused == 0)
        report_permissions(check, rows);
}

void check_list_permissions(struct check *check, struct redis_client *client)
{
    check_commands(check, client, list_commands);
}

void check_stream_permissions(struct check *check, struct redis_client *client)
{
    check_commands(check, client, stream_commands);
}
