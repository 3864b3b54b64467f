/* SPDX-License-Identifier: MIT */
/* The spool's dead letters, for people. Another process may own the spool: nothing here takes its lock. */
#include "promptd/dead_letters.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool_db.h"
#include "spool_folder.h"

enum {
    CHANGES_MAX_ROWS = 256,             /* in one transaction: the daemon waits for its end */
    CHANGES_MAX_BYTES = 4 * 1024 * 1024 /* of payloads; one that is larger goes alone */
};

/* The mark of a message whose prompt may stand in the table. The daemons' own marks are random and far larger. */
static const int64_t replayed_run = 1;

static const char read_sql[] = "select dead.sequence, dead.size, payload.arrived_ms, buried_ms, outcome, reason,"
                               " sqlstate, error, interview_id, prompt_id"
                               " from dead left join payload using(sequence)"
                               " where ?1 = 0 or dead.sequence = ?1 order by dead.sequence";
static const char outcome_sql[] = "select outcome, size from dead where sequence = ?1";
static const char drop_sql[] = "delete from dead where sequence = ?1";

enum letters_statement { LETTERS_OUTCOME, LETTERS_DROP, LETTERS_STATEMENTS };

struct dead_letters {
    struct spool_db db;
    char directory[PATH_MAX]; /* as the operator gave it */
    sqlite3_stmt *statements[LETTERS_STATEMENTS];
};

/* ---- opening ---- */

static bool no_access(const char *directory, uid_t owner, struct error *error)
{
    const struct passwd *account = getpwuid(owner);
    char name[64];
    if (account)
        (void)snprintf(name, sizeof name, "%s", account->pw_name);
    else
        (void)snprintf(name, sizeof name, "#%u", (unsigned)owner);
    return error_set(error, ERROR_SPOOL, "spool_dir %s belongs to user %s: run this as that user (sudo -u %s …)",
                     directory, name, name);
}

/* A file that someone else makes beside the database could not be opened by its owner. SQLite looks after that only for
 * root, whose files it gives to the owner. */
static bool check_owner(const char *directory, const struct stat *status, struct error *error)
{
    uid_t user = geteuid();
    return user == 0 || user == status->st_uid || no_access(directory, status->st_uid, error);
}

static bool check_folder(const char *directory, struct error *error)
{
    struct stat status;
    char path[PATH_MAX];
    if (stat(directory, &status) != 0)
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s", directory, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return error_set(error, ERROR_SPOOL, "spool_dir %s is not a folder", directory);
    if (!check_owner(directory, &status, error))
        return false;
    int length = snprintf(path, sizeof path, "%s/%s", directory, SPOOL_FILE);
    if (length < 0 || (size_t)length >= sizeof path)
        return error_set(error, ERROR_SPOOL, "spool_dir %.200s… is too long a path", directory);
    if (stat(path, &status) == 0)
        return check_owner(directory, &status, error);
    if (errno == ENOENT)
        return error_set(error, ERROR_SPOOL, "spool_dir %s holds no spool (no file %s): no promptd has used it yet",
                         directory, SPOOL_FILE);
    return error_set(error, ERROR_SPOOL, "spool_dir %s: %s: %s", directory, SPOOL_FILE, strerror(errno));
}

static bool database_error(const struct dead_letters *letters, enum spool_db_result result, struct error *error)
{
    const char *advice = result == SPOOL_DB_DAMAGED ? "; promptd takes over what can be read when it starts" : "";
    const char *what = result == SPOOL_DB_DAMAGED   ? "is damaged"
                       : result == SPOOL_DB_FOREIGN ? "is no spool"
                                                    : "cannot be used now";
    return error_set(error, ERROR_SPOOL, "spool_dir %s: %s %s: %s%s", letters->directory, SPOOL_FILE, what,
                     letters->db.failure, advice);
}

