/* SPDX-License-Identifier: MIT */
/*
 * Taking over what can be read of a damaged database.
 *
 * The payloads are what counts: they are walked in order, and where a page cannot be read, the walk feels its way
 * beyond it and then asks for each sequence in the gap by itself. A payload is taken over when its sum is right; what
 * became of its message is asked from the other tables. Where they do not answer, it is taken over as waiting and not
 * attempted: then it is stored again and ends as a duplicate at worst, and no prompt of somebody else is deleted.
 */
#include <stdio.h>

#include "promptd/clock.h"
#include "spool_recover.h"

enum {
    SALVAGE_STATEMENT_LIMIT_US = 5000000, /* for one row: pages that refer to each other in circles end here */
    SALVAGE_PROGRESS_STEPS = 10000,
    SALVAGE_GAP_PROBES = 65536 /* sequences asked for one by one in one gap */
};

/* Questions in all that may stay without an answer. It bounds the time that a hopeless file can take. */
#define SALVAGE_BUDGET INT64_C(4000000)

enum { SCAN, SEEK, PROBE, STATE, EPITAPH, ADD_WAITING, ADD_LETTER, SALVAGE_STATEMENTS };

static const char *const salvage_sql[] = {
    [SCAN] = "select sequence, arrived_ms, sum, bytes from payload where sequence > ?1 order by sequence",
    [SEEK] = "select sequence from payload where sequence > ?1 order by sequence limit 1",
    [PROBE] = "select sequence, arrived_ms, sum, bytes from payload where sequence = ?1",
    [STATE] = "select attempted from message where sequence = ?1",
    [EPITAPH] = "select buried_ms, outcome, reason, sqlstate, error, interview_id, prompt_id from dead"
                " where sequence = ?1",
    [ADD_WAITING] = "insert into message(sequence, size, attempted) values(?1, ?2, ?3)",
    [ADD_LETTER] = "insert into dead(sequence, size, buried_ms, outcome, reason, sqlstate, error, interview_id,"
                   " prompt_id) values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
};

struct walk {
    struct spool_db from; /* its own statements stay unprepared: one bad table must not keep the others from us */
    struct spool_db *to;
    sqlite3_stmt *statements[SALVAGE_STATEMENTS];
    struct spool_salvage *salvage;
    int64_t deadline_us; /* of the statement that runs */
    int64_t budget;
    enum spool_db_result result; /* of writing; anything but OK ends it all */
};

static int past_deadline(void *context)
{
    const struct walk *walk = context;
    return clock_monotonic_us() > walk->deadline_us;
}

static int step(struct walk *walk, int which)
{
    if (!walk->statements[which])
        return SQLITE_CORRUPT;
    walk->deadline_us = clock_monotonic_us() + SALVAGE_STATEMENT_LIMIT_US;
    return sqlite3_step(walk->statements[which]);
}

static int start(struct walk *walk, int which, int64_t sequence)
{
    if (!walk->statements[which])
        return SQLITE_CORRUPT;
    (void)sqlite3_reset(walk->statements[which]);
    (void)sqlite3_bind_int64(walk->statements[which], 1, sequence);
    return step(walk, which);
}

static void end(struct walk *walk, int which)
{
    (void)sqlite3_reset(walk->statements[which]);
}

static void add(struct walk *walk, int which)
{
    (void)sqlite3_step(walk->statements[which]);
    walk->result = spool_db_judge(walk->to, sqlite3_reset(walk->statements[which]));
    (void)sqlite3_clear_bindings(walk->statements[which]);
}

