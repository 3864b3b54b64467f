/* SPDX-License-Identifier: MIT */
/*
 * The spool's half on its own thread: group commit, and what to do when the disk refuses or the file is damaged.
 *
 *     GOOD ──a write fails──▶ REFUSES ──a write succeeds──▶ PROVING ──5 s without a failure──▶ GOOD
 *       (CRITICAL line)          ▲ └─ one attempt a second      │              (the line that says it is over)
 *                                └─────────a write fails────────┘
 *
 * While the disk refuses, puts fail at once and a fetch leaves no marks. Finishes and burials wait in `pending`; there
 * cannot be more of them than there are messages in the spool.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "spool_private.h"
#include "spool_recover.h"

enum {
    SPOOL_BATCH_ITEMS = 4096,
    SPOOL_BATCH_BYTES = 16 * 1024 * 1024, /* of puts in one transaction */
    SPOOL_SHRINK_PAGES = 2048             /* at each look, when there is nothing else to do */
};

#define SPOOL_RETRY_US INT64_C(1000000)
#define SPOOL_LOOK_US INT64_C(1000000)
#define SPOOL_PROVING_US INT64_C(5000000)
/* A machine that damages every file must not fill the disk with copies of them. */
#define SPOOL_REPLACE_US INT64_C(60000000)

/* A file that was opened just now: whose rows it has, and since when. */
static enum spool_db_result adopt_database(struct spool_writer *writer)
{
    struct spool_counts counts = writer->counts;
    writer->db.run = writer->run;
    enum spool_db_result result = spool_db_data_version(&writer->db, &writer->data_version);
    if (result == SPOOL_DB_OK)
        result = spool_db_count(&writer->db, &counts);
    if (result == SPOOL_DB_OK)
        writer->counts = counts;
    return result;
}

/* Never that of an earlier process, whose messages would be taken for ours. */
static int64_t new_run(void)
{
    uint64_t bits = (uint64_t)clock_wall_ms() ^ (uint64_t)getpid() << 44;
    if (uv_random(NULL, NULL, &bits, sizeof bits, 0, NULL) != 0)
        log_warning(NULL, "the system has no random numbers: clock and process id take their place");
    return (int64_t)(bits >> 2 | 1);
}

bool spool_writer_prepare(struct spool_writer *writer, struct error *error)
{
    writer->run = new_run();
    enum spool_db_result result = adopt_database(writer);
    writer->counts.writable = true;
    writer->last_sequence = writer->counts.last_sequence;
    writer->look_us = clock_monotonic_us() + SPOOL_LOOK_US;
    return result == SPOOL_DB_OK ||
           error_set(error, ERROR_SPOOL, "the spool's database cannot be read: %s", writer->db.failure);
}

/* Tells the loop: what is done, and the counts that go with it, at once. */
static void publish(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    uint64_t puts = 0;
    uint64_t bytes = 0;
    bool wake = !STAILQ_EMPTY(&writer->done);
    struct spool_work *work;
    STAILQ_FOREACH(work, &writer->done, link)
    {
        const struct spool_put_work *put = (const struct spool_put_work *)work;
        if (work->kind == SPOOL_WORK_PUT && put->result != SPOOL_PUT_FULL) {
            puts++;
            bytes += put->length;
        }
    }
    uv_mutex_lock(&spool->mutex);
    STAILQ_CONCAT(&spool->done, &writer->done);
    spool->counts = writer->counts;
    spool->putting -= puts;
    spool->putting_bytes -= bytes;
    uv_mutex_unlock(&spool->mutex);
    if (wake)
        (void)uv_async_send(&spool->async); /* fails only for a handle that is no async handle */
}

static void note_refusal(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    int64_t now_us = clock_monotonic_us();
    if (writer->disk == SPOOL_DISK_GOOD) {
        writer->refused_us = now_us;
        log_critical(LOG_FIELDS(log_text("error", writer->db.failure)),
                     "spool cannot be written in %s: messages are kept in memory only and would not survive a crash",
                     spool->folder.path);
    }
    writer->disk = SPOOL_DISK_REFUSES;
    writer->try_us = now_us + SPOOL_RETRY_US;
    writer->counts.writable = false;
    if (writer->db.sqlite) /* a lock that somebody holds for long must not hold us up at each attempt */
        (void)sqlite3_busy_timeout(writer->db.sqlite, 100);
}

static void note_success(struct spool_writer *writer)
{
    if (writer->disk != SPOOL_DISK_REFUSES)
        return;
    writer->disk = SPOOL_DISK_PROVING;
    writer->proven_us = clock_monotonic_us() + SPOOL_PROVING_US;
    writer->counts.writable = true;
    (void)sqlite3_busy_timeout(writer->db.sqlite, SPOOL_BUSY_TIMEOUT_MS);
}

