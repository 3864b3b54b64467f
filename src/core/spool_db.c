/* SPDX-License-Identifier: MIT */
/* Opening, judging and closing the spool's database; transactions; what an SQLite code means. */
#include "spool_db.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"

enum {
    SPOOL_CHECK_LIMIT_US = 30000000, /* a sound file of the sizes that are checked takes a fraction of it */
    SPOOL_PROGRESS_STEPS = 100000,   /* SQLite's instructions between two looks at the clock */
    SPOOL_FREE_PAGES_KEPT = 2048     /* for the next messages; 8 MiB */
};

static const char *const table_sql[] = {
    "CREATE TABLE message(sequence INTEGER PRIMARY KEY AUTOINCREMENT, attempted INTEGER NOT NULL,"
    " size INTEGER NOT NULL)",
    "CREATE TABLE payload(sequence INTEGER PRIMARY KEY, arrived_ms INTEGER NOT NULL, sum INTEGER NOT NULL,"
    " bytes BLOB NOT NULL)",
    "CREATE TABLE dead(sequence INTEGER PRIMARY KEY, size INTEGER NOT NULL, buried_ms INTEGER NOT NULL,"
    " outcome TEXT NOT NULL, reason TEXT, sqlstate TEXT, error TEXT, interview_id BLOB, prompt_id BLOB)",
};
enum { TABLES = sizeof table_sql / sizeof table_sql[0] };

static const char *const statement_sql[] = {
#define X(name, sql) [SPOOL_STATEMENT_##name] = (sql),
    SPOOL_STATEMENT_MAP(X)
#undef X
};

/* synchronous=FULL: a commit is on disk when it returns. secure_delete: a prompt that is gone leaves no trace, and
 * salvage meets no ghost. temp_store: nothing of a message is ever in a file outside the folder. wal_autocheckpoint:
 * the index of the log is to stay within its first page, for 4,062 frames. A second one may find the disk full, and
 * then a commit fails whose frames are all in the log already: after a crash it would count. */
static const char connection_sql[] = "pragma trusted_schema = off;"
                                     "pragma cell_size_check = on;"
                                     "pragma secure_delete = on;"
                                     "pragma temp_store = memory;"
                                     "pragma cache_size = -8192;"
                                     "pragma synchronous = full;"
                                     "pragma wal_autocheckpoint = 2000;"
                                     "pragma journal_size_limit = 16777216;";

static enum spool_db_result classify(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return SPOOL_DB_OK;
    case SQLITE_IOERR:
        /* A place that cannot be read will not be readable later. */
        return code == SQLITE_IOERR_READ || code == SQLITE_IOERR_SHORT_READ || code == SQLITE_IOERR_CORRUPTFS
                   ? SPOOL_DB_DAMAGED
                   : SPOOL_DB_REFUSED;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* our statements are right: a table is not as we made it */
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
    case SQLITE_FORMAT:
        return SPOOL_DB_DAMAGED;
    default:
        return SPOOL_DB_REFUSED;
    }
}

enum spool_db_result spool_db_judge(struct spool_db *db, int sqlite_code)
{
    enum spool_db_result result = classify(sqlite_code);
    if (result == SPOOL_DB_OK)
        return result;
    int system_errno = db->sqlite ? sqlite3_system_errno(db->sqlite) : 0;
    bool system_knows = (sqlite_code & 0xff) == SQLITE_IOERR || (sqlite_code & 0xff) == SQLITE_CANTOPEN;
    if (system_knows && system_errno != 0)
        (void)snprintf(db->failure, sizeof db->failure, "%s: %s", sqlite3_errstr(sqlite_code), strerror(system_errno));
    else
        (void)snprintf(db->failure, sizeof db->failure, "%s", sqlite3_errstr(sqlite_code));
    return result;
}

static enum spool_db_result damaged(struct spool_db *db, const char *why)
{
    (void)snprintf(db->failure, sizeof db->failure, "%s", why);
    return SPOOL_DB_DAMAGED;
}

enum spool_db_result spool_db_execute(struct spool_db *db, const char *sql)
{
    return spool_db_judge(db, sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL));
}

/* The first column of the first row, as a number; `missing` where there is no row. */
static enum spool_db_result query_number(struct spool_db *db, const char *sql, int64_t missing, int64_t *number)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL);
    *number = missing;
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        *number = sqlite3_column_int64(statement, 0);
    enum spool_db_result result = spool_db_judge(db, code);
    sqlite3_finalize(statement); /* repeats the code of the step */
    return result;
}

/* The tables as we made them, and nothing that acts by itself. More tables or indexes are a person's business. */
static enum spool_db_result compare_schema(struct spool_db *db, bool *same)
{
    sqlite3_stmt *statement = NULL;
    static const char sql[] = "select count(*) filter (where type = 'table' and sql in (?1, ?2, ?3)),"
                              " count(*) filter (where type = 'trigger') from sqlite_schema";
    int code = sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL);
    for (int i = 0; i < TABLES && code == SQLITE_OK; i++)
        code = sqlite3_bind_text(statement, i + 1, table_sql[i], -1, SQLITE_STATIC);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    *same = code == SQLITE_ROW && sqlite3_column_int(statement, 0) == TABLES && sqlite3_column_int(statement, 1) == 0;
    enum spool_db_result result = spool_db_judge(db, code);
    sqlite3_finalize(statement);
    return result;
}

