/* SPDX-License-Identifier: MIT */
/*
 * From raw bytes to a checked message.
 *
 *     bytes ── size, UTF-8 ──▶ framing ──▶ json_guard ──▶ cJSON ──▶ fields ──▶ content
 *              too_large,      BOM, "=",   not_json,      not_json  duplicate_field, missing_…, invalid_…, prompt_…
 *              invalid_utf8    spaces      trailing_data  not_object
 *
 * Of several faults the first of REJECT_MAP is reported, so the order of the steps here is part of what users see.
 *
 * cJSON cuts strings at U+0000. Where the guard saw such escapes, a copy is parsed in which bytes that no UTF-8 has
 * stand for each: a prompt with them is known for what it is, and a name with them is never taken for a known one.
 * The copy has 0 for every number, too: no field wants one, and cJSON's numbers depend on the locale and on its
 * version.
 *
 * cJSON reads strings byte by byte, and nearly all of a message is one string. That one is cut out of the copy, decoded
 * in runs by json_string.c, and put in its place once cJSON has read the rest.
 *
 * The prompt is cJSON's own string, taken over, not copied: cJSON's hooks must stay the default or end in malloc.
 */
#include "promptd/message.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "json_guard.h"
#include "json_string.h"
#include "promptd/settings.h"

_Static_assert(JSON_DEPTH_MAX <= CJSON_NESTING_LIMIT, "cJSON must take whatever depth the guard lets pass");

static const char default_source[] = "rag";

#define BYTE_ORDER_MARK "\xef\xbb\xbf"

/* Stands for the string that was cut out: no UTF-8 has this byte, nor has masked text. */
#define CUT_MARK "\xfe"

enum { MESSAGE_CUT_BYTES = 256 }; /* shorter strings are left to cJSON */

enum field { FIELD_INTERVIEW_ID, FIELD_ENHANCED_PROMPT, FIELD_SOURCE, FIELD_COUNT };

static const char *const field_names[FIELD_COUNT] = {"interview_id", "enhanced_prompt", "source"};

/* The known fields of one object. */
struct fields {
    cJSON *value[FIELD_COUNT]; /* the first of that name, NULL where there is none */
    bool is_duplicate[FIELD_COUNT];
};

const char *reject_name(enum reject_reason reason)
{
    static const char *const names[REJECT_COUNT] = {
#define X(name, label, meaning) label,
        REJECT_MAP(X)
#undef X
    };
    return names[reason];
}

const char *reject_meaning(enum reject_reason reason)
{
    static const char *const meanings[REJECT_COUNT] = {
#define X(name, label, meaning) meaning,
        REJECT_MAP(X)
#undef X
    };
    return meanings[reason];
}

struct message_rules message_rules_of(const struct settings *settings)
{
    return (struct message_rules){
        .max_bytes = (size_t)settings->message_max_bytes,
        .prompt_min_chars = (size_t)settings->prompt_min_chars,
        .prompt_max_chars = (size_t)settings->prompt_max_chars,
        .sources = (const char *const *)settings->sources.items,
        .source_count = settings->sources.count,
    };
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* How many bytes stand before the value. n8n renders "==={{ … }}" with the "=" signs left in. */
static size_t framing_length(const char *bytes, size_t length)
{
    const size_t mark_length = strlen(BYTE_ORDER_MARK);
    bool mark_seen = false;
    size_t at = 0;
    while (at < length) {
        if (is_space(bytes[at]) || bytes[at] == '=') {
            at++;
        } else if (!mark_seen && length - at >= mark_length && memcmp(bytes + at, BYTE_ORDER_MARK, mark_length) == 0) {
            mark_seen = true;
            at += mark_length;
        } else {
            break;
        }
    }
    return at;
}

static bool is_all_space(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!is_space(bytes[i]))
            return false;
    }
    return true;
}

/* *root is NULL where this is not JSON. false when out of memory: cJSON says no more than NULL, but malloc sets errno,
 * and free leaves it alone. */
static bool parse_text(const char *value, size_t length, cJSON **root)
{
    const char *end = NULL;
    errno = 0;
    *root = cJSON_ParseWithLengthOpts(value, length, &end, 0);
    if (!*root)
        return errno != ENOMEM;
    if (end != value + length) {
        cJSON_Delete(*root);
        *root = NULL;
    }
    return true;
}

