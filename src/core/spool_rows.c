/* SPDX-License-Identifier: MIT */
/* The spool's rows: put, finish, bury, fetch, count. */
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
    return spool_db_judge(db, sqlite3_reset(statement));
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
        return spool_db_judge(db, code);
    enum spool_db_result result = finish_statement(db, statement);
    (void)sqlite3_bind_null(statement, 4); /* the payload is borrowed */
    return result;
}

enum spool_db_result spool_db_put(struct spool_db *db, const char *payload, size_t length, int64_t arrived_ms,
                                  bool attempted, int64_t *sequence)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_ADD_MESSAGE, attempted ? db->run : 0);
    (void)sqlite3_bind_int64(statement, 2, (int64_t)length);
    enum spool_db_result result = finish_statement(db, statement);
    if (result != SPOOL_DB_OK)
        return result;
    *sequence = sqlite3_last_insert_rowid(db->sqlite);
    return spool_db_add_payload(db, *sequence, arrived_ms, payload, length);
}

static enum spool_db_result drop_message(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_DROP_MESSAGE, sequence);
    *found = sqlite3_step(statement) == SQLITE_ROW;
    int64_t stored = *found ? sqlite3_column_int64(statement, 0) : 0;
    *size = stored > 0 ? (uint64_t)stored : 0;
    return spool_db_judge(db, sqlite3_reset(statement));
}

enum spool_db_result spool_db_finish(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size)
{
    enum spool_db_result result = drop_message(db, sequence, found, size);
    if (result != SPOOL_DB_OK || !*found)
        return result;
    return finish_statement(db, bound(db, SPOOL_STATEMENT_DROP_PAYLOAD, sequence));
}

static void bind_epitaph(sqlite3_stmt *statement, const struct spool_epitaph *epitaph)
{
    /* A failing bind leaves NULL, which the table takes for all but the outcome; static texts do not fail. */
    (void)sqlite3_bind_text(statement, 4, epitaph->outcome ? epitaph->outcome : "", -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 5, epitaph->reason, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 6, epitaph->sqlstate, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(statement, 7, epitaph->error, -1, SQLITE_STATIC);
    if (epitaph->has_interview_id)
        (void)sqlite3_bind_blob(statement, 8, epitaph->interview_id, UUID_SIZE, SQLITE_STATIC);
    if (epitaph->has_prompt_id)
        (void)sqlite3_bind_blob(statement, 9, epitaph->prompt_id, UUID_SIZE, SQLITE_STATIC);
}

enum spool_db_result spool_db_bury(struct spool_db *db, int64_t sequence, const struct spool_epitaph *epitaph,
                                   bool *found, uint64_t *size)
{
    enum spool_db_result result = drop_message(db, sequence, found, size);
    if (result != SPOOL_DB_OK || !*found)
        return result;
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_ADD_DEAD, sequence);
    (void)sqlite3_bind_int64(statement, 2, (int64_t)*size);
    (void)sqlite3_bind_int64(statement, 3, clock_wall_ms());
    bind_epitaph(statement, epitaph);
    result = finish_statement(db, statement);
    (void)sqlite3_clear_bindings(statement);
    return result;
}

enum spool_db_result spool_db_resolve(struct spool_db *db, const uint8_t prompt_id[UUID_SIZE])
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_RESOLVE_ORPHAN];
    int code = sqlite3_bind_blob(statement, 1, prompt_id, UUID_SIZE, SQLITE_STATIC);
    enum spool_db_result result = code == SQLITE_OK ? finish_statement(db, statement) : spool_db_judge(db, code);
    (void)sqlite3_clear_bindings(statement); /* the id is borrowed */
    return result;
}

enum spool_db_result spool_db_open_orphans(struct spool_db *db, size_t max, spool_orphan_told told, void *context)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_OPEN_ORPHANS, (int64_t)max);
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const uint8_t *interview_id = sqlite3_column_blob(statement, 0);
        const uint8_t *prompt_id = sqlite3_column_blob(statement, 1);
        if (interview_id && prompt_id)
            told(context, interview_id, prompt_id, sqlite3_column_int64(statement, 2));
    }
    enum spool_db_result result = spool_db_judge(db, code);
    (void)sqlite3_reset(statement);
    return result;
}