static enum spool_db_result open_database(struct dead_letters *letters)
{
    char path[PATH_MAX + sizeof SPOOL_FILE];
    static const char *const sql[LETTERS_STATEMENTS] = {
        [LETTERS_OUTCOME] = outcome_sql,
        [LETTERS_DROP] = drop_sql,
    };
    (void)snprintf(path, sizeof path, "%s/%s", letters->directory, SPOOL_FILE);
    enum spool_db_result result = spool_db_open(&letters->db, path, SPOOL_CHECK_NONE);
    letters->db.run = replayed_run;
    for (int i = 0; i < LETTERS_STATEMENTS && result == SPOOL_DB_OK; i++)
        result = spool_db_judge(&letters->db,
                                sqlite3_prepare_v2(letters->db.sqlite, sql[i], -1, &letters->statements[i], NULL));
    return result;
}

struct dead_letters *dead_letters_open(const char *directory, struct error *error)
{
    if (!check_folder(directory, error))
        return NULL;
    struct dead_letters *letters = calloc(1, sizeof *letters);
    if (!letters) {
        error_set(error, ERROR_INTERNAL, "memory is out");
        return NULL;
    }
    (void)snprintf(letters->directory, sizeof letters->directory, "%s", directory);
    enum spool_db_result result = open_database(letters);
    if (result == SPOOL_DB_OK)
        return letters;
    database_error(letters, result, error);
    dead_letters_close(letters);
    return NULL;
}

void dead_letters_close(struct dead_letters *letters)
{
    if (!letters)
        return;
    for (int i = 0; i < LETTERS_STATEMENTS; i++)
        sqlite3_finalize(letters->statements[i]);
    spool_db_close(&letters->db);
    free(letters);
}

/* ---- reading ---- */

static const char *text_column(sqlite3_stmt *statement, int column)
{
    return (const char *)sqlite3_column_text(statement, column);
}

static bool uuid_column(sqlite3_stmt *statement, int column, uint8_t uuid[UUID_SIZE])
{
    const void *bytes = sqlite3_column_blob(statement, column);
    if (!bytes || sqlite3_column_bytes(statement, column) != UUID_SIZE)
        return false;
    memcpy(uuid, bytes, UUID_SIZE);
    return true;
}

static void read_letter(sqlite3_stmt *statement, struct dead_letter *letter)
{
    *letter = (struct dead_letter){
        .id = sqlite3_column_int64(statement, 0),
        .size = sqlite3_column_int64(statement, 1),
        .arrived_ms = sqlite3_column_int64(statement, 2),
        .buried_ms = sqlite3_column_int64(statement, 3),
        .outcome = text_column(statement, 4),
        .reason = text_column(statement, 5),
        .sqlstate = text_column(statement, 6),
        .error = text_column(statement, 7),
    };
    letter->has_interview_id = uuid_column(statement, 8, letter->interview_id);
    letter->has_prompt_id = uuid_column(statement, 9, letter->prompt_id);
}

