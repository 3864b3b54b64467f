/* SPDX-License-Identifier: MIT */
/* The buffer: growth, numbers, formatting, giving memory back, and what it does when there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/buffer.h"

#include "failing_memory.h"

static void assert_holds(const struct buffer *buffer, const char *bytes, size_t length)
{
    assert_false(buffer->failed);
    assert_int_equal(buffer->length, length);
    assert_memory_equal(buffer->data, bytes, length);
}

static void test_appends_in_order(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append(&buffer, "a\0b", 3);
    buffer_append_text(&buffer, "cd");
    buffer_append_char(&buffer, 'e');
    buffer_append_u32(&buffer, 0x01020304);
    buffer_printf(&buffer, "%d-%s", 7, "x");
    assert_holds(&buffer,
                 "a\0bcde\x01\x02\x03\x04"
                 "7-x",
                 13);
    buffer_free(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer.capacity, 0);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        int64_t number;
        const char *text;
    } cases[] = {{0, "0"},
                 {7, "7"},
                 {-10, "-10"},
                 {INT64_MAX, "9223372036854775807"},
                 {1000000, "1000000"},
                 {INT64_MIN, "-9223372036854775808"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer buffer = {0};
        buffer_append_number(&buffer, cases[i].number);
        assert_holds(&buffer, cases[i].text, strlen(cases[i].text));
        buffer_free(&buffer);
    }
}

static void test_nothing_appended_allocates_nothing(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append(&buffer, NULL, 0);
    buffer_append_text(&buffer, "");
    assert_null(buffer.data);
    assert_false(buffer.failed);
}

static void test_grows_past_every_boundary(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    for (int i = 0; i < 5000; i++)
        buffer_append_char(&buffer, (char)('a' + i % 26));
    assert_int_equal(buffer.length, 5000);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(buffer.data[i], 'a' + i % 26);
    assert_true(buffer.capacity >= 5000);
    buffer_free(&buffer);
}

static void test_formats_what_is_longer_than_the_rest_of_it(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append_text(&buffer, "start:");
    buffer_printf(&buffer, "%0*d", 3000, 5);
    assert_int_equal(buffer.length, 3006);
    assert_int_equal(buffer.data[3005], '5');
    assert_int_equal(buffer.data[3004], '0');
    buffer_free(&buffer);
}

static void test_reset_keeps_little_and_gives_much_back(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append_text(&buffer, "small");
    buffer_reset(&buffer, 1024);
    assert_int_equal(buffer.length, 0);
    assert_non_null(buffer.data);
    assert_true(buffer_reserve(&buffer, 5000));
    buffer_reset(&buffer, 1024);
    assert_null(buffer.data);
    assert_int_equal(buffer.capacity, 0);
}

static void test_absurd_lengths_fail(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    assert_false(buffer_reserve(&buffer, SIZE_MAX));
    assert_true(buffer.failed);
    buffer_free(&buffer);
}

static void test_failure_is_remembered_until_reset(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_append_text(&buffer, "kept");
    memory_left = 0;
    assert_false(buffer_reserve(&buffer, 100000));
    memory_left = -1;
    buffer_append_text(&buffer, "not appended");
    buffer_printf(&buffer, "%d", 1);
    assert_true(buffer.failed);
    assert_int_equal(buffer.length, 4);
    assert_memory_equal(buffer.data, "kept", 4);

    buffer_reset(&buffer, 1024);
    assert_false(buffer.failed);
    buffer_append_text(&buffer, "again");
    assert_holds(&buffer, "again", 5);
    buffer_free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_in_order),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_nothing_appended_allocates_nothing),
        cmocka_unit_test(test_grows_past_every_boundary),
        cmocka_unit_test(test_formats_what_is_longer_than_the_rest_of_it),
        cmocka_unit_test(test_reset_keeps_little_and_gives_much_back),
        cmocka_unit_test(test_absurd_lengths_fail),
        cmocka_unit_test(test_failure_is_remembered_until_reset),
    };
    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
