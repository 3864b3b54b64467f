/* SPDX-License-Identifier: MIT */
/*
 * The way of a message over the disk.
 *
 *     received ─put─▶ on disk ─┬─ there is room, nothing older waits: delivered, at once
 *                              └─ else it stays on disk only, and is fetched in its turn
 *
 * Rows are numbered in order of arrival, and fetched in that order: the order per interview is kept. `loaded` is the
 * mark: what is above it is on disk only. A put that went on at once moves it, for nothing else was on disk only then;
 * should promptctl have put something back meanwhile, which then has a lower number, the message waits on disk instead.
 *
 * While nothing is demanded memory stays empty. When the disk refuses, messages go on in memory, each behind what was
 * on disk before it, and before what gets there after it.
 */
#include "promptd/source_open.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "spool"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/spool.h"
#include "spooled_memory.h"

enum { FETCH_MESSAGES = 1024, FETCH_BYTES = 4 * 1024 * 1024 };

#define YEAR_MS (INT64_C(366) * 24 * 60 * 60 * 1000)

/* Of a message that was delivered. */
struct spooled_receipt {
    struct receipt receipt; /* the spool's sequence; 0: it is in memory only */
    size_t bytes;           /* counted against the bounds */
    bool unread;            /* too large: nothing of it is anywhere, and nothing is counted */
};

struct source_spooled {
    struct source source; /* first: the source is this */
    struct source *inner; /* NULL: closed, like the spool */
    struct spool *spool;
    struct source_sink sink;
    struct source_tuning tuning;
    const char *directory;
    void (*on_closed)(void *context); /* not NULL: nothing is delivered any more */
    void *closed_context;
    int64_t began_ms; /* monotonic */

    struct spooled_memory memory;
    size_t waiting;   /* messages that stand on disk only */
    size_t late_puts; /* those that will, and are on their way there */
    int64_t loaded;   /* no row up to this one is on disk only: it was delivered */
    int64_t last_put; /* the last row that is known to be on disk, but for those put back from outside */
    bool fetching;
    bool delivering; /* a demand that is made meanwhile is only noted */
    bool stopped;    /* nothing is fetched any more */
};

static struct source_spooled *spooled_of(struct source *source)
{
    return (struct source_spooled *)source;
}

/* --- to the sink ------------------------------------------------------------------------------------------------ */

static void deliver(struct source_spooled *spooled, const struct delivery *delivery)
{
    spooled_memory_take_out(&spooled->memory, spooled_memory_cost(delivery->length));
    spooled->sink.on_delivery(spooled->sink.context, delivery);
}

static void refuse(const struct source_spooled *spooled, const struct spooled_put *put, const char *refusal)
{
    const struct delivery delivery = {.bytes = put->payload,
                                      .length = put->length,
                                      .arrived_us = put->arrived_us,
                                      .is_counted = true,
                                      .refusal = refusal};
    spooled->sink.on_delivery(spooled->sink.context, &delivery);
}

static struct spooled_receipt *new_receipt(int64_t sequence, size_t bytes)
{
    struct spooled_receipt *receipt = malloc(sizeof *receipt);
    if (receipt)
        *receipt = (struct spooled_receipt){.receipt.number = sequence, .bytes = bytes};
    return receipt;
}

/* A message that is in memory and goes on; with a sequence it is on disk, too. */
static void deliver_put(struct source_spooled *spooled, const struct spooled_put *put, int64_t sequence)
{
    struct spooled_receipt *receipt = new_receipt(sequence, spooled_memory_cost(put->length));
    if (!receipt) {
        refuse(spooled, put, "out of memory"); /* a row on disk is there at the next start */
        return;
    }
    const struct delivery delivery = {.bytes = put->payload,
                                      .length = put->length,
                                      .arrived_us = put->arrived_us,
                                      .is_counted = true,
                                      .receipt = &receipt->receipt};
    deliver(spooled, &delivery);
}

/* Those in memory that the disk refused, and that are older than the row `sequence`, as far as there is room; when
 * promptd stops, all of them. */
static void deliver_refused(struct source_spooled *spooled, int64_t sequence)
{
    const struct spooled_put *oldest;
    bool was_delivering = spooled->delivering;
    spooled->delivering = true;
    while ((oldest = spooled_memory_oldest(&spooled->memory)) && oldest->behind_sequence < sequence &&
           (spooled->stopped || spooled_memory_has_room(&spooled->memory, oldest->length))) {
        struct spooled_put *put = spooled_memory_remove_oldest(&spooled->memory);
        deliver_put(spooled, put, 0);
        free(put);
    }
    spooled->delivering = was_delivering;
}

/* --- from disk -------------------------------------------------------------------------------------------------- */

