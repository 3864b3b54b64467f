/* SPDX-License-Identifier: MIT */
/*
 * A stream as a source: the consumer group promptd on redis_channel.
 *
 *     XREADGROUP … > ─▶ pending for us ─▶ outcome ─▶ XACK and XDEL (and XADD to the dead)
 *                          │ XCLAIM … JUSTID every ten seconds: nobody else takes it
 *                          └ idle for 45 s: whoever looks first claims it
 *
 * How often an entry was delivered Redis counts itself.
 */
#include "promptd/source_stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "queue.h"

#define GROUP "promptd"
/* Behind every entry. (The highest of all is what Redis makes of > itself: a read of it would take a message.) */
#define BEHIND_ALL "18446744073709551615-18446744073709551614"

enum { KEY_STREAM = QUEUE_KEY_MAIN, KEY_DEAD = QUEUE_KEY_DEAD };

enum {
    CALL_GROUP = QUEUE_CALLS, /* behind the engine's */
    CALL_GROUPS,
    CALL_VERIFY,
    CALL_LOST,
    CALL_READ,
    CALL_KEEP,
    CALL_IDLE,
    CALL_CLAIM,
    CALL_FIGURES,
    CALL_LENGTH,
    CALL_DEAD,
    CALL_REMOVE,
    CALL_SELF,
    CALL_MINE
};

enum { PAGE = QUEUE_PAGE, GIVEN_BACK_IDLE_MS = 24 * 60 * 60 * 1000, GONE_MS = 120000 };

static bool init(struct queue *queue)
{
    static const char *const suffixes[] = {[KEY_STREAM] = "", [KEY_DEAD] = ":dead", NULL};
    queue->only_group = true;
    return queue_name_keys(queue, suffixes);
}

static void begin(struct queue_command *command, const char *name, const struct queue *queue)
{
    queue_command_begin(command, name);
    queue_command_add(command, queue->keys[KEY_STREAM]);
    queue_command_add(command, GROUP);
}

static void begin_read(struct queue_command *command, const struct queue *queue, size_t count)
{
    queue_command_begin(command, "XREADGROUP");
    queue_command_add(command, "GROUP");
    queue_command_add(command, GROUP);
    queue_command_add(command, queue->consumer);
    queue_command_add(command, "COUNT");
    queue_command_add_number(command, (int64_t)count);
}

static void end_read(struct queue_command *command, const struct queue *queue, const char *from)
{
    queue_command_add(command, "STREAMS");
    queue_command_add(command, queue->keys[KEY_STREAM]);
    queue_command_add(command, from);
}

/* For ourselves, what has been idle for so long. */
static void begin_claim(struct queue_command *command, const struct queue *queue, int64_t idle_ms)
{
    begin(command, "XCLAIM", queue);
    queue_command_add(command, queue->consumer);
    queue_command_add_number(command, idle_ms);
}

/* --- entries ---------------------------------------------------------------------------------------------------- */

/* [id, [field, value, …]]; the payload is the field `message`. false: the entry was deleted, and is pending still. */
static bool read_entry(const redisReply *entry, struct queue_item *item)
{
    const redisReply *fields = queue_array(entry, 1);
    *item = (struct queue_item){.id = "", .bytes = ""};
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements < 1 || entry->element[0]->type != REDIS_REPLY_STRING)
        return false;
    item->id = entry->element[0]->str;
    for (size_t i = 0; fields && i + 1 < fields->elements; i += 2) {
        const redisReply *name = fields->element[i];
        const redisReply *value = fields->element[i + 1];
        if (name->type != REDIS_REPLY_STRING || name->len != 7 || memcmp(name->str, "message", 7) != 0)
            continue;
        item->bytes = value->type == REDIS_REPLY_STRING ? value->str : NULL; /* a number: it was not read */
        item->length = value->type == REDIS_REPLY_STRING ? value->len : (size_t)value->integer;
        break;
    }
    return fields;
}

/* What was deleted from the stream by others can only be forgotten. */
static void forget_deleted(struct queue *queue, const char *id)
{
    struct queue_command command;
    log_warning(LOG_FIELDS(log_text("id", id)), "an entry was deleted from the stream before it had an outcome");
    begin(&command, "XACK", queue);
    queue_command_add(&command, id);
    queue_send(queue, queue->worker, &command, 0, NULL);
}

