/* SPDX-License-Identifier: MIT */
/* Gathers settings from flags, environment and file, each under the rules of its row in the table. */
#include "promptd/settings.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
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
    struct settings_command *command; /* NULL behind the command line */
    const struct settings_program *program;
    struct error *error;
};

struct file_lines {
    struct loader *loader;
    const char *path;
    unsigned seen[SETTINGS_MAX]; /* the line that had the setting, 0: none yet */
};

static bool memory_is_out(struct loader *loader)
{
    return error_set(loader->error, ERROR_INTERNAL, "out of memory");
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

static settings_validate *validator_of(const struct loader *loader, const struct setting *row)
{
    bool is_redis_url = row->offset == offsetof(struct settings, redis_url);
    return is_redis_url ? loader->program->validate_redis_url : row->validate;
}

/* Checks a value, and takes it unless one is there already that counts over it. */
static bool offer(struct loader *loader, const struct setting *row, enum setting_origin origin, const char *place,
                  const char *text)
{
    struct settings *settings = loader->settings;
    size_t index = settings_table_index(row);
    bool counts = origin >= settings->origins[index];
    struct error phrase = {0};
    if (!setting_parse(row, validator_of(loader, row), text, counts ? settings : NULL, &phrase)) {
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
        if (!setting_parse(row, row->validate, row->initial, loader->settings, &phrase))
            return error_set(loader->error, ERROR_INTERNAL, "the default of %s %s", row->name, phrase.text);
    }
    if (log_stderr_is_journal())
        loader->settings->log_format = LOG_FORMAT_JOURNAL;
    return true;
}

/* ---- flags ---- */

/* What getopt_long returns of a flag: one of these and the row in its table. */
enum { FLAG_OWN = 1000, FLAG_MORE = 2000, FLAG_SETTING = 3000, FLAGS_MAX = 2 * SETTINGS_MAX };

static struct option *list_flags(struct option *next, const struct settings_flag *flags, int value)
{
    for (; flags && flags->name; flags++)
        *next++ = (struct option){flags->name, flags->argument ? required_argument : no_argument, NULL, value++};
    return next;
}

static bool unknown_flag(struct loader *loader, const char *word)
{
    char name[SETTING_NAME_SIZE];
    char flag[SETTING_NAME_SIZE] = "";
    (void)snprintf(name, sizeof name, "%s", word + strspn(word, "-"));
    name[strcspn(name, "=")] = '\0';
    const char *nearest = settings_table_nearest(name, true);
    if (nearest)
        setting_flag_name(nearest, flag);
    return error_set(loader->error, ERROR_USAGE, "unknown flag %.*s; %s%s%s", (int)strcspn(word, "="), word,
                     nearest ? "did you mean --" : "--help lists them all", flag, nearest ? "?" : "");
}

/* getopt_long also takes a name that is cut short, as long as no other begins so; the next version may have one. */
static const struct option *find_whole(const struct option *options, const char *word)
{
    size_t length = strcspn(word, "=");
    while (options->name && (length != strlen(options->name) + 2 || strncmp(word + 2, options->name, length - 2) != 0))
        options++;
    return options->name && strncmp(word, "--", 2) == 0 ? options : NULL;
}

static bool take_flag(struct loader *loader, int got, const struct option *option, const char *word)
{
    struct settings_command *command = loader->command;
    if (!option)
        return unknown_flag(loader, word);
    if (got == ':' || got == '?')
        return error_set(loader->error, ERROR_USAGE, "flag --%s %s", option->name,
                         got == ':' ? "needs a value" : "takes no value");
    if (got >= FLAG_SETTING) {
        char place[VARIABLE_SIZE];
        (void)snprintf(place, sizeof place, "flag --%s", option->name);
        return offer(loader, settings_table_row((size_t)(got - FLAG_SETTING)), SETTING_FLAG, place, optarg);
    }
    if (got >= FLAG_MORE) {
        command->more[got - FLAG_MORE] = optarg ? optarg : "";
    } else if (optarg) {
        command->file = optarg;
        return *optarg || error_set(loader->error, ERROR_USAGE, "flag --%s needs the name of a file", option->name);
    } else {
        command->action = settings_flags[got - FLAG_OWN].action;
    }
    return true;
}

/* True when nothing but the flags matters any more: help must be there also when the settings are broken. */
static bool is_answered_at_once(const struct settings_command *command)
{
    return command->action == SETTINGS_HELP || command->action == SETTINGS_VERSION;
}

static bool take_operand(struct loader *loader, char *word, int index, bool allowed)
{
    struct settings_command *command = loader->command;
    if (allowed)
        command->operands[command->operand_count++] = word; /* in the place of a word that is done with */
    return allowed || is_answered_at_once(command) ||
           error_set(loader->error, ERROR_USAGE, "argument %d is not a flag, and no other arguments are taken", index);
}

static bool take_words(struct loader *loader, int argc, char *argv[])
{
    struct settings_command *command = loader->command;
    const struct settings_flag *more = loader->program->flags;
    struct option options[FLAGS_MAX] = {{0}};
    char names[SETTINGS_MAX][SETTING_NAME_SIZE];
    struct option *next = list_flags(list_flags(options, settings_flags, FLAG_OWN), more, FLAG_MORE);
    for (int i = 0; settings_table_row((size_t)i); i++) {
        setting_flag_name(settings_table_row((size_t)i)->name, names[i]);
        *next++ = (struct option){names[i], required_argument, NULL, FLAG_SETTING + i};
    }
    command->operands = argv + 1;
    opterr = 0;
    optind = 0; /* from the beginning, whatever was read before */
    int got;
    for (int at = 1; (got = getopt_long(argc, argv, "-:", options, NULL)) != -1; at = optind) {
        if (got == 1
                ? !take_operand(loader, optarg, at, more)
                : !is_answered_at_once(command) && !take_flag(loader, got, find_whole(options, argv[at]), argv[at]))
            return false;
    }
    for (int at = optind; at < argc; at++) {
        if (!take_operand(loader, argv[at], at, more))
            return false;
    }
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

/* A variable that other programs use too. Empty is as good as absent there, and it is not checked unless it counts. */
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

void settings_warn(const struct settings *settings, char *const environment[])
{
    for (; *environment; environment++) {
        size_t length = strcspn(*environment, "=");
        if (strncmp(*environment, "PROMPTD_", strlen("PROMPTD_")) == 0 && !is_known_variable(*environment, length))
            warn_of_variable(*environment, length);
    }
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        if (row->replaced_by && settings->origins[i] != SETTING_DEFAULT)
            log_warning(NULL, "setting %s (%s) has no effect any more; %s has taken its place", row->name,
                        settings->places[i] ? settings->places[i] : "default", row->replaced_by);
    }
}

static bool take_each(struct loader *loader, char *const environment[],
                      bool (*take)(struct loader *loader, const struct setting *row, char *const environment[]))
{
    for (size_t i = 0; settings_table_row(i); i++) {
        if (!take(loader, settings_table_row(i), environment))
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

static bool take_file(struct loader *loader, const char *path)
{
    struct file_lines lines = {.loader = loader, .path = path ? path : SETTINGS_DEFAULT_FILE};
    return settings_read_file(lines.path, path != NULL, on_line, &lines, loader->error);
}

/* ---- all of it ---- */

bool settings_read_command(int argc, char *argv[], const struct settings_program *program, struct settings *settings,
                           struct settings_command *command, struct error *error)
{
    *settings = (struct settings){0};
    *command = (struct settings_command){.program = program};
    struct loader loader = {.settings = settings, .command = command, .program = program, .error = error};
    if (take_defaults(&loader) && take_words(&loader, argc, argv))
        return true;
    settings_free(settings);
    return false;
}

bool settings_load(struct settings *settings, const struct settings_command *command, char *const environment[],
                   struct error *error)
{
    struct loader loader = {.settings = settings, .program = command->program, .error = error};
    if (is_answered_at_once(command) ||
        (take_each(&loader, environment, take_variable) && take_file(&loader, command->file) &&
         take_each(&loader, environment, take_shared_variable) && settings_check_together(settings, error)))
        return true;
    settings_free(settings);
    return false;
}

void settings_free(struct settings *settings)
{
    for (size_t i = 0; settings_table_row(i); i++) {
        setting_clear(settings_table_row(i), settings);
        free(settings->places[i]);
    }
    *settings = (struct settings){0};
}