static enum spool_db_result check_identity(struct spool_db *db)
{
    int64_t application = 0;
    int64_t version = 0;
    bool same = false;
    enum spool_db_result result = query_number(db, "pragma application_id", 0, &application);
    if (result == SPOOL_DB_OK)
        result = query_number(db, "pragma user_version", 0, &version);
    if (result == SPOOL_DB_OK)
        result = compare_schema(db, &same);
    if (result != SPOOL_DB_OK)
        return result;
    if (application != SPOOL_APPLICATION_ID && !same) {
        (void)snprintf(db->failure, sizeof db->failure, "it is a database of another program (application_id 0x%08x)",
                       (unsigned)application);
        return SPOOL_DB_FOREIGN;
    }
    if (application != SPOOL_APPLICATION_ID || !same)
        return damaged(db, "its schema is not as it was made");
    if (version != SPOOL_SCHEMA_VERSION) {
        (void)snprintf(db->failure, sizeof db->failure, "its version is %lld, and this promptd knows %d",
                       (long long)version, SPOOL_SCHEMA_VERSION);
        return SPOOL_DB_DAMAGED;
    }
    return SPOOL_DB_OK;
}

static int past_deadline(void *context)
{
    const int64_t *deadline_us = context;
    return clock_monotonic_us() > *deadline_us;
}

static enum spool_db_result run_check(struct spool_db *db, const char *sql)
{
    int64_t deadline_us = clock_monotonic_us() + SPOOL_CHECK_LIMIT_US;
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL);
    sqlite3_progress_handler(db->sqlite, SPOOL_PROGRESS_STEPS, past_deadline, &deadline_us);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    sqlite3_progress_handler(db->sqlite, 0, NULL, NULL);
    enum spool_db_result result = spool_db_judge(db, code);
    const unsigned char *verdict = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
    if (code == SQLITE_INTERRUPT)
        result = damaged(db, "its check does not end");
    else if (result == SPOOL_DB_OK && !verdict)
        result = damaged(db, "its check says nothing");
    else if (result == SPOOL_DB_OK && strcmp((const char *)verdict, "ok") != 0)
        result = damaged(db, "its pages contradict each other");
    sqlite3_finalize(statement);
    return result;
}

/* A header may claim that the file is for readers only; the folder has shown that it is not. */
static enum spool_db_result check_writable(struct spool_db *db)
{
    int code = sqlite3_exec(db->sqlite, "begin immediate; rollback", NULL, NULL, NULL);
    return code == SQLITE_READONLY ? damaged(db, "its header forbids writing") : spool_db_judge(db, code);
}

/* Each answers 'ok', or is SQLite's word for what is wrong. Sizes are what the bound is kept with: a wrong one would
 * fill the spool for ever. */
static const char *const state_checks[] = {
    "pragma quick_check(message)",
    "pragma quick_check(dead)",
    "select case when exists(select 1 from message where sequence < 1 or typeof(size) <> 'integer'"
    " or size not between 0 and 536870912) then 'message' else 'ok' end",
    "select case when exists(select 1 from dead where sequence < 1 or typeof(size) <> 'integer'"
    " or size not between 0 and 536870912) then 'dead' else 'ok' end",
    NULL,
};
static_assert(SPOOL_PAYLOAD_MAX == 536870912, "the checks above know this number");

static const char *const all_checks[] = {
    "pragma quick_check(1)",
    "select case when exists(select 1 from message left join payload using(sequence) where size is not length(bytes))"
    " then 'message' else 'ok' end",
    "select case when exists(select 1 from dead left join payload using(sequence) where size is not length(bytes))"
    " then 'dead' else 'ok' end",
    NULL,
};

static enum spool_db_result check_pages(struct spool_db *db, enum spool_db_check check)
{
    int64_t last_sequence = 0;
    enum spool_db_result result = check_writable(db);
    for (const char *const *sql = state_checks; *sql && result == SPOOL_DB_OK; sql++)
        result = run_check(db, *sql);
    for (const char *const *sql = all_checks; *sql && check == SPOOL_CHECK_ALL && result == SPOOL_DB_OK; sql++)
        result = run_check(db, *sql);
    return result == SPOOL_DB_OK ? spool_db_last_sequence(db, &last_sequence) : result;
}

static enum spool_db_result use_wal(struct spool_db *db)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db->sqlite, "pragma journal_mode = wal", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    const unsigned char *mode = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
    enum spool_db_result result = spool_db_judge(db, code);
    if (result == SPOOL_DB_OK && (!mode || strcmp((const char *)mode, "wal") != 0)) {
        (void)snprintf(db->failure, sizeof db->failure, "write-ahead logging is not possible on this file system");
        result = SPOOL_DB_REFUSED;
    }
    sqlite3_finalize(statement);
    return result;
}