static void fetch(struct source_spooled *spooled)
{
    size_t messages = spooled->stopped ? 0 : spooled_memory_deliverable(&spooled->memory);
    size_t quarter = spooled->tuning.memory_max_bytes / 4;
    size_t bytes = spooled->memory.room_bytes < quarter ? spooled->memory.room_bytes : quarter;
    if (spooled->fetching || messages == 0 || spooled->waiting == 0)
        return;
    spooled->fetching = true;
    spool_fetch(spooled->spool, spooled->loaded, messages < FETCH_MESSAGES ? messages : FETCH_MESSAGES,
                bytes < FETCH_BYTES ? bytes : FETCH_BYTES);
}

/* On disk, also before a restart. Only the wall clock tells it, and that may have been set: what this process has put
 * is no older than it, and nothing is kept for a year. */
static int64_t waited_ms(const struct source_spooled *spooled, const struct spool_entry *entry)
{
    int64_t own_ms = clock_monotonic_ms() - spooled->began_ms;
    return clock_wall_span_ms(entry->arrived_ms, clock_wall_ms(), entry->redelivered ? YEAR_MS : own_ms);
}

/* false: no room, or out of memory; it is read again later. */
static bool deliver_entry(struct source_spooled *spooled, const struct spool_entry *entry)
{
    assert(entry->sequence > spooled->loaded && spooled->waiting > 0);
    deliver_refused(spooled, entry->sequence);
    const struct spooled_put *older = spooled_memory_oldest(&spooled->memory);
    if ((older && older->behind_sequence < entry->sequence) ||
        !spooled_memory_has_room(&spooled->memory, entry->length))
        return false;
    struct spooled_receipt *receipt = new_receipt(entry->sequence, spooled_memory_cost(entry->length));
    if (!receipt)
        return false;
    spooled->loaded = entry->sequence;
    spooled->waiting--;
    const struct delivery delivery = {
        .bytes = entry->payload,
        .length = entry->length,
        .arrived_us = clock_monotonic_us() - waited_ms(spooled, entry) * 1000,
        .redelivered = entry->redelivered,
        .is_counted = true,
        .receipt = &receipt->receipt,
    };
    deliver(spooled, &delivery);
    return true;
}

/* Everything was read, and less was there than was put: a damaged file was replaced meanwhile. */
static void give_up_missing(struct source_spooled *spooled)
{
    size_t missing = spooled->waiting;
    log_critical(LOG_FIELDS(log_number("messages", missing)), "messages are missing from the spool; they are dropped");
    spooled->waiting = 0;
    spooled->sink.on_lost(spooled->sink.context, missing);
}

static void on_fetched(void *context, const struct spool_entry *entries, size_t count, bool end)
{
    struct source_spooled *spooled = context;
    size_t delivered = 0;
    spooled->delivering = true;
    while (!spooled->stopped && delivered < count && deliver_entry(spooled, &entries[delivered]))
        delivered++;
    spooled->delivering = false;
    spooled->fetching = false; /* not before: each delivery brings a new demand */
    if (spooled->stopped)
        return; /* they stay where they are, for the next start */
    if (end && delivered == count && spooled->waiting > 0)
        give_up_missing(spooled);
    if (spooled->waiting == 0)
        deliver_refused(spooled, INT64_MAX); /* what is on its way to disk came later */
    if (delivered == count)
        fetch(spooled);
}

static void on_grown(void *context, uint64_t added)
{
    struct source_spooled *spooled = context;
    log_info(LOG_FIELDS(log_number("messages", added)), "messages were put back into the spool");
    spooled->waiting += (size_t)added;
    spooled->sink.on_found(spooled->sink.context, added);
    fetch(spooled);
}

/* --- to disk ---------------------------------------------------------------------------------------------------- */

/* Nothing of it is there to be kept but its end. */
static void deliver_unread(struct source_spooled *spooled, const struct delivery *delivery)
{
    struct spooled_receipt *receipt = new_receipt(0, 0); /* without memory for it there is no dead letter */
    struct delivery unread = *delivery;
    if (receipt) {
        receipt->unread = true;
        unread.receipt = &receipt->receipt;
    }
    spooled->sink.on_delivery(spooled->sink.context, &unread);
}

