/* SPDX-License-Identifier: MIT */
/*
 * One PostgreSQL connection, driven by the loop: dial, run statements, notice when it dies.
 *
 * The dial (name look-up, TLS, several hosts: libpq's business) and the cancelling of a statement block, so they run in
 * libuv's thread pool; all the rest happens on the loop. Statements are sent with parameters, in pipeline mode, and
 * nothing is set in the session. They are unnamed, so that any pooler mode works, unless it is known that there is no
 * pooler: see pg_session_set_backend_pid.
 *
 * Callbacks never run inside a call of this module.
 */
#ifndef PROMPTD_PG_SESSION_H
#define PROMPTD_PG_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/pg_answer.h"

struct pg_session;

struct pg_session_options {
    uv_loop_t *loop;
    const char *database_url; /* borrowed for the session's life, as what follows */
    /* For one transaction; then it is cancelled; without an answer soon after, closed. It may change. */
    const int64_t *statement_timeout_ms;
    size_t *cancels_left; /* shared: how many more sessions may cancel now; the others wait for their turn */
    void (*on_up)(void *context);
    /* A dial failed or an open session died, for `reason`, which is fit for the log. A run in flight was answered with
     * PG_LOST just before. */
    void (*on_down)(void *context, const char *reason);
    /* After pg_session_close: the session is gone. */
    void (*on_closed)(void *context);
    void *context;
};

struct pg_session *pg_session_new(const struct pg_session_options *options); /* NULL when out of memory */

/* Starts a dial. Only for a session that is neither open nor dialling. */
void pg_session_dial(struct pg_session *session);

bool pg_session_is_idle(const struct pg_session *session); /* open, and no run in flight */
bool pg_session_is_open(const struct pg_session *session);
bool pg_session_is_dialling(const struct pg_session *session);

/* Sends `count` statements in one go, as one implicit transaction unless some of them say that they end one; should one
 * transaction fail, the next runs all the same. Each transaction has timeout_ms; 0: statement_timeout_ms. Only on an
 * idle session; `answered` runs exactly once. */
void pg_session_run(struct pg_session *session, const struct pg_statement *statements, int count, int64_t timeout_ms,
                    pg_answered answered, void *context);

/*
 * Says which server process has answered the last run (pg_backend_pid). Where it is the one that the server named when
 * the connection was made, nothing in between hands statements to other processes, and from now on those marked
 * `prepare` are prepared. A pooler names an id of its own, which is the same only by chance. A run that fails and may
 * have failed for its names, for that or because the schema has changed, goes again without them before it is answered:
 * from the transaction on that failed, unless one after it has changed something.
 */
void pg_session_set_backend_pid(struct pg_session *session, int32_t pid);
bool pg_session_is_direct(const struct pg_session *session); /* it is known so */

/* Closes the connection for `reason`, as if it had died: on_down follows. For an open session, or one that is closing
 * anyway. */
void pg_session_drop(struct pg_session *session, const char *reason);

/* Ends the session in whatever state: a run in flight is cancelled on the server, and answered with PG_OK or PG_LOST;
 * no on_down follows, and on_closed is the last callback. The end of the run, a dial and a cancel under way are waited
 * for first. */
void pg_session_close(struct pg_session *session);

#endif
