/* SPDX-License-Identifier: MIT */
/* Whether created_at says when. */
#include "row_age.h"

#include <stdio.h>
#include <string.h>

/* The type of $1's created_at, beneath a domain; the zone that is set for this role, and for the database. */
static const char zone_sql[] =
    "with told as (select setrole <> 0 as is_for_role, setdatabase <> 0 as is_for_database, substr(c, 10) as zone"
    " from pg_db_role_setting, unnest(setconfig) as c where lower(c) like 'timezone=%'"
    " and setdatabase in (0, (select oid from pg_database where datname = current_database()))"
    " and setrole in (0, (select oid from pg_roles where rolname = current_user))),"
    " best as (select zone, is_for_role from told order by is_for_role desc, is_for_database desc limit 1)"
    " select exists (select from pg_attribute join pg_type t on t.oid = atttypid where attrelid = to_regclass($1)"
    " and attname = 'created_at' and 'timestamp'::regtype in (atttypid, typbasetype)),"
    " coalesce((select is_for_role from best), false),"
    " set_config('TimeZone', coalesce((select zone from best), current_setting('TimeZone')), true),"
    " quote_ident(current_user), quote_ident(current_database())";

static bool is_true(const PGresult *result, int column)
{
    return strcmp(PQgetvalue(result, 0, column), "t") == 0;
}

bool row_age_read(struct database *database, const char *table, struct row_age *age, struct error *error)
{
    const char *const parameters[] = {table, NULL};
    PGresult *result = database_run(database, zone_sql, parameters, error);
    *age = (struct row_age){.is_certain = true};
    if (result && is_true(result, 0)) {
        age->is_certain = is_true(result, 1);
        (void)snprintf(age->doubt, sizeof age->doubt, "%s.created_at has no time zone, and is read in %.40s", table,
                       PQgetvalue(result, 0, 2));
        if (!age->is_certain)
            (void)snprintf(age->cure, sizeof age->cure, "alter role %.64s in database %.64s set timezone = '...'",
                           PQgetvalue(result, 0, 3), PQgetvalue(result, 0, 4));
    }
    PQclear(result);
    return result != NULL;
}
