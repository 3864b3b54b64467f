/* SPDX-License-Identifier: MIT */
/* One setting's value: read from text, written as text, compared, cleared. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/settings_table.h"
#include "promptd/text.h"

enum { SHOWN_BYTES = 120 }; /* of a value, in a message */

/* Choices are stored through unsigned, which is what the compilers make of an enum without negative values. */
_Static_assert(sizeof(enum atomicity) == sizeof(unsigned), "an enum is an unsigned");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned), "an enum is an unsigned");
_Static_assert(sizeof(enum log_format) == sizeof(unsigned), "an enum is an unsigned");

static void *member(const struct setting *row, struct settings *settings)
{
    return (char *)settings + row->offset;
}

static const void *const_member(const struct setting *row, const struct settings *settings)
{
    return (const char *)settings + row->offset;
}

static bool refuse(struct error *phrase, const char *text)
{
    return error_set(phrase, ERROR_CONFIG, "%s", text);
}

static bool memory_is_out(struct error *phrase)
{
    return error_set(phrase, ERROR_INTERNAL, "out of memory");
}

static void list_free(struct text_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct text_list){0};
}

/* The stretch from `start` to `end` without white space around it. */
static const char *trim(const char *start, const char **end)
{
    while (start < *end && isspace((unsigned char)*start))
        start++;
    while (*end > start && isspace((unsigned char)(*end)[-1]))
        (*end)--;
    return start;
}

static bool validate_text(const char *text, struct error *phrase)
{
    size_t length = strlen(text);
    if (length > SETTING_VALUE_MAX)
        return refuse(phrase, "is longer than 8000 bytes");
    if (!utf8_is_valid(text, length))
        return refuse(phrase, "is not valid UTF-8");
    for (const char *c = text; *c; c++) {
        if (iscntrl((unsigned char)*c))
            return refuse(phrase, "has a control character in it");
    }
    return true;
}

static bool parse_number(const struct setting *row, const char *text, int64_t *number, struct error *phrase)
{
    const char *digits = text + (*text == '-');
    if (*digits == '\0' || digits[strspn(digits, "0123456789")] != '\0')
        return refuse(phrase, "is not a number");
    errno = 0;
    intmax_t value = strtoimax(text, NULL, 10);
    if (errno == ERANGE || value < row->minimum || value > row->maximum)
        return refuse(phrase, "is out of range");
    *number = value;
    return true;
}

static bool parse_choice(const struct setting *row, const char *text, unsigned *choice, struct error *phrase)
{
    for (unsigned i = 0; row->choices[i]; i++) {
        if (strcmp(row->choices[i], text) == 0) {
            *choice = i;
            return true;
        }
    }
    return refuse(phrase, "is not one of the choices");
}

static bool list_fill(struct text_list *list, const char *text, struct error *phrase)
{
    for (const char *start = text;; start++) {
        const char *comma = strchrnul(start, ',');
        const char *end = comma;
        start = trim(start, &end);
        if (start == end)
            return refuse(phrase, "has an empty item");
        list->items[list->count] = strndup(start, (size_t)(end - start));
        if (!list->items[list->count])
            return memory_is_out(phrase);
        list->count++;
        if (*comma == '\0')
            return true;
        start = comma;
    }
}

static bool parse_list(const char *text, struct text_list *list, struct error *phrase)
{
    size_t most = 1;
    for (const char *c = text; *c; c++)
        most += *c == ',';
    list->items = calloc(most, sizeof *list->items);
    if (!list->items)
        return memory_is_out(phrase);
    if (list_fill(list, text, phrase))
        return true;
    list_free(list);
    return false;
}

static bool parse_value(const struct setting *row, settings_validate *validate, const char *text,
                        struct settings *settings, struct error *phrase)
{
    char **copy = member(row, settings);
    if (*text == '\0' && !row->may_be_empty)
        return refuse(phrase, "is empty");
    if (!validate_text(text, phrase) || (validate && !validate(text, phrase)))
        return false;
    switch (row->type) {
    case SETTING_NUMBER:
        return parse_number(row, text, member(row, settings), phrase);
    case SETTING_CHOICE:
        return parse_choice(row, text, member(row, settings), phrase);
    case SETTING_LIST:
        return parse_list(text, member(row, settings), phrase);
    case SETTING_TEXT:
        *copy = strdup(text);
        return *copy || memory_is_out(phrase);
    }
    return refuse(phrase, "has no type");
}

