/* SPDX-License-Identifier: MIT */
/*
 * The dead letters in Redis, for promptctl dead: the stream {redis_channel}:dead.
 *
 * What changes them is a transaction, and touches a key that nobody ever finds, for it is made and deleted in there.
 * A replay watches that key from before it reads until its transaction: if any other promptctl has changed letters
 * meanwhile it comes to nothing, and is begun again, so that no letter is replayed twice. The stream itself cannot be
 * watched instead: in a flood promptd adds to it all the time.
 */
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
    PAGE_MAX = 100,                /* letters */
    WORDS_MAX = 3 + 2 * 8,         /* of the command that makes a dead letter */
    ATTEMPTS_MAX = 100             /* at one transaction, before others are too many */
};

struct dead_redis {
    struct dead_store store; /* first */
    const struct settings *settings;
    struct redis_client client;
    char *key;
    char *change_key;
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

/* A command that is answered with OK, or QUEUED. */
static bool call_for_nothing(struct dead_redis *redis, int argc, const char *const *argv, struct error *error)
{
    redisReply *reply = call(redis, REDIS_REPLY_STATUS, argc, argv, NULL, error);
    freeReplyObject(reply);
    return reply != NULL;
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

static bool take_entry(const struct dead_id *id, const redisReply *fields, dead_store_take *take, void *context)
{
    char added[CLOCK_TEXT_SIZE];
    const redisReply *message = stream_entry_field(fields, "message");
    const char *at = text_field(fields, "at");
    clock_format_wall((int64_t)(id->major & INT64_MAX), added);
    return take(context, &(struct dead_entry){
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
    free(redis->change_key);
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
    redis->change_key = mode_key(&ctl->settings, ":dead:change");
    bool good = (redis->key && redis->change_key) || error_set(error, ERROR_INTERNAL, "out of memory");
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
                      dead_store_take *take, void *context, struct error *error)
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
static bool read_letters(struct dead_store *store, const struct dead_id *only, dead_store_take *take, void *context,
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

/* Ends a transaction, after it has touched the key that replays watch. NULL with *error; a nil reply: it was watched in
 * vain. */
static redisReply *execute(struct dead_redis *redis, struct error *error)
{
    const char *const set[] = {"SET", redis->change_key, ""};
    const char *const delete[] = {"DEL", redis->change_key};
    const char *const exec[] = {"EXEC"};
    struct error cause;
    if (!call_for_nothing(redis, 3, set, error) || !call_for_nothing(redis, 2, delete, error))
        return NULL;
    redisReply *reply = redis_client_call(&redis->client, 1, exec, NULL, &cause);
    if (!reply)
        (void)refuse(redis, exec[0], &cause, error);
    if (!reply || reply->type == REDIS_REPLY_ARRAY || reply->type == REDIS_REPLY_NIL)
        return reply;
    (void)misunderstand(redis, exec[0], error);
    freeReplyObject(reply);
    return NULL;
}

static bool begin(struct dead_redis *redis, struct error *error)
{
    const char *const multi[] = {"MULTI"};
    return call_for_nothing(redis, 1, multi, error);
}

/* How many letters the command has deleted, which is the first of the transaction. */
static bool drop_by(struct dead_redis *redis, int argc, const char *const *argv, size_t *dropped, struct error *error)
{
    redisReply *reply = begin(redis, error) && call_for_nothing(redis, argc, argv, error) ? execute(redis, error)
                                                                                          : NULL;
    if (!reply)
        return false;
    const redisReply *answer = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply->element[0] : reply;
    bool good = answer->type == REDIS_REPLY_INTEGER && answer->integer >= 0;
    if (good)
        *dropped += (size_t)answer->integer;
    else if (answer->type == REDIS_REPLY_ERROR)
        (void)error_set(error, ERROR_CONFIG, "dead letters in %.128s: %s: %.200s", redis->key, argv[0], answer->str);
    else
        (void)misunderstand(redis, argv[0], error);
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

/* Letters that go back into the queue in one transaction. */
struct replay {
    redisReply *page;
    bool is_last;
    size_t count;
    struct dead_id ids[PAGE_MAX];
    const redisReply *fields[PAGE_MAX];
};

/* Reads up to a page from `*from` on, under watch; `*from` moves behind it. Those without a message are only counted.
 */
static bool find_replay(struct dead_redis *redis, struct dead_id *from, const struct dead_id *to, struct replay *replay,
                        size_t *without_message, struct error *error)
{
    const char *const watch[] = {"WATCH", redis->change_key};
    struct dead_id id;
    const redisReply *fields;
    *replay = (struct replay){0};
    if (!call_for_nothing(redis, 2, watch, error))
        return false;
    replay->page = read_range(redis, from, to, error);
    replay->is_last = replay->page && replay->page->elements == 0;
    for (size_t i = 0; replay->page && i < replay->page->elements; i++) {
        (void)stream_entry_parts(replay->page->element[i], &id, &fields);
        *from = stream_id_next(&id);
        replay->is_last |= stream_id_is_same(&id, to);
        if (!stream_entry_field(fields, "message")) {
            ++*without_message;
            continue;
        }
        replay->ids[replay->count] = id;
        replay->fields[replay->count++] = fields;
    }
    return replay->page != NULL;
}

static bool queue_replay(struct dead_redis *redis, const struct replay *replay, struct error *error)
{
    char text[DEAD_ID_SIZE];
    const char *const delete[] = {"XDEL", redis->key, text};
    for (size_t i = 0; i < replay->count; i++) {
        const redisReply *message = stream_entry_field(replay->fields[i], "message");
        redisReply *queued = mode_send(&redis->client, redis->settings, message->str, message->len, error);
        bool is_queued = queued && (queued->type == REDIS_REPLY_STATUS || misunderstand(redis, "MULTI", error));
        freeReplyObject(queued);
        if (!is_queued)
            return false;
        stream_id_format(&replay->ids[i], text);
        if (!call_for_nothing(redis, 3, delete, error))
            return false;
    }
    return true;
}

/* The queue did not take it, and a transaction of Redis has no way back: it is a dead letter again, under a new id. */
static bool put_back(struct dead_redis *redis, const redisReply *fields, struct error *error)
{
    const char *words[WORDS_MAX] = {"XADD", redis->key, "*"};
    size_t lengths[WORDS_MAX] = {4, strlen(redis->key), 1};
    int count = 3;
    for (size_t i = 0; i < fields->elements && count < WORDS_MAX && fields->element[i]->type == REDIS_REPLY_STRING;
         i++) {
        words[count] = fields->element[i]->str;
        lengths[count++] = fields->element[i]->len;
    }
    redisReply *reply = call(redis, REDIS_REPLY_STRING, count, words, lengths, error);
    freeReplyObject(reply);
    return reply != NULL;
}

/* What the transaction has done: two answers for each letter, and two for the key that is watched. */
static bool judge_replay(struct dead_redis *redis, const struct replay *replay, const redisReply *reply,
                         size_t *replayed, struct error *error)
{
    bool good = reply->elements == 2 * replay->count + 2 || misunderstand(redis, "EXEC", error);
    for (size_t i = 0; i < replay->count && 2 * i < reply->elements; i++) {
        const redisReply *answer = reply->element[2 * i];
        if (answer->type != REDIS_REPLY_ERROR) {
            ++*replayed;
            continue;
        }
        good = false;
        if (!put_back(redis, replay->fields[i], error))
            return false;
        (void)error_set(error, ERROR_CONFIG, "%.128s does not take messages, so they stay dead letters: %.200s",
                        redis->settings->redis_channel, answer->str);
    }
    return good;
}

/* One transaction. `*done` is false where another promptctl was faster. */
static bool try_replay(struct dead_redis *redis, const struct replay *replay, bool *done, size_t *replayed,
                       struct error *error)
{
    *done = true;
    if (replay->count == 0)
        return true;
    redisReply *reply = begin(redis, error) && queue_replay(redis, replay, error) ? execute(redis, error) : NULL;
    if (!reply)
        return false;
    *done = reply->type == REDIS_REPLY_ARRAY;
    bool good = !*done || judge_replay(redis, replay, reply, replayed, error);
    freeReplyObject(reply);
    return good;
}

static bool replay_page(struct dead_redis *redis, struct dead_id *from, const struct dead_id *to, bool *more,
                        struct dead_result *result, struct error *error)
{
    for (unsigned attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
        struct replay replay;
        struct dead_id next = *from;
        size_t without = 0;
        bool done = false;
        bool good = find_replay(redis, &next, to, &replay, &without, error) &&
                    try_replay(redis, &replay, &done, &result->changed, error);
        *more = !replay.is_last;
        freeReplyObject(replay.page);
        if (!good)
            return false;
        if (done) {
            *from = next;
            result->without_message += without;
            return true;
        }
        clock_sleep_ms(attempt);
    }
    return error_set(error, ERROR_UNAVAILABLE, "others change the dead letters at the same time: try again later");
}

/* A queue of another type would refuse in the middle of a transaction. An account that may not ask finds out there. */
static bool check_queue_type(struct dead_redis *redis, struct error *error)
{
    char type[MODE_TYPE_SIZE];
    bool asked = mode_ask_type(&redis->client, redis->settings->redis_channel, type, error);
    return asked ? mode_fits_type(redis->settings, type, error) : error->code == ERROR_CONFIG;
}

static bool replay_range(struct dead_redis *redis, struct dead_id from, const struct dead_id *to,
                         struct dead_result *result, struct error *error)
{
    bool more = true;
    while (more) {
        if (!replay_page(redis, &from, to, &more, result, error))
            return false;
    }
    return true;
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
