/* SPDX-License-Identifier: MIT */
/* --help, from the tables of commands, options and exit codes. */
#include <stdio.h>
#include <string.h>

#include "output.h"
#include "promptd/commands.h"
#include "promptd/text.h"

enum { HELP_WIDTH = 79, HELP_COLUMN = 26 };

static const struct {
    int code;
    const char *meaning;
} exits[] = {
#define X(name, code, meaning) {code, meaning},
    CTL_EXIT_MAP(X)
#undef X
};

static void append_usage(struct buffer *out, const struct ctl_command *command)
{
    buffer_printf(out, "promptctl %s", command->name);
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        if (command->options & 1U << i && ctl_options[i].argument)
            buffer_printf(out, " [--%s=%s]", ctl_options[i].name, ctl_options[i].argument);
        else if (command->options & 1U << i)
            buffer_printf(out, " [--%s]", ctl_options[i].name);
    }
    if (command->operands)
        buffer_printf(out, command->operands_min > 0 ? " %s" : " [%s]", command->operands);
    buffer_append_char(out, '\n');
}

/* "  word              text, in as many lines as it takes" */
static void append_entry(struct buffer *out, const char *word, const char *text)
{
    buffer_printf(out, "  %-*s", HELP_COLUMN - 2, word);
    struct buffer wrapped = {0};
    text_append_wrapped(&wrapped, text, HELP_COLUMN, HELP_WIDTH);
    buffer_append_char(&wrapped, '\0');
    out->failed |= wrapped.failed;
    if (!wrapped.failed)
        buffer_append_text(out, wrapped.data + HELP_COLUMN);
    buffer_free(&wrapped);
}

static void append_exits(struct buffer *out)
{
    buffer_append_text(out, "\nExit codes:\n");
    for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++) {
        char code[12];
        (void)snprintf(code, sizeof code, "%d", exits[i].code);
        append_entry(out, code, exits[i].meaning);
    }
}

static void append_paragraphs(struct buffer *out, const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        struct buffer paragraph = {0};
        buffer_append(&paragraph, text, length);
        buffer_append_char(&paragraph, '\0');
        out->failed |= paragraph.failed;
        buffer_append_char(out, '\n');
        if (!paragraph.failed)
            text_append_wrapped(out, paragraph.data, 0, HELP_WIDTH);
        buffer_free(&paragraph);
        text += length + (text[length] == '\n');
    }
}

static void append_command(struct buffer *out, const struct ctl_command *command)
{
    buffer_append_text(out, "Usage: ");
    append_usage(out, command);
    append_paragraphs(out, command->details);
    if (command->options)
        buffer_append_text(out, "\nOptions:\n");
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        char word[40];
        (void)snprintf(word, sizeof word, "--%s%s%s", ctl_options[i].name, ctl_options[i].argument ? "=" : "",
                       ctl_options[i].argument ? ctl_options[i].argument : "");
        if (command->options & 1U << i)
            append_entry(out, word, ctl_options[i].description);
    }
    struct buffer settings = {0};
    buffer_printf(&settings, "Settings that count, as for promptd: --config=FILE %s", command->settings);
    buffer_append_char(&settings, '\0');
    out->failed |= settings.failed;
    if (!settings.failed)
        append_paragraphs(out, settings.data);
    buffer_free(&settings);
}

static void append_all(struct buffer *out)
{
    buffer_append_text(out, "Usage: promptctl COMMAND [OPTION]... [SETTING]... [ARGUMENT]...\n"
                            "The operator's tool of promptd.\n\n"
                            "Commands (promptctl COMMAND --help says more):\n");
    for (const struct ctl_command *command = ctl_commands; command->name; command++)
        append_entry(out, command->name, command->summary);
    buffer_append_text(out, "\nOptions:\n");
    append_entry(out, "--help", "Print this text, or that of a command.");
    append_entry(out, "--version", "Print the version.");
    append_entry(out, "--print-config", "Print all settings in force and where each came from, passwords as ***.");
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        char word[40];
        (void)snprintf(word, sizeof word, "--%s%s%s", ctl_options[i].name, ctl_options[i].argument ? "=" : "",
                       ctl_options[i].argument ? ctl_options[i].argument : "");
        append_entry(out, word, ctl_options[i].description);
    }
    buffer_append_text(out, "\nSettings are promptd's own, from the same places: flags such as --redis-url,\n"
                            "variables such as PROMPTD_REDIS_URL, and the file of --config=FILE, or else\n"
                            "/etc/promptd/promptd.conf. promptd --help describes each.\n");
}

void ctl_print_help(const char *words)
{
    struct buffer out = {0};
    size_t length = strlen(words);
    bool first = true;
    for (const struct ctl_command *command = ctl_commands; command->name && length > 0; command++) {
        if (strncmp(command->name, words, length) != 0)
            continue;
        buffer_append_text(&out, first ? "" : "\n\n");
        append_command(&out, command);
        first = false;
    }
    if (length == 0)
        append_all(&out);
    append_exits(&out);
    output_write(&out);
}
