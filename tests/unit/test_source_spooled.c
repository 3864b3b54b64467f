/* SPDX-License-Identifier: MIT */
/*
 * The way of messages over the disk, with a real spool: whatever happens in whatever order, each is worked on exactly
 * once, and those of one interview in the order in which they arrived.
 */
#include "spool_fixture.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "promptd/clock.h"
#include "promptd/pipeline.h"
#include "promptd/source_open.h"
#include "spool_db.h"

enum { MESSAGES_MAX = 4000 };

struct world {
    struct spool_fixture *fixture; /* the folder, the loop, the log */
    struct pipeline *pipeline;
    struct source *source;
    struct source inner; /* what is received comes from here */
    struct source_sink sink;
    struct metrics metrics;
    struct recent_failures recent_failures;
    bool can_store;
    bool fail; /* jobs end as rolled back, and are dead letters */
    bool closed;
    unsigned next;                /* the next message's number */
    unsigned times[MESSAGES_MAX]; /* how often each was worked on */
    unsigned last[MESSAGES_MAX];  /* of each interview, the last that was */
    char order[MESSAGES_MAX * 6]; /* "0 1 2r ": the numbers as they were worked on; r: redelivered */
    unsigned taken;
};

static struct world world;

static bool on_can_store(void *context)
{
    (void)context;
    return world.can_store;
}

static void set_can_store(bool can_store)
{
    world.can_store = can_store;
    pipeline_demand(world.pipeline);
}

static void on_ready(void *context)
{
    (void)context;
}

static void on_closed(void *context)
{
    (void)context;
    world.closed = true;
}

/* --- the source inside: this test, which publishes ---------------------------------------------------------------- */

static void on_inner_status(const struct source *source, struct source_status *status)
{
    (void)source;
    status->is_up = true;
}

static void on_inner_stop(struct source *source)
{
    (void)source;
}

static void on_inner_close(struct source *source, void (*closed)(void *context), void *context)
{
    (void)source;
    closed(context);
}

static struct source *new_inner(const struct source_options *options)
{
    static const struct source_ops ops = {
        .get_status = on_inner_status, .stop = on_inner_stop, .close = on_inner_close};
    world.inner.ops = &ops;
    world.sink = options->sink;
    return &world.inner;
}

static struct source_status status(void)
{
    struct source_status now;
    source_get_status(world.source, &now);
    return now;
}

static size_t waiting(void)
{
    return pipeline_waiting(world.pipeline) + status().kept;
}

