/* SPDX-License-Identifier: MIT */
/*
 * Finds orphans that nobody was there to report: prompts of promptd's own making (UUIDv5) older than ten minutes and
 * younger than a day whose interview is still awaiting. It only finds them; deleting is for a person.
 */
#ifndef PROMPTD_RECONCILER_H
#define PROMPTD_RECONCILER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/pg_session.h"
#include "promptd/statements.h"

struct reconciler;

struct reconciler_options {
    uv_loop_t *loop;
    const struct statements *statements; /* borrowed */
    int64_t interval_ms;                 /* 0: never */
    /* Once for each orphan, as long as the process remembers it; at most 20 a round. */
    void (*on_found)(void *context, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE]);
    /* A round is due, and waits for reconciler_start; or one is over, and its session is idle again. */
    void (*on_wake)(void *context);
    void *context;
};

struct reconciler *reconciler_new(const struct reconciler_options *options); /* NULL when memory is out */
void reconciler_set_interval(struct reconciler *reconciler, int64_t interval_ms);

/* A round now, besides the regular ones: the database has come back. */
void reconciler_run(struct reconciler *reconciler);

/* Begins the round that is due, if one is, on an idle session. Ask before anything else gets the session: who always
 * waits for one that nobody wants may wait for ever. */
bool reconciler_start(struct reconciler *reconciler, struct pg_session *session);

/* After the pool is closed. */
void reconciler_close(struct reconciler *reconciler);

#endif
