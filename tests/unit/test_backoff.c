/* SPDX-License-Identifier: MIT */
/* Backoff: doubling, cap, jitter, reset; chance is passed in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "promptd/backoff.h"

static void test_doubles_to_the_maximum(void **state)
{
    (void)state;
    struct backoff backoff = {.base_ms = 1000, .max_ms = 30000};
    const int64_t expected[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_int_equal(backoff_fail(&backoff, 0), expected[i]);
}

static void test_jitter_takes_at_most_half(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        struct backoff backoff = {.base_ms = 1000, .max_ms = 30000, .failures = 2};
        int64_t wait = backoff_fail(&backoff, i / 1000.0);
        assert_in_range(wait, 2000, 4000);
    }
}

static void test_success_starts_over(void **state)
{
    (void)state;
    struct backoff backoff = {.base_ms = 1000, .max_ms = 30000, .failures = 9};
    backoff.failures = 0;
    assert_int_equal(backoff_fail(&backoff, 0), 1000);
}

static void test_never_overflows(void **state)
{
    (void)state;
    struct backoff backoff = {.base_ms = 1, .max_ms = INT64_MAX / 4, .failures = 4000000000U};
    assert_in_range(backoff_fail(&backoff, 0), INT64_MAX / 8, INT64_MAX / 4);
}

static void test_chance_is_below_one(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        double chance = backoff_chance();
        assert_true(chance >= 0 && chance < 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doubles_to_the_maximum), cmocka_unit_test(test_jitter_takes_at_most_half),
        cmocka_unit_test(test_success_starts_over),    cmocka_unit_test(test_never_overflows),
        cmocka_unit_test(test_chance_is_below_one),
    };
    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
