/* SPDX-License-Identifier: MIT */
/*
 * The link as a state machine: one redis_dial after the other.
 *
 *     WAITING ─▶ FINDING ─▶ DIALLING ─confirm─▶ UP
 *        ▲          │           │               │
 *        └── over ──┴───────────┴───────────────┘
 *
 * FINDING is for links with Sentinels. These may speak in every state: a master that they no longer name is given up,
 * and a new one is dialled without waiting.
 */
#include "promptd/redis_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "redis_pace.h"
#include "redis_report.h"
#include "redis_sentinel.h"

enum link_state {
    LINK_WAITING,  /* for the backoff to pass; leaves by the timer */
    LINK_FINDING,  /* for the Sentinels' answer, for which they have deadlines of their own */
    LINK_DIALLING, /* for the connection to be confirmed; leaves when it is, or is over */
    LINK_UP,       /* confirmed; leaves when the connection is over */
    LINK_CLOSING   /* redis_link_close was called; waits for dial, Sentinels and timer */
};

enum link_beat {
    BEAT_OFF,     /* not up, or switched off */
    BEAT_RESTING, /* until the next beat is due */
    BEAT_SENT,    /* until the answer comes or the timeout passes */
    BEAT_OVERDUE  /* the last part of the timeout: the answer may lie unread, if it was us who were late */
};

enum {
    LINK_LAST_LOOK_MS = 100,
    LINK_LATE_MS = 1000, /* without a byte since the beat */
    LINK_BACKOFF_BASE_MS = 1000,
    LINK_DIAL_TIMEOUT_MS = 5000,        /* look-up to confirmation */
    LINK_MASTER_DIAL_TIMEOUT_MS = 2000, /* a master may be frozen, and another one be made meanwhile */
    LINK_WATCH_MS = 1000                /* a second after a Sentinel knows of a failover so do we */
};

struct redis_link {
    struct redis_link_options options;
    enum link_state state;
    struct redis_dial *dial;
    bool dial_is_closed;
    struct redis_sentinel *sentinel; /* NULL: the address has none, or they are closed */
    struct redis_address found;      /* with Sentinels: options.address, and whom they name; host NULL: nobody yet */
    bool is_found;                   /* this dial is of a server that was just found */
    bool sentinels_are_silent;       /* their last word was that they cannot name one */
    bool is_redirected;              /* without Sentinels: `found` is where a Redis Cluster has the key */
    bool redirects;                  /* it is given up for that */
    int64_t redirected_ms;           /* when it last was */
    bool was_deaf; /* nothing had answered, or another server is the master: see redis_link_was_deaf */
    enum link_beat beat;
    uint64_t bytes_at_beat; /* that had been received when the beat was sent, */
    uint64_t beat_ms;       /* which was then */
    struct redis_pace pace;
    uv_timer_t timer; /* the backoff; while it is up the beat */
    struct redis_report report;
    int64_t up_since_ms;
    int64_t down_since_ms;
    unsigned attempts;
};

static bool has_sentinels(const struct redis_link *link)
{
    return link->options.address->service;
}

/* The server itself: where it is. */
static const struct redis_address *server_address(const struct redis_link *link)
{
    return has_sentinels(link) || link->is_redirected ? &link->found : link->options.address;
}

/* --- state ---------------------------------------------------------------------------------------------------- */

static void link_move(struct redis_link *link, enum link_state state)
{
    static const char *const names[] = {"waiting", "finding", "dialling", "up", "closing"};
    if (link->state == state)
        return;
    log_debug(LOG_FIELDS(log_text("from", names[link->state]), log_text("to", names[state])), "state changed");
    link->state = state;
}

/* --- the next dial -------------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

static void dial_in(struct redis_link *link, int64_t wait_ms)
{
    link_move(link, LINK_WAITING);
    link->beat = BEAT_OFF;
    uv_update_time(link->options.loop);
    (void)uv_timer_start(&link->timer, on_timer, (uint64_t)wait_ms, 0);
}

static void dial(struct redis_link *link)
{
    link_move(link, LINK_DIALLING);
    redis_dial_begin(link->dial, server_address(link));
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    link->attempts++;
    if (!has_sentinels(link)) {
        dial(link);
        return;
    }
    link_move(link, LINK_FINDING);
    link->is_found = false;
    redis_sentinel_ask(link->sentinel);
}

/* --- the end of a dial ---------------------------------------------------------------------------------------- */