static void note_proven(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    writer->disk = SPOOL_DISK_GOOD;
    double seconds = (double)(writer->proven_us - SPOOL_PROVING_US - writer->refused_us) / 1e6;
    log_warning(NULL, "spool can be written again in %s, after %.1f s", spool->folder.path, seconds);
}

/* Counts anew: after changes from outside. */
static enum spool_db_result recount(struct spool_writer *writer)
{
    struct spool_counts counts = writer->counts;
    enum spool_db_result result = spool_db_count(&writer->db, &counts);
    if (result == SPOOL_DB_OK)
        writer->counts = counts;
    return result;
}

/* Rows that this process did not put are told of before anything that comes behind them. */
static enum spool_db_result note_growth(struct spool_writer *writer)
{
    int64_t last = writer->last_sequence;
    uint64_t added = 0;
    enum spool_db_result result = spool_db_count_new(&writer->db, &last, &added);
    if (result != SPOOL_DB_OK || added == 0)
        return result;
    struct spool_grown_work *grown = malloc(sizeof *grown);
    if (!grown)
        return spool_db_judge(&writer->db, SQLITE_NOMEM);
    *grown = (struct spool_grown_work){.work.kind = SPOOL_WORK_GROWN, .added = added};
    STAILQ_INSERT_TAIL(&writer->done, &grown->work, link);
    writer->last_sequence = last;
    return recount(writer);
}

/* Sets the damaged file aside; or, where that could not be finished the last time, looks again at what is there. */
static enum spool_db_result replace_damaged(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    int64_t now_us = clock_monotonic_us();
    if (now_us < writer->replace_us)
        return SPOOL_DB_REFUSED;
    writer->replace_us = now_us + SPOOL_REPLACE_US;
    struct error error = {.code = ERROR_NONE};
    bool open;
    if (writer->db.sqlite) {
        char reason[SPOOL_FAILURE_SIZE];
        (void)snprintf(reason, sizeof reason, "%s", writer->db.failure);
        spool_db_close(&writer->db);
        open = spool_recover_replace(&spool->folder, false, reason, writer->last_sequence, &writer->db, &error);
    } else {
        open = spool_recover_open(&spool->folder, writer->last_sequence, &writer->db, &error);
    }
    if (!open) {
        (void)snprintf(writer->db.failure, sizeof writer->db.failure, "%.*s", SPOOL_FAILURE_SIZE - 1, error.text);
        return SPOOL_DB_REFUSED;
    }
    return adopt_database(writer) == SPOOL_DB_OK ? SPOOL_DB_OK : SPOOL_DB_REFUSED;
}

/* The deltas of one transaction, for the counts once it is committed. */
static enum spool_db_result execute(struct spool_writer *writer, struct spool_work *work, struct spool_counts *counts)
{
    struct spool_put_work *put = (struct spool_put_work *)work;
    struct spool_bury_work *bury = (struct spool_bury_work *)work;
    struct spool_fetch_work *fetch = (struct spool_fetch_work *)work;
    enum spool_db_result result = SPOOL_DB_OK;
    bool found = false;
    uint64_t size = 0;
    switch (work->kind) {
    case SPOOL_WORK_PUT:
        if (put->result == SPOOL_PUT_FULL)
            return SPOOL_DB_OK;
        result = spool_db_put(&writer->db, put->payload, put->length, put->arrived_ms, put->attempted, &work->sequence);
        counts->waiting++;
        counts->waiting_bytes += put->length;
        counts->last_sequence = work->sequence;
        return result;
    case SPOOL_WORK_FINISH:
        result = spool_db_finish(&writer->db, work->sequence, &found, &size);
        break;
    case SPOOL_WORK_BURY:
        result = spool_db_bury(&writer->db, work->sequence, &bury->epitaph, &found, &size);
        counts->dead += found;
        counts->dead_bytes += size;
        break;
    case SPOOL_WORK_RESOLVE:
        return spool_db_resolve(&writer->db, ((struct spool_resolve_work *)work)->prompt_id);
    case SPOOL_WORK_GROWN: /* never handed in */
        return SPOOL_DB_OK;
    case SPOOL_WORK_FETCH:
        return spool_db_fetch(&writer->db, work->sequence, fetch->max_messages, fetch->max_bytes, &fetch->batch);
    }
    counts->waiting -= found;
    counts->waiting_bytes -= size;
    return result;
}

static void undo_fetches(struct spool_work_list *batch)
{
    struct spool_work *work;
    STAILQ_FOREACH(work, batch, link)
    {
        if (work->kind == SPOOL_WORK_FETCH)
            spool_batch_free(&((struct spool_fetch_work *)work)->batch);
    }
}

