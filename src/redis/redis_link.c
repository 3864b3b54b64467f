/* SPDX-License-Identifier: MIT */
/*
 * The link as a state machine.
 *
 *     WAITING ─▶ RESOLVING ─▶ CONNECTING ─▶ LOGIN ─▶ OPENING ─confirm─▶ UP
 *        ▲           │             │          │         │               │
 *        └───────────┴──── fail ───┴──────────┴─────────┴───────────────┘
 *
 * With a finder RESOLVING begins with its answer, and LOGIN ends with ROLE. It may speak in every state: a master that
 * it no longer names is given up, and a new one is dialled without waiting.
 *
 * hiredis may not be freed or dialled again inside its own callbacks: those only note what happened and start the
 * `later` timer, which acts.
 */
#include "promptd/redis_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "promptd/redis_login.h"
#include "redis_adapter.h"
#include "redis_lookup.h"
#include "redis_pace.h"
#include "redis_report.h"

enum link_state {
    LINK_WAITING,    /* for the backoff to pass; leaves by the timer */
    LINK_RESOLVING,  /* for the finder, and the name's addresses; leaves with the answer or the deadline */
    LINK_CONNECTING, /* for the socket to connect; leaves by hiredis' connect callback or the deadline */
    LINK_LOGIN,      /* for the answers to AUTH and SELECT (redis_login), and ROLE */
    LINK_OPENING,    /* logged in; waits for the user to confirm */
    LINK_UP,         /* confirmed; leaves when the connection is lost or dropped */
    LINK_CLOSING     /* redis_link_close was called; waits for look-up and handles */
};

enum {
    LINK_ADDRESS_TIMEOUT_MS = 2000,    /* for a sign of life, where another address is left to try */
    LINK_MASTER_DIAL_TIMEOUT_MS = 2000 /* a master may be frozen, and another one be made meanwhile */
};

struct redis_link {
    struct redis_link_options options;
    enum link_state state;
    redisAsyncContext *redis;
    struct resp_guard guard;
    struct ssl_st *session; /* of redis; NULL: no TLS */
    struct redis_lookup lookup;
    struct redis_address found; /* with a finder: options.address, and whom it has found; host NULL: nobody yet */
    bool is_found;              /* this dial is of a server that was just found */
    bool finder_is_silent;      /* its last word was that it cannot find one */
    bool is_redirected;         /* without a finder: `found` is where a Redis Cluster has the key */
    bool redirects;             /* it is given up for that */
    int64_t redirected_ms;      /* when it last was */
    bool has_moved;             /* the connection was given up because another server is the master now */
    struct redis_pace pace;
    uv_timer_t timer; /* the backoff, then the dial's deadline */
    uv_timer_t later; /* acts on `failed` outside of hiredis */
    bool failed;      /* the connection is to be given up, for `reason` */
    char reason[256];
    bool refused; /* the server itself said no: a matter of set-up */
    bool busy;    /* it said that it is busy, which passes */
    bool misfit;  /* the two do not agree on TLS: likewise */
    bool silent;  /* nothing came in time */
    struct redis_report report;
    int64_t up_since_ms;
    int64_t down_since_ms;
    unsigned attempts;
    struct redis_login login;
    struct redis_call login_call;
    struct redis_call role_call;
    int open_handles;
};

static void start_dial(struct redis_link *link);
static void on_timer(uv_timer_t *timer);
static void on_later(uv_timer_t *timer);

static bool has_finder(const struct redis_link *link)
{
    return link->options.finder.ask;
}

/* The server itself: where it is, and how to log in. */
static const struct redis_address *server_address(const struct redis_link *link)
{
    return has_finder(link) || link->is_redirected ? &link->found : link->options.address;
}

static bool is_one_connection(const struct redis_link *link)
{
    return link->options.on_failed;
}

/* --- state ---------------------------------------------------------------------------------------------------- */

static const char *state_name(enum link_state state)
{
    static const char *const names[] = {"waiting", "resolving", "connecting", "login", "opening", "up", "closing"};
    return names[state];
}

