/* SPDX-License-Identifier: MIT */
/*
 * Making the database, and putting a new one in the place of a damaged one so that a crash at any point loses nothing:
 *
 *     spool.db ──take over──▶ spool.db.building ──complete, synced──▶ spool.db.new
 *     spool.db-wal, spool.db ──▶ spool.db.damaged-<UTC time>[-wal]       then spool.db.new ──▶ spool.db
 *
 * Where spool.db.new exists it is complete, and the steps of the second line are done or done again. The log goes
 * first: were it still there, SQLite would apply it to the new database.
 */
#include "spool_repair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_COMPONENT "spool"
#include "promptd/log.h"

enum {
    SPOOL_CHECK_ALL_BYTES = 64 * 1024 * 1024, /* up to this size all pages are checked at each start: some 0.2 s */
    SPOOL_NAME_SIZE = 64
};

static bool io_error(const struct spool_folder *folder, const char *what, struct error *error)
{
    return error_set(error, ERROR_SPOOL, "spool_dir %s: %s: %s", folder->path, what, strerror(errno));
}

static bool exists(const struct spool_folder *folder, const char *name)
{
    struct stat status;
    return fstatat(folder->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool remove_file(const struct spool_folder *folder, const char *name, struct error *error)
{
    return unlinkat(folder->fd, name, 0) == 0 || errno == ENOENT ||
           io_error(folder, "an old file cannot be removed", error);
}

/* "spool.db.damaged-20261123T160102Z", and a number behind it should that name be taken. */
static void choose_name(const struct spool_folder *folder, const char *kind, char name[SPOOL_NAME_SIZE])
{
    time_t now = time(NULL);
    struct tm utc = {0};
    char stamp[20];
    (void)gmtime_r(&now, &utc);
    (void)strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    (void)snprintf(name, SPOOL_NAME_SIZE, SPOOL_FILE ".%s-%s", kind, stamp);
    char wal[SPOOL_NAME_SIZE + 8];
    for (unsigned i = 2; i < 100000; i++) {
        (void)snprintf(wal, sizeof wal, "%s-wal", name);
        if (!exists(folder, name) && !exists(folder, wal))
            return;
        (void)snprintf(name, SPOOL_NAME_SIZE, SPOOL_FILE ".%s-%s.%u", kind, stamp, i);
    }
}

/* Renames `from` to name + suffix; a file that is missing or empty only goes. */
static bool move_aside(const struct spool_folder *folder, const char *from, const char *name, const char *suffix,
                       struct error *error)
{
    char to[SPOOL_NAME_SIZE + 16];
    uint64_t size;
    if (!spool_folder_size(folder, from, &size, error))
        return false;
    if (size == 0)
        return remove_file(folder, from, error);
    (void)snprintf(to, sizeof to, "%s%s", name, suffix);
    return renameat(folder->fd, from, folder->fd, to) == 0 || io_error(folder, "a file cannot be set aside", error);
}

/* The second line of the drawing above. Done again after a crash, it goes on where it was. */
static bool exchange(const struct spool_folder *folder, const char *kind, char name[SPOOL_NAME_SIZE],
                     struct error *error)
{
    choose_name(folder, kind, name);
    if (!move_aside(folder, SPOOL_FILE_WAL, name, "-wal", error) ||
        !move_aside(folder, SPOOL_FILE_JOURNAL, name, "-journal", error) ||
        !remove_file(folder, SPOOL_FILE_SHM, error) || !move_aside(folder, SPOOL_FILE, name, "", error))
        return false;
    if (renameat(folder->fd, SPOOL_FILE_NEW, folder->fd, SPOOL_FILE) != 0 || fsync(folder->fd) != 0)
        return io_error(folder, "the new database cannot be put in its place", error);
    return true;
}

/* An empty file of mode 0600, whatever the umask; SQLite gives its other files the same mode. */
static bool make_file(const struct spool_folder *folder, const char *name, struct error *error)
{
    if (!remove_file(folder, name, error))
        return false;
    int fd = openat(folder->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return io_error(folder, "the database cannot be made", error);
    bool made = fchmod(fd, 0600) == 0 || io_error(folder, "the database's mode cannot be set", error);
    close(fd);
    return made;
}

static bool sync_file(const struct spool_folder *folder, const char *name, struct error *error)
{
    int fd = openat(folder->fd, name, O_RDWR | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    if (!synced)
        (void)io_error(folder, "the database cannot be written", error);
    if (fd >= 0)
        close(fd);
    return synced;
}

/* Its durability is one fsync at the end: before that it is worth nothing. */
static enum spool_db_result fill(const char *path, const char *source, struct spool_db *db, struct spool_taken *taken)
{
    *db = (struct spool_db){0};
    enum spool_db_result result = spool_db_classify(
        db, sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL));
    if (result == SPOOL_DB_OK)
        result = spool_db_execute(db, "pragma synchronous = off; pragma journal_mode = off");
    if (result == SPOOL_DB_OK)
        result = spool_db_create_tables(db);
    if (result == SPOOL_DB_OK)
        result = spool_db_prepare(db);
    if (result == SPOOL_DB_OK && source)
        result = spool_take_over(source, db, taken);
    if (result == SPOOL_DB_OK)
        result = spool_db_raise_sequence(db, taken->last_sequence);
    spool_db_close(db);
    return result;
}

/* A complete spool.db.new: with what can be read of spool.db, or empty. */
static bool build(const struct spool_folder *folder, bool take_over, struct spool_taken *taken, struct error *error)
{
    struct spool_db db;
    char path[PATH_MAX];
    char source[PATH_MAX];
    uint64_t size;
    if (!spool_folder_path(folder, SPOOL_FILE_BUILDING, path, error) ||
        !spool_folder_path(folder, SPOOL_FILE, source, error) || !spool_folder_size(folder, SPOOL_FILE, &size, error) ||
        !make_file(folder, SPOOL_FILE_BUILDING, error))
        return false;
    /* Beside an empty file SQLite throws the log away, which people may still want. */
    if (fill(path, take_over && size > 0 ? source : NULL, &db, taken) != SPOOL_DB_OK) {
        (void)remove_file(folder, SPOOL_FILE_BUILDING, NULL);
        return error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be made: %s", folder->path, db.failure);
    }
    if (!sync_file(folder, SPOOL_FILE_BUILDING, error))
        return false;
    return renameat(folder->fd, SPOOL_FILE_BUILDING, folder->fd, SPOOL_FILE_NEW) == 0 ||
           io_error(folder, "the database cannot be made", error);
}

static bool open_new(const struct spool_folder *folder, struct spool_db *db, struct error *error)
{
    char path[PATH_MAX];
    if (!spool_folder_path(folder, SPOOL_FILE, path, error))
        return false;
    return spool_db_open(db, path, SPOOL_CHECK_STATES) == SPOOL_DB_OK ||
           error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be opened: %s", folder->path, db->failure);
}

static bool create(const struct spool_folder *folder, int64_t last_sequence, struct spool_db *db, struct error *error)
{
    struct spool_taken none = {.last_sequence = last_sequence};
    char name[SPOOL_NAME_SIZE];
    return build(folder, false, &none, error) && exchange(folder, "damaged", name, error) &&
           open_new(folder, db, error);
}

static void report(const struct spool_folder *folder, bool foreign, const char *reason, const char *name,
                   const struct spool_taken *taken)
{
    struct log_field why = log_text("reason", reason);
    struct log_field lost = taken->lost < 0 ? log_text("lost", "unknown") : log_number("lost", taken->lost);
    if (foreign)
        log_critical(LOG_FIELDS(why), "%s/%s is not a spool: set aside as %s, and a new one begun", folder->path,
                     SPOOL_FILE, name);
    else if (taken->waiting + taken->dead == 0)
        log_critical(LOG_FIELDS(why, lost),
                     "%s/%s is damaged: set aside as %s; no message in it could be read, and a new one is begun",
                     folder->path, SPOOL_FILE, name);
    else
        log_critical(LOG_FIELDS(why, log_number("waiting", taken->waiting), log_number("dead", taken->dead), lost),
                     "%s/%s is damaged: set aside as %s; what could be read was taken over into a new one",
                     folder->path, SPOOL_FILE, name);
}

static bool hold(const struct spool_folder *folder, struct error *error)
{
    return spool_folder_hold(folder->fd, true) ||
           error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be replaced: promptctl is at work on it",
                     folder->path);
}

bool spool_repair_replace(const struct spool_folder *folder, bool foreign, const char *reason, int64_t last_sequence,
                          struct spool_db *db, struct error *error)
{
    struct spool_taken taken = {.lost = -1, .last_sequence = last_sequence};
    char name[SPOOL_NAME_SIZE];
    char why[SPOOL_FAILURE_SIZE];
    (void)snprintf(why, sizeof why, "%s", reason); /* it may stand in `db` */
    if (!foreign)
        log_warning(LOG_FIELDS(log_text("reason", why)), "%s/%s is damaged: reading what can be read", folder->path,
                    SPOOL_FILE);
    if (!hold(folder, error))
        return false;
    bool replaced = build(folder, !foreign, &taken, error) &&
                    exchange(folder, foreign ? "foreign" : "damaged", name, error);
    spool_folder_let_go(folder->fd);
    if (!replaced)
        return false;
    report(folder, foreign, why, name, &taken);
    return open_new(folder, db, error);
}

static bool finish_exchange(const struct spool_folder *folder, struct error *error)
{
    char name[SPOOL_NAME_SIZE];
    if (!exists(folder, SPOOL_FILE_NEW))
        return true;
    bool replaced = exists(folder, SPOOL_FILE);
    if (!hold(folder, error))
        return false;
    bool exchanged = exchange(folder, "damaged", name, error);
    spool_folder_let_go(folder->fd);
    if (exchanged && replaced)
        log_critical(NULL, "%s/%s was damaged: set aside as %s; what could be read had been taken over before",
                     folder->path, SPOOL_FILE, name);
    return exchanged;
}

bool spool_repair_open(const struct spool_folder *folder, int64_t last_sequence, struct spool_db *db,
                       struct error *error)
{
    char path[PATH_MAX];
    uint64_t size;
    uint64_t wal_size;
    if (!spool_folder_path(folder, SPOOL_FILE, path, error) || !remove_file(folder, SPOOL_FILE_BUILDING, error) ||
        !finish_exchange(folder, error) || !spool_folder_size(folder, SPOOL_FILE, &size, error) ||
        !spool_folder_size(folder, SPOOL_FILE_WAL, &wal_size, error))
        return false;
    if (size == 0 && wal_size == 0)
        return create(folder, last_sequence, db, error);
    if (size == 0)
        return spool_repair_replace(folder, false, "all but its write-ahead log is gone", last_sequence, db, error);
    enum spool_db_result result = spool_db_open(db, path,
                                                size <= SPOOL_CHECK_ALL_BYTES ? SPOOL_CHECK_ALL : SPOOL_CHECK_STATES);
    if (result == SPOOL_DB_OK) /* a file from an older day, put back by somebody, gives no sequences that are in use */
        result = spool_db_raise_sequence(db, last_sequence);
    if (result == SPOOL_DB_OK)
        return true;
    spool_db_close(db);
    if (result == SPOOL_DB_REFUSED)
        return error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be opened: %s", folder->path,
                         db->failure);
    return spool_repair_replace(folder, result == SPOOL_DB_FOREIGN, db->failure, last_sequence, db, error);
}
