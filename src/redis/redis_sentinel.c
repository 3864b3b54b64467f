/* SPDX-License-Identifier: MIT */
/*
 * One question to one Sentinel after the other, each over a redis_dial.
 *
 *     RESTING ─▶ DIALLING ─named─▶ RESTING, the connection is kept
 *        │          └─ fail ─▶ the next Sentinel, or silent ─▶ RESTING
 *        └── a connection was kept ─▶ ASKING ─▶ likewise
 */
#include "redis_sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "promptd/redis_dial.h"

enum { ANSWER_TIMEOUT_MS = 1000, ANSWER_MAX_BYTES = 65536, HOST_MAX_LENGTH = 253, PORT_DIGITS_MAX = 5 };

enum sentinel_state {
    SENTINEL_RESTING,  /* no question is under way; leaves when asked or by the watch's timer */
    SENTINEL_DIALLING, /* for the answer over a new connection, which has a deadline */
    SENTINEL_ASKING,   /* for the answer over a kept one, until the timer's */
    SENTINEL_CLOSING   /* redis_sentinel_close was called; waits for the connections and the timer */
};

/* One Sentinel, and the connection to it. */
struct dial {
    struct redis_sentinel *owner;
    struct redis_address address;  /* without user and password, until it asks for them */
    struct redis_dial *connection; /* NULL: none, and none that is still being closed */
    bool is_usable;                /* not being closed */
    bool wants_login;              /* has just said so */
    bool refused;                  /* it answered, and said no */
    struct redis_call question_call;
};

struct redis_sentinel {
    struct redis_sentinel_options options;
    enum sentinel_state state;
    struct dial dials[REDIS_SENTINELS_MAX];
    size_t current; /* the Sentinel that is asked, or the first to be */
    size_t passed;  /* so many have been passed over in this question */
    bool doubted;
    uv_timer_t timer;
    char reason[512]; /* the most telling of the failures: a refusal, or else the last */
    bool refused;
};

static size_t sentinel_count(const struct redis_sentinel *sentinel)
{
    return sentinel->options.address->sentinel_count;
}

static struct dial *current_dial(struct redis_sentinel *sentinel)
{
    return &sentinel->dials[sentinel->current];
}

static void sentinel_move(struct redis_sentinel *sentinel, enum sentinel_state state)
{
    static const char *const names[] = {"resting", "dialling", "asking", "closing"};
    log_debug(LOG_FIELDS(log_text("from", names[sentinel->state]), log_text("to", names[state])),
              "question to the Sentinels changed state");
    sentinel->state = state;
}

static void on_timer(uv_timer_t *timer);

static void start_timer(struct redis_sentinel *sentinel, int64_t wait_ms)
{
    uv_update_time(sentinel->options.loop);
    (void)uv_timer_start(&sentinel->timer, on_timer, (uint64_t)wait_ms, 0);
}

static void rest(struct redis_sentinel *sentinel)
{
    sentinel_move(sentinel, SENTINEL_RESTING);
    if (sentinel->options.watch_ms > 0)
        start_timer(sentinel, sentinel->options.watch_ms);
    else
        (void)uv_timer_stop(&sentinel->timer);
}

/* --- the answer ----------------------------------------------------------------------------------------------- */

static void send_question(struct dial *dial)
{
    const char *words[] = {"SENTINEL", "get-master-addr-by-name", dial->owner->options.address->service};
    redis_dial_command(dial->connection, 3, words, NULL, &dial->question_call);
}

/* Ends the connection; on_over goes on. */
static void refuse(struct dial *dial, const char *how, const char *word)
{
    char reason[300];
    (void)snprintf(reason, sizeof reason, "%s %s", how, word);
    dial->refused = true;
    (void)redis_dial_drop(dial->connection, reason);
}

static void refuse_as_told(struct dial *dial, const char *error)
{
    char shown[200];
    redis_address_copy_error(dial->owner->options.address, error, shown, sizeof shown);
    refuse(dial, "refuses:", shown);
}

static bool is_host(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING && reply->len > 0 && (size_t)reply->len <= HOST_MAX_LENGTH &&
           strspn(reply->str, REDIS_NAME_CHARACTERS ":%") == (size_t)reply->len;
}

