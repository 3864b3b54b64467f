/* SPDX-License-Identifier: MIT */
/* The messages that were taken from Redis and are not forgotten there yet. */
#include "queue_entries.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"

void queue_entries_init(struct queue_entries *entries)
{
    for (int state = 0; state < QUEUE_ENTRY_STATES; state++)
        TAILQ_INIT(&entries->lists[state]);
}

struct queue_entry *queue_entries_first(const struct queue_entries *entries, enum queue_entry_state state)
{
    return TAILQ_FIRST(&entries->lists[state]);
}

struct queue_entry *queue_entries_next(const struct queue_entries *entries, const struct queue_entry *entry)
{
    struct queue_entry *next = entry ? TAILQ_NEXT(entry, link) : NULL;
    for (int state = entry ? (int)entry->state + 1 : 0; !next && state < QUEUE_ENTRY_STATES; state++)
        next = TAILQ_FIRST(&entries->lists[state]);
    return next;
}

bool queue_entries_has(struct queue_entries *entries, const struct queue_item *item)
{
    const struct queue_entry *entry = queue_entries_next(entries, NULL);
    while (entry && strcmp(entry->id, item->id) != 0)
        entry = queue_entries_next(entries, entry);
    return entry;
}

size_t queue_entries_longest(const struct queue_entries *entries)
{
    size_t longest = 0;
    for (const struct queue_entry *entry = NULL; (entry = queue_entries_next(entries, entry));)
        if (!entry->is_skipped && entry->length > longest)
            longest = entry->length;
    return longest;
}

/* --- one ---------------------------------------------------------------------------------------------------------- */

static size_t entry_bytes(const struct queue_entry *entry)
{
    return sizeof *entry + (entry->is_skipped ? 0 : entry->length);
}

struct queue_entry *queue_entry_new(struct queue_entries *entries, const struct queue_item *item)
{
    struct queue_entry *entry = calloc(1, sizeof *entry + (item->bytes ? item->length : 0));
    if (!entry)
        return NULL;
    entry->receipt = (struct receipt){.number = ++entries->last_number, .returns = true};
    entry->is_seen = true;
    entry->is_skipped = !item->bytes;
    entry->length = item->length;
    (void)snprintf(entry->id, sizeof entry->id, "%s", item->id);
    if (item->bytes)
        memcpy(entry->payload, item->bytes, item->length);
    TAILQ_INSERT_TAIL(&entries->lists[QUEUE_ENTRY_HELD], entry, link);
    entries->bytes += entry_bytes(entry);
    entries->count++;
    return entry;
}

void queue_entry_free(struct queue_entries *entries, struct queue_entry *entry)
{
    TAILQ_REMOVE(&entries->lists[entry->state], entry, link);
    entries->bytes -= entry_bytes(entry);
    entries->count--;
    free(entry->words);
    free(entry);
}

void queue_entries_free(struct queue_entries *entries)
{
    struct queue_entry *entry;
    while ((entry = queue_entries_next(entries, NULL)))
        queue_entry_free(entries, entry);
}

void queue_entry_move(struct queue_entries *entries, struct queue_entry *entry, enum queue_entry_state state)
{
    TAILQ_REMOVE(&entries->lists[entry->state], entry, link);
    entry->state = state;
    TAILQ_INSERT_TAIL(&entries->lists[state], entry, link);
}

void queue_entries_redo(struct queue_entries *entries, enum queue_entry_state from, size_t most)
{
    struct queue_entry *entry;
    while (most-- > 0 && (entry = queue_entries_first(entries, from)))
        queue_entry_move(entries, entry, QUEUE_ENTRY_DONE);
}

/* --- verifying ---------------------------------------------------------------------------------------------------- */

void queue_entries_begin_verifying(struct queue_entries *entries)
{
    for (struct queue_entry *entry = NULL; (entry = queue_entries_next(entries, entry));)
        entry->is_seen = false;
}

/* What was too large is known by its length alone, also when it would be read now. */
static bool is_same(const struct queue_entry *entry, const struct queue_item *item)
{
    if (entry->id[0])
        return strcmp(entry->id, item->id) == 0;
    return entry->length == item->length &&
           (entry->is_skipped || (item->bytes && memcmp(entry->payload, item->bytes, item->length) == 0));
}

/* An id is found again also where it was taken since the verification began; each of the same bytes stands for itself.
 */
bool queue_entries_compare(struct queue_entries *entries, const struct queue_item *item)
{
    struct queue_entry *entry = queue_entries_next(entries, NULL);
    while (entry && ((entry->is_seen && !entry->id[0]) || !is_same(entry, item)))
        entry = queue_entries_next(entries, entry);
    if (entry)
        entry->is_seen = true;
    return entry;
}

/* What Redis does not hold for us any more is acknowledged already, or another's. */
void queue_entries_end_verifying(struct queue_entries *entries)
{
    struct queue_entry *next;
    for (struct queue_entry *entry = queue_entries_next(entries, NULL); entry; entry = next) {
        next = queue_entries_next(entries, entry);
        entry->is_foreign = !entry->is_seen;
        if (entry->is_foreign && entry->state != QUEUE_ENTRY_HELD)
            queue_entry_free(entries, entry);
    }
}

/* --- dead letters ------------------------------------------------------------------------------------------------- */

enum { WORDS = 7 };

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 1;
}

bool queue_entry_set_dead(struct queue_entry *entry, const struct disposition *disposition)
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
    entry->is_dead = true;
    return entry->words;
}

void queue_entry_add_letter(const struct queue_entry *entry, struct queue_command *command)
{
    static const char *const names[WORDS] = {"outcome",      "reason",    "sqlstate", "error",
                                             "interview_id", "prompt_id", "at"};
    const char *word = entry->words;
    if (!entry->is_skipped) {
        queue_command_add(command, "message");
        queue_command_add_bytes(command, entry->payload, entry->length);
    }
    for (int i = 0; i < WORDS; i++, word += strlen(word) + 1) {
        queue_command_add(command, names[i]);
        queue_command_add(command, word);
    }
}
