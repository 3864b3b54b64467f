/* SPDX-License-Identifier: MIT */
/* The inbox: order per interview, bounds, that nothing is lost or handed out twice, and that ids spread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "failing_memory.h"
#include "inbox_private.h"

static const struct inbox_limits roomy = {.max_messages = 1000000, .max_bytes = SIZE_MAX / 2};

/* Its number is kept in payload_bytes. */
static struct job *make_job_of(const uint8_t interview[UUID_SIZE], size_t number)
{
    struct message_content content = {.has_interview_id = true};
    memcpy(content.interview_id, interview, UUID_SIZE);
    struct job *job = job_new(sizeof(struct job), &content, number, 0);
    assert_non_null(job);
    return job;
}

static struct job *make_job(unsigned interview, size_t number)
{
    uint8_t id[UUID_SIZE] = {0};
    memcpy(id, &interview, sizeof interview);
    return make_job_of(id, number);
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

    const struct inbox_limits by_bytes = {.max_messages = 100, .max_bytes = 2 * job->held_bytes + 1};
    inbox_set_limits(inbox, &by_bytes);
    struct job *refused = make_job(9, 9);
    assert_false(inbox_admit(inbox, refused));
    assert_int_equal(inbox_bytes(inbox), 2 * job->held_bytes);
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

static bool has_same(const struct inbox *inbox, const uint8_t interview_id[UUID_SIZE],
                     const uint8_t prompt_id[UUID_SIZE])
{
    struct job *job = job_new_recovery(sizeof(struct job), interview_id, prompt_id);
    bool has = inbox_has_same(inbox, job);
    job_free(job);
    return has;
}

static void test_has_same(void **state)
{
    (void)state;
    static const uint8_t id[UUID_SIZE] = {1, [UUID_SIZE - 1] = 2};
    static const uint8_t other[UUID_SIZE] = {1, [UUID_SIZE - 1] = 3};
    struct inbox *inbox = inbox_new(&roomy);
    assert_false(has_same(inbox, id, id));
    assert_true(inbox_admit(inbox, make_job_of(id, 1)));
    assert_true(inbox_admit(inbox, make_job_of(id, 2)));
    assert_true(has_same(inbox, id, id)); /* ready */
    assert_false(has_same(inbox, other, id));
    struct job *first = inbox_take(inbox);
    assert_true(has_same(inbox, id, id)); /* in work, and one waits */
    finish(inbox, first);
    struct job *second = inbox_take(inbox);
    assert_true(has_same(inbox, id, id)); /* in work */
    finish(inbox, second);
    assert_false(has_same(inbox, id, id));

    /* Two prompts of one interview, one behind the other; and each once. */
    assert_true(inbox_admit(inbox, job_new_recovery(sizeof(struct job), id, id)));
    assert_true(has_same(inbox, id, id));
    assert_false(has_same(inbox, id, other));
    assert_true(inbox_admit(inbox, job_new_recovery(sizeof(struct job), id, other)));
    assert_true(has_same(inbox, id, other));
    assert_true(inbox_admit(inbox, make_job_of(id, 3)));
    static const uint8_t third[UUID_SIZE] = {3};
    assert_true(has_same(inbox, id, third)); /* the message sees to it */
    inbox_free(inbox);
}

/* Else a message that was asked for would find its place taken, and a younger one could overtake it. */
static void test_recovery_takes_no_room(void **state)
{
    (void)state;
    static const struct inbox_limits one = {.max_messages = 1, .max_bytes = SIZE_MAX};
    struct inbox *inbox = inbox_new(&one);
    struct job *message = make_job(1, 1);
    for (uint8_t i = 0; i < 3; i++) {
        const uint8_t id[UUID_SIZE] = {9, i};
        assert_true(inbox_admit(inbox, job_new_recovery(sizeof(struct job), id, id)));
    }
    assert_int_equal(inbox_messages(inbox), 0);
    assert_int_equal(inbox_bytes(inbox), 0);
    assert_true(inbox_admit(inbox, message));
    assert_int_equal(inbox_bytes(inbox), message->held_bytes);
    const uint8_t id[UUID_SIZE] = {9, 9};
    assert_true(inbox_admit(inbox, job_new_recovery(sizeof(struct job), id, id)));
    struct job *second = make_job(2, 2);
    assert_false(inbox_admit(inbox, second));
    job_free(second);
    for (int i = 0; i < 3; i++)
        finish(inbox, inbox_take(inbox));
    assert_int_equal(inbox_messages(inbox), 1);
    finish(inbox, inbox_take(inbox));
    assert_int_equal(inbox_messages(inbox), 0);
    inbox_free(inbox);
}

enum { OOM_INTERVIEWS = 1000 };

static void test_out_of_memory(void **state)
{
    (void)state;
    size_t refused = 0;
    struct inbox *inbox = inbox_new(&roomy);
    for (unsigned i = 0; i < OOM_INTERVIEWS; i++) {
        struct job *job = make_job(i, i);
        bool admitted = false;
        for (long left = 0; !admitted; left++) {
            memory_left = left;
            admitted = inbox_admit(inbox, job);
            memory_left = -1;
            refused += !admitted;
            assert_int_equal(inbox_messages(inbox), admitted ? i + 1 : i);
            assert_int_equal(has_same(inbox, job->content.interview_id, job->content.interview_id), admitted);
        }
    }
    assert_true(refused > OOM_INTERVIEWS + 2); /* each interview, the table and its slots, and growing */

    /* An interview's second job needs no memory, nor does the end of any. */
    for (unsigned i = 0; i < OOM_INTERVIEWS; i++) {
        struct job *second = make_job(i, OOM_INTERVIEWS + i);
        memory_left = 0;
        assert_true(inbox_admit(inbox, second));
        memory_left = -1;
    }
    memory_left = 0;
    for (unsigned i = 0; i < 2 * OOM_INTERVIEWS; i++) {
        struct job *job = inbox_take(inbox);
        assert_int_equal(job->payload_bytes, i);
        finish(inbox, job);
    }
    memory_left = -1;
    assert_int_equal(inbox_messages(inbox), 0);
    inbox_free(inbox);
}

enum { LONGEST_CHAIN = 24 }; /* random ids exceed it once in millions of runs */

/* As evenly as random ids: what share a slot with another, and what a look-up may have to walk. */
static void assert_spread(const struct inbox *inbox)
{
    const UT_hash_table *table = inbox->interviews->hh.tbl;
    size_t pairs = 0;
    for (unsigned i = 0; i < table->num_buckets; i++) {
        size_t count = table->buckets[i].count;
        assert_in_range(count, 0, LONGEST_CHAIN);
        pairs += count * (count - 1) / 2; /* of none: 0 */
    }
    size_t items = table->num_items;
    size_t pairs_by_chance = items * (items - 1) / 2 >> table->log2_num_buckets;
    assert_in_range(pairs, 0, 2 * pairs_by_chance);
}

/* 00000000-0000-4000-8000-000000000000 */
static const uint8_t plain_id[UUID_SIZE] = {[6] = 0x40, [8] = 0x80};

static void test_ids_that_differ_in_one_byte_spread(void **state)
{
    (void)state;
    for (size_t position = 0; position < UUID_SIZE; position++) {
        struct inbox *inbox = inbox_new(&roomy);
        for (unsigned value = 0; value < 256; value++) {
            uint8_t id[UUID_SIZE];
            memcpy(id, plain_id, sizeof id);
            id[position] = (uint8_t)value;
            assert_true(inbox_admit(inbox, make_job_of(id, value)));
        }
        assert_spread(inbox);
        inbox_free(inbox);
    }
}

static void test_ids_counted_upwards_spread(void **state)
{
    (void)state;
    struct inbox *inbox = inbox_new(&roomy);
    for (unsigned i = 0; i < 10000; i++) {
        uint8_t id[UUID_SIZE];
        memcpy(id, plain_id, sizeof id);
        id[UUID_SIZE - 2] = (uint8_t)(i >> 8);
        id[UUID_SIZE - 1] = (uint8_t)i;
        assert_true(inbox_admit(inbox, make_job_of(id, i)));
    }
    assert_spread(inbox);
    inbox_free(inbox);
}

/* The place of `id` in an inbox of its own, as a process has one. */
static unsigned hash_in_new_inbox(const uint8_t id[UUID_SIZE])
{
    struct inbox *inbox = inbox_new(&roomy);
    assert_true(inbox_admit(inbox, make_job_of(id, 0)));
    unsigned hash = inbox->interviews->hh.hashv;
    inbox_free(inbox);
    return hash;
}

static void test_nobody_can_choose_ids_that_collide(void **state)
{
    (void)state;
    unsigned hash = hash_in_new_inbox(plain_id);
    for (int i = 0; i < 4; i++) /* by chance they may be equal, but not all */
        if (hash_in_new_inbox(plain_id) != hash)
            return;
    fail_msg("an id has the same hash in each process");
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
        cmocka_unit_test(test_has_same),
        cmocka_unit_test(test_recovery_takes_no_room),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_ids_that_differ_in_one_byte_spread),
        cmocka_unit_test(test_ids_counted_upwards_spread),
        cmocka_unit_test(test_nobody_can_choose_ids_that_collide),
        cmocka_unit_test(test_chaos),
    };
    return cmocka_run_group_tests_name("inbox", tests, NULL, NULL);
}
