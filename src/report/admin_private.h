/* SPDX-License-Identifier: MIT */
/* What the parts of the admin interface share. */
#ifndef PROMPTD_ADMIN_PRIVATE_H
#define PROMPTD_ADMIN_PRIVATE_H

#include <microhttpd.h>

#include "admin_listen.h"
#include "promptd/admin.h"

struct admin {
    struct admin_options options;
    struct admin_listener listener;
    struct MHD_Daemon *http;
    unsigned connections_max;
    struct health health; /* filled for each answer */
    uv_poll_t events;     /* libmicrohttpd's epoll descriptor */
    uv_timer_t turn;      /* when libmicrohttpd wants to be called again */
    uv_timer_t tick;
    int open_handles;
};

/* admin_routes.c: MHD_AccessHandlerCallback, with the admin as its context. */
enum MHD_Result admin_on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                 const char *version, const char *body, size_t *body_size, void **request);

#endif
