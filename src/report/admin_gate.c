/* SPDX-License-Identifier: MIT */
/*
 * Between accepting and libmicrohttpd: a connection waits here for its first bytes. Their head is looked at where it
 * lies, in the socket (MSG_PEEK); what is malformed is answered here, in JSON as all that is refused, and goes no
 * further. A head that comes in pieces, and later requests on the same connection, the library judges by itself.
 */
#include "admin_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_head.h"
#include "promptd/json.h"

struct admin_arrival {
    TAILQ_ENTRY(admin_arrival) link; /* by since_ms */
    struct admin *admin;
    uv_poll_t poll; /* watched once the first look has found nothing */
    int fd;
    bool answered; /* only its end is awaited */
    int64_t since_ms;
    struct sockaddr_storage address;
    socklen_t address_length;
};

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* Its descriptor is somebody else's from now on. */
static void leave(struct admin_arrival *arrival)
{
    struct admin *admin = arrival->admin;
    TAILQ_REMOVE(&admin->waiting, arrival, link);
    admin->waiting_count--;
    uv_close((uv_handle_t *)&arrival->poll, on_poll_closed);
}

static void drop(struct admin_arrival *arrival)
{
    int fd = arrival->fd;
    leave(arrival);
    (void)close(fd);
}

static void pass_on(struct admin_arrival *arrival)
{
    int fd = arrival->fd;
    leave(arrival);
    /* It closes the descriptor where it fails. */
    (void)MHD_add_connection(arrival->admin->http, fd, (struct sockaddr *)&arrival->address, arrival->address_length);
}

static const char *reason_phrase(unsigned status)
{
    switch (status) {
    case MHD_HTTP_CONTENT_TOO_LARGE:
        return "Content Too Large";
    case MHD_HTTP_URI_TOO_LONG:
        return "URI Too Long";
    case MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE:
        return "Request Header Fields Too Large";
    case MHD_HTTP_HTTP_VERSION_NOT_SUPPORTED:
        return "HTTP Version Not Supported";
    default:
        return "Bad Request";
    }
}

/* Small enough for any socket's buffer. */
static void answer_bad(const struct admin_arrival *arrival, const struct http_head *head)
{
    struct buffer body = {0};
    struct buffer answer = {0};
    json_open(&body, NULL, '{');
    json_number(&body, "status", head->status);
    json_text(&body, "error", head->why);
    json_close(&body, '}');
    buffer_printf(&answer,
                  "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                  "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
                  head->status, reason_phrase(head->status), body.length);
    buffer_append(&answer, body.data, body.length);
    if (!answer.failed && !body.failed)
        (void)send(arrival->fd, answer.data, answer.length, MSG_DONTWAIT | MSG_NOSIGNAL); /* lost where the peer is */
    (void)shutdown(arrival->fd, SHUT_WR);
    buffer_free(&answer);
    buffer_free(&body);
}

/* Closing with bytes unread, or before the last have come, would take the answer back: TCP's reset overtakes it. So
 * what comes is read, until the peer closes or the sweep finds that it takes too long. */
static bool discard(struct admin_arrival *arrival)
{
    char unwanted[HTTP_HEAD_MAX_BYTES];
    ssize_t length = recv(arrival->fd, unwanted, sizeof unwanted, MSG_DONTWAIT);
    if (length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    drop(arrival);
    return true;
}

/* false when there is more to wait for. */
static bool look(struct admin_arrival *arrival)
{
    char bytes[HTTP_HEAD_MAX_BYTES];
    ssize_t length = recv(arrival->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (length <= 0) {
        drop(arrival);
        return true;
    }
    struct http_head head = http_head_judge(bytes, (size_t)length);
    if (head.form != HTTP_HEAD_BAD) {
        pass_on(arrival);
        return true;
    }
    answer_bad(arrival, &head);
    arrival->answered = true;
    return false;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct admin_arrival *arrival = poll->data;
    struct admin *admin = arrival->admin;
    (void)events;
    if (status < 0)
        drop(arrival);
    else if (!(arrival->answered ? discard(arrival) : look(arrival)))
        return;
    admin_run(admin);
}

void admin_gate_enter(struct admin *admin, int fd, const struct sockaddr_storage *address, socklen_t address_length)
{
    struct admin_arrival *arrival = calloc(1, sizeof *arrival);
    if (!arrival || uv_poll_init(admin->options.loop, &arrival->poll, fd) != 0) {
        free(arrival);
        (void)close(fd);
        return;
    }
    arrival->admin = admin;
    arrival->poll.data = arrival;
    arrival->fd = fd;
    arrival->since_ms = (int64_t)uv_now(admin->options.loop);
    arrival->address = *address;
    arrival->address_length = address_length;
    TAILQ_INSERT_TAIL(&admin->waiting, arrival, link);
    admin->waiting_count++;
    if (!look(arrival) && uv_poll_start(&arrival->poll, UV_READABLE, on_readable) != 0)
        drop(arrival);
}

int64_t admin_gate_oldest_ms(const struct admin *admin)
{
    const struct admin_arrival *oldest = TAILQ_FIRST(&admin->waiting);
    return oldest ? oldest->since_ms : INT64_MAX;
}

void admin_gate_drop_oldest(struct admin *admin)
{
    drop(TAILQ_FIRST(&admin->waiting));
}

void admin_gate_close(struct admin *admin)
{
    while (!TAILQ_EMPTY(&admin->waiting))
        drop(TAILQ_FIRST(&admin->waiting));
}
