/* SPDX-License-Identifier: MIT */
/*
 * A list as a source.
 *
 *     LPUSH ─▶ redis_channel ─BLMOVE, LMOVE─▶ {…}:processing:<consumer> ─▶ outcome ─▶ LREM (and XADD to the dead)
 *                   ▲ right end                        │
 *                   └──── by whoever finds that {…}:consumer:<consumer> has expired, in order, at once
 *
 * {…}:consumers names whoever takes messages. How often a message was put back is counted in {…}:deliveries, by its
 * SHA-1, for an hour.
 */
#include "promptd/source_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "queue.h"

enum {
    KEY_LIST = QUEUE_KEY_MAIN,
    KEY_DEAD = QUEUE_KEY_DEAD,
    KEY_CONSUMERS = QUEUE_KEY_FIRST,
    KEY_DELIVERIES,
    KEY_PROCESSING,
    KEY_ALIVE
};

enum {
    CALL_SET_UP = QUEUE_CALLS, /* behind the engine's */
    CALL_VERIFY,
    CALL_READ,
    CALL_KEEP,
    CALL_BACKLOG,
    CALL_DEAD,
    CALL_SCAN,
    CALL_MEMBERS,
    CALL_MEMBER,
    CALL_OWN,
    CALL_TAKE_OVER,
    CALL_GIVE_BACK
};

#define PROCESSING ":processing:"
#define ALIVE ":consumer:"

static bool init(struct queue *queue)
{
    char processing[QUEUE_NAME_SIZE + sizeof PROCESSING];
    char alive[QUEUE_NAME_SIZE + sizeof ALIVE];
    (void)snprintf(processing, sizeof processing, "%s%s", PROCESSING, queue->consumer);
    (void)snprintf(alive, sizeof alive, "%s%s", ALIVE, queue->consumer);
    const char *const suffixes[] = {[KEY_LIST] = "",
                                    [KEY_DEAD] = ":dead",
                                    [KEY_CONSUMERS] = ":consumers",
                                    [KEY_DELIVERIES] = ":deliveries",
                                    [KEY_PROCESSING] = processing,
                                    [KEY_ALIVE] = alive,
                                    NULL};
    return queue_name_keys(queue, suffixes);
}

static void begin(struct queue_command *command, const char *name, const char *key)
{
    queue_command_begin(command, name);
    queue_command_add(command, key);
}

/* false: the reply is no message. */
static bool read_item(const redisReply *reply, struct queue_item *item)
{
    *item = (struct queue_item){.id = ""};
    if (reply->type == REDIS_REPLY_STRING) {
        item->bytes = reply->str;
        item->length = reply->len;
        return true;
    }
    item->length = reply->type == REDIS_REPLY_INTEGER ? (size_t)reply->integer : 0; /* it was not read */
    return reply->type == REDIS_REPLY_INTEGER;
}

/* --- setting up --------------------------------------------------------------------------------------------------- */

static void keep_alive(struct queue *queue);

static void on_length(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_ERROR)
        queue_refused(queue, reply); /* WRONGTYPE: there is something else of that name */
    else
        queue_is_set_up(queue);
}

static void set_up(struct queue *queue)
{
    struct queue_command command;
    queue->members_left = 0; /* their answers were lost with the connection */
    keep_alive(queue);
    begin(&command, "LLEN", queue->keys[KEY_LIST]);
    queue_send(queue, queue->worker, &command, CALL_SET_UP, on_length);
}

static void on_kept(void *context, const redisReply *reply)
{
    if (queue_is_error(reply, "MOVED "))
        queue_refused(context, reply);
    queue_complain(context, "to note that promptd lives", reply);
}

static void keep_alive(struct queue *queue)
{
    struct queue_command command;
    begin(&command, "SADD", queue->keys[KEY_CONSUMERS]);
    queue_command_add(&command, queue->consumer);
    queue_send(queue, queue->worker, &command, CALL_KEEP, on_kept);
    begin(&command, "SET", queue->keys[KEY_ALIVE]);
    queue_command_add(&command, "1");
    queue_command_add(&command, "PX");
    queue_command_add_number(&command, QUEUE_TAKEOVER_MS);
    queue_send(queue, queue->worker, &command, CALL_KEEP, on_kept);
}

/* --- verifying ---------------------------------------------------------------------------------------------------- */

static void ask_page(struct queue *queue);

/* The oldest stand at the right. */
static void on_page(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_item item;
    if (reply->type == REDIS_REPLY_ERROR) {
        queue_refused(queue, reply);
        return;
    }
    size_t count = reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    for (size_t i = count; i > 0; i--)
        if (read_item(reply->element[i - 1], &item))
            queue_verify_one(queue, &item);
    queue->verified += count;
    if (count > 0)
        ask_page(queue);
    else
        queue_verified(queue);
}