static void link_move(struct redis_link *link, enum link_state state)
{
    if (link->state == state)
        return;
    if (!is_one_connection(link))
        log_debug(LOG_FIELDS(log_text("from", state_name(link->state)), log_text("to", state_name(state))),
                  "state changed");
    link->state = state;
}

static void report_failure(struct redis_link *link, bool lost)
{
    char server[REDIS_ADDRESS_NAME_SIZE];
    bool by_server = link->refused || link->misfit;
    if (link->options.is_second && !by_server)
        return;
    redis_address_name(server_address(link), server);
    redis_report_failure(
        &link->report,
        &(struct redis_report_failure){
            .server = server, .reason = link->reason, .lost = lost, .refused = link->refused, .by_server = by_server});
}

/* --- failing -------------------------------------------------------------------------------------------------- */

static void link_fail(struct redis_link *link, const char *reason)
{
    if (link->failed || link->state == LINK_CLOSING)
        return;
    link->failed = true;
    link->refused = false;
    link->busy = false;
    link->misfit = false;
    (void)snprintf(link->reason, sizeof link->reason, "%.255s", reason && reason[0] ? reason : "connection lost");
    (void)uv_timer_start(&link->later, on_later, 0, 0);
}

/* A script that runs too long, or a data set that is being loaded: it ends by itself, and at once. */
static bool is_busy(const char *error)
{
    return strncmp(error, "BUSY ", 5) == 0 || strncmp(error, "LOADING ", 8) == 0;
}

/* An error reply, or a connection that the server closed with one. */
static void link_refuse(struct redis_link *link, const char *reason)
{
    char shown[sizeof link->reason];
    if (link->failed || link->state == LINK_CLOSING)
        return;
    redis_address_copy_error(link->options.address, reason, shown, sizeof shown);
    link_fail(link, shown);
    link->refused = true;
    link->busy = is_busy(reason);
}

/* Lets go of the context. Its pending callbacks run inside and find no link any more. */
static void release_redis(struct redis_link *link)
{
    redisAsyncContext *redis = link->redis;
    if (!redis)
        return;
    link->redis = NULL;
    link->session = NULL;
    redis->data = NULL;
    redisAsyncFree(redis);
}

static void start_timer(struct redis_link *link, int64_t wait_ms)
{
    uv_update_time(link->options.loop);
    (void)uv_timer_start(&link->timer, on_timer, (uint64_t)wait_ms, 0);
}

static void dial_in(struct redis_link *link, int64_t wait_ms)
{
    link_move(link, LINK_WAITING);
    start_timer(link, wait_ms);
}

static void wait_and_dial(struct redis_link *link)
{
    bool opened;
    bool may_be_failover = link->is_found && !link->refused && !link->misfit;
    int64_t wait_ms = redis_pace_fail(&link->pace, (int64_t)uv_now(link->options.loop), link->attempts, may_be_failover,
                                      &opened);
    if (opened && !link->options.is_second)
        log_critical(LOG_FIELDS(log_number("failures", link->pace.breaker.failures), log_text("error", link->reason)),
                     "Redis circuit opened; one attempt every %lld s from now on", (long long)(wait_ms / 1000));
    log_debug(LOG_FIELDS(log_number("wait_ms", wait_ms), log_text("error", link->reason)), "next dial");
    dial_in(link, wait_ms);
}

static void finish_close(struct redis_link *link);

