/* SPDX-License-Identifier: MIT */
/* Sessions, the gate that spaces their dials, and the edges of "the database is there". */
#include "promptd/pg_pool.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "promptd/breaker.h"
#include "promptd/log.h"
#include "promptd/statements.h"

enum { POOL_DIALS_AT_ONCE = 4, POOL_DIAL_TIMEOUT_S = 10 };

enum pool_state {
    POOL_STARTING,  /* nothing is known yet; leaves with the first answer or the first failure */
    POOL_UP,        /* a session answers and writes work; leaves when the last session dies or a write hits an outage */
    POOL_DOWN,      /* no session; leaves with the answer of a new one */
    POOL_READ_ONLY, /* sessions answer, but the server cannot write (disk full, standby); leaves with a write */
    POOL_CLOSING    /* pg_pool_close was called; leaves when every session is gone */
};

/* A session and what the pool knows of it. */
struct lane {
    struct pg_pool *pool;
    struct pg_session *session;
    bool unchecked; /* it is open and waits for its turn to check the schema */
    bool proved;    /* it has answered since it was dialled */
    bool refused;   /* given up because of an outage that the server itself reported */
};

struct pg_pool {
    struct pg_pool_options options;
    enum pool_state state;
    struct lane *lanes;
    size_t lanes_left; /* not yet closed */
    struct breaker breaker;
    uv_timer_t *gate; /* active: no dial before it fires */
    uv_timer_t *ping;
    int64_t down_since_ms;
    unsigned failures;     /* since then */
    struct lane *checking; /* the one whose check of the schema is under way, or NULL */
    char *findings;        /* of the last schema check, to name each once */
};

static void dial_more(struct pg_pool *pool);

/* --- state ---------------------------------------------------------------------------------------------------- */

static const char *state_name(enum pool_state state)
{
    static const char *const names[] = {"starting", "up", "down", "read-only", "closing"};
    return names[state];
}

/* The only mover. Each edge that people should know of is one line. */
static void pool_move(struct pg_pool *pool, enum pool_state state, const struct job_failure *why)
{
    enum pool_state old = pool->state;
    if (old == state || old == POOL_CLOSING)
        return;
    pool->state = state;
    int64_t now_ms = (int64_t)uv_now(pool->options.loop);
    log_debug(LOG_FIELDS(log_text("from", state_name(old)), log_text("to", state_name(state))), "state changed");
    if (state == POOL_DOWN && old == POOL_STARTING)
        log_error(LOG_FIELDS(log_text("error", why->text)), "database cannot be reached; messages wait");
    else if (state == POOL_DOWN)
        log_error(LOG_FIELDS(log_text("error", why->text)), "database lost; messages wait");
    else if (state == POOL_READ_ONLY)
        log_error(LOG_FIELDS(log_text("sqlstate", why->sqlstate), log_text("error", why->text)),
                  "database takes no writes; messages wait");
    else if (state == POOL_UP && old == POOL_STARTING)
        log_info(NULL, "database connected");
    else if (state == POOL_UP)
        log_info(LOG_FIELDS(log_number("failures", pool->failures)), "database back after %.1f s",
                 (double)(now_ms - pool->down_since_ms) / 1000);
    bool was_well = old == POOL_STARTING || old == POOL_UP;
    if (was_well && state != POOL_UP) {
        pool->down_since_ms = now_ms;
        pool->failures = 0;
    }
    if (state == POOL_UP)
        pool->options.on_up(pool->options.context);
}

size_t pg_pool_open_count(const struct pg_pool *pool)
{
    size_t count = 0;
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].session && pg_session_is_open(pool->lanes[i].session))
            count++;
    return count;
}

bool pg_pool_is_up(const struct pg_pool *pool)
{
    return pool->state == POOL_UP;
}

/* --- the gate ------------------------------------------------------------------------------------------------- */

static void on_gate(uv_timer_t *timer)
{
    struct pg_pool *pool = timer->data;
    breaker_attempt(&pool->breaker);
    dial_more(pool);
}

static void link_is_well(struct pg_pool *pool)
{
    if (breaker_close(&pool->breaker))
        log_info(NULL, "database circuit closed");
}

/* One more failure: the next dial waits. Failures while it waits already belong to the same event. */
static void gate_shut(struct pg_pool *pool)
{
    pool->failures++;
    if (uv_is_active((uv_handle_t *)pool->gate))
        return;
    bool opened;
    int64_t wait_ms = breaker_fail(&pool->breaker, backoff_chance(), &opened);
    if (opened)
        log_critical(LOG_FIELDS(log_number("failures", pool->breaker.failures)),
                     "database circuit opened; one attempt every %lld s from now on", (long long)(wait_ms / 1000));
    log_debug(LOG_FIELDS(log_number("wait_ms", wait_ms)), "next dial");
    uv_update_time(pool->options.loop);
    (void)uv_timer_start(pool->gate, on_gate, (uint64_t)wait_ms, 0);
}

