/* SPDX-License-Identifier: MIT */
/* The spool's dead letters, for people. Another process may own the spool: nothing here takes its lock. */
#include "promptd/dead_letters.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "promptd/clock.h"
#include "spool_db.h"
#include "spool_folder.h"

enum {
    CHANGES_MAX_ROWS = 256,              /* in one transaction: the daemon waits for its end */
    CHANGES_MAX_BYTES = 4 * 1024 * 1024, /* of payloads; one that is larger goes alone */
    CHANGES_PAUSE_MS = 5                 /* between two: whoever waits looks once a millisecond */
};

static const char next_sql[] = "select dead_letter.sequence, dead_letter.size, payload.arrived_ms, died_ms, outcome,"
                               " reason, sqlstate, error, interview_id, prompt_id"
                               " from dead_letter left join payload using(sequence)"
                               " where dead_letter.sequence > ?1 and dead_letter.sequence <= ?2"
                               " order by dead_letter.sequence limit 1";

struct dead_letters {
    struct spool_db db;
    char directory[PATH_MAX]; /* as the operator gave it */
    int folder_fd;
    struct stat file; /* the database that was opened */
};

/* ---- opening ---- */

static bool no_access(const char *directory, const char *what, uid_t owner, struct error *error)
{
    const struct passwd *account = getpwuid(owner);
    char name[64];
    if (account)
        (void)snprintf(name, sizeof name, "%s", account->pw_name);
    else
        (void)snprintf(name, sizeof name, "#%u", (unsigned)owner);
    return error_set(error, ERROR_SPOOL, "spool_dir %s%s belongs to user %s: run this as that user (sudo -u '%s' …)",
                     directory, what, name, name);
}

/* The database's owner is the daemon's user. The folder's need not be: a mounted volume is often root's, and the
 * daemon's only by its group. A file that someone else makes beside the database could not be opened by its owner.
 * SQLite looks after that only for root, whose files it gives to the owner. */
static bool check_owner(const char *directory, const struct stat *status, struct error *error)
{
    uid_t user = geteuid();
    return user == 0 || user == status->st_uid || no_access(directory, ": " SPOOL_FILE, status->st_uid, error);
}

