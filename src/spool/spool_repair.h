/* SPDX-License-Identifier: MIT */
/* From whatever lies in the folder to a database that works: made, checked, set aside, taken over. */
#ifndef PROMPTD_SPOOL_REPAIR_H
#define PROMPTD_SPOOL_REPAIR_H

#include "spool_db.h"
#include "spool_folder.h"

/* Opens spool.db, makes it where there is none, replaces it where it is damaged. Blocking, and without an end only as
 * far as the disk has none. Sequences go on above `last_sequence` at least. */
bool spool_repair_open(const struct spool_folder *folder, int64_t last_sequence, struct spool_db *db,
                       struct error *error);

/* Sets spool.db aside because of `reason`, takes over what can be read of it, and opens the new one; `db` is closed.
 * When it fails, spool.db is still where it was. */
bool spool_repair_replace(const struct spool_folder *folder, bool foreign, const char *reason, int64_t last_sequence,
                          struct spool_db *db, struct error *error);

/* What was taken over from a damaged database. */
struct spool_taken {
    uint64_t waiting;
    uint64_t dead;
    int64_t lost;          /* rows that are known to have been there; -1: that cannot be known */
    int64_t last_sequence; /* the highest that is known to have been given */
};

/* Copies every message of the database at `path` that proves itself into `to`, a new one with its tables, in one
 * transaction. Whatever is in the file, this ends, and leaves it as it was. The result speaks of `to`, but REFUSED may
 * also mean that somebody has locked the file. */
enum spool_db_result spool_take_over(const char *path, struct spool_db *to, struct spool_taken *taken);

#endif
