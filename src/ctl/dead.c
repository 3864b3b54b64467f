/* SPDX-License-Identifier: MIT */
/* promptctl dead: dead letters, wherever they are kept, listed, shown, replayed, dropped. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dead_store.h"
#include "list.h"
#include "output.h"
#include "promptd/commands.h"
#include "promptd/json.h"
#include "promptd/text.h"

static const struct dead_ops *ops_of(const struct ctl *ctl)
{
    static const struct dead_ops *const kinds[] = {
        [REDIS_MODE_PUBSUB] = &dead_spool,
        [REDIS_MODE_LIST] = &dead_redis,
        [REDIS_MODE_STREAM] = &dead_redis,
    };
    return kinds[ctl->settings.redis_mode];
}

/* The fields of its object, which stays open. */
static void begin_object(struct buffer *object, const struct dead_ops *ops, const struct dead_letter *letter)
{
    char id[DEAD_ID_SIZE];
    ops->format_id(&letter->id, id);
    json_open(object, NULL, '{');
    if (ops->ids_are_numbers)
        json_number(object, "id", letter->id.major);
    else
        json_text(object, "id", id);
    json_text(object, "outcome", letter->outcome);
    json_text(object, "reason", letter->reason);
    json_text(object, "sqlstate", letter->sqlstate);
    json_text(object, "error", letter->error);
    json_text(object, "interview_id", letter->interview_id);
    json_text(object, "prompt_id", letter->prompt_id);
    json_text(object, "arrived", letter->arrived);
    json_text(object, "died", letter->died);
    if (letter->has_message)
        json_number(object, "bytes", letter->size);
    else
        json_text(object, "bytes", NULL);
}

static void format_size(const struct dead_letter *letter, char text[24])
{
    (void)snprintf(text, 24, "%" PRIu64, letter->size);
    if (!letter->has_message)
        *text = '\0';
}

/* ---- list ---- */

struct listing {
    struct list list;
    const struct dead_ops *ops;
};

static bool list_entry(void *context, const struct dead_letter *letter)
{
    struct listing *listing = context;
    struct list *list = &listing->list;
    if (list->json) {
        struct buffer object = {0};
        begin_object(&object, listing->ops, letter);
        json_close(&object, '}');
        list_object(list, &object);
        return true;
    }
    char id[DEAD_ID_SIZE];
    char size[24];
    listing->ops->format_id(&letter->id, id);
    format_size(letter, size);
    list_cell(list, id);
    list_cell(list, letter->died);
    list_cell(list, letter->outcome);
    list_cell(list, size);
    list_cell(list, letter->interview_id);
    list_cell(list, letter->reason ? letter->reason : letter->sqlstate);
    list_cell(list, letter->error);
    return true;
}

int ctl_dead_list(struct ctl *ctl)
{
    static const char *const headings[] = {"ID", "DIED", "OUTCOME", "BYTES", "INTERVIEW", "REASON", "ERROR", NULL};
    struct error error;
    struct listing listing = {.ops = ops_of(ctl)};
    struct dead_store *store = listing.ops->open(ctl, &error);
    if (!store)
        return output_fail(&error);
    list_begin(&listing.list, ctl, headings);
    bool read = listing.ops->read(store, NULL, list_entry, &listing, &error);
    list_end(&listing.list);
    listing.ops->close(store);
    if (!read)
        return output_fail(&error);
    if (listing.list.rows == 0)
        output_note("No dead letters.");
    return CTL_OK;
}

/* ---- show ---- */

static bool parse_id(const struct dead_ops *ops, const char *text, struct dead_id *id, struct error *error)
{
    return ops->parse_id(text, id) ||
           error_set(error, ERROR_USAGE, "\"%.48s\" is no id; promptctl dead list begins each line with one", text);
}

struct shown {
    const struct ctl *ctl;
    const struct dead_ops *ops;
    struct buffer *out;
    bool found;
    bool has_message;
};

static void show_line(struct shown *shown, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    buffer_printf(shown->out, "%s%-10s%s ", output_colour(shown->ctl, OUTPUT_BOLD), name,
                  output_colour(shown->ctl, OUTPUT_PLAIN));
    text_append_escaped(shown->out, value);
    buffer_append_char(shown->out, '\n');
}

static bool show_entry(void *context, const struct dead_letter *letter)
{
    struct shown *shown = context;
    char id[DEAD_ID_SIZE];
    char size[24];
    shown->found = true;
    shown->has_message = letter->has_message;
    if (ctl_has(shown->ctl, CTL_OPTION_RAW))
        return false;
    if (ctl_has(shown->ctl, CTL_OPTION_JSON)) {
        begin_object(shown->out, shown->ops, letter);
        return false;
    }
    shown->ops->format_id(&letter->id, id);
    format_size(letter, size);
    show_line(shown, "id", id);
    show_line(shown, "outcome", letter->outcome);
    show_line(shown, "reason", letter->reason);
    show_line(shown, "sqlstate", letter->sqlstate);
    show_line(shown, "error", letter->error);
    show_line(shown, "interview", letter->interview_id);
    show_line(shown, "prompt", letter->prompt_id);
    show_line(shown, "arrived", letter->arrived);
    show_line(shown, "died", letter->died);
    show_line(shown, "bytes", size);
    return false;
}

