#!/bin/bash
# SPDX-License-Identifier: MIT
# servers.sh COMMAND...: what the official image would do with that command. Without one it is PostgreSQL, made by the files
# of /docker-entrypoint-initdb.d; with --config.file it is Prometheus; "all" is Redis and PostgreSQL together.
set -eu
PATH=$PATH:/usr/lib/postgresql/17/bin
export PGDATA=/tmp/data PGHOST=/tmp

make_database() {
    initdb --auth-local trust --auth-host scram-sha-256 >/tmp/initdb.log
    pg_ctl --wait -o "-k /tmp" -l /tmp/postgres.log start
    createdb "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sql) psql -v ON_ERROR_STOP=1 -f "$file" "$POSTGRES_DB" ;;
        *.sh) "$file" ;;
        esac
    done
    echo "servers are ready"
}

stay() {
    trap 'pg_ctl --mode fast stop; exit 0' TERM
    while :; do sleep 1; done
}

case ${1:-postgres} in
postgres)
    make_database
    stay
    ;;
all)
    redis-server --save '' --dir /tmp --daemonize yes --tls-port 6380 --tls-cert-file /tls/ca-server.crt \
        --tls-key-file /tls/ca-server.key --tls-ca-cert-file /tls/ca.crt --tls-auth-clients no
    make_database
    stay
    ;;
--config.file=*) exec prometheus --storage.tsdb.path=/tmp/prometheus "$@" ;;
*) exec "$@" ;;
esac
