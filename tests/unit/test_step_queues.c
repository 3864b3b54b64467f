/* SPDX-License-Identifier: MIT */
/* What comes later, and what a timer is asked to look at, do not get into each other's way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "step_queues.h"

enum { SOON_MS = 5, NEVER_MS = 3600000 };

static uv_loop_t loop;
static struct step_queues *queues;
static struct task tasks[2];
static unsigned due;

static void on_due(void *context)
{
    (void)context;
    due++;
}

static int set_up(void **state)
{
    (void)state;
    due = 0;
    for (size_t i = 0; i < 2; i++)
        tasks[i] = (struct task){.job.kind = JOB_MESSAGE, .step = JOB_SETTLE};
    assert_int_equal(uv_loop_init(&loop), 0);
    queues = step_queues_new(&loop, on_due, NULL);
    assert_non_null(queues);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    step_queues_close(queues);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void test_a_look_is_not_put_off_by_what_comes_later(void **state)
{
    (void)state;
    step_queues_look_again(queues, SOON_MS);
    step_queues_add_later(queues, &tasks[0], NEVER_MS);
    (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(due, 1);
    assert_int_equal(queues->later_count, 1);
    assert_true(uv_timer_get_due_in(&queues->timer) > NEVER_MS / 2);
    assert_ptr_equal(step_queues_pop(queues), &tasks[0].job);
}

static void test_what_comes_later_is_not_put_off_by_a_look(void **state)
{
    (void)state;
    step_queues_add_later(queues, &tasks[0], SOON_MS);
    step_queues_look_again(queues, NEVER_MS);
    (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(due, 1);
    assert_int_equal(queues->messages.count, 1);
    assert_int_equal(queues->later_count, 0);
    assert_ptr_equal(step_queues_pop(queues), &tasks[0].job);
}

static void test_they_come_in_the_order_of_time(void **state)
{
    (void)state;
    step_queues_add_later(queues, &tasks[0], 4 * SOON_MS);
    step_queues_add_later(queues, &tasks[1], SOON_MS);
    (void)uv_run(&loop, UV_RUN_ONCE);
    assert_ptr_equal(TAILQ_FIRST(&queues->messages.of[JOB_SETTLE]), &tasks[1].job);
    assert_int_equal(queues->later_count, 1);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(due, 2);
    assert_ptr_equal(step_queues_pop(queues), &tasks[1].job);
    assert_ptr_equal(step_queues_pop(queues), &tasks[0].job);
    assert_null(step_queues_pop(queues));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_look_is_not_put_off_by_what_comes_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_comes_later_is_not_put_off_by_a_look, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_they_come_in_the_order_of_time, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