/* A dead letter, when it can be read as one. */
static bool take_letter(struct walk *walk, int64_t sequence, int64_t size)
{
    sqlite3_stmt *letter = walk->statements[EPITAPH];
    sqlite3_stmt *insert = walk->statements[ADD_LETTER];
    bool dead = start(walk, EPITAPH, sequence) == SQLITE_ROW && sqlite3_column_type(letter, 0) == SQLITE_INTEGER &&
                sqlite3_column_type(letter, 1) == SQLITE_TEXT;
    if (dead) {
        (void)sqlite3_bind_int64(insert, 1, sequence);
        (void)sqlite3_bind_int64(insert, 2, size);
        for (int i = 0; i < 7; i++)
            (void)sqlite3_bind_value(insert, i + 3, sqlite3_column_value(letter, i));
        add(walk, ADD_LETTER);
        walk->salvage->dead++;
    }
    end(walk, EPITAPH);
    return dead;
}

static void take_message(struct walk *walk, int64_t sequence, int64_t size)
{
    sqlite3_stmt *insert = walk->statements[ADD_WAITING];
    sqlite3_stmt *state = walk->statements[STATE];
    bool known = start(walk, STATE, sequence) == SQLITE_ROW && sqlite3_column_type(state, 0) == SQLITE_INTEGER;
    int64_t attempted = known ? sqlite3_column_int64(state, 0) : 0;
    end(walk, STATE);
    (void)sqlite3_bind_int64(insert, 1, sequence);
    (void)sqlite3_bind_int64(insert, 2, size);
    (void)sqlite3_bind_int64(insert, 3, attempted);
    add(walk, ADD_WAITING);
    walk->salvage->waiting++;
}

/* Takes the row that a payload statement stands on, if it proves itself. */
static void take_row(struct walk *walk, int which)
{
    sqlite3_stmt *row = walk->statements[which];
    const char *bytes = sqlite3_column_blob(row, 3);
    size_t length = (size_t)sqlite3_column_bytes(row, 3);
    int64_t sequence = sqlite3_column_int64(row, 0);
    int64_t arrived_ms = sqlite3_column_int64(row, 1);
    if (sequence <= 0 || sequence > SPOOL_SEQUENCE_MAX ||
        sqlite3_column_int64(row, 2) != spool_payload_sum(sequence, arrived_ms, bytes ? bytes : "", length))
        return;
    if (sequence > walk->salvage->last_sequence)
        walk->salvage->last_sequence = sequence;
    if (!take_letter(walk, sequence, (int64_t)length))
        take_message(walk, sequence, (int64_t)length);
    if (walk->result == SPOOL_DB_OK)
        walk->result = spool_db_add_payload(walk->to, sequence, arrived_ms, bytes, length);
}

/* Walks on behind *after, up to the end (true) or to something that cannot be read. */
static bool walk_rows(struct walk *walk, int64_t *after)
{
    int code = start(walk, SCAN, *after);
    while (code == SQLITE_ROW && walk->result == SPOOL_DB_OK) {
        int64_t sequence = sqlite3_column_int64(walk->statements[SCAN], 0);
        if (sequence <= *after)
            code = SQLITE_CORRUPT;
        if (code != SQLITE_ROW)
            break;
        take_row(walk, SCAN);
        *after = sequence;
        code = step(walk, SCAN);
    }
    end(walk, SCAN);
    return code == SQLITE_DONE || walk->result != SPOOL_DB_OK;
}

/* Finds the first row that can be stood on, in growing leaps behind `after`. false: there is none. */
static bool leap(struct walk *walk, int64_t after, int64_t *found)
{
    for (int64_t distance = 1; after + distance < SPOOL_SEQUENCE_MAX && walk->budget-- > 0; distance *= 2) {
        int code = start(walk, SEEK, after + distance);
        *found = code == SQLITE_ROW ? sqlite3_column_int64(walk->statements[SEEK], 0) : SPOOL_SEQUENCE_MAX;
        end(walk, SEEK);
        if (code == SQLITE_DONE || (code == SQLITE_ROW && *found > after + distance))
            return true;
    }
    return false;
}

/* Asks for each sequence between the two. */
static void probe_gap(struct walk *walk, int64_t after, int64_t before)
{
    if (before - after > SALVAGE_GAP_PROBES)
        before = after + SALVAGE_GAP_PROBES;
    while (++after < before && walk->budget-- > 0 && walk->result == SPOOL_DB_OK) {
        if (start(walk, PROBE, after) == SQLITE_ROW && sqlite3_column_int64(walk->statements[PROBE], 0) == after)
            take_row(walk, PROBE);
        end(walk, PROBE);
    }
}

