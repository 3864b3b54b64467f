/* SPDX-License-Identifier: MIT */
/* Gathers settings from flags, environment and file, each under the rules of its row in the table. */
#include "promptd/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "promptd/buffer.h"
#include "promptd/settings_table.h"
#include "promptd/text.h"

#define LOG_COMPONENT "settings"
#include "promptd/log.h"

#ifndef SETTINGS_DEFAULT_FILE
#define SETTINGS_DEFAULT_FILE "/etc/promptd/promptd.conf"
#endif

enum { VARIABLE_SIZE = SETTING_NAME_SIZE + 32 };

struct loader {
    struct settings *settings;
    struct settings_command command;
    const char *file; /* of --config; NULL: the default one */
    struct error *error;
};

struct file_lines {
    struct loader *loader;
    const char *path;
    unsigned seen[SETTINGS_MAX]; /* the line that had the setting, 0: none yet */
};

static bool memory_is_out(struct loader *loader)
{
    return error_set(loader->error, ERROR_INTERNAL, "memory is out");
}

static enum error_code code_of(enum setting_origin origin)
{
    return origin == SETTING_FLAG ? ERROR_USAGE : ERROR_CONFIG;
}

static bool refuse_value(struct loader *loader, const struct setting *row, enum setting_origin origin,
                         const char *place, const char *text, const char *phrase)
{
    struct buffer message = {0};
    buffer_printf(&message, "setting %s: value \"", row->name);
    setting_append_shown(row, text, &message);
    buffer_printf(&message, "\" from %s %s (allowed: ", place, phrase);
    setting_append_allowed(row, &message);
    buffer_append_text(&message, ")");
    buffer_append_char(&message, '\0');
    if (message.failed)
        memory_is_out(loader);
    else
        error_set(loader->error, code_of(origin), "%s", message.data);
    buffer_free(&message);
    return false;
}

/* Judges a value, and takes it unless one is there already that counts over it. */
static bool offer(struct loader *loader, const struct setting *row, enum setting_origin origin, const char *place,
                  const char *text)
{
    struct settings *settings = loader->settings;
    size_t index = settings_table_index(row);
    bool counts = origin >= settings->origins[index];
    struct error phrase = {0};
    if (!setting_parse(row, text, counts ? settings : NULL, &phrase)) {
        if (phrase.code == ERROR_INTERNAL)
            return memory_is_out(loader);
        return refuse_value(loader, row, origin, place, text, phrase.text);
    }
    if (!counts)
        return true;
    free(settings->places[index]);
    settings->places[index] = strdup(place);
    settings->origins[index] = origin;
    return settings->places[index] || memory_is_out(loader);
}

static bool take_defaults(struct loader *loader)
{
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        struct error phrase = {0};
        if (!setting_parse(row, row->initial, loader->settings, &phrase))
            return error_set(loader->error, ERROR_INTERNAL, "the default of %s %s", row->name, phrase.text);
    }
    if (log_stderr_is_journal())
        loader->settings->log_format = LOG_FORMAT_JOURNAL;
    return true;
}

/* ---- flags ---- */

/* One word of the command line, taken apart: --name or --name=value. */
struct flag {
    char name[SETTING_NAME_SIZE]; /* without the dashes */
    const char *value;            /* NULL where there is no = */
};

static bool unknown_flag(struct loader *loader, const char *word, const char *name)
{
    char flag[SETTING_NAME_SIZE] = "";
    const char *nearest = settings_table_nearest(name, true);
    if (nearest)
        setting_flag_name(nearest, flag);
    return error_set(loader->error, ERROR_USAGE, "unknown flag %.*s; %s%s%s", (int)strcspn(word, "="), word,
                     nearest ? "did you mean --" : "--help lists them all", flag, nearest ? "?" : "");
}

static bool split_flag(struct loader *loader, const char *word, struct flag *flag)
{
    const char *name = word + (strncmp(word, "--", 2) == 0 ? 2 : 1);
    size_t length = strcspn(name, "=");
    bool fits = length < sizeof flag->name;
    (void)snprintf(flag->name, sizeof flag->name, "%.*s", (int)(fits ? length : 0), name);
    flag->value = name[length] == '=' ? name + length + 1 : NULL;
    return (fits && name == word + 2) || unknown_flag(loader, word, flag->name);
}

/* The value of a flag that needs one: behind its =, or the next word. */
static const char *flag_value(struct loader *loader, const struct flag *flag, char *const argv[], int *next)
{
    if (flag->value)
        return flag->value;
    if (argv[*next])
        return argv[(*next)++];
    error_set(loader->error, ERROR_USAGE, "flag --%s needs a value", flag->name);
    return NULL;
}

