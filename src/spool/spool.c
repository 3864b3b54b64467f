/* SPDX-License-Identifier: MIT */
/* The spool's half on the loop: takes the calls, hands them to the writer's thread, and calls back. */
#include "promptd/spool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "spool_private.h"
#include "spool_repair.h"

static void enqueue(struct spool *spool, struct spool_work *work)
{
    uv_mutex_lock(&spool->mutex);
    assert(!spool->closing);
    bool idle = STAILQ_EMPTY(&spool->queue);
    STAILQ_INSERT_TAIL(&spool->queue, work, link);
    uv_mutex_unlock(&spool->mutex);
    if (idle && !spool->calling_back)
        uv_cond_signal(&spool->wake);
}

bool spool_put(struct spool *spool, const char *payload, size_t length, void *token)
{
    struct spool_put_work *put = malloc(sizeof *put);
    if (!put)
        return false;
    *put = (struct spool_put_work){
        .work.kind = SPOOL_WORK_PUT,
        .result = SPOOL_PUT_OK,
        .payload = payload,
        .length = length,
        .arrived_ms = clock_wall_ms(),
        .token = token,
    };
    uv_mutex_lock(&spool->mutex);
    uint64_t used = spool->counts.waiting_bytes + spool->putting_bytes;
    uint64_t max_bytes = spool->options.limits.waiting_bytes;
    if (used > max_bytes || length > max_bytes - used || length > SPOOL_PAYLOAD_MAX) {
        put->result = SPOOL_PUT_FULL;
    } else {
        spool->putting++;
        spool->putting_bytes += length;
    }
    uv_mutex_unlock(&spool->mutex);
    enqueue(spool, &put->work);
    return true;
}

void spool_fetch(struct spool *spool, int64_t after, size_t max_messages, size_t max_bytes)
{
    assert(!spool->fetching);
    struct spool_fetch_work *fetch = spool->fetch;
    spool->fetching = true;
    *fetch = (struct spool_fetch_work){
        .work = {.kind = SPOOL_WORK_FETCH, .sequence = after},
        .max_messages = max_messages,
        .max_bytes = max_bytes,
    };
    enqueue(spool, &fetch->work);
}

/* The message is still in the spool, and the next start takes it up again. */
static void report_no_memory(int64_t sequence)
{
    log_error(
        LOG_FIELDS(log_number("sequence", sequence)),
        "out of memory: the outcome of a message could not be noted; it will be taken up again at the next start");
}

void spool_finish(struct spool *spool, int64_t sequence)
{
    struct spool_work *work = malloc(sizeof *work);
    if (!work) {
        report_no_memory(sequence);
        return;
    }
    *work = (struct spool_work){.kind = SPOOL_WORK_FINISH, .sequence = sequence};
    enqueue(spool, work);
}

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static const char *keep_text(char **room, const char *text)
{
    if (!text)
        return NULL;
    char *kept = *room;
    *room = stpcpy(kept, text) + 1;
    return kept;
}

static bool enqueue_dead(struct spool *spool, int64_t sequence, const struct disposition *disposition)
{
    size_t texts = text_size(disposition->outcome) + text_size(disposition->reason) + text_size(disposition->sqlstate) +
                   text_size(disposition->error);
    struct spool_dead_work *dead = malloc(sizeof *dead + texts);
    if (!dead)
        return false;
    char *room = dead->texts;
    dead->work = (struct spool_work){.kind = SPOOL_WORK_DEAD, .sequence = sequence};
    dead->disposition = *disposition;
    dead->disposition.outcome = keep_text(&room, disposition->outcome);
    dead->disposition.reason = keep_text(&room, disposition->reason);
    dead->disposition.sqlstate = keep_text(&room, disposition->sqlstate);
    dead->disposition.error = keep_text(&room, disposition->error);
    enqueue(spool, &dead->work);
    return true;
}

void spool_set_dead(struct spool *spool, int64_t sequence, const struct disposition *disposition)
{
    if (!enqueue_dead(spool, sequence, disposition))
        report_no_memory(sequence);
}

/* Once an hour: each message has its own line. */
static void report_not_added(struct spool *spool)
{
    int64_t now_us = clock_monotonic_us();
    if (spool->warned_us == 0 || now_us >= spool->warned_us + SPOOL_WARN_US) {
        spool->warned_us = now_us;
        log_error(NULL, "the disk does not keep up: messages that were not read leave no dead letter");
    }
}

void spool_add_dead(struct spool *spool, const struct disposition *disposition)
{
    uv_mutex_lock(&spool->mutex);
    bool has_room = spool->adding < SPOOL_ADDING_MAX;
    spool->adding += has_room;
    uv_mutex_unlock(&spool->mutex);
    if (has_room && enqueue_dead(spool, 0, disposition))
        return;
    uv_mutex_lock(&spool->mutex);
    spool->adding -= has_room;
    spool->not_added++;
    uv_mutex_unlock(&spool->mutex);
    report_not_added(spool);
}

void spool_set_limits(struct spool *spool, const struct spool_limits *limits)
{
    uv_mutex_lock(&spool->mutex);
    spool->options.limits = *limits;
    uv_mutex_unlock(&spool->mutex);
}

struct spool_counts spool_counts(const struct spool *spool)
{
    struct spool *locked = (struct spool *)spool; /* a lock is no change that a caller could see */
    uv_mutex_lock(&locked->mutex);
    struct spool_counts counts = spool->counts;
    counts.not_kept += spool->not_added;
    counts.waiting += spool->putting;
    counts.waiting_bytes += spool->putting_bytes;
    uv_mutex_unlock(&locked->mutex);
    return counts;
}

