/* SPDX-License-Identifier: MIT */
/* The circuit breaker: opens after enough failures in a row, lets one attempt through, closes on success or by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "promptd/breaker.h"

static struct breaker new_breaker(void)
{
    return (struct breaker){.backoff = {.base_ms = 1000, .max_ms = 30000}, .max_failures = 3, .reset_ms = 60000};
}

static void test_opens_once(void **state)
{
    (void)state;
    struct breaker breaker = new_breaker();
    bool opened;
    assert_int_equal(breaker_fail(&breaker, 0, &opened), 1000);
    assert_false(opened);
    assert_int_equal(breaker_fail(&breaker, 0, &opened), 2000);
    assert_false(opened);
    assert_int_equal(breaker_fail(&breaker, 0, &opened), 60000);
    assert_true(opened);
    assert_true(breaker.is_open);
    assert_int_equal(breaker_fail(&breaker, 0, &opened), 60000);
    assert_false(opened); /* it was never closed in between */
    assert_true(breaker.is_open);
}

static void test_success_closes(void **state)
{
    (void)state;
    struct breaker breaker = new_breaker();
    bool opened;
    for (int i = 0; i < 3; i++)
        (void)breaker_fail(&breaker, 0, &opened);
    assert_true(breaker_close(&breaker));
    assert_false(breaker.is_open);
    assert_false(breaker_close(&breaker));
    assert_int_equal(breaker_fail(&breaker, 0, &opened), 1000); /* the backoff starts over too */
}

static void test_only_failures_in_a_row_count(void **state)
{
    (void)state;
    struct breaker breaker = new_breaker();
    bool opened;
    for (int i = 0; i < 100; i++) {
        (void)breaker_fail(&breaker, 0, &opened);
        (void)breaker_fail(&breaker, 0, &opened);
        assert_false(opened);
        assert_false(breaker_close(&breaker));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_once),
        cmocka_unit_test(test_success_closes),
        cmocka_unit_test(test_only_failures_in_a_row_count),
    };
    return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
