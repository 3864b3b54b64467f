/* SPDX-License-Identifier: MIT */
/* The listening socket of the admin interface: TCP or Unix, and who may come. */
#ifndef PROMPTD_ADMIN_LISTEN_H
#define PROMPTD_ADMIN_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>

#include "promptd/endpoint.h"
#include "promptd/error.h"

struct admin_listener {
    int fd;
    bool is_loopback;              /* only this machine reaches it */
    char *unix_path;               /* NULL for TCP; owned */
    dev_t device;                  /* of the socket's file, */
    ino_t inode;                   /* to remove it only while it is ours */
    char host[ENDPOINT_HOST_SIZE]; /* as it was configured; "" for a Unix socket */
    char url[ENDPOINT_HOST_SIZE + 32];
};

/* host:port or unix:/path. false with ERROR_UNAVAILABLE and why it cannot be bound. */
bool admin_listen_open(const char *listen, struct admin_listener *listener, struct error *error);

/* Closes it, and removes the socket's file if it is still the same. */
void admin_listen_close(struct admin_listener *listener);

#endif
