/* SPDX-License-Identifier: MIT */
/*
 * The connection as a state machine.
 *
 *     IDLE ─▶ RESOLVING ─▶ CONNECTING ─▶ LOGIN ─▶ OPENING ─confirm─▶ UP
 *       ▲         │          ▲    │        │         │                │
 *       └─────────┴── fail ──│────┴────────┴─────────┴────────────────┘
 *                            └ no sign of life, and another address is left
 *
 * hiredis may not be freed or dialled again inside its own callbacks: those only note what happened, and the timer,
 * which was the deadline's until then, acts in the next turn of the loop.
 */
#include "promptd/redis_dial.h"

#include <errno.h>
#include <hiredis/sds.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "redis_adapter.h"
#include "redis_login.h"
#include "redis_lookup.h"

enum dial_state {
    DIAL_IDLE,       /* for redis_dial_begin */
    DIAL_RESOLVING,  /* for the name's addresses; leaves with the answer or the deadline */
    DIAL_CONNECTING, /* for the socket to connect; leaves by hiredis' connect callback or the deadline */
    DIAL_LOGIN,      /* for the answers to AUTH and SELECT (redis_login), and ROLE */
    DIAL_OPENING,    /* logged in; waits for the user to confirm */
    DIAL_UP,         /* confirmed; leaves when the connection is lost or dropped */
    DIAL_CLOSING     /* redis_dial_close was called; waits for look-up and handles */
};

enum { DIAL_ADDRESS_TIMEOUT_MS = 2000 }; /* for a sign of life, where another address is left to try */

struct redis_dial {
    struct redis_dial_options options;
    enum dial_state state;
    const struct redis_address *server;
    redisAsyncContext *redis;
    struct resp_guard guard;
    struct ssl_st *session; /* of redis; NULL: no TLS */
    struct redis_lookup lookup;
    uv_timer_t timer; /* the deadline; or, once it has failed or is closed, acts on that outside of hiredis */
    bool failed;      /* the connection is to be given up: `end` */
    struct redis_dial_end end;
    struct redis_login login;
    struct redis_call login_call;
};

/* --- state ---------------------------------------------------------------------------------------------------- */

static void dial_move(struct redis_dial *dial, enum dial_state state)
{
    static const char *const names[] = {"idle", "resolving", "connecting", "login", "opening", "up", "closing"};
    char server[REDIS_ADDRESS_NAME_SIZE] = "";
    if (dial->state == state)
        return;
    if (dial->server)
        redis_address_name(dial->server, server);
    log_debug(
        LOG_FIELDS(log_text("server", server), log_text("from", names[dial->state]), log_text("to", names[state])),
        "connection state changed");
    dial->state = state;
}

/* --- failing -------------------------------------------------------------------------------------------------- */

static void on_later(uv_timer_t *timer);

static bool is_usable(const struct redis_dial *dial)
{
    return !dial->failed && dial->state != DIAL_IDLE && dial->state != DIAL_CLOSING;
}

bool redis_dial_drop(struct redis_dial *dial, const char *reason)
{
    if (!is_usable(dial))
        return false;
    dial->failed = true;
    resp_guard_mute(&dial->guard);
    dial->end = (struct redis_dial_end){.was_connected = dial->state >= DIAL_LOGIN,
                                        .was_up = dial->state == DIAL_UP,
                                        .passed_over = dial->end.passed_over};
    redis_dial_describe_tls(dial, &dial->end.tls);
    (void)snprintf(dial->end.reason, sizeof dial->end.reason, "%.255s",
                   reason && reason[0] ? reason : "connection lost");
    (void)uv_timer_start(&dial->timer, on_later, 0, 0);
    return true;
}

bool redis_dial_refuse(struct redis_dial *dial, const char *error)
{
    char shown[sizeof dial->end.reason];
    redis_address_copy_error(dial->options.address, error, shown, sizeof shown);
    if (!redis_dial_drop(dial, shown))
        return false;
    dial->end.refused = true;
    dial->end.busy = redis_login_is_busy(error);
    return true;
}

static void fail_by_phrase(struct redis_dial *dial, const struct error *phrase)
{
    if (!redis_dial_drop(dial, phrase->text))
        return;
    dial->end.misfit = phrase->code == ERROR_CONFIG;
    dial->end.was_connected |= dial->end.misfit; /* it may have spoken before hiredis sees that it is connected */
}

/* Lets go of the context. Its pending callbacks run inside and find no dial any more. */
static void release_redis(struct redis_dial *dial)
{
    redisAsyncContext *redis = dial->redis;
    if (!redis)
        return;
    dial->redis = NULL;
    dial->session = NULL;
    redis->data = NULL;
    redisAsyncFree(redis);
}

