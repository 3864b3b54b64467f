/* SPDX-License-Identifier: MIT */
/* message_parse at its limits: sizes, depth, other rules, large junk, and memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <errno.h>

#include "promptd/buffer.h"
#include "promptd/message.h"

#define ID_TEXT "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
#define ID "\"interview_id\":\"" ID_TEXT "\""
#define PROMPT "\"enhanced_prompt\":\"Tell me about yourself.\""
#define VALID "{" ID "," PROMPT "}"

static const char *const sources[] = {"rag", "fallback"};
static const struct message_rules rules = {
    .max_bytes = 1048576, .prompt_min_chars = 10, .prompt_max_chars = 50000, .sources = sources, .source_count = 2};

/* Counts down to an allocation that fails; 0: none does. The linker sends malloc here (--wrap). */
static unsigned failing_allocation;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
    if (failing_allocation > 0 && --failing_allocation == 0) {
        errno = ENOMEM;
        return NULL;
    }
    return __real_malloc(size);
}

/* cJSON is a shared library, out of the linker's reach. */
static void *malloc_for_cjson(size_t size)
{
    return malloc(size);
}

static enum reject_reason parse_by(const struct message_rules *by, const char *payload, size_t length)
{
    struct message_content content;
    char *exact = malloc(length);
    assert_true(exact || length == 0);
    if (length > 0)
        memcpy(exact, payload, length);
    assert_true(message_parse(by, exact, length, &content));
    free(exact);
    enum reject_reason reason = content.reject;
    assert_int_equal(content.prompt != NULL, reason == REJECT_NONE);
    message_content_free(&content);
    return reason;
}

static void append_times(struct buffer *buffer, const char *text, size_t times)
{
    for (size_t i = 0; i < times; i++)
        buffer_append_text(buffer, text);
}

/* Frees the buffer. */
static enum reject_reason parse_buffer(struct buffer *buffer)
{
    assert_false(buffer->failed);
    enum reject_reason reason = parse_by(&rules, buffer->data, buffer->length);
    buffer_free(buffer);
    return reason;
}

static enum reject_reason parse_prompt_of(const char *character, size_t count)
{
    struct buffer text = {0};
    buffer_append_text(&text, "{" ID ",\"enhanced_prompt\":\"");
    append_times(&text, character, count);
    buffer_append_text(&text, "\"}");
    return parse_buffer(&text);
}

static void test_prompt_length_is_in_code_points(void **state)
{
    (void)state;
    static const char *const characters[] = {
        "a",   "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\\u0061", "\\u00e9", "\\u20ac", "\\ud83d\\ude00",
        "\\n", "\\\\",     "\xcc\x81", /* a combining mark counts as well */
    };
    for (size_t i = 0; i < sizeof characters / sizeof characters[0]; i++) {
        assert_int_equal(parse_prompt_of(characters[i], 9), REJECT_PROMPT_TOO_SHORT);
        assert_int_equal(parse_prompt_of(characters[i], 10), REJECT_NONE);
        assert_int_equal(parse_prompt_of(characters[i], 50000), REJECT_NONE);
        assert_int_equal(parse_prompt_of(characters[i], 50001), REJECT_PROMPT_TOO_LONG);
    }
}

static void test_nul_counts_as_one_code_point(void **state)
{
    (void)state;
    assert_int_equal(parse_prompt_of("\\u0000", 9), REJECT_PROMPT_TOO_SHORT);
    assert_int_equal(parse_prompt_of("\\u0000", 10), REJECT_PROMPT_HAS_NUL);
    assert_int_equal(parse_prompt_of("\\u0000", 50000), REJECT_PROMPT_HAS_NUL);
    assert_int_equal(parse_prompt_of("\\u0000", 50001), REJECT_PROMPT_TOO_LONG);
    assert_int_equal(parse_prompt_of("\xf0\x9f\x98\x80\\u0000", 25000), REJECT_PROMPT_HAS_NUL);
    assert_int_equal(parse_prompt_of("\xf0\x9f\x98\x80\\u0000", 25001), REJECT_PROMPT_TOO_LONG);
}

