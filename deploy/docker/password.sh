#!/bin/sh
# SPDX-License-Identifier: MIT
# Run by PostgreSQL's image when it has made its database: gives the role promptd its password.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$(cat /run/secrets/promptd_password)" -U postgres -d "$POSTGRES_DB" <<'END'
alter role promptd password :'password';
END