/* 0: this is none. */
static int read_port(const redisReply *reply)
{
    bool is_number = reply->type == REDIS_REPLY_STRING && (size_t)reply->len <= PORT_DIGITS_MAX &&
                     strspn(reply->str, "0123456789") == (size_t)reply->len;
    long port = is_number ? strtol(reply->str, NULL, 10) : 0;
    return port <= UINT16_MAX ? (int)port : 0;
}

static void read_address(struct dial *dial, const redisReply *reply)
{
    struct redis_sentinel *sentinel = dial->owner;
    char name[REDIS_ADDRESS_NAME_SIZE];
    unsigned passed_over;
    bool is_pair = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2;
    int port = is_pair && is_host(reply->element[0]) ? read_port(reply->element[1]) : 0;
    if (port == 0) {
        (void)redis_dial_drop(dial->connection, "the answer is not one of a Sentinel");
        return;
    }
    const struct redis_endpoint master = {.host = reply->element[0]->str, .port = port};
    redis_address_name(&dial->address, name);
    (void)redis_dial_confirm(dial->connection, &passed_over); /* no for one that was kept: it stands already */
    rest(sentinel);
    sentinel->options.on_named(sentinel->options.context, &master, name);
}

static void on_answer(void *context, const redisReply *reply)
{
    struct dial *dial = context;
    const struct redis_address *address = dial->owner->options.address;
    bool is_error = reply->type == REDIS_REPLY_ERROR;
    if (is_error && strncmp(reply->str, "NOAUTH", 6) == 0 && address->password && !dial->address.password)
        dial->wants_login = redis_dial_drop(dial->connection, "it wants a login");
    else if (is_error)
        refuse_as_told(dial, reply->str);
    else if (reply->type == REDIS_REPLY_NIL)
        refuse(dial, "knows no master named", address->service);
    else
        read_address(dial, reply);
}

/* --- one after the other -------------------------------------------------------------------------------------- */

static void finish_close(struct redis_sentinel *sentinel);

static void close_dial(struct dial *dial)
{
    if (!dial->is_usable)
        return;
    dial->is_usable = false;
    redis_dial_close(dial->connection);
}

static void on_connection_closed(void *context)
{
    struct dial *dial = context;
    redis_dial_free(dial->connection);
    dial->connection = NULL;
    if (dial->owner->state == SENTINEL_CLOSING)
        finish_close(dial->owner);
}

static void pass_over(struct redis_sentinel *sentinel, const char *reason, bool refused);

static void on_login(void *context)
{
    send_question(context);
}

/* Most Sentinels want no password even where their servers do: it is given only to one that asks for it. */
static void log_in(struct dial *dial)
{
    dial->wants_login = false;
    dial->address.user = dial->owner->options.address->user;
    dial->address.password = dial->owner->options.address->password;
    redis_dial_begin(dial->connection, &dial->address);
}

/* A kept connection that ends while nobody asks costs nothing: the next question dials anew. */
static void on_over(void *context, const struct redis_dial_end *end)
{
    struct dial *dial = context;
    struct redis_sentinel *sentinel = dial->owner;
    bool is_asked = sentinel->state == SENTINEL_DIALLING || sentinel->state == SENTINEL_ASKING;
    if (dial->wants_login) {
        log_in(dial);
        return;
    }
    close_dial(dial);
    if (is_asked && dial == current_dial(sentinel))
        pass_over(sentinel, end->reason, end->refused || end->misfit || dial->refused);
}

static bool open_dial(struct dial *dial)
{
    dial->address.user = dial->address.password = NULL;
    dial->refused = false;
    dial->connection = redis_dial_new(&(struct redis_dial_options){
        .loop = dial->owner->options.loop,
        .address = &dial->address,
        .tls = dial->owner->options.tls,
        .timeout_ms = ANSWER_TIMEOUT_MS,
        .limits = {.bulk_bytes = ANSWER_MAX_BYTES, .reply_bytes = ANSWER_MAX_BYTES},
        .on_login = on_login,
        .on_over = on_over,
        .on_closed = on_connection_closed,
        .context = dial,
    });
    dial->is_usable = dial->connection;
    if (dial->connection)
        redis_dial_begin(dial->connection, &dial->address);
    return dial->connection;
}

