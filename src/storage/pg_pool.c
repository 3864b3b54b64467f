/* SPDX-License-Identifier: MIT */
/* Sessions, when they are dialled and checked, and the edges of "the database is there". */
#include "promptd/pg_pool.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "postgres"
#include "pg_gate.h"
#include "promptd/log.h"
#include "promptd/schema_check.h"
#include "promptd/statements.h"

enum {
    POOL_RECHECK_MS = 5000, /* of what is missing in the schema, where there are no pings that would do it */
    POOL_PINGS_A_CHECK = 12 /* a minute, as shipped: of what was right, and need not stay so */
};

enum pool_state {
    POOL_STARTING, /* nothing is known yet; leaves with the first answer or the first failure */
    POOL_UP,       /* a session answers and writes work; leaves when the last session dies or a write meets an outage */
    POOL_DOWN,     /* no session; leaves with the answer of a new one */
    POOL_READ_ONLY, /* the server cannot write (disk full, standby); leaves when a probe can, on a new session */
    POOL_UNFIT,     /* promptd_unsettled is missing; leaves when a check finds it */
    POOL_CLOSING    /* pg_pool_close was called; leaves when every session is gone */
};

/* A session and what the pool knows of it. */
struct lane {
    struct pg_pool *pool;
    struct pg_session *session;
    bool awaits_check; /* it is open and waits for its turn to check the schema */
    bool is_checked;   /* its check was answered */
    bool refused;      /* given up because of an outage that the server itself reported */
};

struct pg_pool {
    struct pg_pool_options options;
    enum pool_state state;
    struct lane *lanes;
    size_t lanes_left;   /* not yet closed */
    size_t cancels_left; /* how many more may be under way */
    struct pg_gate gate; /* shut: no dial before it opens */
    uv_timer_t *ping;
    unsigned pings; /* while all was right */
    int64_t down_since_ms;
    unsigned failures;     /* since then */
    struct lane *checking; /* the one whose check of the schema is under way, or NULL */
    char *findings;        /* of the last check of the schema */
    bool has_evidence;     /* by the last check */
};

static void dial_more(struct pg_pool *pool);

/* --- state ---------------------------------------------------------------------------------------------------- */

static const char *state_name(enum pool_state state)
{
    static const char *const names[] = {"starting", "up", "down", "read-only", "unfit", "closing"};
    return names[state];
}

/* The only mover. Each edge that people should know of is one line. */
static void pool_move(struct pg_pool *pool, enum pool_state state, const struct pg_error *why)
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
    else if (state == POOL_UNFIT)
        log_debug(NULL, "database is not set up; messages wait"); /* what is missing has its own line */
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

/* --- dials ------------------------------------------------------------------------------------------------------ */

static void dial_more(struct pg_pool *pool)
{
    if (pool->state == POOL_CLOSING || pg_gate_is_shut(&pool->gate))
        return;
    size_t dialling = 0;
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pg_session_is_dialling(pool->lanes[i].session))
            dialling++;
    /* Near a limit one at a time: dials that arrive together count against each other, and all of them are refused. */
    size_t allowed = pool->state == POOL_UP && !pg_gate_has_surplus(&pool->gate) ? PG_POOL_DIALS_AT_ONCE : 1;
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

static void check_next(struct pg_pool *pool);

static void become_up(struct pg_pool *pool)
{
    pg_gate_succeed(&pool->gate);
    pool_move(pool, POOL_UP, NULL);
    dial_more(pool);
    pool->options.on_idle(pool->options.context);
}

/* It takes writes again, or not yet. */
static void on_probed(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    struct lane *lane = context;
    struct pg_pool *pool = lane->pool;
    if (statements_probe_passed(true, answer)) {
        become_up(pool);
    } else if (answer->status != PG_LOST) {
        lane->refused = true;
        pg_session_drop(session, answer->error.text);
    }
}

static void probe_writes(struct lane *lane)
{
    struct pg_statement statements[PG_STATEMENTS_MAX];
    int count = statements_build_probe(true, lane->pool->options.source, statements);
    pg_session_run(lane->session, statements, count, 0, on_probed, lane);
}

/* Connections that were busy when the server stopped taking writes are there still: one of them finds out. While all
 * are busy, or being checked, they are looked at again. */
static void probe_any(struct pg_pool *pool)
{
    for (size_t i = 0; i < pool->options.connections; i++) {
        if (!pool->lanes[i].is_checked || !pg_session_is_idle(pool->lanes[i].session))
            continue;
        probe_writes(&pool->lanes[i]);
        return;
    }
    pg_gate_look_again(&pool->gate);
}

