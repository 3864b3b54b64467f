/* SPDX-License-Identifier: MIT */
/* What the parts of the admin interface share. */
#ifndef PROMPTD_ADMIN_PRIVATE_H
#define PROMPTD_ADMIN_PRIVATE_H

#include <microhttpd.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "admin_listen.h"
#include "promptd/admin.h"

/* A client. `since_ms` is the loop's time when it came, sent a whole request head, or got a whole answer. */
struct admin_connection {
    TAILQ_ENTRY(admin_connection) link; /* by since_ms, while it is not told to go */
    int fd;
    bool leaving;
    int64_t since_ms;
};

TAILQ_HEAD(admin_connections, admin_connection);
TAILQ_HEAD(admin_arrivals, admin_arrival);

struct admin {
    struct admin_options options;
    struct admin_listener listener;
    struct MHD_Daemon *http;
    struct admin_connections connections;
    size_t connection_count; /* also those that are leaving */
    struct admin_arrivals waiting;
    size_t waiting_count;
    bool paused;          /* no descriptor is free: nobody is accepted for a while */
    struct health health; /* filled for each answer */
    uv_poll_t arrivals;   /* the listening socket */
    uv_poll_t events;     /* libmicrohttpd's epoll descriptor */
    uv_timer_t turn;      /* when libmicrohttpd wants to be called again */
    uv_timer_t sweep;     /* when the most silent connection has been so for too long; active while there are any */
    int open_handles;
};

/* admin_routes.c: MHD_AccessHandlerCallback, with the admin as its context. */
enum MHD_Result admin_on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                 const char *version, const char *body, size_t *body_size, void **request);

/* admin.c: the connection has sent a request. */
void admin_note_activity(struct admin *admin, struct MHD_Connection *connection);
/* admin.c: lets the library work, and plans what is to be done later. */
void admin_run(struct admin *admin);

/* admin_gate.c: takes a fresh connection; the descriptor belongs to the gate. */
void admin_gate_enter(struct admin *admin, int fd, const struct sockaddr_storage *address, socklen_t address_length);
int64_t admin_gate_oldest_ms(const struct admin *admin); /* since when the oldest waits; INT64_MAX without one */
void admin_gate_drop_oldest(struct admin *admin);        /* there must be one */
void admin_gate_close(struct admin *admin);

#endif