enum spool_db_result spool_db_prepare(struct spool_db *db)
{
    for (int i = 0; i < SPOOL_STATEMENT_COUNT; i++) {
        int code = sqlite3_prepare_v3(db->sqlite, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &db->statements[i],
                                      NULL);
        if (code != SQLITE_OK)
            return spool_db_judge(db, code);
    }
    return SPOOL_DB_OK;
}

static enum spool_db_result open_and_judge(struct spool_db *db, const char *path, enum spool_db_check check)
{
    int code = sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK)
        return spool_db_judge(db, code);
    (void)sqlite3_extended_result_codes(db->sqlite, 1);
    (void)sqlite3_busy_timeout(db->sqlite, SPOOL_BUSY_TIMEOUT_MS);
    enum spool_db_result result = spool_db_execute(db, connection_sql);
    if (result == SPOOL_DB_OK)
        result = check_identity(db);
    if (result == SPOOL_DB_OK && sqlite3_db_readonly(db->sqlite, "main") != 0)
        result = spool_db_judge(db, SQLITE_READONLY);
    if (result == SPOOL_DB_OK)
        result = use_wal(db);
    if (result == SPOOL_DB_OK)
        result = spool_db_prepare(db);
    if (result == SPOOL_DB_OK && check != SPOOL_CHECK_NONE)
        result = check_pages(db, check);
    return result;
}

enum spool_db_result spool_db_open(struct spool_db *db, const char *path, enum spool_db_check check)
{
    *db = (struct spool_db){0};
    enum spool_db_result result = open_and_judge(db, path, check);
    if (result != SPOOL_DB_OK)
        spool_db_close(db);
    return result;
}

void spool_db_close(struct spool_db *db)
{
    for (int i = 0; i < SPOOL_STATEMENT_COUNT; i++) {
        sqlite3_finalize(db->statements[i]);
        db->statements[i] = NULL;
    }
    /* Cannot be busy: there are no other statements. What its last checkpoint could not do, the next open does. */
    (void)sqlite3_close(db->sqlite);
    db->sqlite = NULL;
}

enum spool_db_result spool_db_create_tables(struct spool_db *db)
{
    char pragmas[160];
    (void)snprintf(pragmas, sizeof pragmas,
                   "pragma page_size = %d; pragma auto_vacuum = incremental; pragma application_id = %d;"
                   "pragma user_version = %d",
                   SPOOL_PAGE_SIZE, SPOOL_APPLICATION_ID, SPOOL_SCHEMA_VERSION);
    enum spool_db_result result = spool_db_execute(db, pragmas);
    for (int i = 0; i < TABLES && result == SPOOL_DB_OK; i++)
        result = spool_db_execute(db, table_sql[i]);
    return result;
}

enum spool_db_result spool_db_set_last_sequence(struct spool_db *db, int64_t last_sequence)
{
    char sql[160];
    (void)snprintf(sql, sizeof sql,
                   "delete from sqlite_sequence where name = 'message';"
                   "insert into sqlite_sequence(name, seq) values('message', %lld)",
                   (long long)last_sequence);
    return spool_db_execute(db, sql);
}

static enum spool_db_result run(struct spool_db *db, enum spool_statement which)
{
    (void)sqlite3_step(db->statements[which]);
    return spool_db_judge(db, sqlite3_reset(db->statements[which]));
}

enum spool_db_result spool_db_begin(struct spool_db *db)
{
    return run(db, SPOOL_STATEMENT_BEGIN);
}

enum spool_db_result spool_db_commit(struct spool_db *db)
{
    enum spool_db_result result = run(db, SPOOL_STATEMENT_COMMIT);
    if (result != SPOOL_DB_OK)
        spool_db_rollback(db);
    return result;
}

void spool_db_rollback(struct spool_db *db)
{
    /* Statements that still hold a row would keep the transaction from ending. */
    for (int i = 0; i < SPOOL_STATEMENT_COUNT; i++) {
        if (db->statements[i])
            (void)sqlite3_reset(db->statements[i]);
    }
    if (sqlite3_get_autocommit(db->sqlite) == 0)
        (void)sqlite3_exec(db->sqlite, "rollback", NULL, NULL, NULL);
}

enum spool_db_result spool_db_probe(struct spool_db *db)
{
    char sql[48];
    (void)snprintf(sql, sizeof sql, "pragma application_id = %d", SPOOL_APPLICATION_ID);
    return spool_db_execute(db, sql);
}

enum spool_db_result spool_db_shrink(struct spool_db *db, int pages)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_FREE_PAGES];
    int free_pages = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int(statement, 0) : 0;
    enum spool_db_result result = spool_db_judge(db, sqlite3_reset(statement));
    int surplus = free_pages - SPOOL_FREE_PAGES_KEPT;
    if (result != SPOOL_DB_OK || surplus <= 0)
        return result;
    char sql[48];
    (void)snprintf(sql, sizeof sql, "pragma incremental_vacuum(%d)", surplus < pages ? surplus : pages);
    result = spool_db_execute(db, sql);
    /* Until a checkpoint the file keeps its length, and without new messages none would come. */
    return result == SPOOL_DB_OK ? spool_db_execute(db, "pragma wal_checkpoint(passive)") : result;
}
