/* SPDX-License-Identifier: MIT */
/* The text of a prompt as it is stored: every byte, wherever it stands. */
#include "message_sample.h"

static void test_stored_byte_for_byte(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *prompt;
    } rows[] = {
        {"'); DROP TABLE interviews; --", "'); DROP TABLE interviews; --"},
        {"<script>alert(1)</script>&amp;", "<script>alert(1)</script>&amp;"},
        {"$(rm -rf /) `reboot` ; | %s %n", "$(rm -rf /) `reboot` ; | %s %n"},
        {"  leading and trailing \\n\\t ", "  leading and trailing \n\t "},
        {"\\\"quoted\\\" \\\\ \\/ \\b\\f\\n\\r\\t", "\"quoted\" \\ / \b\f\n\r\t"},
        {"line\\r\\nline \\u2028 \\u001b[31m", "line\r\nline \xe2\x80\xa8 \x1b[31m"},
        {"e\\u0301 is not \\u00e9, nor \xc3\xa9", "e\xcc\x81 is not \xc3\xa9, nor \xc3\xa9"},
        {"\\ufeffa mark, \\uFFFE \\uffff", "\xef\xbb\xbf"
                                           "a mark, \xef\xbf\xbe \xef\xbf\xbf"},
        {"\\ud83d\\ude00 \xf0\x9f\x98\x80 0123456789", "\xf0\x9f\x98\x80 \xf0\x9f\x98\x80 0123456789"},
        {"{\\\"interview_id\\\":1} \\\\u0000", "{\"interview_id\":1} \\u0000"},
        {"01 1. -.5 1e \\\\ud800 and \x7f", "01 1. -.5 1e \\ud800 and \x7f"},
    };
    /* With and without the masked copy, which a number elsewhere makes necessary. */
    static const char *const heads[] = {"{" ID ",\"enhanced_prompt\":\"", "{\"x\":1.5," ID ",\"enhanced_prompt\":\""};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
        char text[512];
        int length = snprintf(text, sizeof text, "%s%s\"}", heads[i % 2], rows[i / 2].json);
        struct message_content content;
        assert_in_range(length, 1, sizeof text - 1);
        assert_true(parse(&rules, text, (size_t)length, &content));
        assert_int_equal(content.reject, REJECT_NONE);
        assert_string_equal(content.prompt, rows[i / 2].prompt);
        assert_int_equal(content.prompt_bytes, strlen(rows[i / 2].prompt));
        message_content_free(&content);
    }
}

/* Plain bytes are passed over in blocks: what is not plain is found wherever it stands in one. */
static void test_every_place_in_a_long_prompt(void **state)
{
    (void)state;
    enum { PLACES = 150 };
    static const char head[] = "{" ID ",\"enhanced_prompt\":\"";
    for (size_t place = 0; place < PLACES; place++) {
        char plain[PLACES + 1];
        memset(plain, 'a', sizeof plain);
        char text[512];
        struct message_content content;

        int length = snprintf(text, sizeof text, "%s%.*s\\u0041%.*s\"}", head, (int)place, plain, PLACES - (int)place,
                              plain);
        assert_true(parse(&rules, text, (size_t)length, &content));
        assert_int_equal(content.reject, REJECT_NONE);
        assert_int_equal(content.prompt_bytes, PLACES + 1);
        for (size_t i = 0; i <= PLACES; i++)
            assert_int_equal(content.prompt[i], i == place ? 'A' : 'a');
        message_content_free(&content);

        static const char breaking[] = {'"', '\x1f', '\n', '\0'};
        for (size_t i = 0; i < sizeof breaking; i++) {
            length = snprintf(text, sizeof text, "%s%.*s\"}", head, PLACES, plain);
            text[sizeof head - 1 + place] = breaking[i];
            assert_true(parse(&rules, text, (size_t)length, &content));
            assert_int_equal(content.reject, REJECT_NOT_JSON);
            assert_int_equal(content.not_json_at, sizeof head - 1 + place + (breaking[i] == '"'));
            message_content_free(&content);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_byte_for_byte),
        cmocka_unit_test(test_every_place_in_a_long_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
