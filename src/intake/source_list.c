/* SPDX-License-Identifier: MIT */
/*
 * A list as a source.
 *
 *     LPUSH ─▶ redis_channel ─BLMOVE, LMOVE─▶ {…}:processing:<consumer> ─▶ outcome ─▶ LREM (and XADD to the dead)
 *                   ▲ right end                        │
 *                   └──── by whoever finds that {…}:consumer:<consumer> has expired, in order, at once
 *
 * {…}:consumers names whoever takes messages. How often a message was put back is counted in {…}:deliveries, by its
 * SHA-1, for an hour. One that was taken four times is put back alone, so that only what kills is delivered five times:
 * whatever else the dead had waits in its list meanwhile.
 */
#include "promptd/source_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "list_scripts.h"
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

struct source_list {
    struct queue queue;  /* first: the queue is this */
    size_t verified;     /* elements looked at */
    size_t moves;        /* answers that this read waits for */
    size_t moved;        /* messages that it has brought */
    bool is_blocking;    /* its first command waits for a message */
    bool found_no_room;  /* Redis' memory is full */
    bool is_full;        /* the last read brought as many as it asked for */
    size_t members_left; /* consumers whose answer is outstanding */
    uint64_t pending_sum;
    bool had_more;      /* at the last look our own list had messages that are not known here */
    char scan_from[24]; /* where the walk over all keys goes on */
};

#define PROCESSING ":processing:"
#define ALIVE ":consumer:"

static struct source_list *list_of(struct queue *queue)
{
    return (struct source_list *)queue;
}

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

/* false: the reply is no message. */
static bool read_item(const redisReply *reply, struct queue_item *item)
{
    *item = (struct queue_item){.id = ""};
    if (reply->type == REDIS_REPLY_STRING) {
        item->bytes = reply->str;
        item->length = reply->len;
        return true;
    }
    item->length = queue_number(reply); /* it was not read */
    return reply->type == REDIS_REPLY_INTEGER;
}

/* --- setting up --------------------------------------------------------------------------------------------------- */

static void on_length(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_ERROR)
        queue_links_refuse(&queue->links, queue->links.worker,
                           reply); /* WRONGTYPE: there is something else of that name */
    else
        queue_is_set_up(queue);
}

static void keep_alive(struct queue *queue)
{
    struct queue_command command;
    queue_command_begin(&command, "EVAL", list_keep_alive_script, "3", queue->keys[KEY_CONSUMERS],
                        queue->keys[KEY_ALIVE], queue->keys[KEY_DELIVERIES], queue->consumer);
    queue_command_add_number(&command, QUEUE_TAKEOVER_MS);
    queue_links_ask(&queue->links, &command, queue_on_kept);
}

static void set_up(struct queue *queue)
{
    struct queue_command command;
    list_of(queue)->members_left = 0; /* their answers were lost with the connection */
    keep_alive(queue);
    queue_command_begin(&command, "LLEN", queue->keys[KEY_LIST]);
    queue_links_ask(&queue->links, &command, on_length);
}

/* --- verifying ---------------------------------------------------------------------------------------------------- */

static void ask_page(struct source_list *list);

/* The oldest stand at the right. */
static void on_page(void *context, const redisReply *reply)
{
    struct source_list *list = context;
    struct queue *queue = &list->queue;
    struct queue_item item;
    if (reply->type == REDIS_REPLY_ERROR) {
        queue_links_refuse(&queue->links, queue->links.worker, reply);
        return;
    }
    size_t count = reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    for (size_t i = count; i > 0; i--)
        if (read_item(reply->element[i - 1], &item) && !queue_entries_compare(&queue->entries, &item))
            queue_take(queue, &item, true); /* its reply was lost */
    list->verified += count;
    if (count > 0)
        ask_page(list);
    else
        queue_verified(queue);
}

static void ask_page(struct source_list *list)
{
    struct queue_command command;
    int64_t verified = (int64_t)list->verified;
    queue_command_begin(&command, "LRANGE", list->queue.keys[KEY_PROCESSING]);
    queue_command_add_number(&command, -verified - (int64_t)queue_page(&list->queue));
    queue_command_add_number(&command, -verified - 1);
    queue_links_ask(&list->queue.links, &command, on_page);
}

