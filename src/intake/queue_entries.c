/* SPDX-License-Identifier: MIT */
/* One message that was taken: made, freed, and put among the dead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"
#include "queue.h"

static size_t entry_bytes(const struct queue_entry *entry)
{
    return sizeof *entry + (entry->is_skipped ? 0 : entry->length);
}

void queue_entry_free(struct queue *queue, struct queue_entry *entry)
{
    queue->held_bytes -= entry_bytes(entry);
    queue->entry_count--;
    free(entry->words);
    free(entry);
}

struct queue_entry *queue_entry_new(struct queue *queue, const struct queue_item *item)
{
    struct queue_entry *entry = calloc(1, sizeof *entry + (item->bytes ? item->length : 0));
    if (!entry)
        return NULL;
    entry->receipt = (struct receipt){.number = ++queue->last_number, .returns = true};
    entry->is_seen = true;
    entry->is_skipped = !item->bytes;
    entry->length = item->length;
    (void)snprintf(entry->id, sizeof entry->id, "%s", item->id);
    if (item->bytes)
        memcpy(entry->payload, item->bytes, item->length);
    queue->held_bytes += entry_bytes(entry);
    queue->entry_count++;
    return entry;
}

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 1;
}

bool queue_entry_keep_words(struct queue_entry *entry, const struct disposition *disposition)
{
    char interview[UUID_TEXT_SIZE] = "";
    char prompt[UUID_TEXT_SIZE] = "";
    char at[CLOCK_TEXT_SIZE];
    if (disposition->has_interview_id)
        uuid_format(disposition->interview_id, interview);
    if (disposition->has_prompt_id)
        uuid_format(disposition->prompt_id, prompt);
    clock_format_wall(clock_wall_ms(), at);
    const char *const words[WORDS] = {
        disposition->outcome, disposition->reason, disposition->sqlstate, disposition->error, interview, prompt, at};
    size_t size = 0;
    for (int i = 0; i < WORDS; i++)
        size += text_size(words[i]);
    entry->words = malloc(size);
    char *end = entry->words;
    for (int i = 0; i < WORDS && end; i++)
        end = stpcpy(end, words[i] ? words[i] : "") + 1;
    return entry->words;
}

void queue_send_dead(struct queue *queue, const struct queue_entry *entry, const char *key)
{
    static const char *const names[WORDS] = {"outcome",      "reason",    "sqlstate", "error",
                                             "interview_id", "prompt_id", "at"};
    struct queue_command command;
    char most[24];
    const char *word = entry->words;
    if (queue->options.tuning.dead_max == 0)
        return;
    (void)snprintf(most, sizeof most, "%zu", queue->options.tuning.dead_max);
    queue_command_begin(&command, "XADD");
    queue_command_add(&command, key);
    queue_command_add(&command, "MAXLEN");
    queue_command_add(&command, most);
    queue_command_add(&command, "*");
    if (!entry->is_skipped) {
        queue_command_add(&command, "message");
        queue_command_add_bytes(&command, entry->payload, entry->length);
    }
    for (int i = 0; i < WORDS; i++, word += strlen(word) + 1) {
        if (!word[0])
            continue;
        queue_command_add(&command, names[i]);
        queue_command_add(&command, word);
    }
    queue_send(queue, queue->worker, &command, 0, NULL);
}