/* The item is gone before its callback, which may ask for more. */
static void call_back(struct spool *spool, struct spool_work *work)
{
    const struct spool_options *options = &spool->options;
    if (work->kind == SPOOL_WORK_PUT) {
        const struct spool_put_work put = *(struct spool_put_work *)work;
        free(work);
        options->on_put(options->context, put.token, put.result, put.result == SPOOL_PUT_OK ? put.work.sequence : 0);
    } else if (work->kind == SPOOL_WORK_GROWN) {
        uint64_t added = ((struct spool_grown_work *)work)->added;
        free(work);
        options->on_grown(options->context, added);
    } else {
        struct spool_batch batch = spool->fetch->batch;
        spool->fetching = false;
        options->on_fetched(options->context, spool_batch_entries(&batch), batch.count, batch.end);
        spool_batch_free(&batch);
    }
}

static void free_spool(struct spool *spool)
{
    spool_folder_close(&spool->folder);
    uv_cond_destroy(&spool->wake);
    uv_mutex_destroy(&spool->mutex);
    free(spool->fetch);
    free(spool);
}

static void on_async_closed(uv_handle_t *handle)
{
    struct spool *spool = handle->data;
    void (*on_closed)(void *) = spool->on_closed;
    void *context = spool->closed_context;
    free_spool(spool);
    on_closed(context);
}

static void on_async(uv_async_t *handle)
{
    struct spool *spool = handle->data;
    struct spool_work_list done = STAILQ_HEAD_INITIALIZER(done);
    uv_mutex_lock(&spool->mutex);
    STAILQ_CONCAT(&done, &spool->done);
    bool stopped = spool->stopped;
    uv_mutex_unlock(&spool->mutex);

    struct spool_work *work;
    spool->calling_back = true;
    while ((work = STAILQ_FIRST(&done))) {
        STAILQ_REMOVE_HEAD(&done, link);
        call_back(spool, work);
    }
    spool->calling_back = false;
    uv_cond_signal(&spool->wake); /* for nothing, at worst */
    if (stopped) {
        (void)uv_thread_join(&spool->thread);
        uv_close((uv_handle_t *)&spool->async, on_async_closed);
    }
}

void spool_close(struct spool *spool, void (*on_closed)(void *context), void *context)
{
    spool->on_closed = on_closed;
    spool->closed_context = context;
    uv_mutex_lock(&spool->mutex);
    spool->closing = true;
    uv_mutex_unlock(&spool->mutex);
    uv_cond_signal(&spool->wake);
}

/* The loop still knows the handle: the memory goes when that is over. */
static void on_async_abandoned(uv_handle_t *handle)
{
    free_spool(handle->data);
}

/* false: the spool is gone, or goes with its handle. */
static bool start_thread(struct spool *spool, struct error *error)
{
    int code = uv_async_init(spool->options.loop, &spool->async, on_async);
    if (code != 0) {
        spool_db_close(&spool->writer.db);
        free_spool(spool);
        return error_set(error, ERROR_INTERNAL, "the spool cannot wake the loop: %s", uv_strerror(code));
    }
    spool->async.data = spool;
    code = uv_thread_create(&spool->thread, spool_writer_run, spool);
    if (code == 0)
        return true;
    spool_db_close(&spool->writer.db);
    spool_folder_close(&spool->folder);
    uv_close((uv_handle_t *)&spool->async, on_async_abandoned);
    return error_set(error, ERROR_INTERNAL, "the spool's thread cannot be started: %s", uv_strerror(code));
}

static struct spool *new_spool(const struct spool_options *options, struct error *error)
{
    struct spool *spool = calloc(1, sizeof *spool);
    struct spool_fetch_work *fetch = malloc(sizeof *fetch);
    bool mutex = spool && fetch && uv_mutex_init(&spool->mutex) == 0;
    if (!mutex || uv_cond_init(&spool->wake) != 0) {
        if (mutex)
            uv_mutex_destroy(&spool->mutex);
        free(spool);
        free(fetch);
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    spool->fetch = fetch;
    spool->folder = (struct spool_folder){.fd = -1, .lock_fd = -1};
    spool->options = *options;
    spool->options.directory = NULL; /* the folder has its own copy */
    STAILQ_INIT(&spool->queue);
    STAILQ_INIT(&spool->done);
    STAILQ_INIT(&spool->writer.pending);
    STAILQ_INIT(&spool->writer.done);
    return spool;
}

struct spool *spool_open(const struct spool_options *options, struct error *error)
{
    struct spool *spool = new_spool(options, error);
    if (!spool)
        return NULL;
    if (!spool_folder_open(&spool->folder, options->directory, error) ||
        !spool_repair_open(&spool->folder, 0, &spool->writer.db, error) ||
        !spool_writer_prepare(&spool->writer, error)) {
        spool_db_close(&spool->writer.db);
        free_spool(spool);
        return NULL;
    }
    spool_folder_note_file(&spool->folder);
    spool->counts = spool->writer.counts;
    const struct spool_counts *counts = &spool->counts;
    log_info(LOG_FIELDS(log_number("waiting", counts->waiting), log_number("bytes", counts->waiting_bytes),
                        log_number("dead", counts->dead)),
             "spool open in %s", spool->folder.path);
    if (!start_thread(spool, error)) /* which has freed it */
        return NULL;
    return spool; /* NOLINT(clang-analyzer-unix.Malloc): the analyzer forgets what start_thread returned */
}