/* A copy of the value in which `cut` bytes at its longest string are the mark, and masked what must be. */
static bool parse_copy(const char *value, const struct json_guard *guard, size_t cut, cJSON **root)
{
    const size_t mark = cut > 0 ? strlen(CUT_MARK) : 0;
    size_t length = guard->length - cut + mark;
    char *copy = malloc(length);
    if (!copy)
        return false;
    size_t before = cut > 0 ? (size_t)(guard->longest - value) : 0;
    memcpy(copy, value, before);
    memcpy(copy + before, CUT_MARK, mark);
    memcpy(copy + before + mark, value + before + cut, guard->length - before - cut);
    if (guard->needs_mask)
        json_guard_mask(copy, length);
    bool parsed = parse_text(copy, length, root);
    free(copy);
    return parsed;
}

/* Only the values of the outermost object are ever looked at: elsewhere the mark may stay. Takes `text` over. */
static void replace_mark(cJSON *root, char *text)
{
    cJSON *child = cJSON_IsObject(root) ? root->child : NULL;
    while (child && !(cJSON_IsString(child) && strcmp(child->valuestring, CUT_MARK) == 0))
        child = child->next;
    if (!child) {
        free(text);
        return;
    }
    free(child->valuestring);
    child->valuestring = text;
}

static bool parse_cut(const char *value, const struct json_guard *guard, cJSON **root)
{
    char *text;
    if (!json_string_decode(guard->longest, guard->longest_length, &text))
        return false;
    if (!text)
        return true;
    bool parsed = parse_copy(value, guard, guard->longest_length, root);
    if (*root)
        replace_mark(*root, text);
    else
        free(text);
    return parsed;
}

static bool parse_value(const char *value, const struct json_guard *guard, cJSON **root)
{
    *root = NULL;
    if (guard->longest_length >= MESSAGE_CUT_BYTES)
        return parse_cut(value, guard, root);
    return guard->needs_mask ? parse_copy(value, guard, 0, root) : parse_text(value, guard->length, root);
}

static struct fields find_fields(const cJSON *object)
{
    struct fields fields = {0};
    for (cJSON *child = object->child; child; child = child->next) {
        for (size_t i = 0; i < FIELD_COUNT; i++) {
            if (strcmp(child->string, field_names[i]) != 0)
                continue;
            if (fields.value[i])
                fields.is_duplicate[i] = true;
            else
                fields.value[i] = child;
        }
    }
    return fields;
}

static bool read_interview_id(const struct fields *fields, uint8_t interview_id[UUID_SIZE])
{
    const cJSON *value = fields->value[FIELD_INTERVIEW_ID];
    if (!value || !cJSON_IsString(value) || fields->is_duplicate[FIELD_INTERVIEW_ID])
        return false;
    uint8_t id[UUID_SIZE];
    if (!uuid_parse(value->valuestring, strlen(value->valuestring), id))
        return false;
    memcpy(interview_id, id, sizeof id);
    return true;
}

static void read_id_of_object(const cJSON *object, struct message_content *content)
{
    const struct fields fields = find_fields(object);
    content->has_interview_id = read_interview_id(&fields, content->interview_id);
}

/* Code points of a decoded string in which U+0000 is masked. */
static size_t count_chars(const char *text, size_t length, bool *has_nul)
{
    const char *end = text + length;
    size_t count = 0;
    const char *mask;
    *has_nul = false;
    while ((mask = memchr(text, JSON_NUL_BYTE, (size_t)(end - text))) != NULL) {
        *has_nul = true;
        count += utf8_count(text, (size_t)(mask - text)) + 1;
        text = mask + JSON_NUL_WIDTH;
    }
    return count + utf8_count(text, (size_t)(end - text));
}

static enum reject_reason validate_prompt(const struct message_rules *rules, const cJSON *value)
{
    if (!value)
        return REJECT_MISSING_ENHANCED_PROMPT;
    if (!cJSON_IsString(value))
        return REJECT_INVALID_ENHANCED_PROMPT;
    bool has_nul = false;
    size_t chars = count_chars(value->valuestring, strlen(value->valuestring), &has_nul);
    if (chars < rules->prompt_min_chars)
        return REJECT_PROMPT_TOO_SHORT;
    if (chars > rules->prompt_max_chars)
        return REJECT_PROMPT_TOO_LONG;
    return has_nul ? REJECT_PROMPT_HAS_NUL : REJECT_NONE;
}

/* The entry of rules->sources that the field, or the default where there is no field, names; NULL where none does. */
static const char *find_source(const struct message_rules *rules, const cJSON *value)
{
    if (value && !cJSON_IsString(value))
        return NULL;
    const char *source = value ? value->valuestring : default_source;
    for (size_t i = 0; i < rules->source_count; i++) {
        if (strcmp(source, rules->sources[i]) == 0)
            return rules->sources[i];
    }
    return NULL;
}

