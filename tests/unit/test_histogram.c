/* SPDX-License-Identifier: MIT */
/* Buckets, quantiles, and the ten minutes that are made of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "promptd/histogram.h"
#include "promptd/history.h"

static void test_bounds_are_inclusive(void **state)
{
    (void)state;
    struct histogram histogram = {0};
    histogram_add(&histogram, -5);
    histogram_add(&histogram, 500);
    histogram_add(&histogram, 501);
    histogram_add(&histogram, 60000000);
    histogram_add(&histogram, 60000001);
    assert_int_equal(histogram.buckets[0], 2);
    assert_int_equal(histogram.buckets[1], 1);
    assert_int_equal(histogram.buckets[HISTOGRAM_BOUNDS - 1], 1);
    assert_int_equal(histogram.buckets[HISTOGRAM_BOUNDS], 1);
    assert_int_equal(histogram.sum_us, 500 + 501 + 60000000 + 60000001);
    for (size_t i = 1; i < HISTOGRAM_BOUNDS; i++)
        assert_true(histogram_bounds_us[i] > histogram_bounds_us[i - 1]);
}

static void test_quantiles(void **state)
{
    (void)state;
    struct histogram histogram = {0};
    assert_true(histogram_quantile_us(&histogram, 0.5) == 0);
    for (int i = 0; i < 100; i++)
        histogram_add(&histogram, i < 90 ? 700 : 20000);
    double median = histogram_quantile_us(&histogram, 0.5);
    double tail = histogram_quantile_us(&histogram, 0.99);
    assert_true(median > 500 && median <= 1000);
    assert_true(tail > 10000 && tail <= 25000);
    struct histogram slow = {0};
    histogram_add(&slow, 90000000);
    assert_true(histogram_quantile_us(&slow, 0.5) == 60000000);
}

static void test_history(void **state)
{
    (void)state;
    static struct metrics metrics;
    static struct history history;
    history_look(&history, &metrics, 1000);
    assert_null(history_at(&history, 0));
    metrics.received = 7;
    metrics.success = 5;
    metrics.failure = 2;
    histogram_add(&metrics.durations, 2000);
    history_look(&history, &metrics, 5999);
    assert_null(history_at(&history, 0));
    history_look(&history, &metrics, 6000);
    const struct history_point *point = history_at(&history, 0);
    assert_int_equal(point->at_ms, 6000);
    assert_int_equal(point->received, 7);
    assert_int_equal(point->stored, 5);
    assert_int_equal(point->failed, 2);
    assert_true(point->p50_ms > 1 && point->p50_ms <= 2.5);
    history_look(&history, &metrics, 11000);
    assert_int_equal(history_at(&history, 1)->received, 0);
    assert_true(history_at(&history, 1)->p99_ms == 0);
}

static void test_history_forgets(void **state)
{
    (void)state;
    static struct metrics metrics;
    static struct history history;
    for (int64_t i = 0; i <= HISTORY_MAX + 3; i++) {
        metrics.received++;
        history_look(&history, &metrics, 1000 + i * 5000);
    }
    assert_int_equal(history_at(&history, 0)->at_ms, 1000 + 4 * 5000);
    assert_int_equal(history_at(&history, HISTORY_MAX - 1)->at_ms, 1000 + (HISTORY_MAX + 3) * 5000);
    assert_null(history_at(&history, HISTORY_MAX));
    history_look(&history, &metrics, 100000000); /* after a long stop: one point, not thousands */
    history_look(&history, &metrics, 100001000);
    assert_int_equal(history_at(&history, HISTORY_MAX - 1)->at_ms, 100000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds_are_inclusive),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_history_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
