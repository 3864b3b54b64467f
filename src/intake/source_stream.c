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
#include "promptd/source_open.h"

#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "queue.h"
#include "stream_scripts.h"

#define GROUP "promptd"
/* Behind every entry. (The highest of all is what Redis makes of > itself: a read of it would take a message.) */
#define BEHIND_ALL "18446744073709551615-18446744073709551614"

enum { KEY_STREAM = QUEUE_KEY_MAIN, KEY_DEAD = QUEUE_KEY_DEAD };

enum { GIVEN_BACK_IDLE_MS = 24 * 60 * 60 * 1000, GONE_MS = 120000 };

struct source_stream {
    struct queue queue;       /* first: the queue is this */
    bool only_group;          /* nobody else reads the stream */
    bool knows_lag;           /* Redis says how much nobody has read yet */
    size_t asked_idle;        /* entries of others that were asked for at most */
    bool has_more_idle;       /* than are being taken */
    char from[QUEUE_ID_SIZE]; /* where a walk over what is pending for us goes on; "": at its beginning */
};

static struct source_stream *stream_of(struct queue *queue)
{
    return (struct source_stream *)queue;
}

static bool init(struct queue *queue)
{
    static const char *const suffixes[] = {[KEY_STREAM] = "", [KEY_DEAD] = ":dead", NULL};
    stream_of(queue)->only_group = true;
    return queue_name_keys(queue, suffixes);
}

/* --- entries ------------------------------------------------------------------------------------------------------ */

enum found {
    FOUND_MESSAGE,
    FOUND_DELETED, /* the entry is pending, and not in the stream any more */
    FOUND_PART     /* the reply had no room for the rest */
};

/* [id, [field, value, …], …]; the payload is the field `message`. */
static enum found read_entry(const struct queue *queue, const redisReply *entry, struct queue_item *item)
{
    bool is_whole = true;
    *item = (struct queue_item){.id = "", .bytes = ""};
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements < 1 || entry->element[0]->type != REDIS_REPLY_STRING)
        return FOUND_PART;
    item->id = entry->element[0]->str;
    const redisReply *fields = queue_array(entry, 1);
    if (!fields)
        return entry->elements > 1 && entry->element[1]->type == REDIS_REPLY_INTEGER ? FOUND_PART : FOUND_DELETED;
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const redisReply *name = fields->element[i];
        const redisReply *value = fields->element[i + 1];
        is_whole = is_whole && name->type == REDIS_REPLY_STRING;
        if (name->type != REDIS_REPLY_STRING || name->len != 7 || memcmp(name->str, "message", 7) != 0)
            continue;
        item->bytes = value->type == REDIS_REPLY_STRING ? value->str : NULL;
        item->length = item->bytes ? value->len : queue_number(value); /* it was not read */
        return item->bytes || item->length > queue->bulk_max_bytes ? FOUND_MESSAGE : FOUND_PART;
    }
    return is_whole ? FOUND_MESSAGE : FOUND_PART;
}

/* What was deleted from the stream by others can only be forgotten. */
static void forget_deleted(struct queue *queue, const char *id)
{
    struct queue_command command;
    log_warning(LOG_FIELDS(log_text("id", id)), "an entry was deleted from the stream before it had an outcome");
    queue_command_begin(&command, "XACK", queue->keys[KEY_STREAM], GROUP, id);
    queue_links_ask(&queue->links, &command, NULL);
}

/* --- setting up --------------------------------------------------------------------------------------------------- */

/* Of XINFO GROUPS; NULL where it is not there, or nobody may ask. */
static const redisReply *own_group(const redisReply *reply)
{
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        const redisReply *group = queue_array(reply, i);
        const redisReply *name = group ? queue_field(group, "name") : NULL;
        if (name && name->type == REDIS_REPLY_STRING && strcmp(name->str, GROUP) == 0)
            return group;
    }
    return NULL;
}

/* Where there are other groups they may not have read it yet: then trimming is theirs. */
static void on_figures(void *context, const redisReply *reply)
{
    struct source_stream *stream = context;
    struct source_status *status = &stream->queue.status;
    bool is_known = reply->type == REDIS_REPLY_ARRAY;
    size_t groups = is_known ? reply->elements : 0;
    bool is_only = is_known && groups <= 1;
    queue_links_complain(&stream->queue.links, "to say which groups there are", reply);
    if (is_known && is_only != stream->only_group)
        log_info(LOG_FIELDS(log_number("groups", groups)),
                 is_only ? "no other group reads the stream: entries are deleted after their outcome"
                         : "other groups read the stream: its entries stay there, and trimming them is theirs");
    stream->only_group = is_only;
    const redisReply *group = own_group(reply);
    if (!group)
        return;
    const redisReply *lag = queue_field(group, "lag"); /* from Redis 7.0 on */
    status->pending = queue_number(queue_field(group, "pending"));
    status->consumers = queue_number(queue_field(group, "consumers"));
    stream->knows_lag = lag && lag->type == REDIS_REPLY_INTEGER;
    if (stream->knows_lag)
        status->backlog = queue_number(lag);
}