typedef void (*entry_visitor)(struct queue *queue, const struct queue_item *item);

/* Returns how many there were. */
static size_t each_entry(struct queue *queue, const redisReply *entries, entry_visitor visit)
{
    struct queue_item item;
    size_t count = 0;
    for (size_t i = 0; entries && i < entries->elements; i++) {
        if (read_entry(entries->element[i], &item)) {
            visit(queue, &item);
            count++;
        } else if (item.id[0]) {
            forget_deleted(queue, item.id);
        }
    }
    return count;
}

/* [[key, entries]] */
static const redisReply *entries_of(const redisReply *reply)
{
    const redisReply *stream = queue_array(reply, 0);
    return stream ? queue_array(stream, 1) : NULL;
}

/* --- setting up --------------------------------------------------------------------------------------------------- */

/* XINFO GROUPS: a list of name and value in turn, for each group. */
static const redisReply *field_of(const redisReply *map, const char *name)
{
    for (size_t i = 0; i + 1 < map->elements; i += 2)
        if (map->element[i]->type == REDIS_REPLY_STRING && strcmp(map->element[i]->str, name) == 0)
            return map->element[i + 1];
    return NULL;
}

static uint64_t number_of(const redisReply *map, const char *name)
{
    const redisReply *value = field_of(map, name);
    return value && value->type == REDIS_REPLY_INTEGER && value->integer > 0 ? (uint64_t)value->integer : 0;
}

/* Where there are others they may not have read it yet: then trimming is theirs. */
static void note_groups(struct queue *queue, size_t groups)
{
    bool only = groups <= 1;
    if (only != queue->only_group)
        log_info(LOG_FIELDS(log_number("groups", groups)),
                 only ? "no other group reads the stream: entries are deleted after their outcome"
                      : "other groups read the stream: its entries stay there, and trimming them is theirs");
    queue->only_group = only;
}

static void read_groups(struct queue *queue, const redisReply *reply)
{
    queue_complain(queue, "to say which groups there are", reply);
    if (reply->type != REDIS_REPLY_ARRAY) { /* nobody knows: others may read it */
        queue->only_group = false;
        return;
    }
    note_groups(queue, reply->elements);
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *group = queue_array(reply, i);
        const redisReply *name = group ? field_of(group, "name") : NULL;
        if (!name || name->type != REDIS_REPLY_STRING || strcmp(name->str, GROUP) != 0)
            continue;
        const redisReply *lag = field_of(group, "lag"); /* from Redis 7.0 on */
        queue->status.pending = number_of(group, "pending");
        queue->status.consumers = number_of(group, "consumers");
        queue->knows_lag = lag && lag->type == REDIS_REPLY_INTEGER;
        if (queue->knows_lag)
            queue->status.backlog = number_of(group, "lag");
    }
}

static void on_groups(void *context, const redisReply *reply)
{
    read_groups(context, reply);
    queue_is_set_up(context);
}

static void ask_groups(struct queue *queue, int call, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    queue_command_begin(&command, "XINFO");
    queue_command_add(&command, "GROUPS");
    queue_command_add(&command, queue->keys[KEY_STREAM]);
    queue_send(queue, queue->worker, &command, call, on_reply);
}

static void on_group_made(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_ERROR && !queue_is_error(reply, "BUSYGROUP")) {
        queue_refused(queue, reply);
        return;
    }
    ask_groups(queue, CALL_GROUPS, on_groups);
}

static void set_up(struct queue *queue)
{
    struct queue_command command;
    queue_command_begin(&command, "XGROUP");
    queue_command_add(&command, "CREATE");
    queue_command_add(&command, queue->keys[KEY_STREAM]);
    queue_command_add(&command, GROUP);
    queue_command_add(&command, "0");
    queue_command_add(&command, "MKSTREAM");
    queue_send(queue, queue->worker, &command, CALL_GROUP, on_group_made);
}

/* --- verifying ---------------------------------------------------------------------------------------------------- */

static void take_lost(struct queue *queue, const struct queue_item *item)
{
    queue_take(queue, item, true);
}