static void on_gate_open(void *context)
{
    struct pg_pool *pool = context;
    if (pool->state == POOL_READ_ONLY && pg_pool_open_count(pool) > 0)
        probe_any(pool);
    else
        dial_more(pool);
}

static bool take_facts(struct lane *lane, const struct pg_answer *answer)
{
    struct schema_facts facts;
    if (!schema_check_read(answer, &facts))
        return false;
    lane->pool->has_evidence = facts.has_evidence;
    pg_session_set_backend_pid(lane->session, facts.backend_pid);
    schema_check_report(answer, &lane->pool->findings);
    return !facts.is_blocked;
}

static void on_checked(void *context, struct pg_session *session, const struct pg_answer *answer)
{
    struct lane *lane = context;
    struct pg_pool *pool = lane->pool;
    bool is_fit = true;
    pool->checking = NULL;
    check_next(pool);
    if (answer->status == PG_LOST)
        return; /* on_down follows */
    if (answer->status == PG_FAILED) {
        log_warning(LOG_FIELDS(log_text("sqlstate", answer->error.sqlstate), log_text("error", answer->error.text)),
                    "the database's set-up could not be checked");
        if (!answer->error.sqlstate[0]) {
            pg_session_drop(session, answer->error.text);
            return;
        }
    } else {
        is_fit = take_facts(lane, answer);
    }
    lane->is_checked = true;
    if (!is_fit) {
        pg_gate_succeed(&pool->gate);
        pool_move(pool, POOL_UNFIT, NULL);
    } else if (pool->state == POOL_READ_ONLY) {
        probe_writes(lane);
    } else {
        become_up(pool);
    }
}

static struct lane *next_to_check(struct pg_pool *pool)
{
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].awaits_check && pg_session_is_idle(pool->lanes[i].session))
            return &pool->lanes[i];
    return NULL;
}

/* One at a time: of two at once, the answer that comes last need not be the one that saw the schema last. */
static void check_next(struct pg_pool *pool)
{
    struct lane *lane = pool->checking || pool->state == POOL_CLOSING ? NULL : next_to_check(pool);
    if (!lane)
        return;
    struct pg_statement statements[2];
    schema_check_build(&pool->options.tuning.needs, statements);
    lane->awaits_check = false;
    pool->checking = lane;
    pg_session_run(lane->session, statements, 2, 0, on_checked, lane);
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
    struct pg_statement ping[PG_STATEMENTS_MAX];
    int count = statements_build_probe(false, NULL, ping);
    for (size_t i = 0; i < pool->options.connections; i++)
        if (pool->lanes[i].is_checked && pg_session_is_idle(pool->lanes[i].session))
            pg_session_run(pool->lanes[i].session, ping, count, 0, on_pong, pool);
}

/* What is set up wrong may have been put right, and promptd_unsettled may have come for those who do not need it:
 * instead of a ping, one session checks again. What is right is looked at again now and then: rows that a policy hides
 * from now on make no error. */
static void on_ping(uv_timer_t *timer)
{
    struct pg_pool *pool = timer->data;
    bool is_due = pool->state == POOL_UNFIT || pool->findings || !pool->has_evidence ||
                  ++pool->pings % POOL_PINGS_A_CHECK == 0;
    for (size_t i = 0; is_due && !pool->checking && i < pool->options.connections; i++)
        if (pool->lanes[i].is_checked && pg_session_is_idle(pool->lanes[i].session)) {
            pool->lanes[i].awaits_check = true;
            check_next(pool);
        }
    if (pool->options.tuning.ping_interval_ms > 0)
        ping_idle(pool);
}

static void start_ping(struct pg_pool *pool)
{
    uint64_t interval = (uint64_t)pool->options.tuning.ping_interval_ms;
    if (interval == 0)
        interval = POOL_RECHECK_MS;
    (void)uv_timer_start(pool->ping, on_ping, interval, interval);
}

/* --- sessions ------------------------------------------------------------------------------------------------- */

static void on_session_up(void *context)
{
    struct lane *lane = context;
    lane->awaits_check = true;
    lane->is_checked = false;
    lane->refused = false;
    if (pg_pool_open_count(lane->pool) == lane->pool->options.connections)
        pg_gate_end_surplus(&lane->pool->gate);
    check_next(lane->pool);
}