/* From the source inside. */
static void on_delivery(void *context, const struct delivery *delivery)
{
    struct source_spooled *spooled = context;
    const struct source_sink *sink = &spooled->sink;
    if (!delivery->bytes) {
        deliver_unread(spooled, delivery);
        return;
    }
    sink->on_received(sink->context, delivery->bytes, delivery->length);
    bool may_go_on = !spooled->stopped && spooled->waiting + spooled->late_puts == 0;
    struct spooled_put *put = spooled_memory_begin_put(&spooled->memory, delivery, may_go_on);
    bool sent = put && spool_put(spooled->spool, put->payload, put->length, put);
    if (!sent) {
        struct delivery refused = *delivery;
        refused.is_counted = true;
        refused.refusal = put ? "out of memory"
                              : "the queue is full: the spool's disk does not keep up (queue_max_bytes)";
        if (put)
            spooled_memory_end_put(&spooled->memory, put);
        free(put);
        sink->on_delivery(sink->context, &refused);
        return;
    }
    spooled->late_puts += !put->at_once;
}

/* To the sink, unless something older is on disk only, its room was taken, or promptd stops: then it is fetched in its
 * turn. */
static void put_done(struct source_spooled *spooled, struct spooled_put *put, int64_t sequence)
{
    spooled->last_put = sequence;
    bool has_room = spooled_memory_has_room(&spooled->memory, put->length);
    if (!put->at_once || spooled->stopped || spooled->waiting > 0 || !has_room) {
        spooled->waiting++;
    } else {
        spooled->loaded = sequence;
        deliver_put(spooled, put, sequence);
    }
    free(put);
}

static void put_refused(struct source_spooled *spooled, struct spooled_put *put, enum spool_put_result result)
{
    const char *refusal = NULL;
    if (result == SPOOL_PUT_FULL)
        refusal = "the spool is full (spool_max_bytes)";
    else if (spooled->on_closed)
        refusal = "promptd had to stop before the message was stored";
    else if (!spooled_memory_keep(&spooled->memory, put, spooled->last_put))
        refusal = "the disk refuses, and the queue is full (queue_max_messages, queue_max_bytes)";
    if (!refusal)
        return;
    refuse(spooled, put, refusal);
    free(put);
}

static void on_put(void *context, void *token, enum spool_put_result result, int64_t sequence)
{
    struct source_spooled *spooled = context;
    struct spooled_put *put = token;
    spooled_memory_end_put(&spooled->memory, put);
    spooled->late_puts -= !put->at_once;
    log_debug(LOG_FIELDS(log_number("sequence", sequence)), "message is %s disk",
              result == SPOOL_PUT_OK ? "on" : "not on");
    if (result == SPOOL_PUT_OK)
        put_done(spooled, put, sequence);
    else
        put_refused(spooled, put, result);
    if (spooled->stopped || spooled->waiting == 0)
        deliver_refused(spooled, INT64_MAX); /* before older ones that stay on disk, when promptd stops */
    fetch(spooled);
}

/* --- as a source ------------------------------------------------------------------------------------------------ */

static void demand(struct source *source, size_t messages, size_t bytes)
{
    struct source_spooled *spooled = spooled_of(source);
    spooled->memory.room = messages;
    spooled->memory.room_bytes = bytes;
    if (spooled->delivering)
        return;
    if (spooled->waiting == 0)
        deliver_refused(spooled, INT64_MAX);
    fetch(spooled);
}

static struct spooled_receipt take_back(struct source_spooled *spooled, struct receipt *receipt)
{
    struct spooled_receipt mine = *(struct spooled_receipt *)receipt;
    if (!mine.unread)
        spooled_memory_take_back(&spooled->memory, mine.bytes);
    free(receipt);
    return mine;
}

static void acknowledge(struct source *source, struct receipt *receipt, const struct disposition *disposition)
{
    struct source_spooled *spooled = spooled_of(source);
    const struct spooled_receipt mine = take_back(spooled, receipt);
    if (mine.receipt.number == 0 && !mine.unread)
        return;
    log_flush(); /* its line comes first: what is gone from the disk has one, should the process be killed now */
    if (disposition && mine.unread)
        spool_add_dead(spooled->spool, disposition);
    else if (disposition)
        spool_set_dead(spooled->spool, mine.receipt.number, disposition);
    else if (!mine.unread)
        spool_finish(spooled->spool, mine.receipt.number);
}

/* It stands on disk for the next start. */
static void release(struct source *source, struct receipt *receipt)
{
    (void)take_back(spooled_of(source), receipt);
}

static struct spool_limits spool_limits(const struct source_tuning *tuning)
{
    return (struct spool_limits){.waiting_bytes = tuning->spool_max_bytes, .dead_bytes = tuning->spool_dead_max_bytes};
}

static void set_tuning(struct source *source, const struct source_tuning *tuning)
{
    struct source_spooled *spooled = spooled_of(source);
    const struct spool_limits limits = spool_limits(tuning);
    spooled->tuning = *tuning;
    spool_set_limits(spooled->spool, &limits);
    source_set_tuning(spooled->inner, tuning);
}

