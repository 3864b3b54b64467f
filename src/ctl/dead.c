/* SPDX-License-Identifier: MIT */
/* promptctl dead: the spool's dead letters, listed, shown, replayed, dropped. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "list.h"
#include "output.h"
#include "promptd/clock.h"
#include "promptd/commands.h"
#include "promptd/dead_letters.h"
#include "promptd/json.h"
#include "promptd/text.h"

static struct dead_letters *open_letters(const struct ctl *ctl, struct error *error)
{
    if (*ctl->settings.spool_dir)
        return dead_letters_open(ctl->settings.spool_dir, error);
    (void)error_set(error, ERROR_CONFIG,
                    "setting spool_dir is empty, so there is no spool: give --spool-dir=FOLDER, or the daemon's"
                    " --config=FILE");
    return NULL;
}

/* What stands in a list and in what is shown alike, as texts. */
struct letter_texts {
    char id[24];
    char arrived[CLOCK_TEXT_SIZE];
    char died[CLOCK_TEXT_SIZE];
    char size[24];
    char interview[UUID_TEXT_SIZE]; /* "": none could be read */
    char prompt[UUID_TEXT_SIZE];
};

static void write_texts(const struct dead_letter *letter, struct letter_texts *texts)
{
    *texts = (struct letter_texts){0};
    (void)snprintf(texts->id, sizeof texts->id, "%" PRId64, letter->id);
    (void)snprintf(texts->size, sizeof texts->size, "%" PRId64, letter->size);
    clock_format_wall(letter->arrived_ms, texts->arrived);
    clock_format_wall(letter->died_ms, texts->died);
    if (letter->has_interview_id)
        uuid_format(letter->interview_id, texts->interview);
    if (letter->has_prompt_id)
        uuid_format(letter->prompt_id, texts->prompt);
}

/* The fields of its object, which stays open. */
static void begin_object(struct buffer *object, const struct dead_letter *letter)
{
    struct letter_texts texts;
    write_texts(letter, &texts);
    json_open(object, NULL, '{');
    json_number(object, "id", (uint64_t)letter->id);
    json_text(object, "outcome", letter->outcome);
    json_text(object, "reason", letter->reason);
    json_text(object, "sqlstate", letter->sqlstate);
    json_text(object, "error", letter->error);
    json_text(object, "interview_id", *texts.interview ? texts.interview : NULL);
    json_text(object, "prompt_id", *texts.prompt ? texts.prompt : NULL);
    json_text(object, "arrived", texts.arrived);
    json_text(object, "died", texts.died);
    json_number(object, "bytes", (uint64_t)letter->size);
}

/* ---- list ---- */

static bool list_letter(void *context, const struct dead_letter *letter)
{
    struct list *list = context;
    if (list->json) {
        struct buffer object = {0};
        begin_object(&object, letter);
        json_close(&object, '}');
        list_object(list, &object);
        return true;
    }
    struct letter_texts texts;
    write_texts(letter, &texts);
    list_cell(list, texts.id);
    list_cell(list, texts.died);
    list_cell(list, letter->outcome);
    list_cell(list, texts.size);
    list_cell(list, texts.interview);
    list_cell(list, letter->reason ? letter->reason : letter->sqlstate);
    list_cell(list, letter->error);
    return true;
}

int ctl_dead_list(struct ctl *ctl)
{
    static const char *const headings[] = {"ID", "DIED", "OUTCOME", "BYTES", "INTERVIEW", "REASON", "ERROR", NULL};
    struct error error;
    struct dead_letters *letters = open_letters(ctl, &error);
    if (!letters)
        return output_fail(&error);
    struct list list;
    list_begin(&list, ctl, headings);
    bool read = dead_letters_read(letters, 0, list_letter, &list, &error);
    list_end(&list);
    dead_letters_close(letters);
    if (!read)
        return output_fail(&error);
    if (list.rows == 0)
        output_note("No dead letters.");
    return CTL_OK;
}

/* ---- show ---- */

static bool parse_id(const char *text, int64_t *id, struct error *error)
{
    char *end;
    errno = 0;
    long long number = *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : 0;
    if (number <= 0 || errno != 0 || *end != '\0')
        return error_set(error, ERROR_USAGE, "\"%.20s\" is no id; promptctl dead list begins each line with one", text);
    *id = number;
    return true;
}