static void verify(struct queue *queue)
{
    list_of(queue)->verified = 0;
    ask_page(list_of(queue));
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void send_moves(struct source_list *list, size_t count);

static void finish_read(struct source_list *list)
{
    list->is_full = list->moved == list->queue.reading;
    queue_read_done(&list->queue, list->moved);
}

static void take_item(struct source_list *list, const redisReply *reply)
{
    struct queue_item item;
    if (!read_item(reply, &item))
        return;
    list->moved++;
    queue_take(&list->queue, &item, false);
}

static void on_taken(void *context, const redisReply *reply)
{
    struct source_list *list = context;
    if (reply->type != REDIS_REPLY_ARRAY) {
        queue_links_refuse(&list->queue.links, list->queue.links.reader, reply);
        return;
    }
    for (size_t i = 0; i < reply->elements; i++)
        take_item(list, reply->element[i]);
    finish_read(list);
}

/* A full Redis moves nothing for LMOVE, and would stay full. */
static void take_by_script(struct source_list *list, size_t count)
{
    struct queue *queue = &list->queue;
    struct queue_command command;
    queue_command_begin(&command, "EVAL", list_take_script, "3", queue->keys[KEY_LIST], queue->keys[KEY_PROCESSING],
                        queue->keys[KEY_DELIVERIES]);
    queue_command_add_number(&command, (int64_t)count);
    queue_links_read(&queue->links, &command, on_taken);
}

static void on_moved(void *context, const redisReply *reply)
{
    struct source_list *list = context;
    struct queue *queue = &list->queue;
    bool finds_no_room = queue_is_error(reply, "OOM");
    if (reply->type == REDIS_REPLY_ERROR && !finds_no_room) {
        queue_links_refuse(&queue->links, queue->links.reader, reply);
        return;
    }
    bool was_blocking = list->is_blocking;
    list->is_blocking = false;
    list->found_no_room = list->found_no_room || finds_no_room;
    list->moves--;
    take_item(list, reply);
    if (finds_no_room)
        queue_links_complain(&queue->links, "to move messages other than by a script", reply);
    if (list->moves > 0)
        return;
    size_t left = queue->reading - list->moved;
    if (list->found_no_room && !queue->is_stopped)
        take_by_script(list, left);
    else if (was_blocking && list->moved > 0 && left > 0 && !queue->is_stopped)
        send_moves(list, left);
    else
        finish_read(list);
}

static void send_moves(struct source_list *list, size_t count)
{
    struct queue *queue = &list->queue;
    struct queue_command command;
    queue_command_begin(&command, "LMOVE", queue->keys[KEY_LIST], queue->keys[KEY_PROCESSING], "RIGHT", "LEFT");
    list->moves = count;
    for (size_t i = 0; i < count; i++)
        queue_links_read(&queue->links, &command, on_moved);
}

/* Waits for one, and then takes what else is there; or goes on where there was as much as could be taken. */
static void read_list(struct queue *queue, size_t count)
{
    struct source_list *list = list_of(queue);
    struct queue_command command;
    list->moved = 0;
    list->found_no_room = false;
    list->is_blocking = !list->is_full;
    if (list->is_full) {
        send_moves(list, count);
        return;
    }
    list->moves = 1;
    queue_command_begin(&command, "BLMOVE", queue->keys[KEY_LIST], queue->keys[KEY_PROCESSING], "RIGHT", "LEFT");
    queue_command_add_number(&command, QUEUE_BLOCK_MS / 1000);
    queue_links_read(&queue->links, &command, on_moved);
}

/* --- after the outcome -------------------------------------------------------------------------------------------- */

static void forget(struct queue *queue)
{
    struct queue_command command;
    struct queue_entry *entry;
    const char *processing = queue->keys[KEY_PROCESSING];
    TAILQ_FOREACH(entry, &queue->entries.lists[QUEUE_ENTRY_ACKING], link)
    {
        if (entry->is_dead) {
            queue_command_begin(&command, "EVAL", list_dead_letter_script, "2", processing, queue->keys[KEY_DEAD]);
            queue_command_add_number(&command, (int64_t)queue->options.tuning.dead_max);
            queue_command_add(&command, queue->consumer); /* no message: it is no JSON */
            queue_command_add(&command, entry->is_skipped ? "skipped" : "read");
            queue_command_add_number(&command, (int64_t)entry->length);
            queue_entry_add_letter(entry, &command);
        } else {
            queue_command_begin(&command, "LREM", processing, "-1");
            queue_command_add_bytes(&command, entry->payload, entry->length);
        }
        queue_forget(queue, &command, entry);
    }
}

/* --- putting back ------------------------------------------------------------------------------------------------- */

static void put_back(struct queue *queue, const char *consumer, const char *alive, const char *processing,
                     const char *whose, void (*on_reply)(void *context, const redisReply *reply))
{
    struct queue_command command;
    char at[CLOCK_TEXT_SIZE];
    clock_format_wall(clock_wall_ms(), at);
    queue_command_begin(&command, "EVAL", list_put_back_script, "6", alive, processing, queue->keys[KEY_LIST],
                        queue->keys[KEY_DELIVERIES], queue->keys[KEY_DEAD], queue->keys[KEY_CONSUMERS], consumer);
    queue_command_add_number(&command, QUEUE_DELIVERIES_MAX);
    queue_command_add_number(&command, (int64_t)queue->options.tuning.dead_max);
    queue_command_add(&command, at);
    queue_command_add(&command, whose);
    queue_links_ask(&queue->links, &command, on_reply);
}

static void on_given_back(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    queue_links_complain(&queue->links, "to take back what is held", reply);
    queue_end(queue);
}

static void give_back(struct queue *queue)
{
    put_back(queue, queue->consumer, queue->keys[KEY_ALIVE], queue->keys[KEY_PROCESSING], "own", on_given_back);
}

/* --- the dead, and figures ---------------------------------------------------------------------------------------- */

static uint64_t number_at(const redisReply *reply, size_t index)
{
    return reply->type == REDIS_REPLY_ARRAY && index < reply->elements ? queue_number(reply->element[index]) : 0;
}

static void on_taken_over(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    bool has_refusal = reply->type == REDIS_REPLY_ARRAY && reply->elements > 3;
    queue_links_complain(&queue->links, "to take over what others have left", has_refusal ? reply->element[3] : reply);
    uint64_t moved = number_at(reply, 0);
    if (moved > 0) {
        queue->status.redelivered += moved;
        log_info(LOG_FIELDS(log_number("messages", moved)), "what a consumer that is gone had taken waits again");
    }
    queue_count_dead_letters(queue, number_at(reply, 1));
    if (number_at(reply, 2) > 0)
        queue->look_ms = 0; /* the next of them soon */
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
    struct source_list *list = context;
    list->pending_sum += queue_number(reply);
    if (--list->members_left == 0)
        list->queue.status.pending = list->pending_sum;
}

/* What stands in our own list and is not known here was moved for a connection that is gone: it is asked for, should it
 * be there at two looks, for what a read has brought meanwhile is on its way. */
static void on_own(void *context, const redisReply *reply)
{
    struct source_list *list = context;
    bool has_more = queue_number(reply) > list->queue.entries.count;
    list->queue.has_released = list->queue.has_released || (has_more && list->had_more);
    list->had_more = has_more;
    on_member(context, reply);
}

static void look_at_member(struct queue *queue, const char *consumer)
{
    struct queue_command command;
    char processing[QUEUE_KEY_SIZE];
    char alive[QUEUE_KEY_SIZE];
    if (!name_of(queue, PROCESSING, consumer, processing, sizeof processing) ||
        !name_of(queue, ALIVE, consumer, alive, sizeof alive)) {
        list_of(queue)->members_left--;
        return;
    }
    bool is_own = strcmp(consumer, queue->consumer) == 0;
    queue_command_begin(&command, "LLEN", processing);
    queue_links_ask(&queue->links, &command, is_own ? on_own : on_member);
    if (!is_own && !queue->is_stopped)
        put_back(queue, consumer, alive, processing, "other", on_taken_over);
}

static void on_members(void *context, const redisReply *reply)
{
    struct source_list *list = context;
    if (reply->type != REDIS_REPLY_ARRAY || list->members_left > 0)
        return;
    list->queue.status.consumers = reply->elements;
    list->members_left = reply->elements;
    list->pending_sum = 0;
    for (size_t i = 0; i < reply->elements; i++) {
        if (reply->element[i]->type == REDIS_REPLY_STRING)
            look_at_member(&list->queue, reply->element[i]->str);
        else
            list->members_left--;
    }
}

static void on_backlog(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_INTEGER)
        queue->status.backlog = queue_number(reply);
}

