/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told of the service, over $NOTIFY_SOCKET (Type=notify); without one nothing happens, and no call
 * fails. The watchdog, where the unit has one, is fed from the loop: it says that the loop turns.
 */
#ifndef PROMPTD_NOTIFY_H
#define PROMPTD_NOTIFY_H

#include <uv.h>

#include "promptd/health.h"

struct notify;

struct notify_options {
    uv_loop_t *loop;
    void (*on_closed)(void *context);
    void *context;
};

struct notify *notify_new(const struct notify_options *options); /* NULL when memory is out */

void notify_ready(struct notify *notify); /* started, or reloaded */
void notify_reloading(struct notify *notify);
void notify_stopping(struct notify *notify);

/* The line that `systemctl status` shows: what is missing, and how much waits. Sent only when it has changed. */
void notify_status(struct notify *notify, const struct health *health);

/* on_closed follows, and it is gone. */
void notify_close(struct notify *notify);

#endif