static void report_failure(struct redis_link *link, const struct redis_dial_end *end)
{
    char server[REDIS_ADDRESS_NAME_SIZE];
    redis_address_name(server_address(link), server);
    redis_report_failure(&link->report, server, end);
}

static void wait_and_dial(struct redis_link *link, const struct redis_dial_end *end)
{
    bool opened;
    bool may_be_failover = link->is_found && !end->refused && !end->misfit;
    int64_t wait_ms = redis_pace_fail(&link->pace, (int64_t)uv_now(link->options.loop), link->attempts, may_be_failover,
                                      &opened);
    if (opened && !link->options.is_second)
        log_critical(LOG_FIELDS(log_number("failures", link->pace.breaker.failures), log_text("error", end->reason)),
                     "Redis circuit opened; one attempt every %lld s from now on", (long long)(wait_ms / 1000));
    log_debug(LOG_FIELDS(log_number("wait_ms", wait_ms), log_text("error", end->reason)), "next dial");
    dial_in(link, wait_ms);
}

/* How long the connection was of use, if it was. */
static int64_t worked_ms(struct redis_link *link, const struct redis_dial_end *end, int64_t now_ms)
{
    int64_t since_ms = link->redirects ? link->redirected_ms : end->was_up ? link->up_since_ms : now_ms;
    if (link->redirects)
        link->redirected_ms = now_ms;
    return now_ms - since_ms;
}

static void on_over(void *context, const struct redis_dial_end *end)
{
    struct redis_link *link = context;
    int64_t now_ms = (int64_t)uv_now(link->options.loop);
    link->attempts += end->passed_over;
    if (link->is_found && !end->was_up && !end->refused && !end->misfit)
        redis_sentinel_doubt(link->sentinel);
    if (end->was_up) {
        link->down_since_ms = now_ms;
        link->attempts = 0;
    }
    if (!link->redirects)
        report_failure(link, end);
    bool has_worked = worked_ms(link, end, now_ms) >= LINK_BACKOFF_BASE_MS;
    link->is_redirected = link->is_redirected && (link->redirects || end->was_up);
    if (has_worked)
        dial_in(link, 0); /* each moment of waiting is one of deafness; once only */
    else if (end->busy || link->redirects)
        dial_in(link, LINK_BACKOFF_BASE_MS); /* no failure of the server: no longer waits, no circuit */
    else
        wait_and_dial(link, end);
    link->redirects = false;
    if (end->was_up)
        link->options.on_lost(link->options.context, end->reason);
}

static void on_login(void *context)
{
    const struct redis_link *link = context;
    link->options.on_login(link->options.context);
}

static void on_busy(void *context, const char *error)
{
    const struct redis_link *link = context;
    link->options.on_busy(link->options.context, error);
}

/* --- heartbeat ------------------------------------------------------------------------------------------------ */

static void on_beat(uv_timer_t *timer);

static void beat_move(struct redis_link *link, enum link_beat beat, int64_t wait_ms)
{
    link->beat = beat;
    uv_update_time(link->options.loop);
    (void)uv_timer_start(&link->timer, on_beat, (uint64_t)wait_ms, 0);
}

static void beat_await(struct redis_link *link)
{
    link->bytes_at_beat = redis_dial_received_bytes(link->dial);
    beat_move(link, BEAT_SENT, link->options.tuning.heartbeat_timeout_ms - LINK_LAST_LOOK_MS);
}

static void beat_rest(struct redis_link *link)
{
    link->beat = BEAT_OFF;
    (void)uv_timer_stop(&link->timer);
    if (link->options.on_beat && link->options.tuning.heartbeat_interval_ms > 0)
        beat_move(link, BEAT_RESTING, link->options.tuning.heartbeat_interval_ms);
}

static void on_beat(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    if (link->beat == BEAT_RESTING) {
        link->options.on_beat(link->options.context);
        link->beat_ms = uv_now(link->options.loop);
        beat_await(link);
    } else if (link->beat == BEAT_SENT) {
        beat_move(link, BEAT_OVERDUE, LINK_LAST_LOOK_MS);
    } else if (redis_dial_received_bytes(link->dial) != link->bytes_at_beat) { /* the answer is queued behind it */
        beat_await(link);
    } else if (redis_dial_drop(link->dial, "no answer to the heartbeat")) {
        link->was_deaf = true;
    }
}

void redis_link_answered(struct redis_link *link)
{
    if (link->beat == BEAT_SENT || link->beat == BEAT_OVERDUE)
        beat_rest(link);
}