/* false, with why not, where the current Sentinel must be passed over. */
static bool ask_current(struct redis_sentinel *sentinel, const char **failure)
{
    struct dial *dial = current_dial(sentinel);
    if (dial->is_usable) {
        sentinel_move(sentinel, SENTINEL_ASKING);
        start_timer(sentinel, ANSWER_TIMEOUT_MS);
        send_question(dial);
        return true;
    }
    sentinel_move(sentinel, SENTINEL_DIALLING);
    (void)uv_timer_stop(&sentinel->timer);
    /* only a look-up holds up its end */
    *failure = dial->connection ? "the name server does not answer" : "out of memory";
    return !dial->connection && open_dial(dial);
}

static void move_on(struct redis_sentinel *sentinel)
{
    close_dial(current_dial(sentinel));
    sentinel->current = (sentinel->current + 1) % sentinel_count(sentinel);
}

static void keep_reason(struct redis_sentinel *sentinel, const char *reason, bool refused)
{
    const struct dial *dial = current_dial(sentinel);
    const char *how = !refused ? "no Sentinel answers:" : dial->refused ? "Sentinel" : "Sentinel refuses:";
    char name[REDIS_ADDRESS_NAME_SIZE];
    if (sentinel->refused && !refused)
        return;
    redis_address_name(&dial->address, name);
    (void)snprintf(sentinel->reason, sizeof sentinel->reason, "%s %s (%.150s)", how, reason, name);
    sentinel->refused = refused;
}

static void pass_over(struct redis_sentinel *sentinel, const char *reason, bool refused)
{
    do {
        keep_reason(sentinel, reason, refused);
        move_on(sentinel);
        refused = false;
        if (++sentinel->passed >= sentinel_count(sentinel)) {
            rest(sentinel);
            sentinel->options.on_silent(sentinel->options.context, sentinel->reason, sentinel->refused);
            return;
        }
    } while (!ask_current(sentinel, &reason));
}

static void begin(struct redis_sentinel *sentinel)
{
    const char *failure;
    if (sentinel->doubted && sentinel_count(sentinel) > 1)
        move_on(sentinel);
    sentinel->doubted = false;
    sentinel->passed = 0;
    sentinel->refused = false;
    if (!ask_current(sentinel, &failure))
        pass_over(sentinel, failure, false);
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_sentinel *sentinel = timer->data;
    if (sentinel->state == SENTINEL_RESTING)
        begin(sentinel);
    else if (sentinel->state == SENTINEL_ASKING)
        (void)redis_dial_drop(current_dial(sentinel)->connection, "no answer within 1 s");
}

/* --- the interface -------------------------------------------------------------------------------------------- */

void redis_sentinel_ask(struct redis_sentinel *sentinel)
{
    if (sentinel->state == SENTINEL_RESTING)
        start_timer(sentinel, 0);
}

void redis_sentinel_doubt(struct redis_sentinel *sentinel)
{
    sentinel->doubted = true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct redis_sentinel *sentinel = handle->data;
    sentinel->options.on_closed(sentinel->options.context);
    free(sentinel);
}

static void finish_close(struct redis_sentinel *sentinel)
{
    for (size_t i = 0; i < sentinel_count(sentinel); i++)
        if (sentinel->dials[i].connection)
            return; /* comes here again when it is closed */
    uv_close((uv_handle_t *)&sentinel->timer, on_timer_closed);
}

void redis_sentinel_close(struct redis_sentinel *sentinel)
{
    sentinel_move(sentinel, SENTINEL_CLOSING);
    (void)uv_timer_stop(&sentinel->timer);
    for (size_t i = 0; i < sentinel_count(sentinel); i++)
        close_dial(&sentinel->dials[i]);
    finish_close(sentinel);
}

struct redis_sentinel *redis_sentinel_new(const struct redis_sentinel_options *options)
{
    struct redis_sentinel *sentinel = calloc(1, sizeof *sentinel);
    if (!sentinel)
        return NULL;
    sentinel->options = *options;
    for (size_t i = 0; i < sentinel_count(sentinel); i++) {
        struct dial *dial = &sentinel->dials[i];
        const struct redis_endpoint *endpoint = &options->address->sentinels[i];
        dial->owner = sentinel;
        dial->address = (struct redis_address){
            .host = endpoint->host, .port = endpoint->port, .tls = options->address->tls};
        dial->question_call = (struct redis_call){.on_reply = on_answer, .context = dial};
    }
    (void)uv_timer_init(options->loop, &sentinel->timer); /* always 0 */
    sentinel->timer.data = sentinel;
    return sentinel;
}
