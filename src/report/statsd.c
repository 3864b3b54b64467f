/* SPDX-License-Identifier: MIT */
/* StatsD lines, and a socket that never waits. */
#include "promptd/statsd.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_COMPONENT "statsd"
#include "promptd/clock.h"
#include "promptd/endpoint.h"
#include "promptd/log.h"

enum { LOOK_AGAIN_MS = 60000, LOOK_AGAIN_AFTER_FAILURE_MS = 5000 };

struct statsd {
    struct statsd_options options;
    struct endpoint server;
    struct metrics sent; /* as of the last flush */
    int fd;              /* connected to the server's address; -1: none is known */
    struct sockaddr_storage address;
    socklen_t address_length;
    uv_getaddrinfo_t lookup;
    bool looking;
    bool stopped;
    bool is_unknown; /* its name is not found, and that stands in the log */
    int64_t look_due_ms;
    struct buffer lines;
};

/* --- lines -------------------------------------------------------------------------------------------------------- */

static void append_durations(struct buffer *buffer, const char *name, const struct samples *samples)
{
    size_t count = samples_count(samples);
    for (size_t i = 0; i < count; i++) {
        buffer_printf(buffer, "%s:%.3f|ms", name, (double)samples->kept_us[i] / 1000);
        if (samples->seen > count)
            buffer_printf(buffer, "|@%.6f", (double)count / (double)samples->seen);
        buffer_append_char(buffer, '\n');
    }
}

void statsd_append_lines(struct buffer *buffer, const struct metrics *now, const struct metrics *before)
{
    for (size_t i = 0; metrics_row(i); i++) {
        const struct metric *row = metrics_row(i);
        if (!*row->statsd)
            continue;
        if (row->kind == METRIC_HISTOGRAM) {
            append_durations(buffer, row->statsd, &now->samples);
            continue;
        }
        uint64_t added = metrics_value(now, row) - metrics_value(before, row);
        if (added > 0)
            buffer_printf(buffer, "%s:%" PRIu64 "|c\n", row->statsd, added);
    }
}

size_t statsd_datagram_length(const char *lines, size_t length)
{
    if (length <= STATSD_DATAGRAM_BYTES)
        return length;
    const char *end = memrchr(lines, '\n', STATSD_DATAGRAM_BYTES);
    return end ? (size_t)(end - lines) + 1 : length;
}

/* --- the server's address ----------------------------------------------------------------------------------------- */

static void use_address(struct statsd *statsd, const struct addrinfo *found)
{
    if (statsd->fd >= 0 && statsd->address_length == found->ai_addrlen &&
        memcmp(&statsd->address, found->ai_addr, found->ai_addrlen) == 0)
        return;
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        log_warning(LOG_FIELDS(log_text("error", strerror(errno))), "StatsD server cannot be sent to");
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    if (statsd->fd >= 0)
        (void)close(statsd->fd);
    statsd->fd = fd;
    memcpy(&statsd->address, found->ai_addr, found->ai_addrlen);
    statsd->address_length = found->ai_addrlen;
    log_info(LOG_FIELDS(log_text("server", statsd->server.host), log_text("port", statsd->server.port)),
             "metrics are sent to StatsD");
}

/* Once each time that it begins. The address that was known goes on being used. */
static void report_unknown(struct statsd *statsd, int status)
{
    if (!statsd->is_unknown)
        log_warning(LOG_FIELDS(log_text("server", statsd->server.host), log_text("error", uv_strerror(status))),
                    "StatsD server's name is not found; trying again");
    statsd->is_unknown = true;
}

static void on_found(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct statsd *statsd = lookup->data;
    statsd->looking = false;
    if (status == 0 && found && !statsd->stopped) {
        statsd->is_unknown = false;
        use_address(statsd, found);
    } else if (!statsd->stopped) {
        report_unknown(statsd, status);
    }
    int64_t wait_ms = status == 0 ? LOOK_AGAIN_MS : LOOK_AGAIN_AFTER_FAILURE_MS;
    statsd->look_due_ms = clock_monotonic_us() / 1000 + wait_ms;
    uv_freeaddrinfo(found);
}

static void look_up_if_due(struct statsd *statsd)
{
    if (statsd->looking || statsd->stopped || clock_monotonic_us() / 1000 < statsd->look_due_ms)
        return;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
    statsd->lookup.data = statsd;
    statsd->looking = uv_getaddrinfo(statsd->options.loop, &statsd->lookup, on_found, statsd->server.host,
                                     statsd->server.port, &hints) == 0;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

/* A server that is away answers one datagram with an error that the next one meets: that one is sent again. */
static void send_datagram(int fd, const char *bytes, size_t length)
{
    if (send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED)
        (void)send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL); /* best effort: that is what UDP is */
}

static void send_lines(struct statsd *statsd)
{
    const char *at = statsd->lines.data;
    size_t left = statsd->lines.length;
    while (left > 0) {
        size_t length = statsd_datagram_length(at, left);
        send_datagram(statsd->fd, at, length - 1); /* the last newline only separates */
        at += length;
        left -= length;
    }
}

void statsd_flush(struct statsd *statsd)
{
    struct metrics *metrics = statsd->options.metrics;
    look_up_if_due(statsd);
    if (statsd->fd < 0)
        return;
    statsd_append_lines(&statsd->lines, metrics, &statsd->sent);
    if (statsd->lines.length == 0)
        return;
    if (!statsd->lines.failed) {
        send_lines(statsd);
        statsd->sent = *metrics;
        samples_clear(&metrics->samples);
    }
    buffer_reset(&statsd->lines, 4096);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct statsd *statsd_new(const struct statsd_options *options)
{
    struct error error;
    struct statsd *statsd = calloc(1, sizeof *statsd);
    if (!statsd)
        return NULL;
    statsd->options = *options;
    statsd->fd = -1;
    if (!endpoint_parse(options->server, &statsd->server, &error)) {
        free(statsd); /* the settings have checked it before */
        return NULL;
    }
    look_up_if_due(statsd);
    return statsd;
}

void statsd_stop(struct statsd *statsd)
{
    statsd->stopped = true;
    if (statsd->looking)
        (void)uv_cancel((uv_req_t *)&statsd->lookup); /* one that runs already is waited for */
}

void statsd_free(struct statsd *statsd)
{
    if (!statsd)
        return;
    statsd_flush(statsd);
    if (statsd->fd >= 0)
        (void)close(statsd->fd);
    buffer_free(&statsd->lines);
    free(statsd);
}
