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
#include "spool_recover.h"

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

bool spool_put(struct spool *spool, const char *payload, size_t length, bool attempted, void *token)
{
    struct spool_put_work *put = malloc(sizeof *put);
    if (!put)
        return false;
    *put = (struct spool_put_work){
        .work.kind = SPOOL_WORK_PUT,
        .result = SPOOL_PUT_OK,
        .attempted = attempted,
        .payload = payload,
        .length = length,
        .arrived_ms = clock_wall_ms(),
        .token = token,
    };
    uv_mutex_lock(&spool->mutex);
    uint64_t used = spool->counts.waiting_bytes + spool->counts.dead_bytes + spool->putting_bytes;
    uint64_t max_bytes = spool->options.max_bytes;
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
        "memory is out: the outcome of a message could not be noted; it will be taken up again at the next start");
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

void spool_bury(struct spool *spool, int64_t sequence, const struct spool_epitaph *epitaph)
{
    size_t texts = text_size(epitaph->outcome) + text_size(epitaph->reason) + text_size(epitaph->sqlstate) +
                   text_size(epitaph->error);
    struct spool_bury_work *bury = malloc(sizeof *bury + texts);
    if (!bury) {
        report_no_memory(sequence);
        return;
    }
    char *room = bury->texts;
    bury->work = (struct spool_work){.kind = SPOOL_WORK_BURY, .sequence = sequence};
    bury->epitaph = *epitaph;
    bury->epitaph.outcome = keep_text(&room, epitaph->outcome);
    bury->epitaph.reason = keep_text(&room, epitaph->reason);
    bury->epitaph.sqlstate = keep_text(&room, epitaph->sqlstate);
    bury->epitaph.error = keep_text(&room, epitaph->error);
    enqueue(spool, &bury->work);
}

void spool_resolve(struct spool *spool, const uint8_t prompt_id[UUID_SIZE])
{
    struct spool_resolve_work *resolve = malloc(sizeof *resolve);
    if (!resolve)
        return; /* the next start tries the orphan again, and finds it gone */
    *resolve = (struct spool_resolve_work){.work.kind = SPOOL_WORK_RESOLVE};
    memcpy(resolve->prompt_id, prompt_id, UUID_SIZE);
    enqueue(spool, &resolve->work);
}

void spool_set_max_bytes(struct spool *spool, uint64_t max_bytes)
{
    spool->options.max_bytes = max_bytes;
}

struct spool_counts spool_counts(const struct spool *spool)
{
    struct spool *locked = (struct spool *)spool; /* a lock is no change that a caller could see */
    uv_mutex_lock(&locked->mutex);
    struct spool_counts counts = spool->counts;
    counts.waiting += spool->putting;
    counts.waiting_bytes += spool->putting_bytes;
    uv_mutex_unlock(&locked->mutex);
    return counts;
}

static void call_back_put(struct spool *spool, struct spool_put_work *put)
{
    void *token = put->token;
    enum spool_put_result result = put->result;
    int64_t sequence = result == SPOOL_PUT_OK ? put->work.sequence : 0;
    free(put);
    spool->options.on_put(spool->options.context, token, result, sequence);
}

static void call_back_fetch(struct spool *spool, struct spool_fetch_work *fetch)
{
    struct spool_batch batch = fetch->batch;
    spool->fetching = false; /* the callback may ask for more */
    spool->options.on_fetched(spool->options.context, batch.entries, batch.count, batch.end);
    spool_batch_free(&batch);
}

static void call_back_grown(struct spool *spool, struct spool_grown_work *grown)
{
    uint64_t added = grown->added;
    free(grown);
    spool->options.on_grown(spool->options.context, added);
}

static void call_back(struct spool *spool, struct spool_work *work)
{
    if (work->kind == SPOOL_WORK_PUT)
        call_back_put(spool, (struct spool_put_work *)work);
    else if (work->kind == SPOOL_WORK_GROWN)
        call_back_grown(spool, (struct spool_grown_work *)work);
    else
        call_back_fetch(spool, (struct spool_fetch_work *)work);
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
    void (*on_closed)(void *) = spool->options.on_closed;
    void *context = spool->options.context;
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

void spool_close(struct spool *spool)
{
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
    if (!spool || !fetch || uv_mutex_init(&spool->mutex) != 0) {
        free(spool);
        free(fetch);
        error_set(error, ERROR_INTERNAL, "memory is out");
        return NULL;
    }
    if (uv_cond_init(&spool->wake) != 0) {
        uv_mutex_destroy(&spool->mutex);
        free(spool);
        free(fetch);
        error_set(error, ERROR_INTERNAL, "memory is out");
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

static void report_opened(const struct spool *spool)
{
    const struct spool_counts *counts = &spool->counts;
    log_info(LOG_FIELDS(log_number("waiting", counts->waiting), log_number("bytes", counts->waiting_bytes),
                        log_number("dead", counts->dead)),
             "spool open in %s", spool->folder.path);
}

struct spool *spool_open(const struct spool_options *options, struct error *error)
{
    struct spool *spool = new_spool(options, error);
    if (!spool)
        return NULL;
    if (!spool_folder_open(&spool->folder, options->directory, error) ||
        !spool_recover_open(&spool->folder, 0, &spool->writer.db, error) ||
        !spool_writer_prepare(&spool->writer, error)) {
        spool_db_close(&spool->writer.db);
        free_spool(spool);
        return NULL;
    }
    spool->counts = spool->writer.counts;
    report_opened(spool);
    if (spool_db_open_orphans(&spool->writer.db, SPOOL_ORPHANS_MAX, options->on_orphan, options->context) !=
        SPOOL_DB_OK)
        log_error(LOG_FIELDS(log_text("error", spool->writer.db.failure)),
                  "orphans from before cannot be read: they are not tried again");
    if (!start_thread(spool, error)) /* which has freed it */
        return NULL;
    return spool; /* NOLINT(clang-analyzer-unix.Malloc): the analyzer forgets what start_thread returned */
}
