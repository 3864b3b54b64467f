/* SPDX-License-Identifier: MIT */
/*
 * Recovery: what stands in promptd_unsettled for too long is settled or undone, whoever left it there, and interviews
 * that could not be marked failed are tried again.
 *
 * A round reads promptd_unsettled in pages, and makes a job of each row that is in nobody's work here. A round begins
 * when the database is there (again), and every reconcile_interval_ms.
 */
#ifndef PROMPTD_RECOVERY_H
#define PROMPTD_RECOVERY_H

#include <uv.h>

#include "promptd/store.h"

struct recovery;

/* The options are the store's, borrowed, with the tuning as it changes. on_wake: recovery_start has something to run.
 * NULL when out of memory. */
struct recovery *recovery_new(const struct store_options *options, void (*on_wake)(void *context), void *context);
void recovery_interval_changed(struct recovery *recovery);

/* Begins a round, unless there is no recovery. */
void recovery_begin(struct recovery *recovery);

/* Uses the idle session for the next page if one is due. Returns whether it did. */
bool recovery_start(struct recovery *recovery, struct pg_session *session);

/* The prompt could not be deleted: the CRITICAL line, once for each prompt and process, and a place in the list. */
void recovery_report_orphan(struct recovery *recovery, const struct job *job);

/* A job of the recovery's own, for what could not be put right in an earlier round. */
bool recovery_was_refused(struct recovery *recovery, const struct job *job);

/* The interview of a message could not be marked failed. */
void recovery_add_stuck(struct recovery *recovery, const struct job *job);

/* A job of the recovery's own is finished: its lines and counters. */
void recovery_finish(struct recovery *recovery, const struct job *job);

size_t recovery_list_orphans(const struct recovery *recovery, struct open_orphan *list, size_t max);

/* Frees it in the loop; nothing is called back any more. No run of it may be in flight. */
void recovery_close(struct recovery *recovery);

#endif
