/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "promptd/log_rate.h"

static const int64_t second_us = 1000000;

static unsigned allowed(struct log_rate *rate, unsigned lines, int64_t now_us)
{
    unsigned count = 0;
    for (unsigned i = 0; i < lines; i++)
        count += log_rate_allows(rate, now_us);
    return count;
}

static void test_a_burst_passes_whole(void **state)
{
    (void)state;
    struct log_rate rate = {.burst = 100, .per_second = 10};
    assert_int_equal(allowed(&rate, 100, 7 * second_us), 100);
    assert_int_equal(log_rate_take_held_back(&rate), 0);
    assert_false(log_rate_allows(&rate, 7 * second_us));
}

static void test_what_is_held_back_is_told_once(void **state)
{
    (void)state;
    struct log_rate rate = {.burst = 10, .per_second = 10};
    assert_int_equal(allowed(&rate, 25, second_us), 10);
    assert_int_equal(log_rate_take_held_back(&rate), 15);
    assert_int_equal(log_rate_take_held_back(&rate), 0);
}

static void test_a_flood_passes_at_the_rate(void **state)
{
    (void)state;
    struct log_rate rate = {.burst = 100, .per_second = 10};
    unsigned count = 0;
    for (int64_t ms = 0; ms < 10000; ms++)
        count += allowed(&rate, 3, second_us + ms * 1000);
    assert_in_range(count, 100 + 99, 100 + 100);
    assert_int_equal(log_rate_take_held_back(&rate), 30000 - count);
}

static void test_a_rest_fills_it_again_and_no_more(void **state)
{
    (void)state;
    struct log_rate rate = {.burst = 100, .per_second = 10};
    assert_int_equal(allowed(&rate, 1000, second_us), 100);
    assert_int_equal(allowed(&rate, 1000, 3 * second_us), 20);
    assert_int_equal(allowed(&rate, 1000, 1000 * second_us), 100);
    assert_int_equal(allowed(&rate, 1000, 1000 * second_us + 99999), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_passes_whole),
        cmocka_unit_test(test_what_is_held_back_is_told_once),
        cmocka_unit_test(test_a_flood_passes_at_the_rate),
        cmocka_unit_test(test_a_rest_fills_it_again_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
