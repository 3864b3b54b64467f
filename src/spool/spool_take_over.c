/* SPDX-License-Identifier: MIT */
/*
 * Taking over what can be read of a damaged database.
 *
 * The payloads are what counts. They are read in their order; where that meets an error, each page of the file is read
 * by itself, as if it were the whole table, so that a page that is lost takes with it only what stood on it. For that
 * the table's root is moved, page by page, in transactions that are rolled back: nothing is written to the file.
 *
 * A payload is taken over when its sum is right. Is there a dead letter of its number, it is that; else it waits again:
 * what had ended after all ends as a duplicate.
 */
#include <stdio.h>

#include "promptd/clock.h"
#include "spool_repair.h"

enum {
    STEP_LIMIT_US = 5000000, /* for one row: pages that refer to each other in circles end here */
    PROGRESS_STEPS = 10000
};

/* A page has room for fewer; what stands higher up in the tree shows rows that come again with their own pages. */
#define ROWS_OF_A_PAGE "1000"

/* Version 2 and version 1; the columns are the same. */
static const char *const letter_sql[] = {"select * from dead_letter where sequence = ?1",
                                         "select * from dead where sequence = ?1", NULL};
static const char *const count_sql[] = {"select (select count(*) from waiting) + (select count(*) from dead_letter)",
                                        "select (select count(*) from message) + (select count(*) from dead)", NULL};
static const char *const last_sql[] = {
    "select max(seq) from sqlite_sequence where name in ('waiting', 'message') and typeof(seq) = 'integer'", NULL};

static const char add_waiting_sql[] = "insert or ignore into waiting(sequence, size) values(?1, ?2)";
static const char add_letter_sql[] = "insert or ignore into dead_letter values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

struct takeover {
    sqlite3 *from;
    sqlite3_stmt *letter; /* NULL: there are none to be read */
    struct spool_db *to;
    sqlite3_stmt *add_waiting;
    sqlite3_stmt *add_letter;
    struct spool_taken *taken;
    int64_t deadline_us; /* of the step that runs */
    enum spool_db_result result;
};

static int past_deadline(void *context)
{
    const struct takeover *takeover = context;
    return clock_monotonic_us() > takeover->deadline_us;
}

static int step(struct takeover *takeover, sqlite3_stmt *statement)
{
    takeover->deadline_us = clock_monotonic_us() + STEP_LIMIT_US;
    return statement ? sqlite3_step(statement) : SQLITE_ERROR;
}

/* The first of the statements that this file's tables allow; NULL where none is. */
static sqlite3_stmt *prepare_first(struct takeover *takeover, const char *const *sql)
{
    sqlite3_stmt *statement = NULL;
    takeover->deadline_us = clock_monotonic_us() + STEP_LIMIT_US;
    while (*sql && !statement)
        (void)sqlite3_prepare_v2(takeover->from, *sql++, -1, &statement, NULL);
    return statement;
}

