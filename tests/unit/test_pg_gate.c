/* SPDX-License-Identifier: MIT */
/* The gate before the pool's dials: what a surplus connection and a failure each leave behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pg_gate.h"

static uv_loop_t loop;
static struct pg_gate gate;
static unsigned opened;

static void on_open(void *context)
{
    (void)context;
    opened++;
}

static int set_up(void **state)
{
    (void)state;
    opened = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_true(pg_gate_init(&gate, &loop, on_open, NULL));
    pg_gate_set_tuning(&gate, 2, 2, 1);
    gate.breaker.backoff.base_ms = gate.surplus.base_ms = 1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pg_gate_close(&gate);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void run_until_open(void)
{
    assert_true(pg_gate_is_shut(&gate));
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_false(pg_gate_is_shut(&gate));
}

static void open_circuit(void)
{
    pg_gate_fail(&gate);
    run_until_open();
    pg_gate_fail(&gate);
    assert_true(pg_gate_circuit_is_open(&gate));
}

static void test_failures_open_the_circuit(void **state)
{
    (void)state;
    open_circuit();
    run_until_open();
    assert_int_equal(opened, 2);
    pg_gate_succeed(&gate);
    assert_false(pg_gate_circuit_is_open(&gate));
}

static void test_failures_while_it_is_shut_are_one(void **state)
{
    (void)state;
    pg_gate_fail(&gate);
    pg_gate_fail(&gate);
    assert_false(pg_gate_circuit_is_open(&gate));
}

static void test_surplus_is_no_failure(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        pg_gate_add_surplus(&gate, 2, 4, "too many connections for role \"promptd\"");
        run_until_open();
    }
    assert_true(pg_gate_has_surplus(&gate));
    assert_false(pg_gate_circuit_is_open(&gate));
    assert_int_equal(opened, 3);
    pg_gate_end_surplus(&gate);
    assert_false(pg_gate_has_surplus(&gate));
}

static void test_lost_connection_makes_room(void **state)
{
    (void)state;
    pg_gate_add_surplus(&gate, 2, 4, "sorry, too many clients already");
    pg_gate_forget_surplus(&gate);
    assert_false(pg_gate_is_shut(&gate));
    pg_gate_fail(&gate);
    pg_gate_forget_surplus(&gate);
    assert_true(pg_gate_is_shut(&gate));
}

static void test_circuit_closed_by_hand_forgets_what_it_was_shut_for(void **state)
{
    (void)state;
    pg_gate_add_surplus(&gate, 2, 4, "sorry, too many clients already");
    assert_false(pg_gate_close_circuit(&gate));
    assert_false(pg_gate_is_shut(&gate));
    pg_gate_fail(&gate);
    pg_gate_forget_surplus(&gate);
    assert_true(pg_gate_is_shut(&gate));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_failures_open_the_circuit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures_while_it_is_shut_are_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_surplus_is_no_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lost_connection_makes_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_circuit_closed_by_hand_forgets_what_it_was_shut_for, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
