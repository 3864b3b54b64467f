/* SPDX-License-Identifier: MIT */
/* StatsD's lines and datagrams, and the samples behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/statsd.h"

static void expect_lines(const struct metrics *now, const struct metrics *before, const char *text)
{
    struct buffer buffer = {0};
    statsd_append_lines(&buffer, now, before);
    buffer_append_char(&buffer, '\0');
    assert_false(buffer.failed);
    assert_string_equal(buffer.data, text);
    buffer_free(&buffer);
}

static void test_only_what_was_added(void **state)
{
    (void)state;
    static struct metrics before;
    static struct metrics now;
    expect_lines(&now, &before, "");
    now.received = 9; /* has no name in StatsD */
    now.success = 7;
    now.failure = 2;
    now.rollback = 1;
    now.orphaned = 1;
    expect_lines(&now, &before,
                 "rag.atomic_operation_success:7|c\nrag.atomic_operation_failure:2|c\nrag.rollback_count:1|c\n"
                 "rag.orphaned_prompt_count:1|c\n");
    before = now;
    now.success = 8;
    expect_lines(&now, &before, "rag.atomic_operation_success:1|c\n");
}

static void test_durations_in_milliseconds(void **state)
{
    (void)state;
    static struct metrics now;
    samples_add(&now.samples, 1234);
    samples_add(&now.samples, 60000000);
    expect_lines(&now, &now, "rag.atomic_operation_duration:1.234|ms\nrag.atomic_operation_duration:60000.000|ms\n");
}

static void test_a_sample_has_its_rate(void **state)
{
    (void)state;
    static struct metrics now;
    for (int i = 0; i < 10 * SAMPLES_MAX; i++)
        samples_add(&now.samples, 1000);
    struct buffer buffer = {0};
    statsd_append_lines(&buffer, &now, &now);
    buffer_append_char(&buffer, '\0');
    size_t lines = 0;
    for (const char *at = buffer.data; (at = strstr(at, "rag.atomic_operation_duration:1.000|ms|@0.100000\n")); at++)
        lines++;
    assert_int_equal(lines, SAMPLES_MAX);
    buffer_free(&buffer);
}

static void test_samples_are_fair(void **state)
{
    (void)state;
    struct samples samples = {0};
    size_t late = 0;
    for (int round = 0; round < 100; round++) {
        samples_clear(&samples);
        assert_int_equal(samples_count(&samples), 0);
        for (int i = 0; i < 1000; i++)
            samples_add(&samples, i);
        assert_int_equal(samples_count(&samples), SAMPLES_MAX);
        for (size_t i = 0; i < SAMPLES_MAX; i++)
            late += samples.kept_us[i] >= 500;
    }
    assert_in_range(late, 50 * SAMPLES_MAX - 300, 50 * SAMPLES_MAX + 300); /* half of them, seven sigma */
}

static void test_datagrams_end_with_a_line(void **state)
{
    (void)state;
    char lines[4 * STATSD_DATAGRAM_BYTES];
    memset(lines, 'x', sizeof lines);
    for (size_t i = 99; i < sizeof lines; i += 100)
        lines[i] = '\n';
    assert_int_equal(statsd_datagram_length(lines, 300), 300);
    assert_int_equal(statsd_datagram_length(lines, STATSD_DATAGRAM_BYTES), STATSD_DATAGRAM_BYTES);
    assert_int_equal(statsd_datagram_length(lines, sizeof lines), 1400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_what_was_added),       cmocka_unit_test(test_durations_in_milliseconds),
        cmocka_unit_test(test_a_sample_has_its_rate),     cmocka_unit_test(test_samples_are_fair),
        cmocka_unit_test(test_datagrams_end_with_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