static bool check_folder(const char *directory, struct stat *file, struct error *error)
{
    struct stat folder;
    char path[PATH_MAX];
    if (stat(directory, &folder) != 0)
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s", directory, strerror(errno));
    if (!S_ISDIR(folder.st_mode))
        return error_set(error, ERROR_SPOOL, "spool_dir %s is not a folder", directory);
    int length = snprintf(path, sizeof path, "%s/%s", directory, SPOOL_FILE);
    if (length < 0 || (size_t)length >= sizeof path)
        return error_set(error, ERROR_SPOOL, "spool_dir %.200s… is too long a path", directory);
    if (lstat(path, file) == 0)
        return S_ISREG(file->st_mode)
                   ? check_owner(directory, file, error)
                   : error_set(error, ERROR_SPOOL, "spool_dir %s: %s is not a regular file", directory, SPOOL_FILE);
    if (errno == EACCES)
        return no_access(directory, "", folder.st_uid, error);
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

static bool hold(const struct dead_letters *letters, struct error *error)
{
    return spool_folder_hold(letters->folder_fd, false) ||
           error_set(error, ERROR_SPOOL, "spool_dir %s: promptd is replacing a damaged " SPOOL_FILE ": try again later",
                     letters->directory);
}

/* A damaged file is set aside, and another takes its place. */
static bool is_in_place(const struct dead_letters *letters, struct error *error)
{
    struct stat now;
    bool same = fstatat(letters->folder_fd, SPOOL_FILE, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
                now.st_ino == letters->file.st_ino && now.st_dev == letters->file.st_dev;
    return same || error_set(error, ERROR_SPOOL, "spool_dir %s: " SPOOL_FILE " was replaced meanwhile: try again",
                             letters->directory);
}

/* Under the hold, so that the log which SQLite opens by its name is this file's. */
static bool open_database(struct dead_letters *letters, struct error *error)
{
    char path[PATH_MAX + sizeof SPOOL_FILE];
    (void)snprintf(path, sizeof path, "%s/%s", letters->directory, SPOOL_FILE);
    if (!check_folder(letters->directory, &letters->file, error))
        return false;
    if (faccessat(letters->folder_fd, SPOOL_FILE, W_OK, AT_EACCESS) != 0 && errno == EROFS)
        return error_set(
            error, ERROR_SPOOL,
            "spool_dir %s: the file system is read-only, and SQLite must write even to read: copy the folder,"
            " and give the copy as --spool-dir",
            letters->directory);
    enum spool_db_result result = spool_db_open(&letters->db, path, SPOOL_CHECK_NONE);
    return result == SPOOL_DB_OK || database_error(letters, result, error);
}

static bool open_letters(struct dead_letters *letters, struct error *error)
{
    letters->folder_fd = open(letters->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (letters->folder_fd < 0)
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s", letters->directory, strerror(errno));
    if (!hold(letters, error))
        return false;
    bool opened = open_database(letters, error);
    spool_folder_let_go(letters->folder_fd);
    return opened;
}

struct dead_letters *dead_letters_open(const char *directory, struct error *error)
{
    struct stat file;
    if (!check_folder(directory, &file, error))
        return NULL;
    struct dead_letters *letters = calloc(1, sizeof *letters);
    if (!letters) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    (void)snprintf(letters->directory, sizeof letters->directory, "%s", directory);
    if (open_letters(letters, error))
        return letters;
    dead_letters_close(letters);
    return NULL;
}

void dead_letters_close(struct dead_letters *letters)
{
    if (!letters)
        return;
    spool_db_close(&letters->db);
    if (letters->folder_fd >= 0)
        close(letters->folder_fd);
    free(letters);
}

/* ---- reading ---- */

/* A letter with its texts, longer than any that a daemon writes. */
struct copy {
    int64_t sequence;
    struct dead_letter letter;
    char arrived[CLOCK_TEXT_SIZE];
    char died[CLOCK_TEXT_SIZE];
    char interview_id[UUID_TEXT_SIZE];
    char prompt_id[UUID_TEXT_SIZE];
    char outcome[32];
    char reason[64];
    char sqlstate[8];
    char error[1024];
};

static const char *copy_text(sqlite3_stmt *statement, int column, char *room, size_t size)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    if (!text)
        return NULL;
    (void)snprintf(room, size, "%s", (const char *)text);
    return room;
}

static const char *copy_uuid(sqlite3_stmt *statement, int column, char room[UUID_TEXT_SIZE])
{
    const void *bytes = sqlite3_column_blob(statement, column);
    if (!bytes || sqlite3_column_bytes(statement, column) != UUID_SIZE)
        return NULL;
    uuid_format(bytes, room);
    return room;
}

static void copy_letter(sqlite3_stmt *statement, struct copy *copy)
{
    copy->sequence = sqlite3_column_int64(statement, 0);
    clock_format_wall(sqlite3_column_int64(statement, 2), copy->arrived);
    clock_format_wall(sqlite3_column_int64(statement, 3), copy->died);
    struct dead_letter *letter = &copy->letter;
    *letter = (struct dead_letter){
        .id.major = (uint64_t)copy->sequence,
        .size = (uint64_t)sqlite3_column_int64(statement, 1),
        .arrived = copy->arrived,
        .died = copy->died,
        .outcome = copy_text(statement, 4, copy->outcome, sizeof copy->outcome),
        .reason = copy_text(statement, 5, copy->reason, sizeof copy->reason),
        .sqlstate = copy_text(statement, 6, copy->sqlstate, sizeof copy->sqlstate),
        .error = copy_text(statement, 7, copy->error, sizeof copy->error),
        .interview_id = copy_uuid(statement, 8, copy->interview_id),
        .prompt_id = copy_uuid(statement, 9, copy->prompt_id),
    };
    letter->has_message = letter->size > 0 || !letter->reason || strcmp(letter->reason, SPOOL_UNREAD) != 0;
}

/* Each letter in a transaction of its own, which is over before `take` does something with it: that may wait for a
 * person. */
bool dead_letters_read(struct dead_letters *letters, const struct dead_id *only, dead_letter_take *take, void *context,
                       struct error *error)
{
    sqlite3_stmt *statement = NULL;
    struct copy copy = {.sequence = only ? (int64_t)only->major - 1 : -1};
    bool go_on = true;
    int code = sqlite3_prepare_v2(letters->db.sqlite, next_sql, -1, &statement, NULL);
    while (code == SQLITE_OK && go_on) {
        (void)sqlite3_bind_int64(statement, 1, copy.sequence);
        (void)sqlite3_bind_int64(statement, 2, only ? (int64_t)only->major : INT64_MAX);
        code = sqlite3_step(statement);
        if (code != SQLITE_ROW)
            break;
        copy_letter(statement, &copy);
        code = sqlite3_reset(statement);
        go_on = take(context, &copy.letter);
    }
    enum spool_db_result result = spool_db_classify(&letters->db, code);
    sqlite3_finalize(statement); /* repeats the code of the step */
    return result == SPOOL_DB_OK || database_error(letters, result, error);
}

bool dead_letters_payload(struct dead_letters *letters, const struct dead_id *id, const char **bytes, size_t *length,
                          struct error *error)
{
    struct spool_entry entry;
    enum spool_db_result result = spool_db_read_payload(&letters->db, (int64_t)id->major, &entry);
    if (result != SPOOL_DB_OK)
        return database_error(letters, result, error);
    *bytes = entry.payload;
    *length = entry.length;
    return true;
}

bool dead_letters_count(struct dead_letters *letters, uint64_t *count, struct dead_id *last, struct error *error)
{
    struct spool_counts counts = {0};
    enum spool_db_result result = spool_db_begin(&letters->db, false);
    if (result == SPOOL_DB_OK)
        result = spool_db_count(&letters->db, &counts);
    if (result == SPOOL_DB_OK)
        result = spool_db_commit(&letters->db);
    else
        spool_db_rollback(&letters->db);
    *count = counts.dead;
    *last = (struct dead_id){.major = (uint64_t)counts.last_sequence};
    return result == SPOOL_DB_OK || database_error(letters, result, error);
}

/* ---- changing ---- */

/* A change, and how far it has come. */
struct progress {
    const struct dead_choice *choice;
    bool replay;
    uint64_t waiting_max_bytes;
    size_t given;  /* of the ids that were given */
    int64_t after; /* without any: the last letter that was looked at */
    struct dead_result done;
    uint64_t waiting_bytes; /* when they were counted last, and what was replayed since; a daemon works them off */
    bool end;
    bool full; /* there is no room for the next one to wait in */
};

static enum spool_db_result next_letter(struct dead_letters *letters, struct progress *progress, int64_t *id)
{
    enum spool_db_result result = SPOOL_DB_OK;
    const struct dead_choice *choice = progress->choice;
    if (choice->ids) {
        progress->end = progress->given == choice->count;
        *id = progress->end ? 0 : (int64_t)choice->ids[progress->given++].major;
        return result;
    }
    result = spool_db_next_dead(&letters->db, progress->after, id);
    progress->end = *id == 0 || *id > (int64_t)choice->last.major;
    progress->after = *id;
    return result;
}

/* Counted anew only where it matters, for that takes long where many wait. */
static enum spool_db_result check_room(struct dead_letters *letters, struct progress *progress, bool *counted)
{
    enum spool_db_result result = SPOOL_DB_OK;
    if (!progress->replay || progress->waiting_bytes < progress->waiting_max_bytes)
        return result;
    if (!*counted)
        result = spool_db_count_waiting(&letters->db, &progress->waiting_bytes);
    *counted = true;
    progress->full = progress->waiting_bytes >= progress->waiting_max_bytes;
    return result;
}

/* One transaction: as many as it may hold. */
static enum spool_db_result change_some(struct dead_letters *letters, struct progress *progress)
{
    size_t before = progress->done.changed;
    uint64_t bytes = 0;
    bool counted = false;
    enum spool_db_result result = SPOOL_DB_OK;
    while (result == SPOOL_DB_OK && progress->done.changed - before < CHANGES_MAX_ROWS && bytes < CHANGES_MAX_BYTES) {
        bool found = false;
        uint64_t size = 0;
        int64_t id;
        result = next_letter(letters, progress, &id);
        if (result == SPOOL_DB_OK && !progress->end)
            result = check_room(letters, progress, &counted);
        if (result != SPOOL_DB_OK || progress->end || progress->full)
            break;
        result = progress->replay ? spool_db_replay(&letters->db, id, &found, &size)
                                  : spool_db_drop_dead(&letters->db, id, &found, &size);
        progress->done.changed += found;
        progress->done.without_message += progress->replay && !progress->choice->ids && !found;
        progress->waiting_bytes += size;
        bytes += size;
    }
    return result;
}

static bool change_under_hold(struct dead_letters *letters, struct progress *progress, struct error *error)
{
    struct progress next = *progress;
    if (!is_in_place(letters, error))
        return false;
    enum spool_db_result result = spool_db_begin(&letters->db, true);
    if (result == SPOOL_DB_OK)
        result = change_some(letters, &next);
    if (result == SPOOL_DB_OK)
        result = spool_db_commit(&letters->db);
    else
        spool_db_rollback(&letters->db);
    if (result != SPOOL_DB_OK)
        return database_error(letters, result, error);
    *progress = next;
    return true;
}

/* Ctrl-Z waits for the end of it: stopped in between, it would keep the daemon from writing for as long. */
static bool change_in_one_go(struct dead_letters *letters, struct progress *progress, struct error *error)
{
    sigset_t stop;
    sigset_t before;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGTSTP);
    (void)pthread_sigmask(SIG_BLOCK, &stop, &before);
    bool good = hold(letters, error);
    if (good) {
        good = change_under_hold(letters, progress, error);
        spool_folder_let_go(letters->folder_fd);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return good;
}

static bool change(struct dead_letters *letters, struct progress *progress, struct dead_result *result,
                   struct error *error)
{
    bool good = true;
    progress->waiting_bytes = UINT64_MAX / 2; /* not counted yet */
    while (good && !progress->end && !progress->full) {
        if (progress->given > 0 || progress->after > 0)
            clock_sleep_ms(CHANGES_PAUSE_MS);
        good = change_in_one_go(letters, progress, error);
    }
    *result = progress->done;
    if (good && progress->full)
        return error_set(
            error, ERROR_SPOOL,
            "spool_dir %s: half of spool_max_bytes is full of waiting messages, and the rest is for new ones:"
            " replay what is left when those are stored",
            letters->directory);
    return good;
}

bool dead_letters_drop(struct dead_letters *letters, const struct dead_choice *choice, struct dead_result *result,
                       struct error *error)
{
    return change(letters, &(struct progress){.choice = choice}, result, error);
}

bool dead_letters_replay(struct dead_letters *letters, const struct dead_choice *choice, uint64_t waiting_max_bytes,
                         struct dead_result *result, struct error *error)
{
    struct progress progress = {.choice = choice, .replay = true, .waiting_max_bytes = waiting_max_bytes};
    return change(letters, &progress, result, error);
}
