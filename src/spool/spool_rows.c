/* SPDX-License-Identifier: MIT */
/* The spool's rows: put, finished, made dead letters, fetched, counted. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"
#include "spool_db.h"

static sqlite3_stmt *bound(struct spool_db *db, enum spool_statement which, int64_t first)
{
    sqlite3_stmt *statement = db->statements[which];
    (void)sqlite3_bind_int64(statement, 1,
                             first); /* cannot fail: index and statement are ours, and it is not running */
    return statement;
}

/* Runs a statement that returns nothing. */
static enum spool_db_result finish_statement(struct spool_db *db, sqlite3_stmt *statement)
{
    (void)sqlite3_step(statement); /* reset gives the same code */
    return spool_db_classify(db, sqlite3_reset(statement));
}

static uint64_t mix(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * UINT64_C(0x9fb21c651e98df25);
    return sum ^ (sum >> 32);
}

/* Each step is a bijection, so that a change in a single word always shows; beyond that it is a hash. */
int64_t spool_payload_sum(int64_t sequence, int64_t arrived_ms, const char *payload, size_t length)
{
    uint64_t sum = mix(mix(mix(UINT64_C(0x50525350), (uint64_t)sequence), (uint64_t)arrived_ms), length);
    size_t words = length / sizeof(uint64_t);
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, payload + i * sizeof word, sizeof word);
        sum = mix(sum, le64toh(word));
    }
    uint64_t last = 0;
    for (size_t i = words * sizeof(uint64_t); i < length; i++)
        last = last << 8 | (unsigned char)payload[i];
    sum = mix(sum, last);
    int64_t result;
    memcpy(&result, &sum, sizeof result);
    return result;
}

enum spool_db_result spool_db_add_payload(struct spool_db *db, int64_t sequence, int64_t arrived_ms,
                                          const char *payload, size_t length)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_ADD_PAYLOAD, sequence);
    (void)sqlite3_bind_int64(statement, 2, arrived_ms);
    (void)sqlite3_bind_int64(statement, 3, spool_payload_sum(sequence, arrived_ms, payload, length));
    int code = length > 0 ? sqlite3_bind_blob64(statement, 4, payload, length, SQLITE_STATIC)
                          : sqlite3_bind_zeroblob(statement, 4, 0);
    if (code != SQLITE_OK)
        return spool_db_classify(db, code);
    enum spool_db_result result = finish_statement(db, statement);
    (void)sqlite3_bind_null(statement, 4); /* the payload is borrowed */
    return result;
}

enum spool_db_result spool_db_put(struct spool_db *db, const char *payload, size_t length, int64_t arrived_ms,
                                  int64_t *sequence)
{
    enum spool_db_result result = finish_statement(db, bound(db, SPOOL_STATEMENT_ADD_WAITING, (int64_t)length));
    if (result != SPOOL_DB_OK)
        return result;
    *sequence = sqlite3_last_insert_rowid(db->sqlite);
    return spool_db_add_payload(db, *sequence, arrived_ms, payload, length);
}

/* A row of waiting or dead_letter. */
static enum spool_db_result drop_row(struct spool_db *db, enum spool_statement which, int64_t sequence, bool *found,
                                     uint64_t *size)
{
    sqlite3_stmt *statement = bound(db, which, sequence);
    *found = sqlite3_step(statement) == SQLITE_ROW;
    int64_t stored = *found ? sqlite3_column_int64(statement, 0) : 0;
    *size = stored > 0 ? (uint64_t)stored : 0;
    return spool_db_classify(db, sqlite3_reset(statement));
}

static enum spool_db_result drop_message(struct spool_db *db, enum spool_statement which, int64_t sequence, bool *found,
                                         uint64_t *size)
{
    enum spool_db_result result = drop_row(db, which, sequence, found, size);
    if (result != SPOOL_DB_OK || !*found)
        return result;
    return finish_statement(db, bound(db, SPOOL_STATEMENT_DROP_PAYLOAD, sequence));
}

enum spool_db_result spool_db_finish(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size)
{
    return drop_message(db, SPOOL_STATEMENT_DROP_WAITING, sequence, found, size);
}

enum spool_db_result spool_db_drop_dead(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size)
{
    return drop_message(db, SPOOL_STATEMENT_DROP_DEAD, sequence, found, size);
}

enum spool_db_result spool_db_next_dead(struct spool_db *db, int64_t after, int64_t *sequence)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_NEXT_DEAD, after);
    *sequence = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    return spool_db_classify(db, sqlite3_reset(statement));
}

