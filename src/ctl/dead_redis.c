/* SPDX-License-Identifier: MIT */
/* The dead letters in Redis, for promptctl dead: the stream {redis_channel}:dead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dead_store.h"
#include "modes.h"
#include "promptd/clock.h"
#include "stream_entry.h"
#include "stream_id.h"

enum {
    PAGE_BYTES = 16 * 1024 * 1024, /* of messages, should each be as large as may be */
    PAGE_MAX = 100                 /* letters */
};

struct dead_redis {
    struct dead_store store; /* first */
    const struct settings *settings;
    struct redis_client client;
    char *key;
    size_t page;          /* letters read at once */
    redisReply *borrowed; /* of get_message */
};

static struct dead_redis *redis_of(struct dead_store *store)
{
    return (struct dead_redis *)store;
}

/* ---- commands ---- */

static bool refuse(const struct dead_redis *redis, const char *command, const struct error *cause, struct error *error)
{
    return error_set(error, cause->code, "dead letters in %.128s: %s: %s", redis->key, command, cause->text);
}

/* Where a reply is of the right type, and yet none that Redis gives. */
static bool misunderstand(const struct dead_redis *redis, const char *command, struct error *error)
{
    struct error cause;
    (void)redis_client_misunderstand(&redis->client, command, &cause);
    return refuse(redis, command, &cause, error);
}

/* As redis_client_call_for, and the error says what it was about. */
static redisReply *call(struct dead_redis *redis, int type, int argc, const char *const *argv, const size_t *lengths,
                        struct error *error)
{
    struct error cause;
    redisReply *reply = redis_client_call_for(&redis->client, type, argc, argv, lengths, &cause);
    if (!reply)
        (void)refuse(redis, argv[0], &cause, error);
    return reply;
}

/* A page of entries: stream_entry_parts has no other answer for them than true. */
static redisReply *read_range(struct dead_redis *redis, const struct dead_id *from, const struct dead_id *to,
                              struct error *error)
{
    char first[DEAD_ID_SIZE];
    char last[DEAD_ID_SIZE];
    char count[24];
    stream_id_format(from, first);
    stream_id_format(to, last);
    (void)snprintf(count, sizeof count, "%zu", redis->page);
    const char *const words[] = {"XRANGE", redis->key, first, last, "COUNT", count};
    redisReply *page = call(redis, REDIS_REPLY_ARRAY, 6, words, NULL, error);
    if (!page || stream_entries_are_range(page, from, to, redis->page))
        return page;
    (void)misunderstand(redis, words[0], error);
    freeReplyObject(page);
    return NULL;
}

/* ---- entries of a reply ---- */

static const char *text_field(const redisReply *fields, const char *name)
{
    const redisReply *value = stream_entry_field(fields, name);
    return value && value->len > 0 ? value->str : NULL;
}

static bool take_entry(const struct dead_id *id, const redisReply *fields, dead_letter_take *take, void *context)
{
    char added[CLOCK_TEXT_SIZE];
    const redisReply *message = stream_entry_field(fields, "message");
    const char *at = text_field(fields, "at");
    clock_format_wall((int64_t)(id->major & INT64_MAX), added);
    return take(context, &(struct dead_letter){
                             .id = *id,
                             .outcome = text_field(fields, "outcome"),
                             .reason = text_field(fields, "reason"),
                             .sqlstate = text_field(fields, "sqlstate"),
                             .error = text_field(fields, "error"),
                             .interview_id = text_field(fields, "interview_id"),
                             .prompt_id = text_field(fields, "prompt_id"),
                             .died = at ? at : added,
                             .has_message = message != NULL,
                             .size = message ? (uint64_t)message->len : 0,
                         });
}

/* ---- opening ---- */

static void close_redis(struct dead_store *store)
{
    struct dead_redis *redis = redis_of(store);
    freeReplyObject(redis->borrowed);
    redis_client_close(&redis->client);
    free(redis->key);
    free(redis);
}

static size_t page_of(const struct settings *settings)
{
    int64_t fit = PAGE_BYTES / settings->message_max_bytes;
    return fit < 1 ? 1 : fit > PAGE_MAX ? PAGE_MAX : (size_t)fit;
}

