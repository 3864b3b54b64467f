/* SPDX-License-Identifier: MIT */
/*
 * The life of a message: received, checked, admitted, worked on, ended.
 *
 *     source ─delivery─▶ check ─▶ inbox ─▶ (store) ─▶ outcome ─▶ acknowledge
 *                          │        └ full: dropped
 *                          └ rejected; with an interview id it goes the whole way, to mark that interview failed
 *
 * It knows no disk and no Redis: it knows deliveries, room and receipts (promptd/source.h). At every moment:
 * received = success + duplicate + failure + rejected + dropped + waiting, with what the source keeps as waiting.
 */
#ifndef PROMPTD_PIPELINE_H
#define PROMPTD_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/error.h"
#include "promptd/inbox.h"
#include "promptd/job.h"
#include "promptd/message.h"
#include "promptd/outcome.h"
#include "promptd/source.h"

struct pipeline;

struct pipeline_options {
    struct message_rules rules; /* what it points to is borrowed for the pipeline's life */
    struct inbox_limits limits;
    size_t job_size;                  /* of the struct that the store has around each job */
    struct outcome_record record;     /* where outcomes are counted; borrowed */
    bool (*can_store)(void *context); /* is the database there? Nothing is demanded of the source while it is not */
    bool (*may_be_unsettled)(const struct job *job); /* it is given up as it is: may its prompt be there? */
    void (*on_ready)(void *context); /* pipeline_take may have something; called inside deliveries too */
    void *context;
};

struct pipeline *pipeline_new(const struct pipeline_options *options, struct error *error); /* NULL on failure */
void pipeline_free(struct pipeline *pipeline); /* when no job is out and the source is closed */

/* What the source is to be opened with; then the pipeline is given the source, borrowed, before the loop runs, and NULL
 * when it is closed. */
struct source_sink pipeline_sink(struct pipeline *pipeline);
void pipeline_set_source(struct pipeline *pipeline, struct source *source);

void pipeline_set_rules(struct pipeline *pipeline, const struct message_rules *rules);
void pipeline_set_limits(struct pipeline *pipeline, const struct inbox_limits *limits);

/* The next job to work on, or NULL. It comes back through pipeline_finish, with its outcome, or pipeline_abandon. */
struct job *pipeline_take(struct pipeline *pipeline);
void pipeline_finish(struct pipeline *pipeline, struct job *job);

/* A job that is no message: it is worked on in its interview's turn, and ends through pipeline_finish as well. false:
 * a message of its interview, or a job of its prompt, is in work already, or there is no memory; the job stays with the
 * caller. */
bool pipeline_admit_recovery(struct pipeline *pipeline, struct job *job);

/* Demands of the source what there is room for. Now and then, besides what events bring. */
void pipeline_demand(struct pipeline *pipeline);

/* promptd stops: from now on nothing is demanded. */
void pipeline_stop(struct pipeline *pipeline);

/* The process ends before the job had its outcome. What the source keeps stays there for the next start; what it does
 * not is named in the log, and dropped, unless its prompt may be there already: then the recovery sees to it. */
void pipeline_abandon(struct pipeline *pipeline, struct job *job);
/* The same for all that was never taken. */
void pipeline_abandon_rest(struct pipeline *pipeline);

size_t
pipeline_waiting(const struct pipeline *pipeline); /* messages without an outcome that the source has delivered */
size_t pipeline_in_memory(const struct pipeline *pipeline); /* those in memory */
size_t pipeline_memory_bytes(const struct pipeline *pipeline);

#endif
