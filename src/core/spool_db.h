/* SPDX-License-Identifier: MIT */
/*
 * The spool's database: SQLite behind a few verbs. The only file besides its neighbours spool_recover.c and
 * dead_letters.c that knows SQLite.
 *
 *     payload(sequence, arrived_ms, sum, bytes)    what a message is; never changed; proves itself by its sum
 *     message(sequence, attempted, size)           a message that waits; small, so that marking and counting are cheap.
 *                                                  attempted: 0, or the run of the daemon that has it in memory
 *     dead(sequence, size, buried_ms, …)           a dead letter: what became of it
 *
 * Every payload has a row in either message or dead. Sequences come from message's AUTOINCREMENT and never go back.
 * A struct spool_db belongs to one thread at a time.
 */
#ifndef PROMPTD_SPOOL_DB_H
#define PROMPTD_SPOOL_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/spool.h"

enum {
    SPOOL_APPLICATION_ID = 0x50525350, /* "PRSP" */
    SPOOL_SCHEMA_VERSION = 1,
    SPOOL_PAGE_SIZE = 8192,                /* bytes; three messages of 2 KB: measured, 4096 wastes half */
    SPOOL_PAYLOAD_MAX = 512 * 1024 * 1024, /* bytes; SQLite's own limit is near 1e9 */
    SPOOL_BUSY_TIMEOUT_MS = 5000,          /* promptctl's transactions are far shorter */
    SPOOL_FAILURE_SIZE = 200
};

/* No honest sequence comes near it; beyond it SQLite would run out of them. */
#define SPOOL_SEQUENCE_MAX (INT64_C(1) << 60)

enum spool_db_result {
    SPOOL_DB_OK,
    SPOOL_DB_REFUSED, /* disk full, no permission, locked, no memory: the same may work later */
    SPOOL_DB_DAMAGED, /* what is in the file is not what was written */
    SPOOL_DB_FOREIGN  /* a sound database of another program */
};

#define SPOOL_STATEMENT_MAP(X)                                                                                         \
    X(BEGIN, "begin immediate")                                                                                        \
    X(COMMIT, "commit")                                                                                                \
    X(ADD_MESSAGE, "insert into message(attempted, size) values(?1, ?2)")                                              \
    X(ADD_PAYLOAD, "insert into payload(sequence, arrived_ms, sum, bytes) values(?1, ?2, ?3, ?4)")                     \
    X(DROP_MESSAGE, "delete from message where sequence = ?1 returning size")                                          \
    X(DROP_PAYLOAD, "delete from payload where sequence = ?1")                                                         \
    X(ADD_DEAD, "insert into dead(sequence, size, buried_ms, outcome, reason, sqlstate, error, interview_id,"          \
                " prompt_id) values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")                                              \
    X(NEXT_MESSAGES, "select sequence, attempted, size from message where sequence > ?1 and attempted <> ?2"           \
                     " order by sequence")                                                                             \
    X(READ_PAYLOAD, "select arrived_ms, sum, bytes from payload where sequence = ?1")                                  \
    X(MARK, "update message set attempted = ?3 where sequence between ?1 and ?2 and attempted <> ?3")                  \
    X(OPEN_ORPHANS, "select interview_id, prompt_id, buried_ms from dead where outcome = 'orphaned'"                   \
                    " and length(interview_id) = 16 and length(prompt_id) = 16 order by sequence limit ?1")            \
    X(RESOLVE_ORPHAN, "update dead set outcome = 'orphan resolved' where outcome = 'orphaned' and prompt_id = ?1")     \
    X(COUNT_NEW, "select count(*), max(sequence) from message where sequence > ?1")                                    \
    X(LAST_SEQUENCE, "select seq from sqlite_sequence where name = 'message'")                                         \
    X(COUNT_MESSAGES, "select count(*), total(size) from message")                                                     \
    X(COUNT_DEAD, "select count(*), total(size) from dead")                                                            \
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
    int64_t run;                      /* set by who opens it to fetch; not 0 */
    char failure[SPOOL_FAILURE_SIZE]; /* why the last call that failed did: SQLite's words, never a payload */
};

