/* SPDX-License-Identifier: MIT */
/* What the two halves of the pipeline share: pipeline.c (judging, outcomes) and pipeline_spool.c (the way over disk).
 */
#ifndef PROMPTD_PIPELINE_PRIVATE_H
#define PROMPTD_PIPELINE_PRIVATE_H

#include "orphans.h"
#include "promptd/pipeline.h"
#include "promptd/prompt_id.h"

struct pipeline {
    struct pipeline_options options;
    struct inbox *inbox;
    struct prompt_id_maker *ids;
    struct orphans orphans;
    size_t cleanups; /* jobs in the inbox that are no messages */

    /* with a spool; see pipeline_spool.c */
    struct spool *spool;
    size_t in_spool;     /* jobs in memory that stand in the spool too */
    size_t on_disk_only; /* messages that do, or will, stand in the spool only */
    size_t late_puts;    /* those of them that are on their way to disk */
    size_t puts;         /* messages on their way to disk and then on to the inbox */
    size_t put_bytes;    /* of both */
    int64_t loaded;      /* the last message that was fetched */
    bool fetching;
    bool stopped;               /* nothing is fetched any more */
    struct job_queue unspooled; /* the disk refused them: they wait until the spool has been read, to keep the order */
    size_t unspooled_count;
    size_t unspooled_bytes;
};

/* Judges the bytes and makes a job of them. NULL when memory is out: counted and logged. */
struct job *pipeline_judge(struct pipeline *pipeline, const char *bytes, size_t length);

/* To the inbox; or, for a rejected message that names no interview, to its end. */
void pipeline_admit(struct pipeline *pipeline, struct job *job);

/* Ends a job that no store has seen. */
void pipeline_end(struct pipeline *pipeline, struct job *job, enum outcome outcome, const char *why);

/* One debug line a stage of a message: with them the log tells the way of each, for tests/faults and for people. */
void pipeline_trace(const struct job *job, const char *stage);

/* Room for so many bytes, and for one message more that holds so many. */
bool pipeline_has_bytes(const struct pipeline *pipeline, size_t bytes);
bool pipeline_has_room(const struct pipeline *pipeline, size_t bytes);

/* The way over the spool. */
void pipeline_spool_receive(struct pipeline *pipeline, const char *bytes, size_t length);
void pipeline_spool_ended(struct pipeline *pipeline, const struct job *job);
void pipeline_spool_pump(struct pipeline *pipeline);

#endif
