/* SPDX-License-Identifier: MIT */
/* promptctl validate: would promptd accept these messages? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "message_file.h"
#include "output.h"
#include "promptd/commands.h"
#include "promptd/json.h"

struct validation {
    const struct ctl *ctl;
    struct message_rules rules;
    const char *path;
    unsigned long line; /* 0: the file is one message */
    unsigned long accepted;
    unsigned long rejected;
};

static void append_accepted(const struct message_content *content, const char *id, struct buffer *out)
{
    char interview[UUID_TEXT_SIZE];
    uuid_format(content->interview_id, interview);
    buffer_printf(out, "accepted interview_id=%s source=", interview);
    text_append_logfmt(out, content->source);
    buffer_printf(out, " prompt_id=%s characters=%zu\n", id, utf8_count(content->prompt, content->prompt_bytes));
}

static void append_rejected(const struct message_content *content, struct buffer *out)
{
    buffer_printf(out, "rejected %s: %s", reject_name(content->reject), reject_meaning(content->reject));
    if (content->reject == REJECT_NOT_JSON)
        buffer_printf(out, " at=%zu", content->not_json_at);
    if (message_hint(content))
        buffer_printf(out, " hint=\"%s\"", message_hint(content));
    buffer_append_char(out, '\n');
}

static void append_text(const struct validation *validation, const struct message_content *content, const char *id,
                        struct buffer *out)
{
    const struct ctl *ctl = validation->ctl;
    bool good = content->reject == REJECT_NONE;
    text_append_escaped(out, validation->path);
    if (validation->line > 0)
        buffer_printf(out, ":%lu", validation->line);
    buffer_printf(out, ": %s", output_colour(ctl, good ? OUTPUT_GREEN : OUTPUT_RED));
    if (good)
        append_accepted(content, id, out);
    else
        append_rejected(content, out);
    buffer_append_text(out, output_colour(ctl, OUTPUT_PLAIN));
}

static void append_json(const struct validation *validation, const struct message_content *content, size_t length,
                        const char *id, struct buffer *out)
{
    char interview[UUID_TEXT_SIZE];
    bool good = content->reject == REJECT_NONE;
    uuid_format(content->interview_id, interview);
    json_open(out, NULL, '{');
    json_text(out, "file", validation->path);
    if (validation->line > 0)
        json_number(out, "line", validation->line);
    json_boolean(out, "accepted", good);
    json_text(out, "reason", good ? NULL : reject_name(content->reject));
    json_text(out, "meaning", good ? NULL : reject_meaning(content->reject));
    if (content->reject == REJECT_NOT_JSON)
        json_number(out, "at", content->not_json_at);
    json_text(out, "hint", message_hint(content));
    json_number(out, "bytes", length);
    json_text(out, "interview_id", content->has_interview_id ? interview : NULL);
    json_text(out, "source", good ? content->source : NULL);
    json_text(out, "prompt_id", good ? id : NULL);
    json_close(out, '}');
}

/* Checks one message. false: something else than the message is wrong. */
static bool validate_message(struct validation *validation, const char *bytes, size_t length, struct error *error)
{
    struct message_content content;
    char id[UUID_TEXT_SIZE] = "";
    if (!message_parse(&validation->rules, bytes, length, &content))
        return error_set(error, ERROR_INTERNAL, "out of memory");
    bool good = content.reject == REJECT_NONE;
    bool known = !good || message_file_prompt_id(&content, id, error);
    if (known) {
        struct buffer out = {0};
        if (ctl_has(validation->ctl, CTL_OPTION_JSON)) {
            bool first = validation->accepted + validation->rejected == 0;
            (void)fputs(first ? "[\n" : ",\n", stdout);
            append_json(validation, &content, length, id, &out);
        } else {
            append_text(validation, &content, id, &out);
        }
        output_write(&out);
        validation->accepted += good;
        validation->rejected += !good;
    }
    message_content_free(&content);
    return known;
}

/* One more byte than a message may have: that is enough to know. */
static bool validate_file(struct validation *validation, FILE *file, struct error *error)
{
    struct buffer bytes = {0};
    bool good = message_file_read(file, validation->path, validation->rules.max_bytes + 1, &bytes, error) &&
                validate_message(validation, bytes.data ? bytes.data : "", bytes.length, error);
    buffer_free(&bytes);
    return good;
}

static bool is_blank(const struct buffer *line)
{
    for (size_t i = 0; i < line->length; i++) {
        if (!strchr(" \t\r", line->data[i]) || line->data[i] == '\0')
            return false;
    }
    return true;
}

/* Up to and without the newline; of a line that is too long only as much as shows it. false at the end. */
static bool read_line(const struct validation *validation, FILE *file, struct buffer *line)
{
    int byte = EOF;
    bool any = false;
    line->length = 0;
    while ((byte = getc_unlocked(file)) != EOF && byte != '\n') {
        any = true;
        if (line->length <= validation->rules.max_bytes)
            buffer_append_char(line, (char)byte);
    }
    return any || byte == '\n';
}

static bool validate_lines(struct validation *validation, FILE *file, struct error *error)
{
    struct buffer line = {0};
    bool good = true;
    validation->line = 0;
    while (good && read_line(validation, file, &line)) {
        validation->line++;
        if (line.failed)
            good = error_set(error, ERROR_INTERNAL, "out of memory");
        else if (!is_blank(&line))
            good = validate_message(validation, line.data, line.length, error);
    }
    buffer_free(&line);
    if (good && ferror(file))
        good = message_file_read(file, validation->path, 1, &line, error); /* says what is wrong */
    buffer_free(&line);
    return good;
}

static bool validate_path(struct validation *validation, const char *path, struct error *error)
{
    FILE *file = message_file_open(path, error);
    if (!file)
        return false;
    validation->path = path;
    bool good = ctl_has(validation->ctl, CTL_OPTION_LINES) ? validate_lines(validation, file, error)
                                                           : validate_file(validation, file, error);
    if (file != stdin)
        (void)fclose(file); /* it was only read */
    return good;
}

int ctl_validate(struct ctl *ctl)
{
    struct validation validation = {.ctl = ctl, .rules = message_rules_of(&ctl->settings)};
    int status = CTL_OK;
    for (int i = 0; i == 0 || i < ctl->operand_count; i++) {
        struct error error;
        if (validate_path(&validation, ctl->operand_count > 0 ? ctl->operands[i] : "-", &error))
            continue;
        status = output_fail(&error);
        if (status != CTL_FOUND) /* a file that cannot be read; the others are checked all the same */
            break;
    }
    unsigned long count = validation.accepted + validation.rejected;
    if (ctl_has(ctl, CTL_OPTION_JSON))
        (void)fputs(count > 0 ? "\n]\n" : "[]\n", stdout);
    else if (count != 1)
        output_note("%lu accepted, %lu rejected", validation.accepted, validation.rejected);
    return status == CTL_OK && validation.rejected > 0 ? CTL_FOUND : status;
}