enum spool_db_result spool_db_read_payload(struct spool_db *db, int64_t sequence, struct spool_entry *entry)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_READ_PAYLOAD];
    (void)sqlite3_reset(statement);
    (void)sqlite3_bind_int64(statement, 1, sequence);
    int code = sqlite3_step(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return spool_db_judge(db, code);
    *entry = (struct spool_entry){.sequence = sequence};
    if (code == SQLITE_ROW) {
        const char *bytes = sqlite3_column_blob(statement, 2); /* first: it may convert, and it may fail */
        entry->arrived_ms = sqlite3_column_int64(statement, 0);
        entry->length = (size_t)sqlite3_column_bytes(statement, 2);
        entry->payload = bytes ? bytes : "";
        if (!bytes && sqlite3_errcode(db->sqlite) == SQLITE_NOMEM)
            return spool_db_judge(db, SQLITE_NOMEM);
        if (spool_payload_sum(sequence, entry->arrived_ms, entry->payload, entry->length) ==
            sqlite3_column_int64(statement, 1))
            return SPOOL_DB_OK;
    }
    (void)snprintf(db->failure, sizeof db->failure, "the payload of message %lld is %s", (long long)sequence,
                   code == SQLITE_ROW ? "not what was put" : "missing");
    return SPOOL_DB_DAMAGED;
}

static enum spool_db_result no_memory(struct spool_db *db)
{
    return spool_db_judge(db, SQLITE_NOMEM);
}

/* The states of the next messages, without their payloads: what fits, and whether there is more. */
static enum spool_db_result choose_entries(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                           struct spool_batch *batch, size_t *bytes)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_NEXT_MESSAGES, after);
    size_t room = 0;
    int code;
    (void)sqlite3_bind_int64(statement, 2, db->run);
    *bytes = 0;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        int64_t sequence = sqlite3_column_int64(statement, 0);
        int64_t size = sqlite3_column_int64(statement, 2);
        if (sequence <= after || size < 0 || size > SPOOL_PAYLOAD_MAX) {
            code = SQLITE_CORRUPT;
            break;
        }
        if (batch->count > 0 && (batch->count >= max_messages || (size_t)size > max_bytes - *bytes))
            break;
        if (batch->count == room) {
            room = room ? room * 2 : 64;
            struct spool_entry *entries = reallocarray(batch->entries, room, sizeof *entries);
            if (!entries) {
                code = SQLITE_NOMEM;
                break;
            }
            batch->entries = entries;
        }
        batch->entries[batch->count++] = (struct spool_entry){
            .sequence = sequence, .length = (size_t)size, .attempted = sqlite3_column_int64(statement, 1) != 0};
        *bytes += (size_t)size;
        if (*bytes > max_bytes)
            max_bytes = *bytes; /* the one large message; nothing else fits */
        after = sequence;
    }
    batch->end = code == SQLITE_DONE;
    enum spool_db_result result = spool_db_judge(db, code);
    (void)sqlite3_reset(statement);
    return result;
}

static enum spool_db_result read_entries(struct spool_db *db, struct spool_batch *batch)
{
    char *next = batch->arena;
    for (size_t i = 0; i < batch->count; i++) {
        struct spool_entry *entry = &batch->entries[i];
        struct spool_entry read = {0};
        enum spool_db_result result = spool_db_read_payload(db, entry->sequence, &read);
        if (result == SPOOL_DB_OK && read.length != entry->length) {
            (void)snprintf(db->failure, sizeof db->failure, "message %lld has lost its size",
                           (long long)entry->sequence);
            result = SPOOL_DB_DAMAGED;
        }
        if (result != SPOOL_DB_OK)
            return result;
        if (read.length > 0)
            memcpy(next, read.payload, read.length);
        entry->payload = next;
        entry->arrived_ms = read.arrived_ms;
        next += read.length;
    }
    (void)sqlite3_reset(db->statements[SPOOL_STATEMENT_READ_PAYLOAD]);
    return SPOOL_DB_OK;
}

