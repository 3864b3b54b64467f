/* SPDX-License-Identifier: MIT */
/* The inbox: order per interview, bounds, and that nothing is lost or handed out twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/inbox.h"

static const struct inbox_limits roomy = {.max_messages = 1000000, .max_bytes = SIZE_MAX / 2};

/* A job of interview `interview`; its number is kept in payload_bytes. */
static struct job *make_job(unsigned interview, size_t number)
{
    struct message_content content = {.has_interview_id = true};
    memcpy(content.interview_id, &interview, sizeof interview);
    struct job *job = job_new(&content, number, 0);
    assert_non_null(job);
    return job;
}

static unsigned interview_of(const struct job *job)
{
    unsigned interview;
    memcpy(&interview, job->content.interview_id, sizeof interview);
    return interview;
}

static void admit(struct inbox *inbox, unsigned interview, size_t number)
{
    assert_true(inbox_admit(inbox, make_job(interview, number)));
}

static void finish(struct inbox *inbox, struct job *job)
{
    inbox_finish(inbox, job);
    job_free(job);
}

static void test_order_of_arrival(void **state)
{
    (void)state;
    struct inbox *inbox = inbox_new(&roomy);
    for (unsigned i = 0; i < 100; i++)
        admit(inbox, i, i);
    for (unsigned i = 0; i < 100; i++) {
        struct job *job = inbox_take(inbox);
        assert_int_equal(job->payload_bytes, i);
        finish(inbox, job);
    }
    assert_null(inbox_take(inbox));
    assert_int_equal(inbox_messages(inbox), 0);
    assert_int_equal(inbox_bytes(inbox), 0);
    inbox_free(inbox);
}

static void test_one_at_a_time_per_interview(void **state)
{
    (void)state;
    struct inbox *inbox = inbox_new(&roomy);
    admit(inbox, 7, 1);
    admit(inbox, 7, 2);
    admit(inbox, 8, 3);
    admit(inbox, 7, 4);
    struct job *first = inbox_take(inbox);
    struct job *other = inbox_take(inbox);
    assert_int_equal(first->payload_bytes, 1);
    assert_int_equal(other->payload_bytes, 3);
    assert_null(inbox_take(inbox)); /* 2 and 4 wait for the outcome of 1 */
    assert_false(inbox_has_ready(inbox));
    finish(inbox, first);
    struct job *second = inbox_take(inbox);
    assert_int_equal(second->payload_bytes, 2);
    assert_null(inbox_take(inbox));
    finish(inbox, other);
    finish(inbox, second);
    struct job *last = inbox_take(inbox);
    assert_int_equal(last->payload_bytes, 4);
    finish(inbox, last);
    assert_int_equal(inbox_messages(inbox), 0);
    inbox_free(inbox);
}

static void test_bounds(void **state)
{
    (void)state;
    struct job *job = make_job(1, 1);
    const struct inbox_limits two = {.max_messages = 2, .max_bytes = SIZE_MAX / 2};
    struct inbox *inbox = inbox_new(&two);
    admit(inbox, 2, 2);
    admit(inbox, 2, 3);
    assert_false(inbox_admit(inbox, job));
    struct job *taken = inbox_take(inbox);
    assert_false(inbox_admit(inbox, job)); /* what is in work counts */
    finish(inbox, taken);
    assert_true(inbox_admit(inbox, job));

    const struct inbox_limits by_bytes = {.max_messages = 100, .max_bytes = 2 * job_size(job) + 1};
    inbox_set_limits(inbox, &by_bytes);
    struct job *refused = make_job(9, 9);
    assert_false(inbox_admit(inbox, refused));
    assert_int_equal(inbox_bytes(inbox), 2 * job_size(job));
    job_free(refused);
    inbox_free(inbox);
}

static void count_evicted(void *context, struct job *job)
{
    (*(size_t *)context)++;
    job_free(job);
}

static void test_evict_leaves_what_is_in_work(void **state)
{
    (void)state;
    struct inbox *inbox = inbox_new(&roomy);
    admit(inbox, 1, 1);
    struct job *in_work = inbox_take(inbox);
    admit(inbox, 1, 2);
    admit(inbox, 1, 3);
    admit(inbox, 2, 4);
    admit(inbox, 2, 5);
    size_t evicted = 0;
    inbox_evict(inbox, count_evicted, &evicted);
    assert_int_equal(evicted, 4);
    assert_int_equal(inbox_messages(inbox), 1);
    admit(inbox, 1, 6); /* the interview's queue is whole again */
    finish(inbox, in_work);
    struct job *next = inbox_take(inbox);
    assert_int_equal(next->payload_bytes, 6);
    finish(inbox, next);
    inbox_free(inbox);
}

enum { CHAOS_INTERVIEWS = 500, CHAOS_STEPS = 200000, CHAOS_IN_WORK = 64 };

/* Against a model: for each interview the numbers must come out in the order in which they went in. */
static void test_chaos(void **state)
{
    (void)state;
    static size_t next_in[CHAOS_INTERVIEWS];
    static size_t next_out[CHAOS_INTERVIEWS];
    static struct job *in_work[CHAOS_IN_WORK];
    struct inbox *inbox = inbox_new(&roomy);
    size_t working = 0;
    size_t model = 0;
    unsigned random = 12345;
    for (int step = 0; step < CHAOS_STEPS; step++) {
        random = random * 1664525 + 1013904223;
        unsigned choice = random >> 16;
        if (choice % 3 == 0) {
            unsigned interview = (choice / 3) % CHAOS_INTERVIEWS;
            admit(inbox, interview, next_in[interview]++);
            model++;
        } else if (choice % 3 == 1 && working < CHAOS_IN_WORK) {
            struct job *job = inbox_take(inbox);
            if (!job)
                continue;
            assert_int_equal(job->payload_bytes, next_out[interview_of(job)]);
            in_work[working++] = job;
        } else if (working > 0) {
            size_t at = choice % working;
            next_out[interview_of(in_work[at])]++;
            finish(inbox, in_work[at]);
            in_work[at] = in_work[--working];
            model--;
        }
        assert_int_equal(inbox_messages(inbox), model);
    }
    while (working > 0)
        finish(inbox, in_work[--working]);
    inbox_free(inbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_arrival),
        cmocka_unit_test(test_one_at_a_time_per_interview),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_evict_leaves_what_is_in_work),
        cmocka_unit_test(test_chaos),
    };
    return cmocka_run_group_tests_name("inbox", tests, NULL, NULL);
}