static void test_size_is_in_bytes_as_arrived(void **state)
{
    (void)state;
    struct message_rules small = rules;
    small.max_bytes = strlen(VALID);
    assert_int_equal(parse_by(&small, VALID, strlen(VALID)), REJECT_NONE);
    assert_int_equal(parse_by(&small, VALID "\n", strlen(VALID) + 1), REJECT_TOO_LARGE);
    assert_int_equal(parse_by(&small, "=" VALID, strlen(VALID) + 1), REJECT_TOO_LARGE);
    small.max_bytes = 3;
    assert_int_equal(parse_by(&small, "\xff\xff\xff\xff", 4), REJECT_TOO_LARGE);
    assert_int_equal(parse_by(&small, "\xff\xff\xff", 3), REJECT_INVALID_UTF8);

    struct buffer text = {0};
    buffer_append_text(&text, VALID);
    append_times(&text, " ", rules.max_bytes - text.length);
    assert_int_equal(parse_by(&rules, text.data, text.length), REJECT_NONE);
    buffer_append_text(&text, " ");
    assert_int_equal(parse_buffer(&text), REJECT_TOO_LARGE);
}

/* `depth` levels in all, the object around included. */
static enum reject_reason parse_nested(const char *opening, const char *closing, size_t depth)
{
    struct buffer text = {0};
    buffer_append_text(&text, "{" ID "," PROMPT ",\"x\":");
    append_times(&text, opening, depth - 1);
    buffer_append_text(&text, "1");
    append_times(&text, closing, depth - 1);
    buffer_append_text(&text, "}");
    return parse_buffer(&text);
}

static void test_depth(void **state)
{
    (void)state;
    assert_int_equal(parse_nested("[", "]", 1000), REJECT_NONE);
    assert_int_equal(parse_nested("[", "]", 1001), REJECT_NOT_JSON);
    assert_int_equal(parse_nested("[", "]", 10000), REJECT_NOT_JSON);
    assert_int_equal(parse_nested("{\"x\":", "}", 1000), REJECT_NONE);
    assert_int_equal(parse_nested("{\"x\":", "}", 1001), REJECT_NOT_JSON);

    struct buffer text = {0};
    append_times(&text, "[", 1000);
    append_times(&text, "]", 1000);
    assert_int_equal(parse_by(&rules, text.data, text.length), REJECT_NOT_OBJECT);
    buffer_append_text(&text, "]");
    assert_int_equal(parse_buffer(&text), REJECT_TRAILING_DATA);
    append_times(&text, "[", 1001);
    append_times(&text, "]", 1001);
    assert_int_equal(parse_buffer(&text), REJECT_NOT_JSON);

    /* Breadth is not depth, and brackets in strings are text. */
    buffer_append_text(&text, "{" ID "," PROMPT ",\"x\":[");
    append_times(&text, "[{}],", 5000);
    buffer_append_text(&text, "\"");
    append_times(&text, "[{", 5000);
    buffer_append_text(&text, "\"]}");
    assert_int_equal(parse_buffer(&text), REJECT_NONE);
}

static void test_large_junk(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        const char *repeated;
        enum reject_reason reason;
    } rows[] = {
        {"", " ", REJECT_NOT_JSON},
        {"", "=", REJECT_NOT_JSON},
        {"", "{", REJECT_NOT_JSON},
        {"", "[", REJECT_NOT_JSON},
        {"", "}", REJECT_NOT_JSON},
        {"", "\"", REJECT_TRAILING_DATA},
        {"", "\\", REJECT_NOT_JSON},
        {"", "9", REJECT_NOT_OBJECT},
        {"", "-", REJECT_NOT_JSON},
        {"", "1e", REJECT_NOT_JSON},
        {"", "a", REJECT_NOT_JSON},
        {"", "null", REJECT_TRAILING_DATA},
        {"", "\xef\xbb\xbf", REJECT_NOT_JSON},
        {"", "\xf0\x9f\x98\x80", REJECT_NOT_JSON},
        {"", "\x80", REJECT_INVALID_UTF8},
        {"\"", "a", REJECT_NOT_JSON},
        {"\"", "\\\\", REJECT_NOT_JSON},
        {"\"", "\\u0000", REJECT_NOT_JSON},
        {"[", "0,", REJECT_NOT_JSON},
        {"[", "\"\",", REJECT_NOT_JSON},
        {"[", "[],", REJECT_NOT_JSON},
        {"{", "\"a\":1,", REJECT_NOT_JSON},
        {"{", "{}", REJECT_NOT_JSON},
        {VALID, "\n", REJECT_NONE},
        {VALID, VALID, REJECT_TRAILING_DATA},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buffer text = {0};
        buffer_append_text(&text, rows[i].head);
        append_times(&text, rows[i].repeated, (rules.max_bytes - text.length) / strlen(rows[i].repeated));
        assert_int_equal(parse_buffer(&text), rows[i].reason);
    }
    struct buffer zeros = {0};
    for (size_t i = 0; i < rules.max_bytes; i++)
        buffer_append_char(&zeros, '\0');
    assert_int_equal(parse_buffer(&zeros), REJECT_NOT_JSON);
}

