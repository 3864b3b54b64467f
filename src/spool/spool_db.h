/* SPDX-License-Identifier: MIT */
/*
 * The spool's database: SQLite behind a few verbs.
 *
 *     payload(sequence, arrived_ms, sum, bytes)      what a message is; never changed; proves itself by its sum
 *     waiting(sequence, size)                        a message that waits; small, so that counting is cheap
 *     dead_letter(sequence, size, died_ms, …)        what became of one that does not wait any more
 *
 * Every payload has a row in either waiting or dead_letter. Sequences come from waiting's AUTOINCREMENT and never go
 * back. A struct spool_db belongs to one thread at a time.
 */
#ifndef PROMPTD_SPOOL_DB_H
#define PROMPTD_SPOOL_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"
#include "promptd/spool.h"

enum {
    SPOOL_PAGE_SIZE = 8192,                /* bytes; three messages of 2 KB: measured, 4096 wastes half */
    SPOOL_PAYLOAD_MAX = 512 * 1024 * 1024, /* bytes; SQLite's own limit is near 1e9 */
    SPOOL_BUSY_TIMEOUT_MS = 5000,          /* promptctl's transactions are far shorter */
    SPOOL_FAILURE_SIZE = 200
};

/* No honest sequence comes near it; beyond it SQLite would run out of them. */
#define SPOOL_SEQUENCE_MAX (INT64_C(1) << 60)

enum spool_db_result {
    SPOOL_DB_OK,
    SPOOL_DB_REFUSED, /* disk full, no permission, locked, out of memory: the same may work later */
    SPOOL_DB_DAMAGED, /* what is in the file is not what was written */
    SPOOL_DB_FOREIGN  /* a sound database of another program */
};

#define SPOOL_UNREAD "too_large" /* the reason of a letter without a message: with one it has bytes */

#define SPOOL_STATEMENT_MAP(X)                                                                                         \
    X(BEGIN_WRITE, "begin immediate")                                                                                  \
    X(BEGIN_READ, "begin")                                                                                             \
    X(COMMIT, "commit")                                                                                                \
    X(ADD_WAITING, "insert into waiting(size) values(?1)")                                                             \
    X(ADD_PAYLOAD, "insert into payload(sequence, arrived_ms, sum, bytes) values(?1, ?2, ?3, ?4)")                     \
    X(ADD_DEAD, "insert into dead_letter(sequence, size, died_ms, outcome, reason, sqlstate, error, interview_id,"     \
                " prompt_id) values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")                                              \
    X(DROP_WAITING, "delete from waiting where sequence = ?1 returning size")                                          \
    X(DROP_PAYLOAD, "delete from payload where sequence = ?1")                                                         \
    X(DROP_DEAD, "delete from dead_letter where sequence = ?1 returning size")                                         \
    X(DROP_DEAD_WITH_MESSAGE, "delete from dead_letter where sequence = ?1"                                            \
                              " and not (size = 0 and reason is '" SPOOL_UNREAD "') returning size")                   \
    X(NEXT_DEAD, "select min(sequence) from dead_letter where sequence > ?1")                                          \
    X(OLDEST_REJECTED, "select sequence from dead_letter where outcome = 'rejected' order by sequence limit 1")        \
    X(NEXT_WAITING, "select sequence, size from waiting where sequence > ?1 order by sequence")                        \
    X(READ_PAYLOAD, "select arrived_ms, sum, bytes from payload where sequence = ?1")                                  \
    X(COUNT_NEW, "select count(*), max(sequence) from waiting where sequence > ?1")                                    \
    X(LAST_SEQUENCE, "select seq from sqlite_sequence where name = 'waiting'")                                         \
    X(COUNT_WAITING, "select count(*), ifnull(sum(size), 0) from waiting")                                             \
    X(COUNT_DEAD, "select count(*), ifnull(sum(size), 0) from dead_letter")                                            \
    X(DATA_VERSION, "pragma data_version")                                                                             \
    X(FREE_PAGES, "pragma freelist_count")

enum spool_statement {
#define X(name, sql) SPOOL_STATEMENT_##name,
    SPOOL_STATEMENT_MAP(X)
#undef X
        SPOOL_STATEMENT_COUNT
};

struct spool_db {
    sqlite3 *sqlite; /* NULL: closed */
    sqlite3_stmt *statements[SPOOL_STATEMENT_COUNT];
    int patience_ms;                  /* how long a lock of somebody else's is waited for */
    int64_t busy_since_us;            /* since when the one is, that was met last */
    char failure[SPOOL_FAILURE_SIZE]; /* why the last call that failed did: SQLite's words, never a payload */
};