/* XRANGE of one entry, and no XREADGROUP: to look counts as no delivery. */
static void on_lost_entry(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    const char *id = queue->lost[queue->lost_next++];
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 0)
        forget_deleted(queue, id);
    else if (reply->type == REDIS_REPLY_ARRAY)
        (void)each_entry(queue, reply, take_lost);
}

static void fetch_lost(struct queue *queue, const char *id)
{
    struct queue_command command;
    (void)snprintf(queue->lost[queue->lost_count++], QUEUE_ID_SIZE, "%s", id);
    queue_command_begin(&command, "XRANGE");
    queue_command_add(&command, queue->keys[KEY_STREAM]);
    queue_command_add(&command, id);
    queue_command_add(&command, id);
    queue_send(queue, queue->worker, &command, CALL_LOST, on_lost_entry);
}

static void ask_pending(struct queue *queue);

/* [[id, consumer, idle, deliveries], …]; the answers to what is fetched come before the next page. */
static void on_pending(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type != REDIS_REPLY_ARRAY) {
        queue_refused(queue, reply);
        return;
    }
    queue->lost_count = queue->lost_next = 0;
    for (size_t i = 0; i < reply->elements && i < PAGE; i++) {
        const redisReply *entry = queue_array(reply, i);
        if (!entry || entry->elements < 4 || entry->element[0]->type != REDIS_REPLY_STRING)
            continue;
        const char *id = entry->element[0]->str;
        (void)snprintf(queue->verify_from, sizeof queue->verify_from, "(%.*s", (int)sizeof queue->verify_from - 2, id);
        if (!queue_verify_id(queue, id))
            fetch_lost(queue, id);
    }
    if (reply->elements > 0)
        ask_pending(queue);
    else
        queue_verified(queue);
}

static void ask_pending(struct queue *queue)
{
    struct queue_command command;
    begin(&command, "XPENDING", queue);
    queue_command_add(&command, queue->verify_from[0] ? queue->verify_from : "-");
    queue_command_add(&command, "+");
    queue_command_add_number(&command, (int64_t)queue_page(queue));
    queue_command_add(&command, queue->consumer);
    queue_send(queue, queue->worker, &command, CALL_VERIFY, on_pending);
}

