/* SPDX-License-Identifier: MIT */
/*
 * libmicrohttpd on our loop, and the bounds around it.
 *
 *     listening socket ─accept─▶ gate ─▶ MHD_add_connection ─▶ its epoll descriptor ─▶ MHD_run ─▶ admin_on_request
 *                         │                                                               ▲
 *                         └ too many: the most silent one is shut down ───────────────────┘
 *
 * Accepting is ours, not the library's: so a new client always finds room, however many hold idle connections, and how
 * long anyone may be silent is decided in one place. A connection is only ever shut down here; the library notices,
 * and closes it.
 */
#include "admin_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_COMPONENT "admin"
#include "promptd/log.h"

enum {
    ADMIN_CONNECTIONS_MAX = 64,
    ADMIN_ACCEPTS_AT_ONCE = 16,
    ADMIN_SILENCE_MS = 10000,   /* for a request to arrive in, an answer to leave in, or a connection to be idle */
    ADMIN_MEMORY_BYTES = 16384, /* a connection's, its request head included */
    ADMIN_NO_DESCRIPTOR_MS = 1000
};

static void on_turn(uv_timer_t *timer);
static void on_sweep(uv_timer_t *timer);
static void on_arrival(uv_poll_t *poll, int status, int events);

/* --- connections -------------------------------------------------------------------------------------------------- */

static int64_t now_ms(const struct admin *admin)
{
    return (int64_t)uv_now(admin->options.loop);
}

static void send_away(struct admin *admin, struct admin_connection *client)
{
    client->leaving = true;
    TAILQ_REMOVE(&admin->connections, client, link);
    (void)shutdown(client->fd, SHUT_RDWR); /* fails only when the peer has gone already */
}

static int64_t connections_oldest_ms(const struct admin *admin)
{
    const struct admin_connection *oldest = TAILQ_FIRST(&admin->connections);
    return oldest ? oldest->since_ms : INT64_MAX;
}

/* Since when the most silent one is so, in the gate or beyond; INT64_MAX when there is nobody. */
static int64_t most_silent_ms(const struct admin *admin)
{
    int64_t in_gate_ms = admin_gate_oldest_ms(admin);
    int64_t beyond_ms = connections_oldest_ms(admin);
    return in_gate_ms < beyond_ms ? in_gate_ms : beyond_ms;
}

static void send_most_silent_away(struct admin *admin)
{
    if (admin_gate_oldest_ms(admin) < connections_oldest_ms(admin))
        admin_gate_drop_oldest(admin);
    else if (!TAILQ_EMPTY(&admin->connections))
        send_away(admin, TAILQ_FIRST(&admin->connections));
}

static void plan_sweep(struct admin *admin)
{
    int64_t oldest_ms = most_silent_ms(admin);
    if (admin->paused)
        return; /* the timer has another end to wait for */
    if (oldest_ms == INT64_MAX) {
        (void)uv_timer_stop(&admin->sweep);
        return;
    }
    int64_t wait_ms = oldest_ms + ADMIN_SILENCE_MS - now_ms(admin);
    (void)uv_timer_start(&admin->sweep, on_sweep, wait_ms > 0 ? (uint64_t)wait_ms : 0, 0);
}

static void touch(struct admin *admin, struct admin_connection *client)
{
    if (client->leaving)
        return;
    client->since_ms = now_ms(admin);
    TAILQ_REMOVE(&admin->connections, client, link);
    TAILQ_INSERT_TAIL(&admin->connections, client, link);
}

static struct admin_connection *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void admin_note_activity(struct admin *admin, struct MHD_Connection *connection)
{
    struct admin_connection *client = client_of(connection);
    if (client)
        touch(admin, client);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code)
{
    (void)request;
    (void)code;
    admin_note_activity(context, connection);
}

static void add_client(struct admin *admin, struct MHD_Connection *connection, void **socket_context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct admin_connection *client = calloc(1, sizeof *client);
    if (!client || !info) {
        free(client);
        if (info)
            (void)shutdown(info->connect_fd, SHUT_RDWR); /* unknown to us, it could stay for ever */
        return;
    }
    client->fd = info->connect_fd;
    client->since_ms = now_ms(admin);
    TAILQ_INSERT_TAIL(&admin->connections, client, link);
    admin->connection_count++;
    *socket_context = client;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct admin *admin = context;
    struct admin_connection *client = *socket_context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        add_client(admin, connection, socket_context);
        return;
    }
    if (!client)
        return;
    if (!client->leaving)
        TAILQ_REMOVE(&admin->connections, client, link);
    admin->connection_count--;
    *socket_context = NULL;
    free(client);
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

/* Inside, client sockets are watched for edges: work may be left without an event to come. */
void admin_run(struct admin *admin)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    (void)MHD_run(admin->http); /* fails only without MHD_USE_EPOLL's own thread mode */
    if (MHD_get_timeout(admin->http, &wait_ms) == MHD_YES)
        (void)uv_timer_start(&admin->turn, on_turn, wait_ms, 0);
    else
        (void)uv_timer_stop(&admin->turn);
    plan_sweep(admin);
}

