/* SPDX-License-Identifier: MIT */
/*
 * The spool's half on its own thread: group commit, and what to do when the disk refuses or the file is damaged.
 *
 *     GOOD ──a write fails──▶ REFUSES ──a write succeeds──▶ PROVING ──5 s without a failure──▶ GOOD
 *       (CRITICAL line)          ▲ └─ one attempt a second      │              (the line that says it is over)
 *                                └─────────a write fails────────┘
 *
 * While the disk refuses, puts fail at once and fetches go on, for they only read. What has ended waits in `pending`;
 * there cannot be more of it than there are messages in the spool.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "spool_private.h"
#include "spool_repair.h"

enum {
    SPOOL_BATCH_BYTES = 16 * 1024 * 1024, /* of puts in one transaction */
    SPOOL_SHRINK_PAGES = 2048             /* at each look, when there is nothing else to do */
};

#define SPOOL_RETRY_US INT64_C(1000000)
#define SPOOL_LOOK_US INT64_C(1000000)
#define SPOOL_PROVING_US INT64_C(5000000)
/* A machine that damages every file must not fill the disk with copies of them. */
#define SPOOL_REPLACE_US INT64_C(60000000)

/* ---- the disk ---- */

static void set_disk(struct spool *spool, enum spool_disk next)
{
    struct spool_writer *writer = &spool->writer;
    enum spool_disk before = writer->disk;
    int64_t now_us = clock_monotonic_us();
    assert(next == SPOOL_DISK_REFUSES || (next == SPOOL_DISK_PROVING && before == SPOOL_DISK_REFUSES) ||
           (next == SPOOL_DISK_GOOD && before == SPOOL_DISK_PROVING));
    writer->disk = next;
    writer->counts.writable = next != SPOOL_DISK_REFUSES;
    if (before == SPOOL_DISK_GOOD) {
        writer->refused_us = now_us;
        log_critical(LOG_FIELDS(log_text("error", writer->db.failure)),
                     "spool cannot be written in %s: messages are kept in memory only and would not survive a crash",
                     spool->folder.path);
    } else if (next == SPOOL_DISK_PROVING) {
        log_debug(NULL, "spool has taken a write");
    } else if (next == SPOOL_DISK_GOOD) {
        double seconds = (double)(writer->disk_due_us - SPOOL_PROVING_US - writer->refused_us) / 1e6;
        log_warning(NULL, "spool can be written again in %s, after %.1f s", spool->folder.path, seconds);
    } else {
        log_debug(LOG_FIELDS(log_text("error", writer->db.failure)), "spool still cannot be written");
    }
    writer->disk_due_us = now_us + (next == SPOOL_DISK_REFUSES ? SPOOL_RETRY_US : SPOOL_PROVING_US);
    /* A lock that somebody holds for long must not hold us up at each attempt. */
    writer->db.patience_ms = next == SPOOL_DISK_REFUSES ? 100 : SPOOL_BUSY_TIMEOUT_MS;
}

/* ---- the database ---- */

static enum spool_db_result adopt_database(struct spool_writer *writer)
{
    enum spool_db_result result = spool_db_data_version(&writer->db, &writer->data_version);
    return result == SPOOL_DB_OK ? spool_recount(writer) : result;
}

bool spool_writer_prepare(struct spool_writer *writer, struct error *error)
{
    enum spool_db_result result = adopt_database(writer);
    writer->counts.writable = true;
    writer->counts.in_place = true;
    writer->last_sequence = writer->counts.last_sequence;
    writer->foreign[0] = (struct spool_range){.first = 1, .last = writer->last_sequence};
    writer->foreign_count = 1;
    writer->look_us = clock_monotonic_us() + SPOOL_LOOK_US;
    writer->not_kept = (struct log_rate){.burst = 10000, .per_second = 1000};
    return result == SPOOL_DB_OK ||
           error_set(error, ERROR_SPOOL, "the spool's database cannot be read: %s", writer->db.failure);
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
        open = spool_repair_replace(&spool->folder, false, reason, writer->last_sequence, &writer->db, &error);
    } else {
        open = spool_repair_open(&spool->folder, writer->last_sequence, &writer->db, &error);
    }
    spool_folder_note_file(&spool->folder);
    if (!open) {
        (void)snprintf(writer->db.failure, sizeof writer->db.failure, "%.*s", SPOOL_FAILURE_SIZE - 1, error.text);
        return SPOOL_DB_REFUSED;
    }
    return adopt_database(writer) == SPOOL_DB_OK ? SPOOL_DB_OK : SPOOL_DB_REFUSED;
}

/* SQLite goes on with what it has opened, also when that has no name any more, or another promptd has the folder. */
static bool look_at_folder(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    const char *missing = spool_folder_missing(&spool->folder);
    writer->counts.in_place = !missing;
    if (missing)
        (void)snprintf(writer->db.failure, sizeof writer->db.failure, "%s", missing);
    return !missing;
}