static void on_later(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    if (link->state == LINK_CLOSING) {
        release_redis(link);
        finish_close(link);
        return;
    }
    if (!link->failed)
        return;
    link->failed = false;
    bool lost = link->state == LINK_UP;
    bool no_life = link->state == LINK_CONNECTING || link->silent;
    bool try_next = no_life && redis_lookup_has_next(&link->lookup);
    release_redis(link);
    (void)uv_timer_stop(&link->timer);
    if (try_next) {
        start_dial(link);
        return;
    }
    redis_lookup_forget(&link->lookup); /* the next dial looks the name up again */
    if (is_one_connection(link)) {
        link_move(link, LINK_WAITING); /* to be closed */
        link->options.on_failed(link->options.context, link->reason, link->refused || link->misfit);
        return;
    }
    if (link->is_found && !lost && !link->refused && !link->misfit)
        link->options.finder.doubt(link->options.finder.sentinel);
    int64_t now_ms = (int64_t)uv_now(link->options.loop);
    if (lost) {
        link->down_since_ms = now_ms;
        link->attempts = 0;
    }
    if (!link->redirects)
        report_failure(link, lost);
    bool redirects = link->redirects;
    link->redirects = false;
    link->is_redirected = link->is_redirected && (redirects || lost);
    int64_t worked_ms = redirects ? now_ms - link->redirected_ms : lost ? now_ms - link->up_since_ms : 0;
    link->redirected_ms = redirects ? now_ms : link->redirected_ms;
    if (worked_ms >= link->options.backoff_base_ms)
        dial_in(link, 0); /* each moment of waiting is one of deafness; once only */
    else if (link->busy || redirects)
        dial_in(link, link->options.backoff_base_ms); /* no failure of the server: no longer waits, no circuit */
    else
        wait_and_dial(link);
    if (lost)
        link->options.on_lost(link->options.context, link->reason);
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    if (link->state == LINK_WAITING) {
        start_dial(link);
        return;
    }
    link_fail(link, redis_tls_explain_silence(link->session, "no answer in time while dialling"));
    link->silent = true;
}

static int64_t dial_timeout_ms(const struct redis_link *link)
{
    return has_finder(link) ? LINK_MASTER_DIAL_TIMEOUT_MS : link->options.dial_timeout_ms;
}

/* Where another address is left, one that gives no sign of life must not cost the whole deadline. */
static void await_life(struct redis_link *link)
{
    int64_t wait_ms = dial_timeout_ms(link);
    if (wait_ms > LINK_ADDRESS_TIMEOUT_MS)
        wait_ms = LINK_ADDRESS_TIMEOUT_MS;
    if (redis_lookup_has_next(&link->lookup))
        (void)uv_timer_start(&link->timer, on_timer, (uint64_t)wait_ms, 0);
}

static void see_life(struct redis_link *link)
{
    if (link->state != LINK_UP && redis_lookup_has_next(&link->lookup))
        (void)uv_timer_start(&link->timer, on_timer, (uint64_t)dial_timeout_ms(link), 0);
}

/* --- commands ------------------------------------------------------------------------------------------------- */

static void on_reply(redisAsyncContext *redis, void *reply, void *data)
{
    const struct redis_call *call = data;
    struct redis_link *link = redis->data;
    if (!reply || !link || link->failed || link->state == LINK_CLOSING)
        return;
    see_life(link);
    call->on_reply(call->context, reply);
}

static bool send_command(struct redis_link *link, int argc, const char **argv, const size_t *lengths,
                         const struct redis_call *call)
{
    if (!link->redis || link->failed)
        return false;
    redisCallbackFn *callback = call ? on_reply : NULL;
    if (redisAsyncCommandArgv(link->redis, callback, (void *)(uintptr_t)call, argc, argv, lengths) == REDIS_OK)
        return true;
    link_fail(link, link->redis->errstr);
    return false;
}

void redis_link_command(struct redis_link *link, int argc, const char **argv, const size_t *lengths,
                        const struct redis_call *call)
{
    if (send_command(link, argc, argv, lengths, call))
        resp_guard_expect(&link->guard);
}

void redis_link_subscribe(struct redis_link *link, const char *channel, const struct redis_call *call)
{
    const char *argv[] = {"SUBSCRIBE", channel};
    const size_t lengths[] = {9, strlen(channel)};
    if (send_command(link, 2, argv, lengths, call))
        resp_guard_subscribe(&link->guard, channel, lengths[1]);
}

