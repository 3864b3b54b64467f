/* SPDX-License-Identifier: MIT */
/* UTF-8, UUIDs, quoting for the log, and redaction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/text.h"

#include "failing_memory.h"

typedef void append(struct buffer *buffer, const char *value);

static void assert_appends(append *function, const char *value, const char *expected)
{
    struct buffer buffer = {0};
    buffer_append_text(&buffer, "before ");
    function(&buffer, value);
    buffer_append_char(&buffer, '\0');
    assert_false(buffer.failed);
    assert_memory_equal(buffer.data, "before ", 7);
    assert_string_equal(buffer.data + 7, expected);
    assert_int_equal(strlen(buffer.data), buffer.length - 1);
    buffer_free(&buffer);
}

/* An independent judge: decodes by the bit pattern, and compares what came out with the shortest form of it. */
static bool is_utf8_by_definition(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        unsigned char c = bytes[i];
        size_t size = c < 0x80 ? 1 : (c & 0xe0) == 0xc0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : (c & 0xf8) == 0xf0 ? 4 : 0;
        if (size == 0 || i + size > length)
            return false;
        uint32_t code = size == 1 ? c : c & (0xffU >> (size + 1));
        for (size_t k = 1; k < size; k++) {
            if ((bytes[i + k] & 0xc0) != 0x80)
                return false;
            code = code << 6 | (bytes[i + k] & 0x3fU);
        }
        size_t shortest = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (size != shortest || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
        i += size;
    }
    return true;
}

static void test_utf8_of_every_one_two_and_three_bytes(void **state)
{
    (void)state;
    for (unsigned value = 0; value < 1U << 24; value++) {
        unsigned char bytes[3] = {(unsigned char)value, (unsigned char)(value >> 8), (unsigned char)(value >> 16)};
        size_t length = value < 1U << 8 ? 1 : value < 1U << 16 ? 2 : 3;
        if (utf8_is_valid((char *)bytes, length) != is_utf8_by_definition(bytes, length))
            fail_msg("%02x %02x %02x is misjudged", bytes[0], bytes[1], bytes[2]);
    }
}

static void test_utf8_of_four_bytes(void **state)
{
    (void)state;
    static const unsigned char edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    const size_t count = sizeof edges;
    for (unsigned first = 0xe0; first <= 0xff; first++) {
        for (unsigned second = 0; second <= 0xff; second++) {
            for (size_t k = 0; k < count * count; k++) {
                unsigned char bytes[4] = {(unsigned char)first, (unsigned char)second, edges[k / count],
                                          edges[k % count]};
                if (utf8_is_valid((char *)bytes, 4) != is_utf8_by_definition(bytes, 4))
                    fail_msg("%02x %02x %02x %02x is misjudged", bytes[0], bytes[1], bytes[2], bytes[3]);
            }
        }
    }
}