/* Rows of a fetch; the payloads stand in `arena`. */
struct spool_batch {
    struct spool_entry *entries;
    size_t count;
    char *arena;
    bool end;
};

enum spool_db_check {
    SPOOL_CHECK_NONE,   /* promptctl's way: beside a daemon that has judged the file */
    SPOOL_CHECK_STATES, /* the tables that say what is waiting and dead */
    SPOOL_CHECK_ALL
};

/* Opens an existing database and judges it. Closed again unless SPOOL_DB_OK. */
enum spool_db_result spool_db_open(struct spool_db *db, const char *path, enum spool_db_check check);
void spool_db_close(struct spool_db *db);

/* A failing call keeps its reason in db->failure. */
enum spool_db_result spool_db_judge(struct spool_db *db, int sqlite_code);

/* Makes tables and marks in an empty database. The first sequence given will be `last_sequence` + 1. */
enum spool_db_result spool_db_create_tables(struct spool_db *db);
enum spool_db_result spool_db_set_last_sequence(struct spool_db *db, int64_t last_sequence);
enum spool_db_result spool_db_prepare(struct spool_db *db);
enum spool_db_result spool_db_execute(struct spool_db *db, const char *sql);

/* One write transaction at a time. A commit that fails is rolled back. Rolling back without a transaction is fine. */
enum spool_db_result spool_db_begin(struct spool_db *db);
enum spool_db_result spool_db_commit(struct spool_db *db);
void spool_db_rollback(struct spool_db *db);

/* Within a transaction. `found`: the row was there; it held `size` bytes of payload. */
enum spool_db_result spool_db_put(struct spool_db *db, const char *payload, size_t length, int64_t arrived_ms,
                                  bool attempted, int64_t *sequence);
enum spool_db_result spool_db_finish(struct spool_db *db, int64_t sequence, bool *found, uint64_t *size);
enum spool_db_result spool_db_bury(struct spool_db *db, int64_t sequence, const struct spool_epitaph *epitaph,
                                   bool *found, uint64_t *size);
/* The dead letter says that its prompt is not left behind any more. */
enum spool_db_result spool_db_resolve(struct spool_db *db, const uint8_t prompt_id[UUID_SIZE]);
/* Up to `max` orphans that are not resolved, oldest first; needs no transaction. */
enum spool_db_result spool_db_open_orphans(struct spool_db *db, size_t max, spool_orphan_told told, void *context);
enum spool_db_result spool_db_fetch(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                    struct spool_batch *batch);
/* The same without the marks, for a disk that takes none. Needs no transaction. */
enum spool_db_result spool_db_read(struct spool_db *db, int64_t after, size_t max_messages, size_t max_bytes,
                                   struct spool_batch *batch);
void spool_batch_free(struct spool_batch *batch);

/* The payload of a message that has its row already; the sum is made here. */
enum spool_db_result spool_db_add_payload(struct spool_db *db, int64_t sequence, int64_t arrived_ms,
                                          const char *payload, size_t length);

/* What a payload's row must carry, so that whatever is read back is what was written. */
int64_t spool_payload_sum(int64_t sequence, int64_t arrived_ms, const char *payload, size_t length);

/* The payload is borrowed until the statement READ_PAYLOAD is reset. DAMAGED when it is missing or fails its sum. */
enum spool_db_result spool_db_read_payload(struct spool_db *db, int64_t sequence, struct spool_entry *entry);

/* Counts as the last commit left them; `writable` stays untouched. */
enum spool_db_result spool_db_count(struct spool_db *db, struct spool_counts *counts);
enum spool_db_result spool_db_last_sequence(struct spool_db *db, int64_t *last_sequence);

/* Messages behind *last_sequence, which is moved to the last of them. */
enum spool_db_result spool_db_count_new(struct spool_db *db, int64_t *last_sequence, uint64_t *added);

/* Changes when another process has committed something. */
enum spool_db_result spool_db_data_version(struct spool_db *db, int64_t *version);

/* A write that changes nothing, to learn whether the disk takes one. */
enum spool_db_result spool_db_probe(struct spool_db *db);

/* Gives up to `pages` free pages back to the file system, when most of the file is free. */
enum spool_db_result spool_db_shrink(struct spool_db *db, int pages);

#endif
