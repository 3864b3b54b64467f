/* SPDX-License-Identifier: MIT */
/* The setting database_url. */
#ifndef PROMPTD_PG_URL_H
#define PROMPTD_PG_URL_H

#include <stdbool.h>

#include "promptd/error.h"

/* What database_url may be, for people. */
#define PG_URL_ALLOWED "postgresql://[user[:password]@][host][:port][/database][?…] or host=… dbname=… user=…"
/* Is this a URI or conninfo that libpq understands? false, and what is wrong, without libpq's own words: they may quote
 * a password. */
bool pg_url_check(const char *database_url, struct error *phrase);

#endif