/* --- login ---------------------------------------------------------------------------------------------------- */

static void login_done(struct redis_link *link)
{
    const char *name[] = {"CLIENT", "SETNAME", "promptd"};
    const size_t lengths[] = {6, 7, 7};
    if (link->login.without_user)
        log_info(NULL, "Redis before 6 knows no users: logged in with the password alone");
    redis_link_command(link, 3, name, lengths, NULL); /* a courtesy: an account that may not do it is fine */
    link_move(link, LINK_OPENING);
    link->options.on_login(link->options.context);
}

static bool says_master(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 && reply->element[0]->type == REDIS_REPLY_STRING &&
           strcmp(reply->element[0]->str, "master") == 0;
}

static void on_role(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    bool may_not_ask = reply->type == REDIS_REPLY_ERROR && !is_busy(reply->str);
    if (may_not_ask)
        log_debug(LOG_FIELDS(log_text("error", reply->str)), "ROLE cannot be asked: the Sentinels are believed");
    if (may_not_ask || says_master(reply))
        login_done(link);
    else if (reply->type == REDIS_REPLY_ERROR)
        link_refuse(link, reply->str);
    else
        link_fail(link, "the Sentinels name it, but it says that it is no master");
}

static void check_role(struct redis_link *link)
{
    const char *role[] = {"ROLE"};
    const size_t lengths[] = {4};
    if (has_finder(link))
        redis_link_command(link, 1, role, lengths, &link->role_call);
    else
        login_done(link);
}

static void log_in(struct redis_link *link, enum redis_login_result result)
{
    if (result == REDIS_LOGIN_SEND)
        redis_link_command(link, link->login.argc, link->login.argv, link->login.lengths, &link->login_call);
    else if (result == REDIS_LOGIN_DONE)
        check_role(link);
    else
        link_fail(link, "this is no Redis: its answer to the login is neither OK nor an error");
}

static void on_login_reply(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    enum redis_login_result result = redis_login_answer(&link->login, reply);
    if (result == REDIS_LOGIN_REFUSED)
        link_refuse(link, reply->str);
    else
        log_in(link, result);
}

/* --- connecting ----------------------------------------------------------------------------------------------- */

/* A port that speaks TLS ends a connection that does not: Redis itself does it without a word. */
static void fail_plain(struct redis_link *link, int code, const char *reason)
{
    char guess[sizeof link->reason];
    bool is_tcp = !link->options.address->unix_path && link->state != LINK_CONNECTING;
    bool is_closed = code == REDIS_ERR_IO || code == REDIS_ERR_EOF;
    (void)snprintf(guess, sizeof guess, "%s before any answer; perhaps this port speaks TLS: rediss://", reason);
    link_fail(link, is_tcp && is_closed && link->guard.received_bytes == 0 ? guess : reason);
}

static void fail_tls(struct redis_link *link, const char *reason)
{
    struct error phrase;
    redis_tls_explain(link->session, reason, &phrase);
    link_fail(link, phrase.text);
    link->misfit = phrase.code == ERROR_CONFIG;
}

/* What the server itself said last counts more than how the connection ended then. */
static void link_lose(struct redis_link *link, int code, const char *reason)
{
    const char *said = resp_guard_last_error(&link->guard);
    if (said)
        link_refuse(link, said);
    else if (link->session && link->state != LINK_CONNECTING)
        fail_tls(link, reason);
    else
        fail_plain(link, code, reason);
}

static void hear_last_words(const struct redis_link *link, const redisAsyncContext *redis)
{
    if (!link->options.address->tls)
        redis_adapter_hear_last_words(redis);
}

/* hiredis 0.14 sets the outer error too late for the connect callback; the inner one is always there. */
static void on_connect(const redisAsyncContext *redis, int status)
{
    struct redis_link *link = redis->data;
    if (!link)
        return;
    if (status == REDIS_OK) {
        await_life(link);
        link_move(link, LINK_LOGIN);
        log_in(link, redis_login_begin(&link->login, link->options.address));
        return;
    }
    hear_last_words(link, redis);
    link_lose(link, redis->c.err, redis->c.errstr[0] ? redis->c.errstr : "connection refused");
    link->redis = NULL; /* hiredis frees it after this callback */
    link->session = NULL;
}

