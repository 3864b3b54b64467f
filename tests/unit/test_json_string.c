/* SPDX-License-Identifier: MIT */
/* Long strings are decoded as cJSON decodes them: the same text, or both refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "promptd/message.h"

#include "json_guard.h"
#include "json_string.h"

/* `content` is what stands between the quotes. What the guard refuses never comes to the decoder. */
static void check_same(const char *content)
{
    char text[1024];
    int length = snprintf(text, sizeof text, "\"%s\"", content);
    assert_in_range(length, 2, sizeof text - 1);
    struct json_guard guard;
    if (!json_guard_scan(text, (size_t)length, &guard) || guard.length != (size_t)length)
        return;
    char *decoded;
    assert_true(json_string_decode(content, strlen(content), &decoded));
    if (guard.needs_mask)
        json_guard_mask(text, (size_t)length);
    cJSON *expected = cJSON_Parse(text);
    if (!!decoded != !!expected)
        fail_msg("only one of them takes \"%s\"", content);
    if (expected)
        assert_string_equal(decoded, expected->valuestring);
    cJSON_Delete(expected);
    free(decoded);
}

static void test_escapes(void **state)
{
    (void)state;
    static const char *const contents[] = {
        "",
        "plain",
        "\\\"\\\\\\/\\b\\f\\n\\r\\t",
        "\\u0041\\u00e9\\u07ff\\u0800\\uffff\\uFFFD",
        "\\ud83d\\ude00",
        "\\uD800\\uDC00\\uDBFF\\uDFFF",
        "a\\u0000b",
        "\\u0000\\u0000",
        "\\\\u0000",
        "日本語 äöü 😀",
        "\\q",
        "\\U0041",
        "\\'",
        "\\a\\v",
        "\\x41",
        "\\0",
        "\\ud83d",
        "\\ude00",
        "\\ud83dx",
        "\\ud83d\\n",
        "\\ud83d\\u0041",
        "\\ud83d\\ud83d",
        "\\ud83d\\ud83d\\ude00",
        "\\ud83d\\u",
        "\\ud83d\\\\ude00",
        "\\u12",
        "\\",
        "eight by\\nte runs\\tand more than eight",
    };
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++)
        check_same(contents[i]);
}

/* Pieces in every order that chance brings, the same in each run. */
static void test_mixtures(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "a",       "12345678", "words and more words ",
        "ä",       "€",        "😀",
        "\\n",     "\\\"",     "\\\\",
        "\\/",     "\\u00",    "\\u0000",
        "\\ud83d", "\\ude00",  "\\ud83d\\ude00",
        "\\u00e4", "\\uabcd",  "u0041",
        "\\",      "d83d",     "\x7f",
    };
    uint32_t chance = 1;
    for (int round = 0; round < 20000; round++) {
        char content[512] = "";
        size_t length = 0;
        for (int i = 0; i < 12; i++) {
            chance = chance * 1664525 + 1013904223;
            const char *piece = pieces[(chance >> 16) % (sizeof pieces / sizeof pieces[0])];
            memcpy(content + length, piece, strlen(piece) + 1);
            length += strlen(piece);
        }
        check_same(content);
    }
}

#define LONG_64 "sixty-four bytes, counted, and each of them is an ordinary letter"
#define LONG_320 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64
#define HEAD "{\"interview_id\":\"5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c\","

static struct message_content parse(const char *text)
{
    static const char *const sources[] = {"rag"};
    static const struct message_rules rules = {
        .max_bytes = 65536, .prompt_min_chars = 10, .prompt_max_chars = 5000, .sources = sources, .source_count = 1};
    struct message_content content;
    assert_true(message_parse(&rules, text, strlen(text), &content));
    return content;
}

static void check_accepted(const char *text, const char *prompt)
{
    struct message_content content = parse(text);
    assert_int_equal(content.reject, REJECT_NONE);
    assert_string_equal(content.prompt, prompt);
    message_content_free(&content);
}

static void check_rejected(const char *text, enum reject_reason reason)
{
    struct message_content content = parse(text);
    assert_int_equal(content.reject, reason);
    message_content_free(&content);
}

/* The one that is cut out of a message before cJSON sees it, wherever it stands. */
static void test_the_longest_string_of_a_message(void **state)
{
    (void)state;
    check_accepted(HEAD "\"enhanced_prompt\":\"" LONG_320 "\\n\\u20ac\"}", LONG_320 "\n€");
    check_accepted(HEAD "\"enhanced_prompt\":\"" LONG_320 "\",\"n\":[1,2e3]}", LONG_320);
    check_accepted(HEAD "\"x\":\"" LONG_320 "\\n\",\"enhanced_prompt\":\"ten letters\"}", "ten letters");
    check_accepted(HEAD "\"x\":{\"y\":[\"" LONG_320 "\"]},\"enhanced_prompt\":\"ten letters\"}", "ten letters");
    check_accepted(HEAD "\"" LONG_320 "\":1,\"enhanced_prompt\":\"ten letters\"}", "ten letters");
    check_rejected(HEAD "\"enhanced_prompt\":\"" LONG_320 "\\q\"}", REJECT_NOT_JSON);
    check_rejected(HEAD "\"enhanced_prompt\":\"" LONG_320 "\\ud83d\"}", REJECT_NOT_JSON);
    check_rejected(HEAD "\"x\":\"" LONG_320 "\\ude00\",\"enhanced_prompt\":\"ten letters\"}", REJECT_NOT_JSON);
    check_rejected(HEAD "\"enhanced_prompt\":\"" LONG_320 "\" 1}", REJECT_NOT_JSON);
    check_rejected(HEAD "\"enhanced_prompt\":\"" LONG_320 "\\u0000\"}", REJECT_PROMPT_HAS_NUL);
    check_rejected(HEAD "\"enhanced_prompt\":\"" LONG_320 "\",\"source\":\"x\"}", REJECT_INVALID_SOURCE);
    check_rejected(HEAD "\"enhanced_prompt\":\"ten letters\",\"source\":\"" LONG_320 "\"}", REJECT_INVALID_SOURCE);
    check_rejected("\"" LONG_320 "\"", REJECT_NOT_OBJECT);
    check_rejected("[\"" LONG_320 "\"]", REJECT_NOT_OBJECT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_mixtures),
        cmocka_unit_test(test_the_longest_string_of_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
