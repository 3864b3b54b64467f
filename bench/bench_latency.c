/* SPDX-License-Identifier: MIT */
/*
 * Latency in open loop: publishes at a steady rate, whatever comes back, and looks for the commits to become visible.
 *
 *     bench_latency CORPUS FIRST MESSAGES RATE REDIS_PORT CHANNEL CONNINFO     (CHANNEL: see redis_publish.h)
 *
 * One connection of its own asks, again and again while something is outstanding, which interviews are ready. A message
 * counts from the moment it was due, not from when it could be sent. With "-" as CHANNEL nothing is published: the
 * insert and the update are done here, one after the other: the two bare round trips, until the second is answered.
 * With "=" the same is done by a process of its own, and counts until the reader sees it, as for everybody else.
 *
 * Prints one latency in microseconds a line.
 */
#include <errno.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "redis_publish.h"

enum { OUTSTANDING_MAX = 4096, GIVE_UP_S = 10, OID_UUID = 2950 };

static const char ready_sql[] = "select 1 from interviews where id = $1 and status = 'ready'";
static const char insert_sql[] = "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
                                 " values ($1, $2, $3, 'rag') on conflict (id) do nothing returning id";
static const char update_sql[] =
    "update interviews set status = 'ready' where id = $1 and status::text = any(array['pending', 'not_started',"
    " 'enhancing', 'vector_search', 'web_scraping', 'processing', 'failed']) and status::text <> 'ready' returning id";

struct outstanding {
    const struct corpus_message *message;
    int64_t due_ns;
};

static PGconn *connect_database(const char *conninfo)
{
    PGconn *connection = PQconnectdb(conninfo);
    if (PQstatus(connection) != CONNECTION_OK)
        bench_fail("%s", PQerrorMessage(connection));
    const struct {
        const char *name;
        const char *sql;
    } statements[] = {{"ready", ready_sql}, {"insert", insert_sql}, {"update", update_sql}};
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        PGresult *result = PQprepare(connection, statements[i].name, statements[i].sql, 0, NULL);
        if (PQresultStatus(result) != PGRES_COMMAND_OK)
            bench_fail("%s", PQerrorMessage(connection));
        PQclear(result);
    }
    return connection;
}

/* How many rows the statement returned. */
static int run(PGconn *connection, const char *name, int count, const char *const *values, const int *lengths)
{
    const int formats[3] = {1, 1, 1};
    PGresult *result = PQexecPrepared(connection, name, count, values, lengths, formats, 1);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        bench_fail("%s", PQerrorMessage(connection));
    int rows = PQntuples(result);
    PQclear(result);
    return rows;
}

static bool is_ready(PGconn *connection, const struct corpus_message *message)
{
    const char *values[1] = {(const char *)message->interview_id};
    const int lengths[1] = {CORPUS_ID_SIZE};
    return run(connection, "ready", 1, values, lengths) == 1;
}

static void write_bare(PGconn *connection, const struct corpus_message *message)
{
    const char *values[3] = {(const char *)message->prompt_id, (const char *)message->interview_id, message->prompt};
    const int lengths[3] = {CORPUS_ID_SIZE, CORPUS_ID_SIZE, (int)message->prompt_bytes};
    if (run(connection, "insert", 3, values, lengths) != 1 || run(connection, "update", 1, values + 1, lengths) != 1)
        bench_fail("a bare round trip changed nothing");
}

static void sleep_until(int64_t due_ns)
{
    const struct timespec due = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        ;
}

static void print_latency(int64_t due_ns)
{
    (void)printf("%.1f\n", (double)(bench_now_ns() - due_ns) / 1e3);
}

/* Asks for each outstanding message once; those that are ready leave. */
static size_t look(PGconn *connection, struct outstanding *outstanding, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (is_ready(connection, outstanding[i].message))
            print_latency(outstanding[i].due_ns);
        else
            outstanding[left++] = outstanding[i];
    }
    return left;
}

