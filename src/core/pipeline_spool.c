/* SPDX-License-Identifier: MIT */
/*
 * The way of a message over the disk.
 *
 *     received ─put─▶ on disk ─┬─ memory has room, nothing older waits: to the inbox, at once
 *                              └─ else it stays on disk only, and is fetched in its turn
 *
 * What enters the inbox was marked on disk as attempted in the same commit, and only while the database is there; so
 * after a crash a prompt that is found present is known to be possibly our own, and while the database is away memory
 * stays empty. Rows are numbered in order of arrival, and read in that order: the order per interview is kept.
 *
 * When the disk refuses, messages go on in memory; behind everything that is still on disk.
 */
#include "pipeline_private.h"

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

/* Too many of them: the rest is in the spool still, and in the view that promptctl orphans reads. */
void pipeline_on_spooled_orphan(struct pipeline *pipeline, const uint8_t interview_id[UUID_SIZE],
                                const uint8_t prompt_id[UUID_SIZE], int64_t since_ms)
{
    (void)orphans_add(&pipeline->orphans, interview_id, prompt_id, since_ms);
}

void pipeline_use_spool(struct pipeline *pipeline, struct spool *spool)
{
    pipeline->spool = spool;
    const struct spool_counts counts = spool_counts(spool);
    pipeline->on_disk_only = (size_t)counts.waiting;
    pipeline->options.record.metrics->received += counts.waiting;
    if (counts.waiting > 0)
        log_info(LOG_FIELDS(log_number("messages", counts.waiting), log_number("bytes", counts.waiting_bytes)),
                 "messages from before are taken up again");
    if (pipeline->orphans.count > 0)
        log_info(LOG_FIELDS(log_number("orphans", pipeline->orphans.count)), "orphans from before are tried again");
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
    struct job *job = pipeline_judge(pipeline, bytes, length);
    if (!job)
        return;
    pipeline_trace(job, "received");
    size_t put_bytes = sizeof(struct put) + length;
    /* What finds no room in memory waits on disk only: just its way there is bounded. */
    bool attempted = goes_on_at_once(pipeline) && pipeline_has_room(pipeline, put_bytes + job_size(job));
    size_t held_bytes = attempted ? put_bytes + job_size(job) : put_bytes;
    struct put *put = pipeline_has_bytes(pipeline, held_bytes) ? malloc(sizeof *put + length) : NULL;
    if (!put) {
        pipeline_end(pipeline, job, OUTCOME_DROPPED,
                     "the queue is full: the spool's disk does not keep up (queue_max_bytes)");
        return;
    }
    *put = (struct put){.job = job, .held_bytes = held_bytes, .length = length};
    memcpy(put->payload, bytes, length);
    if (!spool_put(pipeline->spool, put->payload, length, attempted, put)) {
        free(put);
        pipeline_end(pipeline, job, OUTCOME_DROPPED, "memory is out");
        return;
    }
    pipeline->puts++;
    pipeline->put_bytes += held_bytes;
    if (attempted)
        return;
    put->job = NULL; /* should the disk refuse, it is judged again */
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
        job = pipeline_judge(pipeline, put->payload, put->length);
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
        TAILQ_INSERT_TAIL(&pipeline->unspooled, job, link);
        pipeline->unspooled_count++;
        pipeline->unspooled_bytes += job_size(job);
    }
}

void pipeline_on_put(struct pipeline *pipeline, void *token, enum spool_put_result result, int64_t sequence)
{
    struct put *put = token;
    pipeline->put_bytes -= put->held_bytes;
    log_debug(LOG_FIELDS(log_number("sequence", sequence)), "message is %s disk",
              result == SPOOL_PUT_OK ? "on" : "not on");
    if (put->job)
        pipeline->puts--;
    else
        pipeline->late_puts--;
    if (result != SPOOL_PUT_OK) {
        put_refused(pipeline, put, result);
    } else if (put->job && pipeline->stopped) {
        pipeline->on_disk_only++; /* the next start takes it up */
        job_free(put->job);
    } else if (put->job) {
        put->job->sequence = sequence;
        pipeline->in_spool++;
        pipeline_admit(pipeline, put->job);
    }
    free(put);
    pipeline_spool_pump(pipeline);
}

/* --- from disk -------------------------------------------------------------------------------------------------- */

