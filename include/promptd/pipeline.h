/* SPDX-License-Identifier: MIT */
/*
 * The life of a message: received, checked, admitted, worked on, ended.
 *
 *     bytes ─▶ check ─▶ (spool) ─▶ inbox ─▶ (store) ─▶ outcome
 *                │         │         └ full: dropped, or left to the spool
 *                │         └ rows that memory has no room for wait here, in order
 *                └ rejected; with an interview id it goes the whole way, to mark that interview failed
 *
 * At every moment: received = success + duplicate + failure + rejected + dropped + waiting.
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
#include "promptd/spool.h"

struct pipeline;

struct pipeline_options {
    struct message_rules rules; /* what it points to is borrowed for the pipeline's life */
    struct inbox_limits limits;
    struct outcome_record record;     /* where outcomes are counted; borrowed */
    bool (*can_store)(void *context); /* is the database there? With a spool, memory is filled only then */
    bool (*may_be_unsettled)(const struct job *job); /* it is given up as it is: may its prompt be there? */
    void (*on_ready)(void *context); /* pipeline_take may have something; called inside pipeline_receive too */
    void *context;
};

struct pipeline *pipeline_new(const struct pipeline_options *options, struct error *error); /* NULL on failure */
void pipeline_free(struct pipeline *pipeline); /* when no job is out and the spool is closed */

/* Messages are on disk before they are worked on. Once, before the first message; what the spool holds is taken up. */
void pipeline_use_spool(struct pipeline *pipeline, struct spool *spool);

/* The spool's callbacks; its context is the pipeline. */
void pipeline_on_put(void *context, void *token, enum spool_put_result result, int64_t sequence);
void pipeline_on_fetched(void *context, const struct spool_entry *entries, size_t count, bool end);
void pipeline_on_grown(void *context, uint64_t added);

void pipeline_set_rules(struct pipeline *pipeline, const struct message_rules *rules);
void pipeline_set_limits(struct pipeline *pipeline, const struct inbox_limits *limits);

/* One message as it arrived; the bytes are not needed afterwards. */
void pipeline_receive(struct pipeline *pipeline, const char *bytes, size_t length);

/* A message that was too large to be read at all. */
void pipeline_refuse_oversize(struct pipeline *pipeline, size_t bytes);

/* The next job to work on, or NULL. It comes back through pipeline_finish, with its outcome, or pipeline_abandon. */
struct job *pipeline_take(struct pipeline *pipeline);
void pipeline_finish(struct pipeline *pipeline, struct job *job);

/* A job that is no message: it is worked on in its interview's turn, and ends through pipeline_finish as well. false:
 * a message of its interview is in work already, or there is no room; the job stays with the caller. */
bool pipeline_admit_recovery(struct pipeline *pipeline, struct job *job);

/* Reads on from the spool if there is room and the database is there. Now and then, besides what events bring. */
void pipeline_pump(struct pipeline *pipeline);

/* promptd stops: from now on nothing more is read from the spool, and what gets there stays there. */
void pipeline_stop_fetching(struct pipeline *pipeline);

/* The process ends before the job had its outcome. What stands in the spool stays there for the next start; what does
 * not is named in the log, and dropped, unless its prompt may be there already: then the recovery sees to it. */
void pipeline_abandon(struct pipeline *pipeline, struct job *job);
/* The same for all that was never taken. */
void pipeline_abandon_rest(struct pipeline *pipeline);

size_t pipeline_waiting(const struct pipeline *pipeline);   /* messages without an outcome, in memory or spool */
size_t pipeline_in_memory(const struct pipeline *pipeline); /* those in memory */
size_t pipeline_memory_bytes(const struct pipeline *pipeline);

#endif
