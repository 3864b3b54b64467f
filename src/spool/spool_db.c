/* SPDX-License-Identifier: MIT */
/* Opening, checking and closing the spool's database; transactions; what an SQLite code means. */
#include "spool_db.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"

enum {
    SPOOL_CHECK_LIMIT_US = 30000000, /* a sound file of the sizes that are checked takes a fraction of it */
    SPOOL_PROGRESS_STEPS = 100000,   /* SQLite's instructions between two looks at the clock */
    SPOOL_FREE_PAGES_KEPT = 2048     /* for the next messages; 8 MiB */
};

/* promptd 0.1 takes a file with another application_id for a foreign one, and sets it aside unread and unharmed; what
 * comes later goes by the version. */
enum {
    SPOOL_APPLICATION_ID = 0x50525332,    /* "PRS2" */
    SPOOL_APPLICATION_ID_V1 = 0x50525350, /* "PRSP" */
    SPOOL_VERSION = 2
};

static const char *const schema_sql[] = {
    "CREATE TABLE payload(sequence INTEGER PRIMARY KEY, arrived_ms INTEGER NOT NULL, sum INTEGER NOT NULL,"
    " bytes BLOB NOT NULL)",
    "CREATE TABLE waiting(sequence INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL)",
    "CREATE TABLE dead_letter(sequence INTEGER PRIMARY KEY, size INTEGER NOT NULL, died_ms INTEGER NOT NULL,"
    " outcome TEXT NOT NULL, reason TEXT, sqlstate TEXT, error TEXT, interview_id BLOB, prompt_id BLOB)",
    "CREATE INDEX rejected ON dead_letter(sequence) WHERE outcome = 'rejected'",
};
enum { SCHEMA_OBJECTS = sizeof schema_sql / sizeof schema_sql[0] };

/* Version 1 had message(sequence, attempted, size), dead(…, buried_ms, …) and the same payload. */
static const char convert_sql[] =
    "insert into waiting(sequence, size) select sequence, size from message;"
    "insert into dead_letter select sequence, size, buried_ms, outcome, reason, sqlstate, error, interview_id,"
    " prompt_id from dead;"
    "delete from sqlite_sequence where name = 'waiting';"
    "update sqlite_sequence set name = 'waiting' where name = 'message';"
    "drop table message;"
    "drop table dead";

static const char *const statement_sql[] = {
#define X(name, sql) [SPOOL_STATEMENT_##name] = (sql),
    SPOOL_STATEMENT_MAP(X)
#undef X
};

/* synchronous=FULL: a commit is on disk when it returns. secure_delete: a prompt that is gone leaves no trace, and
 * repair meets no ghost. temp_store: nothing of a message is ever in a file outside the folder. wal_autocheckpoint:
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

enum spool_db_result spool_db_classify(struct spool_db *db, int sqlite_code)
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

static enum spool_db_result fail(struct spool_db *db, enum spool_db_result result, const char *why)
{
    (void)snprintf(db->failure, sizeof db->failure, "%s", why);
    return result;
}

enum spool_db_result spool_db_execute(struct spool_db *db, const char *format, ...)
{
    char sql[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    assert(length > 0 && (size_t)length < sizeof sql);
    (void)length; /* without assertions */
    return spool_db_classify(db, sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL));
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
    enum spool_db_result result = spool_db_classify(db, code);
    sqlite3_finalize(statement); /* repeats the code of the step */
    return result;
}

/* The tables as we made them, and nothing that acts by itself. More tables or indexes are a person's business. */
static enum spool_db_result compare_schema(struct spool_db *db, bool *same)
{
    sqlite3_stmt *statement = NULL;
    static const char sql[] = "select count(*) filter (where sql in (?1, ?2, ?3, ?4)),"
                              " count(*) filter (where type = 'trigger') from sqlite_schema";
    int code = sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL);
    for (int i = 0; i < SCHEMA_OBJECTS && code == SQLITE_OK; i++)
        code = sqlite3_bind_text(statement, i + 1, schema_sql[i], -1, SQLITE_STATIC);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    *same = code == SQLITE_ROW && sqlite3_column_int(statement, 0) == SCHEMA_OBJECTS &&
            sqlite3_column_int(statement, 1) == 0;
    enum spool_db_result result = spool_db_classify(db, code);
    sqlite3_finalize(statement);
    return result;
}