enum spool_db_result spool_db_drop_rejected(struct spool_db *db, bool *found, uint64_t *size)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_OLDEST_REJECTED];
    *found = sqlite3_step(statement) == SQLITE_ROW;
    int64_t sequence = *found ? sqlite3_column_int64(statement, 0) : 0;
    enum spool_db_result result = spool_db_classify(db, sqlite3_reset(statement));
    return result == SPOOL_DB_OK && *found ? spool_db_drop_dead(db, sequence, found, size) : result;
}

static void bind_disposition(sqlite3_stmt *statement, const struct disposition *disposition)
{
    /* A failing bind leaves NULL, which the table takes for all but the outcome; static texts do not fail. */
    (void)sqlite3_bind_text(statement, 4, disposition->outcome ? disposition->outcome : "", -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 5, disposition->reason, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 6, disposition->sqlstate, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 7, disposition->error, -1, SQLITE_STATIC);
    if (disposition->has_interview_id)
        (void)sqlite3_bind_blob(statement, 8, disposition->interview_id, UUID_SIZE, SQLITE_STATIC);
    if (disposition->has_prompt_id)
        (void)sqlite3_bind_blob(statement, 9, disposition->prompt_id, UUID_SIZE, SQLITE_STATIC);
}

enum spool_db_result spool_db_set_dead(struct spool_db *db, int64_t sequence, const struct disposition *disposition,
                                       bool *found, uint64_t *size)
{
    enum spool_db_result result = drop_row(db, SPOOL_STATEMENT_DROP_WAITING, sequence, found, size);
    if (result != SPOOL_DB_OK || !*found)
        return result;
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_ADD_DEAD, sequence);
    (void)sqlite3_bind_int64(statement, 2, (int64_t)*size);
    (void)sqlite3_bind_int64(statement, 3, clock_wall_ms());
    bind_disposition(statement, disposition);
    result = finish_statement(db, statement);
    (void)sqlite3_clear_bindings(statement);
    return result;
}

enum spool_db_result spool_db_read_payload(struct spool_db *db, int64_t sequence, struct spool_entry *entry)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_READ_PAYLOAD];
    (void)sqlite3_reset(statement);
    (void)sqlite3_bind_int64(statement, 1, sequence);
    int code = sqlite3_step(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return spool_db_classify(db, code);
    *entry = (struct spool_entry){.sequence = sequence};
    if (code == SQLITE_ROW) {
        const char *bytes = sqlite3_column_blob(statement, 2); /* first: it may convert, and it may fail */
        entry->arrived_ms = sqlite3_column_int64(statement, 0);
        entry->length = (size_t)sqlite3_column_bytes(statement, 2);
        entry->payload = bytes ? bytes : "";
        if (!bytes && sqlite3_errcode(db->sqlite) == SQLITE_NOMEM)
            return spool_db_classify(db, SQLITE_NOMEM);
        if (spool_payload_sum(sequence, entry->arrived_ms, entry->payload, entry->length) ==
            sqlite3_column_int64(statement, 1))
            return SPOOL_DB_OK;
    }
    (void)snprintf(db->failure, sizeof db->failure, "the payload of message %lld is %s", (long long)sequence,
                   code == SQLITE_ROW ? "not what was put" : "missing");
    return SPOOL_DB_DAMAGED;
}

enum spool_db_result spool_db_replay(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size)
{
    struct spool_entry entry = {0};
    int64_t again;
    enum spool_db_result result = drop_row(db, SPOOL_STATEMENT_DROP_DEAD_WITH_MESSAGE, sequence, found, size);
    if (result != SPOOL_DB_OK || !*found)
        return result;
    result = spool_db_read_payload(db, sequence, &entry);
    if (result == SPOOL_DB_OK)
        result = spool_db_put(db, entry.payload, entry.length, entry.arrived_ms, &again);
    (void)sqlite3_reset(db->statements[SPOOL_STATEMENT_READ_PAYLOAD]);
    if (result == SPOOL_DB_OK)
        result = finish_statement(db, bound(db, SPOOL_STATEMENT_DROP_PAYLOAD, sequence));
    return result;
}

static enum spool_db_result add_entry(struct spool_db *db, int64_t sequence, size_t size, struct spool_batch *batch)
{
    struct spool_entry entry = {0};
    enum spool_db_result result = spool_db_read_payload(db, sequence, &entry);
    if (result != SPOOL_DB_OK)
        return result;
    if (entry.length != size) {
        (void)snprintf(db->failure, sizeof db->failure, "message %lld has lost its size", (long long)sequence);
        return SPOOL_DB_DAMAGED;
    }
    buffer_append(&batch->payloads, entry.payload, entry.length);
    buffer_append(&batch->entries, &entry, sizeof entry);
    batch->count++;
    return batch->payloads.failed || batch->entries.failed ? spool_db_classify(db, SQLITE_NOMEM) : SPOOL_DB_OK;
}

