/* SPDX-License-Identifier: MIT */
/*
 * What a list and a stream have in common: queue.c holds what was taken until its outcome is acknowledged; the kind
 * (source_list.c, source_stream.c) knows the commands.
 *
 *     Redis ──read──▶ held ──acknowledge──▶ done ──MULTI … EXEC──▶ acking ──answered──▶ forgotten
 *                      ▲                     └──── the connection is lost: asked, and sent again if it is still there
 *                      └ verify: what Redis holds for us and we do not know, after a reconnection
 *
 * Two connections: one reads, and may block for it; the other does all the rest. Nothing is read before the other has
 * been set up and has verified.
 */
#ifndef PROMPTD_QUEUE_H
#define PROMPTD_QUEUE_H

#include <sys/queue.h>

#include "promptd/buffer.h"
#include "promptd/redis_link.h"
#include "promptd/source_open.h"

enum {
    QUEUE_TAKEOVER_MS = 45000, /* what a consumer has left alone for so long is another's */
    QUEUE_KEEP_ALIVE_MS = 10000,
    QUEUE_LOOK_MS = 5000,     /* between looks for the dead, and at the figures */
    QUEUE_BLOCK_MS = 5000,    /* longest wait for a message */
    QUEUE_READ_MAX = 256,     /* messages in one read */
    QUEUE_BATCH_MAX = 256,    /* acknowledgements in one transaction */
    QUEUE_HELD_MAX = 4096,    /* the rest is for other promptd */
    QUEUE_DELIVERIES_MAX = 5, /* without an outcome: it kills whoever takes it */
    QUEUE_PAGE = 64,          /* messages looked at in one reply, besides reading */
    QUEUE_CALLS = 5,          /* the engine's own */
    QUEUE_CALLS_MAX = 24,
    QUEUE_ID_SIZE = 48,
    QUEUE_NAME_SIZE = 96,
    QUEUE_KEYS_MAX = 6,
    QUEUE_KEY_SIZE = 768,
    QUEUE_NUMBERS_MAX = 8,
    QUEUE_ARGUMENTS_MAX = QUEUE_BATCH_MAX + 24
};

/* Of the keys, for both kinds. */
enum { QUEUE_KEY_MAIN, QUEUE_KEY_DEAD, QUEUE_KEY_FIRST };

struct queue;

/* One message that was taken and is not forgotten yet. */
struct queue_entry {
    struct receipt receipt; /* first: the receipt is this */
    TAILQ_ENTRY(queue_entry) link;
    bool is_seen;    /* at the last verification Redis had it for us */
    bool is_foreign; /* it had not: another has taken it over */
    bool is_skipped; /* too large: `length` bytes were not read */
    bool is_dead;    /* it becomes a dead letter, with the words below */
    char *words;     /* outcome, reason, sqlstate, error, interview_id, prompt_id, at: each with its NUL, "" for none */
    char id[QUEUE_ID_SIZE]; /* a stream's */
    size_t length;
    char payload[]; /* not NUL-terminated */
};

TAILQ_HEAD(queue_entries, queue_entry);

enum queue_word { WORD_OUTCOME, WORD_REASON, WORD_SQLSTATE, WORD_ERROR, WORD_INTERVIEW, WORD_PROMPT, WORD_AT, WORDS };

/* A message as a kind has found it. */
struct queue_item {
    const char *id;    /* "": the kind has none */
    const char *bytes; /* NULL: it was skipped */
    size_t length;
};

/* A command under construction; what it points to must live until it is sent. */
struct queue_command {
    int argc;
    const char *argv[QUEUE_ARGUMENTS_MAX];
    size_t lengths[QUEUE_ARGUMENTS_MAX];
    char numbers[QUEUE_NUMBERS_MAX][24];
    int number_count;
};

struct queue_kind {
    const char *mode;
    bool knows_no_deliveries;          /* a message that was delivered before looks like a new one */
    bool (*init)(struct queue *queue); /* names the keys; false: out of memory */
    /* What Redis must have; ends with queue_is_set_up. */
    void (*set_up)(struct queue *queue);
    /* Asks what Redis holds for us: queue_verify_one or _id for each, then queue_verified. */
    void (*verify)(struct queue *queue);
    /* Takes up to `count` messages, on the reader: queue_take for each, then queue_read_done. */
    void (*read)(struct queue *queue, size_t count);
    /* Sends what makes Redis forget the entries of `acking`, and the dead letters; with on_reply the last answer goes
     * there. */
    void (*forget)(struct queue *queue, int call, void (*on_reply)(void *context, const redisReply *reply));
    void (*keep_alive)(struct queue *queue);
    /* What the dead have left, and the figures in queue->status. */
    void (*look)(struct queue *queue);
    /* The last command: what is held may be taken at once; ends with queue_given_back. */
    void (*give_back)(struct queue *queue);
};

struct queue {
    struct source source; /* first: the source is this */
    struct source_options options;
    const struct queue_kind *kind;
    struct redis_link *reader;
    struct redis_link *worker;
    char consumer[QUEUE_NAME_SIZE]; /* unique to this process */
    char *keys[QUEUE_KEYS_MAX];     /* of the kind; owned */

    struct queue_entries held;   /* delivered, without an outcome */
    struct queue_entries done;   /* with one, to be acknowledged */
    struct queue_entries acking; /* sent, not answered */
    size_t entry_count; /* of all three */
    size_t held_bytes;  /* of all three */
    int64_t last_number;

