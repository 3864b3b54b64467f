/* SPDX-License-Identifier: MIT */
/* What settings must be to one another, once each is good by itself. */
#include <string.h>

#include "promptd/settings_table.h"

static const char *place_of(const struct setting *row, const struct settings *settings)
{
    const char *place = settings->places[settings_table_index(row)];
    return place ? place : "the defaults";
}

static bool is_flag(const struct setting *row, const struct settings *settings)
{
    return settings->origins[settings_table_index(row)] == SETTING_FLAG;
}

static void append_shown(struct buffer *message, const struct setting *row, const struct settings *settings)
{
    struct buffer value = {0};
    setting_append_value(row, settings, &value);
    buffer_append_char(&value, '\0');
    if (value.failed)
        message->failed = true;
    else
        setting_append_shown(row, value.data, message);
    buffer_free(&value);
}

/* The setting and what is wrong with it, and the other one that makes it wrong, unless `other_name` is NULL. */
static bool refuse(const struct settings *settings, const char *name, const char *phrase, const char *other_name,
                   const char *allowed, struct error *error)
{
    const struct setting *row = settings_table_find(name);
    const struct setting *other = other_name ? settings_table_find(other_name) : row;
    struct buffer message = {0};
    buffer_printf(&message, "setting %s: value \"", name);
    append_shown(&message, row, settings);
    buffer_printf(&message, "\" from %s %s", place_of(row, settings), phrase);
    if (other_name) {
        buffer_printf(&message, " %s, \"", other_name);
        append_shown(&message, other, settings);
        buffer_printf(&message, "\" from %s", place_of(other, settings));
    }
    buffer_printf(&message, " (allowed: %s)", allowed);
    buffer_append_char(&message, '\0');
    bool usage = is_flag(row, settings) || is_flag(other, settings);
    if (message.failed)
        error_set(error, ERROR_INTERNAL, "out of memory");
    else
        error_set(error, usage ? ERROR_USAGE : ERROR_CONFIG, "%s", message.data);
    buffer_free(&message);
    return false;
}

bool settings_refuse(const struct settings *settings, const char *name, const char *phrase, const char *allowed,
                     struct error *error)
{
    return refuse(settings, name, phrase, NULL, allowed, error);
}

/* A live text is one that nobody points into. Lists are pointed into by those who use them: none of them is live. */
void settings_take_live(struct settings *now, struct settings *next)
{
    for (size_t i = 0; settings_table_row(i); i++)
        if (settings_table_row(i)->live)
            setting_exchange(settings_table_row(i), now, next);
}

static bool list_has(const struct text_list *list, const char *item)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i], item) == 0)
            return true;
    }
    return false;
}

bool settings_check_together(const struct settings *settings, struct error *error)
{
    const struct settings *s = settings;
    if (s->prompt_min_chars > s->prompt_max_chars)
        return refuse(s, "prompt_min_chars", "is more than", "prompt_max_chars", "at most prompt_max_chars", error);
    if (s->retry_base_ms > s->retry_max_ms)
        return refuse(s, "retry_base_ms", "is more than", "retry_max_ms", "at most retry_max_ms", error);
    if (strcmp(s->events_channel, s->redis_channel) == 0)
        return refuse(s, "events_channel", "is the same as", "redis_channel",
                      "another channel: promptd would receive its own events", error);
    if (s->redis_mode != REDIS_MODE_PUBSUB && strpbrk(s->redis_channel, "{}"))
        return refuse(s, "redis_channel", "has a brace, and is no channel of", "redis_mode",
                      "a key without { and }: promptd puts its own keys in the slot of {redis_channel}", error);
    if (s->queue_max_bytes < s->message_max_bytes)
        return refuse(s, "queue_max_bytes", "cannot hold one message of", "message_max_bytes",
                      "at least message_max_bytes", error);
    if (strcmp(s->ready_status, s->failed_status) == 0)
        return refuse(s, "failed_status", "is the same as", "ready_status", "a status of its own", error);
    if (list_has(&s->awaiting_statuses, s->ready_status))
        return refuse(s, "awaiting_statuses", "has in it the", "ready_status", "statuses that are not ready", error);
    if (s->awaiting_statuses.count > 1 && list_has(&s->awaiting_statuses, "*"))
        return refuse(s, "awaiting_statuses", "has * beside other statuses", NULL, "statuses, or * alone", error);
    return true;
}