/* In one transaction: killed in the middle of it, the file is what it was. */
static enum spool_db_result convert(struct spool_db *db)
{
    enum spool_db_result result = spool_db_execute(db, "begin immediate");
    for (int i = 1; i < SCHEMA_OBJECTS && result == SPOOL_DB_OK; i++) /* all but the payloads' table */
        result = spool_db_execute(db, "%s", schema_sql[i]);
    if (result == SPOOL_DB_OK)
        result = spool_db_execute(db, "%s", convert_sql);
    if (result == SPOOL_DB_OK)
        result = spool_db_execute(db, "pragma application_id = %d; pragma user_version = %d; commit",
                                  SPOOL_APPLICATION_ID, SPOOL_VERSION);
    if (result == SPOOL_DB_OK)
        log_info(NULL, "the spool of promptd 0.1 was converted; promptd 0.1 does not read it any more");
    return result; /* closing rolls back what was not committed */
}

/* What kind of file it is; one of version 1 is converted, if `may_convert`. */
static enum spool_db_result check_identity(struct spool_db *db, bool may_convert)
{
    int64_t application = 0;
    int64_t version = 0;
    bool same = false;
    enum spool_db_result result = query_number(db, "pragma application_id", 0, &application);
    if (result == SPOOL_DB_OK)
        result = query_number(db, "pragma user_version", 0, &version);
    if (result == SPOOL_DB_OK && application == SPOOL_APPLICATION_ID_V1 && version == 1) {
        if (!may_convert)
            return fail(db, SPOOL_DB_REFUSED, "it is of promptd 0.1; promptd converts it when it starts");
        result = convert(db);
        application = SPOOL_APPLICATION_ID;
        version = SPOOL_VERSION;
    }
    if (result == SPOOL_DB_OK && application == SPOOL_APPLICATION_ID && version > SPOOL_VERSION)
        return fail(db, SPOOL_DB_REFUSED, "it is of a later promptd, which alone can read it");
    if (result == SPOOL_DB_OK)
        result = compare_schema(db, &same);
    if (result != SPOOL_DB_OK)
        return result;
    if (application != SPOOL_APPLICATION_ID && !same) {
        (void)snprintf(db->failure, sizeof db->failure, "it is a database of another program (application_id 0x%08x)",
                       (unsigned)application);
        return SPOOL_DB_FOREIGN;
    }
    if (application != SPOOL_APPLICATION_ID || version != SPOOL_VERSION || !same)
        return fail(db, SPOOL_DB_DAMAGED, "its schema is not as it was made");
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
    enum spool_db_result result = spool_db_classify(db, code);
    const unsigned char *verdict = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
    if (code == SQLITE_INTERRUPT)
        result = fail(db, SPOOL_DB_DAMAGED, "its check does not end");
    else if (result == SPOOL_DB_OK && !verdict)
        result = fail(db, SPOOL_DB_DAMAGED, "its check says nothing");
    else if (result == SPOOL_DB_OK && strcmp((const char *)verdict, "ok") != 0)
        result = fail(db, SPOOL_DB_DAMAGED, "its pages contradict each other");
    sqlite3_finalize(statement);
    return result;
}

/* A header may claim that the file is for readers only; the folder has shown that it is not. */
static enum spool_db_result check_writable(struct spool_db *db)
{
    int code = sqlite3_exec(db->sqlite, "begin immediate; rollback", NULL, NULL, NULL);
    return code == SQLITE_READONLY ? fail(db, SPOOL_DB_DAMAGED, "its header forbids writing")
                                   : spool_db_classify(db, code);
}

/* Each answers 'ok', or is SQLite's word for what is wrong. Sizes are what the bounds are kept with: a wrong one would
 * fill the spool for ever. */
static const char *const state_checks[] = {
    "pragma quick_check(waiting)",
    "pragma quick_check(dead_letter)",
    "select case when exists(select 1 from waiting where sequence < 1 or typeof(size) <> 'integer'"
    " or size not between 0 and 536870912) then 'waiting' else 'ok' end",
    "select case when exists(select 1 from dead_letter where sequence < 1 or typeof(size) <> 'integer'"
    " or size not between 0 and 536870912) then 'dead_letter' else 'ok' end",
    "select case when (select seq from sqlite_sequence where name = 'waiting') between 0 and 1152921504606846976"
    " then 'ok' else 'sequence' end",
    NULL,
};
static_assert(SPOOL_PAYLOAD_MAX == 536870912 && SPOOL_SEQUENCE_MAX == 1152921504606846976, "as in the checks above");

