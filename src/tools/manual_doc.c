/* SPDX-License-Identifier: MIT */
/* Prints one part of the manual pages, in mdoc(7), from a table of the code. Not installed; scripts/generate-docs runs
 * it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/commands.h"
#include "promptd/metrics.h"
#include "promptd/settings_table.h"
#include "promptd/sqlstate.h"
#include "promptd/text.h"

enum { LINE_WIDTH = 76 };

/* A character of a text, so that roff prints just that. A hyphen stays one that can be copied and searched for. */
static void print_character(char c, bool at_start)
{
    if (at_start && (c == '.' || c == '\''))
        printf("\\&");
    if (c == '\\')
        printf("\\e");
    else if (c == '-')
        printf("\\-");
    else
        putchar(c);
}

static void print_escaped(const char *text)
{
    bool at_start = true;
    for (; *text; text++) {
        print_character(*text, at_start);
        at_start = *text == '\n';
    }
}

static void print_sentence(const char *text, size_t length)
{
    struct buffer sentence = {0};
    struct buffer wrapped = {0};
    buffer_append(&sentence, text, length);
    buffer_append_char(&sentence, '\0');
    if (!sentence.failed)
        text_append_wrapped(&wrapped, sentence.data, 0, LINE_WIDTH);
    buffer_append_char(&wrapped, '\0');
    if (sentence.failed || wrapped.failed)
        abort();
    print_escaped(wrapped.data);
    buffer_free(&sentence);
    buffer_free(&wrapped);
}

/* One paragraph as text lines. Each sentence begins one: roff then knows where a sentence ends. */
static void print_text(const char *text, size_t length)
{
    size_t start = 0;
    for (size_t i = 0; i + 1 < length; i++) {
        if (text[i] != '.' || text[i + 1] != ' ')
            continue;
        print_sentence(text + start, i + 1 - start);
        start = i + 2;
    }
    print_sentence(text + start, length - start);
}

static void print_line(const char *text)
{
    print_text(text, strlen(text));
}

/* `text` as one argument of a macro, whatever stands in it: "\&" keeps what looks like a macro's name from being one.
 */
static void print_argument(const char *text)
{
    printf(" \"\\&");
    for (; *text; text++) {
        if (*text == '"')
            printf("\\(dq");
        else
            print_character(*text, false);
    }
    putchar('"');
}

static void print_item(const char *macro, const char *text)
{
    printf(".It %s", macro);
    print_argument(text);
    putchar('\n');
}

static void print_macro(const char *macro, const char *text)
{
    printf("%s", macro);
    print_argument(text);
    putchar('\n');
}

static const char *text_of(struct buffer *buffer)
{
    buffer_append_char(buffer, '\0');
    if (buffer->failed)
        abort();
    return buffer->data;
}

static void begin_list(void)
{
    puts(".Bl -tag -width 4n");
}

static void end_list(void)
{
    puts(".El");
}

static void print_setting(const struct setting *row)
{
    struct buffer text = {0};
    print_item("Va", row->name);
    print_line(row->description);
    buffer_append_text(&text, "Allowed: ");
    setting_append_allowed(row, &text);
    buffer_printf(&text, ". Default: %s. %s.", *row->initial ? row->initial : "empty",
                  row->live ? "A reload changes it" : "Read at the start only");
    puts(".Pp");
    print_line(text_of(&text));
    buffer_free(&text);
}

static void print_settings(void)
{
    begin_list();
    for (size_t i = 0; settings_table_row(i); i++)
        print_setting(settings_table_row(i));
    end_list();
}

static void print_flags(void)
{
    begin_list();
    for (const struct settings_flag *flag = settings_flags; flag->name; flag++) {
        struct buffer name = {0};
        buffer_printf(&name, "--%s%s%s", flag->name, flag->argument ? "=" : "", flag->argument ? flag->argument : "");
        print_item("Cm", text_of(&name));
        print_line(flag->description);
        buffer_free(&name);
    }
    end_list();
}

static void print_metric(const struct metric *row)
{
    struct buffer name = {0};
    const char *label = row->kind == METRIC_COUNTER_BY_REASON ? "reason" : row->label;
    buffer_printf(&name, *label ? "%s{%s}" : "%s", row->name, label);
    print_item("Va", text_of(&name));
    buffer_free(&name);
    print_line(row->meaning);
    if (*row->statsd) {
        puts(".Pp\nStatsD:");
        print_macro(".Va", row->statsd);
    }
}