static void dial_more(struct pg_pool *pool)
{
    if (pool->state == POOL_CLOSING || uv_is_active((uv_handle_t *)pool->gate))
        return;
    size_t dialling = 0;
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pg_session_is_dialling(pool->lanes[i].session))
            dialling++;
    size_t allowed = pool->state == POOL_UP ? POOL_DIALS_AT_ONCE : 1;
    if (pool->state == POOL_READ_ONLY && pg_pool_open_count(pool) > 0)
        return; /* one session is enough to find out */
    for (size_t i = 0; i < pool->options.connections && dialling < allowed; i++) {
        struct pg_session *session = pool->lanes[i].session;
        if (pg_session_is_open(session) || pg_session_is_dialling(session))
            continue;
        pg_session_dial(session);
        dialling++;
    }
}

/* --- the check of the schema ---------------------------------------------------------------------------------- */

/* Each finding once, until the set of findings changes. */
static void report_findings(struct pg_pool *pool, const struct pg_answer *answer)
{
    struct buffer all = {0};
    int rows = pg_answer_rows(answer, 0);
    for (int row = 0; row < rows; row++) {
        size_t length;
        const char *finding = pg_answer_field(answer, 0, row, 0, &length);
        if (finding)
            buffer_printf(&all, "%s\n", finding);
    }
    buffer_append_char(&all, '\0');
    bool is_news = all.failed || strcmp(all.data, pool->findings ? pool->findings : "") != 0;
    if (is_news && rows == 0)
        log_info(NULL, "database set up right: tables, columns and privileges are there");
    for (int row = 0; is_news && row < rows; row++) {
        size_t length;
        log_critical(NULL, "database set up wrong: %s", pg_answer_field(answer, 0, row, 0, &length));
    }
    free(pool->findings);
    pool->findings = all.failed ? NULL : all.data;
    if (all.failed)
        buffer_free(&all);
}

static void check_next(struct pg_pool *pool);

static void on_checked(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    struct lane *lane = context;
    struct pg_pool *pool = lane->pool;
    pool->checking = NULL;
    check_next(pool);
    if (answer->status == PG_LOST)
        return; /* on_down follows */
    if (answer->status == PG_FAILED) {
        log_warning(LOG_FIELDS(log_text("sqlstate", answer->failure.sqlstate), log_text("error", answer->failure.text)),
                    "the database's set-up could not be checked");
        if (!answer->failure.sqlstate[0]) {
            pg_session_drop(session, answer->failure.text);
            return;
        }
    } else {
        int32_t pid;
        if (statements_read_meet(answer, 1, &pid))
            pg_session_met_backend(session, pid);
        report_findings(pool, answer);
    }
    lane->proved = true;
    if (pool->state != POOL_READ_ONLY) {
        link_is_well(pool);
        pool_move(pool, POOL_UP, NULL);
    }
    dial_more(pool);
    pool->options.on_idle(pool->options.context);
}

static struct lane *next_unchecked(struct pg_pool *pool)
{
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].unchecked && pg_session_is_idle(pool->lanes[i].session))
            return &pool->lanes[i];
    return NULL;
}

/* One at a time: of two at once, the answer that comes last need not be the one that saw the schema last. */
static void check_next(struct pg_pool *pool)
{
    struct lane *lane = pool->checking || pool->state == POOL_CLOSING ? NULL : next_unchecked(pool);
    if (!lane)
        return;
    struct pg_statement statements[2];
    statements_build_check(&statements[0]);
    statements_build_meet(&statements[1]);
    lane->unchecked = false;
    pool->checking = lane;
    pg_session_run(lane->session, statements, 2, on_checked, lane);
}

/* --- signs of life ---------------------------------------------------------------------------------------------- */

static void on_pong(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    (void)session;
    struct pg_pool *pool = context;
    if (answer->status != PG_LOST)
        pool->options.on_idle(pool->options.context);
}

/*
 * A silent server is found by the statement's deadline; a busy session needs no ping. Every idle one is asked, so that
 * all that are dead are found at the same time, and not one after the other by the messages that are tried on them.
 */
static void ping_idle(struct pg_pool *pool)
{
    const struct pg_statement ping = {.sql = "select 1"};
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].proved && pg_session_is_idle(pool->lanes[i].session))
            pg_session_run(pool->lanes[i].session, &ping, 1, on_pong, pool);
}

static void on_ping(uv_timer_t *timer)
{
    ping_idle(timer->data);
}

static void start_ping(struct pg_pool *pool)
{
    uint64_t interval = (uint64_t)pool->options.tuning.ping_interval_ms;
    if (interval > 0)
        (void)uv_timer_start(pool->ping, on_ping, interval, interval);
    else
        (void)uv_timer_stop(pool->ping);
}

/* --- sessions ------------------------------------------------------------------------------------------------- */

static void on_session_up(void *context, struct pg_session *session)
{
    (void)session;
    struct lane *lane = context;
    lane->unchecked = true;
    lane->proved = false;
    lane->refused = false;
    check_next(lane->pool);
}