static void on_deadline(uv_timer_t *timer)
{
    struct redis_dial *dial = timer->data;
    (void)redis_dial_drop(dial, redis_tls_explain_silence(dial->session, "no answer in time while dialling"));
    dial->end.silent = true;
}

static void start_deadline(struct redis_dial *dial, int64_t wait_ms)
{
    uv_update_time(dial->options.loop);
    (void)uv_timer_start(&dial->timer, on_deadline, (uint64_t)wait_ms, 0);
}

/* Where another address is left, one that gives no sign of life must not cost the whole deadline. */
static void await_life(struct redis_dial *dial)
{
    if (redis_lookup_has_next(&dial->lookup))
        start_deadline(dial, dial->options.timeout_ms < DIAL_ADDRESS_TIMEOUT_MS ? dial->options.timeout_ms
                                                                                : DIAL_ADDRESS_TIMEOUT_MS);
}

static void see_life(struct redis_dial *dial)
{
    if (dial->state != DIAL_UP && redis_lookup_has_next(&dial->lookup))
        start_deadline(dial, dial->options.timeout_ms);
}

/* --- commands ------------------------------------------------------------------------------------------------- */

static void on_reply(redisAsyncContext *redis, void *reply, void *data)
{
    const struct redis_call *call = data;
    struct redis_dial *dial = redis->data;
    if (!reply || !dial || !is_usable(dial))
        return;
    see_life(dial);
    call->on_reply(call->context, reply);
}

static bool send_command(struct redis_dial *dial, int argc, const char *const *argv, const size_t *lengths,
                         const struct redis_call *call)
{
    if (!dial->redis || dial->failed)
        return false;
    redisCallbackFn *callback = call ? on_reply : NULL;
    if (redisAsyncCommandArgv(dial->redis, callback, (void *)(uintptr_t)call, argc, (const char **)(uintptr_t)argv,
                              lengths) == REDIS_OK)
        return true;
    (void)redis_dial_drop(dial, dial->redis->errstr);
    return false;
}

void redis_dial_command(struct redis_dial *dial, int argc, const char *const *argv, const size_t *lengths,
                        const struct redis_call *call)
{
    if (send_command(dial, argc, argv, lengths, call))
        resp_guard_expect(&dial->guard);
}

void redis_dial_subscribe(struct redis_dial *dial, const char *channel, const struct resp_subscriber *subscriber)
{
    const char *argv[] = {"SUBSCRIBE", channel};
    const size_t lengths[] = {9, strlen(channel)};
    if (send_command(dial, 2, argv, lengths, NULL))
        resp_guard_subscribe(&dial->guard, channel, lengths[1], subscriber);
}

/* --- login ---------------------------------------------------------------------------------------------------- */

static void login_done(struct redis_dial *dial)
{
    const char *const name[] = {"CLIENT", "SETNAME", program_invocation_short_name};
    if (dial->login.without_user)
        log_info(NULL, "Redis before 6 knows no users: logged in with the password alone");
    redis_dial_command(dial, 3, name, NULL, NULL); /* a courtesy: an account that may not do it is fine */
    dial_move(dial, DIAL_OPENING);
    dial->options.on_login(dial->options.context);
}

static void log_in(struct redis_dial *dial, enum redis_login_result result)
{
    switch (result) {
    case REDIS_LOGIN_SEND:
        redis_dial_command(dial, dial->login.argc, dial->login.argv, NULL, &dial->login_call);
        return;
    case REDIS_LOGIN_DONE:
        login_done(dial);
        return;
    case REDIS_LOGIN_NO_MASTER:
        dial->end.no_master = redis_dial_drop(dial, "the Sentinels name it, but it says that it is no master");
        return;
    case REDIS_LOGIN_REFUSED: /* on_login_reply knows the words */
    case REDIS_LOGIN_STRANGE:
        (void)redis_dial_drop(dial, "this is no Redis: its answer to the login is neither OK nor an error");
    }
}

static void on_login_reply(void *context, const redisReply *reply)
{
    struct redis_dial *dial = context;
    enum redis_login_result result = redis_login_answer(&dial->login, reply);
    if (result == REDIS_LOGIN_DONE && reply->type == REDIS_REPLY_ERROR)
        log_debug(LOG_FIELDS(log_text("error", reply->str)), "ROLE cannot be asked: the Sentinels are believed");
    if (result == REDIS_LOGIN_REFUSED)
        (void)redis_dial_refuse(dial, reply->str);
    else
        log_in(dial, result);
}

/* --- connecting ----------------------------------------------------------------------------------------------- */