bool redis_link_is_overdue(const struct redis_link *link)
{
    return (link->beat == BEAT_SENT || link->beat == BEAT_OVERDUE) &&
           uv_now(link->options.loop) - link->beat_ms >= LINK_LATE_MS &&
           redis_dial_received_bytes(link->dial) == link->bytes_at_beat;
}

/* --- the Sentinels' word -------------------------------------------------------------------------------------- */

static bool set_found(struct redis_link *link, const char *host, int port)
{
    char *copy = strdup(host);
    if (!copy)
        return false;
    free(link->found.host);
    link->found.host = copy;
    link->found.port = port;
    return true;
}

static bool is_same_server(const struct redis_link *link, const struct redis_endpoint *server)
{
    return link->found.host && link->found.port == server->port && strcmp(link->found.host, server->host) == 0;
}

/* It has not come to a dial. */
static void fail_to_find(struct redis_link *link, const char *reason, bool refused)
{
    struct redis_dial_end end = {.refused = refused};
    (void)snprintf(end.reason, sizeof end.reason, "%s", reason);
    on_over(link, &end);
}

static void dial_found(struct redis_link *link, const struct redis_endpoint *server, const char *source)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    bool is_same = is_same_server(link, server);
    if (!is_same && !set_found(link, server->host, server->port)) {
        fail_to_find(link, "out of memory", false);
        return;
    }
    redis_address_name(&link->found, name);
    if (!is_same) /* once a change */
        log_info(LOG_FIELDS(log_text("service", link->options.address->service), log_text("master", name),
                            log_text("sentinel", source)),
                 "a Sentinel names the master");
    link->is_found = true;
    dial(link);
}

static void leave_for(struct redis_link *link, const struct redis_endpoint *server)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    char reason[300];
    redis_endpoint_name(server, name);
    (void)snprintf(reason, sizeof reason, "the Sentinels name another master: %.200s", name);
    if (redis_dial_drop(link->dial, reason))
        link->was_deaf = true;
}

static void on_named(void *context, const struct redis_endpoint *server, const char *source)
{
    struct redis_link *link = context;
    bool is_news = link->sentinels_are_silent || !is_same_server(link, server);
    if (link->sentinels_are_silent)
        log_info(LOG_FIELDS(log_text("sentinel", source)), "a Sentinel answers again");
    link->sentinels_are_silent = false;
    if (link->state == LINK_FINDING)
        dial_found(link, server, source);
    else if (link->state == LINK_WAITING && is_news)
        dial_in(link, 0);
    else if ((link->state == LINK_DIALLING || link->state == LINK_UP) && !is_same_server(link, server))
        leave_for(link, server);
}

static void on_silent(void *context, const char *reason, bool refused)
{
    struct redis_link *link = context;
    bool is_up = redis_link_is_up(link);
    if (link->state != LINK_FINDING && !is_up)
        return;
    if (is_up && !link->sentinels_are_silent)
        log_warning(LOG_FIELDS(log_text("error", reason)), "no Sentinel can be asked; a failover would go unnoticed");
    link->sentinels_are_silent = true;
    if (!is_up)
        fail_to_find(link, reason, refused);
}

/* --- the rest of the interface -------------------------------------------------------------------------------- */

struct redis_dial *redis_link_dial(const struct redis_link *link)
{
    return link->dial;
}

void redis_link_confirm(struct redis_link *link)
{
    unsigned passed_over;
    if (!redis_dial_confirm(link->dial, &passed_over))
        return;
    link_move(link, LINK_UP);
    link->attempts += passed_over;
    link->was_deaf = false;
    link->up_since_ms = (int64_t)uv_now(link->options.loop);
    if (breaker_close(&link->pace.breaker) && !link->options.is_second)
        log_info(NULL, "Redis circuit closed");
    redis_report_up(&link->report, link->attempts, link->up_since_ms - link->down_since_ms);
    beat_rest(link);
}

void redis_link_set_tuning(struct redis_link *link, const struct link_tuning *tuning)
{
    bool other_interval = tuning->heartbeat_interval_ms != link->options.tuning.heartbeat_interval_ms;
    link->options.tuning = *tuning;
    link->pace.breaker.backoff.max_ms = tuning->backoff_max_ms;
    link->pace.breaker.max_failures = tuning->breaker_failures;
    link->pace.breaker.reset_ms = tuning->breaker_reset_ms;
    bool is_out = link->beat == BEAT_SENT || link->beat == BEAT_OVERDUE; /* its answer begins the new interval */
    if (link->state == LINK_UP && other_interval && (!is_out || tuning->heartbeat_interval_ms == 0))
        beat_rest(link);
}