static bool take_own_flag(struct loader *loader, const struct settings_flag *own, const struct flag *flag,
                          char *const argv[], int *next)
{
    if (!own->argument) {
        loader->command.action = own->action;
        return !flag->value || error_set(loader->error, ERROR_USAGE, "flag --%s takes no value", flag->name);
    }
    loader->file = flag_value(loader, flag, argv, next);
    if (!loader->file)
        return false;
    return *loader->file || error_set(loader->error, ERROR_USAGE, "flag --%s needs the name of a file", flag->name);
}

static const struct setting *find_setting_of_flag(const char *flag)
{
    for (size_t i = 0; settings_table_row(i); i++) {
        char name[SETTING_NAME_SIZE];
        setting_flag_name(settings_table_row(i)->name, name);
        if (strcmp(name, flag) == 0)
            return settings_table_row(i);
    }
    return NULL;
}

static bool take_flag(struct loader *loader, char *const argv[], int *next)
{
    const char *word = argv[(*next)++];
    struct flag flag;
    if (!split_flag(loader, word, &flag))
        return false;
    for (const struct settings_flag *own = settings_flags; own->name; own++) {
        if (strcmp(own->name, flag.name) == 0)
            return take_own_flag(loader, own, &flag, argv, next);
    }
    const struct setting *row = find_setting_of_flag(flag.name);
    if (!row)
        return unknown_flag(loader, word, flag.name);
    const char *value = flag_value(loader, &flag, argv, next);
    char place[VARIABLE_SIZE];
    (void)snprintf(place, sizeof place, "flag --%s", flag.name);
    return value && offer(loader, row, SETTING_FLAG, place, value);
}

/* True when nothing but the flags matters any more: help must be there also when the settings are broken. */
static bool is_answered_at_once(const struct loader *loader)
{
    return loader->command.action == SETTINGS_HELP || loader->command.action == SETTINGS_VERSION;
}

static bool take_flags(struct loader *loader, int argc, char *const argv[], bool operands_allowed)
{
    int next = argc > 0 ? 1 : 0;
    while (next < argc && argv[next][0] == '-' && argv[next][1] != '\0') {
        if (strcmp(argv[next], "--") == 0) {
            next++;
            break;
        }
        if (!take_flag(loader, argv, &next))
            return false;
        if (is_answered_at_once(loader))
            break;
    }
    loader->command.first_operand = next;
    if (next < argc && !operands_allowed && !is_answered_at_once(loader))
        return error_set(loader->error, ERROR_USAGE, "argument %d is not a flag, and no other arguments are taken",
                         next);
    return true;
}

/* ---- environment ---- */

static const char *find_variable(char *const environment[], const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    }
    return NULL;
}

static bool offer_value_file(struct loader *loader, const struct setting *row, const char *variable, const char *path)
{
    struct error phrase = {0};
    char *text = settings_read_value_file(path, &phrase);
    if (!text)
        return error_set(loader->error, phrase.code, "setting %s: file \"%s\" from environment %s %s", row->name, path,
                         variable, phrase.text);
    char *place = NULL;
    bool good = asprintf(&place, "environment %s (file %s)", variable, path) >= 0 || memory_is_out(loader);
    if (good) {
        good = offer(loader, row, SETTING_ENVIRONMENT, place, text);
        free(place);
    }
    free(text);
    return good;
}

/* systemd leaves out a credential that nobody provides: then the variable that names it is as good as absent. */
static bool is_absent_credential(const char *path, char *const environment[])
{
    const char *folder = find_variable(environment, "CREDENTIALS_DIRECTORY");
    size_t length = folder ? strlen(folder) : 0;
    return length > 0 && strncmp(path, folder, length) == 0 && path[length] == '/' && access(path, F_OK) != 0 &&
           errno == ENOENT;
}

static bool take_variable(struct loader *loader, const struct setting *row, char *const environment[])
{
    char variable[VARIABLE_SIZE];
    char file_variable[VARIABLE_SIZE + 8];
    setting_variable_name(row, variable);
    (void)snprintf(file_variable, sizeof file_variable, "%s_FILE", variable);
    const char *value = find_variable(environment, variable);
    const char *path = row->secret ? find_variable(environment, file_variable) : NULL;
    if (path && is_absent_credential(path, environment))
        path = NULL;
    if (value && path)
        return error_set(loader->error, ERROR_CONFIG,
                         "setting %s: environment %s and environment %s are both set (allowed: one of them)", row->name,
                         variable, file_variable);
    if (path)
        return offer_value_file(loader, row, file_variable, path);
    char place[VARIABLE_SIZE + 16];
    (void)snprintf(place, sizeof place, "environment %s", variable);
    return !value || offer(loader, row, SETTING_ENVIRONMENT, place, value);
}

/* A variable that other programs use too. Empty is as good as absent there, and it is not judged unless it counts. */
static bool take_shared_variable(struct loader *loader, const struct setting *row, char *const environment[])
{
    if (!row->shared_variable || loader->settings->origins[settings_table_index(row)] > SETTING_SHARED)
        return true;
    const char *value = find_variable(environment, row->shared_variable);
    if (!value || *value == '\0')
        return true;
    char place[VARIABLE_SIZE];
    (void)snprintf(place, sizeof place, "environment %s", row->shared_variable);
    return offer(loader, row, SETTING_SHARED, place, value);
}