static void get_status(const struct source *source, struct source_status *status)
{
    const struct source_spooled *spooled = (const struct source_spooled *)source;
    const struct spooled_memory *memory = &spooled->memory;
    if (spooled->inner)
        source_get_status(spooled->inner, status);
    const struct spool_counts counts = spooled->spool ? spool_counts(spooled->spool) : (struct spool_counts){0};
    status->kept_in_memory = memory->puts + memory->refused_count;
    status->kept = status->kept_in_memory + spooled->waiting + spooled->late_puts;
    status->memory_bytes = memory->put_bytes + memory->refused_bytes;
    status->spool_directory = spooled->directory;
    status->spool_is_writable = counts.writable;
    status->spool_is_gone = !counts.in_place;
    status->spool_messages = counts.waiting;
    status->spool_bytes = counts.waiting_bytes;
    status->dead_letters = counts.dead;
    status->dead_letter_bytes = counts.dead_bytes + counts.dead * SPOOL_LETTER_BYTES;
    status->dead_letters_dropped = counts.rejected_dropped;
    status->dead_letters_not_kept = counts.not_kept;
}

static bool reset_circuit(struct source *source)
{
    return source_reset_circuit(spooled_of(source)->inner);
}

static void stop(struct source *source)
{
    struct source_spooled *spooled = spooled_of(source);
    spooled->stopped = true;
    source_stop(spooled->inner);
    deliver_refused(spooled, INT64_MAX);
}

/* The two end side by side: what the disk has to take still does not wait for a look-up that hangs. */
static void finish_close(struct source_spooled *spooled)
{
    if (spooled->spool || spooled->inner)
        return;
    spooled->on_closed(spooled->closed_context);
    free(spooled);
}

static void on_spool_closed(void *context)
{
    struct source_spooled *spooled = context;
    spooled->spool = NULL;
    finish_close(spooled);
}

static void on_inner_closed(void *context)
{
    struct source_spooled *spooled = context;
    spooled->inner = NULL;
    finish_close(spooled);
}

static void close_source(struct source *source, void (*on_closed)(void *context), void *context)
{
    struct source_spooled *spooled = spooled_of(source);
    spooled->on_closed = on_closed;
    spooled->closed_context = context;
    while (spooled_memory_oldest(&spooled->memory)) {
        struct spooled_put *put = spooled_memory_remove_oldest(&spooled->memory);
        refuse(spooled, put, "promptd had to stop before the message was stored");
        free(put);
    }
    spool_close(spooled->spool, on_spool_closed, spooled);
    source_close(spooled->inner, on_inner_closed, spooled);
}

static const struct source_ops ops = {
    .demand = demand,
    .acknowledge = acknowledge,
    .release = release,
    .set_tuning = set_tuning,
    .get_status = get_status,
    .reset_circuit = reset_circuit,
    .stop = stop,
    .close = close_source,
};

static struct spool *open_spool(struct source_spooled *spooled, uv_loop_t *loop, struct error *error)
{
    return spool_open(
        &(struct spool_options){
            .loop = loop,
            .directory = spooled->directory,
            .limits = spool_limits(&spooled->tuning),
            .on_put = on_put,
            .on_fetched = on_fetched,
            .on_grown = on_grown,
            .context = spooled,
        },
        error);
}

/* What waits from before is taken up. */
static void adopt(struct source_spooled *spooled)
{
    const struct spool_counts counts = spool_counts(spooled->spool);
    spooled->waiting = (size_t)counts.waiting;
    spooled->last_put = counts.last_sequence;
    if (counts.waiting == 0)
        return;
    log_info(LOG_FIELDS(log_number("messages", counts.waiting), log_number("bytes", counts.waiting_bytes)),
             "messages from before are taken up again");
    spooled->sink.on_found(spooled->sink.context, counts.waiting);
}

struct source *source_spooled_new(const struct source_options *options,
                                  struct source *(*inner_new)(const struct source_options *options),
                                  struct error *error)
{
    struct source_spooled *spooled = calloc(1, sizeof *spooled);
    if (!spooled) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    *spooled = (struct source_spooled){.source.ops = &ops,
                                       .sink = options->sink,
                                       .tuning = options->tuning,
                                       .directory = options->directory,
                                       .began_ms = clock_monotonic_ms()};
    spooled_memory_init(&spooled->memory, &spooled->tuning);
    spooled->spool = open_spool(spooled, options->loop, error);
    if (!spooled->spool) {
        free(spooled);
        return NULL;
    }
    struct source_options inside = *options;
    inside.sink = (struct source_sink){.on_delivery = on_delivery, .context = spooled};
    spooled->inner = inner_new(&inside);
    if (!spooled->inner) { /* the process ends, and its spool with it */
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    adopt(spooled);
    return &spooled->source;
}