static size_t in_memory(void)
{
    return pipeline_in_memory(world.pipeline) + status().kept_in_memory;
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void open_world(void)
{
    static const char *const sources[] = {"rag"};
    struct error error;
    world.metrics = (struct metrics){0};
    world.closed = false;
    world.pipeline = pipeline_new(
        &(struct pipeline_options){
            .rules = {.max_bytes = 100000, .prompt_max_chars = 50000, .sources = sources, .source_count = 1},
            .limits = {.max_messages = 100, .max_bytes = 10000000},
            .job_size = sizeof(struct job),
            .record = {.metrics = &world.metrics, .recent_failures = &world.recent_failures},
            .can_store = on_can_store,
            .on_ready = on_ready},
        &error);
    assert_non_null(world.pipeline);
    world.source = source_spooled_new(
        &(struct source_options){
            .loop = &world.fixture->loop,
            .directory = world.fixture->directory,
            .tuning = {.memory_max_messages = 100,
                       .memory_max_bytes = 10000000,
                       .spool_max_bytes = 1U << 30,
                       .spool_dead_max_bytes = 1U << 30},
            .sink = pipeline_sink(world.pipeline),
        },
        new_inner, &error);
    if (!world.source)
        fail_msg("%s", error.text);
    pipeline_set_source(world.pipeline, world.source);
    pipeline_demand(world.pipeline);
}

static void close_world(void)
{
    pipeline_stop(world.pipeline);
    source_stop(world.source);
    pipeline_abandon_rest(world.pipeline);
    source_close(world.source, on_closed, NULL);
    fixture_wait(world.fixture, world.closed);
    pipeline_free(world.pipeline);
}

static int setup(void **state)
{
    spool_fixture_setup(state);
    world = (struct world){.fixture = *state, .can_store = true};
    open_world();
    return 0;
}

static int teardown(void **state)
{
    limit_files(RLIM_INFINITY);
    close_world();
    return spool_fixture_teardown(state);
}

/* A message arrives; its number is told by its prompt. */
static void receive(unsigned interview)
{
    char bytes[256];
    int length = snprintf(bytes, sizeof bytes,
                          "{\"interview_id\":\"00000000-0000-4000-8000-%012u\",\"enhanced_prompt\":\"%u\"}", interview,
                          world.next++);
    assert_true(world.next < MESSAGES_MAX && length < (int)sizeof bytes);
    const struct delivery delivery = {.bytes = bytes, .length = (size_t)length, .arrived_us = clock_monotonic_us()};
    world.sink.on_delivery(world.sink.context, &delivery);
}

/* Everything in the inbox is worked on. */
static void work(void)
{
    struct job *job;
    while ((job = pipeline_take(world.pipeline))) {
        unsigned number = (unsigned)strtoul(job->content.prompt, NULL, 10);
        unsigned interview = (unsigned)job->content.interview_id[15] | (unsigned)job->content.interview_id[14] << 8;
        size_t used = strlen(world.order);
        world.times[number]++;
        world.taken++;
        (void)snprintf(world.order + used, sizeof world.order - used, "%u%s ", number, job->redelivered ? "r" : "");
        if (!job->redelivered && world.last[interview] > number + 1)
            fail_msg("%u came after %u", number, world.last[interview] - 1);
        if (!job->redelivered)
            world.last[interview] = number + 1;
        job->outcome = world.fail ? OUTCOME_ROLLED_BACK : OUTCOME_STORED;
        pipeline_finish(world.pipeline, job);
    }
}

static void turn(void)
{
    (void)uv_run(&world.fixture->loop, UV_RUN_NOWAIT);
    work();
}

/* Until all that was received has ended, and is written. */
static void work_to_the_end(void)
{
    set_can_store(true);
    uint64_t give_up = uv_hrtime() + UINT64_C(20000000000);
    while (waiting() > 0 || status().spool_messages > 0) {
        if (uv_hrtime() > give_up)
            fail_msg("%zu messages still wait", waiting());
        (void)uv_run(&world.fixture->loop, UV_RUN_ONCE);
        work();
    }
    const struct metrics *m = &world.metrics;
    assert_int_equal(m->received, m->success + m->duplicate + m->failure + m->rejected + m->dropped);
}

static void expect_each_once(void)
{
    for (unsigned i = 0; i < world.next; i++)
        if (world.times[i] != 1)
            fail_msg("message %u was worked on %u times", i, world.times[i]);
}

/* Beside the running spool, as promptctl: a lock that keeps puts from the disk until it is given up. */
static void lock(struct spool_db *other)
{
    assert_int_equal(spool_db_open(other, fixture_path(world.fixture, "spool.db"), SPOOL_CHECK_NONE), SPOOL_DB_OK);
    assert_int_equal(spool_db_begin(other, true), SPOOL_DB_OK);
}

/* The highest number that was given, of those that have ended, too. */
static int64_t last_sequence(void)
{
    struct spool_db other;
    struct spool_counts counts;
    assert_int_equal(spool_db_open(&other, fixture_path(world.fixture, "spool.db"), SPOOL_CHECK_NONE), SPOOL_DB_OK);
    assert_int_equal(spool_db_begin(&other, false), SPOOL_DB_OK);
    assert_int_equal(spool_db_count(&other, &counts), SPOOL_DB_OK);
    assert_int_equal(spool_db_commit(&other), SPOOL_DB_OK);
    spool_db_close(&other);
    return counts.last_sequence;
}

static void wait_on_disk(int64_t sequence)
{
    fixture_wait(world.fixture, last_sequence() == sequence);
}

static void unlock(struct spool_db *other)
{
    assert_int_equal(spool_db_commit(other), SPOOL_DB_OK);
    spool_db_close(other);
}

static void replay(struct spool_db *other, int64_t sequence)
{
    bool found;
    uint64_t size;
    assert_int_equal(spool_db_replay(other, sequence, &found, &size), SPOOL_DB_OK);
    assert_true(found);
}

/* A dead letter; its sequence. */
static int64_t make_dead(unsigned interview)
{
    world.fail = true;
    receive(interview);
    work_to_the_end();
    fixture_wait(world.fixture, status().dead_letters > 0);
    world.fail = false;
    return last_sequence();
}

static void test_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++)
        receive(i % 3);
    work_to_the_end();
    expect_each_once();
    assert_null(strchr(world.order, 'r'));
}

static void test_over_the_disk(void **state)
{
    (void)state;
    set_can_store(false);
    for (unsigned i = 0; i < 500; i++) /* far more than memory holds */
        receive(i % 3);
    wait_on_disk(500);
    assert_int_equal(in_memory(), 0);
    work_to_the_end();
    expect_each_once();
    assert_null(strchr(world.order, 'r'));
}

/* One that goes on at once and one behind it that does not are on their way to disk when a fetch could begin. */
static void test_fetch_while_puts_are_on_their_way(void **state)
{
    struct spool_db other;
    (void)state;
    lock(&other);
    receive(1);
    set_can_store(false);
    receive(1);
    set_can_store(true);
    receive(1);
    unlock(&other);
    work_to_the_end();
    assert_string_equal(world.order, "0 1 2 ");
    expect_each_once();
}

/* Put back while a later message, which would go on at once, is on its way: it has the lower number. */
static void test_replay_before_a_put(void **state)
{
    struct spool_db other;
    (void)state;
    int64_t dead = make_dead(1);
    world.times[0] = 0;
    lock(&other);
    receive(2);
    receive(2);
    replay(&other, dead);
    unlock(&other);
    work_to_the_end();
    assert_string_equal(world.order, "0 0r 1 2 ");
    expect_each_once();
}