static void on_disconnect(const redisAsyncContext *redis, int status)
{
    (void)status;
    struct redis_link *link = redis->data;
    if (!link)
        return;
    hear_last_words(link, redis);
    link_lose(link, redis->err, redis->errstr && redis->errstr[0] ? redis->errstr : "connection closed");
    link->redis = NULL;
    link->session = NULL;
}

static void on_guarded(redisAsyncContext *redis)
{
    struct redis_link *link = redis->data;
    if (!link || link->failed || link->state == LINK_CLOSING)
        return;
    char text[sizeof link->reason];
    redis_address_copy_error(link->options.address, link->guard.error, text, sizeof text);
    if (link->guard.was_told && link->options.on_busy && link->state == LINK_UP && is_busy(link->guard.error))
        link->options.on_busy(link->options.context, text);
    else if (link->guard.was_told)
        link_refuse(link, link->guard.error);
    link->guard.was_told = false;
    if (!link->guard.fault)
        return;
    (void)snprintf(text, sizeof text, "this is not the protocol of Redis: %s", link->guard.fault);
    link_fail(link, text);
}

static redisAsyncContext *open_context(struct redis_link *link)
{
    const struct redis_address *address = server_address(link);
    if (address->unix_path)
        return redisAsyncConnectUnix(address->unix_path);
    return redisAsyncConnect(redis_lookup_next(&link->lookup), address->port);
}

static bool begin_tls(struct redis_link *link, redisAsyncContext *redis)
{
    const struct redis_address *address = server_address(link);
    struct error phrase;
    if (!address->tls)
        return true;
    link->session = redis_tls_begin(link->options.tls, &redis->c, address->host, &phrase);
    if (!link->session) {
        link_fail(link, phrase.text);
        link->misfit = phrase.code == ERROR_CONFIG;
    }
    return link->session;
}

static void connect_next(struct redis_link *link)
{
    link_move(link, LINK_CONNECTING);
    link->silent = false;
    redisAsyncContext *redis = open_context(link);
    if (!redis) {
        link_fail(link, "out of memory");
        return;
    }
    if (redis->err) {
        link_fail(link, redis->errstr);
        redisAsyncFree(redis);
        return;
    }
    if (!begin_tls(link, redis)) {
        redisAsyncFree(redis);
        return;
    }
    resp_guard_reset(&link->guard);
    const struct redis_adapter_options options = {
        .loop = link->options.loop, .session = link->session, .guard = &link->guard, .on_guarded = on_guarded};
    if (!redis_adapter_attach(redis, &options)) {
        link_fail(link, "the socket cannot be watched");
        link->session = NULL;
        redisAsyncFree(redis);
        return;
    }
    await_life(link);
    redis->data = link;
    link->redis = redis;
    (void)redisAsyncSetConnectCallback(redis, on_connect); /* fails only when one is set already */
    (void)redisAsyncSetDisconnectCallback(redis, on_disconnect);
}

static void on_looked_up(void *context, const char *failure)
{
    struct redis_link *link = context;
    if (link->state == LINK_CLOSING)
        finish_close(link);
    else if (link->state != LINK_RESOLVING || link->failed)
        return; /* too late: the deadline has passed */
    else if (failure)
        link_fail(link, failure);
    else
        connect_next(link);
}

static void resolve(struct redis_link *link)
{
    const char *failure = redis_lookup_begin(&link->lookup, link->options.loop, server_address(link)->host);
    if (failure)
        link_fail(link, failure);
    else
        link_move(link, LINK_RESOLVING);
}

/* It has deadlines of its own. */
static void find(struct redis_link *link)
{
    link_move(link, LINK_RESOLVING);
    link->is_found = false;
    link->options.finder.ask(link->options.finder.sentinel);
}

