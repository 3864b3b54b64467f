/* SPDX-License-Identifier: MIT */
/*
 * The way of a message over the disk.
 *
 *     received ─put─▶ on disk ─┬─ memory has room, nothing older waits: to the inbox, at once
 *                              └─ else it stays on disk only, and is fetched in its turn
 *
 * Rows are numbered in order of arrival, and fetched in that order: the order per interview is kept. `loaded` is the
 * mark: what is above it is on disk only. A put that went on at once moves it, for nothing else was on disk only then;
 * should promptctl have put something back meanwhile, which then has a lower number, the message waits on disk instead.
 *
 * While the database is away memory stays empty. When the disk refuses, messages go on in memory, each behind what was
 * on disk before it, and before what gets there after it.
 */
#include "pipeline_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/outcome.h"

enum { FETCH_MESSAGES = 1024, FETCH_BYTES = 4 * 1024 * 1024 };

/* A message on its way to disk. */
struct put {
    struct job *job;   /* goes on once it is on disk; NULL: it stays on disk only */
    size_t held_bytes; /* counted against the bounds until then */
    size_t length;
    char payload[];
};

void pipeline_use_spool(struct pipeline *pipeline, struct spool *spool)
{
    pipeline->spool = spool;
    const struct spool_counts counts = spool_counts(spool);
    pipeline->on_disk_only = (size_t)counts.waiting;
    pipeline->last_put = counts.last_sequence;
    pipeline->options.record.metrics->received += counts.waiting;
    if (counts.waiting > 0)
        log_info(LOG_FIELDS(log_number("messages", counts.waiting), log_number("bytes", counts.waiting_bytes)),
                 "messages from before are taken up again");
}

/* --- to disk ---------------------------------------------------------------------------------------------------- */

/* Half of memory is for what goes on at once, the other half for what is on its way to disk. */
static bool goes_on_at_once(const struct pipeline *pipeline)
{
    const struct inbox_limits *limits = &pipeline->options.limits;
    return inbox_messages(pipeline->inbox) + pipeline->puts <= limits->max_messages / 2 &&
           inbox_bytes(pipeline->inbox) + pipeline->put_bytes <= limits->max_bytes / 2 && pipeline->on_disk_only == 0 &&
           pipeline->unspooled_count == 0 && !pipeline->stopped &&
           pipeline->options.can_store(pipeline->options.context);
}

void pipeline_spool_receive(struct pipeline *pipeline, const char *bytes, size_t length)
{
    struct job *job = pipeline_validate(pipeline, bytes, length, false);
    if (!job)
        return;
    pipeline_trace(job, "received");
    size_t put_bytes = sizeof(struct put) + length;
    /* What finds no room in memory waits on disk only: just its way there is bounded. */
    bool at_once = goes_on_at_once(pipeline) && pipeline_has_room(pipeline, put_bytes + job_size(job));
    size_t held_bytes = at_once ? put_bytes + job_size(job) : put_bytes;
    struct put *put = pipeline_has_bytes(pipeline, held_bytes) ? malloc(sizeof *put + length) : NULL;
    if (!put) {
        pipeline_end(pipeline, job, OUTCOME_DROPPED,
                     "the queue is full: the spool's disk does not keep up (queue_max_bytes)");
        return;
    }
    *put = (struct put){.job = job, .held_bytes = held_bytes, .length = length};
    memcpy(put->payload, bytes, length);
    if (!spool_put(pipeline->spool, put->payload, length, put)) {
        free(put);
        pipeline_end(pipeline, job, OUTCOME_DROPPED, "out of memory");
        return;
    }
    pipeline->puts++;
    pipeline->put_bytes += held_bytes;
    if (at_once)
        return;
    put->job = NULL; /* should the disk refuse, it is checked again */
    job_free(job);
    pipeline->puts--;
    pipeline->late_puts++;
    pipeline->on_disk_only++;
}

static void put_refused(struct pipeline *pipeline, struct put *put, enum spool_put_result result)
{
    struct job *job = put->job;
    if (!job) {
        pipeline->on_disk_only--;
        job = pipeline_validate(pipeline, put->payload, put->length, false);
        if (!job)
            return;
    }
    if (result == SPOOL_PUT_FULL) {
        pipeline_end(pipeline, job, OUTCOME_DROPPED, "the spool is full (spool_max_bytes)");
    } else if (!pipeline_has_room(pipeline, job_size(job))) {
        pipeline_end(pipeline, job, OUTCOME_DROPPED,
                     "the disk refuses, and the queue is full (queue_max_messages, "
                     "queue_max_bytes)");
    } else {
        job->behind_sequence = pipeline->last_put;
        TAILQ_INSERT_TAIL(&pipeline->unspooled, job, link);
        pipeline->unspooled_count++;
        pipeline->unspooled_bytes += job_size(job);
    }
}

/* Those on disk only that are there already; the others are on their way. */
static size_t waiting_on_disk(const struct pipeline *pipeline)
{
    return pipeline->on_disk_only - pipeline->late_puts;
}

