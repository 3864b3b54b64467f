/* SPDX-License-Identifier: MIT */
/*
 * What the spool's halves share: spool.c runs on the loop, spool_writer.c and spool_commit.c on a thread of their own.
 *
 *     loop ──queue──▶ writer (the only one that touches the database) ──done──▶ loop
 *
 * Work is handed over under `mutex`; whoever holds an item owns it. Everything in struct spool_writer belongs to the
 * thread once that runs.
 */
#ifndef PROMPTD_SPOOL_PRIVATE_H
#define PROMPTD_SPOOL_PRIVATE_H

#include <sys/queue.h>

#include "promptd/log_rate.h"
#include "promptd/spool.h"
#include "spool_db.h"
#include "spool_folder.h"

enum spool_work_kind {
    SPOOL_WORK_PUT,
    SPOOL_WORK_FINISH,
    SPOOL_WORK_DEAD,
    SPOOL_WORK_FETCH,
    SPOOL_WORK_GROWN /* the writer's own: only ever in the list of what is done */
};

/* The head of each item; the kind says which of the structs below it stands in. A finish is the most frequent one that
 * may have to be kept for long, so it has nothing that it does not need. */
struct spool_work {
    STAILQ_ENTRY(spool_work) link;
    int64_t sequence; /* put: the one given; fetch: the one to begin behind */
    enum spool_work_kind kind;
};

STAILQ_HEAD(spool_work_list, spool_work);

struct spool_put_work {
    struct spool_work work;
    enum spool_put_result result; /* FULL from the beginning: only passed through, for the order of the callbacks */
    const char *payload;          /* borrowed */
    size_t length;
    int64_t arrived_ms;
    void *token;
};

struct spool_dead_work {
    struct spool_work work;
    bool kept;                      /* there was room for it */
    struct disposition disposition; /* its texts stand in `texts` */
    char texts[];
};

struct spool_grown_work {
    struct spool_work work;
    uint64_t added;
};

struct spool_fetch_work {
    struct spool_work work;
    size_t max_messages;
    size_t max_bytes;
    struct spool_batch batch;
};

/* Whether the disk takes what is written. */
enum spool_disk {
    SPOOL_DISK_GOOD,    /* nothing else is known */
    SPOOL_DISK_REFUSES, /* the last write failed: tried again once a second */
    SPOOL_DISK_PROVING  /* it took the last write; logged once it has kept that up for a while */
};

/* Rows that this process has not put, from the first to the last sequence. */
struct spool_range {
    int64_t first;
    int64_t last;
};

#define SPOOL_WARN_US INT64_C(3600000000)

enum {
    SPOOL_RANGES = 64,
    SPOOL_BATCH_ITEMS = 4096, /* in one transaction */
    SPOOL_ADDING_MAX = 65536  /* letters without a message under way, some 200 bytes each: the disk may refuse */
};

struct spool_writer {
    struct spool_db db;             /* closed while a damaged file could not be replaced */
    struct spool_work_list pending; /* in the order of the calls */
    enum spool_disk disk;           /* moved by set_disk only */
    int64_t refused_us;             /* when the disk refused first */
    int64_t disk_due_us;            /* REFUSES: when the next attempt is due; PROVING: when it counts as good again */
    int64_t replace_us;             /* when a damaged file may be replaced again */
    int64_t look_us;                /* when to look for changes from outside */
    int64_t data_version;           /* at the last look */
    int64_t last_sequence;          /* the highest that this process knows of */
    struct spool_range foreign[SPOOL_RANGES]; /* in their order; the first is what was there at the start */
    size_t foreign_count;
    uint64_t dead_max_bytes;
    uint64_t warned_dropped;     /* rejected dead letters that had to make room, as the log has them */
    int64_t warned_us;           /* when the log said so last; 0: never */
    struct log_rate not_kept;    /* lines about new ones without room */
    struct spool_counts counts;  /* as committed */
    uint64_t added;              /* letters without a message that have ended, not yet handed to the loop */
    struct spool_work_list done; /* not yet handed to the loop */
};

struct spool {
    struct spool_options options;
    void (*on_closed)(void *context);
    void *closed_context;
    struct spool_folder folder;
    struct spool_writer writer;
    uv_thread_t thread;
    uv_async_t async;
    uv_mutex_t mutex;
    uv_cond_t wake;
    struct spool_fetch_work *fetch; /* the one there is; made at the start, so that a fetch needs no memory */
    bool fetching;                  /* the loop's own */
    bool calling_back;              /* what callbacks ask for is handed over at once, and goes in one commit */

    /* under the mutex, and so are options.limits */
    struct spool_work_list queue;
    struct spool_work_list done;
    struct spool_counts counts; /* as committed, as the writer last said */
    uint64_t putting;           /* puts under way, and their bytes: room that is promised */
    uint64_t putting_bytes;
    uint64_t adding;    /* letters without a message under way */
    uint64_t not_added; /* those beyond SPOOL_ADDING_MAX, since the start */
    int64_t warned_us;  /* the loop's own: when the log said so last; 0: never */
    bool closing;
    bool stopped; /* the thread's last word */
};

/* The thread. */
void spool_writer_run(void *argument); /* the struct spool */

/* Before it: counts and marks of an open database. false: the file is not usable after all. */
bool spool_writer_prepare(struct spool_writer *writer, struct error *error);

/* Carries out the batch, or nothing of it. A fetch stands alone in its batch, and writes nothing. DAMAGED also while
 * the database is closed. */
enum spool_db_result spool_commit(struct spool_writer *writer, struct spool_work_list *batch, bool *wrote);

/* Counts anew: a file that was opened just now, or changes from outside. */
enum spool_db_result spool_recount(struct spool_writer *writer);

/* Rows that this process did not put are reported before anything that comes behind them. */
enum spool_db_result spool_note_growth(struct spool_writer *writer);

#endif