static struct dead_store *open_redis(const struct ctl *ctl, struct error *error)
{
    struct dead_redis *redis = calloc(1, sizeof *redis);
    if (!redis) {
        (void)error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    redis->store.ops = &dead_redis;
    redis->settings = &ctl->settings;
    redis->page = page_of(&ctl->settings);
    redis->key = mode_key(&ctl->settings, ":dead");
    bool good = redis->key || error_set(error, ERROR_INTERNAL, "out of memory");
    if (good && redis_client_open(&redis->client, &ctl->settings, error))
        return &redis->store;
    close_redis(&redis->store);
    return NULL;
}

/* ---- reading ---- */

static bool count_letters(struct dead_store *store, uint64_t *count, struct dead_id *last, struct error *error)
{
    struct dead_redis *redis = redis_of(store);
    const char *const length[] = {"XLEN", redis->key};
    const char *const newest[] = {"XREVRANGE", redis->key, "+", "-", "COUNT", "1"};
    const redisReply *fields;
    *last = (struct dead_id){0};
    redisReply *reply = call(redis, REDIS_REPLY_INTEGER, 2, length, NULL, error);
    if (!reply)
        return false;
    *count = reply->integer > 0 ? (uint64_t)reply->integer : 0;
    freeReplyObject(reply);
    reply = call(redis, REDIS_REPLY_ARRAY, 6, newest, NULL, error);
    if (!reply)
        return false;
    bool good = reply->elements == 0 || stream_entry_parts(reply->element[0], last, &fields) ||
                misunderstand(redis, newest[0], error);
    if (reply->elements == 0)
        *count = 0;
    freeReplyObject(reply);
    return good;
}

/* A page; `*from` moves behind it. `*more` is false where it was the last one, or take has had enough. */
static bool read_page(struct dead_redis *redis, struct dead_id *from, const struct dead_id *to, bool *more,
                      dead_letter_take *take, void *context, struct error *error)
{
    struct dead_id id = *from;
    const redisReply *fields;
    redisReply *page = read_range(redis, from, to, error);
    if (!page)
        return false;
    *more = page->elements > 0;
    for (size_t i = 0; i < page->elements && *more; i++) {
        *more = stream_entry_parts(page->element[i], &id, &fields) && take_entry(&id, fields, take, context) &&
                !stream_id_is_same(&id, to);
        *from = stream_id_next(&id);
    }
    freeReplyObject(page);
    return true;
}

/* Those that are there now, or a flood would have no end. */
static bool read_letters(struct dead_store *store, const struct dead_id *only, dead_letter_take *take, void *context,
                         struct error *error)
{
    struct dead_id from = {0};
    struct dead_id to = {0};
    uint64_t count;
    bool more = true;
    if (only)
        from = to = *only;
    else if (!count_letters(store, &count, &to, error))
        return false;
    while (more) {
        if (!read_page(redis_of(store), &from, &to, &more, take, context, error))
            return false;
    }
    return true;
}

static bool get_message(struct dead_store *store, const struct dead_id *id, const char **bytes, size_t *length,
                        struct error *error)
{
    struct dead_redis *redis = redis_of(store);
    struct dead_id found;
    const redisReply *fields;
    const redisReply *message = NULL;
    freeReplyObject(redis->borrowed);
    redis->borrowed = read_range(redis, id, id, error);
    if (!redis->borrowed)
        return false;
    if (redis->borrowed->elements == 1 && stream_entry_parts(redis->borrowed->element[0], &found, &fields))
        message = stream_entry_field(fields, "message");
    if (!message)
        return error_set(error, ERROR_NONE, "somebody has dropped or replayed this dead letter just now");
    *bytes = message->str;
    *length = message->len;
    return true;
}

/* ---- changing ---- */

/* How many letters the command has deleted. */
static bool drop_by(struct dead_redis *redis, int argc, const char *const *argv, size_t *dropped, struct error *error)
{
    redisReply *reply = call(redis, REDIS_REPLY_INTEGER, argc, argv, NULL, error);
    bool good = reply && (reply->integer >= 0 || misunderstand(redis, argv[0], error));
    if (good)
        *dropped += (size_t)reply->integer;
    freeReplyObject(reply);
    return good;
}

static bool drop(struct dead_redis *redis, const struct dead_choice *choice, size_t *dropped, struct error *error)
{
    char text[DEAD_ID_SIZE];
    if (!choice->ids) {
        const struct dead_id end = stream_id_next(&choice->last);
        const char *const trim[] = {"XTRIM", redis->key, "MINID", "=", text};
        stream_id_format(&end, text);
        return drop_by(redis, 5, trim, dropped, error);
    }
    const char *const delete[] = {"XDEL", redis->key, text};
    for (size_t i = 0; i < choice->count; i++) {
        stream_id_format(&choice->ids[i], text);
        if (!drop_by(redis, 3, delete, dropped, error))
            return false;
    }
    return true;
}

/*
 * KEYS: dead letters, queue; ARGV: first and last id, how many at most, the words that send a message. Returns how many
 * letters were replayed, how many have no message, the id of the last one if there was any, and why the queue does not
 * take it, if it does not. One step of Redis's: no letter is replayed twice, whoever else is at it. The first command
 * changes nothing: it shows that letters can be deleted, and once a script has written, a full Redis takes everything.
 */
static const char replay_script[] =
    "redis.call('XDEL', KEYS[1], '0-0')\n"
    "local replayed, without, last = 0, 0, nil\n"
    "local send = {ARGV[4], KEYS[2], unpack(ARGV, 5)}\n"
    "for _, letter in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do\n"
    "  local fields, message = letter[2], nil\n"
    "  for i = 1, #fields, 2 do message = fields[i] == 'message' and fields[i + 1] or message end\n"
    "  send[#ARGV - 1], last = message, letter[1]\n"
    "  local answer = message and redis.pcall(unpack(send))\n"
    "  if type(answer) == 'table' and answer.err then return {replayed, without, last, answer.err} end\n"
    "  if message then redis.call('XDEL', KEYS[1], last) end\n"
    "  replayed, without = replayed + (message and 1 or 0), without + (message and 0 or 1)\n"
    "end\n"
    "return {replayed, without, last}";

/* What the script says; `*from` moves behind the last letter. `*more` is false where there was none. */
static bool read_replay(struct dead_redis *redis, const redisReply *reply, struct dead_id *from,
                        const struct dead_id *to, bool *more, struct dead_result *result, struct error *error)
{
    struct dead_id last;
    redisReply *const *parts = reply->element;
    *more = reply->elements > 2;
    bool good = reply->elements >= 2 && parts[0]->type == REDIS_REPLY_INTEGER && parts[0]->integer >= 0 &&
                parts[1]->type == REDIS_REPLY_INTEGER && parts[1]->integer >= 0;
    if (good && *more)
        good = parts[2]->type == REDIS_REPLY_STRING && stream_id_parse(parts[2]->str, &last) &&
               !stream_id_is_before(&last, from) && !stream_id_is_before(to, &last);
    if (!good)
        return misunderstand(redis, "EVAL", error);
    result->changed += (size_t)parts[0]->integer;
    result->without_message += (size_t)parts[1]->integer;
    if (reply->elements > 3)
        return error_set(error, ERROR_CONFIG, "%.128s does not take messages, so they stay dead letters: %.200s",
                         redis->settings->redis_channel,
                         parts[3]->type == REDIS_REPLY_STRING ? parts[3]->str : "it does not say why");
    if (*more) {
        *more = !stream_id_is_same(&last, to);
        *from = stream_id_next(&last);
    }
    return true;
}

static bool replay_range(struct dead_redis *redis, struct dead_id from, const struct dead_id *to,
                         struct dead_result *result, struct error *error)
{
    char first[DEAD_ID_SIZE];
    char last[DEAD_ID_SIZE];
    char count[24];
    const struct mode *mode = mode_of(redis->settings);
    const char *const words[] = {"EVAL",
                                 replay_script,
                                 "2",
                                 redis->key,
                                 redis->settings->redis_channel,
                                 first,
                                 last,
                                 count,
                                 mode->command,
                                 mode->before_message[0],
                                 mode->before_message[1]};
    int argc = mode->before_message[0] ? 11 : 9;
    bool good = true;
    bool more = true;
    stream_id_format(to, last);
    (void)snprintf(count, sizeof count, "%zu", redis->page);
    while (good && more) {
        stream_id_format(&from, first);
        redisReply *reply = call(redis, REDIS_REPLY_ARRAY, argc, words, NULL, error);
        good = reply && read_replay(redis, reply, &from, to, &more, result, error);
        freeReplyObject(reply);
    }
    return good;
}

/* A queue of another type has a better explanation than the script's. An account that may not ask finds out there. */
static bool check_queue_type(struct dead_redis *redis, struct error *error)
{
    char type[MODE_TYPE_SIZE];
    bool asked = mode_ask_type(&redis->client, redis->settings->redis_channel, type, error);
    return asked ? mode_fits_type(redis->settings, type, error) : error->code == ERROR_CONFIG;
}

static bool change(struct dead_store *store, bool replay, const struct dead_choice *choice, struct dead_result *result,
                   struct error *error)
{
    struct dead_redis *redis = redis_of(store);
    if (!replay)
        return drop(redis, choice, &result->changed, error);
    if (!check_queue_type(redis, error))
        return false;
    if (!choice->ids)
        return replay_range(redis, (struct dead_id){0}, &choice->last, result, error);
    for (size_t i = 0; i < choice->count; i++) {
        if (!replay_range(redis, choice->ids[i], &choice->ids[i], result, error))
            return false;
    }
    return true;
}

const struct dead_ops dead_redis = {
    .parse_id = stream_id_parse,
    .format_id = stream_id_format,
    .open = open_redis,
    .close = close_redis,
    .read = read_letters,
    .get_message = get_message,
    .count = count_letters,
    .change = change,
};
