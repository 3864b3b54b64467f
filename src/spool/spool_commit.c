/* SPDX-License-Identifier: MIT */
/* One transaction of the spool's: what it holds is carried out and counted, what others have put is noticed. */
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "spool_private.h"

/* Rejected dead letters dropped in one transaction: of those that it brings each may need room, and some more. */
enum { SPOOL_BATCH_DROPS = 2 * SPOOL_BATCH_ITEMS };

/* ---- rows of others ---- */

enum spool_db_result spool_recount(struct spool_writer *writer)
{
    struct spool_counts counts = writer->counts;
    enum spool_db_result result = spool_db_count(&writer->db, &counts);
    if (result == SPOOL_DB_OK)
        writer->counts = counts;
    return result;
}

/* Where there are too many ranges, the two oldest become one: what lies between them has been fetched long ago. */
static void note_foreign(struct spool_writer *writer, int64_t first, int64_t last)
{
    struct spool_range *ranges = writer->foreign;
    if (ranges[writer->foreign_count - 1].last + 1 == first) {
        ranges[writer->foreign_count - 1].last = last;
        return;
    }
    if (writer->foreign_count == SPOOL_RANGES) {
        ranges[0].last = ranges[1].last;
        memmove(&ranges[1], &ranges[2], (SPOOL_RANGES - 2) * sizeof *ranges);
        writer->foreign_count--;
    }
    ranges[writer->foreign_count++] = (struct spool_range){.first = first, .last = last};
}

static void mark_redelivered(const struct spool_writer *writer, struct spool_batch *batch)
{
    const struct spool_range *range = writer->foreign;
    const struct spool_range *end = range + writer->foreign_count;
    struct spool_entry *entries = spool_batch_entries(batch);
    for (size_t i = 0; i < batch->count; i++) {
        while (range < end && range->last < entries[i].sequence)
            range++;
        entries[i].redelivered = range < end && range->first <= entries[i].sequence;
    }
}

enum spool_db_result spool_note_growth(struct spool_writer *writer)
{
    int64_t last = writer->last_sequence;
    uint64_t added = 0;
    enum spool_db_result result = spool_db_count_new(&writer->db, &last, &added);
    if (result != SPOOL_DB_OK || added == 0)
        return result;
    struct spool_grown_work *grown = malloc(sizeof *grown);
    if (!grown)
        return spool_db_classify(&writer->db, SQLITE_NOMEM);
    *grown = (struct spool_grown_work){.work.kind = SPOOL_WORK_GROWN, .added = added};
    STAILQ_INSERT_TAIL(&writer->done, &grown->work, link);
    note_foreign(writer, writer->last_sequence + 1, last);
    writer->last_sequence = last;
    return spool_recount(writer);
}

/* ---- what is carried out ---- */

static enum spool_db_result execute_put(struct spool_db *db, struct spool_put_work *put, struct spool_counts *counts)
{
    if (put->result == SPOOL_PUT_FULL)
        return SPOOL_DB_OK;
    counts->waiting++;
    counts->waiting_bytes += put->length;
    enum spool_db_result result = spool_db_put(db, put->payload, put->length, put->arrived_ms, &put->work.sequence);
    counts->last_sequence = put->work.sequence;
    return result;
}

/* For a letter without a message. */
static enum spool_db_result put_nothing(struct spool_db *db, struct spool_counts *counts, int64_t *sequence)
{
    enum spool_db_result result = spool_db_put(db, "", 0, clock_wall_ms(), sequence);
    counts->waiting++;
    counts->last_sequence = *sequence;
    return result;
}

static bool is_over(const struct spool_counts *counts, uint64_t dead_max_bytes)
{
    return counts->dead_bytes + counts->dead * SPOOL_LETTER_BYTES > dead_max_bytes;
}

/* Beyond the bound the oldest rejected letter goes, which may be this one itself; without any the new one is not kept.
 */