static const char *const all_checks[] = {
    "pragma quick_check(1)",
    "select case when exists(select 1 from waiting left join payload using(sequence) where size is not length(bytes))"
    " then 'waiting' else 'ok' end",
    "select case when exists(select 1 from dead_letter left join payload using(sequence)"
    " where size is not length(bytes)) then 'dead_letter' else 'ok' end",
    NULL,
};

static enum spool_db_result check_pages(struct spool_db *db, enum spool_db_check check)
{
    enum spool_db_result result = check_writable(db);
    for (const char *const *sql = state_checks; *sql && result == SPOOL_DB_OK; sql++)
        result = run_check(db, *sql);
    for (const char *const *sql = all_checks; *sql && check == SPOOL_CHECK_ALL && result == SPOOL_DB_OK; sql++)
        result = run_check(db, *sql);
    return result;
}

static enum spool_db_result use_wal(struct spool_db *db)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db->sqlite, "pragma journal_mode = wal", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    const unsigned char *mode = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
    enum spool_db_result result = spool_db_classify(db, code);
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
            return spool_db_classify(db, code);
    }
    return SPOOL_DB_OK;
}

/* SQLite's own would sleep up to 100 ms between two looks, and miss the short time between the transactions of somebody
 * who makes one after the other. */
static int on_busy(void *context, int looks)
{
    struct spool_db *db = context;
    int64_t now_us = clock_monotonic_us();
    if (looks == 0)
        db->busy_since_us = now_us;
    if (now_us - db->busy_since_us >= (int64_t)db->patience_ms * 1000)
        return 0;
    clock_sleep_ms(1);
    return 1;
}

static enum spool_db_result open_and_check(struct spool_db *db, const char *path, enum spool_db_check check)
{
    int code = sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK)
        return spool_db_classify(db, code);
    (void)sqlite3_extended_result_codes(db->sqlite, 1);
    db->patience_ms = SPOOL_BUSY_TIMEOUT_MS;
    (void)sqlite3_busy_handler(db->sqlite, on_busy, db);
    enum spool_db_result result = spool_db_execute(db, "%s", connection_sql);
    if (result == SPOOL_DB_OK)
        result = check_identity(db, check != SPOOL_CHECK_NONE);
    if (result == SPOOL_DB_OK && sqlite3_db_readonly(db->sqlite, "main") != 0)
        result = spool_db_classify(db, SQLITE_READONLY);
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
    enum spool_db_result result = open_and_check(db, path, check);
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
    enum spool_db_result result = spool_db_execute(
        db,
        "pragma page_size = %d; pragma auto_vacuum = incremental; pragma application_id = %d; pragma user_version = %d",
        SPOOL_PAGE_SIZE, SPOOL_APPLICATION_ID, SPOOL_VERSION);
    for (int i = 0; i < SCHEMA_OBJECTS && result == SPOOL_DB_OK; i++)
        result = spool_db_execute(db, "%s", schema_sql[i]);
    return result == SPOOL_DB_OK ? spool_db_execute(db, "insert into sqlite_sequence(name, seq) values('waiting', 0)")
                                 : result;
}

enum spool_db_result spool_db_raise_sequence(struct spool_db *db, int64_t last_sequence)
{
    return spool_db_execute(db, "update sqlite_sequence set seq = %lld where name = 'waiting' and seq < %lld",
                            (long long)last_sequence, (long long)last_sequence);
}

static enum spool_db_result run(struct spool_db *db, enum spool_statement which)
{
    (void)sqlite3_step(db->statements[which]);
    return spool_db_classify(db, sqlite3_reset(db->statements[which]));
}

enum spool_db_result spool_db_begin(struct spool_db *db, bool write)
{
    return run(db, write ? SPOOL_STATEMENT_BEGIN_WRITE : SPOOL_STATEMENT_BEGIN_READ);
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
    return spool_db_execute(db, "pragma application_id = %d", SPOOL_APPLICATION_ID);
}

enum spool_db_result spool_db_shrink(struct spool_db *db, int pages)
{
    sqlite3_stmt *statement = db->statements[SPOOL_STATEMENT_FREE_PAGES];
    int free_pages = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int(statement, 0) : 0;
    enum spool_db_result result = spool_db_classify(db, sqlite3_reset(statement));
    int surplus = free_pages - SPOOL_FREE_PAGES_KEPT;
    if (result != SPOOL_DB_OK || surplus <= 0)
        return result;
    /* Until a checkpoint the file keeps its length, and without new messages none would come. */
    return spool_db_execute(db, "pragma incremental_vacuum(%d); pragma wal_checkpoint(passive)",
                            surplus < pages ? surplus : pages);
}
