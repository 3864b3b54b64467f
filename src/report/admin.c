/* SPDX-License-Identifier: MIT */
/*
 * libmicrohttpd on our loop: it accepts, reads, writes and times out on an epoll descriptor of its own, which is one
 * handle here.
 *
 * Two faults of the library's around a listening socket (0.9.75, 1.0.1) are worked around by a tick. At the connection
 * limit it stops listening, and only another MHD_run() after the end of a connection makes it listen again. Where
 * accept() fails for want of descriptors, it either stops listening until one of its connections ends, which a status
 * page may keep open for hours, or, without a connection, leaves the socket readable, which would make the loop spin.
 */
#include "admin_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define LOG_COMPONENT "admin"
#include "promptd/log.h"

enum {
    ADMIN_CONNECTIONS_MAX = 512,
    ADMIN_SILENCE_S = 5,        /* for the next byte to come or go */
    ADMIN_MEMORY_BYTES = 16384, /* a connection's, its request head included */
    ADMIN_TICK_MS = 1000
};

/* --- the loop ----------------------------------------------------------------------------------------------------- */

static unsigned count_connections(const struct admin *admin)
{
    return MHD_get_daemon_info(admin->http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

static void on_turn(uv_timer_t *timer);

/* Inside, client sockets are watched for edges: work may be left without an event to come. */
static void run(struct admin *admin)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    (void)MHD_run(admin->http); /* fails only in other modes than ours */
    if (MHD_get_timeout(admin->http, &wait_ms) == MHD_YES)
        (void)uv_timer_start(&admin->turn, on_turn, wait_ms, 0);
    else
        (void)uv_timer_stop(&admin->turn);
}

static void on_turn(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_events(uv_poll_t *poll, int status, int events)
{
    struct admin *admin = poll->data;
    bool was_empty = count_connections(admin) == 0;
    (void)status;
    (void)events;
    run(admin);
    if (was_empty && count_connections(admin) == 0)
        (void)uv_poll_stop(poll); /* somebody came and could not be accepted: the tick tries again */
}

/* Only where the library has stopped listening is there anybody left; at the limit they have to wait. */
static void accept_waiting(struct admin *admin)
{
    for (unsigned count = count_connections(admin); count < admin->connections_max; count++) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        int fd = accept4(admin->listener.fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        (void)MHD_add_connection(admin->http, fd, (struct sockaddr *)&address, length); /* closes it if it fails */
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct admin *admin = timer->data;
    (void)uv_poll_start(&admin->events, UV_READABLE, on_events);
    accept_waiting(admin);
    run(admin);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct admin *admin = handle->data;
    if (--admin->open_handles == 0)
        free(admin);
}

static void log_where(const struct admin *admin)
{
    log_info(LOG_FIELDS(log_text("url", admin->listener.url)), "admin listening");
    if (!admin->listener.is_loopback)
        log_warning(LOG_FIELDS(log_text("url", admin->listener.url)),
                    "the admin interface has no login, and other machines may reach it");
}

/* Paths are compared as they come: none of ours has anything to decode, and %00 would cut one short. */
static size_t leave_escaped(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context;
    (void)connection;
    return strlen(text);
}

/* Messages need descriptors, too: half of a small number is theirs. */
static unsigned choose_connections_max(void)
{
    struct rlimit descriptors;
    bool is_small = getrlimit(RLIMIT_NOFILE, &descriptors) == 0 && descriptors.rlim_cur < 2 * ADMIN_CONNECTIONS_MAX;
    return is_small ? (unsigned)descriptors.rlim_cur / 2 : ADMIN_CONNECTIONS_MAX;
}

static bool start_http(struct admin *admin, struct error *error)
{
    admin->connections_max = choose_connections_max();
    admin->http = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, admin_on_request, admin, MHD_OPTION_LISTEN_SOCKET,
                                   admin->listener.fd, MHD_OPTION_CONNECTION_LIMIT, admin->connections_max,
                                   MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)ADMIN_SILENCE_S,
                                   MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)ADMIN_MEMORY_BYTES,
                                   MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
    return admin->http || error_set(error, ERROR_INTERNAL, "the HTTP server cannot be started");
}

static bool watch(struct admin *admin, struct error *error)
{
    uv_loop_t *loop = admin->options.loop;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(admin->http, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || uv_poll_init(loop, &admin->events, info->epoll_fd) != 0)
        return error_set(error, ERROR_INTERNAL, "the HTTP server cannot be watched");
    (void)uv_timer_init(loop, &admin->turn); /* always 0 */
    (void)uv_timer_init(loop, &admin->tick);
    admin->open_handles = 3;
    admin->events.data = admin;
    admin->turn.data = admin;
    admin->tick.data = admin;
    (void)uv_timer_start(&admin->tick, on_tick, 0, ADMIN_TICK_MS);
    return true;
}

/* The descriptor is the library's as soon as it was offered. */
static void close_listener(struct admin *admin)
{
    admin->listener.fd = -1;
    admin_listen_close(&admin->listener);
}

/* A failure at the start ends the process: what was opened until then goes with it. */
struct admin *admin_open(const struct admin_options *options, struct error *error)
{
    struct admin *admin = calloc(1, sizeof *admin);
    if (!admin) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    admin->options = *options;
    if (!admin_listen_open(options->listen, &admin->listener, error)) {
        free(admin);
        return NULL;
    }
    if (!start_http(admin, error) || !watch(admin, error)) {
        close_listener(admin);
        return NULL; /* NOLINT(clang-analyzer-unix.Malloc): handles may point to it */
    }
    log_where(admin);
    return admin;
}

void admin_close(struct admin *admin)
{
    uv_close((uv_handle_t *)&admin->events, on_handle_closed);
    uv_close((uv_handle_t *)&admin->turn, on_handle_closed);
    uv_close((uv_handle_t *)&admin->tick, on_handle_closed);
    MHD_stop_daemon(admin->http);
    close_listener(admin);
}