/* ---- batches ---- */

static enum spool_db_result commit_batch(struct spool *spool, struct spool_work_list *batch)
{
    bool wrote;
    if (STAILQ_FIRST(batch)->kind != SPOOL_WORK_FETCH && !look_at_folder(spool))
        return SPOOL_DB_REFUSED;
    enum spool_db_result result = spool_commit(&spool->writer, batch, &wrote);
    if (result == SPOOL_DB_OK && wrote && spool->writer.disk == SPOOL_DISK_REFUSES)
        set_disk(spool, SPOOL_DISK_PROVING);
    return result;
}

/* The next transaction's work, in the order of the calls, bounded in items and bytes. A fetch stands alone. */
static void take_batch(struct spool_writer *writer, struct spool_work_list *batch)
{
    size_t items = 0;
    size_t bytes = 0;
    bool fetch = false;
    struct spool_work *work;
    while ((work = STAILQ_FIRST(&writer->pending)) && items < SPOOL_BATCH_ITEMS && !fetch) {
        size_t length = work->kind == SPOOL_WORK_PUT ? ((struct spool_put_work *)work)->length : 0;
        fetch = work->kind == SPOOL_WORK_FETCH;
        if (items > 0 && (fetch || bytes + length > SPOOL_BATCH_BYTES))
            break;
        bytes += length;
        items++;
        STAILQ_REMOVE_HEAD(&writer->pending, link);
        STAILQ_INSERT_TAIL(batch, work, link);
    }
}

static void report_not_kept(struct spool_writer *writer, const struct disposition *disposition)
{
    char interview[UUID_TEXT_SIZE];
    if (!log_rate_allows(&writer->not_kept, clock_monotonic_us()))
        return;
    uuid_format(disposition->interview_id, interview);
    log_error(LOG_FIELDS(log_text("interview_id", disposition->has_interview_id ? interview : NULL),
                         log_text("outcome", disposition->outcome)),
              "dead letters are full (spool_dead_max_bytes): a message is not kept");
}

static void sum_up_not_kept(struct spool_writer *writer)
{
    uint64_t held_back = log_rate_take_held_back(&writer->not_kept);
    if (held_back > 0)
        log_error(LOG_FIELDS(log_number("messages", held_back)),
                  "dead letters are full (spool_dead_max_bytes): more messages not kept than lines are written");
}

/* What has ended has no callback: it ends here. */
static void split_committed(struct spool_writer *writer, struct spool_work_list *list)
{
    struct spool_work *work;
    while ((work = STAILQ_FIRST(list))) {
        STAILQ_REMOVE_HEAD(list, link);
        if (work->kind == SPOOL_WORK_PUT || work->kind == SPOOL_WORK_FETCH) {
            STAILQ_INSERT_TAIL(&writer->done, work, link);
            continue;
        }
        const struct spool_dead_work *dead = (const struct spool_dead_work *)work;
        if (work->kind == SPOOL_WORK_DEAD && !dead->kept)
            report_not_kept(writer, &dead->disposition);
        writer->added += work->kind == SPOOL_WORK_DEAD && work->sequence == 0;
        free(work);
    }
}

/* Puts have failed, a fetch is served all the same; the rest of the list waits for a better time, in its order. */
static void split_refused(struct spool *spool, struct spool_work_list *list, struct spool_work_list *kept)
{
    struct spool_work *work;
    while ((work = STAILQ_FIRST(list))) {
        struct spool_put_work *put = (struct spool_put_work *)work;
        struct spool_work_list one = STAILQ_HEAD_INITIALIZER(one);
        STAILQ_REMOVE_HEAD(list, link);
        STAILQ_INSERT_TAIL(&one, work, link);
        bool done = work->kind == SPOOL_WORK_PUT ||
                    (work->kind == SPOOL_WORK_FETCH && commit_batch(spool, &one) == SPOOL_DB_OK);
        if (work->kind == SPOOL_WORK_PUT && put->result == SPOOL_PUT_OK)
            put->result = SPOOL_PUT_FAILED;
        if (done)
            STAILQ_CONCAT(&spool->writer.done, &one);
        else
            STAILQ_CONCAT(kept, &one);
    }
}

/* ---- the thread ---- */

/* Hands to the loop what is done, and the counts that go with it, at once. */
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
    spool->adding -= writer->added;
    spool->putting -= puts;
    spool->putting_bytes -= bytes;
    uv_mutex_unlock(&spool->mutex);
    writer->added = 0;
    if (wake)
        (void)uv_async_send(&spool->async); /* fails only for a handle that is no async handle */
}