static void test_utf8_named_cases(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        bool valid;
    } cases[] = {
        {"", 0, true},
        {"a\0b", 3, true},
        {"\xc0\x80", 2, false},         /* overlong NUL */
        {"\xc1\xbf", 2, false},         /* overlong DEL */
        {"\xe0\x9f\xbf", 3, false},     /* overlong U+07FF */
        {"\xf0\x8f\xbf\xbf", 4, false}, /* overlong U+FFFF */
        {"\xed\xa0\x80", 3, false},     /* U+D800 */
        {"\xed\xbf\xbf", 3, false},     /* U+DFFF */
        {"\xed\x9f\xbf", 3, true},      /* U+D7FF */
        {"\xee\x80\x80", 3, true},      /* U+E000 */
        {"\xef\xbf\xbf", 3, true},      /* U+FFFF, a noncharacter, is valid */
        {"\xf4\x8f\xbf\xbf", 4, true},  /* U+10FFFF */
        {"\xf4\x90\x80\x80", 4, false}, /* U+110000 */
        {"\xf5\x80\x80\x80", 4, false},
        {"\xf0\x9f\x98", 3, false}, /* cut */
        {"\x80", 1, false},         /* continuation alone */
        {"12345678\xff", 9, false}, /* behind a stretch of ASCII */
        {"1234567\xc3\xa4"
         "12345678",
         17, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(utf8_is_valid(cases[i].bytes, cases[i].length), cases[i].valid);
}

static void test_utf8_count(void **state)
{
    (void)state;
    assert_int_equal(utf8_count("", 0), 0);
    assert_int_equal(utf8_count("abc", 3), 3);
    assert_int_equal(utf8_count("a\0c", 3), 3);
    assert_int_equal(utf8_count("äöü", 6), 3);
    assert_int_equal(utf8_count("😀€ä.", 10), 4);
    static const char text[] = "€ten characters, and some more: äöüÄÖÜß 日本語 😀😀😀 done";
    for (size_t i = 0; i < sizeof text; i++) { /* eight bytes at a time, from each offset, and what is left */
        size_t expected = 0;
        for (size_t k = i; k < sizeof text - 1; k++)
            expected += (text[k] & 0xc0) != 0x80;
        assert_int_equal(utf8_count(text + i, sizeof text - 1 - i), expected);
    }

    enum { LONG = 16 * 255 * 2 + 40 }; /* more than the counts of a block of bytes can hold */
    static char many[LONG];
    for (size_t n = 0; n < LONG; n++)
        many[n] = n % 3 == 0 ? '\xc3' : '\xa4';
    for (size_t length = LONG - 40; length <= LONG; length++)
        assert_int_equal(utf8_count(many, length), (length + 2) / 3);
}

static void test_uuid_round_trip(void **state)
{
    (void)state;
    static const uint8_t expected[UUID_SIZE] = {0x5f, 0x0c, 0x2a, 0x9e, 0x3b, 0x1d, 0x4c, 0x8e,
                                                0x9f, 0x7a, 0x1d, 0x2e, 0x3f, 0x4a, 0x5b, 0x6c};
    uint8_t uuid[UUID_SIZE];
    char text[UUID_TEXT_SIZE];
    assert_true(uuid_parse("5F0C2a9e-3b1d-4c8e-9F7A-1d2e3f4a5b6c tail", 36, uuid));
    assert_memory_equal(uuid, expected, sizeof expected);
    uuid_format(uuid, text);
    assert_string_equal(text, "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c");
}

static void test_uuid_refuses_every_other_form(void **state)
{
    (void)state;
    static const char good[] = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c";
    uint8_t uuid[UUID_SIZE] = {1, 2, 3};
    for (size_t at = 0; at < 36; at++) {
        for (int c = 0; c < 256; c++) {
            char text[sizeof good];
            memcpy(text, good, sizeof good);
            text[at] = (char)c;
            bool fits = good[at] == '-' ? c == '-' : c && strchr("0123456789abcdefABCDEF", c);
            uint8_t ignored[UUID_SIZE];
            assert_int_equal(uuid_parse(text, 36, ignored), fits);
        }
    }
    assert_false(uuid_parse(good, 35, uuid));
    assert_false(uuid_parse("5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c0", 37, uuid));
    assert_false(uuid_parse("5f0c2a9e3b1d4c8e9f7a1d2e3f4a5b6c", 32, uuid));
    assert_false(uuid_parse("{5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c}", 38, uuid));
    assert_false(uuid_parse("", 0, uuid));
    assert_int_equal(uuid[0] + uuid[1] + uuid[2], 6); /* untouched */
}

static void test_logfmt(void **state)
{
    (void)state;
    assert_appends(text_append_logfmt, "plain", "plain");
    assert_appends(text_append_logfmt, "redis://h:1/0", "redis://h:1/0");
    assert_appends(text_append_logfmt, "Grüße", "Grüße");
    assert_appends(text_append_logfmt, "", "\"\"");
    assert_appends(text_append_logfmt, "two words", "\"two words\"");
    assert_appends(text_append_logfmt, "a=b", "\"a=b\"");
    assert_appends(text_append_logfmt, "say \"x\"", "\"say \\\"x\\\"\"");
    assert_appends(text_append_logfmt, "a\\b", "\"a\\\\b\"");
    assert_appends(text_append_logfmt, "1\n2\r3\t4", "\"1\\n2\\r3\\t4\"");
    assert_appends(text_append_logfmt, "\x1b[31m", "\"\\x1b[31m\"");
}

static void test_logfmt_of_every_byte(void **state)
{
    (void)state;
    for (int c = 1; c < 256; c++) {
        const char value[] = {'a', (char)c, 'b', '\0'};
        char expected[16];
        if (c == '\n' || c == '\r' || c == '\t')
            (void)snprintf(expected, sizeof expected, "\"a\\%cb\"", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c < ' ' || c >= 0x7f)
            (void)snprintf(expected, sizeof expected, "\"a\\x%02xb\"", c);
        else if (c == '"' || c == '\\')
            (void)snprintf(expected, sizeof expected, "\"a\\%cb\"", c);
        else if (c == ' ' || c == '=')
            (void)snprintf(expected, sizeof expected, "\"a%cb\"", c);
        else
            (void)snprintf(expected, sizeof expected, "a%cb", c);
        assert_appends(text_append_logfmt, value, expected);
    }
}

static void test_escapes_what_terminals_obey(void **state)
{
    (void)state;
    assert_appends(text_append_escaped, "a \"b\" \\ = c", "a \"b\" \\ = c");
    assert_appends(text_append_escaped, "1\n2\r3\t4\x7f", "1\\n2\\r3\\t4\\x7f");
    assert_appends(text_append_escaped, "\xc2\x85", "\\xc2\\x85");          /* NEL */
    assert_appends(text_append_escaped, "\xc2\x9b", "\\xc2\\x9b");          /* CSI */
    assert_appends(text_append_escaped, "\xc2\xa0", "\xc2\xa0");            /* no-break space */
    assert_appends(text_append_escaped, "\xe2\x80\xa8", "\\xe2\\x80\\xa8"); /* line separator */
    static const char override[] = {'\xe2', '\x80', '\xae', '\0'};          /* right to left */
    static const char isolate[] = {'\xe2', '\x81', '\xa7', '\0'};
    assert_appends(text_append_escaped, override, "\\xe2\\x80\\xae");
    assert_appends(text_append_escaped, isolate, "\\xe2\\x81\\xa7");
    assert_appends(text_append_escaped, "\xef\xbb\xbf", "\\xef\\xbb\\xbf"); /* byte order mark */
    assert_appends(text_append_escaped, "😀", "😀");
    assert_appends(text_append_escaped, "\xf0\x9f", "\\xf0\\x9f"); /* cut character */
    assert_appends(text_append_escaped, "\xed\xa0\x80", "\\xed\\xa0\\x80");
    assert_appends(text_append_escaped, "", "");
}

static void test_json(void **state)
{
    (void)state;
    assert_appends(text_append_json, "", "\"\"");
    assert_appends(text_append_json, "a \"b\" \\ / c", "\"a \\\"b\\\" \\\\ / c\"");
    assert_appends(text_append_json, "1\n2\r3\t4", "\"1\\n2\\r3\\t4\"");
    assert_appends(text_append_json, "Grüße 😀", "\"Grüße 😀\"");
    assert_appends(text_append_json, "a\xff\xc3z", "\"a\xef\xbf\xbd\xef\xbf\xbdz\"");
    assert_appends(text_append_json, "\xc2\x85\xe2\x80\xa8\xef\xbb\xbf", "\"\\u0085\\u2028\\ufeff\"");
    for (int c = 1; c < 0x20; c++) {
        if (c == '\n' || c == '\r' || c == '\t')
            continue;
        const char value[] = {(char)c, '\0'};
        char expected[16];
        (void)snprintf(expected, sizeof expected, "\"\\u%04x\"", c);
        assert_appends(text_append_json, value, expected);
    }
}

static void test_redacted(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"redis://127.0.0.1:6379", "redis://127.0.0.1:6379"},
        {"redis://[::1]:6379/0", "redis://[::1]:6379/0"},
        {"unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"},
        {"redis://:secret@h:1/0", "redis://:***@h:1/0"},
        {"redis://user:secret@h:1/0", "redis://user:***@h:1/0"},
        {"redis://user:@h", "redis://user:***@h"},
        {"redis://secret@h", "redis://***@h"},
        {"redis://u:se@cr/e?t@h/0", "redis://u:***@h/0"},
        {"redis://u:se:cret@[::1]:1", "redis://u:***@[::1]:1"},
        {"rediss://u:s%40t@h", "rediss://u:***@h"},
        {"unix://u:secret@/run/s", "unix://u:***@/run/s"},
        {"redis://u:secret", "redis://u:***"},
        {"postgresql://u:secret/db", "postgresql://u:***"},
        {"postgresql://h1:1,h2:2/db", "postgresql://h1:1,h2:2/db"},
        {"postgresql://[::1]:5432,h/db?a=b:c", "postgresql://[::1]:5432,h/db?a=b:c"},
        {"postgresql://h:/db", "postgresql://h:/db"},
        {"redis//u:se=cret@h", "redis//u:***@h"},
        {"redis:/u:secret@h", "redis:***@h"},
        {"u:secret@h", "u:***@h"},
        {"postgresql://me@h/db", "postgresql://me@h/db"},
        {"postgresql://me:secret@h1:1,h2:2/db?sslmode=require", "postgresql://me:***@h1:1,h2:2/db?sslmode=require"},
        {"postgresql://h/db?password=se@cret&sslmode=off", "postgresql://h/db?password=***&sslmode=off"},
        {"postgresql://h:5432/db?password=se@cret", "postgresql://h:***"},
        {"redis://u:se?password=cr@et@h", "redis://u:***"},
        {"postgresql://h/db?user=u&sslpassword=x y&a=b", "postgresql://h/db?user=u&sslpassword=***&a=b"},
        {"postgresql://h/db?PASSWORD=x", "postgresql://h/db?PASSWORD=***"},
        {"host=h password=secret dbname=d", "host=h password=*** dbname=d"},
        {"password=secret", "password=***"},
        {"host=h password = 'a b\\'c' dbname=d", "host=h password = *** dbname=d"},
        {"host=h password=a\\ b dbname=d", "host=h password=*** dbname=d"},
        {"host=h password='unterminated x", "host=h password=***"},
        {"host=h password='' dbname=d", "host=h password=*** dbname=d"},
        {"host=h password=a&b sslpassword=c", "host=h password=*** sslpassword=***"},
        {"host=h user=a@b password=x", "host=h user=a@b password=***"},
        {"dbname=postgresql://u:secret@h/db", "dbname=postgresql://u:***@h/db"},
        {"host=h passfile=/etc/p user=password", "host=h passfile=/etc/p user=password"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_appends(text_append_redacted, cases[i][0], cases[i][1]);
}

/* Wherever memory runs out, what is there holds no part of the password. */
static void test_redacted_without_memory(void **state)
{
    (void)state;
    char url[1200];
    (void)snprintf(url, sizeof url, "redis://u:Q%0500d?password=%0300d@h", 0, 0);
    for (long n = 0; n < 8; n++) {
        struct buffer buffer = {0};
        memory_left = n;
        text_append_redacted(&buffer, url);
        memory_left = -1;
        if (buffer.length > 0)
            assert_null(memmem(buffer.data, buffer.length, "Q", 1));
        buffer_free(&buffer);
    }
}

static bool quotes(const char *text, const char *secret, size_t count)
{
    return text_quotes(text, secret, strlen(secret), count);
}

static void test_quotes(void **state)
{
    (void)state;
    assert_true(quotes("value \"Tell me about yourself\" is bad", "Tell me about yourself.", 12));
    assert_false(quotes("value \"Tell me\" is bad", "Tell me about yourself.", 12));
    assert_true(quotes("abcdefghijkl", "xxabcdefghijklxx", 12));
    assert_false(quotes("abcdefghijk", "xxabcdefghijklxx", 12));
    assert_true(quotes("__abcdefghijkl", "abcdefghijkl", 12));
    assert_false(quotes("abcdefghijkl", "abcdefghijk", 12));
    assert_false(quotes("", "abc", 1));
    assert_false(quotes("abc", "", 1));
    assert_true(quotes("anything", "", 0));
    /* Code points count, not bytes: eleven of two bytes each are not twelve. */
    assert_false(quotes("äöüäöüäöüäö", "äöüäöüäöüäöü", 12));
    assert_true(quotes("äöüäöüäöüäöü", "x äöüäöüäöüäöü x", 12));
    /* Bytes that are not UTF-8 end no search. */
    assert_false(quotes("\xff\xfe\x80 abc", "abcdef", 4));
    const char secret[] = "0123456789\0abcdefghijklmnop";
    assert_true(text_quotes("see cdefghijklmn", secret, sizeof secret - 1, 12));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_of_every_one_two_and_three_bytes),
        cmocka_unit_test(test_utf8_of_four_bytes),
        cmocka_unit_test(test_utf8_named_cases),
        cmocka_unit_test(test_utf8_count),
        cmocka_unit_test(test_uuid_round_trip),
        cmocka_unit_test(test_uuid_refuses_every_other_form),
        cmocka_unit_test(test_logfmt),
        cmocka_unit_test(test_logfmt_of_every_byte),
        cmocka_unit_test(test_escapes_what_terminals_obey),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_redacted),
        cmocka_unit_test(test_redacted_without_memory),
        cmocka_unit_test(test_quotes),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
