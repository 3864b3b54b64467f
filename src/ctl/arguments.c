/* SPDX-License-Identifier: MIT */
/* Sorts the words of the command line. Whether a setting's value is good is for settings_load to say. */
#include "arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/settings_table.h"

struct option_row {
    const char *name;
    const char *argument;
};

static const struct option_row options[] = {
#define X(id, name, argument, meaning) {name, argument},
    CTL_OPTION_MAP(X)
#undef X
};

struct reader {
    struct arguments *arguments;
    char **argv;
    int next; /* index of the next word */
    int word_count;
    unsigned given; /* options, as CTL_TAKES */
    struct error *error;
};

static bool flag_is(const char *word, size_t length, const char *name)
{
    return strlen(name) == length && strncmp(word, name, length) == 0;
}

/* Does the flag need a value, so that the next word may be it? Of a name that nobody knows we need not know it. */
static bool setting_takes_value(const char *word, size_t length)
{
    char name[SETTING_NAME_SIZE];
    (void)snprintf(name, sizeof name, "%.*s", (int)length, word);
    for (const struct settings_flag *flag = settings_flags; flag->name; flag++) {
        if (strcmp(flag->name, name) == 0)
            return flag->argument != NULL;
    }
    for (char *c = name; *c; c++) {
        if (*c == '-')
            *c = '_';
    }
    return settings_table_find(name) != NULL;
}

static void pass_on(struct reader *reader, const char *word, size_t length)
{
    struct arguments *arguments = reader->arguments;
    arguments->settings[arguments->setting_count++] = reader->argv[reader->next++];
    if (word[length] != '=' && setting_takes_value(word, length) && reader->argv[reader->next])
        arguments->settings[arguments->setting_count++] = reader->argv[reader->next++];
}

static bool take_option(struct reader *reader, size_t option, const char *value)
{
    reader->next++;
    if (options[option].argument && !value) {
        value = reader->argv[reader->next];
        if (!value)
            return error_set(reader->error, ERROR_USAGE, "flag --%s needs a value (%s)", options[option].name,
                             options[option].argument);
        reader->next++;
    } else if (!options[option].argument && value) {
        return error_set(reader->error, ERROR_USAGE, "flag --%s takes no value", options[option].name);
    }
    reader->arguments->options[option] = value ? value : "";
    reader->given |= 1U << option;
    return true;
}

static bool take_flag(struct reader *reader)
{
    const char *word = reader->argv[reader->next] + 2;
    size_t length = strcspn(word, "=");
    bool *const switches[] = {&reader->arguments->help, &reader->arguments->version, &reader->arguments->print_config};
    static const char *const names[] = {"help", "version", "print-config"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(word, names[i]) == 0) {
            *switches[i] = true;
            reader->next++;
            return true;
        }
    }
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        if (flag_is(word, length, options[i].name))
            return take_option(reader, i, word[length] == '=' ? word + length + 1 : NULL);
    }
    if (flag_is(word, length, "check"))
        return error_set(reader->error, ERROR_USAGE,
                         "unknown flag --check; `promptctl check` tries the connections, and"
                         " `promptd --check` judges the settings");
    pass_on(reader, word, length);
    return true;
}

static bool sort_words(struct reader *reader, int argc)
{
    bool flags_end = false;
    while (reader->next < argc) {
        char *word = reader->argv[reader->next];
        if (!flags_end && strcmp(word, "--") == 0) {
            flags_end = true;
            reader->next++;
        } else if (!flags_end && word[0] == '-' && word[1] == '-') {
            if (!take_flag(reader))
                return false;
        } else if (!flags_end && word[0] == '-' && word[1] != '\0') {
            return error_set(reader->error, ERROR_USAGE,
                             "unknown flag %.40s; flags have two dashes, and --help lists"
                             " them all",
                             word);
        } else {
            reader->arguments->words[reader->word_count++] = word;
            reader->next++;
        }
    }
    return true;
}