struct spool_entry *spool_batch_entries(const struct spool_batch *batch)
{
    return (struct spool_entry *)(void *)batch->entries.data;
}

/* The payloads have stopped moving: each entry is given its own. */
static void point_to_payloads(struct spool_batch *batch)
{
    const char *next = batch->payloads.data ? batch->payloads.data : "";
    struct spool_entry *entries = spool_batch_entries(batch);
    for (size_t i = 0; i < batch->count; i++) {
        entries[i].payload = next;
        next += entries[i].length;
    }
}

enum spool_db_result spool_db_fetch(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                    struct spool_batch *batch)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_NEXT_WAITING, after);
    enum spool_db_result result = SPOOL_DB_OK;
    int code;
    *batch = (struct spool_batch){0};
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        int64_t sequence = sqlite3_column_int64(statement, 0);
        int64_t size = sqlite3_column_int64(statement, 1);
        if (sequence <= after || size < 0 || size > SPOOL_PAYLOAD_MAX)
            code = SQLITE_CORRUPT;
        if (code == SQLITE_CORRUPT ||
            (batch->count > 0 && (batch->count >= max_messages || batch->payloads.length + (size_t)size > max_bytes)))
            break;
        result = add_entry(db, sequence, (size_t)size, batch);
        if (result != SPOOL_DB_OK)
            break;
        after = sequence;
    }
    batch->end = code == SQLITE_DONE;
    if (result == SPOOL_DB_OK)
        result = spool_db_classify(db, code);
    (void)sqlite3_reset(statement);
    (void)sqlite3_reset(db->statements[SPOOL_STATEMENT_READ_PAYLOAD]);
    if (result == SPOOL_DB_OK)
        point_to_payloads(batch);
    else
        spool_batch_free(batch);
    return result;
}

void spool_batch_free(struct spool_batch *batch)
{
    buffer_free(&batch->entries);
    buffer_free(&batch->payloads);
    *batch = (struct spool_batch){0};
}

/* The first row of a statement without parameters; `second` is NULL where there is no such column. */
static enum spool_db_result query_row(struct spool_db *db, enum spool_statement which, int64_t *first, int64_t *second)
{
    sqlite3_stmt *statement = db->statements[which];
    int code = sqlite3_step(statement);
    *first = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    if (second)
        *second = code == SQLITE_ROW ? sqlite3_column_int64(statement, 1) : 0;
    enum spool_db_result result = spool_db_classify(db, code);
    (void)sqlite3_reset(statement);
    if (code != SQLITE_DONE)
        return result;
    (void)snprintf(db->failure, sizeof db->failure, "the count of its sequences is lost"); /* nothing else is a row */
    return SPOOL_DB_DAMAGED;
}

enum spool_db_result spool_db_count(struct spool_db *db, struct spool_counts *counts)
{
    int64_t waiting[2] = {0};
    int64_t dead[2] = {0};
    enum spool_db_result result = query_row(db, SPOOL_STATEMENT_COUNT_WAITING, &waiting[0], &waiting[1]);
    if (result == SPOOL_DB_OK)
        result = query_row(db, SPOOL_STATEMENT_COUNT_DEAD, &dead[0], &dead[1]);
    if (result == SPOOL_DB_OK)
        result = query_row(db, SPOOL_STATEMENT_LAST_SEQUENCE, &counts->last_sequence, NULL);
    counts->waiting = (uint64_t)waiting[0];
    counts->waiting_bytes = (uint64_t)waiting[1];
    counts->dead = (uint64_t)dead[0];
    counts->dead_bytes = (uint64_t)dead[1];
    return result;
}

enum spool_db_result spool_db_count_waiting(struct spool_db *db, uint64_t *bytes)
{
    int64_t messages;
    int64_t sum;
    enum spool_db_result result = query_row(db, SPOOL_STATEMENT_COUNT_WAITING, &messages, &sum);
    *bytes = (uint64_t)sum;
    return result;
}

enum spool_db_result spool_db_count_new(struct spool_db *db, int64_t *last_sequence, uint64_t *added)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_COUNT_NEW, *last_sequence);
    int code = sqlite3_step(statement);
    *added = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(statement, 0) : 0;
    if (*added > 0)
        *last_sequence = sqlite3_column_int64(statement, 1);
    enum spool_db_result result = spool_db_classify(db, code);
    (void)sqlite3_reset(statement);
    return result;
}

enum spool_db_result spool_db_data_version(struct spool_db *db, int64_t *version)
{
    return query_row(db, SPOOL_STATEMENT_DATA_VERSION, version, NULL);
}