/* No part of a message is a message. */
static void test_truncated(void **state)
{
    (void)state;
    static const char text[] =
        "==\xef\xbb\xbf{ \"x\" : [ -1.5e+3, true, false, null, \"\\u00e9\\ud83d\\ude00\\\\\" ], " ID
        ", \"enhanced_prompt\" : \"caf\xc3\xa9 \xf0\x9f\x98\x80 and \\u0041\" , \"source\":\"rag\" }";
    assert_int_equal(parse_by(&rules, text, sizeof text - 1), REJECT_NONE);
    for (size_t length = 0; length < sizeof text - 1; length++) {
        enum reject_reason reason = parse_by(&rules, text, length);
        assert_true(reason == REJECT_NOT_JSON || reason == REJECT_INVALID_UTF8);
    }
}

static void test_default_source_must_be_allowed(void **state)
{
    (void)state;
    struct message_rules other = rules;
    other.source_count = 0;
    assert_int_equal(parse_by(&other, VALID, strlen(VALID)), REJECT_INVALID_SOURCE);
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char *const texts[] = {VALID, "{\"x\":[1,{\"y\":\"\\u0000\"}]," ID "," PROMPT "}"};
    cJSON_Hooks hooks = {.malloc_fn = malloc_for_cjson, .free_fn = free};
    cJSON_InitHooks(&hooks);
    for (size_t i = 0; i < 2; i++) {
        struct message_content content;
        unsigned failed = 0;
        for (;;) {
            failing_allocation = failed + 1;
            memset(&content, 0xff, sizeof content);
            bool known = message_parse(&rules, texts[i], strlen(texts[i]), &content);
            failing_allocation = 0;
            if (known)
                break;
            assert_int_equal(content.reject, REJECT_NONE);
            assert_null(content.prompt);
            assert_null(content.source);
            assert_false(content.has_interview_id);
            failed++;
        }
        assert_in_range(failed, 5, 100);
        assert_int_equal(content.reject, REJECT_NONE);
        assert_non_null(content.prompt);
        message_content_free(&content);
    }
    cJSON_InitHooks(NULL);
}

/* What is not JSON must not pass for a lack of memory because of what errno was. */
static void test_errno_from_before_is_not_believed(void **state)
{
    (void)state;
    errno = ENOMEM;
    assert_int_equal(parse_by(&rules, "{\"a\" 1}", 7), REJECT_NOT_JSON);
}

static void test_reasons_are_named(void **state)
{
    (void)state;
    static const char *const names[REJECT_COUNT] = {
        "none",
        "too_large",
        "invalid_utf8",
        "not_json",
        "trailing_data",
        "not_object",
        "duplicate_field",
        "missing_interview_id",
        "invalid_interview_id",
        "missing_enhanced_prompt",
        "invalid_enhanced_prompt",
        "prompt_too_short",
        "prompt_too_long",
        "prompt_has_nul",
        "invalid_source",
    };
    for (unsigned i = 0; i < REJECT_COUNT; i++) {
        assert_string_equal(reject_name((enum reject_reason)i), names[i]);
        assert_true(strlen(reject_meaning((enum reject_reason)i)) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_length_is_in_code_points),
        cmocka_unit_test(test_nul_counts_as_one_code_point),
        cmocka_unit_test(test_size_is_in_bytes_as_arrived),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_large_junk),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_default_source_must_be_allowed),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_errno_from_before_is_not_believed),
        cmocka_unit_test(test_reasons_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