/* All of the batch, or nothing of it. */
static enum spool_db_result commit_batch(struct spool_writer *writer, struct spool_work_list *batch)
{
    if (!writer->db.sqlite)
        return SPOOL_DB_DAMAGED; /* as it was before, and no better file could be made */
    enum spool_db_result result = spool_db_begin(&writer->db);
    if (result == SPOOL_DB_OK)
        result = note_growth(writer);
    struct spool_counts counts = writer->counts;
    int before = sqlite3_total_changes(writer->db.sqlite);
    struct spool_work *work;
    STAILQ_FOREACH(work, batch, link)
    {
        if (result == SPOOL_DB_OK)
            result = execute(writer, work, &counts);
    }
    bool wrote = sqlite3_total_changes(writer->db.sqlite) != before;
    if (result == SPOOL_DB_OK)
        result = spool_db_commit(&writer->db);
    if (result != SPOOL_DB_OK) {
        spool_db_rollback(&writer->db);
        undo_fetches(batch);
        return result;
    }
    writer->counts = counts;
    if (counts.last_sequence > writer->last_sequence)
        writer->last_sequence = counts.last_sequence;
    if (wrote)
        note_success(writer);
    return SPOOL_DB_OK;
}

/* The next transaction's work: puts and a fetch in their order, bounded in items and bytes. */
static void take_batch(struct spool_writer *writer, struct spool_work_list *batch)
{
    size_t items = 0;
    size_t bytes = 0;
    struct spool_work *work;
    while ((work = STAILQ_FIRST(&writer->pending)) && items < SPOOL_BATCH_ITEMS) {
        size_t length = work->kind == SPOOL_WORK_PUT ? ((struct spool_put_work *)work)->length : 0;
        if (bytes > 0 && bytes + length > SPOOL_BATCH_BYTES)
            break;
        bytes += length;
        items++;
        STAILQ_REMOVE_HEAD(&writer->pending, link);
        STAILQ_INSERT_TAIL(batch, work, link);
    }
}

/*
 * The database may be there while the disk is full: what is on disk must not wait for room to mark it as attempted.
 * That a crash would not be survived as it should stands in the log.
 */
static bool read_unmarked(struct spool_writer *writer, struct spool_work *work)
{
    struct spool_fetch_work *fetch = (struct spool_fetch_work *)work;
    return writer->db.sqlite && spool_db_read(&writer->db, work->sequence, fetch->max_messages, fetch->max_bytes,
                                              &fetch->batch) == SPOOL_DB_OK;
}

/* Puts have failed, a fetch is served all the same; the rest of the list waits for a better time, in its order. */
static void split_refused(struct spool_writer *writer, struct spool_work_list *list, struct spool_work_list *kept)
{
    struct spool_work *work;
    while ((work = STAILQ_FIRST(list))) {
        STAILQ_REMOVE_HEAD(list, link);
        struct spool_put_work *put = (struct spool_put_work *)work;
        bool done = work->kind == SPOOL_WORK_PUT || (work->kind == SPOOL_WORK_FETCH && read_unmarked(writer, work));
        if (work->kind == SPOOL_WORK_PUT && put->result == SPOOL_PUT_OK)
            put->result = SPOOL_PUT_FAILED;
        if (done)
            STAILQ_INSERT_TAIL(&writer->done, work, link);
        else
            STAILQ_INSERT_TAIL(kept, work, link);
    }
}

/* Finishes and burials have no callback: they end here. */
static void split_committed(struct spool_work_list *list, struct spool_work_list *done)
{
    struct spool_work *work;
    while ((work = STAILQ_FIRST(list))) {
        STAILQ_REMOVE_HEAD(list, link);
        if (work->kind == SPOOL_WORK_PUT || work->kind == SPOOL_WORK_FETCH)
            STAILQ_INSERT_TAIL(done, work, link);
        else
            free(work);
    }
}

static void run_batch(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    struct spool_work_list batch = STAILQ_HEAD_INITIALIZER(batch);
    take_batch(writer, &batch);
    enum spool_db_result result = commit_batch(writer, &batch);
    if (result == SPOOL_DB_DAMAGED && replace_damaged(spool) == SPOOL_DB_OK)
        result = commit_batch(writer, &batch);
    if (result == SPOOL_DB_OK) {
        split_committed(&batch, &writer->done);
    } else {
        struct spool_work_list kept = STAILQ_HEAD_INITIALIZER(kept);
        note_refusal(spool);
        split_refused(writer, &batch, &kept);
        split_refused(writer, &writer->pending, &kept);
        STAILQ_CONCAT(&writer->pending, &kept);
    }
    publish(spool);
}

/* Without work there is no other way to learn that the disk is good again. */
static void probe(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    enum spool_db_result result = writer->db.sqlite ? spool_db_probe(&writer->db) : replace_damaged(spool);
    if (result == SPOOL_DB_OK)
        note_success(writer);
    else
        note_refusal(spool);
}