/* A port that speaks TLS ends a connection that does not: Redis itself does it without a word. */
static void fail_plain(struct redis_dial *dial, int code, const char *reason)
{
    char guess[sizeof dial->end.reason];
    bool is_tcp = !dial->server->unix_path && dial->state != DIAL_CONNECTING;
    bool is_closed = code == REDIS_ERR_IO || code == REDIS_ERR_EOF;
    (void)snprintf(guess, sizeof guess, "%s before any answer; perhaps this port speaks TLS: rediss://", reason);
    (void)redis_dial_drop(dial, is_tcp && is_closed && dial->guard.received_bytes == 0 ? guess : reason);
}

static void fail_tls(struct redis_dial *dial, const char *reason)
{
    struct error phrase;
    redis_tls_explain(dial->session, reason, dial->guard.received_bytes > 0, &phrase);
    fail_by_phrase(dial, &phrase);
}

/* For the connect and disconnect callbacks; hiredis frees the context after them. What the server itself said last
 * counts more than how the connection ended then. */
static void dial_lose(struct redis_dial *dial, const redisAsyncContext *redis, int code, const char *reason)
{
    if (!dial->server->tls)
        redis_adapter_hear_last_words(redis);
    const char *said = resp_guard_last_error(&dial->guard);
    if (said)
        (void)redis_dial_refuse(dial, said);
    else if (dial->session && dial->state != DIAL_CONNECTING)
        fail_tls(dial, reason);
    else
        fail_plain(dial, code, reason);
    dial->redis = NULL;
    dial->session = NULL;
}

/* hiredis 0.14 sets the outer error too late for the connect callback; the inner one is always there. */
static void on_connect(const redisAsyncContext *redis, int status)
{
    struct redis_dial *dial = redis->data;
    if (!dial)
        return;
    if (status != REDIS_OK)
        dial_lose(dial, redis, redis->c.err, redis->c.errstr[0] ? redis->c.errstr : "connection refused");
    if (!is_usable(dial))
        return;
    await_life(dial);
    dial_move(dial, DIAL_LOGIN);
    log_in(dial, redis_login_begin(&dial->login, dial->options.address, dial->options.wants_master));
}

static void on_disconnect(const redisAsyncContext *redis, int status)
{
    struct redis_dial *dial = redis->data;
    (void)status;
    if (dial)
        dial_lose(dial, redis, redis->err, redis->errstr && redis->errstr[0] ? redis->errstr : "connection closed");
}

static void on_guarded(redisAsyncContext *redis)
{
    struct redis_dial *dial = redis->data;
    if (!dial || !is_usable(dial))
        return;
    char text[sizeof dial->end.reason];
    redis_address_copy_error(dial->options.address, dial->guard.error, text, sizeof text);
    if (dial->guard.was_told && dial->options.on_busy && dial->state == DIAL_UP &&
        redis_login_is_busy(dial->guard.error))
        dial->options.on_busy(dial->options.context, text);
    else if (dial->guard.was_told)
        (void)redis_dial_refuse(dial, dial->guard.error);
    dial->guard.was_told = false;
    if (!dial->guard.fault)
        return;
    bool speaks_tls = strcmp(dial->guard.fault, RESP_GUARD_SPEAKS_TLS) == 0 && dial->state != DIAL_UP;
    (void)snprintf(text, sizeof text, "%s%s",
                   speaks_tls ? "" : "this is not the protocol of Redis: ", dial->guard.fault);
    if (redis_dial_drop(dial, text))
        dial->end.misfit = speaks_tls;
}

static redisAsyncContext *open_context(struct redis_dial *dial)
{
    if (dial->server->unix_path)
        return redisAsyncConnectUnix(dial->server->unix_path);
    return redisAsyncConnect(redis_lookup_next(&dial->lookup), dial->server->port);
}

/* TLS, where the server has it, and the loop; false: it has failed, and the context is the caller's. */
static bool prepare(struct redis_dial *dial, redisAsyncContext *redis)
{
    struct error phrase;
    if (!redis || redis->err) {
        (void)redis_dial_drop(dial, redis ? redis->errstr : "out of memory");
        return false;
    }
    if (dial->server->tls) {
        dial->session = redis_tls_begin(dial->options.tls, &redis->c, dial->server->host, &phrase);
        if (!dial->session) {
            fail_by_phrase(dial, &phrase);
            return false;
        }
    }
    resp_guard_reset(&dial->guard);
    const struct redis_adapter_options options = {
        .loop = dial->options.loop, .session = dial->session, .guard = &dial->guard, .on_guarded = on_guarded};
    if (redis_adapter_attach(redis, &options))
        return true;
    dial->session = NULL;
    (void)redis_dial_drop(dial, "the socket cannot be watched");
    return false;
}

