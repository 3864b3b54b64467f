/* SPDX-License-Identifier: MIT */
/*
 * A blocking connection to the PostgreSQL of the settings. Each call has a deadline. Nothing is set in the session, so
 * that any mode of a pooler will do.
 */
#ifndef PROMPTCTL_DATABASE_H
#define PROMPTCTL_DATABASE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/error.h"
#include "promptd/pg_error.h"
#include "promptd/settings.h"

struct database {
    PGconn *connection;
    int64_t timeout_ms;
    char sqlstate[SQLSTATE_SIZE]; /* of the last failure; "" where no server answered */
};

/* ERROR_UNAVAILABLE: cannot be reached, or not ready for anyone; ERROR_CONFIG: the login is refused, no such database.
 * After a failure only database_close may follow. */
bool database_open(struct database *database, const struct settings *settings, struct error *error);
void database_close(struct database *database);

/*
 * Runs one statement with text parameters (NULL ends them) and returns its result, to be given to PQclear. NULL with
 * *error: ERROR_UNAVAILABLE when the connection is lost or the deadline passed, ERROR_CONFIG when the server refuses.
 * The text is the server's primary message.
 */
PGresult *database_run(struct database *database, const char *sql, const char *const *parameters, struct error *error);

/* The same for a statement whose result does not matter. */
bool database_do(struct database *database, const char *sql, struct error *error);

/* A list as PostgreSQL writes an array: {"a","b"}. The caller frees it; NULL when out of memory. */
char *database_array(const char *const *items, size_t count);

/* The settings of the views in sql/03_views.sql, for the transaction that is open. */
bool database_set_view_statuses(struct database *database, const struct settings *settings, struct error *error);

#endif
