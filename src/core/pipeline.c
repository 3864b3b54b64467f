/* SPDX-License-Identifier: MIT */
/* Every message that is delivered here ends in exactly one outcome; this file sees to it. */
#include "promptd/pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "pipeline"
#include "promptd/log.h"
#include "promptd/outcome.h"
#include "promptd/prompt_id.h"

struct pipeline {
    struct pipeline_options options;
    struct source *source;
    struct inbox *inbox;
    struct prompt_id_maker *ids;
    bool stopped;          /* nothing is demanded any more */
    size_t released;       /* messages that the source keeps for the next start */
    size_t left_unsettled; /* messages in memory only that were given up at the end, for the recovery to settle */
};

struct pipeline *pipeline_new(const struct pipeline_options *options, struct error *error)
{
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    pipeline->options = *options;
    pipeline->ids = prompt_id_maker_new(error);
    pipeline->inbox = inbox_new(&options->limits);
    if (pipeline->ids && pipeline->inbox)
        return pipeline;
    if (!pipeline->inbox)
        error_set(error, ERROR_INTERNAL, "the inbox: %s", strerror(errno));
    pipeline_free(pipeline);
    return NULL;
}

void pipeline_free(struct pipeline *pipeline)
{
    if (!pipeline)
        return;
    inbox_free(pipeline->inbox);
    prompt_id_maker_free(pipeline->ids);
    free(pipeline);
}

void pipeline_set_source(struct pipeline *pipeline, struct source *source)
{
    pipeline->source = source;
}

void pipeline_set_rules(struct pipeline *pipeline, const struct message_rules *rules)
{
    pipeline->options.rules = *rules;
}

void pipeline_set_limits(struct pipeline *pipeline, const struct inbox_limits *limits)
{
    pipeline->options.limits = *limits;
    inbox_set_limits(pipeline->inbox, limits);
}

/* One debug line a stage of a message: with them the log tells the way of each, for tests/faults and for people. */
static void trace(const struct job *job, const char *stage)
{
    if (!log_wants(LOG_LEVEL_DEBUG))
        return;
    char interview[UUID_TEXT_SIZE];
    char prompt[UUID_TEXT_SIZE];
    uuid_format(job->content.interview_id, interview);
    uuid_format(job->prompt_id, prompt);
    log_debug(LOG_FIELDS(log_text("interview_id", job->content.has_interview_id ? interview : NULL),
                         log_text("prompt_id", job->content.reject == REJECT_NONE ? prompt : NULL),
                         log_number("bytes", job->payload_bytes),
                         log_number("sequence", job->receipt ? job->receipt->number : 0),
                         log_text("outcome", job->outcome != OUTCOME_NONE ? outcome_name(job->outcome) : NULL)),
              "message %s", stage);
}

/* --- the beginning ---------------------------------------------------------------------------------------------- */

static bool make_prompt_id(struct pipeline *pipeline, struct job *job)
{
    const struct message_content *content = &job->content;
    return content->reject != REJECT_NONE || prompt_id_make(pipeline->ids, content->interview_id, content->source,
                                                            content->prompt, content->prompt_bytes, job->prompt_id);
}

/* Before a restart with other limits it may have been accepted, and its prompt inserted. */
static bool find_earlier_prompt(struct pipeline *pipeline, const struct delivery *delivery, struct job *job)
{
    const struct message_rules any = {.max_bytes = SIZE_MAX, .prompt_max_chars = SIZE_MAX, .any_source = true};
    struct message_content content;
    if (!message_parse(&any, delivery->bytes, delivery->length, &content))
        return false;
    job->may_have_prompt = content.reject == REJECT_NONE;
    bool made = !job->may_have_prompt || prompt_id_make(pipeline->ids, content.interview_id, content.source,
                                                        content.prompt, content.prompt_bytes, job->prompt_id);
    if (job->may_have_prompt && !job->content.has_interview_id) { /* too_large: it was not looked at */
        job->content.has_interview_id = true;
        memcpy(job->content.interview_id, content.interview_id, UUID_SIZE);
    }
    message_content_free(&content);
    return made;
}

static bool parse(const struct pipeline *pipeline, const struct delivery *delivery, struct message_content *content)
{
    if (delivery->bytes)
        return message_parse(&pipeline->options.rules, delivery->bytes, delivery->length, content);
    *content = (struct message_content){.reject = REJECT_TOO_LARGE};
    return true;
}

