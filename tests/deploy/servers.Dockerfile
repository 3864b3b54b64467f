# SPDX-License-Identifier: MIT
# Stands in for the images of Redis, PostgreSQL and Prometheus, where no registry is to be had.
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends redis-server postgresql prometheus \
    && rm -rf /var/lib/apt/lists/* && install -d -o postgres /var/lib/postgresql/data
COPY tests/deploy/servers.sh /usr/local/bin/servers.sh
USER postgres
ENTRYPOINT ["/usr/local/bin/servers.sh"]