static void print_metrics(void)
{
    begin_list();
    for (size_t i = 0; metrics_row(i); i++)
        print_metric(metrics_row(i));
    end_list();
}

static void print_reasons(void)
{
    begin_list();
    for (int reason = REJECT_NONE + 1; reason < REJECT_COUNT; reason++) {
        print_item("Sy", reject_name((enum reject_reason)reason));
        print_line(reject_meaning((enum reject_reason)reason));
    }
    end_list();
}

static const char *action_text(enum sqlstate_action action)
{
    switch (action) {
    case SQLSTATE_FINAL:
        return "Final.";
    case SQLSTATE_SETUP:
        return "Final, set-up.";
    case SQLSTATE_TRANSIENT:
        return "Tried again.";
    case SQLSTATE_OUTAGE:
        break;
    }
    return "Outage: waits.";
}

static void print_sqlstate(const char *state, const char *meaning, enum sqlstate_action action)
{
    struct buffer text = {0};
    buffer_printf(&text, "%s. %s", meaning, action_text(action));
    print_item("Sy", state);
    print_line(text_of(&text));
    buffer_free(&text);
}

static void print_sqlstates(void)
{
    static const char dots[] = ".....";
    begin_list();
    print_sqlstate("none", "No server answered: connection lost, refused, timed out", sqlstate_classify(""));
    const struct sqlstate_rule *rule = sqlstate_rules;
    for (; rule->prefix; rule++) {
        char state[sizeof dots];
        (void)snprintf(state, sizeof state, "%s%s", rule->prefix, dots + strlen(rule->prefix));
        print_sqlstate(state, rule->meaning, rule->action);
    }
    print_sqlstate("any other", "Constraint, data, a trigger that raises: the message's own error", rule->action);
    end_list();
}

static const struct {
    const char *name;
    const char *argument;
    const char *meaning;
} options[] = {
#define X(id, name, argument, meaning) {name, argument, meaning},
    CTL_OPTION_MAP(X)
#undef X
};

static void append_option(struct buffer *buffer, size_t index)
{
    const char *argument = options[index].argument;
    buffer_printf(buffer, "--%s%s%s", options[index].name, argument ? "=" : "", argument ? argument : "");
}

static void print_options(void)
{
    begin_list();
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        struct buffer name = {0};
        append_option(&name, i);
        print_item("Cm", text_of(&name));
        print_line(options[i].meaning);
        buffer_free(&name);
    }
    end_list();
}

static void print_command(const struct ctl_command *command)
{
    struct buffer usage = {0};
    buffer_append_text(&usage, command->name);
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        if (!(command->options & 1U << i))
            continue;
        buffer_append_text(&usage, " [");
        append_option(&usage, i);
        buffer_append_char(&usage, ']');
    }
    if (command->operands)
        buffer_printf(&usage, command->operands_min > 0 ? " %s" : " [%s]", command->operands);
    print_item("Ic", text_of(&usage));
    buffer_free(&usage);
    for (const char *text = command->details; *text;) {
        size_t length = strcspn(text, "\n");
        print_text(text, length);
        puts(".Pp");
        text += length + (text[length] == '\n');
    }
    struct buffer settings = {0};
    buffer_printf(&settings, "Settings that count: --config %s", command->settings);
    print_line(text_of(&settings));
    buffer_free(&settings);
}

static void print_commands(void)
{
    begin_list();
    for (const struct ctl_command *command = ctl_commands; command->name; command++)
        print_command(command);
    end_list();
}

static void print_exits(void)
{
#define X(name, code, meaning) {#code, meaning},
    static const struct {
        const char *code;
        const char *meaning;
    } exits[] = {CTL_EXIT_MAP(X)};
#undef X
    begin_list();
    for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++) {
        print_item("Sy", exits[i].code);
        print_line(exits[i].meaning);
    }
    end_list();
}

static const struct {
    const char *name;
    void (*print)(void);
} parts[] = {
    {"settings", print_settings}, {"flags", print_flags},         {"metrics", print_metrics},
    {"reasons", print_reasons},   {"sqlstates", print_sqlstates}, {"commands", print_commands},
    {"options", print_options},   {"exits", print_exits},
};

int main(int argc, char *argv[])
{
    for (size_t i = 0; argc == 2 && i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(argv[1], parts[i].name) != 0)
            continue;
        parts[i].print();
        return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    (void)fprintf(stderr, "usage: manual_doc PART\n");
    return EXIT_FAILURE;
}