/* NULL when out of memory. */
static struct job *make_job(struct pipeline *pipeline, const struct delivery *delivery)
{
    struct message_content content;
    if (!parse(pipeline, delivery, &content))
        return NULL;
    struct job *job = job_new(pipeline->options.job_size, &content, delivery->length, delivery->arrived_us);
    bool made = job && make_prompt_id(pipeline, job);
    if (made && delivery->redelivered && delivery->bytes && job->content.reject != REJECT_NONE)
        made = find_earlier_prompt(pipeline, delivery, job);
    if (!made) {
        job_free(job);
        return NULL;
    }
    job->redelivered = delivery->redelivered;
    job->receipt = delivery->receipt;
    return job;
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

/* What ended well is forgotten by the source, the rest becomes a dead letter. */
static void acknowledge(struct pipeline *pipeline, struct job *job)
{
    if (!job->receipt)
        return;
    struct receipt *receipt = job->receipt;
    job->receipt = NULL;
    if (job->outcome == OUTCOME_STORED || job->outcome == OUTCOME_DUPLICATE) {
        source_acknowledge(pipeline->source, receipt, NULL);
        return;
    }
    const struct message_content *content = &job->content;
    bool rejected = content->reject != REJECT_NONE;
    struct disposition disposition = {
        .outcome = outcome_name(job->outcome),
        .reason = rejected ? reject_name(content->reject) : NULL,
        .sqlstate = job->failure && job->failure->sqlstate[0] ? job->failure->sqlstate : NULL,
        .error = job->failure && job->failure->text[0] ? job->failure->text : NULL,
        .has_interview_id = content->has_interview_id,
        .has_prompt_id = !rejected,
    };
    memcpy(disposition.interview_id, content->interview_id, UUID_SIZE);
    memcpy(disposition.prompt_id, job->prompt_id, UUID_SIZE);
    source_acknowledge(pipeline->source, receipt, &disposition);
}

/* The outcome of a message, in the log, the counters and the source. */
static void record(struct pipeline *pipeline, struct job *job)
{
    outcome_record(&pipeline->options.record, job);
    trace(job, "ended");
    acknowledge(pipeline, job);
}

/* Ends a job that no store has seen. The failure lives on this stack: what ends here must not need memory for it. */
static void end(struct pipeline *pipeline, struct job *job, enum outcome outcome, const char *why)
{
    struct job_failure failure = {.sqlstate = ""};
    (void)snprintf(failure.text, sizeof failure.text, "%s", why ? why : "");
    free(job->failure);
    job->failure = &failure;
    job->outcome = outcome;
    record(pipeline, job);
    job->failure = NULL;
    job_free(job);
}

/* --- from the source -------------------------------------------------------------------------------------------- */

void pipeline_demand(struct pipeline *pipeline)
{
    const struct inbox_limits *limits = &pipeline->options.limits;
    size_t messages = inbox_messages(pipeline->inbox);
    size_t bytes = inbox_bytes(pipeline->inbox);
    bool has_room = messages < limits->max_messages && bytes < limits->max_bytes;
    if (!pipeline->source)
        return;
    if (has_room && !pipeline->stopped && pipeline->options.can_store(pipeline->options.context))
        source_demand(pipeline->source, limits->max_messages - messages, limits->max_bytes - bytes);
    else
        source_demand(pipeline->source, 0, 0);
}

/* No room after all, as when a reload has made the bounds smaller: the message is received when it comes again. */
static bool return_to_source(struct pipeline *pipeline, struct job *job)
{
    if (!job->receipt || !job->receipt->returns)
        return false;
    pipeline->options.record.metrics->received--;
    trace(job, "returned");
    source_release(pipeline->source, job->receipt);
    job_free(job);
    return true;
}

/* To the inbox; or, for a rejected message that names no interview, to its end. */
static void admit(struct pipeline *pipeline, struct job *job)
{
    if (job->content.reject != REJECT_NONE && !job->content.has_interview_id)
        end(pipeline, job, OUTCOME_REJECTED, NULL);
    else if (!inbox_admit(pipeline->inbox, job) && !return_to_source(pipeline, job))
        end(pipeline, job, OUTCOME_DROPPED, "the queue is full (queue_max_messages, queue_max_bytes)");
    else
        pipeline->options.on_ready(pipeline->options.context);
    pipeline_demand(pipeline);
}

static void on_delivery(void *context, const struct delivery *delivery)
{
    struct pipeline *pipeline = context;
    if (!delivery->is_counted)
        pipeline->options.record.metrics->received++;
    struct job *job = make_job(pipeline, delivery);
    if (!job) {
        outcome_record_lost_memory(&pipeline->options.record, delivery->length);
        if (delivery->receipt)
            source_release(pipeline->source, delivery->receipt);
        return;
    }
    if (!delivery->is_counted)
        trace(job, "received");
    else if (job->receipt && job->receipt->number > 0)
        trace(job, "fetched");
    if (delivery->refusal)
        end(pipeline, job, OUTCOME_DROPPED, delivery->refusal);
    else
        admit(pipeline, job);
}

static void on_received(void *context, const char *bytes, size_t length)
{
    struct pipeline *pipeline = context;
    pipeline->options.record.metrics->received++;
    if (!log_wants(LOG_LEVEL_DEBUG))
        return;
    const struct delivery delivery = {.bytes = bytes, .length = length};
    struct job *job = make_job(pipeline, &delivery);
    if (job)
        trace(job, "received");
    job_free(job);
}

static void on_found(void *context, uint64_t messages)
{
    struct pipeline *pipeline = context;
    pipeline->options.record.metrics->received += messages;
}

static void on_lost(void *context, uint64_t messages)
{
    struct pipeline *pipeline = context;
    pipeline->options.record.metrics->dropped += messages;
}

struct source_sink pipeline_sink(struct pipeline *pipeline)
{
    return (struct source_sink){.on_delivery = on_delivery,
                                .on_received = on_received,
                                .on_found = on_found,
                                .on_lost = on_lost,
                                .context = pipeline};
}

/* --- to the store and back -------------------------------------------------------------------------------------- */

struct job *pipeline_take(struct pipeline *pipeline)
{
    return inbox_take(pipeline->inbox);
}

void pipeline_finish(struct pipeline *pipeline, struct job *job)
{
    inbox_finish(pipeline->inbox, job);
    if (job->kind == JOB_MESSAGE)
        record(pipeline, job);
    else
        outcome_report_recovery(&pipeline->options.record, job);
    job_free(job);
    pipeline_demand(pipeline);
}

bool pipeline_admit_recovery(struct pipeline *pipeline, struct job *job)
{
    if (pipeline->stopped || inbox_has_same(pipeline->inbox, job) || !inbox_admit(pipeline->inbox, job))
        return false;
    pipeline->options.on_ready(pipeline->options.context);
    return true;
}

void pipeline_stop(struct pipeline *pipeline)
{
    pipeline->stopped = true;
    pipeline_demand(pipeline);
}

/* --- giving up -------------------------------------------------------------------------------------------------- */

/* The source keeps it for the next start. */
static void release(struct pipeline *pipeline, struct job *job)
{
    struct receipt *receipt = job->receipt;
    job->receipt = NULL;
    outcome_report_left_waiting(job);
    source_release(pipeline->source, receipt);
    pipeline->released++;
}

/* Where it stands now, and will at the next start. */
static bool is_kept(const struct pipeline *pipeline, const struct job *job)
{
    struct source_status status = {0};
    if (!job->receipt || job->receipt->number == 0)
        return false;
    source_get_status(pipeline->source, &status);
    return !status.spool_is_gone;
}

static void abandon(void *context, struct job *job)
{
    struct pipeline *pipeline = context;
    if (job->kind != JOB_MESSAGE) {
        job_free(job);
        return;
    }
    bool is_unsettled = pipeline->options.may_be_unsettled(job);
    if (is_unsettled)
        outcome_report_unsettled(job);
    if (is_kept(pipeline, job) && job->outcome != OUTCOME_ORPHANED) {
        release(pipeline, job);
    } else if (is_unsettled) {
        pipeline->left_unsettled++;
        if (job->receipt)
            source_release(pipeline->source, job->receipt);
    } else if (job->outcome != OUTCOME_NONE) {
        job->stuck = true;
        record(pipeline, job);
    } else {
        end(pipeline, job, OUTCOME_DROPPED, "promptd had to stop before the message was stored");
        return;
    }
    job_free(job);
}

void pipeline_abandon(struct pipeline *pipeline, struct job *job)
{
    inbox_finish(pipeline->inbox, job);
    abandon(pipeline, job);
}

void pipeline_abandon_rest(struct pipeline *pipeline)
{
    inbox_evict(pipeline->inbox, abandon, pipeline);
}

/* --- figures ---------------------------------------------------------------------------------------------------- */

size_t pipeline_in_memory(const struct pipeline *pipeline)
{
    return inbox_messages(pipeline->inbox);
}

size_t pipeline_waiting(const struct pipeline *pipeline)
{
    return pipeline_in_memory(pipeline) + pipeline->released + pipeline->left_unsettled;
}

size_t pipeline_memory_bytes(const struct pipeline *pipeline)
{
    return inbox_bytes(pipeline->inbox);
}