static void on_session_down(void *context, const char *reason)
{
    struct lane *lane = context;
    struct pg_pool *pool = lane->pool;
    struct pg_error why = {.sqlstate = ""};
    strncpy(why.text, reason, sizeof why.text - 1);
    bool fresh_loss = lane->is_checked && !lane->refused;
    bool is_surplus = !lane->is_checked && !lane->refused && pool->state == POOL_UP && pg_pool_open_count(pool) > 0;
    lane->awaits_check = false;
    lane->is_checked = false;
    lane->refused = false;
    log_debug(LOG_FIELDS(log_text("error", reason)), "connection %s", fresh_loss ? "lost" : "failed");
    if (pg_pool_open_count(pool) == 0 && pool->state != POOL_READ_ONLY)
        pool_move(pool, POOL_DOWN, &why);
    else if (fresh_loss)
        log_info(LOG_FIELDS(log_text("error", reason)), "one of the database connections was lost");
    if (fresh_loss)
        pg_gate_forget_surplus(&pool->gate);
    if (fresh_loss && pool->state != POOL_READ_ONLY) {
        ping_idle(pool);
    } else if (is_surplus) {
        pg_gate_add_surplus(&pool->gate, pg_pool_open_count(pool), pool->options.connections, reason);
    } else {
        pool->failures++;
        pg_gate_fail(&pool->gate);
    }
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

/* It was busy when the server was found to take no writes. A new session is asked whether it does again. */
static void retire_idle(struct pg_pool *pool)
{
    for (size_t i = 0; i < pool->options.connections; i++) {
        struct lane *lane = &pool->lanes[i];
        if (!lane->is_checked || !pg_session_is_idle(lane->session))
            continue;
        lane->refused = true;
        pg_session_drop(lane->session, "made before the server took no writes");
    }
}

struct pg_session *pg_pool_idle(struct pg_pool *pool)
{
    if (pool->state == POOL_READ_ONLY)
        retire_idle(pool);
    for (size_t i = 0; pool->state == POOL_UP && i < pool->options.connections; i++)
        if (pool->lanes[i].is_checked && pg_session_is_idle(pool->lanes[i].session))
            return pool->lanes[i].session;
    return NULL;
}

bool pg_pool_report_schema(struct pg_pool *pool, const struct pg_answer *answer)
{
    struct schema_facts facts;
    if (!schema_check_read(answer, &facts))
        return false;
    pool->has_evidence = facts.has_evidence;
    if (!facts.is_blocked)
        return false;
    schema_check_report(answer, &pool->findings);
    pool_move(pool, POOL_UNFIT, NULL);
    return true;
}

bool pg_pool_has_evidence(const struct pg_pool *pool)
{
    return pool->has_evidence;
}

/* Sessions that were made before may be on a server that has become a standby: they are all made anew. */
void pg_pool_report_outage(struct pg_pool *pool, struct pg_session *session, const struct pg_error *failure,
                           bool of_writes)
{
    if (of_writes)
        pool_move(pool, POOL_READ_ONLY, failure);
    for (size_t i = 0; i < pool->options.connections; i++) {
        struct lane *lane = &pool->lanes[i];
        if (lane->session != session && !(of_writes && lane->is_checked && pg_session_is_idle(lane->session)))
            continue;
        lane->refused = true;
        pg_session_drop(lane->session, failure->text);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------- */

void pg_pool_set_tuning(struct pg_pool *pool, const struct pg_pool_tuning *tuning)
{
    pool->options.tuning = *tuning;
    pg_gate_set_tuning(&pool->gate, tuning->backoff_max_ms, tuning->breaker_failures, tuning->breaker_reset_ms);
    start_ping(pool);
}

bool pg_pool_circuit_is_open(const struct pg_pool *pool)
{
    return pg_gate_circuit_is_open(&pool->gate);
}

bool pg_pool_close_circuit(struct pg_pool *pool)
{
    bool was_open = pg_gate_close_circuit(&pool->gate);
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
            .statement_timeout_ms = &pool->options.tuning.statement_timeout_ms,
            .cancels_left = &pool->cancels_left,
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
    pool->has_evidence = options->tuning.needs.evidence; /* should no check be answered */
    pool->cancels_left = PG_POOL_CANCELS_AT_ONCE;
    pool->lanes = calloc(options->connections, sizeof *pool->lanes);
    pool->ping = calloc(1, sizeof *pool->ping);
    bool has_gate = pg_gate_init(&pool->gate, options->loop, on_gate_open, pool);
    if (!pool->lanes || !pool->ping || !has_gate || !lanes_new(pool))
        return NULL; /* NOLINT(clang-analyzer-unix.Malloc): out of memory at start, the process ends */
    (void)uv_timer_init(options->loop, pool->ping);
    pool->ping->data = pool;
    pg_pool_set_tuning(pool, &options->tuning);
    dial_more(pool);
    return pool;
}

void pg_pool_close(struct pg_pool *pool)
{
    pool_move(pool, POOL_CLOSING, NULL);
    pg_gate_close(&pool->gate);
    uv_close((uv_handle_t *)pool->ping, on_timer_closed);
    for (size_t i = 0; i < pool->options.connections; i++)
        pg_session_close(pool->lanes[i].session);
}