static void on_groups(void *context, const redisReply *reply)
{
    on_figures(context, reply);
    queue_is_set_up(context);
}

static void ask_groups(struct queue *queue, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    queue_command_begin(&command, "XINFO", "GROUPS", queue->keys[KEY_STREAM]);
    queue_links_ask(&queue->links, &command, on_reply);
}

static void on_group_made(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_ERROR && !queue_is_error(reply, "BUSYGROUP"))
        queue_links_refuse(&queue->links, queue->links.worker, reply);
    else
        ask_groups(queue, on_groups);
}

static void set_up(struct queue *queue)
{
    struct queue_command command;
    queue_command_begin(&command, "EVAL", stream_create_group_script, "1", queue->keys[KEY_STREAM], GROUP);
    queue_links_ask(&queue->links, &command, on_group_made);
}

/* --- fetching ----------------------------------------------------------------------------------------------------- */

static void begin_fetch(struct queue_command *command, const struct queue *queue, int64_t idle_ms)
{
    queue_command_begin(command, "EVAL", stream_fetch_script, "1", queue->keys[KEY_STREAM], GROUP, queue->consumer);
    queue_command_add_number(command, idle_ms);
}

static void on_fetched(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_item item;
    queue_links_complain(&queue->links, "to take over what others have left", reply);
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        const redisReply *entry = reply->element[i];
        enum found found = read_entry(queue, entry, &item);
        uint64_t deliveries = found == FOUND_MESSAGE ? queue_number(entry->element[entry->elements - 1]) : 0;
        if (found == FOUND_DELETED)
            forget_deleted(queue, item.id);
        else if (found == FOUND_PART)
            queue->has_released = true;
        else if (deliveries > QUEUE_DELIVERIES_MAX)
            queue_add_dead_letter(queue, &item);
        else
            queue_take(queue, &item, deliveries > 1);
    }
}

/* XPENDING: [[id, consumer, idle, deliveries], …]. Those that are not known are added to the command (NULL: all).
 * Returns the id of the last, or NULL. */
static const char *add_pending(struct queue *queue, const redisReply *reply, struct queue_command *command,
                               bool (*is_known)(struct queue_entries *entries, const struct queue_item *item))
{
    const char *last = NULL;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements && i < QUEUE_PAGE; i++) {
        const redisReply *entry = queue_array(reply, i);
        if (!entry || entry->elements < 1 || entry->element[0]->type != REDIS_REPLY_STRING)
            continue;
        const struct queue_item item = {.id = entry->element[0]->str};
        last = item.id;
        if (!is_known || !is_known(&queue->entries, &item))
            queue_command_add(command, item.id);
    }
    return last;
}

/* --- verifying ---------------------------------------------------------------------------------------------------- */

static void ask_own(struct source_stream *stream, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    struct queue *queue = &stream->queue;
    queue_command_begin(&command, "XPENDING", queue->keys[KEY_STREAM], GROUP, stream->from[0] ? stream->from : "-",
                        "+");
    queue_command_add_number(&command, (int64_t)queue_page(queue));
    queue_command_add(&command, queue->consumer);
    queue_links_ask(&queue->links, &command, on_reply);
}

static void on_pending(void *context, const redisReply *reply)
{
    struct source_stream *stream = context;
    struct queue *queue = &stream->queue;
    struct queue_command command;
    if (reply->type != REDIS_REPLY_ARRAY) {
        queue_links_refuse(&queue->links, queue->links.worker, reply);
        return;
    }
    begin_fetch(&command, queue, 0);
    int without = command.argc;
    const char *last = add_pending(queue, reply, &command, queue_entries_compare);
    if (command.argc > without)
        queue_links_ask(&queue->links, &command, on_fetched);
    if (last) {
        (void)snprintf(stream->from, sizeof stream->from, "(%s", last);
        ask_own(stream, on_pending);
    } else {
        queue_verified(queue);
    }
}

