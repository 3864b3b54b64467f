/* SPDX-License-Identifier: MIT */
/* Dials and cancels. */
#include "pg_thread.h"

#include <stdio.h>

#define DIAL_TIMEOUT_S "10" /* for each address */

/* In the thread pool. What stands before dbname may be overridden by the URL, what stands after may not. */
static void run_dial(uv_work_t *work)
{
    struct pg_dial *dial = work->data;
    char user_timeout[24];
    (void)snprintf(user_timeout, sizeof user_timeout, "%lld", (long long)dial->statement_timeout_ms);
    const char *const keywords[] = {
        "application_name", "connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count",
        "tcp_user_timeout", "gssencmode",      "dbname",          "client_encoding",     NULL};
    const char *const values[] = {"promptd", DIAL_TIMEOUT_S,     "5",    "2", "3", user_timeout,
                                  "disable", dial->database_url, "UTF8", NULL};
    dial->connection = PQconnectdbParams(keywords, values, 1);
}

/* A notice may quote a row: it reaches no log. */
static void ignore_notice(void *context, const PGresult *result)
{
    (void)context;
    (void)result;
}

static const char *make_ready(PGconn *connection)
{
    if (!connection)
        return "out of memory";
    if (PQstatus(connection) != CONNECTION_OK)
        return PQerrorMessage(connection);
    (void)PQsetNoticeReceiver(connection, ignore_notice, NULL);
    if (PQsetnonblocking(connection, 1) != 0 || PQenterPipelineMode(connection) != 1)
        return "the connection could not be made non-blocking and pipelined";
    return NULL;
}

static void on_dialled(uv_work_t *work, int status)
{
    struct pg_dial *dial = work->data;
    dial->in_thread = false;
    dial->on_done(dial->context, dial->connection, status == 0 ? make_ready(dial->connection) : uv_strerror(status));
}

int pg_dial_start(struct pg_dial *dial, uv_loop_t *loop)
{
    dial->work.data = dial;
    dial->connection = NULL;
    int status = uv_queue_work(loop, &dial->work, run_dial, on_dialled);
    dial->in_thread = status == 0;
    return status;
}

static void run_cancel(uv_work_t *work)
{
    struct pg_cancel *cancel = work->data;
    char ignored[256]; /* a cancel that fails is followed by the second deadline */
    (void)PQcancel(cancel->request, ignored, sizeof ignored);
}

static void on_cancelled(uv_work_t *work, int status)
{
    (void)status;
    struct pg_cancel *cancel = work->data;
    PQfreeCancel(cancel->request);
    cancel->request = NULL;
    cancel->in_thread = false;
    cancel->on_done(cancel->context);
}

bool pg_cancel_start(struct pg_cancel *cancel, uv_loop_t *loop, PGconn *connection)
{
    cancel->request = PQgetCancel(connection);
    if (!cancel->request)
        return false;
    cancel->work.data = cancel;
    cancel->in_thread = uv_queue_work(loop, &cancel->work, run_cancel, on_cancelled) == 0;
    if (cancel->in_thread)
        return true;
    PQfreeCancel(cancel->request);
    cancel->request = NULL;
    return false;
}
