/* SPDX-License-Identifier: MIT */
/*
 * The limit: writes the rows of a corpus from memory, already parsed, with the statements of promptd, so many a
 * statement and over so many connections; each connection has a thread and waits for its answers. No Redis, no JSON.
 *
 *     bench_limit CORPUS MESSAGES BATCH CONNECTIONS CONNINFO
 *
 * Prints the seconds from the first statement to the last commit.
 */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus.h"

enum { OID_TEXT = 25, OID_UUID = 2950, OID_TEXT_ARRAY = 1009, OID_UUID_ARRAY = 2951 };

static const char insert_sql[] = "insert into interview_enhanced_prompts (id, interview_id, prompt, source)"
                                 " select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])"
                                 " on conflict (id) do nothing returning id";
static const char update_sql[] =
    "update interviews set status = 'ready' where id = any((select $1)::uuid[]) and status::text = any(array['pending',"
    " 'not_started', 'enhancing', 'vector_search', 'web_scraping', 'processing', 'failed'])"
    " and status::text <> 'ready' returning id";

/* A binary array, as PostgreSQL's array_recv reads it. */
struct array {
    char *data;
    size_t length;
};

struct batch {
    int rows;
    struct array ids;
    struct array interviews;
    struct array prompts;
    struct array sources;
};

static struct batch *batches;
static size_t batch_count;
static atomic_size_t next_batch;

static void put_u32(struct array *array, size_t value)
{
    uint32_t big_endian = htonl((uint32_t)value);
    memcpy(array->data + array->length, &big_endian, sizeof big_endian);
    array->length += sizeof big_endian;
}

static void put_element(struct array *array, const void *bytes, size_t length)
{
    put_u32(array, length);
    memcpy(array->data + array->length, bytes, length);
    array->length += length;
}

static struct array array_new(unsigned element_type, size_t count, size_t element_bytes)
{
    struct array array = {.data = malloc(5 * sizeof(uint32_t) + count * sizeof(uint32_t) + element_bytes)};
    if (!array.data)
        bench_fail("out of memory");
    put_u32(&array, 1); /* dimensions */
    put_u32(&array, 0); /* no nulls */
    put_u32(&array, element_type);
    put_u32(&array, count);
    put_u32(&array, 1); /* lower bound */
    return array;
}

static struct batch make_batch(const struct corpus_message *messages, size_t count)
{
    static const char source[] = "rag";
    size_t prompt_bytes = 0;
    for (size_t i = 0; i < count; i++)
        prompt_bytes += messages[i].prompt_bytes;
    struct batch batch = {
        .rows = (int)count,
        .ids = array_new(OID_UUID, count, count * CORPUS_ID_SIZE),
        .interviews = array_new(OID_UUID, count, count * CORPUS_ID_SIZE),
        .prompts = array_new(OID_TEXT, count, prompt_bytes),
        .sources = array_new(OID_TEXT, count, count * (sizeof source - 1)),
    };
    for (size_t i = 0; i < count; i++) {
        put_element(&batch.ids, messages[i].prompt_id, CORPUS_ID_SIZE);
        put_element(&batch.interviews, messages[i].interview_id, CORPUS_ID_SIZE);
        put_element(&batch.prompts, messages[i].prompt, messages[i].prompt_bytes);
        put_element(&batch.sources, source, sizeof source - 1);
    }
    return batch;
}

static void make_batches(const struct corpus *corpus, size_t batch_max)
{
    batch_count = (corpus->count + batch_max - 1) / batch_max;
    batches = calloc(batch_count, sizeof *batches);
    if (!batches)
        bench_fail("out of memory");
    for (size_t i = 0; i < batch_count; i++) {
        size_t first = i * batch_max;
        size_t left = corpus->count - first;
        batches[i] = make_batch(corpus->messages + first, left < batch_max ? left : batch_max);
    }
}

static void run_statement(PGconn *connection, const char *sql, int count, const Oid *types, const struct array *arrays,
                          int rows)
{
    const char *values[4];
    int lengths[4];
    const int formats[4] = {1, 1, 1, 1};
    for (int i = 0; i < count; i++) {
        values[i] = arrays[i].data;
        lengths[i] = (int)arrays[i].length;
    }
    PGresult *result = PQexecParams(connection, sql, count, types, values, lengths, formats, 1);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        bench_fail("%s", PQerrorMessage(connection));
    if (PQntuples(result) != rows)
        bench_fail("a statement changed %d rows, not %d", PQntuples(result), rows);
    PQclear(result);
}

static void *write_batches(void *data)
{
    static const Oid types[4] = {OID_UUID_ARRAY, OID_UUID_ARRAY, OID_TEXT_ARRAY, OID_TEXT_ARRAY};
    PGconn *connection = data;
    size_t i;
    while ((i = atomic_fetch_add(&next_batch, 1)) < batch_count) {
        const struct batch *batch = &batches[i];
        const struct array all[4] = {batch->ids, batch->interviews, batch->prompts, batch->sources};
        run_statement(connection, insert_sql, 4, types, all, batch->rows);
        run_statement(connection, update_sql, 1, types, &batch->interviews, batch->rows);
    }
    return NULL;
}

int main(int argc, char *argv[])
{
    if (argc != 6)
        bench_fail("usage: bench_limit CORPUS MESSAGES BATCH CONNECTIONS CONNINFO");
    const struct corpus corpus = corpus_open(argv[1], 0, bench_number(argv[2]));
    size_t connections = bench_number(argv[4]);
    make_batches(&corpus, bench_number(argv[3]));
    PGconn **connection = calloc(connections, sizeof(PGconn *));
    pthread_t *threads = calloc(connections, sizeof *threads);
    if (!connection || !threads)
        bench_fail("out of memory");
    for (size_t i = 0; i < connections; i++) {
        connection[i] = PQconnectdb(argv[5]);
        if (PQstatus(connection[i]) != CONNECTION_OK)
            bench_fail("%s", PQerrorMessage(connection[i]));
    }
    int64_t began_ns = bench_now_ns();
    for (size_t i = 0; i < connections; i++)
        if (pthread_create(&threads[i], NULL, write_batches, connection[i]) != 0)
            bench_fail("no thread could be made");
    for (size_t i = 0; i < connections; i++)
        (void)pthread_join(threads[i], NULL);
    (void)printf("%.6f\n", (double)(bench_now_ns() - began_ns) / 1e9);
    for (size_t i = 0; i < connections; i++)
        PQfinish(connection[i]);
    free(connection);
    free(threads);
    return 0;
}
