/* SPDX-License-Identifier: MIT */
/* Settings shown to people: --print-config, --help, and what a reload cannot change. */
#include <stdio.h>
#include <string.h>

#include "promptd/settings_table.h"
#include "promptd/text.h"

enum { HELP_WIDTH = 79, HELP_INDENT = 8 };

void settings_print(const struct settings *settings, FILE *out)
{
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        struct buffer value = {0};
        setting_append_value(row, settings, &value);
        buffer_append_char(&value, '\0');
        const char *place = settings->places[i] ? settings->places[i] : "default";
        if (value.failed)
            fprintf(out, "# %s: out of memory\n", row->name);
        else
            fprintf(out, "%s# %s\n%s =%s%s\n", i ? "\n" : "", place, row->name, *value.data ? " " : "", value.data);
        buffer_free(&value);
    }
}

static void print_wrapped(const char *text, FILE *out)
{
    struct buffer wrapped = {0};
    text_append_wrapped(&wrapped, text, HELP_INDENT, HELP_WIDTH);
    if (!wrapped.failed)
        (void)fwrite(wrapped.data, 1, wrapped.length, out);
    buffer_free(&wrapped);
}

static const char *argument_of(const struct setting *row)
{
    switch (row->type) {
    case SETTING_NUMBER:
        return "NUMBER";
    case SETTING_CHOICE:
        return "CHOICE";
    case SETTING_LIST:
        return "LIST";
    case SETTING_TEXT:
        break;
    }
    return row->secret ? "URL" : "TEXT";
}

static void print_setting_help(const struct setting *row, FILE *out)
{
    char flag[SETTING_NAME_SIZE];
    setting_flag_name(row->name, flag);
    fprintf(out, "  --%s=%s\n", flag, argument_of(row));
    print_wrapped(row->description, out);
    struct buffer facts = {0};
    buffer_append_text(&facts, "Allowed: ");
    setting_append_allowed(row, &facts);
    buffer_printf(&facts, ". Default: %s.%s", *row->initial ? row->initial : "empty",
                  row->live ? " A reload changes it." : "");
    buffer_append_char(&facts, '\0');
    if (!facts.failed)
        print_wrapped(facts.data, out);
    buffer_free(&facts);
}

void settings_print_help(FILE *out)
{
    fputs("Flags:\n", out);
    for (const struct settings_flag *flag = settings_flags; flag->name; flag++) {
        fprintf(out, "  --%s%s%s\n", flag->name, flag->argument ? "=" : "", flag->argument ? flag->argument : "");
        print_wrapped(flag->description, out);
    }
    fputs("\nSettings (--redis-url is PROMPTD_REDIS_URL in the environment, and redis_url in\nthe file):\n", out);
    for (size_t i = 0; settings_table_row(i); i++)
        print_setting_help(settings_table_row(i), out);
}

size_t settings_fixed_differences(const struct settings *now, const struct settings *next, char *names, size_t size)
{
    size_t count = 0;
    size_t used = 0;
    if (size > 0)
        names[0] = '\0';
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        if (row->live || setting_is_equal(row, now, next))
            continue;
        int length = snprintf(names + used, size - used, "%s%s", count ? ", " : "", row->name);
        used = length < 0 || (size_t)length >= size - used ? size - (size > 0) : used + (size_t)length;
        count++;
    }
    return count;
}