/* How many of the given words the command's name has: all of its own, or 0. */
static int words_of(const struct ctl_command *command, char *const *words, int count)
{
    const char *name = command->name;
    for (int i = 0; i < count; i++) {
        size_t length = strcspn(name, " ");
        if (!flag_is(name, length, words[i]))
            return 0;
        if (name[length] == '\0')
            return i + 1;
        name += length + 1;
    }
    return 0;
}

static bool begins_a_command(const char *word)
{
    size_t length = strlen(word);
    for (const struct ctl_command *command = ctl_commands; command->name; command++) {
        if (strncmp(command->name, word, length) == 0 &&
            (command->name[length] == ' ' || command->name[length] == '\0'))
            return true;
    }
    return false;
}

static bool find_command(struct reader *reader)
{
    struct arguments *arguments = reader->arguments;
    for (const struct ctl_command *command = ctl_commands; command->name; command++) {
        int count = words_of(command, arguments->words, reader->word_count);
        if (count > 0) {
            arguments->command = command;
            arguments->operands = arguments->words + count;
            arguments->operand_count = reader->word_count - count;
            return true;
        }
    }
    const char *word = reader->word_count > 0 ? arguments->words[0] : NULL;
    if (!word)
        return error_set(reader->error, ERROR_USAGE, "there is no command; promptctl --help lists them");
    if (begins_a_command(word))
        return error_set(reader->error, ERROR_USAGE, "%s needs one of its own commands; promptctl %s --help lists them",
                         word, word);
    return error_set(reader->error, ERROR_USAGE, "unknown command; promptctl --help lists them");
}

static bool check_command(struct reader *reader)
{
    const struct arguments *arguments = reader->arguments;
    const struct ctl_command *command = arguments->command;
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        if ((reader->given & ~command->options) & 1U << i)
            return error_set(reader->error, ERROR_USAGE,
                             "flag --%s is none of promptctl %s; promptctl %s --help lists"
                             " them",
                             options[i].name, command->name, command->name);
    }
    if (arguments->operand_count < command->operands_min)
        return error_set(reader->error, ERROR_USAGE, "promptctl %s needs %s", command->name, command->operands);
    if (arguments->operand_count > command->operands_max)
        return error_set(reader->error, ERROR_USAGE, "promptctl %s takes no %sarguments", command->name,
                         command->operands_max > 0 ? "further " : "");
    return true;
}

static bool ask_for_help(struct arguments *arguments, int word_count)
{
    const char *first = word_count > 0 ? arguments->words[0] : "";
    const char *second = word_count > 1 ? arguments->words[1] : "";
    (void)snprintf(arguments->help_text, sizeof arguments->help_text, "%s %s", first, second);
    if (!begins_a_command(arguments->help_text))
        (void)snprintf(arguments->help_text, sizeof arguments->help_text, "%s", first);
    arguments->help_words = *first && begins_a_command(arguments->help_text) ? arguments->help_text : "";
    return true;
}

bool arguments_read(int argc, char *argv[], struct arguments *arguments, struct error *error)
{
    *arguments = (struct arguments){0};
    size_t size = (size_t)argc + 2;
    arguments->settings = calloc(size, sizeof *arguments->settings);
    arguments->words = calloc(size, sizeof *arguments->words);
    if (!arguments->settings || !arguments->words)
        return error_set(error, ERROR_INTERNAL, "memory is out");
    static char program[] = "promptctl";
    arguments->settings[arguments->setting_count++] = program;
    struct reader reader = {.arguments = arguments, .argv = argv, .next = 1, .error = error};
    if (!sort_words(&reader, argc))
        return false;
    if (arguments->help)
        return ask_for_help(arguments, reader.word_count);
    if (arguments->version || (arguments->print_config && reader.word_count == 0))
        return true;
    return find_command(&reader) && check_command(&reader);
}

void arguments_free(struct arguments *arguments)
{
    free(arguments->settings);
    free(arguments->words);
}