static void verify(struct queue *queue)
{
    stream_of(queue)->from[0] = '\0';
    ask_own(stream_of(queue), on_pending);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* [[key, entries]] */
static void on_read(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_item item;
    const redisReply *stream = queue_array(reply, 0);
    const redisReply *entries = stream ? queue_array(stream, 1) : NULL;
    if (queue_is_error(reply, "NOGROUP") || queue_is_error(reply, "UNBLOCKED")) {
        queue_make_anew(queue);
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        queue_links_refuse(&queue->links, queue->links.reader, reply);
        return;
    }
    for (size_t i = 0; entries && i < entries->elements; i++) {
        if (read_entry(queue, entries->element[i], &item) == FOUND_MESSAGE)
            queue_take(queue, &item, false);
        else
            queue_doubt(queue); /* it is fetched by itself */
    }
    queue_read_done(queue, entries ? entries->elements : 0);
}

/* Without block_ms it waits for nothing. */
static void begin_read(struct queue_command *command, const struct queue *queue, size_t count, int64_t block_ms,
                       const char *from)
{
    queue_command_begin(command, "XREADGROUP", "GROUP", GROUP, queue->consumer, "COUNT");
    queue_command_add_number(command, (int64_t)count);
    if (block_ms > 0) {
        queue_command_add(command, "BLOCK");
        queue_command_add_number(command, block_ms);
    }
    queue_command_add(command, "STREAMS");
    queue_command_add(command, queue->keys[KEY_STREAM]);
    queue_command_add(command, from);
}

static void read_stream(struct queue *queue, size_t count)
{
    struct queue_command command;
    begin_read(&command, queue, count, QUEUE_BLOCK_MS, ">");
    queue_links_read(&queue->links, &command, on_read);
}

/* --- after the outcome -------------------------------------------------------------------------------------------- */

static void begin_forget(struct queue_command *command, const struct queue *queue, const char *script)
{
    const struct source_stream *stream = (const struct source_stream *)queue;
    queue_command_begin(command, "EVAL", script, "2", queue->keys[KEY_STREAM], queue->keys[KEY_DEAD]);
    queue_command_add_number(command, (int64_t)queue->options.tuning.dead_max);
    queue_command_add(command, GROUP);
    queue_command_add(command, stream->only_group ? "delete" : "leave");
}

/* Those that ended well together, as far as they follow each other. */
static void forget(struct queue *queue)
{
    struct queue_command command;
    struct queue_entry *entry = queue_entries_first(&queue->entries, QUEUE_ENTRY_ACKING);
    while (entry) {
        struct queue_entry *last = entry;
        begin_forget(&command, queue, entry->is_dead ? stream_dead_letter_script : stream_forget_script);
        queue_command_add(&command, entry->id);
        if (entry->is_dead)
            queue_entry_add_letter(entry, &command);
        while (!last->is_dead && (entry = TAILQ_NEXT(last, link)) && !entry->is_dead) {
            queue_command_add(&command, entry->id);
            last = entry;
        }
        entry = TAILQ_NEXT(last, link);
        queue_forget(queue, &command, last);
    }
}

/* --- who lives ---------------------------------------------------------------------------------------------------- */

/* XCLAIM to ourselves sets the idle time to 0, and with JUSTID counts as no delivery: also for what is done, for Redis
 * may refuse to forget it. Who holds nothing reads nothing: whoever has not been heard of for long, and holds nothing,
 * is removed. */
static void keep_alive(struct queue *queue)
{
    struct queue_command command;
    const struct queue_entry *entry = queue_entries_next(&queue->entries, NULL);
    if (!entry) {
        begin_read(&command, queue, 1, 0, BEHIND_ALL);
        queue_links_ask(&queue->links, &command, queue_on_kept);
    }
    while (entry) {
        queue_command_begin(&command, "XCLAIM", queue->keys[KEY_STREAM], GROUP, queue->consumer, "0");
        int without = command.argc;
        for (; entry && command.argc < QUEUE_BATCH_MAX; entry = queue_entries_next(&queue->entries, entry))
            if (!entry->is_foreign)
                queue_command_add(&command, entry->id);
        if (command.argc == without)
            return;
        queue_command_add(&command, "JUSTID");
        queue_links_ask(&queue->links, &command, queue_on_kept);
    }
}

static void remove_consumers(struct queue *queue, const char *which,
                             void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    queue_command_begin(&command, "EVAL", stream_remove_consumers_script, "1", queue->keys[KEY_STREAM], GROUP,
                        queue->consumer);
    queue_command_add_number(&command, GONE_MS);
    queue_command_add(&command, which);
    queue_links_ask(&queue->links, &command, on_reply);
}

/* --- the dead ----------------------------------------------------------------------------------------------------- */

/* Nothing: another was faster, and takes the rest. */
static void on_taken_over(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    bool has_some = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0;
    on_fetched(queue, reply);
    queue_taken_over(queue, has_some && stream_of(queue)->has_more_idle);
}

/* What we hold ourselves is idle for so long only where keeping it was refused. */
static void on_idle(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_command command;
    size_t found = reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    queue_links_complain(&queue->links, "to say what others have left", reply);
    begin_fetch(&command, queue, QUEUE_TAKEOVER_MS);
    int without = command.argc;
    bool has_room = queue_readable(queue) > 0;
    if (has_room)
        (void)add_pending(queue, reply, &command, queue_entries_has);
    stream_of(queue)->has_more_idle = found >= stream_of(queue)->asked_idle;
    if (command.argc > without)
        queue_links_ask(&queue->links, &command, on_taken_over);
    else
        queue_taken_over(queue, found > 0 && !has_room);
}

/* Without room to know that there is something: it comes first then. */
static void take_over(struct queue *queue)
{
    struct queue_command command;
    size_t room = queue_readable(queue);
    if (queue->is_taking_over)
        return;
    queue->is_taking_over = true;
    stream_of(queue)->asked_idle = room == 0 ? 1 : room < queue_page(queue) ? room : queue_page(queue);
    queue_command_begin(&command, "XPENDING", queue->keys[KEY_STREAM], GROUP, "IDLE");
    queue_command_add_number(&command, QUEUE_TAKEOVER_MS);
    queue_command_add(&command, "-");
    queue_command_add(&command, "+");
    queue_command_add_number(&command, (int64_t)stream_of(queue)->asked_idle);
    queue_links_ask(&queue->links, &command, on_idle);
}

/* XLEN, where the group does not know its lag, or knows it wrong, as Redis 7 does once it has read its append-only
 * file: more cannot wait than is there and not pending. Without other groups that is just what waits. */
static void on_length(void *context, const redisReply *reply)
{
    struct source_stream *stream = context;
    struct source_status *status = &stream->queue.status;
    uint64_t length = queue_number(reply);
    uint64_t most = length > status->pending ? length - status->pending : 0;
    if (reply->type == REDIS_REPLY_INTEGER && (!stream->knows_lag || status->backlog > most))
        status->backlog = most;
}

static void on_removed(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    queue_links_complain(&queue->links, "to remove consumers that are gone", reply);
}

static void look(struct queue *queue)
{
    struct queue_command command;
    ask_groups(queue, on_figures);
    queue_command_begin(&command, "XLEN", queue->keys[KEY_STREAM]);
    queue_links_ask(&queue->links, &command, on_length);
    remove_consumers(queue, "others", on_removed);
    if (!queue->is_stopped)
        take_over(queue);
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static void on_self_removed(void *context, const redisReply *reply)
{
    (void)reply;
    queue_end(context);
}

/* What is pending for us becomes idle for a day: whoever looks next claims it. */
static void on_mine(void *context, const redisReply *reply)
{
    struct source_stream *stream = context;
    struct queue *queue = &stream->queue;
    struct queue_command command;
    queue_command_begin(&command, "XCLAIM", queue->keys[KEY_STREAM], GROUP, queue->consumer, "0");
    const char *last = add_pending(queue, reply, &command, NULL);
    if (!last) {
        remove_consumers(queue, "self", on_self_removed);
        return;
    }
    (void)snprintf(stream->from, sizeof stream->from, "(%s", last);
    queue_command_add(&command, "IDLE");
    queue_command_add_number(&command, GIVEN_BACK_IDLE_MS);
    queue_command_add(&command, "RETRYCOUNT");
    queue_command_add(&command, "0"); /* whoever stops politely was not killed by it */
    queue_command_add(&command, "JUSTID");
    queue_links_ask(&queue->links, &command, NULL);
    ask_own(stream, on_mine);
}

static void give_back(struct queue *queue)
{
    stream_of(queue)->from[0] = '\0';
    ask_own(stream_of(queue), on_mine);
}

struct source *source_stream_new(const struct source_options *options)
{
    static const struct queue_kind kind = {
        .mode = "stream",
        .size = sizeof(struct source_stream),
        .init = init,
        .set_up = set_up,
        .verify = verify,
        .read = read_stream,
        .forget = forget,
        .keep_alive = keep_alive,
        .look = look,
        .take_over = take_over,
        .give_back = give_back,
    };
    return queue_new(options, &kind);
}