void setting_exchange(const struct setting *row, struct settings *one, struct settings *other)
{
    static const size_t sizes[] = {[SETTING_TEXT] = sizeof(char *),
                                   [SETTING_NUMBER] = sizeof(int64_t),
                                   [SETTING_CHOICE] = sizeof(unsigned),
                                   [SETTING_LIST] = sizeof(struct text_list)};
    char kept[sizeof(struct text_list)];
    memcpy(kept, member(row, one), sizes[row->type]);
    memcpy(member(row, one), member(row, other), sizes[row->type]);
    memcpy(member(row, other), kept, sizes[row->type]);
}

bool setting_parse(const struct setting *row, settings_validate *validate, const char *text, struct settings *settings,
                   struct error *phrase)
{
    const char *end = text + strlen(text);
    const char *start = trim(text, &end);
    char *trimmed = strndup(start, (size_t)(end - start));
    if (!trimmed)
        return memory_is_out(phrase);
    struct settings read = {0};
    bool good = parse_value(row, validate, trimmed, &read, phrase);
    if (good && settings)
        setting_exchange(row, &read, settings);
    setting_clear(row, &read); /* what was there before, or was not to be taken */
    free(trimmed);
    return good;
}

void setting_append_allowed(const struct setting *row, struct buffer *buffer)
{
    if (row->allowed) {
        buffer_append_text(buffer, row->allowed);
        return;
    }
    switch (row->type) {
    case SETTING_NUMBER:
        buffer_printf(buffer, "%" PRId64 " to %" PRId64, row->minimum, row->maximum);
        if (row->unit)
            buffer_printf(buffer, " %s", row->unit);
        break;
    case SETTING_CHOICE:
        for (size_t i = 0; row->choices[i]; i++)
            buffer_printf(buffer, "%s%s", i ? ", " : "", row->choices[i]);
        break;
    case SETTING_LIST:
        buffer_append_text(buffer, "items with commas between them");
        break;
    case SETTING_TEXT:
        buffer_append_text(buffer, "any text without control characters");
        break;
    }
}

static void append_list(const struct text_list *list, struct buffer *buffer)
{
    for (size_t i = 0; i < list->count; i++)
        buffer_printf(buffer, "%s%s", i ? "," : "", list->items[i]);
}

void setting_append_value(const struct setting *row, const struct settings *settings, struct buffer *buffer)
{
    const void *value = const_member(row, settings);
    switch (row->type) {
    case SETTING_NUMBER:
        buffer_printf(buffer, "%" PRId64, *(const int64_t *)value);
        break;
    case SETTING_CHOICE:
        buffer_append_text(buffer, row->choices[*(const unsigned *)value]);
        break;
    case SETTING_LIST:
        append_list(value, buffer);
        break;
    case SETTING_TEXT:
        if (row->secret)
            text_append_redacted(buffer, *(char *const *)value);
        else
            buffer_append_text(buffer, *(char *const *)value);
        break;
    }
}

void setting_append_shown(const struct setting *row, const char *text, struct buffer *buffer)
{
    struct buffer whole = {0};
    buffer_append_text(
        &whole, row->secret && text[0] ? "***" : text); /* of what is refused nobody knows where a password ends */
    bool cut = whole.length > SHOWN_BYTES;
    if (cut) {
        whole.length = SHOWN_BYTES;
        while (whole.length > 0 && (whole.data[whole.length] & 0xc0) == 0x80)
            whole.length--; /* not within a character */
    }
    buffer_append_char(&whole, '\0');
    if (whole.failed)
        buffer->failed = true;
    else
        text_append_escaped(buffer, whole.data);
    if (cut)
        buffer_append_text(buffer, "...");
    buffer_free(&whole);
}

static bool list_is_equal(const struct text_list *one, const struct text_list *other)
{
    if (one->count != other->count)
        return false;
    for (size_t i = 0; i < one->count; i++) {
        if (strcmp(one->items[i], other->items[i]) != 0)
            return false;
    }
    return true;
}

bool setting_is_equal(const struct setting *row, const struct settings *one, const struct settings *other)
{
    const void *a = const_member(row, one);
    const void *b = const_member(row, other);
    switch (row->type) {
    case SETTING_NUMBER:
        return *(const int64_t *)a == *(const int64_t *)b;
    case SETTING_CHOICE:
        return *(const unsigned *)a == *(const unsigned *)b;
    case SETTING_LIST:
        return list_is_equal(a, b);
    case SETTING_TEXT:
        return strcmp(*(char *const *)a, *(char *const *)b) == 0;
    }
    return false;
}

void setting_clear(const struct setting *row, struct settings *settings)
{
    char **text = member(row, settings);
    if (row->type == SETTING_LIST)
        list_free(member(row, settings));
    if (row->type != SETTING_TEXT)
        return;
    free(*text);
    *text = NULL;
}