unsigned redis_link_failures(const struct redis_link *link)
{
    return link->pace.breaker.failures;
}

bool redis_link_circuit_is_open(const struct redis_link *link)
{
    return link->pace.breaker.is_open;
}

bool redis_link_close_circuit(struct redis_link *link)
{
    bool was_open = breaker_close(&link->pace.breaker);
    if (was_open && !link->options.is_second)
        log_info(NULL, "Redis circuit closed by hand");
    if (link->state == LINK_WAITING)
        dial_in(link, 0);
    return was_open;
}

bool redis_link_is_up(const struct redis_link *link)
{
    return redis_dial_is_up(link->dial);
}

void redis_link_server_name(const struct redis_link *link, char name[REDIS_ADDRESS_NAME_SIZE])
{
    redis_address_name(server_address(link), name);
}

bool redis_link_was_deaf(const struct redis_link *link)
{
    return link->was_deaf;
}

void redis_link_redirect(struct redis_link *link, const struct redis_endpoint *server)
{
    const char *host = server->host[0] ? server->host : server_address(link)->host;
    if (!host || has_sentinels(link) || link->state == LINK_CLOSING || !set_found(link, host, server->port) ||
        !redis_dial_drop(link->dial, "the key is on another server of the Redis Cluster"))
        return;
    log_info(LOG_FIELDS(log_text("host", link->found.host), log_number("port", server->port)),
             "the key is on another server of the Redis Cluster");
    link->is_redirected = link->redirects = true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct redis_link *link = handle->data;
    redis_dial_free(link->dial);
    free(link->found.host);
    link->options.on_closed(link->options.context);
    free(link);
}

static void finish_close(struct redis_link *link)
{
    if (link->dial_is_closed && !link->sentinel)
        uv_close((uv_handle_t *)&link->timer, on_timer_closed); /* else it comes here again when they are done */
}

static void on_dial_closed(void *context)
{
    struct redis_link *link = context;
    link->dial_is_closed = true;
    finish_close(link);
}

static void on_sentinel_closed(void *context)
{
    struct redis_link *link = context;
    link->sentinel = NULL;
    finish_close(link);
}

void redis_link_close(struct redis_link *link)
{
    link_move(link, LINK_CLOSING);
    (void)uv_timer_stop(&link->timer);
    redis_dial_close(link->dial);
    if (link->sentinel)
        redis_sentinel_close(link->sentinel);
}

static struct redis_dial *new_dial(struct redis_link *link)
{
    const struct redis_link_options *options = &link->options;
    return redis_dial_new(&(struct redis_dial_options){
        .loop = options->loop,
        .address = options->address,
        .wants_master = has_sentinels(link),
        .tls = options->tls,
        .timeout_ms = has_sentinels(link) ? LINK_MASTER_DIAL_TIMEOUT_MS : LINK_DIAL_TIMEOUT_MS,
        .limits = options->limits,
        .on_login = on_login,
        .on_over = on_over,
        .on_busy = options->on_busy ? on_busy : NULL,
        .on_closed = on_dial_closed,
        .context = link,
    });
}

static struct redis_sentinel *new_sentinel(struct redis_link *link)
{
    return redis_sentinel_new(&(struct redis_sentinel_options){
        .loop = link->options.loop,
        .address = link->options.address,
        .tls = link->options.tls,
        .watch_ms = LINK_WATCH_MS,
        .on_named = on_named,
        .on_silent = on_silent,
        .on_closed = on_sentinel_closed,
        .context = link,
    });
}

struct redis_link *redis_link_new(const struct redis_link_options *options)
{
    struct redis_link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->options = *options;
    link->report.is_second = options->is_second;
    link->dial = new_dial(link);
    link->sentinel = has_sentinels(link) ? new_sentinel(link) : NULL;
    if (!link->dial || (has_sentinels(link) && !link->sentinel))
        return NULL;                 /* the loop has their handles */
    link->found = *options->address; /* the host will be this link's own; the rest is borrowed */
    link->found.host = NULL;
    link->pace.breaker.backoff.base_ms = LINK_BACKOFF_BASE_MS;
    redis_link_set_tuning(link, &options->tuning);
    (void)uv_timer_init(options->loop, &link->timer); /* always 0 */
    link->timer.data = link;
    link->down_since_ms = (int64_t)uv_now(options->loop);
    dial_in(link, 0);
    return link;
}
