/* SPDX-License-Identifier: MIT */
/* The session's own: its state, and what pg_session.c (the connection) and pg_session_run.c (the run) have in common.
 */
#ifndef PROMPTD_PG_SESSION_PRIVATE_H
#define PROMPTD_PG_SESSION_PRIVATE_H

#include <libpq-fe.h>

#include "promptd/pg_session.h"

enum pg_state {
    PG_STATE_CLOSED,     /* no connection; leaves by pg_session_dial */
    PG_STATE_DIALLING,   /* PQconnectdbParams runs in the thread pool; leaves with its end */
    PG_STATE_IDLE,       /* connected, nothing in flight; leaves by a run or by losing the connection */
    PG_STATE_BUSY,       /* a run awaits its answer; leaves with the answer, the deadline or a loss */
    PG_STATE_CANCELLING, /* the deadline has passed; leaves with the answer, a second deadline or a loss */
    PG_STATE_ENDING,     /* pg_session_close has cancelled the run; leaves with its answer or a loss */
    PG_STATE_GONE        /* pg_session_close was called; waits for the end of its threads and handles */
};

enum {
    PREPARED_MAX = 16,    /* more than there are statements marked so */
    PLANS_KEPT_MS = 5000, /* tables grow, and the server plans anew by itself only when it has new statistics */
    COMMANDS_MAX = 3 * PG_STATEMENTS_MAX + 1,
    STATEMENT_NAME_SIZE = 64
};

struct prepared {
    const char *sql;
    char name[STATEMENT_NAME_SIZE];
};

/* What the server gets for a statement: it may have to be prepared first, and it may end a transaction. */
struct command {
    enum { COMMAND_DISCARD_PLANS, COMMAND_PREPARE, COMMAND_EXECUTE, COMMAND_SYNC } kind;
    int statement; /* its index in the run */
};

/* The run in flight. */
struct pg_run {
    pg_answered answered; /* NULL: there is none */
    void *context;
    struct pg_answer answer;
    struct pg_statement statements[PG_STATEMENTS_MAX];
    int statement_count;
    int64_t timeout_ms; /* of each transaction */
    struct command commands[COMMANDS_MAX];
    int command_count;
    int command_at;          /* whose results are being read */
    int transaction;         /* its first statement: of the transaction whose results are being read */
    bool transaction_failed; /* that one */
    bool commit_failed;      /* and it was its end that failed: a NULL is still to come before the sync */
    int failed_transaction;  /* the first that failed: its first statement */
    bool raised;             /* its failure comes from inside a function, such as a trigger's */
    bool is_named;           /* some statement was sent by name */
    bool again;              /* it may have failed for the names, and goes again without */
    bool answer_ready;       /* complete, but a cancel of this very run is still under way */
};

struct pg_session {
    struct pg_session_options options;
    enum pg_state state;
    PGconn *connection;

    uv_work_t dial_work;
    PGconn *dialled; /* what the dial has made */
    uv_work_t cancel_work;
    PGcancel *cancel;
    bool dial_in_thread;
    bool cancel_in_thread;
    bool cancel_waits;       /* for its turn */
    int64_t cancel_until_ms; /* on the loop's clock: as long as that */
    bool cancel_may_hit;     /* it is of this connection, and would hit whatever runs there */

    uv_poll_t *poll; /* a handle of its own for each connection: it outlives the socket until its close callback */
    int poll_events;
    uv_timer_t deadline;
    uv_timer_t later; /* delivers what must not be called back at once */
    int open_handles;
    char down_reason[256];

    bool is_direct;                         /* no pooler in between; of this connection, as what follows */
    struct prepared prepared[PREPARED_MAX]; /* what the server knows by name */
    int prepared_count;
    int64_t planned_ms; /* on the loop's clock: since when the plans of these may have been made */
    struct pg_run run;
};

/* pg_session.c */

/* The only mover. */
void pg_session_move(struct pg_session *session, enum pg_state state, const char *reason);

/* The connection is of no use any more, for `reason`: closes it, and answers from the loop. */
void pg_session_lose(struct pg_session *session, const char *reason);
/* Sends what libpq still holds, and watches for writability only while it holds some. false: the connection failed. */
bool pg_session_flush(struct pg_session *session);
/* A transaction begins: it has the run's timeout_ms from now on. */
void pg_session_start_deadline(struct pg_session *session);
/* The run that pg_session_close has cancelled is complete. */
void pg_session_end(struct pg_session *session);
/* All is answered but the cancel that is under way, which has the usual time to end. */
void pg_session_await_cancel(struct pg_session *session);
/* At most 200 characters of what the server said, as they are: whether they quote a prompt is still to be checked. */
void pg_session_copy_shortened(char *out, size_t size, const char *text);

/* pg_session_run.c */

bool pg_run_is_unanswered(const struct pg_session *session);
/* Reads every result that has arrived, and answers the run when it is complete. */
void pg_run_read(struct pg_session *session);
/* The cancel that a complete answer has waited for is over. */
void pg_run_go_on(struct pg_session *session);
/* No more results will come, for `reason`: PG_LOST is the answer, unless a final one is there. */
void pg_run_lose(struct pg_session *session, const char *reason);
/* Hands the answer over. The session may start its next run, be dropped or closed inside the callback. */
void pg_run_deliver(struct pg_session *session);

#endif
