/* SPDX-License-Identifier: MIT */
/* The daemon's parts. daemon.c has the life of the process, and calls the others; none of them calls it. */
#ifndef PROMPTD_DAEMON_PRIVATE_H
#define PROMPTD_DAEMON_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "promptd/admin.h"
#include "promptd/daemon.h"
#include "promptd/events.h"
#include "promptd/health.h"
#include "promptd/notify.h"
#include "promptd/pipeline.h"
#include "promptd/redis_address.h"
#include "promptd/source_open.h"
#include "promptd/statsd.h"
#include "promptd/store.h"

enum daemon_state {
    DAEMON_RUNNING,  /* receives and stores; leaves by a signal */
    DAEMON_DRAINING, /* settles what it has; leaves when nothing waits or the time is up */
    DAEMON_CLOSING   /* connections and handles go; leaves by the end of the loop */
};

enum { DAEMON_SIGNALS = 5 };

struct daemon {
    struct settings settings;
    const struct daemon_arguments *arguments;
    struct redis_address redis;
    struct redis_tls *redis_tls; /* NULL: redis has no TLS */
    uv_loop_t loop;
    enum daemon_state state;
    int64_t started_ms;     /* monotonic, like the others */
    int64_t ready_since_ms; /* when metrics.ready became what it is */
    int64_t wall_ms;        /* what the wall clock added to them at the last look */
    struct metrics metrics;
    struct recent_failures recent_failures;
    struct history history;
    struct pipeline *pipeline;
    struct store *store;   /* NULL: closed */
    struct source *source; /* the same */
    struct events *events; /* NULL: off, or closed */
    struct admin *admin;   /* NULL: off, or closing */
    struct statsd *statsd; /* NULL: off */
    struct notify *notify; /* NULL: closing */
    bool source_closing;
    bool events_closing;
    struct source_status last_source; /* before it was closed */
    uv_work_t first_work;             /* for the pool's threads to be made */
    uv_signal_t signals[DAEMON_SIGNALS];
    uv_timer_t tick;           /* once a second: what is due now and then */
    uv_timer_t log_again;      /* while lines of the log wait for their reader */
    uint64_t received_at_tick; /* of messages */
    uint64_t given_back_at;    /* messages received when memory last went back to the system */
    int64_t stop_by_ms;        /* on the loop's clock */
    uv_timer_t drain;          /* the end of patience, twice: first for messages, then for threads */
    uv_prepare_t progress;     /* while draining and closing */
};

/* drain.c: the end. */
void drain_open(struct daemon *daemon);
void drain_start(struct daemon *daemon, int signal_number);
void drain_close(struct daemon *daemon);

/* reload.c: the settings are read again. */
void reload_settings(struct daemon *daemon);

/* options.c */
struct inbox_limits options_limits(const struct settings *settings);
struct store_tuning options_store_tuning(const struct settings *settings);
struct source_tuning options_source_tuning(const struct settings *settings);
struct link_tuning options_link_tuning(const struct settings *settings);
struct statement_statuses options_statuses(const struct settings *settings);

/* wiring.c: opens the modules, and joins them. */
bool wiring_open(struct daemon *daemon, struct error *error);
void wiring_reset_circuits(void *context, bool *redis, bool *database);

/* threads.c: on a new loop, before other threads are made. */
bool threads_open(struct daemon *daemon, struct error *error);

/* signals.c */
/* SIGHUP, SIGUSR1 and SIGUSR2 wait, for this thread and all that it makes from now on; or they wait no longer, for this
 * thread. */
void signals_block_wishes(bool blocked);
void signals_open(struct daemon *daemon);
void signals_close(struct daemon *daemon);

/* snapshot.c: how everything is at this moment. */
size_t snapshot_waiting(const struct daemon *daemon);     /* messages without an outcome, wherever they are */
size_t snapshot_in_memory(const struct daemon *daemon);   /* those of them that are in memory */
void snapshot_keep_source(struct daemon *daemon);         /* for those who ask when it is closed */
void snapshot_notify(struct daemon *daemon);              /* to systemd */
void snapshot_look(void *context, struct health *health); /* the context is the daemon; sets the gauges, too */

#endif