static void verify(struct queue *queue)
{
    queue->verify_from[0] = '\0';
    ask_pending(queue);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void take_entry(struct queue *queue, const struct queue_item *item)
{
    queue_take(queue, item, false);
}

static void on_read(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (queue_is_error(reply, "NOGROUP") || queue_is_error(reply, "UNBLOCKED"))
        queue_make_anew(queue);
    else if (reply->type == REDIS_REPLY_ERROR)
        queue_reader_refused(queue, reply);
    else
        queue_read_done(queue, each_entry(queue, entries_of(reply), take_entry));
}

static void read_stream(struct queue *queue, size_t count)
{
    struct queue_command command;
    begin_read(&command, queue, count);
    queue_command_add(&command, "BLOCK");
    queue_command_add_number(&command, QUEUE_BLOCK_MS);
    end_read(&command, queue, ">");
    queue_send(queue, queue->reader, &command, CALL_READ, on_read);
}

/* --- after the outcome ----------------------------------------------------------------------------------------------
 */

/* Without a transaction what is deleted and not acknowledged is found again, and forgotten then; not the reverse. */
static void forget(struct queue *queue, int call, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command acknowledge;
    struct queue_command delete;
    struct queue_entry *entry;
    begin(&acknowledge, "XACK", queue);
    queue_command_begin(&delete, "XDEL");
    queue_command_add(&delete, queue->keys[KEY_STREAM]);
    TAILQ_FOREACH(entry, &queue->acking, link)
    {
        queue_command_add(&acknowledge, entry->id);
        queue_command_add(&delete, entry->id);
        if (entry->is_dead)
            queue_send_dead(queue, entry, queue->keys[KEY_DEAD]);
    }
    if (queue->only_group)
        queue_send(queue, queue->worker, &delete, 0, NULL);
    queue_send(queue, queue->worker, &acknowledge, call, on_reply);
}

/* --- who lives ---------------------------------------------------------------------------------------------------- */

static void on_kept(void *context, const redisReply *reply)
{
    if (queue_is_error(reply, "MOVED "))
        queue_refused(context, reply);
    queue_complain(context, "to keep what is held", reply);
}

/* A read of nothing: whoever has not been heard of for long, and holds nothing, is removed. */
static void show_up(struct queue *queue)
{
    struct queue_command command;
    begin_read(&command, queue, 1);
    end_read(&command, queue, BEHIND_ALL);
    queue_send(queue, queue->worker, &command, CALL_KEEP, on_kept);
}

/* XCLAIM to ourselves sets the idle time to 0, and with JUSTID counts as no delivery. */
static void keep_alive(struct queue *queue)
{
    struct queue_command command;
    const struct queue_entry *entry = TAILQ_FIRST(&queue->held);
    if (!entry)
        show_up(queue);
    while (entry) {
        begin_claim(&command, queue, 0);
        int without = command.argc;
        for (; entry && command.argc < QUEUE_BATCH_MAX; entry = TAILQ_NEXT(entry, link))
            if (!entry->is_foreign)
                queue_command_add(&command, entry->id);
        if (command.argc == without)
            return;
        queue_command_add(&command, "JUSTID");
        queue_send(queue, queue->worker, &command, CALL_KEEP, on_kept);
    }
}

/* Consumers that hold nothing are removed, atomically, for what is pending for a consumer goes with it: ourselves, or
 * those of whom nothing was heard for long. */
static const char REMOVE_CONSUMERS[] =
    "for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do\n"
    "  local field = {}\n"
    "  for i = 1, #consumer, 2 do field[consumer[i]] = consumer[i + 1] end\n"
    "  local gone = field.idle >= tonumber(ARGV[3])\n"
    "  if ARGV[4] == 'self' then gone = field.name == ARGV[2] end\n"
    "  if field.pending == 0 and gone then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], field.name) end\n"
    "end\n"
    "return 0";

static void remove_consumers(struct queue *queue, const char *which, int call,
                             void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    char idle[16];
    (void)snprintf(idle, sizeof idle, "%d", GONE_MS);
    queue_command_begin(&command, "EVAL");
    queue_command_add(&command, REMOVE_CONSUMERS);
    queue_command_add(&command, "1");
    queue_command_add(&command, queue->keys[KEY_STREAM]);
    queue_command_add(&command, GROUP);
    queue_command_add(&command, queue->consumer);
    queue_command_add(&command, idle);
    queue_command_add(&command, which);
    queue_send(queue, queue->worker, &command, call, on_reply);
}

/* --- the dead -------------------------------------------------------------------------------------------------------
 */

static void take_claimed(struct queue *queue, const struct queue_item *item)
{
    for (size_t i = 0; i < queue->poison_count; i++) {
        if (strcmp(queue->poison[i], item->id) == 0) {
            queue_bury(queue, item);
            return;
        }
    }
    queue_take(queue, item, true);
}

static void on_claimed(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    queue_complain(queue, "to take over what others have left", reply);
    if (reply->type == REDIS_REPLY_ARRAY)
        (void)each_entry(queue, reply, take_claimed);
}

/* Not what we hold ourselves: that is idle for so long only where keeping it was refused. */
static bool is_held(const struct queue *queue, const char *id)
{
    const struct queue_entry *entry;
    TAILQ_FOREACH(entry, &queue->held, link)
    if (strcmp(entry->id, id) == 0)
        return true;
    TAILQ_FOREACH(entry, &queue->done, link)
    if (strcmp(entry->id, id) == 0)
        return true;
    TAILQ_FOREACH(entry, &queue->acking, link)
    if (strcmp(entry->id, id) == 0)
        return true;
    return false;
}

/* [[id, consumer, idle, deliveries], …] */
static void on_idle(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_command command;
    queue_complain(queue, "to say what others have left", reply);
    begin_claim(&command, queue, QUEUE_TAKEOVER_MS);
    int without = command.argc;
    queue->poison_count = 0;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements && i < PAGE; i++) {
        const redisReply *entry = queue_array(reply, i);
        if (!entry || entry->elements < 4 || entry->element[0]->type != REDIS_REPLY_STRING ||
            is_held(queue, entry->element[0]->str))
            continue;
        const char *id = entry->element[0]->str;
        if (entry->element[3]->integer >= QUEUE_DELIVERIES_MAX)
            (void)snprintf(queue->poison[queue->poison_count++], QUEUE_ID_SIZE, "%s", id);
        queue_command_add(&command, id);
    }
    if (command.argc > without)
        queue_send(queue, queue->worker, &command, CALL_CLAIM, on_claimed);
}