static void walk_payloads(struct walk *walk)
{
    int64_t after = 0;
    while (!walk_rows(walk, &after) && walk->budget > 0) {
        int64_t found;
        if (!leap(walk, after, &found)) {
            probe_gap(walk, after, SPOOL_SEQUENCE_MAX);
            return;
        }
        probe_gap(walk, after, found);
        if (found >= SPOOL_SEQUENCE_MAX)
            return;
        after = found - 1;
    }
}

static int64_t ask_number(struct walk *walk, const char *sql, int64_t otherwise)
{
    sqlite3_stmt *statement = NULL;
    int64_t number = otherwise;
    walk->deadline_us = clock_monotonic_us() + SALVAGE_STATEMENT_LIMIT_US;
    if (sqlite3_prepare_v2(walk->from.sqlite, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return number;
}

/* writable_schema lets SQLite read a file that is shorter than its header says. Nothing is written: the file and its
 * log stay as they were found, for people. */
static bool open_source(struct walk *walk, const char *path)
{
    sqlite3 *from = NULL;
    if (sqlite3_open_v2(path, &from, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        (void)sqlite3_close(from);
        return false;
    }
    walk->from.sqlite = from;
    (void)sqlite3_db_config(from, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    (void)sqlite3_busy_timeout(from, SPOOL_BUSY_TIMEOUT_MS);
    (void)sqlite3_limit(from, SQLITE_LIMIT_LENGTH, SPOOL_PAYLOAD_MAX + 4096);
    sqlite3_progress_handler(from, SALVAGE_PROGRESS_STEPS, past_deadline, walk);
    walk->deadline_us = clock_monotonic_us() + SALVAGE_STATEMENT_LIMIT_US;
    (void)sqlite3_exec(from, "pragma trusted_schema = off; pragma writable_schema = on; pragma query_only = on", NULL,
                       NULL, NULL);
    for (int i = SCAN; i <= EPITAPH; i++)
        (void)sqlite3_prepare_v2(from, salvage_sql[i], -1, &walk->statements[i], NULL); /* NULL where it fails */
    return true;
}

static enum spool_db_result open_target(struct walk *walk)
{
    enum spool_db_result result = spool_db_execute(walk->to, "begin");
    for (int i = ADD_WAITING; i <= ADD_LETTER && result == SPOOL_DB_OK; i++)
        result = spool_db_judge(walk->to,
                                sqlite3_prepare_v2(walk->to->sqlite, salvage_sql[i], -1, &walk->statements[i], NULL));
    return result;
}

enum spool_db_result spool_salvage(const char *path, struct spool_db *to, struct spool_salvage *salvage)
{
    struct walk walk = {.to = to, .salvage = salvage, .budget = SALVAGE_BUDGET};
    walk.result = open_target(&walk);
    if (walk.result == SPOOL_DB_OK && open_source(&walk, path)) {
        int64_t last = ask_number(&walk, "select seq from sqlite_sequence where name = 'message'", 0);
        if (last > salvage->last_sequence && last < SPOOL_SEQUENCE_MAX)
            salvage->last_sequence = last;
        int64_t known = ask_number(&walk, "select (select count(*) from message) + (select count(*) from dead)", -1);
        walk_payloads(&walk);
        int64_t taken = (int64_t)(salvage->waiting + salvage->dead);
        salvage->lost = known < 0 ? -1 : known > taken ? known - taken : 0;
    }
    for (int i = 0; i < SALVAGE_STATEMENTS; i++)
        sqlite3_finalize(walk.statements[i]);
    (void)sqlite3_close(walk.from.sqlite);
    return walk.result == SPOOL_DB_OK ? spool_db_execute(to, "commit") : walk.result;
}