/* Rows of a fetch. */
struct spool_batch {
    struct buffer entries;  /* of struct spool_entry */
    struct buffer payloads; /* what they point to */
    size_t count;
    bool end;
};

enum spool_db_check {
    SPOOL_CHECK_NONE,   /* promptctl's way: beside a daemon that has checked the file, and may be of another version */
    SPOOL_CHECK_STATES, /* the tables that say what is waiting and dead */
    SPOOL_CHECK_ALL
};

/* Opens an existing database and checks it. One of promptd 0.1 is converted, but for SPOOL_CHECK_NONE, which refuses
 * it. Closed again unless SPOOL_DB_OK. */
enum spool_db_result spool_db_open(struct spool_db *db, const char *path, enum spool_db_check check);
void spool_db_close(struct spool_db *db);

/* What an SQLite code means. A failing call keeps its reason in db->failure. */
enum spool_db_result spool_db_classify(struct spool_db *db, int sqlite_code);

/* Makes the tables in an empty database. */
enum spool_db_result spool_db_create_tables(struct spool_db *db);
enum spool_db_result spool_db_prepare(struct spool_db *db);
enum spool_db_result spool_db_execute(struct spool_db *db, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The next sequence given will be above it. */
enum spool_db_result spool_db_raise_sequence(struct spool_db *db, int64_t last_sequence);

/* One transaction at a time. A commit that fails is rolled back. Rolling back without a transaction is fine. */
enum spool_db_result spool_db_begin(struct spool_db *db, bool write);
enum spool_db_result spool_db_commit(struct spool_db *db);
void spool_db_rollback(struct spool_db *db);

/* A write that changes nothing, to learn whether the disk takes one. */
enum spool_db_result spool_db_probe(struct spool_db *db);

/* Gives up to `pages` free pages back to the file system, when most of the file is free. */
enum spool_db_result spool_db_shrink(struct spool_db *db, int pages);

/* ---- rows (spool_rows.c), within a transaction ---- */

enum spool_db_result spool_db_put(struct spool_db *db, const char *payload, size_t length, int64_t arrived_ms,
                                  int64_t *sequence);

/* The payload of a message that has its row already; the sum is made here. */
enum spool_db_result spool_db_add_payload(struct spool_db *db, int64_t sequence, int64_t arrived_ms,
                                          const char *payload, size_t length);

/* `found`: the row was there; it held `size` bytes of payload. */
enum spool_db_result spool_db_finish(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size);
enum spool_db_result spool_db_drop_dead(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size);

/* A message that waits becomes a dead letter. `size` as it is known from there. */
enum spool_db_result spool_db_set_dead(struct spool_db *db, int64_t sequence, const struct disposition *disposition,
                                       bool *found, uint64_t *size);

/* A dead letter waits again, behind all the others. One without a message stays, as if it were not found. */
enum spool_db_result spool_db_replay(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size);

/* The first dead letter behind `after`; 0: none. */
enum spool_db_result spool_db_next_dead(struct spool_db *db, int64_t after, int64_t *sequence);

/* Drops the oldest rejected dead letter. */
enum spool_db_result spool_db_drop_rejected(struct spool_db *db, bool *found, uint64_t *size);

enum spool_db_result spool_db_fetch(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                    struct spool_batch *batch);
struct spool_entry *spool_batch_entries(const struct spool_batch *batch);
void spool_batch_free(struct spool_batch *batch);

/* What a payload's row must carry, so that whatever is read back is what was written. */
int64_t spool_payload_sum(int64_t sequence, int64_t arrived_ms, const char *payload, size_t length);

/* The payload is borrowed until the statement READ_PAYLOAD is reset. DAMAGED when it is missing or fails its sum. */
enum spool_db_result spool_db_read_payload(struct spool_db *db, int64_t sequence, struct spool_entry *entry);

/* Counts as the last commit left them; what does not stand in the file stays untouched. */
enum spool_db_result spool_db_count(struct spool_db *db, struct spool_counts *counts);

/* The bytes of those that wait. */
enum spool_db_result spool_db_count_waiting(struct spool_db *db, uint64_t *bytes);

/* Messages behind *last_sequence, which is moved to the last of them. */
enum spool_db_result spool_db_count_new(struct spool_db *db, int64_t *last_sequence, uint64_t *added);

/* Changes when another process has committed something. */
enum spool_db_result spool_db_data_version(struct spool_db *db, int64_t *version);

#endif