static void append_base64(struct buffer *out, const char *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        uint32_t group = 0;
        size_t have = length - i < 3 ? length - i : 3;
        for (size_t j = 0; j < 3; j++)
            group = group << 8 | (j < have ? (uint8_t)bytes[i + j] : 0U);
        for (size_t j = 0; j < 4; j++)
            buffer_append(out, j <= have ? &digits[group >> (18 - 6 * j) & 63] : "=", 1);
    }
}

static void show_payload(const struct shown *shown, const char *bytes, size_t length)
{
    struct buffer *out = shown->out;
    if (ctl_has(shown->ctl, CTL_OPTION_RAW)) {
        buffer_append(out, bytes, length);
        return;
    }
    bool is_text = memchr(bytes, '\0', length) == NULL && utf8_is_valid(bytes, length);
    struct buffer text = {0};
    buffer_append(&text, bytes, length);
    buffer_append_char(&text, '\0');
    out->failed |= text.failed;
    if (ctl_has(shown->ctl, CTL_OPTION_JSON)) {
        if (is_text && !text.failed) {
            json_text(out, "payload", text.data);
        } else {
            text.length = 0;
            append_base64(&text, bytes, length);
            buffer_append_char(&text, '\0');
            out->failed |= text.failed;
            json_text(out, "payload_base64", text.failed ? "" : text.data);
        }
        json_close(out, '}');
    } else {
        buffer_append_char(out, '\n');
        for (size_t i = 0; i < length && !text.failed; i += strlen(text.data + i) + 1) {
            buffer_append_text(out, i > 0 ? "\\x00" : "");
            text_append_escaped(out, text.data + i);
        }
        if (length > 0 && bytes[length - 1] == '\0')
            buffer_append_text(out, "\\x00");
    }
    buffer_append_char(out, '\n');
    buffer_free(&text);
}

static bool show_no_payload(struct shown *shown, struct error *error)
{
    if (ctl_has(shown->ctl, CTL_OPTION_RAW))
        return error_set(error, ERROR_NONE, "there is no message to print: it was too large, and was not read");
    if (ctl_has(shown->ctl, CTL_OPTION_JSON)) {
        json_text(shown->out, "payload", NULL);
        json_close(shown->out, '}');
        buffer_append_char(shown->out, '\n');
    } else {
        show_line(shown, "message", "none: it was too large, and was not read");
    }
    return true;
}

static bool show(struct shown *shown, struct dead_store *store, const struct dead_id *id, struct error *error)
{
    const char *bytes;
    size_t length;
    if (!shown->ops->read(store, id, show_entry, shown, error))
        return false;
    if (!shown->found)
        return true;
    if (!shown->has_message)
        return show_no_payload(shown, error);
    if (!shown->ops->get_message(store, id, &bytes, &length, error))
        return false;
    show_payload(shown, bytes, length);
    return true;
}

static int no_such_letter(const struct dead_ops *ops, const struct dead_id *id)
{
    char text[DEAD_ID_SIZE];
    ops->format_id(id, text);
    output_note("promptctl: there is no dead letter %s; promptctl dead list lists them", text);
    return CTL_FOUND;
}

int ctl_dead_show(struct ctl *ctl)
{
    struct error error;
    struct dead_id id;
    const struct dead_ops *ops = ops_of(ctl);
    struct dead_store *store = parse_id(ops, ctl->operands[0], &id, &error) ? ops->open(ctl, &error) : NULL;
    if (!store)
        return output_fail(&error);
    struct buffer out = {0};
    struct shown shown = {.ctl = ctl, .ops = ops, .out = &out};
    bool read = show(&shown, store, &id, &error);
    ops->close(store);
    if (!read || !shown.found) {
        buffer_free(&out);
        return read ? no_such_letter(ops, &id) : output_fail(&error);
    }
    output_write(&out);
    return CTL_OK;
}

/* ---- replay, drop ---- */

/* How a change is asked for, and what is said of it. */
struct change_words {
    bool replay;
    const char *verb;
    const char *consequence;
    const char *done;
};

static int compare_ids(const void *a, const void *b)
{
    const struct dead_id *left = a;
    const struct dead_id *right = b;
    if (left->major != right->major)
        return left->major > right->major ? 1 : -1;
    return (left->minor > right->minor) - (left->minor < right->minor);
}

/* In the order of arrival, each once. */
static size_t sort_ids(struct dead_id *ids, size_t count)
{
    size_t kept = 0;
    qsort(ids, count, sizeof *ids, compare_ids);
    for (size_t i = 1; i < count; i++) {
        if (compare_ids(&ids[i], &ids[kept]) != 0)
            ids[++kept] = ids[i];
    }
    return count == 0 ? 0 : kept + 1;
}