static void test_replay_after_a_put(void **state)
{
    struct spool_db other;
    (void)state;
    int64_t dead = make_dead(1);
    world.times[0] = 0;
    receive(2);
    wait_on_disk(dead + 1);
    lock(&other);
    replay(&other, dead);
    unlock(&other);
    fixture_wait(world.fixture, (turn(), world.taken == 3));
    work_to_the_end();
    assert_string_equal(world.order, "0 1 0r ");
    expect_each_once();
}

/* Those that the disk refused stand between what was on disk before them and what gets there after them. */
static void test_disk_refuses_for_a_while(void **state)
{
    (void)state;
    set_can_store(false);
    receive(1);
    receive(2);
    wait_on_disk(2);
    limit_files(0);
    receive(1);
    receive(2);
    fixture_wait(world.fixture, !status().spool_is_writable);
    fixture_wait(world.fixture, in_memory() == 2);
    limit_files(RLIM_INFINITY);
    fixture_wait(world.fixture, status().spool_is_writable);
    receive(1);
    receive(2);
    wait_on_disk(4);
    limit_files(0);
    receive(1);
    fixture_wait(world.fixture, in_memory() == 3);
    limit_files(RLIM_INFINITY);
    fixture_wait(world.fixture, status().spool_is_writable);
    receive(1);
    wait_on_disk(5);
    work_to_the_end();
    assert_string_equal(world.order, "0 1 2 3 4 5 6 7 ");
}

/* With nothing older on disk they go on at once. */
static void test_disk_refuses(void **state)
{
    (void)state;
    limit_files(0);
    for (unsigned i = 0; i < 5; i++)
        receive(1);
    fixture_wait(world.fixture, (turn(), world.taken == 5));
    assert_string_equal(world.order, "0 1 2 3 4 ");
    assert_int_equal(status().spool_messages, 0);
}

/* promptd stops while one is on its way that would go on at once: it is for the next start. */
static void test_restart(void **state)
{
    struct spool_db other;
    (void)state;
    lock(&other);
    receive(1);
    set_can_store(false);
    receive(1);
    pipeline_stop(world.pipeline);
    source_stop(world.source);
    unlock(&other);
    fixture_wait(world.fixture, status().spool_messages == 2);
    close_world();
    assert_string_equal(world.order, "");
    open_world();
    limit_files(0); /* what comes now is in memory only, and later than what is on disk */
    receive(1);
    fixture_wait(world.fixture, in_memory() == 1 && !status().spool_is_writable);
    limit_files(RLIM_INFINITY);
    work_to_the_end();
    assert_string_equal(world.order, "0r 1r 2 ");
}

/* The oldest dead letter, if there is one. */
static bool replay_one(void)
{
    struct spool_db other;
    bool found = false;
    uint64_t size;
    lock(&other);
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_prepare_v2(other.sqlite, "select min(sequence) from dead_letter", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t sequence = sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    if (sequence > 0)
        assert_int_equal(spool_db_replay(&other, sequence, &found, &size), SPOOL_DB_OK);
    unlock(&other);
    return found;
}

/* Everything at random: arrivals, the database and the disk that come and go, failures that are replayed. */
static void test_at_random(void **state)
{
    enum { ROUNDS = 4000 };
    uint64_t random = 20261128;
    unsigned replays = 0; /* whether there is a dead letter by then is the disk's time */
    bool full = false;
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        unsigned chance = (unsigned)(random >> 33) % 1000;
        if (chance < 500)
            receive((unsigned)(random >> 50) % 5);
        else if (chance < 550)
            set_can_store(!world.can_store);
        else if (chance < 600)
            world.fail = !world.fail;
        else if (chance < 660 && !full)
            replays += replay_one();
        else if (chance < 662 || (full && chance < 700))
            limit_files((full = chance < 662) ? 0 : RLIM_INFINITY);
        else if (chance < 800)
            pipeline_demand(world.pipeline);
        else
            turn();
    }
    limit_files(RLIM_INFINITY);
    work_to_the_end();
    assert_int_equal(world.taken + world.metrics.dropped, world.next + replays);
    print_message("%u messages, %u replayed, %" PRIu64 " dropped\n", world.next, replays, world.metrics.dropped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOLED_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
        SPOOLED_TEST(test_at_once),
        SPOOLED_TEST(test_over_the_disk),
        SPOOLED_TEST(test_fetch_while_puts_are_on_their_way),
        SPOOLED_TEST(test_replay_before_a_put),
        SPOOLED_TEST(test_replay_after_a_put),
        SPOOLED_TEST(test_disk_refuses_for_a_while),
        SPOOLED_TEST(test_disk_refuses),
        SPOOLED_TEST(test_restart),
        SPOOLED_TEST(test_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
