/* SPDX-License-Identifier: MIT */
/* The dead letters of the spool, for promptctl dead. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dead_store.h"
#include "promptd/clock.h"
#include "promptd/dead_letters.h"

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

struct taking {
    dead_store_take *take;
    void *context;
};

static bool take_letter(void *context, const struct dead_letter *letter)
{
    const struct taking *taking = context;
    char arrived[CLOCK_TEXT_SIZE];
    char died[CLOCK_TEXT_SIZE];
    char interview[UUID_TEXT_SIZE];
    char prompt[UUID_TEXT_SIZE];
    clock_format_wall(letter->arrived_ms, arrived);
    clock_format_wall(letter->died_ms, died);
    if (letter->has_interview_id)
        uuid_format(letter->interview_id, interview);
    if (letter->has_prompt_id)
        uuid_format(letter->prompt_id, prompt);
    return taking->take(taking->context, &(struct dead_entry){
                                             .id.major = (uint64_t)letter->id,
                                             .outcome = letter->outcome,
                                             .reason = letter->reason,
                                             .sqlstate = letter->sqlstate,
                                             .error = letter->error,
                                             .interview_id = letter->has_interview_id ? interview : NULL,
                                             .prompt_id = letter->has_prompt_id ? prompt : NULL,
                                             .arrived = arrived,
                                             .died = died,
                                             .has_message = letter->has_message,
                                             .size = (uint64_t)letter->size,
                                         });
}

static bool read_letters(struct dead_store *store, const struct dead_id *only, dead_store_take *take, void *context,
                         struct error *error)
{
    struct taking taking = {.take = take, .context = context};
    return dead_letters_read(spool_of(store)->letters, only ? (int64_t)only->major : 0, take_letter, &taking, error);
}

static bool get_message(struct dead_store *store, const struct dead_id *id, const char **bytes, size_t *length,
                        struct error *error)
{
    return dead_letters_payload(spool_of(store)->letters, (int64_t)id->major, bytes, length, error);
}

static bool count_letters(struct dead_store *store, uint64_t *count, struct dead_id *last, struct error *error)
{
    int64_t highest = 0;
    bool good = dead_letters_count(spool_of(store)->letters, count, &highest, error);
    *last = (struct dead_id){.major = (uint64_t)highest};
    return good;
}

static bool change(struct dead_store *store, bool replay, const struct dead_choice *choice, struct dead_result *result,
                   struct error *error)
{
    const struct dead_letters_change change = {
        .replay = replay,
        .waiting_max_bytes = spool_of(store)->waiting_max_bytes,
    };
    struct dead_letters_choice chosen = {.count = choice->count, .last = (int64_t)choice->last.major};
    int64_t *ids = calloc(choice->count + 1, sizeof *ids);
    if (!ids)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    for (size_t i = 0; i < choice->count; i++)
        ids[i] = (int64_t)choice->ids[i].major;
    chosen.ids = choice->ids ? ids : NULL;
    struct dead_letters_result done;
    bool good = dead_letters_change(spool_of(store)->letters, &change, &chosen, &done, error);
    *result = (struct dead_result){.changed = done.changed, .without_message = done.without_message};
    free(ids);
    return good;
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