static void on_events(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    admin_run(poll->data);
}

static void on_turn(uv_timer_t *timer)
{
    admin_run(timer->data);
}

static void on_sweep(uv_timer_t *timer)
{
    struct admin *admin = timer->data;
    int64_t until_ms = now_ms(admin) - ADMIN_SILENCE_MS;
    while (most_silent_ms(admin) <= until_ms)
        send_most_silent_away(admin);
    if (admin->paused)
        (void)uv_poll_start(&admin->arrivals, UV_READABLE, on_arrival);
    admin->paused = false;
    admin_run(admin);
}

/* --- arrivals ----------------------------------------------------------------------------------------------------- */

static void make_room(struct admin *admin)
{
    if (admin->connection_count + admin->waiting_count >= ADMIN_CONNECTIONS_MAX)
        send_most_silent_away(admin);
}

/* Waiting for the listening socket would not let the loop rest: it is readable all the time. */
static void pause_arrivals(struct admin *admin)
{
    send_most_silent_away(admin);
    (void)uv_poll_stop(&admin->arrivals);
    admin->paused = true;
    (void)uv_timer_start(&admin->sweep, on_sweep, ADMIN_NO_DESCRIPTOR_MS, 0);
}

static bool is_passing(int error)
{
    return error == EINTR || error == ECONNABORTED || error == EPROTO || error == EPERM;
}

static void on_arrival(uv_poll_t *poll, int status, int events)
{
    struct admin *admin = poll->data;
    (void)status;
    (void)events;
    for (int i = 0; i < ADMIN_ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        int fd = accept4(admin->listener.fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && is_passing(errno))
            continue;
        if (fd < 0 && errno != EAGAIN) {
            log_debug(LOG_FIELDS(log_number("errno", errno)), "a connection could not be accepted");
            admin_run(admin);
            pause_arrivals(admin);
            return;
        }
        if (fd < 0)
            break;
        make_room(admin);
        admin_gate_enter(admin, fd, &address, length);
    }
    admin_run(admin);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct admin *admin = handle->data;
    if (--admin->open_handles > 0)
        return;
    void (*on_closed)(void *) = admin->options.on_closed;
    void *context = admin->options.context;
    free(admin);
    on_closed(context);
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

static bool start_http(struct admin *admin, struct error *error)
{
    admin->http = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, admin_on_request, admin, MHD_OPTION_CONNECTION_LIMIT,
        2U * ADMIN_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)ADMIN_MEMORY_BYTES,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin, MHD_OPTION_NOTIFY_COMPLETED, on_completed, admin,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
    return admin->http || error_set(error, ERROR_INTERNAL, "the HTTP server cannot be started");
}

static bool watch(struct admin *admin, struct error *error)
{
    uv_loop_t *loop = admin->options.loop;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(admin->http, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || uv_poll_init(loop, &admin->arrivals, admin->listener.fd) != 0)
        return error_set(error, ERROR_INTERNAL, "the admin socket cannot be watched");
    admin->open_handles = 1;
    if (uv_poll_init(loop, &admin->events, info->epoll_fd) != 0)
        return error_set(error, ERROR_INTERNAL, "the HTTP server cannot be watched");
    (void)uv_timer_init(loop, &admin->turn); /* always 0 */
    (void)uv_timer_init(loop, &admin->sweep);
    admin->open_handles = 4;
    admin->arrivals.data = admin;
    admin->events.data = admin;
    admin->turn.data = admin;
    admin->sweep.data = admin;
    if (uv_poll_start(&admin->arrivals, UV_READABLE, on_arrival) != 0 ||
        uv_poll_start(&admin->events, UV_READABLE, on_events) != 0)
        return error_set(error, ERROR_INTERNAL, "the admin sockets cannot be watched");
    return true;
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
    TAILQ_INIT(&admin->connections);
    TAILQ_INIT(&admin->waiting);
    if (!admin_listen_open(options->listen, &admin->listener, error)) {
        free(admin);
        return NULL;
    }
    if (!start_http(admin, error) || !watch(admin, error)) {
        admin_listen_close(&admin->listener);
        return NULL; /* NOLINT(clang-analyzer-unix.Malloc): handles may point to it */
    }
    log_where(admin);
    return admin;
}

void admin_close(struct admin *admin)
{
    uv_close((uv_handle_t *)&admin->arrivals, on_handle_closed);
    uv_close((uv_handle_t *)&admin->events, on_handle_closed);
    uv_close((uv_handle_t *)&admin->turn, on_handle_closed);
    uv_close((uv_handle_t *)&admin->sweep, on_handle_closed);
    admin_listen_close(&admin->listener);
    admin_gate_close(admin);
    MHD_stop_daemon(admin->http);
}