    size_t room;
    size_t room_bytes;
    bool is_ready;       /* set up and verified: reading may go on */
    size_t reading;      /* asked for, not answered; 0: no read is under way */
    uint64_t read_bytes; /* that the reader had received then, or at the last tick */
    uint64_t read_ms;    /* when it was sent, on the loop's clock */
    bool read_rests;     /* the server does not block: not before the next tick */
    char verify_from[QUEUE_ID_SIZE];
    uint64_t alive_ms;       /* when we last said that we live */
    uint64_t look_ms;        /* when the next look is due */
    uint64_t ping_ms;        /* when the worker was asked whether it lives; 0: it has answered */
    uint64_t pinged_ms;      /* when it was asked last */
    uint64_t complained_ms;  /* when a refusal last got a line */
    uint64_t plain_until_ms; /* no transaction before, but for dead letters */
    uint64_t retry_ms;       /* no acknowledgement before, for the last one was refused */
    bool ack_refused;        /* and that stands in the log */
    bool was_ready;
    bool is_set_up;
    bool is_verified; /* since the worker logged in: what is done may be acknowledged */
    bool is_verifying;
    bool must_verify; /* as soon as the read that is under way has ended */
    bool is_stopped;
    bool has_released; /* something that Redis holds for us is not known here */
    bool is_giving_back;
    bool warned_policy;
    bool only_group; /* stream: nobody else reads it */
    char reader_id[24];
    struct source_status status; /* figures that are kept */
    uv_timer_t tick;
    uv_timer_t later;
    int open_handles;
    int open_links;
    bool is_closing;
    void (*on_closed)(void *context);
    void *closed_context;
    struct redis_call calls[QUEUE_CALLS_MAX]; /* by their number */

    /* the kind's */
    bool knows_lag;                         /* stream: Redis says how much nobody has read yet */
    char poison[QUEUE_PAGE][QUEUE_ID_SIZE]; /* stream: of those that are being claimed, delivered too often */
    size_t poison_count;
    char lost[QUEUE_PAGE][QUEUE_ID_SIZE]; /* stream: entries of ours that are fetched, for their reply was lost */
    size_t lost_count;
    size_t lost_next;    /* whose answer comes next */
    size_t verified;     /* list: elements looked at */
    size_t moves;        /* list: answers that this read waits for */
    size_t moved;        /* list: messages that it has brought */
    bool is_blocking;    /* list: its first command waits for a message */
    bool is_full;        /* list: the last read brought as many as it asked for */
    size_t members_left; /* list: consumers whose answer is outstanding */
    uint64_t pending_sum;
    bool had_more;      /* list: at the last look our own had messages that are not known here */
    char scan_from[24]; /* list: where the walk over all keys goes on */
};

/* queue.c */
struct source *queue_new(const struct source_options *options, const struct queue_kind *kind);
size_t queue_page(const struct queue *queue); /* messages that one reply may have, should each be as large as may be */
bool queue_name_keys(struct queue *queue, const char *const suffixes[]); /* "" for redis_channel itself */

void queue_command_begin(struct queue_command *command, const char *name);
void queue_command_add(struct queue_command *command, const char *text);
void queue_command_add_number(struct queue_command *command, int64_t number);
void queue_command_add_bytes(struct queue_command *command, const char *bytes, size_t length);

/* `number` is that of the call in `calls`; the reply goes to `on_reply`. NULL: nobody waits for it. */
void queue_send(struct queue *queue, struct redis_link *link, const struct queue_command *command, int number,
                void (*on_reply)(void *context, const redisReply *reply));

void queue_is_set_up(struct queue *queue);
void queue_verify_one(struct queue *queue, const struct queue_item *item);
bool queue_verify_id(struct queue *queue, const char *id); /* false: it is not known, and to be fetched and taken */
void queue_verified(struct queue *queue);
void queue_take(struct queue *queue, const struct queue_item *item, bool redelivered);
void queue_read_done(struct queue *queue, size_t taken);
void queue_make_anew(struct queue *queue); /* Redis has lost what we made there */

/* An error reply to what the queue cannot do without: the connection is given up, for what it says. */
void queue_refused(struct queue *queue, const redisReply *reply);
void queue_reader_refused(struct queue *queue, const redisReply *reply);

/* An entry that was delivered too often: a dead letter without having been looked at. */
void queue_bury(struct queue *queue, const struct queue_item *item);

/* So many became dead letters like that in Redis itself. */
void queue_buried(struct queue *queue, uint64_t messages);

/* queue_entries.c; both NULL or false when out of memory */
struct queue_entry *queue_entry_new(struct queue *queue, const struct queue_item *item);
bool queue_entry_keep_words(struct queue_entry *entry, const struct disposition *disposition);
void queue_entry_free(struct queue *queue, struct queue_entry *entry);

/* The XADD of a dead letter. */
void queue_send_dead(struct queue *queue, const struct queue_entry *entry, const char *key);
void queue_given_back(struct queue *queue);

/* An error reply to something that can wait: one line an hour. */
void queue_complain(struct queue *queue, const char *what, const redisReply *reply);

/* Reply helpers */
bool queue_is_error(const redisReply *reply, const char *beginning);
const redisReply *queue_array(const redisReply *reply, size_t index); /* NULL: there is no such array */

#endif