static void ask_page(struct queue *queue)
{
    struct queue_command command;
    int64_t verified = (int64_t)queue->verified;
    begin(&command, "LRANGE", queue->keys[KEY_PROCESSING]);
    queue_command_add_number(&command, -verified - (int64_t)queue_page(queue));
    queue_command_add_number(&command, -verified - 1);
    queue_send(queue, queue->worker, &command, CALL_VERIFY, on_page);
}

static void verify(struct queue *queue)
{
    queue->verified = 0;
    ask_page(queue);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void send_moves(struct queue *queue, size_t count);

static void on_moved(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_item item;
    if (reply->type == REDIS_REPLY_ERROR) {
        queue_reader_refused(queue, reply);
        return;
    }
    bool was_blocking = queue->is_blocking;
    queue->is_blocking = false;
    queue->moves--;
    if (read_item(reply, &item)) {
        queue->moved++;
        queue_take(queue, &item, false);
    }
    if (queue->moves > 0)
        return;
    if (was_blocking && queue->moved > 0 && queue->reading > 1 && !queue->is_stopped) {
        send_moves(queue, queue->reading - 1);
        return;
    }
    queue->is_full = queue->moved == queue->reading;
    queue_read_done(queue, queue->moved);
}

static void send_moves(struct queue *queue, size_t count)
{
    struct queue_command command;
    begin(&command, "LMOVE", queue->keys[KEY_LIST]);
    queue_command_add(&command, queue->keys[KEY_PROCESSING]);
    queue_command_add(&command, "RIGHT");
    queue_command_add(&command, "LEFT");
    queue->moves = count;
    for (size_t i = 0; i < count; i++)
        queue_send(queue, queue->reader, &command, CALL_READ, on_moved);
}

/* Waits for one, and then takes what else is there; or goes on where there was as much as could be taken. */
static void read_list(struct queue *queue, size_t count)
{
    struct queue_command command;
    queue->moved = 0;
    queue->is_blocking = !queue->is_full;
    if (queue->is_full) {
        send_moves(queue, count);
        return;
    }
    queue->moves = 1;
    begin(&command, "BLMOVE", queue->keys[KEY_LIST]);
    queue_command_add(&command, queue->keys[KEY_PROCESSING]);
    queue_command_add(&command, "RIGHT");
    queue_command_add(&command, "LEFT");
    queue_command_add_number(&command, QUEUE_BLOCK_MS / 1000);
    queue_send(queue, queue->reader, &command, CALL_READ, on_moved);
}

/* --- after the outcome ----------------------------------------------------------------------------------------------
 */

/* One that was too large to be read is known by its length alone. */
static const char FORGET_LARGE[] = "for i = redis.call('LLEN', KEYS[1]) - 1, 0, -1 do\n"
                                   "  local message = redis.call('LINDEX', KEYS[1], i)\n"
                                   "  if message and #message == tonumber(ARGV[1]) then\n"
                                   "    redis.call('LSET', KEYS[1], i, ARGV[2])\n"
                                   "    return redis.call('LREM', KEYS[1], 1, ARGV[2])\n"
                                   "  end\n"
                                   "end\n"
                                   "return 0";

static void forget_large(struct queue *queue, const struct queue_entry *entry)
{
    struct queue_command command;
    queue_command_begin(&command, "EVAL");
    queue_command_add(&command, FORGET_LARGE);
    queue_command_add(&command, "1");
    queue_command_add(&command, queue->keys[KEY_PROCESSING]);
    queue_command_add_number(&command, (int64_t)entry->length);
    queue_command_add(&command, queue->consumer); /* no message: it is no JSON */
    queue_send(queue, queue->worker, &command, 0, NULL);
}

static void forget(struct queue *queue, int call, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    const struct queue_entry *entry;
    TAILQ_FOREACH(entry, &queue->acking, link)
    {
        if (entry->is_dead)
            queue_send_dead(queue, entry, queue->keys[KEY_DEAD]);
        if (entry->is_skipped) { /* always dead */
            forget_large(queue, entry);
            continue;
        }
        begin(&command, "LREM", queue->keys[KEY_PROCESSING]);
        queue_command_add(&command, "-1");
        queue_command_add_bytes(&command, entry->payload, entry->length);
        queue_send(queue, queue->worker, &command, call, TAILQ_NEXT(entry, link) ? NULL : on_reply);
    }
}

/* --- putting back ---------------------------------------------------------------------------------------------------
 */

/* Atomic: whoever looks meanwhile sees each message in one place. Returns how many were put back, how many were
 * delivered too often, and -1 where the consumer lives. */
static const char PUT_BACK[] =
    "local other = ARGV[5] == 'other'\n"
    "if other and redis.call('EXISTS', KEYS[1]) == 1 then return {-1, 0} end\n"
    "if not other then redis.call('DEL', KEYS[1]) end\n"
    "local moved, buried = 0, 0\n"
    "while true do\n"
    "  local message = redis.call('LINDEX', KEYS[2], 0)\n"
    "  if not message then break end\n"
    "  local times = 0\n"
    "  if other then times = redis.call('HINCRBY', KEYS[4], redis.sha1hex(message), 1) end\n"
    "  if times >= tonumber(ARGV[2]) then\n"
    "    if tonumber(ARGV[3]) > 0 then\n"
    "      redis.call('XADD', KEYS[5], 'MAXLEN', ARGV[3], '*', 'message', message, 'outcome', 'dropped',\n"
    "                 'error', 'delivered 5 times without an outcome', 'at', ARGV[4])\n"
    "    end\n"
    "    redis.call('HDEL', KEYS[4], redis.sha1hex(message))\n"
    "    redis.call('LPOP', KEYS[2])\n"
    "    buried = buried + 1\n"
    "  else\n"
    "    redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT')\n"
    "    moved = moved + 1\n"
    "  end\n"
    "end\n"
    "if other then redis.call('EXPIRE', KEYS[4], 3600) end\n"
    "redis.call('SREM', KEYS[6], ARGV[1])\n"
    "return {moved, buried}";

static void put_back(struct queue *queue, const char *consumer, const char *alive, const char *processing,
                     const char *whose, int call, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    char at[CLOCK_TEXT_SIZE];
    clock_format_wall(clock_wall_ms(), at);
    queue_command_begin(&command, "EVAL");
    queue_command_add(&command, PUT_BACK);
    queue_command_add(&command, "6");
    queue_command_add(&command, alive);
    queue_command_add(&command, processing);
    queue_command_add(&command, queue->keys[KEY_LIST]);
    queue_command_add(&command, queue->keys[KEY_DELIVERIES]);
    queue_command_add(&command, queue->keys[KEY_DEAD]);
    queue_command_add(&command, queue->keys[KEY_CONSUMERS]);
    queue_command_add(&command, consumer);
    queue_command_add_number(&command, QUEUE_DELIVERIES_MAX);
    queue_command_add_number(&command, (int64_t)queue->options.tuning.dead_max);
    queue_command_add(&command, at);
    queue_command_add(&command, whose);
    queue_send(queue, queue->worker, &command, call, on_reply);
}

static void on_given_back(void *context, const redisReply *reply)
{
    queue_complain(context, "to take back what is held", reply);
    queue_given_back(context);
}

static void give_back(struct queue *queue)
{
    put_back(queue, queue->consumer, queue->keys[KEY_ALIVE], queue->keys[KEY_PROCESSING], "own", CALL_GIVE_BACK,
             on_given_back);
}

/* --- the dead, and figures
 * -------------------------------------------------------------------------------------------- */

static long long number_at(const redisReply *reply, size_t index)
{
    bool has = reply->type == REDIS_REPLY_ARRAY && index < reply->elements;
    return has && reply->element[index]->type == REDIS_REPLY_INTEGER ? reply->element[index]->integer : 0;
}

static void on_taken_over(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    queue_complain(queue, "to take over what others have left", reply);
    long long moved = number_at(reply, 0);
    if (moved > 0) {
        queue->status.redelivered += (uint64_t)moved;
        log_info(LOG_FIELDS(log_number("messages", moved)), "what a consumer that is gone had taken waits again");
    }
    queue_buried(queue, (uint64_t)number_at(reply, 1));
}

/* "{channel}<infix><consumer>"; false: it does not fit. */
static bool name_of(const struct queue *queue, const char *infix, const char *consumer, char *name, size_t size)
{
    int length = snprintf(name, size, "{%s}%s%s", queue->options.channel, infix, consumer);
    return length > 0 && (size_t)length < size;
}

/* How much a consumer has taken; with what it has is decided whether it lives, by the script. */
static void on_member(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    queue->pending_sum += reply->type == REDIS_REPLY_INTEGER ? (uint64_t)reply->integer : 0;
    if (--queue->members_left == 0)
        queue->status.pending = queue->pending_sum;
}

/* What stands in our own list and is not known here was moved for a connection that is gone: it is asked for, should it
 * be there at two looks, for what a read has brought meanwhile is on its way. */
static void on_own(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    bool has_more = reply->type == REDIS_REPLY_INTEGER && (size_t)reply->integer > queue->entry_count;
    queue->has_released = queue->has_released || (has_more && queue->had_more);
    queue->had_more = has_more;
    on_member(context, reply);
}

static void look_at_member(struct queue *queue, const char *consumer)
{
    struct queue_command command;
    char processing[QUEUE_KEY_SIZE];
    char alive[QUEUE_KEY_SIZE];
    if (!name_of(queue, PROCESSING, consumer, processing, sizeof processing) ||
        !name_of(queue, ALIVE, consumer, alive, sizeof alive)) {
        queue->members_left--;
        return;
    }
    bool is_own = strcmp(consumer, queue->consumer) == 0;
    begin(&command, "LLEN", processing);
    queue_send(queue, queue->worker, &command, is_own ? CALL_OWN : CALL_MEMBER, is_own ? on_own : on_member);
    if (!is_own && !queue->is_stopped)
        put_back(queue, consumer, alive, processing, "other", CALL_TAKE_OVER, on_taken_over);
}

static void on_members(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type != REDIS_REPLY_ARRAY || queue->members_left > 0)
        return;
    queue->status.consumers = reply->elements;
    queue->members_left = reply->elements;
    queue->pending_sum = 0;
    for (size_t i = 0; i < reply->elements; i++) {
        if (reply->element[i]->type == REDIS_REPLY_STRING)
            look_at_member(queue, reply->element[i]->str);
        else
            queue->members_left--;
    }
}

