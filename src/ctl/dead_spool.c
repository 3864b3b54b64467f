/* SPDX-License-Identifier: MIT */
/* The dead letters of the spool, for promptctl dead. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dead_store.h"

struct dead_spool {
    struct dead_store store; /* first */
    struct dead_letters *letters;
    uint64_t waiting_max_bytes;
};

static struct dead_spool *spool_of(struct dead_store *store)
{
    return (struct dead_spool *)store;
}

static bool parse_id(const char *text, struct dead_id *id)
{
    char *end;
    errno = 0;
    long long number = *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : 0;
    *id = (struct dead_id){.major = (uint64_t)number};
    return number > 0 && errno == 0 && *end == '\0';
}

static void format_id(const struct dead_id *id, char text[DEAD_ID_SIZE])
{
    (void)snprintf(text, DEAD_ID_SIZE, "%" PRIu64, id->major);
}

static struct dead_store *open_spool(const struct ctl *ctl, struct error *error)
{
    if (!*ctl->settings.spool_dir) {
        (void)error_set(error, ERROR_CONFIG,
                        "setting spool_dir is empty, so there is no spool: give --spool-dir=FOLDER, or the daemon's"
                        " --config=FILE");
        return NULL;
    }
    struct dead_spool *spool = calloc(1, sizeof *spool);
    if (!spool) {
        (void)error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    *spool = (struct dead_spool){
        .store.ops = &dead_spool,
        .letters = dead_letters_open(ctl->settings.spool_dir, error),
        .waiting_max_bytes = (uint64_t)ctl->settings.spool_max_bytes / 2,
    };
    if (spool->letters)
        return &spool->store;
    free(spool);
    return NULL;
}

static void close_spool(struct dead_store *store)
{
    dead_letters_close(spool_of(store)->letters);
    free(spool_of(store));
}

static bool read_letters(struct dead_store *store, const struct dead_id *only, dead_letter_take *take, void *context,
                         struct error *error)
{
    return dead_letters_read(spool_of(store)->letters, only, take, context, error);
}

static bool get_message(struct dead_store *store, const struct dead_id *id, const char **bytes, size_t *length,
                        struct error *error)
{
    return dead_letters_payload(spool_of(store)->letters, id, bytes, length, error);
}

static bool count_letters(struct dead_store *store, uint64_t *count, struct dead_id *last, struct error *error)
{
    return dead_letters_count(spool_of(store)->letters, count, last, error);
}

static bool change(struct dead_store *store, bool replay, const struct dead_choice *choice, struct dead_result *result,
                   struct error *error)
{
    const struct dead_spool *spool = spool_of(store);
    return replay ? dead_letters_replay(spool->letters, choice, spool->waiting_max_bytes, result, error)
                  : dead_letters_drop(spool->letters, choice, result, error);
}

const struct dead_ops dead_spool = {
    .ids_are_numbers = true,
    .parse_id = parse_id,
    .format_id = format_id,
    .open = open_spool,
    .close = close_spool,
    .read = read_letters,
    .get_message = get_message,
    .count = count_letters,
    .change = change,
};