static enum spool_db_result look_at_database(struct spool_writer *writer)
{
    int64_t version = writer->data_version;
    enum spool_db_result result = spool_db_data_version(&writer->db, &version);
    if (result == SPOOL_DB_OK && version != writer->data_version) {
        result = recount(writer);
        if (result == SPOOL_DB_OK)
            result = note_growth(writer);
        if (result == SPOOL_DB_OK)
            writer->data_version = version;
    }
    if (result == SPOOL_DB_OK && writer->disk == SPOOL_DISK_GOOD)
        result = spool_db_shrink(&writer->db, SPOOL_SHRINK_PAGES);
    return result;
}

/* Once a second: what promptctl has done, and space to give back. What is refused is done at the next look. */
static void look_around(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    if (writer->db.sqlite && look_at_database(writer) == SPOOL_DB_DAMAGED && replace_damaged(spool) != SPOOL_DB_OK)
        note_refusal(spool);
}

/* What is due; afterwards nothing is, but what has a time. */
static void work_off(struct spool *spool, struct spool_work_list *incoming, bool closing)
{
    struct spool_writer *writer = &spool->writer;
    int64_t now_us = clock_monotonic_us();
    bool may_try = writer->disk != SPOOL_DISK_REFUSES || now_us >= writer->try_us || closing;
    if (may_try) {
        STAILQ_CONCAT(&writer->pending, incoming);
        if (STAILQ_EMPTY(&writer->pending) && writer->disk == SPOOL_DISK_REFUSES && !closing)
            probe(spool);
    } else {
        split_refused(writer, incoming, &writer->pending);
    }
    while (may_try && !STAILQ_EMPTY(&writer->pending)) {
        run_batch(spool);
        may_try = writer->disk != SPOOL_DISK_REFUSES;
    }
    if (writer->disk == SPOOL_DISK_PROVING && (closing || now_us >= writer->proven_us))
        note_proven(spool);
    if (now_us >= writer->look_us && !closing) {
        writer->look_us = now_us + SPOOL_LOOK_US;
        look_around(spool);
    }
    publish(spool);
}

/* When to wake up without being called. */
static int64_t next_due(const struct spool_writer *writer)
{
    int64_t due_us = writer->look_us;
    if (writer->disk == SPOOL_DISK_REFUSES && writer->try_us < due_us)
        due_us = writer->try_us;
    if (writer->disk == SPOOL_DISK_PROVING && writer->proven_us < due_us)
        due_us = writer->proven_us;
    return due_us;
}

static void wait_for_work(struct spool *spool)
{
    int64_t due_us = next_due(&spool->writer);
    while (STAILQ_EMPTY(&spool->queue) && !spool->closing) {
        int64_t rest_us = due_us - clock_monotonic_us();
        if (rest_us <= 0)
            return;
        (void)uv_cond_timedwait(&spool->wake, &spool->mutex, (uint64_t)rest_us * 1000);
    }
}

/* A fetch that has not begun is dropped; its item belongs to the spool. */
static void drop_fetches(struct spool_work_list *list)
{
    struct spool_work_list kept = STAILQ_HEAD_INITIALIZER(kept);
    struct spool_work *work;
    while ((work = STAILQ_FIRST(list))) {
        STAILQ_REMOVE_HEAD(list, link);
        if (work->kind != SPOOL_WORK_FETCH)
            STAILQ_INSERT_TAIL(&kept, work, link);
    }
    STAILQ_CONCAT(list, &kept);
}

static void drop_rest(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    uint64_t count = 0;
    struct spool_work *work;
    while ((work = STAILQ_FIRST(&writer->pending))) {
        STAILQ_REMOVE_HEAD(&writer->pending, link);
        free(work);
        count++;
    }
    if (count > 0)
        log_error(LOG_FIELDS(log_text("error", writer->db.failure)),
                  "spool could not be written to the end: %" PRIu64
                  " messages that are done with will be taken up again at the next start",
                  count);
}

void spool_writer_run(void *argument)
{
    struct spool *spool = argument;
    bool closing = false;
    while (!closing) {
        struct spool_work_list incoming = STAILQ_HEAD_INITIALIZER(incoming);
        uv_mutex_lock(&spool->mutex);
        wait_for_work(spool);
        STAILQ_CONCAT(&incoming, &spool->queue);
        closing = spool->closing;
        uv_mutex_unlock(&spool->mutex);
        if (closing) {
            drop_fetches(&incoming);
            drop_fetches(&spool->writer.pending);
        }
        work_off(spool, &incoming, closing);
    }
    drop_rest(spool);
    spool_db_close(&spool->writer.db);
    uv_mutex_lock(&spool->mutex);
    spool->stopped = true;
    uv_mutex_unlock(&spool->mutex);
    (void)uv_async_send(&spool->async);
}