static enum spool_db_result mark_attempted(struct spool_db *db, const struct spool_batch *batch)
{
    if (batch->count == 0)
        return SPOOL_DB_OK;
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_MARK, batch->entries[0].sequence);
    (void)sqlite3_bind_int64(statement, 2, batch->entries[batch->count - 1].sequence);
    (void)sqlite3_bind_int64(statement, 3, db->run);
    return finish_statement(db, statement);
}

enum spool_db_result spool_db_read(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                   struct spool_batch *batch)
{
    size_t bytes;
    *batch = (struct spool_batch){0};
    enum spool_db_result result = choose_entries(db, after, max_messages, max_bytes, batch, &bytes);
    if (result == SPOOL_DB_OK) {
        batch->arena = malloc(bytes + 1); /* never of size 0 */
        result = batch->arena ? read_entries(db, batch) : no_memory(db);
    }
    if (result != SPOOL_DB_OK)
        spool_batch_free(batch);
    return result;
}

enum spool_db_result spool_db_fetch(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                    struct spool_batch *batch)
{
    enum spool_db_result result = spool_db_read(db, after, max_messages, max_bytes, batch);
    if (result == SPOOL_DB_OK)
        result = mark_attempted(db, batch);
    if (result != SPOOL_DB_OK)
        spool_batch_free(batch);
    return result;
}

void spool_batch_free(struct spool_batch *batch)
{
    free(batch->entries);
    free(batch->arena); /* NOLINT(clang-analyzer-unix.Malloc): the batch is zeroed after each free */
    *batch = (struct spool_batch){0};
}

static enum spool_db_result count_rows(struct spool_db *db, enum spool_statement which, uint64_t *rows, uint64_t *bytes)
{
    sqlite3_stmt *statement = db->statements[which];
    int code = sqlite3_step(statement);
    *rows = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(statement, 0) : 0;
    double total = code == SQLITE_ROW ? sqlite3_column_double(statement, 1) : 0;
    *bytes = total > 0 && total < 9e18 ? (uint64_t)total : 0;
    enum spool_db_result result = spool_db_judge(db, code);
    (void)sqlite3_reset(statement);
    return result;
}

enum spool_db_result spool_db_last_sequence(struct spool_db *db, int64_t *last_sequence)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_LAST_SEQUENCE];
    int code = sqlite3_step(statement);
    *last_sequence = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    enum spool_db_result result = spool_db_judge(db, code);
    (void)sqlite3_reset(statement);
    if (result == SPOOL_DB_OK && (*last_sequence < 0 || *last_sequence > SPOOL_SEQUENCE_MAX)) {
        (void)snprintf(db->failure, sizeof db->failure, "the count of its sequences is lost");
        result = SPOOL_DB_DAMAGED;
    }
    return result;
}

enum spool_db_result spool_db_count_new(struct spool_db *db, int64_t *last_sequence, uint64_t *added)
{
    sqlite3_stmt *statement = bound(db, SPOOL_STATEMENT_COUNT_NEW, *last_sequence);
    int code = sqlite3_step(statement);
    *added = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(statement, 0) : 0;
    if (*added > 0)
        *last_sequence = sqlite3_column_int64(statement, 1);
    enum spool_db_result result = spool_db_judge(db, code);
    (void)sqlite3_reset(statement);
    return result;
}

enum spool_db_result spool_db_count(struct spool_db *db, struct spool_counts *counts)
{
    enum spool_db_result result = count_rows(db, SPOOL_STATEMENT_COUNT_MESSAGES, &counts->waiting,
                                             &counts->waiting_bytes);
    if (result == SPOOL_DB_OK)
        result = count_rows(db, SPOOL_STATEMENT_COUNT_DEAD, &counts->dead, &counts->dead_bytes);
    if (result == SPOOL_DB_OK)
        result = spool_db_last_sequence(db, &counts->last_sequence);
    return result;
}

enum spool_db_result spool_db_data_version(struct spool_db *db, int64_t *version)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_DATA_VERSION];
    int code = sqlite3_step(statement);
    *version = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    enum spool_db_result result = spool_db_judge(db, code);
    (void)sqlite3_reset(statement);
    return result;
}
