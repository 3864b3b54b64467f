/* SPDX-License-Identifier: MIT */
#include "queue_acks.h"

#define LOG_COMPONENT "redis"
#include "promptd/log.h"

void queue_acknowledge(struct queue *queue, struct queue_entry *entry, const struct disposition *disposition)
{
    if (disposition && !queue_entry_set_dead(entry, disposition)) {
        log_error(NULL, "out of memory: a message that has ended stays in Redis; it is taken up again later");
        queue->has_released = true;
        queue_entry_free(&queue->entries, entry);
        return;
    }
    queue_entry_move(&queue->entries, entry, QUEUE_ENTRY_DONE);
    queue_go_on(queue);
}

static void note_refusal(struct queue *queue, const redisReply *reply)
{
    char text[QUEUE_ERROR_SIZE];
    redis_address_copy_error(queue->options.address, reply->str, text, sizeof text);
    if (!queue->ack_refused)
        log_error(LOG_FIELDS(log_text("error", text)), "Redis refuses acknowledgements; trying again");
    queue->ack_refused = true;
}

/* Of the command for the first of those that are on their way. */
static void on_forgotten(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    bool is_refused = reply->type == REDIS_REPLY_ERROR;
    bool ends = false;
    if (queue_is_error(reply, "MOVED "))
        queue_links_refuse(&queue->links, queue->links.worker, reply);
    while (!ends && queue_has(queue, QUEUE_ENTRY_ACKING)) {
        struct queue_entry *entry = queue_entries_first(&queue->entries, QUEUE_ENTRY_ACKING);
        ends = entry->ends_command;
        if (is_refused)
            queue_entry_move(&queue->entries, entry, QUEUE_ENTRY_REFUSED);
        else
            queue_entry_free(&queue->entries, entry);
    }
    if (is_refused && redis_link_is_up(queue->links.worker))
        note_refusal(queue, reply);
    if (queue_has(queue, QUEUE_ENTRY_ACKING))
        return;
    if (queue->ack_refused && !queue_has(queue, QUEUE_ENTRY_DONE) && !queue_has(queue, QUEUE_ENTRY_REFUSED)) {
        log_info(NULL, "Redis takes acknowledgements again");
        queue->ack_refused = false;
    }
    queue_go_on(queue);
}

void queue_forget(struct queue *queue, const struct queue_command *command, struct queue_entry *last)
{
    last->ends_command = true;
    queue_links_ask(&queue->links, command, on_forgotten);
}

void queue_acknowledge_more(struct queue *queue)
{
    bool may = queue->state == QUEUE_READY || queue->state == QUEUE_STALE;
    if (!may || !queue_has(queue, QUEUE_ENTRY_DONE) || queue_has(queue, QUEUE_ENTRY_ACKING))
        return;
    for (int i = 0; i < QUEUE_BATCH_MAX && queue_has(queue, QUEUE_ENTRY_DONE); i++) {
        struct queue_entry *entry = queue_entries_first(&queue->entries, QUEUE_ENTRY_DONE);
        entry->ends_command = false;
        queue_entry_move(&queue->entries, entry, QUEUE_ENTRY_ACKING);
    }
    log_flush(); /* its line comes first: what Redis forgets has one, should the process be killed now */
    queue->kind->forget(queue);
}

void queue_add_dead_letter(struct queue *queue, const struct queue_item *item)
{
    const struct disposition disposition = {.outcome = "dropped", .error = "delivered 5 times without an outcome"};
    struct queue_entry *entry = queue_entry_new(&queue->entries, item);
    if (!entry)
        return; /* it comes again */
    if (!queue_entry_set_dead(entry, &disposition)) {
        queue_entry_free(&queue->entries, entry);
        return;
    }
    queue_entry_move(&queue->entries, entry, QUEUE_ENTRY_DONE);
    queue_count_dead_letters(queue, 1);
}

void queue_count_dead_letters(struct queue *queue, uint64_t messages)
{
    const struct source_sink *sink = &queue->options.sink;
    if (messages == 0)
        return;
    sink->on_found(sink->context, messages);
    sink->on_lost(sink->context, messages);
    log_error(LOG_FIELDS(log_number("messages", messages)),
              "message dropped: it was delivered %d times without an outcome, and is a dead letter now",
              QUEUE_DELIVERIES_MAX);
}