static enum spool_db_result execute_dead(struct spool_writer *writer, struct spool_dead_work *dead,
                                         struct spool_counts *counts)
{
    bool found = false;
    uint64_t size = 0;
    int64_t sequence = dead->work.sequence;
    enum spool_db_result result = SPOOL_DB_OK;
    dead->kept = true;
    if (sequence == 0)
        result = put_nothing(&writer->db, counts, &sequence);
    if (result == SPOOL_DB_OK)
        result = spool_db_set_dead(&writer->db, sequence, &dead->disposition, &found, &size);
    counts->waiting -= found;
    counts->waiting_bytes -= size;
    counts->dead += found;
    counts->dead_bytes += size;
    while (result == SPOOL_DB_OK && found && dead->kept && is_over(counts, writer->dead_max_bytes) &&
           counts->rejected_dropped - writer->counts.rejected_dropped < SPOOL_BATCH_DROPS) {
        bool rejected;
        result = spool_db_drop_rejected(&writer->db, &rejected, &size);
        if (result == SPOOL_DB_OK && !rejected)
            result = spool_db_drop_dead(&writer->db, sequence, &found, &size);
        counts->rejected_dropped += rejected;
        counts->not_kept += !rejected;
        dead->kept = rejected;
        counts->dead--;
        counts->dead_bytes -= size;
    }
    return result;
}

static enum spool_db_result execute(struct spool_writer *writer, struct spool_work *work, struct spool_counts *counts)
{
    struct spool_fetch_work *fetch = (struct spool_fetch_work *)work;
    enum spool_db_result result = SPOOL_DB_OK;
    bool found;
    uint64_t size;
    switch (work->kind) {
    case SPOOL_WORK_PUT:
        return execute_put(&writer->db, (struct spool_put_work *)work, counts);
    case SPOOL_WORK_FINISH:
        result = spool_db_finish(&writer->db, work->sequence, &found, &size);
        counts->waiting -= found;
        counts->waiting_bytes -= size;
        return result;
    case SPOOL_WORK_DEAD:
        return execute_dead(writer, (struct spool_dead_work *)work, counts);
    case SPOOL_WORK_FETCH:
        result = spool_db_fetch(&writer->db, work->sequence, fetch->max_messages, fetch->max_bytes, &fetch->batch);
        mark_redelivered(writer, &fetch->batch);
        return result;
    case SPOOL_WORK_GROWN: /* never handed in */
        break;
    }
    return result;
}

/* ---- all of it ---- */

/* Once an hour: that many letters went since the last line. */
static void report_dropped(struct spool_writer *writer)
{
    int64_t now_us = clock_monotonic_us();
    uint64_t dropped = writer->counts.rejected_dropped - writer->warned_dropped;
    if (dropped == 0 || (writer->warned_us != 0 && now_us < writer->warned_us + SPOOL_WARN_US))
        return;
    log_warning(LOG_FIELDS(log_number("letters", dropped)),
                "dead letters are full (spool_dead_max_bytes): the oldest rejected ones were dropped");
    writer->warned_dropped += dropped;
    writer->warned_us = now_us;
}

enum spool_db_result spool_commit(struct spool_writer *writer, struct spool_work_list *batch, bool *wrote)
{
    *wrote = false;
    if (!writer->db.sqlite)
        return SPOOL_DB_DAMAGED; /* as it was before, and no better file could be made */
    enum spool_db_result result = spool_db_begin(&writer->db, STAILQ_FIRST(batch)->kind != SPOOL_WORK_FETCH);
    if (result == SPOOL_DB_OK)
        result = spool_note_growth(writer);
    struct spool_counts counts = writer->counts;
    int before = sqlite3_total_changes(writer->db.sqlite);
    struct spool_work *work;
    STAILQ_FOREACH(work, batch, link)
    {
        if (result == SPOOL_DB_OK)
            result = execute(writer, work, &counts);
    }
    *wrote = sqlite3_total_changes(writer->db.sqlite) != before;
    if (result == SPOOL_DB_OK)
        result = spool_db_commit(&writer->db);
    if (result != SPOOL_DB_OK) {
        spool_db_rollback(&writer->db);
        return result;
    }
    writer->counts = counts;
    if (counts.last_sequence > writer->last_sequence)
        writer->last_sequence = counts.last_sequence;
    report_dropped(writer);
    return SPOOL_DB_OK;
}