struct shown {
    const struct ctl *ctl;
    struct buffer *out;
    bool found;
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

static bool show_letter(void *context, const struct dead_letter *letter)
{
    struct shown *shown = context;
    shown->found = true;
    if (ctl_has(shown->ctl, CTL_OPTION_RAW))
        return false;
    if (ctl_has(shown->ctl, CTL_OPTION_JSON)) {
        begin_object(shown->out, letter);
        return false;
    }
    struct letter_texts texts;
    write_texts(letter, &texts);
    show_line(shown, "id", texts.id);
    show_line(shown, "outcome", letter->outcome);
    show_line(shown, "reason", letter->reason);
    show_line(shown, "sqlstate", letter->sqlstate);
    show_line(shown, "error", letter->error);
    show_line(shown, "interview", texts.interview);
    show_line(shown, "prompt", texts.prompt);
    show_line(shown, "arrived", texts.arrived);
    show_line(shown, "died", texts.died);
    show_line(shown, "bytes", texts.size);
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

static bool show(struct shown *shown, struct dead_letters *letters, int64_t id, struct error *error)
{
    const char *bytes;
    size_t length;
    if (!dead_letters_read(letters, id, show_letter, shown, error))
        return false;
    if (!shown->found)
        return true;
    if (!dead_letters_payload(letters, id, &bytes, &length, error))
        return false;
    show_payload(shown, bytes, length);
    return true;
}

static int no_such_letter(int64_t id)
{
    output_note("promptctl: there is no dead letter %" PRId64 "; promptctl dead list lists them", id);
    return CTL_FOUND;
}

int ctl_dead_show(struct ctl *ctl)
{
    struct error error;
    int64_t id = 0;
    struct dead_letters *letters = parse_id(ctl->operands[0], &id, &error) ? open_letters(ctl, &error) : NULL;
    if (!letters)
        return output_fail(&error);
    struct buffer out = {0};
    struct shown shown = {.ctl = ctl, .out = &out};
    bool read = show(&shown, letters, id, &error);
    dead_letters_close(letters);
    if (!read || !shown.found) {
        buffer_free(&out);
        return read ? no_such_letter(id) : output_fail(&error);
    }
    output_write(&out);
    return CTL_OK;
}

/* ---- replay, drop ---- */

static int compare_ids(const void *a, const void *b)
{
    const int64_t *left = a;
    const int64_t *right = b;
    return (*left > *right) - (*left < *right);
}

/* In the order of arrival, each once. */
static size_t sort_ids(int64_t *ids, size_t count)
{
    size_t kept = 0;
    qsort(ids, count, sizeof *ids, compare_ids);
    for (size_t i = 1; i < count; i++) {
        if (ids[i] != ids[kept])
            ids[++kept] = ids[i];
    }
    return count == 0 ? 0 : kept + 1;
}

/* The ids of the command line; none with --all. */
static bool read_ids(const struct ctl *ctl, int64_t *ids, size_t *count, struct error *error)
{
    bool all = ctl_has(ctl, CTL_OPTION_ALL);
    if (all == (ctl->operand_count > 0))
        return error_set(error, ERROR_USAGE, "which dead letters? Give their ids, or --all%s", all ? ", not both" : "");
    for (int i = 0; i < ctl->operand_count; i++) {
        if (!parse_id(ctl->operands[i], &ids[i], error))
            return false;
    }
    *count = sort_ids(ids, (size_t)ctl->operand_count);
    return true;
}

static bool note_found(void *context, const struct dead_letter *letter)
{
    (void)letter;
    *(bool *)context = true;
    return false;
}

/* The first id that is no dead letter's; 0 where all are. */
static bool find_missing(struct dead_letters *letters, const struct dead_letters_choice *choice, int64_t *missing,
                         struct error *error)
{
    *missing = 0;
    for (size_t i = 0; i < choice->count && *missing == 0; i++) {
        bool found = false;
        if (!dead_letters_read(letters, choice->ids[i], note_found, &found, error))
            return false;
        *missing = found ? 0 : choice->ids[i];
    }
    return true;
}

static int report_change(const struct ctl *ctl, const char *done, size_t changed)
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
    return CTL_OK;
}

/* How a change is asked for, and what is said of it. */
struct change_words {
    bool replay;
    const char *verb;
    const char *consequence;
    const char *done;
};

static int change_chosen(const struct ctl *ctl, struct dead_letters *letters, const struct change_words *words,
                         const struct dead_letters_choice *choice, uint64_t count)
{
    struct error error;
    size_t changed = 0;
    const struct dead_letters_change change = {
        .replay = words->replay,
        .waiting_max_bytes = (uint64_t)ctl->settings.spool_max_bytes / 2,
    };
    if (count > 0 && !output_confirm(ctl, "%s %" PRIu64 " dead letter%s%s?", words->verb, count, count == 1 ? "" : "s",
                                     words->consequence))
        return CTL_FOUND;
    bool good = dead_letters_change(letters, &change, choice, &changed, &error);
    if (good || changed > 0)
        (void)report_change(ctl, words->done, changed);
    return good ? CTL_OK : output_fail(&error);
}

/* All means those that are there now: what is replayed may die again at once. */
static int choose_and_change(const struct ctl *ctl, struct dead_letters *letters, const struct change_words *words,
                             const int64_t *ids, size_t id_count)
{
    struct error error;
    struct dead_letters_choice choice = {.ids = ids, .count = id_count};
    uint64_t count = id_count;
    int64_t missing = 0;
    if (ctl_has(ctl, CTL_OPTION_ALL)) {
        choice.ids = NULL;
        if (!dead_letters_count(letters, &count, &choice.last, &error))
            return output_fail(&error);
    } else if (!find_missing(letters, &choice, &missing, &error)) {
        return output_fail(&error);
    }
    return missing != 0 ? no_such_letter(missing) : change_chosen(ctl, letters, words, &choice, count);
}

static int change(const struct ctl *ctl, const struct change_words *words)
{
    struct error error;
    struct dead_letters *letters = NULL;
    size_t count = 0;
    int64_t *ids = calloc((size_t)ctl->operand_count + 1, sizeof *ids);
    if (!ids)
        return output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "out of memory"});
    if (output_may_change(ctl, &error) && read_ids(ctl, ids, &count, &error))
        letters = open_letters(ctl, &error);
    int status = letters ? choose_and_change(ctl, letters, words, ids, count) : output_fail(&error);
    dead_letters_close(letters);
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