static bool is_known_variable(const char *name, size_t length)
{
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        char variable[VARIABLE_SIZE];
        setting_variable_name(row, variable);
        size_t known = strlen(variable);
        if (strncmp(name, variable, known) != 0)
            continue;
        if (length == known || (row->secret && length == known + 5 && strncmp(name + known, "_FILE", 5) == 0))
            return true;
    }
    return false;
}

static void warn_of_variable(const char *name, size_t length)
{
    const char *rest = name + strlen("PROMPTD_");
    char meant[SETTING_NAME_SIZE];
    (void)snprintf(meant, sizeof meant, "%.*s", (int)(length - strlen("PROMPTD_")), rest);
    const char *nearest = settings_table_nearest(meant, false);
    if (nearest) {
        char variable[VARIABLE_SIZE];
        setting_variable_name(settings_table_find(nearest), variable);
        log_warning(NULL, "environment variable %.*s is no setting and is ignored; did you mean %s?", (int)length, name,
                    variable);
    } else {
        log_warning(NULL, "environment variable %.*s is no setting and is ignored", (int)length, name);
    }
}

void settings_warn_of_variables(char *const environment[])
{
    for (; *environment; environment++) {
        size_t length = strcspn(*environment, "=");
        if (strncmp(*environment, "PROMPTD_", strlen("PROMPTD_")) == 0 && !is_known_variable(*environment, length))
            warn_of_variable(*environment, length);
    }
}

static bool take_environment(struct loader *loader, char *const environment[])
{
    for (size_t i = 0; settings_table_row(i); i++) {
        if (!take_variable(loader, settings_table_row(i), environment))
            return false;
    }
    return true;
}

static bool take_shared_environment(struct loader *loader, char *const environment[])
{
    for (size_t i = 0; settings_table_row(i); i++) {
        if (!take_shared_variable(loader, settings_table_row(i), environment))
            return false;
    }
    return true;
}

/* ---- file ---- */

static bool unknown_key(const struct file_lines *lines, const char *key, unsigned line, struct error *error)
{
    const char *nearest = settings_table_nearest(key, false);
    struct buffer shown = {0};
    text_append_escaped(&shown, key);
    buffer_append_char(&shown, '\0');
    error_set(error, ERROR_CONFIG, "file %s line %u has the unknown setting \"%.60s\"%s%s%s", lines->path, line,
              shown.failed ? "" : shown.data, nearest ? "; did you mean " : "; --help lists them all",
              nearest ? nearest : "", nearest ? "?" : "");
    buffer_free(&shown);
    return false;
}

static bool on_line(void *context, const char *key, const char *value, unsigned line, struct error *error)
{
    struct file_lines *lines = context;
    const struct setting *row = settings_table_find(key);
    if (!row)
        return unknown_key(lines, key, line, error);
    unsigned *seen = &lines->seen[settings_table_index(row)];
    if (*seen)
        return error_set(error, ERROR_CONFIG,
                         "setting %s: file %s line %u sets it again, after line %u (allowed: once)", row->name,
                         lines->path, line, *seen);
    *seen = line;
    char *place;
    if (asprintf(&place, "file %s line %u", lines->path, line) < 0)
        return memory_is_out(lines->loader);
    bool good = offer(lines->loader, row, SETTING_FILE, place, value);
    free(place);
    return good;
}

static bool take_file(struct loader *loader)
{
    struct file_lines lines = {.loader = loader, .path = loader->file ? loader->file : SETTINGS_DEFAULT_FILE};
    return settings_read_file(lines.path, loader->file != NULL, on_line, &lines, loader->error);
}

/* ---- all of it ---- */

static bool take_all(struct loader *loader, int argc, char *const argv[], char *const environment[],
                     bool operands_allowed)
{
    if (!take_defaults(loader) || !take_flags(loader, argc, argv, operands_allowed))
        return false;
    if (is_answered_at_once(loader))
        return true;
    return take_environment(loader, environment) && take_file(loader) && take_shared_environment(loader, environment) &&
           settings_check_together(loader->settings, loader->error);
}

bool settings_load(int argc, char *const argv[], char *const environment[], bool operands_allowed,
                   struct settings *settings, struct settings_command *command, struct error *error)
{
    *settings = (struct settings){0};
    struct loader loader = {.settings = settings, .error = error};
    if (!take_all(&loader, argc, argv, environment, operands_allowed)) {
        settings_free(settings);
        return false;
    }
    if (command)
        *command = loader.command;
    return true;
}

void settings_free(struct settings *settings)
{
    for (size_t i = 0; settings_table_row(i); i++) {
        setting_clear(settings_table_row(i), settings);
        free(settings->places[i]);
    }
    *settings = (struct settings){0};
}
