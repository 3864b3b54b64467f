/* SPDX-License-Identifier: MIT */
/*
 * Making the database, and putting a new one in the place of a damaged one so that a crash at any point loses nothing:
 *
 *     spool.db ──salvage──▶ spool.db.building ──complete, synced──▶ spool.db.new
 *     spool.db-wal, spool.db ──▶ spool.db.damaged-<UTC time>[-wal]       then spool.db.new ──▶ spool.db
 *
 * Where spool.db.new exists it is complete, and the steps of the second line are done or done again. The log goes
 * first: were it still there, SQLite would apply it to the new database.
 */
#include "spool_recover.h"

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
        !move_aside(folder, SPOOL_FILE_PAGE1, name, "-page1", error) || !remove_file(folder, SPOOL_FILE_SHM, error) ||
        !move_aside(folder, SPOOL_FILE, name, "", error))
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

/* Fills spool.db.building. Its durability is one fsync at the end: before that it is worth nothing. */
static enum spool_db_result fill_building(const char *path, const char *source, struct spool_db *db,
                                          struct spool_salvage *salvage)
{
    *db = (struct spool_db){0};
    enum spool_db_result result = spool_db_judge(
        db, sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL));
    if (result == SPOOL_DB_OK)
        result = spool_db_execute(db, "pragma synchronous = off; pragma journal_mode = off");
    if (result == SPOOL_DB_OK)
        result = spool_db_create_tables(db);
    if (result == SPOOL_DB_OK)
        result = spool_db_prepare(db);
    if (result == SPOOL_DB_OK && source)
        result = spool_salvage(source, db, salvage);
    if (result == SPOOL_DB_OK)
        result = spool_db_set_last_sequence(db, salvage->last_sequence);
    spool_db_close(db);
    return result;
}

/* Once more where nothing could be read: it may be for want of the first page only. */
static bool fill(const struct spool_folder *folder, const char *path, const char *source, struct spool_salvage *salvage,
                 struct error *error)
{
    struct spool_db db;
    for (bool grafted = false;; grafted = true) {
        if (!make_file(folder, SPOOL_FILE_BUILDING, error))
            return false;
        if (fill_building(path, source, &db, salvage) != SPOOL_DB_OK)
            break;
        if (!source || grafted || salvage->waiting + salvage->dead > 0 || !spool_graft_first_page(folder))
            return true;
    }
    (void)remove_file(folder, SPOOL_FILE_BUILDING, NULL);
    return error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be made: %s", folder->path, db.failure);
}

static bool build(const struct spool_folder *folder, bool take_over, struct spool_salvage *salvage, struct error *error)
{
    char path[PATH_MAX];
    char source[PATH_MAX];
    uint64_t size;
    if (!spool_folder_path(folder, SPOOL_FILE_BUILDING, path, error) ||
        !spool_folder_path(folder, SPOOL_FILE, source, error) || !spool_folder_size(folder, SPOOL_FILE, &size, error))
        return false;
    /* Beside an empty file SQLite throws the log away, which people may still want. */
    if (!fill(folder, path, take_over && size > 0 ? source : NULL, salvage, error) ||
        !sync_file(folder, SPOOL_FILE_BUILDING, error))
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
    struct spool_salvage none = {.last_sequence = last_sequence};
    char name[SPOOL_NAME_SIZE];
    return build(folder, false, &none, error) && exchange(folder, "damaged", name, error) &&
           open_new(folder, db, error);
}

static void report(const struct spool_folder *folder, bool foreign, const char *reason, const char *name,
                   const struct spool_salvage *salvage)
{
    if (foreign) {
        log_critical(LOG_FIELDS(log_text("reason", reason)),
                     "%s/%s is not a spool: set aside as %s, and a new one begun", folder->path, SPOOL_FILE, name);
        return;
    }
    struct log_field lost = salvage->lost < 0 ? log_text("lost", "unknown") : log_number("lost", salvage->lost);
    log_critical(LOG_FIELDS(log_text("reason", reason), log_number("waiting", salvage->waiting),
                            log_number("dead", salvage->dead), lost),
                 "%s/%s is damaged: set aside as %s; what could be read was taken over into a new one", folder->path,
                 SPOOL_FILE, name);
}

bool spool_recover_replace(const struct spool_folder *folder, bool foreign, const char *reason, int64_t last_sequence,
                           struct spool_db *db, struct error *error)
{
    struct spool_salvage salvage = {.lost = -1, .last_sequence = last_sequence};
    char name[SPOOL_NAME_SIZE];
    char why[SPOOL_FAILURE_SIZE];
    (void)snprintf(why, sizeof why, "%s", reason); /* it may stand in `db` */
    if (!foreign)
        log_warning(LOG_FIELDS(log_text("reason", why)), "%s/%s is damaged: reading what can be read", folder->path,
                    SPOOL_FILE);
    if (!build(folder, !foreign, &salvage, error) || !exchange(folder, foreign ? "foreign" : "damaged", name, error))
        return false;
    report(folder, foreign, why, name, &salvage);
    return open_new(folder, db, error);
}

static bool finish_exchange(const struct spool_folder *folder, struct error *error)
{
    char name[SPOOL_NAME_SIZE];
    if (!exists(folder, SPOOL_FILE_NEW))
        return true;
    bool replaced = exists(folder, SPOOL_FILE);
    if (!exchange(folder, "damaged", name, error))
        return false;
    if (replaced)
        log_critical(NULL, "%s/%s was damaged: set aside as %s; what could be read had been taken over before",
                     folder->path, SPOOL_FILE, name);
    return true;
}

/* A file from an older day, put back by somebody, must not give sequences that are in use. */
static bool raise_sequence(const struct spool_folder *folder, int64_t last_sequence, struct spool_db *db,
                           struct error *error)
{
    int64_t last = 0;
    enum spool_db_result result = spool_db_last_sequence(db, &last);
    if (result == SPOOL_DB_OK && last < last_sequence)
        result = spool_db_set_last_sequence(db, last_sequence);
    if (result == SPOOL_DB_OK)
        return true;
    spool_db_close(db);
    return error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be used: %s", folder->path, db->failure);
}

bool spool_recover_open(const struct spool_folder *folder, int64_t last_sequence, struct spool_db *db,
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
        return spool_recover_replace(folder, false, "all but its write-ahead log is gone", last_sequence, db, error);
    enum spool_db_result result = spool_db_open(db, path,
                                                size <= SPOOL_CHECK_ALL_BYTES ? SPOOL_CHECK_ALL : SPOOL_CHECK_STATES);
    if (result == SPOOL_DB_OK)
        return raise_sequence(folder, last_sequence, db, error);
    if (result == SPOOL_DB_REFUSED)
        return error_set(error, ERROR_SPOOL, "spool_dir %s: the database cannot be opened: %s", folder->path,
                         db->failure);
    return spool_recover_replace(folder, result == SPOOL_DB_FOREIGN, db->failure, last_sequence, db, error);
}