/* To the inbox, unless something older is on disk only, or promptd stops: then it is fetched in its turn. */
static void put_done(struct pipeline *pipeline, struct put *put, int64_t sequence)
{
    struct job *job = put->job;
    pipeline->last_put = sequence;
    if (job && (pipeline->stopped || waiting_on_disk(pipeline) > 0)) {
        pipeline->on_disk_only++;
        job_free(job);
    } else if (job) {
        job->sequence = sequence;
        pipeline->loaded = sequence;
        pipeline->in_spool++;
        pipeline_admit(pipeline, job);
    }
}

void pipeline_on_put(void *context, void *token, enum spool_put_result result, int64_t sequence)
{
    struct pipeline *pipeline = context;
    struct put *put = token;
    pipeline->put_bytes -= put->held_bytes;
    log_debug(LOG_FIELDS(log_number("sequence", sequence)), "message is %s disk",
              result == SPOOL_PUT_OK ? "on" : "not on");
    if (put->job)
        pipeline->puts--;
    else
        pipeline->late_puts--;
    if (result == SPOOL_PUT_OK)
        put_done(pipeline, put, sequence);
    else
        put_refused(pipeline, put, result);
    free(put);
    pipeline_pump(pipeline);
}

/* --- from disk -------------------------------------------------------------------------------------------------- */

/* Those that are older than the row `sequence`. */
static void admit_unspooled(struct pipeline *pipeline, int64_t sequence)
{
    struct job *job;
    while ((job = TAILQ_FIRST(&pipeline->unspooled)) && job->behind_sequence < sequence) {
        TAILQ_REMOVE(&pipeline->unspooled, job, link);
        pipeline->unspooled_count--;
        pipeline->unspooled_bytes -= job_size(job);
        pipeline_admit(pipeline, job);
    }
}

/* What is on disk stays there; what is not goes on, even before older messages that are. */
void pipeline_stop_fetching(struct pipeline *pipeline)
{
    pipeline->stopped = true;
    admit_unspooled(pipeline, INT64_MAX);
}

/* Memory is filled up to half of its bounds, and with no more than one fetch brings beside what is in work: that may
 * wait for long, for rows that somebody has locked, and keeps nobody else on disk. */
void pipeline_pump(struct pipeline *pipeline)
{
    if (!pipeline->spool || pipeline->stopped || pipeline->fetching)
        return;
    if (waiting_on_disk(pipeline) == 0) {
        admit_unspooled(pipeline, INT64_MAX); /* what is on its way to disk came later */
        return;
    }
    const struct inbox_limits *limits = &pipeline->options.limits;
    size_t messages = inbox_messages(pipeline->inbox) + pipeline->puts; /* those are on their way to the inbox too */
    if (inbox_ready(pipeline->inbox) + pipeline->puts > FETCH_MESSAGES / 2 || messages > limits->max_messages / 2 ||
        inbox_bytes(pipeline->inbox) > limits->max_bytes / 2 || !pipeline->options.can_store(pipeline->options.context))
        return;
    size_t room = limits->max_messages - messages;
    size_t bytes = limits->max_bytes / 4;
    pipeline->fetching = true;
    spool_fetch(pipeline->spool, pipeline->loaded, room < FETCH_MESSAGES ? room : FETCH_MESSAGES,
                bytes < FETCH_BYTES ? bytes : FETCH_BYTES);
}

static void take_up(struct pipeline *pipeline, const struct spool_entry *entry)
{
    assert(entry->sequence > pipeline->loaded && waiting_on_disk(pipeline) > 0);
    admit_unspooled(pipeline, entry->sequence);
    pipeline->loaded = entry->sequence;
    pipeline->on_disk_only--;
    struct job *job = pipeline_validate(pipeline, entry->payload, entry->length, entry->redelivered);
    if (!job)
        return; /* counted as dropped; the row is there at the next start */
    pipeline->in_spool++;
    job->sequence = entry->sequence;
    int64_t waited_ms = clock_wall_ms() - entry->arrived_ms;
    if (waited_ms > 0)
        job->arrived_us -= waited_ms * 1000; /* its time on disk, also that before a restart, belongs to its duration */
    pipeline_trace(job, "fetched");
    pipeline_admit(pipeline, job);
}

/* Everything was read, and less was there than was put: a damaged file was replaced meanwhile. */
static void give_up_missing(struct pipeline *pipeline)
{
    size_t missing = waiting_on_disk(pipeline);
    log_critical(LOG_FIELDS(log_number("messages", missing)), "messages are missing from the spool; they are dropped");
    pipeline->options.record.metrics->dropped += missing;
    pipeline->on_disk_only -= missing;
}

void pipeline_on_fetched(void *context, const struct spool_entry *entries, size_t count, bool end)
{
    struct pipeline *pipeline = context;
    pipeline->fetching = false;
    if (pipeline->stopped)
        return; /* they stay where they are, for the next start */
    for (size_t i = 0; i < count; i++)
        take_up(pipeline, &entries[i]);
    if (end && waiting_on_disk(pipeline) > 0)
        give_up_missing(pipeline);
    pipeline_pump(pipeline);
}

void pipeline_on_grown(void *context, uint64_t added)
{
    struct pipeline *pipeline = context;
    log_info(LOG_FIELDS(log_number("messages", added)), "messages were put back into the spool");
    pipeline->options.record.metrics->received += added;
    pipeline->on_disk_only += (size_t)added;
    pipeline_pump(pipeline);
}
