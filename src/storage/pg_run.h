/* SPDX-License-Identifier: MIT */
/*
 * One run on a connection: statements are sent, by name where that is possible, and their results read. The
 * connection's owner sends and reads when it is time to, and is told by what is returned: nothing is called back.
 */
#ifndef PROMPTD_PG_RUN_H
#define PROMPTD_PG_RUN_H

#include <libpq-fe.h>
#include <stdint.h>

#include "promptd/pg_answer.h"

enum {
    PREPARED_MAX = 16, /* more than there are statements marked so */
    COMMANDS_MAX = 3 * PG_STATEMENTS_MAX + 1,
    STATEMENT_NAME_SIZE = 64
};

struct prepared {
    const char *sql;
    char name[STATEMENT_NAME_SIZE];
};

/* What a connection's server knows by name. */
struct pg_names {
    bool is_direct; /* no pooler in between: names may be used */
    struct prepared prepared[PREPARED_MAX];
    int count;
    int64_t planned_ms; /* on the loop's clock: since when the plans of these may have been made */
};

/* What the server gets for a statement: it may have to be prepared first, and it may end a transaction. */
struct command {
    enum { COMMAND_DISCARD_PLANS, COMMAND_PREPARE, COMMAND_EXECUTE, COMMAND_SYNC } kind;
    int statement; /* its index in the run */
};

struct pg_run {
    pg_answered answered; /* NULL: there is no run in flight */
    void *context;
    bool is_complete; /* nothing is left to be read */
    struct pg_answer answer;
    struct pg_statement statements[PG_STATEMENTS_MAX];
    int statement_count;
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
};

void pg_run_begin(struct pg_run *run, const struct pg_statement *statements, int count, pg_answered answered,
                  void *context);
/* Hands the answer over, as the end of the run: the next may begin inside the callback. */
void pg_run_deliver(struct pg_run *run, struct pg_session *session);

/* Gives libpq what has to be sent: all of it, or what pg_run_repeat has left. false: the connection failed. */
bool pg_run_send(struct pg_run *run, struct pg_names *names, PGconn *connection, int64_t now_ms);

enum pg_run_progress {
    PG_RUN_WAITS,   /* for more from the server, or the connection has failed */
    PG_RUN_BEGINS,  /* a transaction is over, and its successor begins: go on reading */
    PG_RUN_ENDS,    /* it is complete */
    PG_RUN_UNCLEAR, /* libpq does not say what was answered */
};

enum pg_run_progress pg_run_read(struct pg_run *run, struct pg_names *names, PGconn *connection, int64_t now_ms);

/* Complete, but failed, and perhaps for the names of prepared statements: it should go again without them. */
bool pg_run_may_have_failed_by_names(const struct pg_run *run);
/* Then: from the transaction on that failed. Nothing of it, and of those after it, is in the database. */
void pg_run_repeat(struct pg_run *run);

/* It was repeated, and went well: then it was the names. */
bool pg_run_failed_by_names(const struct pg_run *run);

/* No more results will come, for `reason`: PG_LOST is the answer, unless a final one is there. */
void pg_run_lose(struct pg_run *run, const char *reason);

#endif