static char *take_text(cJSON *value)
{
    char *text = value->valuestring;
    value->valuestring = NULL;
    return text;
}

static void take_source(const struct message_rules *rules, cJSON *value, struct message_content *content)
{
    if (!rules->any_source)
        content->source = find_source(rules, value);
    else if (value && cJSON_IsString(value))
        content->source = content->own_source = take_text(value);
    else
        content->source = value ? NULL : default_source;
}

static enum reject_reason validate_object(const struct message_rules *rules, const cJSON *object,
                                          struct message_content *content)
{
    struct fields fields = find_fields(object);
    content->has_interview_id = read_interview_id(&fields, content->interview_id);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (fields.is_duplicate[i])
            return REJECT_DUPLICATE_FIELD;
    }
    if (!fields.value[FIELD_INTERVIEW_ID])
        return REJECT_MISSING_INTERVIEW_ID;
    if (!content->has_interview_id)
        return REJECT_INVALID_INTERVIEW_ID;
    enum reject_reason reason = validate_prompt(rules, fields.value[FIELD_ENHANCED_PROMPT]);
    if (reason != REJECT_NONE)
        return reason;
    take_source(rules, fields.value[FIELD_SOURCE], content);
    if (!content->source)
        return REJECT_INVALID_SOURCE;
    content->prompt = take_text(fields.value[FIELD_ENHANCED_PROMPT]);
    content->prompt_bytes = strlen(content->prompt);
    return REJECT_NONE;
}

/* *root is NULL where it is not JSON. false when out of memory. */
static bool parse_json(const char *value, size_t length, struct json_guard *guard, cJSON **root)
{
    *root = NULL;
    return !json_guard_scan(value, length, guard) || parse_value(value, guard, root);
}

/* A string: where it holds an object, its interview id is that of the message, which was stringified twice. `string` is
 * what stands between the quotes. */
static bool look_into_string(const char *string, size_t length, struct message_content *content)
{
    struct json_guard guard;
    cJSON *root = NULL;
    char *text;
    if (!json_string_decode(string, length, &text))
        return false;
    if (!text)
        return true;
    size_t framing = framing_length(text, strlen(text));
    bool parsed = parse_json(text + framing, strlen(text) - framing, &guard, &root);
    if (root && cJSON_IsObject(root)) {
        content->is_stringified = true;
        read_id_of_object(root, content);
    }
    cJSON_Delete(root);
    free(text);
    return parsed;
}

/* From the first byte of the value on. false when out of memory. */
static bool validate_value(const struct message_rules *rules, const char *value, size_t length,
                           struct message_content *content)
{
    struct json_guard guard;
    cJSON *root = NULL;
    bool has_memory = parse_json(value, length, &guard, &root);
    content->reject = REJECT_NOT_JSON;
    if (!root)
        return has_memory;

    if (!is_all_space(value + guard.length, length - guard.length)) {
        content->reject = REJECT_TRAILING_DATA;
        if (cJSON_IsObject(root))
            read_id_of_object(root, content);
    } else if (!cJSON_IsObject(root)) {
        content->reject = REJECT_NOT_OBJECT;
        if (cJSON_IsString(root) && guard.longest)
            has_memory = look_into_string(guard.longest, guard.longest_length, content);
    } else {
        content->reject = validate_object(rules, root, content);
    }
    cJSON_Delete(root);
    return has_memory;
}

const char *message_hint(const struct message_content *content)
{
    return content->is_stringified ? "a string that holds JSON: stringified twice?" : NULL;
}

bool message_parse(const struct message_rules *rules, const char *bytes, size_t length, struct message_content *content)
{
    *content = (struct message_content){0};
    if (length > rules->max_bytes) {
        content->reject = REJECT_TOO_LARGE;
        return true;
    }
    if (length == 0) { /* then `bytes` may be NULL */
        content->reject = REJECT_NOT_JSON;
        return true;
    }
    if (!utf8_is_valid(bytes, length)) {
        content->reject = REJECT_INVALID_UTF8;
        return true;
    }
    size_t framing = framing_length(bytes, length);
    if (!validate_value(rules, bytes + framing, length - framing, content)) {
        *content = (struct message_content){0};
        return false;
    }
    if (content->reject == REJECT_NOT_JSON)
        content->not_json_at = framing + json_guard_fault(bytes + framing, length - framing);
    return true;
}

void message_content_free(struct message_content *content)
{
    free(content->prompt);
    free(content->own_source);
    *content = (struct message_content){0};
}