/* Lists whose consumer is not among the consumers: their names are put there, for the next look. */
static void on_scanned(void *context, const redisReply *reply)
{
    struct source_list *list = context;
    struct queue *queue = &list->queue;
    const redisReply *found = queue_array(reply, 1);
    struct queue_command command;
    size_t prefix = strlen(queue->options.channel) + 2 + strlen(PROCESSING);
    if (!found || reply->element[0]->type != REDIS_REPLY_STRING)
        return;
    (void)snprintf(list->scan_from, sizeof list->scan_from, "%s", reply->element[0]->str);
    for (size_t i = 0; i < found->elements; i++) {
        const redisReply *key = found->element[i];
        if (key->type != REDIS_REPLY_STRING || key->len <= prefix)
            continue;
        queue_command_begin(&command, "SADD", queue->keys[KEY_CONSUMERS], key->str + prefix);
        queue_links_ask(&queue->links, &command, NULL);
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
    const char *from = list_of(queue)->scan_from;
    queue_command_begin(&command, "SCAN", from[0] ? from : "0", "MATCH", pattern, "COUNT", "500");
    queue_links_ask(&queue->links, &command, on_scanned);
}

static void look(struct queue *queue)
{
    struct queue_command command;
    queue_command_begin(&command, "LLEN", queue->keys[KEY_LIST]);
    queue_links_ask(&queue->links, &command, on_backlog);
    queue_command_begin(&command, "SRANDMEMBER", queue->keys[KEY_CONSUMERS]);
    queue_command_add_number(&command, QUEUE_PAGE);
    queue_links_ask(&queue->links, &command, on_members);
    scan(queue);
}

struct source *source_list_new(const struct source_options *options)
{
    static const struct queue_kind kind = {
        .mode = "list",
        .size = sizeof(struct source_list),
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