static void start_dial(struct redis_link *link)
{
    bool has_address = link->options.address->unix_path || redis_lookup_has_next(&link->lookup);
    link->attempts++;
    breaker_attempt(&link->pace.breaker);
    if (!has_address && has_finder(link)) {
        find(link);
        return;
    }
    start_timer(link, dial_timeout_ms(link));
    if (has_address)
        connect_next(link);
    else
        resolve(link);
}

/* --- the finder's word ---------------------------------------------------------------------------------------- */

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

/* Once a change. */
static void report_found(const struct redis_link *link, const char *source)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    redis_address_name(&link->found, name);
    log_info(LOG_FIELDS(log_text("service", link->options.address->service), log_text("master", name),
                        log_text("sentinel", source)),
             "a Sentinel names the master");
}

static void dial_found(struct redis_link *link, const struct redis_endpoint *server, const char *source)
{
    bool is_same = is_same_server(link, server);
    if (!is_same && !set_found(link, server->host, server->port)) {
        link_fail(link, "out of memory");
        return;
    }
    if (!is_same)
        report_found(link, source);
    link->is_found = true;
    start_timer(link, dial_timeout_ms(link));
    resolve(link);
}

static void leave_for(struct redis_link *link, const struct redis_endpoint *server)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    char reason[sizeof link->reason];
    redis_endpoint_name(server, name);
    (void)snprintf(reason, sizeof reason, "the Sentinels name another master: %.200s", name);
    link_fail(link, reason);
    link->has_moved = true;
}

void redis_link_found(struct redis_link *link, const struct redis_endpoint *server, const char *source)
{
    bool is_news = link->finder_is_silent || !is_same_server(link, server);
    if (link->finder_is_silent)
        log_info(LOG_FIELDS(log_text("sentinel", source)), "a Sentinel answers again");
    link->finder_is_silent = false;
    if (link->failed || link->state == LINK_CLOSING)
        return;
    if (link->state == LINK_RESOLVING && !link->is_found)
        dial_found(link, server, source);
    else if (link->state == LINK_WAITING && is_news)
        start_timer(link, 0);
    else if (link->state > LINK_RESOLVING && !is_same_server(link, server))
        leave_for(link, server);
}

void redis_link_not_found(struct redis_link *link, const char *reason, bool refused)
{
    if (link->failed || link->state == LINK_CLOSING)
        return;
    if (link->state == LINK_RESOLVING && !link->is_found) {
        link_fail(link, reason);
        link->refused = refused;
    } else if (link->state != LINK_UP) {
        return;
    } else if (!link->finder_is_silent) {
        log_warning(LOG_FIELDS(log_text("error", reason)), "no Sentinel can be asked; a failover would go unnoticed");
    }
    link->finder_is_silent = true;
}

/* --- the rest of the interface -------------------------------------------------------------------------------- */

void redis_link_confirm(struct redis_link *link)
{
    if (link->state != LINK_OPENING || link->failed)
        return;
    (void)uv_timer_stop(&link->timer);
    link_move(link, LINK_UP);
    link->has_moved = false;
    link->up_since_ms = (int64_t)uv_now(link->options.loop);
    if (breaker_close(&link->pace.breaker) && !link->options.is_second)
        log_info(NULL, "Redis circuit closed");
    if (!is_one_connection(link) && !link->options.is_second)
        redis_report_up(&link->report, link->attempts, (int64_t)uv_now(link->options.loop) - link->down_since_ms);
}

void redis_link_set_tuning(struct redis_link *link, const struct redis_link_tuning *tuning)
{
    link->guard.limits = (struct resp_guard_limits){.bulk_bytes = tuning->bulk_max_bytes,
                                                    .reply_bytes = tuning->reply_max_bytes};
    link->pace.breaker.backoff.max_ms = tuning->backoff_max_ms;
    link->pace.breaker.max_failures = tuning->breaker_failures;
    link->pace.breaker.reset_ms = tuning->breaker_reset_ms;
}

