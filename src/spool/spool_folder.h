/* SPDX-License-Identifier: MIT */
/*
 * The spool's folder: made, checked, and held by one daemon at a time.
 *
 *     spool.db, spool.db-wal, spool.db-shm   the database, SQLite's own names
 *     spool.lock                             held by flock(2) while a daemon lives; its pid inside, for people
 *     spool.db.building                      a database that is being made, worth nothing yet
 *     spool.db.new                           a complete one that is to take the place of spool.db
 *     spool.db.damaged-…, spool.db.foreign-… set aside, for people
 */
#ifndef PROMPTD_SPOOL_FOLDER_H
#define PROMPTD_SPOOL_FOLDER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "promptd/error.h"

#define SPOOL_FILE "spool.db"
#define SPOOL_FILE_WAL SPOOL_FILE "-wal"
#define SPOOL_FILE_SHM SPOOL_FILE "-shm"
#define SPOOL_FILE_JOURNAL SPOOL_FILE "-journal"
#define SPOOL_FILE_BUILDING SPOOL_FILE ".building"
#define SPOOL_FILE_NEW SPOOL_FILE ".new"
#define SPOOL_FILE_LOCK "spool.lock"

/* Which file or folder it is, whatever its name. */
struct spool_identity {
    dev_t device;
    ino_t inode; /* 0: not known */
};

struct spool_folder {
    char path[PATH_MAX]; /* canonical, so that a change of the working directory does not matter */
    int fd;              /* of the folder; -1: not open */
    int lock_fd;
    struct spool_identity self;
    struct spool_identity lock;
    struct spool_identity file; /* SPOOL_FILE, as it was noted last */
};

/* Makes the folder if its parent is there, and locks it. false with ERROR_SPOOL; nothing is held then. */
bool spool_folder_open(struct spool_folder *folder, const char *directory, struct error *error);
void spool_folder_close(struct spool_folder *folder);

/* Held shared by whoever works on the database beside the daemon, and exclusively while another takes its place: what
 * were done to a file that is about to be set aside would be lost. Both wait for each other, for 5 s: then false. */
bool spool_folder_hold(int folder_fd, bool exclusive);
void spool_folder_let_go(int folder_fd);

/* SPOOL_FILE has been opened, or another took its place. */
void spool_folder_note_file(struct spool_folder *folder);

/* NULL while folder, lock and SPOOL_FILE are those that are held; else what is not, for the log. A lock's file that was
 * removed is made and locked again, unless another promptd was quicker. */
const char *spool_folder_missing(struct spool_folder *folder);

/* "<folder>/<name>"; false when that is too long. */
bool spool_folder_path(const struct spool_folder *folder, const char *name, char path[PATH_MAX], struct error *error);

/* The size of a regular file; 0 when it is missing. false with ERROR_SPOOL when it is something else. */
bool spool_folder_size(const struct spool_folder *folder, const char *name, uint64_t *size, struct error *error);

#endif