static void on_figures(void *context, const redisReply *reply)
{
    read_groups(context, reply);
}

/* XLEN, where the group does not know its lag: what was acknowledged is not there any more. */
static void on_length(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (queue->knows_lag || reply->type != REDIS_REPLY_INTEGER)
        return;
    uint64_t length = (uint64_t)reply->integer;
    queue->status.backlog = length > queue->status.pending ? length - queue->status.pending : 0;
}

static void on_dead(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_INTEGER)
        queue->status.dead_letters = (uint64_t)reply->integer;
}

static void ask_length(struct queue *queue, const char *key, int call,
                       void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    queue_command_begin(&command, "XLEN");
    queue_command_add(&command, key);
    queue_send(queue, queue->worker, &command, call, on_reply);
}

static void on_removed(void *context, const redisReply *reply)
{
    queue_complain(context, "to remove consumers that are gone", reply);
}

static void look(struct queue *queue)
{
    struct queue_command command;
    size_t most = queue->room < queue_page(queue) ? queue->room : queue_page(queue);
    ask_groups(queue, CALL_FIGURES, on_figures);
    ask_length(queue, queue->keys[KEY_STREAM], CALL_LENGTH, on_length);
    ask_length(queue, queue->keys[KEY_DEAD], CALL_DEAD, on_dead);
    remove_consumers(queue, "others", CALL_REMOVE, on_removed);
    if (most == 0 || queue->is_stopped)
        return;
    begin(&command, "XPENDING", queue);
    queue_command_add(&command, "IDLE");
    queue_command_add_number(&command, QUEUE_TAKEOVER_MS);
    queue_command_add(&command, "-");
    queue_command_add(&command, "+");
    queue_command_add_number(&command, (int64_t)most);
    queue_send(queue, queue->worker, &command, CALL_IDLE, on_idle);
}

/* --- the end --------------------------------------------------------------------------------------------------------
 */

static void on_self_removed(void *context, const redisReply *reply)
{
    (void)reply;
    queue_given_back(context);
}

static void ask_mine(struct queue *queue);

/* What is pending for us becomes idle for a day: whoever looks next claims it. */
static void on_mine(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_command command;
    begin_claim(&command, queue, 0);
    int without = command.argc;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements && i < PAGE; i++) {
        const redisReply *entry = queue_array(reply, i);
        if (!entry || entry->elements < 1 || entry->element[0]->type != REDIS_REPLY_STRING)
            continue;
        queue_command_add(&command, entry->element[0]->str);
        (void)snprintf(queue->verify_from, sizeof queue->verify_from, "(%s", entry->element[0]->str);
    }
    if (command.argc == without) {
        remove_consumers(queue, "self", CALL_SELF, on_self_removed);
        return;
    }
    queue_command_add(&command, "IDLE");
    queue_command_add_number(&command, GIVEN_BACK_IDLE_MS);
    queue_command_add(&command, "RETRYCOUNT");
    queue_command_add(&command, "0"); /* whoever stops politely was not killed by it */
    queue_command_add(&command, "JUSTID");
    queue_send(queue, queue->worker, &command, 0, NULL);
    ask_mine(queue);
}

static void ask_mine(struct queue *queue)
{
    struct queue_command command;
    begin(&command, "XPENDING", queue);
    queue_command_add(&command, queue->verify_from[0] ? queue->verify_from : "-");
    queue_command_add(&command, "+");
    queue_command_add_number(&command, PAGE);
    queue_command_add(&command, queue->consumer);
    queue_send(queue, queue->worker, &command, CALL_MINE, on_mine);
}

static void give_back(struct queue *queue)
{
    queue->verify_from[0] = '\0';
    ask_mine(queue);
}

struct source *source_stream_new(const struct source_options *options)
{
    static const struct queue_kind kind = {
        .mode = "stream",
        .init = init,
        .set_up = set_up,
        .verify = verify,
        .read = read_stream,
        .forget = forget,
        .keep_alive = keep_alive,
        .look = look,
        .give_back = give_back,
    };
    return queue_new(options, &kind);
}