/* The ids of the command line; none with --all. */
static bool read_ids(const struct ctl *ctl, struct dead_id *ids, size_t *count, struct error *error)
{
    bool all = ctl_has(ctl, CTL_OPTION_ALL);
    if (all == (ctl->operand_count > 0))
        return error_set(error, ERROR_USAGE, "which dead letters? Give their ids, or --all%s", all ? ", not both" : "");
    for (int i = 0; i < ctl->operand_count; i++) {
        if (!parse_id(ops_of(ctl), ctl->operands[i], &ids[i], error))
            return false;
    }
    *count = sort_ids(ids, (size_t)ctl->operand_count);
    return true;
}

struct finding {
    bool found;
    bool has_message;
};

static bool note_found(void *context, const struct dead_letter *letter)
{
    *(struct finding *)context = (struct finding){.found = true, .has_message = letter->has_message};
    return false;
}

/* Whether each id can be changed so. CTL_OK; else it was said why not. */
static int check_ids(const struct dead_ops *ops, struct dead_store *store, const struct change_words *words,
                     const struct dead_choice *choice)
{
    struct error error;
    char text[DEAD_ID_SIZE];
    for (size_t i = 0; i < choice->count; i++) {
        struct finding finding = {0};
        if (!ops->read(store, &choice->ids[i], note_found, &finding, &error))
            return output_fail(&error);
        if (!finding.found)
            return no_such_letter(ops, &choice->ids[i]);
        if (finding.has_message || !words->replay)
            continue;
        ops->format_id(&choice->ids[i], text);
        output_note("promptctl: dead letter %s cannot be replayed: its message was too large, and was not read", text);
        return CTL_FOUND;
    }
    return CTL_OK;
}

static void report_change(const struct ctl *ctl, const char *done, size_t changed)
{
    if (ctl_has(ctl, CTL_OPTION_JSON)) {
        struct buffer object = {0};
        json_open(&object, NULL, '{');
        json_number(&object, done, changed);
        json_close(&object, '}');
        buffer_append_char(&object, '\n');
        output_write(&object);
    } else {
        (void)printf("%zu dead letter%s %s\n", changed, changed == 1 ? "" : "s", done);
    }
}

static int change_chosen(const struct ctl *ctl, struct dead_store *store, const struct change_words *words,
                         const struct dead_choice *choice, uint64_t count)
{
    struct error error;
    struct dead_result result = {0};
    if (count > 0 && !output_confirm(ctl, "%s %" PRIu64 " dead letter%s%s?", words->verb, count, count == 1 ? "" : "s",
                                     words->consequence))
        return CTL_FOUND;
    bool good = ops_of(ctl)->change(store, words->replay, choice, &result, &error);
    if (good || result.changed > 0)
        report_change(ctl, words->done, result.changed);
    if (!good)
        return output_fail(&error);
    if (result.without_message == 0)
        return CTL_OK;
    output_note("promptctl: %zu without a message stay%s: it was too large, and was not read; promptctl dead drop"
                " deletes them",
                result.without_message, result.without_message == 1 ? "s" : "");
    return CTL_FOUND;
}

/* All means those that are there now: what is replayed may die again at once. */
static int choose_and_change(const struct ctl *ctl, struct dead_store *store, const struct change_words *words,
                             const struct dead_id *ids, size_t id_count)
{
    struct error error;
    struct dead_choice choice = {.ids = ids, .count = id_count};
    uint64_t count = id_count;
    int status = CTL_OK;
    if (!ctl_has(ctl, CTL_OPTION_ALL)) {
        status = check_ids(ops_of(ctl), store, words, &choice);
    } else {
        choice.ids = NULL;
        if (!ops_of(ctl)->count(store, &count, &choice.last, &error))
            return output_fail(&error);
    }
    return status == CTL_OK ? change_chosen(ctl, store, words, &choice, count) : status;
}

static int change(const struct ctl *ctl, const struct change_words *words)
{
    struct error error;
    struct dead_store *store = NULL;
    size_t count = 0;
    struct dead_id *ids = calloc((size_t)ctl->operand_count + 1, sizeof *ids);
    if (!ids)
        return output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "out of memory"});
    if (output_may_change(ctl, &error) && read_ids(ctl, ids, &count, &error))
        store = ops_of(ctl)->open(ctl, &error);
    int status = store ? choose_and_change(ctl, store, words, ids, count) : output_fail(&error);
    if (store)
        ops_of(ctl)->close(store);
    free(ids);
    return status;
}

int ctl_dead_replay(struct ctl *ctl)
{
    return change(ctl, &(struct change_words){
                           .replay = true,
                           .verb = "Replay",
                           .consequence = "",
                           .done = "replayed",
                       });
}

int ctl_dead_drop(struct ctl *ctl)
{
    return change(ctl, &(struct change_words){
                           .verb = "Drop",
                           .consequence = " for good, messages and all",
                           .done = "dropped",
                       });
}
