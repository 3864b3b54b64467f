/* SPDX-License-Identifier: MIT */
/* Times of the wall clock, which may be set at any moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "promptd/clock.h"

static void test_span(void **state)
{
    (void)state;
    const int64_t now = INT64_C(1795000000000);
    assert_int_equal(clock_wall_span_ms(now - 1500, now, 60000), 1500);
    assert_int_equal(clock_wall_span_ms(now - 60000, now, 60000), 60000);
    assert_int_equal(clock_wall_span_ms(now, now, 0), 0);
}

static void test_span_that_cannot_be(void **state)
{
    (void)state;
    const int64_t now = INT64_C(1795000000000);
    assert_int_equal(clock_wall_span_ms(now + 1, now, 60000), 0); /* set back */
    assert_int_equal(clock_wall_span_ms(INT64_MAX, now, 60000), 0);
    assert_int_equal(clock_wall_span_ms(now - 60001, now, 60000), 0); /* set forward */
    assert_int_equal(clock_wall_span_ms(0, now, 60000), 0);           /* from before the clock was set at all */
    assert_int_equal(clock_wall_span_ms(INT64_MIN, now, INT64_MAX), 0);
}

static void test_format(void **state)
{
    (void)state;
    static const struct {
        int64_t wall_ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {INT64_C(1795449662345), "2026-11-23T16:01:02.345Z"},
        {INT64_C(253402300799999), "9999-12-31T23:59:59.999Z"},
        {INT64_C(253402300800000), "1970-01-01T00:00:00.000Z"}, /* what has no such form is no time of ours */
        {INT64_C(-99999999999000), "1970-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[CLOCK_TEXT_SIZE];
        clock_format_wall(cases[i].wall_ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_span),
        cmocka_unit_test(test_span_that_cannot_be),
        cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
