/* SPDX-License-Identifier: MIT */
/* Prints docs/SETTINGS.md from the table of settings. Not installed; scripts/generate-docs runs it. */
#include <stdio.h>
#include <stdlib.h>

#include "promptd/settings_table.h"

static const char introduction[] =
    "<!-- Made by scripts/generate-docs from src/base/settings_table.c; change it there. -->\n"
    "# Settings\n"
    "\n"
    "Each setting has one name in three spellings: `redis_url` in the file is `PROMPTD_REDIS_URL` in the\n"
    "environment and `--redis-url VALUE` or `--redis-url=VALUE` as a flag. promptd and promptctl take the same ones.\n"
    "`promptd --print-config` shows the values in force and where each came from, `promptd --check` checks them.\n"
    "\n"
    "## Which value counts\n"
    "\n"
    "1. the flag; of a flag given twice, the last one\n"
    "2. the environment: `PROMPTD_…`; for the two URLs also `PROMPTD_REDIS_URL_FILE` and\n"
    "   `PROMPTD_DATABASE_URL_FILE`, which name a file whose text, without the white space at its end, is the value.\n"
    "   Setting a variable and its `_FILE` is an error. A `_FILE` that names a credential of systemd's (a file in\n"
    "   `$CREDENTIALS_DIRECTORY`) that nobody has provided does not count.\n"
    "3. the file: that of `--config`, which must exist, else `/etc/promptd/promptd.conf`, which may be absent\n"
    "4. `REDIS_URL` and `DATABASE_URL`, which other programs share; there empty is as good as absent\n"
    "5. the default\n"
    "\n"
    "Every value under promptd's own names is checked, also one that another overrides; the shared ones only where "
    "they\n"
    "count. What is wrong ends the start with one line that names the setting, where it came from and what is "
    "allowed:\n"
    "exit status 64 for the command line, 78 for the environment and the file. Where two settings contradict one "
    "another,\n"
    "it is 64 if either is a flag. An unknown flag or key is an error; an unknown `PROMPTD_…` variable is only warned "
    "of.\n"
    "\n"
    "Flags can be read by everyone on the machine (`ps`): passwords belong into the file, the environment or a "
    "`_FILE`.\n"
    "Wherever a URL is shown, its password is `***`.\n"
    "\n"
    "## The file\n"
    "\n"
    "Lines of `key = value`, without sections. A line that begins with `#` or `;` is a comment; behind a value these\n"
    "characters are part of it. Nothing is quoted or escaped. White space around a value does not count, in the file "
    "or\n"
    "elsewhere. A key may stand there once. A line has 8190 bytes at most, a value 8000.\n"
    "\n"
    "What `--print-config` prints has this form, so that it can be kept as a file, with the passwords put back in.\n"
    "\n"
    "## Reload\n"
    "\n"
    "On SIGHUP all of this is read again. A mistake anywhere changes nothing at all. Settings marked *live* below "
    "take\n"
    "effect; the others keep the value they had at the start, and are named in the log if they differ.\n";

static const char *text_of(struct buffer *buffer)
{
    buffer_append_char(buffer, '\0');
    if (buffer->failed)
        abort();
    return buffer->data;
}

static void print_overview(void)
{
    puts("\n## Overview\n\n| setting | default | allowed | reload |\n| --- | --- | --- | --- |");
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        struct buffer allowed = {0};
        setting_append_allowed(row, &allowed);
        const char *tick = *row->initial ? "`" : "";
        printf("| [`%s`](#%s) | %s%s%s | %s | %s |\n", row->name, row->name, tick,
               *row->initial ? row->initial : "empty", tick, text_of(&allowed), row->live ? "live" : "at start");
        buffer_free(&allowed);
    }
}

static void print_setting(const struct setting *row)
{
    char variable[SETTING_NAME_SIZE + 16];
    char flag[SETTING_NAME_SIZE];
    setting_variable_name(row, variable);
    setting_flag_name(row->name, flag);
    printf("\n### %s\n\n%s\n\n`--%s`, `%s`", row->name, row->description, flag, variable);
    if (row->secret)
        printf(", `%s_FILE`", variable);
    if (row->shared_variable)
        printf(", `%s`", row->shared_variable);
    printf("\n");
}

static void print_flags(void)
{
    puts("\n## Flags that are no settings\n\n| flag | |\n| --- | --- |");
    for (const struct settings_flag *flag = settings_flags; flag->name; flag++)
        printf("| `--%s%s%s` | %s |\n", flag->name, flag->argument ? " " : "", flag->argument ? flag->argument : "",
               flag->description);
}

int main(void)
{
    fputs(introduction, stdout);
    print_overview();
    puts("\n## Each of them");
    for (size_t i = 0; settings_table_row(i); i++)
        print_setting(settings_table_row(i));
    print_flags();
    return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