static void on_session_down(void *context, struct pg_session *session, const char *reason)
{
    (void)session;
    struct lane *lane = context;
    struct pg_pool *pool = lane->pool;
    struct job_failure why = {.sqlstate = ""};
    strncpy(why.text, reason, sizeof why.text - 1);
    bool fresh_loss = lane->proved && !lane->refused;
    lane->unchecked = false;
    lane->proved = false;
    lane->refused = false;
    log_debug(LOG_FIELDS(log_text("error", reason)), "connection %s", fresh_loss ? "lost" : "failed");
    if (pg_pool_open_count(pool) == 0 && pool->state != POOL_READ_ONLY)
        pool_move(pool, POOL_DOWN, &why);
    else if (fresh_loss)
        log_info(LOG_FIELDS(log_text("error", reason)), "one of the database connections was lost");
    if (fresh_loss)
        ping_idle(pool);
    else
        gate_shut(pool);
    dial_more(pool);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_session_closed(void *context)
{
    struct lane *lane = context;
    struct pg_pool *pool = lane->pool;
    lane->session = NULL;
    if (--pool->lanes_left > 0)
        return;
    void (*on_closed)(void *) = pool->options.on_closed;
    void *closed_context = pool->options.context;
    free(pool->lanes);
    free(pool->findings);
    free(pool);
    on_closed(closed_context);
}

struct pg_session *pg_pool_idle(struct pg_pool *pool)
{
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].proved && pg_session_is_idle(pool->lanes[i].session))
            return pool->lanes[i].session;
    return NULL;
}

void pg_pool_report_write(struct pg_pool *pool)
{
    if (pool->state != POOL_READ_ONLY)
        return;
    link_is_well(pool);
    pool_move(pool, POOL_UP, NULL);
    dial_more(pool);
}

void pg_pool_report_outage(struct pg_pool *pool, struct pg_session *session, const struct job_failure *failure)
{
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].session == session)
            pool->lanes[i].refused = true;
    /* Resources and read-only are about writing; the rest of the outages end this session and may spare the others. */
    if (strncmp(failure->sqlstate, "53", 2) == 0 || strcmp(failure->sqlstate, "25006") == 0)
        pool_move(pool, POOL_READ_ONLY, failure);
    pg_session_drop(session, failure->text);
}

/* --- life ------------------------------------------------------------------------------------------------------- */

void pg_pool_set_tuning(struct pg_pool *pool, const struct pg_pool_tuning *tuning)
{
    pool->options.tuning = *tuning;
    pool->breaker.backoff.max_ms = tuning->backoff_max_ms;
    pool->breaker.max_failures = tuning->breaker_failures;
    pool->breaker.reset_ms = tuning->breaker_reset_ms;
    for (size_t i = 0; i < pool->options.connections; i++)
        pg_session_set_timeout(pool->lanes[i].session, tuning->statement_timeout_ms);
    start_ping(pool);
}

bool pg_pool_circuit_is_open(const struct pg_pool *pool)
{
    return pool->breaker.state != BREAKER_CLOSED;
}

bool pg_pool_close_circuit(struct pg_pool *pool)
{
    bool was_open = breaker_close(&pool->breaker);
    if (was_open)
        log_info(NULL, "database circuit closed by hand");
    (void)uv_timer_stop(pool->gate);
    dial_more(pool);
    return was_open;
}

static bool lanes_new(struct pg_pool *pool)
{
    for (size_t i = 0; i < pool->options.connections; i++) {
        struct lane *lane = &pool->lanes[i];
        lane->pool = pool;
        lane->session = pg_session_new(&(struct pg_session_options){
            .loop = pool->options.loop,
            .database_url = pool->options.database_url,
            .statement_timeout_ms = pool->options.tuning.statement_timeout_ms,
            .dial_timeout_s = POOL_DIAL_TIMEOUT_S,
            .on_up = on_session_up,
            .on_down = on_session_down,
            .on_closed = on_session_closed,
            .context = lane,
        });
        if (!lane->session)
            return false;
        pool->lanes_left++;
    }
    return true;
}

struct pg_pool *pg_pool_new(const struct pg_pool_options *options)
{
    struct pg_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->options = *options;
    pool->breaker.backoff.base_ms = options->backoff_base_ms;
    pool->lanes = calloc(options->connections, sizeof *pool->lanes);
    pool->gate = calloc(1, sizeof *pool->gate);
    pool->ping = calloc(1, sizeof *pool->ping);
    if (!pool->lanes || !pool->gate || !pool->ping || !lanes_new(pool))
        return NULL; /* NOLINT(clang-analyzer-unix.Malloc): out of memory at start, the process ends */
    (void)uv_timer_init(options->loop, pool->gate);
    (void)uv_timer_init(options->loop, pool->ping);
    pool->gate->data = pool;
    pool->ping->data = pool;
    pg_pool_set_tuning(pool, &options->tuning);
    dial_more(pool);
    return pool;
}

void pg_pool_close(struct pg_pool *pool)
{
    pool_move(pool, POOL_CLOSING, NULL);
    uv_close((uv_handle_t *)pool->gate, on_timer_closed);
    uv_close((uv_handle_t *)pool->ping, on_timer_closed);
    for (size_t i = 0; i < pool->options.connections; i++)
        pg_session_close(pool->lanes[i].session);
}
