/* SPDX-License-Identifier: MIT */
/* sd_notify(3), but for its patience, and sd_watchdog_enabled(3). */
#include "promptd/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define LOG_COMPONENT "notify"
#include "promptd/clock.h"
#include "promptd/log.h"

struct notify {
    uv_timer_t watchdog; /* active where the unit has one */
    char status[512];    /* as systemd has it */
    char owed[64];       /* the last change of the service's state; empty: systemd has it */
    bool has_failed;
};

/* 0, or an errno. sd_notify waits for as long as nobody reads, and the loop with it. */
static int send_datagram(const char *path, const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if ((*path != '/' && *path != '@') || length >= sizeof address.sun_path)
        return EAFNOSUPPORT;
    memcpy(address.sun_path, path, length);
    if (*path == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    int result = sent < 0 ? errno : 0;
    (void)close(fd);
    return result;
}

/* Whether systemd has it; also where there is none. */
static bool send_state(struct notify *notify, const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    int result = path && *path ? send_datagram(path, state) : 0;
    if (result != 0 && !notify->has_failed)
        log_warning(LOG_FIELDS(log_text("error", strerror(result))), "the service's state cannot be sent to systemd");
    notify->has_failed = result != 0;
    return result == 0;
}

/* A start or a stop that systemd does not hear of would be taken for one that hangs. */
static void send_owed(struct notify *notify)
{
    if (notify->owed[0] && send_state(notify, notify->owed))
        notify->owed[0] = '\0';
}

static void on_watchdog(uv_timer_t *timer)
{
    (void)send_state(timer->data, "WATCHDOG=1"); /* the next one follows */
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
    (void)snprintf(notify->owed, sizeof notify->owed, "READY=1");
    send_owed(notify);
}

void notify_reloading(struct notify *notify)
{
    (void)snprintf(notify->owed, sizeof notify->owed, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_monotonic_us());
    send_owed(notify);
}

void notify_stopping(struct notify *notify)
{
    (void)snprintf(notify->owed, sizeof notify->owed, "STOPPING=1");
    send_owed(notify);
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
    send_owed(notify);
    (void)snprintf(state, sizeof state, "STATUS=%s", status);
    if (strcmp(status, notify->status) != 0 && send_state(notify, state))
        memcpy(notify->status, status, sizeof status);
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