static void on_backlog(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_INTEGER)
        queue->status.backlog = (uint64_t)reply->integer;
}

static void on_dead(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_INTEGER)
        queue->status.dead_letters = (uint64_t)reply->integer;
}

/* Lists whose consumer is not among the consumers: their names are put there, for the next look. */
static void on_scanned(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    const redisReply *found = queue_array(reply, 1);
    struct queue_command command;
    size_t prefix = strlen(queue->options.channel) + 2 + strlen(PROCESSING);
    if (!found || reply->element[0]->type != REDIS_REPLY_STRING)
        return;
    (void)snprintf(queue->scan_from, sizeof queue->scan_from, "%s", reply->element[0]->str);
    for (size_t i = 0; i < found->elements; i++) {
        const redisReply *key = found->element[i];
        if (key->type != REDIS_REPLY_STRING || key->len <= prefix)
            continue;
        begin(&command, "SADD", queue->keys[KEY_CONSUMERS]);
        queue_command_add(&command, key->str + prefix);
        queue_send(queue, queue->worker, &command, 0, NULL);
    }
}

/* A part of all keys each time. */
static void scan(struct queue *queue)
{
    struct queue_command command;
    char pattern[2 * QUEUE_KEY_SIZE];
    size_t used = 0;
    pattern[used++] = '{';
    for (const char *at = queue->options.channel; *at && used + 32 < sizeof pattern; at++) {
        if (strchr("*?[]^\\", *at))
            pattern[used++] = '\\';
        pattern[used++] = *at;
    }
    (void)snprintf(pattern + used, sizeof pattern - used, "}%s*", PROCESSING);
    begin(&command, "SCAN", queue->scan_from[0] ? queue->scan_from : "0");
    queue_command_add(&command, "MATCH");
    queue_command_add(&command, pattern);
    queue_command_add(&command, "COUNT");
    queue_command_add(&command, "500");
    queue_send(queue, queue->worker, &command, CALL_SCAN, on_scanned);
}

static void look(struct queue *queue)
{
    struct queue_command command;
    begin(&command, "LLEN", queue->keys[KEY_LIST]);
    queue_send(queue, queue->worker, &command, CALL_BACKLOG, on_backlog);
    begin(&command, "XLEN", queue->keys[KEY_DEAD]);
    queue_send(queue, queue->worker, &command, CALL_DEAD, on_dead);
    begin(&command, "SRANDMEMBER", queue->keys[KEY_CONSUMERS]);
    queue_command_add_number(&command, QUEUE_PAGE);
    queue_send(queue, queue->worker, &command, CALL_MEMBERS, on_members);
    scan(queue);
}

struct source *source_list_new(const struct source_options *options)
{
    static const struct queue_kind kind = {
        .mode = "list",
        .knows_no_deliveries = true,
        .init = init,
        .set_up = set_up,
        .verify = verify,
        .read = read_list,
        .forget = forget,
        .keep_alive = keep_alive,
        .look = look,
        .give_back = give_back,
    };
    return queue_new(options, &kind);
}