static void read_answer(int redis, const struct publish_place *place)
{
    char answer[256];
    ssize_t got = read(redis, answer, sizeof answer);
    if (got <= 0 || publish_count_answers(place, answer, (size_t)got) != 1)
        bench_fail("Redis has not answered as expected");
}

/* NULL: somebody else sends each message when it is due. */
struct publisher {
    const struct publish_place *place;
    struct publish_command *commands;
    int redis;
};

static void publish(const struct publisher *publisher, size_t number)
{
    publish_write(publisher->redis, publisher->commands[number].bytes, publisher->commands[number].length);
    read_answer(publisher->redis, publisher->place);
}

static void run_read(const struct corpus *corpus, int64_t interval_ns, int64_t due_ns,
                     const struct publisher *publisher, PGconn *reader)
{
    static struct outstanding outstanding[OUTSTANDING_MAX];
    size_t count = 0;
    size_t sent = 0;
    int64_t stored_ns = bench_now_ns(); /* when one was last seen stored, or none was outstanding */
    while (sent < corpus->count || count > 0) {
        if (sent < corpus->count && count < OUTSTANDING_MAX && bench_now_ns() >= due_ns) {
            if (publisher)
                publish(publisher, sent);
            outstanding[count++] = (struct outstanding){.message = &corpus->messages[sent++], .due_ns = due_ns};
            due_ns += interval_ns;
        } else if (count == 0) {
            sleep_until(due_ns);
        }
        size_t left = look(reader, outstanding, count);
        if (left == 0 || left < count)
            stored_ns = bench_now_ns();
        else if (bench_now_ns() - stored_ns > GIVE_UP_S * INT64_C(1000000000))
            bench_fail("no message was stored for %d s", GIVE_UP_S);
        count = left;
    }
}

static void run_published(const struct corpus *corpus, int64_t interval_ns, size_t port, const char *channel,
                          PGconn *reader)
{
    const struct publish_place place = publish_place(channel);
    const struct publisher publisher = {&place, publish_commands(corpus, &place), publish_connect(port)};
    run_read(corpus, interval_ns, bench_now_ns() + interval_ns, &publisher, reader);
}

static void run_bare(const struct corpus *corpus, int64_t interval_ns, int64_t due_ns, PGconn *writer, bool is_read)
{
    for (size_t i = 0; i < corpus->count; i++) {
        sleep_until(due_ns);
        write_bare(writer, &corpus->messages[i]);
        if (!is_read)
            print_latency(due_ns);
        due_ns += interval_ns;
    }
}

static void run_bare_read(const struct corpus *corpus, int64_t interval_ns, const char *conninfo)
{
    int64_t due_ns = bench_now_ns() + 1000000000; /* both are connected by then */
    pid_t writer = fork();
    if (writer < 0)
        bench_fail("fork: %s", strerror(errno));
    PGconn *connection = connect_database(conninfo);
    if (writer == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_bare(corpus, interval_ns, due_ns, connection, true);
        _exit(0);
    }
    run_read(corpus, interval_ns, due_ns, NULL, connection);
    int status;
    if (waitpid(writer, &status, 0) != writer || status != 0)
        bench_fail("the writer failed");
    PQfinish(connection);
}

int main(int argc, char *argv[])
{
    if (argc != 8)
        bench_fail("usage: bench_latency CORPUS FIRST MESSAGES RATE REDIS_PORT CHANNEL|-|= CONNINFO");
    const struct corpus corpus = corpus_open(argv[1], bench_number(argv[2]), bench_number(argv[3]));
    int64_t interval_ns = INT64_C(1000000000) / (int64_t)bench_number(argv[4]);
    if (strcmp(argv[6], "=") == 0) {
        run_bare_read(&corpus, interval_ns, argv[7]);
        return 0;
    }
    PGconn *connection = connect_database(argv[7]);
    if (strcmp(argv[6], "-") == 0)
        run_bare(&corpus, interval_ns, bench_now_ns() + interval_ns, connection, false);
    else
        run_published(&corpus, interval_ns, bench_number(argv[5]), argv[6], connection);
    PQfinish(connection);
    return 0;
}
