/* SPDX-License-Identifier: MIT */
/* From whatever lies in the folder to a database that works: creation, judgement, setting aside, taking over. */
#ifndef PROMPTD_SPOOL_RECOVER_H
#define PROMPTD_SPOOL_RECOVER_H

#include "spool_db.h"
#include "spool_folder.h"

/* What was taken over from a damaged database. */
struct spool_salvage {
    uint64_t waiting;
    uint64_t dead;
    int64_t lost;          /* rows that are known to have been there; -1: that cannot be known */
    int64_t last_sequence; /* the highest that is known to have been given */
};

/* Opens spool.db, makes it where there is none, replaces it where it is damaged. Blocking, and without an end only as
 * far as the disk has none. Sequences go on above `last_sequence` at least. */
bool spool_recover_open(const struct spool_folder *folder, int64_t last_sequence, struct spool_db *db,
                        struct error *error);

/* Sets spool.db aside because of `reason`, takes over what can be read of it, and opens the new one; `db` is closed.
 * When it fails, spool.db is still where it was. */
bool spool_recover_replace(const struct spool_folder *folder, bool foreign, const char *reason, int64_t last_sequence,
                           struct spool_db *db, struct error *error);

/* Gives spool.db, of which nothing can be read, the first page of spool.db.building, an empty database with its tables:
 * without that page nothing else can be found. The page that was there is kept as spool.db-page1. false: it has not the
 * marks of a database of ours, or it cannot be written; it is as it was then. */
bool spool_graft_first_page(const struct spool_folder *folder);

/* Copies every row of the database at `path` that proves itself into `to`, a new one with its tables, in one
 * transaction. Whatever is in the file, this ends. The result speaks of `to`. */
enum spool_db_result spool_salvage(const char *path, struct spool_db *to, struct spool_salvage *salvage);

#endif
