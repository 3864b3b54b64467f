/* SPDX-License-Identifier: MIT */
/* What several links to one Redis log together: each refusal once, and each loss of the first. */
#include "log_start.h"

#include <string.h>

#include "redis_report.h"

static const char denied[] = "WRONGPASS invalid username-pair or user is disabled.";

static void dial_over(struct redis_report *report, bool was_up, bool refused, const char *reason)
{
    struct redis_dial_end end = {.was_up = was_up, .refused = refused};
    (void)snprintf(end.reason, sizeof end.reason, "%s", reason);
    redis_report_failure(report, "localhost:6379", &end);
}

static unsigned logged(const char *words)
{
    unsigned count = 0;
    for (const char *at = read_log(path); (at = strstr(at, words)); at++)
        count++;
    return count;
}

static void test_refusal_is_logged_by_one(void **state)
{
    (void)state;
    struct redis_report first = {0};
    struct redis_report second = {.is_second = true};
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 3; i++) {
        dial_over(&second, false, true, denied);
        dial_over(&first, false, true, denied);
    }
    assert_int_equal(logged("Redis refuses"), 1);
    dial_over(&second, false, true, "ERR max number of clients reached");
    assert_int_equal(logged("Redis refuses"), 2);
    redis_report_up(&first, 1, 0);
    redis_report_up(&second, 1, 0);
    assert_int_equal(logged("Redis connected"), 1);
    dial_over(&second, false, true, denied); /* another time */
    assert_int_equal(logged("Redis refuses"), 3);
}

static void test_loss_is_logged_by_the_first(void **state)
{
    (void)state;
    struct redis_report first = {.was_up = true};
    struct redis_report second = {.is_second = true, .was_up = true};
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    dial_over(&second, true, false, "connection lost");
    dial_over(&second, false, false, "Connection refused");
    assert_int_equal(logged("ERROR"), 0);
    dial_over(&first, true, false, "connection lost");
    dial_over(&first, false, false, "Connection refused");
    assert_int_equal(logged("ERROR"), 1);
    redis_report_up(&second, 1, 0);
    redis_report_up(&first, 1, 1500);
    assert_int_equal(logged("Redis connection back after 1.5 s"), 1);
}

/* Also where another one was just refused in the same words. */
static void test_loss_is_logged_though_its_refusal_was(void **state)
{
    (void)state;
    struct redis_report first = {.was_up = true};
    struct redis_report second = {.is_second = true};
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    dial_over(&second, false, true, "NOPERM no more");
    dial_over(&first, true, true, "NOPERM no more");
    assert_int_equal(logged("Redis refuses"), 1);
    assert_int_equal(logged("Redis connection lost"), 1);
    redis_report_up(&first, 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_refusal_is_logged_by_one),
        LOG_TEST(test_loss_is_logged_by_the_first),
        LOG_TEST(test_loss_is_logged_though_its_refusal_was),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
