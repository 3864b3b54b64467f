/* SPDX-License-Identifier: MIT */
/*
 * How many messages a second the spool takes, and gives back.
 *
 *     bench_spool FOLDER [MESSAGES [BYTES [OUTSTANDING]]]
 *
 * OUTSTANDING puts are under way at any time, as if so many messages had come while the disk was busy.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"
#include "promptd/spool.h"

enum { BENCH_FETCH_BYTES = 4194304 };

struct bench {
    struct spool *spool;
    char *payload;
    size_t length;
    uint64_t messages;
    uint64_t started;
    uint64_t ended;
    int64_t after;
    bool finish; /* each at once after its put */
    bool fetched;
    bool closed;
};

static void put_one(struct bench *bench)
{
    if (!spool_put(bench->spool, bench->payload, bench->length, NULL))
        abort();
    bench->started++;
}

static void on_put(void *context, void *token, enum spool_put_result result, int64_t sequence)
{
    struct bench *bench = context;
    (void)token;
    if (result != SPOOL_PUT_OK) {
        (void)fprintf(stderr, "bench_spool: put failed: %d\n", (int)result);
        exit(1);
    }
    bench->ended++;
    if (bench->finish)
        spool_finish(bench->spool, sequence);
    if (bench->started < bench->messages)
        put_one(bench);
}

static void on_fetched(void *context, const struct spool_entry *entries, size_t count, bool end)
{
    struct bench *bench = context;
    for (size_t i = 0; i < count; i++)
        spool_finish(bench->spool, entries[i].sequence);
    bench->ended += count;
    bench->fetched = end;
    if (count > 0)
        bench->after = entries[count - 1].sequence;
    if (!end)
        spool_fetch(bench->spool, bench->after, 1024, BENCH_FETCH_BYTES);
}

static void on_grown(void *context, uint64_t added)
{
    (void)context;
    (void)added;
}

static void on_closed(void *context)
{
    ((struct bench *)context)->closed = true;
}

static void report(const char *what, uint64_t count, int64_t since_us)
{
    double seconds = (double)(clock_monotonic_us() - since_us) / 1e6;
    (void)printf("%-28s %8llu in %6.2f s: %9.0f/s\n", what, (unsigned long long)count, seconds,
                 (double)count / seconds);
    (void)fflush(stdout);
}

static void puts_under_way(struct bench *bench, uv_loop_t *loop, bool finish, uint64_t outstanding, const char *what)
{
    int64_t since_us = clock_monotonic_us();
    bench->finish = finish;
    bench->started = 0;
    bench->ended = 0;
    while (bench->started < outstanding && bench->started < bench->messages)
        put_one(bench);
    while (bench->ended < bench->messages)
        (void)uv_run(loop, UV_RUN_ONCE);
    report(what, bench->messages, since_us);
}

static struct spool *open_spool(struct bench *bench, uv_loop_t *loop, const char *folder)
{
    struct error error;
    struct spool *spool = spool_open(
        &(struct spool_options){
            .loop = loop,
            .directory = folder,
            .limits = {.waiting_bytes = UINT64_MAX / 4, .dead_bytes = UINT64_MAX / 4},
            .on_put = on_put,
            .on_fetched = on_fetched,
            .on_grown = on_grown,
            .context = bench,
        },
        &error);
    if (!spool) {
        (void)fprintf(stderr, "bench_spool: %s\n", error.text);
        exit(1);
    }
    return spool;
}

static void close_spool(struct bench *bench, uv_loop_t *loop, const char *what)
{
    int64_t since_us = clock_monotonic_us();
    bench->closed = false;
    spool_close(bench->spool, on_closed, bench);
    while (!bench->closed)
        (void)uv_run(loop, UV_RUN_ONCE);
    report(what, 1, since_us);
}

int main(int argc, char *argv[])
{
    struct bench bench = {.messages = 100000, .length = 2048};
    uint64_t outstanding = 1000;
    uv_loop_t loop;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: bench_spool FOLDER [MESSAGES [BYTES [OUTSTANDING]]]\n");
        return 64;
    }
    if (argc > 2)
        bench.messages = strtoull(argv[2], NULL, 10);
    if (argc > 3)
        bench.length = strtoull(argv[3], NULL, 10);
    if (argc > 4)
        outstanding = strtoull(argv[4], NULL, 10);
    bench.payload = malloc(bench.length + 1);
    if (!bench.payload)
        return 1;
    if (uv_loop_init(&loop) != 0) {
        free(bench.payload);
        return 1;
    }
    for (size_t i = 0; i < bench.length; i++)
        bench.payload[i] = (char)('a' + i % 26);

    bench.spool = open_spool(&bench, &loop, argv[1]);
    puts_under_way(&bench, &loop, true, outstanding, "put and finish");
    puts_under_way(&bench, &loop, false, outstanding, "put");
    close_spool(&bench, &loop, "close");

    int64_t since_us = clock_monotonic_us();
    bench.spool = open_spool(&bench, &loop, argv[1]);
    report("open", 1, since_us);
    since_us = clock_monotonic_us();
    bench.ended = 0;
    spool_fetch(bench.spool, 0, 1024, BENCH_FETCH_BYTES);
    while (!bench.fetched)
        (void)uv_run(&loop, UV_RUN_ONCE);
    report("fetch and finish", bench.ended, since_us);
    close_spool(&bench, &loop, "close");
    free(bench.payload);
    return uv_loop_close(&loop) == 0 ? 0 : 1;
}
