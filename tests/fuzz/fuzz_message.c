/* SPDX-License-Identifier: MIT */
/* message_parse on arbitrary bytes: whatever they are, what it says about them must hold by a check of our own. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/buffer.h"
#include "promptd/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static const char *const sources[] = {"rag", "existing_data", "new_data", "fallback"};
static const struct message_rules shipped_rules = {
    .max_bytes = 1048576, .prompt_min_chars = 10, .prompt_max_chars = 50000, .sources = sources, .source_count = 4};

/* A fuzzer seldom finds 50,000 characters, but five. */
static const struct message_rules narrow_rules = {
    .max_bytes = 4096, .prompt_min_chars = 2, .prompt_max_chars = 4, .sources = sources, .source_count = 1};

/* Code points, or SIZE_MAX where this is not UTF-8; written apart from the one in the daemon. */
static size_t decode_utf8(const unsigned char *bytes, size_t length)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    size_t count = 0;
    for (size_t at = 0; at < length; count++) {
        unsigned char first = bytes[at++];
        size_t more = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : first >> 3 == 30 ? 3 : 4;
        if (more > 3 || more > length - at)
            return SIZE_MAX;
        uint32_t point = more == 0 ? first : first & (0x3fU >> more);
        for (size_t i = 0; i < more; i++, at++) {
            if (bytes[at] >> 6 != 2)
                return SIZE_MAX;
            point = point << 6 | (bytes[at] & 0x3fU);
        }
        if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return SIZE_MAX;
    }
    return count;
}

static void append_json_string(struct buffer *buffer, const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == '"' || *text == '\\')
            buffer_printf(buffer, "\\u%04x", (unsigned char)*text);
        else
            buffer_append_char(buffer, *text);
    }
}

/* What was read, written again in its plainest form, reads the same. */
static void check_round_trip(const struct message_rules *rules, const struct message_content *content)
{
    struct message_rules any_size = *rules;
    any_size.max_bytes = SIZE_MAX;
    struct message_content again;
    struct buffer text = {0};
    char id[UUID_TEXT_SIZE];
    uuid_format(content->interview_id, id);
    buffer_printf(&text, "{\"interview_id\":\"%s\",\"source\":\"%s\",\"enhanced_prompt\":\"", id, content->source);
    append_json_string(&text, content->prompt);
    buffer_append_text(&text, "\"}");
    REQUIRE(!text.failed);
    REQUIRE(message_parse(&any_size, text.data, text.length, &again));
    REQUIRE(again.reject == REJECT_NONE);
    REQUIRE(memcmp(again.interview_id, content->interview_id, UUID_SIZE) == 0);
    REQUIRE(again.source == content->source);
    REQUIRE(strcmp(again.prompt, content->prompt) == 0);
    message_content_free(&again);
    buffer_free(&text);
}

static void check_accepted(const struct message_rules *rules, const struct message_content *content)
{
    REQUIRE(content->prompt && content->source && content->has_interview_id);
    REQUIRE(strlen(content->prompt) == content->prompt_bytes);
    size_t chars = decode_utf8((const unsigned char *)content->prompt, content->prompt_bytes);
    REQUIRE(chars != SIZE_MAX);
    REQUIRE(chars >= rules->prompt_min_chars && chars <= rules->prompt_max_chars);
    bool known_source = false;
    for (size_t i = 0; i < rules->source_count; i++)
        known_source |= content->source == rules->sources[i];
    REQUIRE(known_source);
    check_round_trip(rules, content);
}

/* What stands before the fault is the beginning of some JSON: cut there, it is at its end that something is missing. */
static void check_fault(const struct message_rules *rules, const char *bytes, size_t at, size_t size)
{
    struct message_content before;
    REQUIRE(at <= size);
    REQUIRE(message_parse(rules, bytes, at, &before));
    REQUIRE(before.reject == REJECT_NOT_JSON && before.not_json_at == at);
    message_content_free(&before);
}

static void check_rejected(const struct message_rules *rules, const struct message_content *content, const char *bytes,
                           size_t size)
{
    REQUIRE(!content->prompt);
    REQUIRE((content->reject == REJECT_TOO_LARGE) == (size > rules->max_bytes));
    if (content->reject != REJECT_TOO_LARGE)
        REQUIRE((content->reject == REJECT_INVALID_UTF8) ==
                (decode_utf8((const unsigned char *)bytes, size) == SIZE_MAX));
    if (content->reject < REJECT_TRAILING_DATA)
        REQUIRE(!content->has_interview_id);
    if (content->reject == REJECT_NOT_JSON)
        check_fault(rules, bytes, content->not_json_at, size);
    REQUIRE(!content->is_stringified || content->reject == REJECT_NOT_OBJECT);
    if (content->reject == REJECT_NOT_OBJECT)
        REQUIRE(!content->has_interview_id || content->is_stringified);
    if (content->reject == REJECT_MISSING_INTERVIEW_ID || content->reject == REJECT_INVALID_INTERVIEW_ID)
        REQUIRE(!content->has_interview_id);
    if (content->reject > REJECT_INVALID_INTERVIEW_ID)
        REQUIRE(content->has_interview_id);
}

/* The verdict is the same in the dress of n8n. */
static void check_framed(const struct message_rules *rules, const char *bytes, size_t size, enum reject_reason reason)
{
    struct message_rules roomier = *rules;
    roomier.max_bytes += 3;
    char *framed = malloc(size + 3);
    REQUIRE(framed);
    memcpy(framed, "==", 2);
    memcpy(framed + 2, bytes, size);
    framed[size + 2] = '\n';
    struct message_content content;
    REQUIRE(message_parse(&roomier, framed, size + 3, &content));
    REQUIRE(content.reject == reason);
    message_content_free(&content);
    free(framed);
}

static void check_message(const struct message_rules *rules, const char *bytes, size_t size)
{
    struct message_content content;
    REQUIRE(message_parse(rules, bytes, size, &content));
    REQUIRE(content.reject < REJECT_COUNT);
    if (content.reject == REJECT_NONE)
        check_accepted(rules, &content);
    else
        check_rejected(rules, &content, bytes, size);
    check_framed(rules, bytes, size, content.reject);
    message_content_free(&content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *exact = malloc(size + (size == 0)); /* just so large that a read past the end is seen */
    REQUIRE(exact);
    if (size > 0)
        memcpy(exact, data, size);
    check_message(&shipped_rules, exact, size);
    check_message(&narrow_rules, exact, size);
    free(exact);
    return 0;
}