static void run_batch(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    struct spool_work_list batch = STAILQ_HEAD_INITIALIZER(batch);
    take_batch(writer, &batch);
    enum spool_db_result result = commit_batch(spool, &batch);
    if (result == SPOOL_DB_DAMAGED && replace_damaged(spool) == SPOOL_DB_OK)
        result = commit_batch(spool, &batch);
    if (result == SPOOL_DB_OK) {
        split_committed(writer, &batch);
    } else {
        struct spool_work_list kept = STAILQ_HEAD_INITIALIZER(kept);
        set_disk(spool, SPOOL_DISK_REFUSES);
        split_refused(spool, &batch, &kept);
        split_refused(spool, &writer->pending, &kept);
        STAILQ_CONCAT(&writer->pending, &kept);
    }
    publish(spool);
}

/* Without work there is no other way to learn that the disk is good again. */
static void probe(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    enum spool_db_result result = SPOOL_DB_REFUSED;
    if (look_at_folder(spool))
        result = writer->db.sqlite ? spool_db_probe(&writer->db) : replace_damaged(spool);
    set_disk(spool, result == SPOOL_DB_OK ? SPOOL_DISK_PROVING : SPOOL_DISK_REFUSES);
}

static enum spool_db_result look_at_database(struct spool_writer *writer)
{
    int64_t version = writer->data_version;
    enum spool_db_result result = spool_db_data_version(&writer->db, &version);
    if (result == SPOOL_DB_OK && version != writer->data_version) {
        result = spool_recount(writer);
        if (result == SPOOL_DB_OK)
            result = spool_note_growth(writer);
        if (result == SPOOL_DB_OK)
            writer->data_version = version;
    }
    if (result == SPOOL_DB_OK && writer->disk == SPOOL_DISK_GOOD)
        result = spool_db_shrink(&writer->db, SPOOL_SHRINK_PAGES);
    return result;
}

/* Once a second: whether all is in place, what promptctl has done, and space to give back. What is refused is done at
 * the next look. */
static void look_around(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    sum_up_not_kept(writer);
    bool in_place = writer->disk == SPOOL_DISK_REFUSES || look_at_folder(spool); /* else it is looked at by itself */
    if (!in_place ||
        (writer->db.sqlite && look_at_database(writer) == SPOOL_DB_DAMAGED && replace_damaged(spool) != SPOOL_DB_OK))
        set_disk(spool, SPOOL_DISK_REFUSES);
}

/* What is due; afterwards nothing is, but what has a time. */
static void work_off(struct spool *spool, struct spool_work_list *incoming, bool closing)
{
    struct spool_writer *writer = &spool->writer;
    int64_t now_us = clock_monotonic_us();
    bool may_try = writer->disk != SPOOL_DISK_REFUSES || now_us >= writer->disk_due_us || closing;
    if (may_try) {
        STAILQ_CONCAT(&writer->pending, incoming);
        if (STAILQ_EMPTY(&writer->pending) && writer->disk == SPOOL_DISK_REFUSES && !closing)
            probe(spool);
    } else {
        split_refused(spool, incoming, &writer->pending);
    }
    while (may_try && !STAILQ_EMPTY(&writer->pending)) {
        run_batch(spool);
        may_try = writer->disk != SPOOL_DISK_REFUSES;
    }
    if (writer->disk == SPOOL_DISK_PROVING && (closing || now_us >= writer->disk_due_us))
        set_disk(spool, SPOOL_DISK_GOOD);
    if (now_us >= writer->look_us && !closing) {
        writer->look_us = now_us + SPOOL_LOOK_US;
        look_around(spool);
    }
    publish(spool);
}

/* Until there is work, or something is due by itself. */
static void wait_for_work(struct spool *spool)
{
    const struct spool_writer *writer = &spool->writer;
    int64_t due_us = writer->look_us;
    if (writer->disk != SPOOL_DISK_GOOD && writer->disk_due_us < due_us)
        due_us = writer->disk_due_us;
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
    if (count > 0 && writer->counts.in_place)
        log_error(LOG_FIELDS(log_text("error", writer->db.failure)),
                  "spool could not be written to the end: %" PRIu64
                  " messages that are done with will be taken up again at the next start",
                  count);
    if (!writer->counts.in_place && writer->counts.waiting > count)
        log_critical(LOG_FIELDS(log_number("messages", writer->counts.waiting - count)),
                     "the spool is gone, and with it the messages that waited there");
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
        spool->writer.dead_max_bytes = spool->options.limits.dead_bytes;
        uv_mutex_unlock(&spool->mutex);
        if (closing) {
            drop_fetches(&incoming);
            drop_fetches(&spool->writer.pending);
        }
        work_off(spool, &incoming, closing);
    }
    drop_rest(spool);
    sum_up_not_kept(&spool->writer);
    spool_db_close(&spool->writer.db);
    uv_mutex_lock(&spool->mutex);
    spool->stopped = true;
    uv_mutex_unlock(&spool->mutex);
    (void)uv_async_send(&spool->async);
}