static void admit_unspooled(struct pipeline *pipeline)
{
    struct job *job;
    while ((job = TAILQ_FIRST(&pipeline->unspooled))) {
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
    admit_unspooled(pipeline);
}

/* Memory is filled up to half of its bounds, and never with more than one fetch brings. */
void pipeline_spool_pump(struct pipeline *pipeline)
{
    if (!pipeline->spool || pipeline->stopped || pipeline->fetching)
        return;
    if (pipeline->on_disk_only == 0) {
        admit_unspooled(pipeline);
        return;
    }
    const struct inbox_limits *limits = &pipeline->options.limits;
    size_t messages = inbox_messages(pipeline->inbox) + pipeline->puts; /* those are on their way to the inbox too */
    if (messages > FETCH_MESSAGES / 2 || messages > limits->max_messages / 2 ||
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
    pipeline->loaded = entry->sequence;
    if (pipeline->on_disk_only > pipeline->late_puts)
        pipeline->on_disk_only--;
    else
        pipeline->options.record.metrics->received++; /* put back from outside, and not yet noticed */
    struct job *job = pipeline_judge(pipeline, entry->payload, entry->length);
    if (!job)
        return; /* counted as dropped; the row is there at the next start */
    pipeline->in_spool++;
    job->sequence = entry->sequence;
    job->maybe_inserted = entry->attempted;
    if (entry->attempted)
        job->unsettled_since_us = job->arrived_us;
    int64_t waited_ms = clock_wall_ms() - entry->arrived_ms;
    if (waited_ms > 0)
        job->arrived_us -= waited_ms * 1000; /* its time on disk, also that before a restart, belongs to its duration */
    pipeline_trace(job, "fetched");
    pipeline_admit(pipeline, job);
}

/* Everything was read, and less was there than was put: a damaged file was replaced meanwhile. */
static void give_up_missing(struct pipeline *pipeline)
{
    size_t missing = pipeline->on_disk_only - pipeline->late_puts;
    log_critical(LOG_FIELDS(log_number("messages", missing)), "messages are missing from the spool; they are dropped");
    pipeline->options.record.metrics->dropped += missing;
    pipeline->on_disk_only -= missing;
}

void pipeline_on_fetched(struct pipeline *pipeline, const struct spool_entry *entries, size_t count, bool end)
{
    pipeline->fetching = false;
    if (pipeline->stopped)
        return; /* they stay where they are, for the next start */
    for (size_t i = 0; i < count; i++)
        take_up(pipeline, &entries[i]);
    if (end && pipeline->on_disk_only > pipeline->late_puts)
        give_up_missing(pipeline);
    pipeline_spool_pump(pipeline);
}

void pipeline_on_grown(struct pipeline *pipeline, uint64_t added)
{
    log_info(LOG_FIELDS(log_number("messages", added)), "messages were put back into the spool");
    pipeline->options.record.metrics->received += added;
    pipeline->on_disk_only += (size_t)added;
    pipeline_spool_pump(pipeline);
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

void pipeline_spool_ended(struct pipeline *pipeline, const struct job *job)
{
    if (!pipeline->spool || job->sequence == 0)
        return;
    pipeline->in_spool--;
    log_flush(); /* its line comes first: what is gone from the disk has one, should the process be killed now */
    if (job->outcome == OUTCOME_STORED || job->outcome == OUTCOME_DUPLICATE) {
        spool_finish(pipeline->spool, job->sequence);
        return;
    }
    const struct message_content *content = &job->content;
    bool rejected = content->reject != REJECT_NONE;
    struct spool_epitaph epitaph = {
        .outcome = outcome_name(job->outcome),
        .reason = rejected ? reject_name(content->reject) : NULL,
        .sqlstate = job->failure && job->failure->sqlstate[0] ? job->failure->sqlstate : NULL,
        .error = job->failure && job->failure->text[0] ? job->failure->text : NULL,
        .has_interview_id = content->has_interview_id,
        .has_prompt_id = !rejected,
    };
    memcpy(epitaph.interview_id, content->interview_id, UUID_SIZE);
    memcpy(epitaph.prompt_id, job->prompt_id, UUID_SIZE);
    spool_bury(pipeline->spool, job->sequence, &epitaph);
}
