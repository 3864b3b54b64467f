/* SPDX-License-Identifier: MIT */
/* Making, checking and locking the folder that the spool lives in. */
#include "spool_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "promptd/clock.h"

enum { HOLD_TRIES = 5000 }; /* one a millisecond */

/* What went wrong with `what` in the folder, as a person would put it. */
static bool folder_error(struct error *error, const char *directory, const char *what)
{
    switch (errno) {
    case ENOTDIR:
        return error_set(error, ERROR_SPOOL, "spool_dir %s is not a folder", directory);
    case ENOENT:
        return error_set(error, ERROR_SPOOL, "spool_dir %s: the folder that it is to be made in does not exist",
                         directory);
    case EACCES:
    case EPERM:
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s: user %u has no permission", directory, what,
                         (unsigned)geteuid());
    case EROFS:
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s: the file system is read-only", directory, what);
    case ENOSPC:
    case EDQUOT:
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s: no space is left", directory, what);
    default:
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s: %s", directory, what, strerror(errno));
    }
}

static bool make_folder(const char *directory, struct error *error)
{
    if (mkdir(directory, 0700) == 0) {
        /* The umask may have taken bits that we need. */
        return chmod(directory, 0700) == 0 || folder_error(error, directory, "its mode cannot be set");
    }
    /* An existing folder may answer with another error where it could not be made. */
    struct stat status;
    int mkdir_errno = errno;
    if (stat(directory, &status) == 0)
        return S_ISDIR(status.st_mode) || error_set(error, ERROR_SPOOL, "spool_dir %s is not a folder", directory);
    errno = mkdir_errno == EEXIST ? errno : mkdir_errno;
    return folder_error(error, directory, "it cannot be made");
}

static bool report_holder(const struct spool_folder *folder, struct error *error)
{
    char text[24] = "";
    ssize_t length = pread(folder->lock_fd, text, sizeof text - 1, 0);
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;
    if (pid > 0)
        return error_set(error, ERROR_SPOOL, "spool_dir %s is in use by another promptd (pid %ld)", folder->path, pid);
    return error_set(error, ERROR_SPOOL, "spool_dir %s is in use by another promptd", folder->path);
}

/* A courtesy: on a full disk the lock holds without it. Its width is fixed, so that nothing of a longer one is left. */
static void write_pid(int fd)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%-20ld\n", (long)getpid());
    ssize_t written = pwrite(fd, text, (size_t)length, 0);
    (void)written;
}

static struct spool_identity identity(const struct stat *status)
{
    return (struct spool_identity){.device = status->st_dev, .inode = status->st_ino};
}

static bool lock_folder(struct spool_folder *folder, struct error *error)
{
    folder->lock_fd = openat(folder->fd, SPOOL_FILE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (folder->lock_fd < 0)
        return folder_error(error, folder->path, SPOOL_FILE_LOCK " cannot be opened");
    if (flock(folder->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return report_holder(folder, error);
        return folder_error(error, folder->path, SPOOL_FILE_LOCK " cannot be locked");
    }
    write_pid(folder->lock_fd);
    struct stat status;
    if (fstat(folder->lock_fd, &status) == 0)
        folder->lock = identity(&status);
    return true;
}

bool spool_folder_open(struct spool_folder *folder, const char *directory, struct error *error)
{
    folder->fd = -1;
    folder->lock_fd = -1;
    if (!make_folder(directory, error))
        return false;
    if (!realpath(directory, folder->path))
        return folder_error(error, directory, "its path cannot be resolved");
    folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->fd < 0)
        return folder_error(error, folder->path, "it cannot be opened");
    struct stat status;
    if (fstat(folder->fd, &status) == 0)
        folder->self = identity(&status);
    if (lock_folder(folder, error))
        return true;
    spool_folder_close(folder);
    return false;
}

/* Only what is certain: other errors than these are met when something is written. */
static bool is_in_place(const struct spool_folder *folder, const char *name, struct spool_identity wanted)
{
    struct stat status;
    if (wanted.inode == 0)
        return true;
    if (fstatat(folder->fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno != ENOENT && errno != ENOTDIR;
    return status.st_ino == wanted.inode && status.st_dev == wanted.device;
}

void spool_folder_note_file(struct spool_folder *folder)
{
    struct stat status;
    bool known = fstatat(folder->fd, SPOOL_FILE, &status, AT_SYMLINK_NOFOLLOW) == 0;
    folder->file = known ? identity(&status) : (struct spool_identity){0};
}

static bool lock_again(struct spool_folder *folder)
{
    struct error ignored = {.code = ERROR_NONE};
    int before = folder->lock_fd;
    bool locked = lock_folder(folder, &ignored);
    int other = locked ? before : folder->lock_fd;
    if (other >= 0)
        close(other);
    if (!locked)
        folder->lock_fd = before;
    return locked;
}

const char *spool_folder_missing(struct spool_folder *folder)
{
    if (!is_in_place(folder, folder->path, folder->self)) /* an absolute path: the descriptor does not count */
        return "the folder was removed, or another has taken its place";
    if (!is_in_place(folder, SPOOL_FILE, folder->file))
        return SPOOL_FILE " was removed, or another has taken its place";
    if (!is_in_place(folder, SPOOL_FILE_LOCK, folder->lock) && !lock_again(folder))
        return SPOOL_FILE_LOCK " was removed, and another promptd holds its successor";
    return NULL;
}

void spool_folder_close(struct spool_folder *folder)
{
    if (folder->lock_fd >= 0)
        close(folder->lock_fd);
    if (folder->fd >= 0)
        close(folder->fd);
    folder->lock_fd = -1;
    folder->fd = -1;
}

bool spool_folder_hold(int folder_fd, bool exclusive)
{
    for (int i = 0; i < HOLD_TRIES; i++) {
        if (flock(folder_fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return true; /* no locks on folders here: then without */
        clock_sleep_ms(1);
    }
    return false;
}

void spool_folder_let_go(int folder_fd)
{
    (void)flock(folder_fd, LOCK_UN);
}

bool spool_folder_path(const struct spool_folder *folder, const char *name, char path[PATH_MAX], struct error *error)
{
    int length = snprintf(path, PATH_MAX, "%s/%s", folder->path, name);
    return (length > 0 && length < PATH_MAX) ||
           error_set(error, ERROR_SPOOL, "spool_dir %.200s… is too long a path", folder->path);
}

bool spool_folder_size(const struct spool_folder *folder, const char *name, uint64_t *size, struct error *error)
{
    struct stat status;
    *size = 0;
    if (fstatat(folder->fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT || folder_error(error, folder->path, "its files cannot be looked at");
    if (!S_ISREG(status.st_mode))
        return error_set(error, ERROR_SPOOL, "spool_dir %s: %s is not a regular file", folder->path, name);
    *size = (uint64_t)status.st_size;
    return true;
}
