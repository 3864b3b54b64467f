#!/bin/bash
# SPDX-License-Identifier: MIT
# A Redis, and a PostgreSQL that is made the way its official image does: by the files of /docker-entrypoint-initdb.d.
set -eu
PATH=$PATH:/usr/lib/postgresql/17/bin
export PGDATA=/tmp/data PGHOST=/tmp
redis-server --save '' --dir /tmp --daemonize yes
initdb --auth-local trust --auth-host scram-sha-256 >/tmp/initdb.log
pg_ctl --wait -o '-k /tmp' -l /tmp/postgres.log start
createdb "$POSTGRES_DB"
for file in /docker-entrypoint-initdb.d/*; do
    case $file in
    *.sql) psql -v ON_ERROR_STOP=1 -f "$file" "$POSTGRES_DB" ;;
    *.sh) "$file" ;;
    esac
done
echo "servers are ready"
trap 'exit 0' TERM
while :; do sleep 1; done