unsigned redis_link_failures(const struct redis_link *link)
{
    return link->pace.breaker.failures;
}

bool redis_link_circuit_is_open(const struct redis_link *link)
{
    return link->pace.breaker.state != BREAKER_CLOSED;
}

bool redis_link_close_circuit(struct redis_link *link)
{
    bool was_open = breaker_close(&link->pace.breaker);
    if (was_open && !link->options.is_second)
        log_info(NULL, "Redis circuit closed by hand");
    if (link->state == LINK_WAITING)
        (void)uv_timer_start(&link->timer, on_timer, 0, 0);
    return was_open;
}

uint64_t redis_link_received_bytes(const struct redis_link *link)
{
    return link->guard.received_bytes;
}

bool redis_link_is_up(const struct redis_link *link)
{
    return link->state == LINK_UP && !link->failed;
}

void redis_link_server_name(const struct redis_link *link, char name[REDIS_ADDRESS_NAME_SIZE])
{
    redis_address_name(server_address(link), name);
}

bool redis_link_has_moved(const struct redis_link *link)
{
    return link->has_moved;
}

void redis_link_drop(struct redis_link *link, const char *reason)
{
    link_fail(link, reason);
}

void redis_link_refuse(struct redis_link *link, const char *error)
{
    link_refuse(link, error);
}

void redis_link_redirect(struct redis_link *link, const struct redis_endpoint *server)
{
    const char *host = server->host[0] ? server->host : server_address(link)->host;
    if (!host || has_finder(link) || link->failed || link->state == LINK_CLOSING ||
        !set_found(link, host, server->port))
        return;
    log_info(LOG_FIELDS(log_text("host", link->found.host), log_number("port", server->port)),
             "the key is on another server of the Redis Cluster");
    link->is_redirected = link->redirects = true;
    link_fail(link, "the key is on another server of the Redis Cluster");
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct redis_link *link = handle->data;
    if (--link->open_handles > 0)
        return;
    void (*on_closed)(void *) = link->options.on_closed;
    void *context = link->options.context;
    free(link->found.host);
    free(link);
    on_closed(context);
}

static void finish_close(struct redis_link *link)
{
    if (link->lookup.is_under_way || link->redis || link->options.finder.close)
        return; /* comes here again when they are done */
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
    uv_close((uv_handle_t *)&link->later, on_handle_closed);
}

void redis_link_finder_closed(struct redis_link *link)
{
    link->options.finder.close = NULL;
    finish_close(link);
}

void redis_link_close(struct redis_link *link)
{
    link_move(link, LINK_CLOSING);
    redis_lookup_cancel(&link->lookup);
    if (has_finder(link))
        link->options.finder.close(link->options.finder.sentinel);
    (void)uv_timer_stop(&link->timer);
    (void)uv_timer_start(&link->later, on_later, 0, 0);
}

struct redis_link *redis_link_new(const struct redis_link_options *options)
{
    struct redis_link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->options = *options;
    link->found = *options->address; /* the host will be this link's own; the rest is borrowed */
    link->found.host = NULL;
    link->pace.breaker.backoff.base_ms = options->backoff_base_ms;
    redis_link_set_tuning(link, &options->tuning);
    link->lookup = (struct redis_lookup){.on_done = on_looked_up, .context = link};
    link->login_call = (struct redis_call){.on_reply = on_login_reply, .context = link};
    link->role_call = (struct redis_call){.on_reply = on_role, .context = link};
    (void)uv_timer_init(options->loop, &link->timer); /* always 0 */
    (void)uv_timer_init(options->loop, &link->later);
    link->timer.data = link;
    link->later.data = link;
    link->open_handles = 2;
    link->down_since_ms = (int64_t)uv_now(options->loop);
    (void)uv_timer_start(&link->timer, on_timer, 0, 0); /* LINK_WAITING: the first dial is due */
    return link;
}