bool dead_letters_read(struct dead_letters *letters, int64_t id, dead_letters_take *take, void *context,
                       struct error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(letters->db.sqlite, read_sql, -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_bind_int64(statement, 1, id);
    bool go_on = code == SQLITE_OK;
    while (go_on && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct dead_letter letter;
        read_letter(statement, &letter);
        go_on = take(context, &letter);
    }
    enum spool_db_result result = spool_db_judge(&letters->db, code);
    sqlite3_finalize(statement); /* repeats the code of the step */
    return result == SPOOL_DB_OK || database_error(letters, result, error);
}

bool dead_letters_payload(struct dead_letters *letters, int64_t id, const char **bytes, size_t *length,
                          struct error *error)
{
    struct spool_entry entry;
    enum spool_db_result result = spool_db_read_payload(&letters->db, id, &entry);
    if (result != SPOOL_DB_OK)
        return database_error(letters, result, error);
    *bytes = entry.payload;
    *length = entry.length;
    return true;
}

/* ---- changing ---- */

static sqlite3_stmt *bound(struct dead_letters *letters, enum letters_statement which, int64_t id)
{
    (void)sqlite3_bind_int64(letters->statements[which], 1, id); /* cannot fail: it is ours, and not running */
    return letters->statements[which];
}

static enum spool_db_result remove_letter(struct dead_letters *letters, int64_t id)
{
    sqlite3_stmt *statement = bound(letters, LETTERS_DROP, id);
    (void)sqlite3_step(statement); /* reset gives the same code */
    enum spool_db_result result = spool_db_judge(&letters->db, sqlite3_reset(statement));
    sqlite3_stmt *payload = letters->db.statements[SPOOL_STATEMENT_DROP_PAYLOAD];
    if (result != SPOOL_DB_OK)
        return result;
    (void)sqlite3_bind_int64(payload, 1, id);
    (void)sqlite3_step(payload);
    return spool_db_judge(&letters->db, sqlite3_reset(payload));
}

/* Only an orphan's prompt is in the table by our own hand: marked as attempted, the message may take it away again. */
static enum spool_db_result put_again(struct dead_letters *letters, int64_t id, bool orphaned)
{
    struct spool_entry entry;
    int64_t sequence;
    enum spool_db_result result = spool_db_read_payload(&letters->db, id, &entry);
    if (result == SPOOL_DB_OK)
        result = spool_db_put(&letters->db, entry.payload, entry.length, entry.arrived_ms, orphaned, &sequence);
    (void)sqlite3_reset(letters->db.statements[SPOOL_STATEMENT_READ_PAYLOAD]);
    return result;
}

static enum spool_db_result change_letter(struct dead_letters *letters, enum dead_letters_change change, int64_t id,
                                          bool *found, size_t *bytes)
{
    sqlite3_stmt *statement = bound(letters, LETTERS_OUTCOME, id);
    int code = sqlite3_step(statement);
    *found = code == SQLITE_ROW;
    const char *outcome = *found ? text_column(statement, 0) : NULL;
    bool orphaned = outcome && strcmp(outcome, "orphaned") == 0;
    int64_t size = *found ? sqlite3_column_int64(statement, 1) : 0;
    *bytes = size > 0 ? (size_t)size : 0;
    enum spool_db_result result = spool_db_judge(&letters->db, sqlite3_reset(statement));
    if (result == SPOOL_DB_OK && *found && change == DEAD_LETTERS_REPLAY)
        result = put_again(letters, id, orphaned);
    if (result == SPOOL_DB_OK && *found)
        result = remove_letter(letters, id);
    return result;
}

/* One transaction: as many as it may hold. `*next` moves behind them. */
static enum spool_db_result change_some(struct dead_letters *letters, enum dead_letters_change change,
                                        const int64_t *ids, size_t count, size_t *next, size_t *changed)
{
    size_t rows = 0;
    size_t bytes = 0;
    size_t done = *next;
    enum spool_db_result result = spool_db_begin(&letters->db);
    while (result == SPOOL_DB_OK && done < count && rows < CHANGES_MAX_ROWS && bytes < CHANGES_MAX_BYTES) {
        bool found;
        size_t size;
        result = change_letter(letters, change, ids[done++], &found, &size);
        rows += found;
        bytes += size;
    }
    if (result == SPOOL_DB_OK)
        result = spool_db_commit(&letters->db);
    else
        spool_db_rollback(&letters->db);
    if (result == SPOOL_DB_OK) {
        *next = done;
        *changed += rows;
    }
    return result;
}

bool dead_letters_change(struct dead_letters *letters, enum dead_letters_change change, const int64_t *ids,
                         size_t count, size_t *changed, struct error *error)
{
    enum spool_db_result result = SPOOL_DB_OK;
    size_t next = 0;
    *changed = 0;
    while (next < count && result == SPOOL_DB_OK)
        result = change_some(letters, change, ids, count, &next, changed);
    return result == SPOOL_DB_OK || database_error(letters, result, error);
}