static void connect_next(struct redis_dial *dial)
{
    dial_move(dial, DIAL_CONNECTING);
    redisAsyncContext *redis = open_context(dial);
    if (!prepare(dial, redis)) {
        if (redis)
            redisAsyncFree(redis);
        return;
    }
    await_life(dial);
    redis->data = dial;
    dial->redis = redis;
    (void)redisAsyncSetConnectCallback(redis, on_connect); /* fails only when one is set already */
    (void)redisAsyncSetDisconnectCallback(redis, on_disconnect);
}

/* --- from beginning to end ------------------------------------------------------------------------------------ */

static void on_timer_closed(uv_handle_t *handle)
{
    const struct redis_dial *dial = handle->data;
    dial->options.on_closed(dial->options.context);
}

static void finish_close(struct redis_dial *dial)
{
    if (dial->lookup.is_under_way || dial->redis)
        return; /* comes here again when they are done */
    uv_close((uv_handle_t *)&dial->timer, on_timer_closed);
}

static void on_looked_up(void *context, const char *failure)
{
    struct redis_dial *dial = context;
    if (dial->state == DIAL_CLOSING)
        finish_close(dial);
    else if (dial->state != DIAL_RESOLVING || dial->failed)
        return; /* too late: the deadline has passed */
    else if (failure)
        (void)redis_dial_drop(dial, failure);
    else
        connect_next(dial);
}

void redis_dial_begin(struct redis_dial *dial, const struct redis_address *server)
{
    dial->server = server;
    dial->end.passed_over = 0;
    start_deadline(dial, dial->options.timeout_ms);
    if (server->unix_path) {
        connect_next(dial);
        return;
    }
    dial_move(dial, DIAL_RESOLVING);
    const char *failure = redis_lookup_begin(&dial->lookup, dial->options.loop, server->host);
    if (failure)
        (void)redis_dial_drop(dial, failure);
}

static void on_later(uv_timer_t *timer)
{
    struct redis_dial *dial = timer->data;
    release_redis(dial);
    if (dial->state == DIAL_CLOSING) {
        finish_close(dial);
        return;
    }
    dial->failed = false;
    bool no_life = !dial->end.was_connected || dial->end.silent;
    if (no_life && redis_lookup_has_next(&dial->lookup)) {
        dial->end.passed_over++;
        start_deadline(dial, dial->options.timeout_ms);
        connect_next(dial);
        return;
    }
    redis_lookup_forget(&dial->lookup); /* the next one looks the name up again */
    const struct redis_dial_end end = dial->end;
    dial_move(dial, DIAL_IDLE);
    dial->options.on_over(dial->options.context, &end);
}

/* --- the rest of the interface -------------------------------------------------------------------------------- */

bool redis_dial_confirm(struct redis_dial *dial, unsigned *passed_over)
{
    if (dial->state != DIAL_OPENING || dial->failed)
        return false;
    (void)uv_timer_stop(&dial->timer);
    dial_move(dial, DIAL_UP);
    *passed_over = dial->end.passed_over;
    return true;
}

bool redis_dial_is_up(const struct redis_dial *dial)
{
    return dial->state == DIAL_UP && !dial->failed;
}

uint64_t redis_dial_received_bytes(const struct redis_dial *dial)
{
    return dial->guard.received_bytes;
}

int64_t redis_dial_progress(const struct redis_dial *dial)
{
    int in_kernel = 0;
    int64_t received = (int64_t)dial->guard.received_bytes;
    if (!dial->redis)
        return received;
    (void)ioctl(dial->redis->c.fd, SIOCOUTQ, &in_kernel);
    return received - (int64_t)sdslen(dial->redis->c.obuf) - in_kernel;
}

void redis_dial_describe_tls(const struct redis_dial *dial, struct redis_tls_summary *summary)
{
    redis_tls_describe(dial->session, summary);
}

void redis_dial_set_limits(struct redis_dial *dial, const struct resp_guard_limits *limits)
{
    dial->guard.limits = *limits;
}

void redis_dial_close(struct redis_dial *dial)
{
    dial_move(dial, DIAL_CLOSING);
    resp_guard_mute(&dial->guard);
    redis_lookup_cancel(&dial->lookup);
    (void)uv_timer_start(&dial->timer, on_later, 0, 0);
}

void redis_dial_free(struct redis_dial *dial)
{
    resp_guard_free(&dial->guard);
    free(dial);
}

struct redis_dial *redis_dial_new(const struct redis_dial_options *options)
{
    struct redis_dial *dial = calloc(1, sizeof *dial);
    if (!dial)
        return NULL;
    dial->options = *options;
    dial->guard.limits = options->limits;
    dial->lookup = (struct redis_lookup){.on_done = on_looked_up, .context = dial};
    dial->login_call = (struct redis_call){.on_reply = on_login_reply, .context = dial};
    (void)uv_timer_init(options->loop, &dial->timer); /* always 0 */
    dial->timer.data = dial;
    return dial;
}