static int64_t query_number(struct takeover *takeover, const char *const *sql)
{
    sqlite3_stmt *statement = prepare_first(takeover, sql);
    int64_t number = step(takeover, statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    return number;
}

/* A row in waiting or dead_letter; the result is the number of rows added, 0 where it is there already. */
static int add_state(struct takeover *takeover, int64_t sequence, int64_t size, bool *dead)
{
    sqlite3_stmt *letter = takeover->letter;
    (void)sqlite3_bind_int64(letter, 1, sequence);
    *dead = step(takeover, letter) == SQLITE_ROW && sqlite3_column_type(letter, 2) == SQLITE_INTEGER &&
            sqlite3_column_type(letter, 3) == SQLITE_TEXT;
    sqlite3_stmt *add = *dead ? takeover->add_letter : takeover->add_waiting;
    (void)sqlite3_bind_int64(add, 1, sequence);
    (void)sqlite3_bind_int64(add, 2, size);
    for (int i = 2; i < 9 && *dead; i++)
        (void)sqlite3_bind_value(add, i + 1, sqlite3_column_value(letter, i));
    (void)sqlite3_step(add);
    takeover->result = spool_db_classify(takeover->to, sqlite3_reset(add));
    (void)sqlite3_clear_bindings(add);
    (void)sqlite3_reset(letter);
    return sqlite3_changes(takeover->to->sqlite);
}

static void take_row(struct takeover *takeover, sqlite3_stmt *row)
{
    struct spool_taken *taken = takeover->taken;
    const char *bytes = sqlite3_column_blob(row, 3);
    size_t length = (size_t)sqlite3_column_bytes(row, 3);
    int64_t sequence = sqlite3_column_int64(row, 0);
    int64_t arrived_ms = sqlite3_column_int64(row, 1);
    bool dead;
    if (sequence <= 0 || sequence > SPOOL_SEQUENCE_MAX ||
        sqlite3_column_int64(row, 2) != spool_payload_sum(sequence, arrived_ms, bytes ? bytes : "", length) ||
        add_state(takeover, sequence, (int64_t)length, &dead) == 0 || takeover->result != SPOOL_DB_OK)
        return;
    taken->waiting += !dead;
    taken->dead += dead;
    if (sequence > taken->last_sequence)
        taken->last_sequence = sequence;
    takeover->result = spool_db_add_payload(takeover->to, sequence, arrived_ms, bytes, length);
}

/* true: they were read to their end. */
static bool take_rows(struct takeover *takeover, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(takeover->from, sql, -1, &statement, NULL);
    while (takeover->result == SPOOL_DB_OK && (code = step(takeover, statement)) == SQLITE_ROW)
        take_row(takeover, statement);
    sqlite3_finalize(statement);
    return code == SQLITE_DONE;
}

/* The schema is read anew after the reset, and leniently with writable_schema on. */
static void take_page(struct takeover *takeover, int64_t page)
{
    char sql[240];
    (void)snprintf(sql, sizeof sql,
                   "begin immediate; update sqlite_schema set rootpage = %lld where name = 'payload';"
                   "pragma writable_schema = reset; pragma writable_schema = on",
                   (long long)page);
    takeover->deadline_us = clock_monotonic_us() + STEP_LIMIT_US;
    int code = sqlite3_exec(takeover->from, sql, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        (void)take_rows(takeover, "select sequence, arrived_ms, sum, bytes from payload limit " ROWS_OF_A_PAGE);
    else if (code == SQLITE_BUSY)
        takeover->result = spool_db_classify(takeover->to, code);
    (void)sqlite3_exec(takeover->from, "rollback", NULL, NULL, NULL);
}

static void take_all(struct takeover *takeover)
{
    static const char *const pages_sql[] = {"pragma page_count", NULL};
    struct spool_taken *taken = takeover->taken;
    int64_t last = query_number(takeover, last_sql);
    if (last > taken->last_sequence && last < SPOOL_SEQUENCE_MAX)
        taken->last_sequence = last;
    int64_t known = query_number(takeover, count_sql);
    takeover->letter = prepare_first(takeover, letter_sql);
    if (!take_rows(takeover, "select sequence, arrived_ms, sum, bytes from payload order by sequence")) {
        int64_t pages = query_number(takeover, pages_sql);
        for (int64_t page = 2; page <= pages && takeover->result == SPOOL_DB_OK; page++)
            take_page(takeover, page);
    }
    int64_t all = (int64_t)(taken->waiting + taken->dead);
    taken->lost = known < 0 ? -1 : known > all ? known - all : 0;
}

/* writable_schema also lets SQLite read a file that is shorter than its header says. What is not spilled and not
 * committed is in memory only: the file and its log stay as they were found, for people. */
static bool open_source(struct takeover *takeover, const char *path)
{
    if (sqlite3_open_v2(path, &takeover->from, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return false;
    (void)sqlite3_db_config(takeover->from, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    (void)sqlite3_busy_timeout(takeover->from, SPOOL_BUSY_TIMEOUT_MS);
    (void)sqlite3_limit(takeover->from, SQLITE_LIMIT_LENGTH, SPOOL_PAYLOAD_MAX + 4096);
    sqlite3_progress_handler(takeover->from, PROGRESS_STEPS, past_deadline, takeover);
    takeover->deadline_us = clock_monotonic_us() + STEP_LIMIT_US;
    (void)sqlite3_exec(takeover->from,
                       "pragma trusted_schema = off; pragma writable_schema = on; pragma cache_spill = off", NULL, NULL,
                       NULL);
    return true;
}

static enum spool_db_result open_target(struct takeover *takeover)
{
    struct spool_db *to = takeover->to;
    enum spool_db_result result = spool_db_execute(to, "begin");
    if (result == SPOOL_DB_OK)
        result = spool_db_classify(to,
                                   sqlite3_prepare_v2(to->sqlite, add_waiting_sql, -1, &takeover->add_waiting, NULL));
    if (result == SPOOL_DB_OK)
        result = spool_db_classify(to, sqlite3_prepare_v2(to->sqlite, add_letter_sql, -1, &takeover->add_letter, NULL));
    return result;
}

enum spool_db_result spool_take_over(const char *path, struct spool_db *to, struct spool_taken *taken)
{
    struct takeover takeover = {.to = to, .taken = taken};
    takeover.result = open_target(&takeover);
    if (takeover.result == SPOOL_DB_OK && open_source(&takeover, path))
        take_all(&takeover);
    sqlite3_finalize(takeover.letter);
    sqlite3_finalize(takeover.add_waiting);
    sqlite3_finalize(takeover.add_letter);
    (void)sqlite3_close(takeover.from);
    return takeover.result == SPOOL_DB_OK ? spool_db_execute(to, "commit") : takeover.result;
}
