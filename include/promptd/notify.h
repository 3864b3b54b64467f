/* SPDX-License-Identifier: MIT */
/*
 * The service's state, sent to systemd over $NOTIFY_SOCKET (Type=notify); without one nothing happens, and no call
 * fails, nor waits for a systemd that does not read: what it must know is sent again with each notify_status. The
 * watchdog, where the unit has one, is fed from the loop: it says that the loop turns.
 */
#ifndef PROMPTD_NOTIFY_H
#define PROMPTD_NOTIFY_H

#include <uv.h>

#include "promptd/health.h"

struct notify;

struct notify *notify_new(uv_loop_t *loop); /* NULL when out of memory */

void notify_ready(struct notify *notify); /* started, or reloaded */
void notify_reloading(struct notify *notify);
void notify_stopping(struct notify *notify);

/* The line that `systemctl status` shows: what is missing, and how much waits. Sent only when it has changed. */
void notify_status(struct notify *notify, const struct health *health);

/* It is gone when the loop has turned. */
void notify_close(struct notify *notify);

#endif
