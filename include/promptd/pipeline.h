/* SPDX-License-Identifier: MIT */
/*
 * The life of a message: received, judged, admitted, worked on, ended.
 *
 *     bytes ─▶ judge ─▶ (spool) ─▶ inbox ─▶ (store) ─▶ outcome
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
    void (*on_ready)(void *context);  /* pipeline_take may have something; called inside pipeline_receive too */
    void *context;
};

struct pipeline *pipeline_new(const struct pipeline_options *options, struct error *error); /* NULL on failure */
void pipeline_free(struct pipeline *pipeline); /* when no job is out and the spool is closed */

/* Messages are on disk before they are worked on. Once, before the first message; what the spool holds is taken up. */
void pipeline_use_spool(struct pipeline *pipeline, struct spool *spool);

/* The spool's callbacks; the first within spool_open, before pipeline_use_spool. */
void pipeline_on_spooled_orphan(struct pipeline *pipeline, const uint8_t interview_id[UUID_SIZE],
                                const uint8_t prompt_id[UUID_SIZE], int64_t since_ms);
void pipeline_on_put(struct pipeline *pipeline, void *token, enum spool_put_result result, int64_t sequence);
void pipeline_on_fetched(struct pipeline *pipeline, const struct spool_entry *entries, size_t count, bool end);
void pipeline_on_grown(struct pipeline *pipeline, uint64_t added);

void pipeline_set_rules(struct pipeline *pipeline, const struct message_rules *rules);
void pipeline_set_limits(struct pipeline *pipeline, const struct inbox_limits *limits);

/* One message as it arrived; the bytes are not needed afterwards. */
void pipeline_receive(struct pipeline *pipeline, const char *bytes, size_t length);

/* A message that was too large to be read at all. */
void pipeline_refuse_oversize(struct pipeline *pipeline, size_t bytes);

/* The next job to work on, or NULL. It comes back through pipeline_finish, with its outcome, or pipeline_abandon. */
struct job *pipeline_take(struct pipeline *pipeline);
void pipeline_report_orphan(struct pipeline *pipeline, const struct job *job);
void pipeline_finish(struct pipeline *pipeline, struct job *job);

/* The database is there again: what the spool holds goes on, and orphans are tried again. */
void pipeline_resume(struct pipeline *pipeline);
void pipeline_retry_orphans(struct pipeline *pipeline);

/* Reads on from the spool if there is room and the database is there. Now and then, besides what events bring. */
void pipeline_pump(struct pipeline *pipeline);

/* promptd stops: from now on nothing more is read from the spool, and what gets there stays there. */
void pipeline_stop_fetching(struct pipeline *pipeline);

/* The process ends before the job had its outcome. What stands in the spool stays there for the next start; what does
 * not is named in the log, and dropped, or reported as an orphan where its prompt may have been left behind. */
void pipeline_abandon(struct pipeline *pipeline, struct job *job);
/* The same for all that was never taken. */
void pipeline_abandon_rest(struct pipeline *pipeline);

size_t pipeline_waiting(const struct pipeline *pipeline);   /* messages without an outcome, in memory or spool */
size_t pipeline_in_memory(const struct pipeline *pipeline); /* those in memory */
size_t pipeline_memory_bytes(const struct pipeline *pipeline);
size_t pipeline_open_orphans(const struct pipeline *pipeline);

/* An orphan that was reported and is not known to be gone. */
struct open_orphan {
    uint8_t interview_id[UUID_SIZE];
    uint8_t prompt_id[UUID_SIZE];
    int64_t since_ms; /* wall clock */
};

/* Some of them, `max` at most. Returns how many. */
size_t pipeline_list_orphans(const struct pipeline *pipeline, struct open_orphan *list, size_t max);

#endif
