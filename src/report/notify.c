/* SPDX-License-Identifier: MIT */
/* sd_notify(3) and sd_watchdog_enabled(3). */
#include "promptd/notify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#define LOG_COMPONENT "notify"
#include "promptd/clock.h"
#include "promptd/log.h"

struct notify {
    uv_timer_t watchdog; /* active where the unit has one */
    char status[512];    /* as systemd has it */
    bool has_failed;
};

static void send_state(struct notify *notify, const char *state)
{
    int result = sd_notify(0, state);
    if (result >= 0) {
        notify->has_failed = false;
        return;
    }
    if (!notify->has_failed)
        log_warning(LOG_FIELDS(log_text("error", strerror(-result))), "the service's state cannot be sent to systemd");
    notify->has_failed = true;
}

static void on_watchdog(uv_timer_t *timer)
{
    send_state(timer->data, "WATCHDOG=1");
}

static void start_watchdog(struct notify *notify)
{
    uint64_t interval_us;
    int enabled = sd_watchdog_enabled(0, &interval_us);
    if (enabled < 0)
        log_warning(LOG_FIELDS(log_text("error", strerror(-enabled))), "the watchdog's interval cannot be read");
    if (enabled <= 0)
        return;
    uint64_t half_ms = interval_us / 2000 > 0 ? interval_us / 2000 : 1;
    (void)uv_timer_start(&notify->watchdog, on_watchdog, 0, half_ms);
    log_info(LOG_FIELDS(log_number("interval_ms", interval_us / 1000)), "feeding systemd's watchdog");
}

void notify_ready(struct notify *notify)
{
    send_state(notify, "READY=1");
}

void notify_reloading(struct notify *notify)
{
    char state[64];
    (void)snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_monotonic_us());
    send_state(notify, state);
}

void notify_stopping(struct notify *notify)
{
    send_state(notify, "STOPPING=1");
}

void notify_status(struct notify *notify, const struct health *health)
{
    char status[sizeof notify->status];
    char state[sizeof status + 16];
    const char *reasons[HEALTH_REASONS_MAX];
    size_t count = health_not_ready(health, reasons);
    int length = snprintf(status, sizeof status, "%s", count == 0 ? "Ready" : "Not ready: ");
    for (size_t i = 0; i < count; i++)
        length += snprintf(status + length, sizeof status - (size_t)length, "%s%s", i > 0 ? ", " : "", reasons[i]);
    (void)snprintf(status + length, sizeof status - (size_t)length,
                   "; %" PRIu64 " messages waiting, %" PRIu64 " open orphans", health->metrics->waiting,
                   health->metrics->orphans_open);
    if (strcmp(status, notify->status) == 0)
        return;
    memcpy(notify->status, status, sizeof status);
    (void)snprintf(state, sizeof state, "STATUS=%s", status);
    send_state(notify, state);
}

struct notify *notify_new(uv_loop_t *loop)
{
    struct notify *notify = calloc(1, sizeof *notify);
    if (!notify)
        return NULL;
    (void)uv_timer_init(loop, &notify->watchdog); /* always 0 */
    notify->watchdog.data = notify;
    start_watchdog(notify);
    return notify;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void notify_close(struct notify *notify)
{
    uv_close((uv_handle_t *)&notify->watchdog, on_closed);
}
