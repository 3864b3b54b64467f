/* SPDX-License-Identifier: MIT */
/* The parts of the pipeline: pipeline.c is above pipeline_spool.c (the way over disk), and both above pipeline_jobs.c.
 */
#ifndef PROMPTD_PIPELINE_PRIVATE_H
#define PROMPTD_PIPELINE_PRIVATE_H

#include "promptd/pipeline.h"
#include "promptd/prompt_id.h"

struct pipeline {
    struct pipeline_options options;
    struct inbox *inbox;
    struct prompt_id_maker *ids;
    size_t recoveries;     /* jobs in the inbox that are no messages */
    size_t left_unsettled; /* messages in memory only that were given up at the end, for the recovery to settle */

    /* with a spool; see pipeline_spool.c */
    struct spool *spool;
    size_t in_spool;     /* jobs in memory that stand in the spool too */
    size_t on_disk_only; /* messages that do, or will, stand in the spool only */
    size_t late_puts;    /* those of them that are on their way to disk */
    size_t puts;         /* messages on their way to disk and then on to the inbox */
    size_t put_bytes;    /* of both */
    int64_t loaded;      /* no row up to this one is on disk only: it is in memory, or has ended */
    int64_t last_put;    /* the last row that is known to be on disk, but for those put back from outside */
    bool fetching;
    bool stopped;               /* nothing is fetched any more */
    struct job_queue unspooled; /* the disk refused them: they wait for what is older and on disk only */
    size_t unspooled_count;
    size_t unspooled_bytes;
};

/* --- pipeline_jobs.c --- */

/* Checks the bytes and makes a job of them. NULL when out of memory: counted and logged. */
struct job *pipeline_validate(struct pipeline *pipeline, const char *bytes, size_t length, bool redelivered);

/* One debug line a stage of a message: with them the log tells the way of each, for tests/faults and for people. */
void pipeline_trace(const struct job *job, const char *stage);

/* Room for so many bytes, and for one message more that holds so many. */
bool pipeline_has_bytes(const struct pipeline *pipeline, size_t bytes);
bool pipeline_has_room(const struct pipeline *pipeline, size_t bytes);

/* To the inbox; or, for a rejected message that names no interview, to its end. */
void pipeline_admit(struct pipeline *pipeline, struct job *job);

/* Ends a job that no store has seen. */
void pipeline_end(struct pipeline *pipeline, struct job *job, enum outcome outcome, const char *why);

/* The outcome of a message, in the log, the counters and the spool. */
void pipeline_record(struct pipeline *pipeline, struct job *job);

/* --- pipeline_spool.c, besides pipeline_pump --- */

void pipeline_spool_receive(struct pipeline *pipeline, const char *bytes, size_t length);

#endif
