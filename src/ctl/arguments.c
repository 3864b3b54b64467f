/* SPDX-License-Identifier: MIT */
/* Finds the command among the words of the command line, and whether it takes the rest. */
#include "arguments.h"

#include <stdio.h>
#include <string.h>

#include "promptd/redis_address.h"

/* How many of the given words the command's name has: all of its own, or 0. */
static int words_of(const struct ctl_command *command, char *const *words, int count)
{
    const char *name = command->name;
    for (int i = 0; i < count; i++) {
        size_t length = strcspn(name, " ");
        if (strlen(words[i]) != length || strncmp(name, words[i], length) != 0)
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

static bool find_command(struct arguments *arguments, struct error *error)
{
    struct settings_command *line = &arguments->line;
    for (const struct ctl_command *command = ctl_commands; command->name; command++) {
        int count = words_of(command, line->operands, line->operand_count);
        if (count > 0) {
            arguments->command = command;
            line->operands += count;
            line->operand_count -= count;
            return true;
        }
    }
    if (line->operand_count == 0)
        return error_set(error, ERROR_USAGE, "there is no command; promptctl --help lists them");
    const char *word = line->operands[0];
    if (begins_a_command(word))
        return error_set(error, ERROR_USAGE, "%s needs one of its own commands; promptctl %s --help lists them", word,
                         word);
    return error_set(error, ERROR_USAGE, "unknown command; promptctl --help lists them");
}

static bool check_command(const struct arguments *arguments, struct error *error)
{
    const struct ctl_command *command = arguments->command;
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++) {
        if (arguments->line.more[i] && !(command->options & 1U << i))
            return error_set(error, ERROR_USAGE, "flag --%s is none of promptctl %s; promptctl %s --help lists them",
                             ctl_options[i].name, command->name, command->name);
    }
    if (arguments->line.operand_count < command->operands_min)
        return error_set(error, ERROR_USAGE, "promptctl %s needs %s", command->name, command->operands);
    if (arguments->line.operand_count > command->operands_max)
        return error_set(error, ERROR_USAGE, "promptctl %s takes no %sarguments", command->name,
                         command->operands_max > 0 ? "further " : "");
    return true;
}

static void ask_for_help(struct arguments *arguments)
{
    const struct settings_command *line = &arguments->line;
    const char *first = line->operand_count > 0 ? line->operands[0] : "";
    const char *second = line->operand_count > 1 ? line->operands[1] : "";
    (void)snprintf(arguments->help_words, sizeof arguments->help_words, "%s %s", first, second);
    if (!begins_a_command(arguments->help_words))
        (void)snprintf(arguments->help_words, sizeof arguments->help_words, "%s", begins_a_command(first) ? first : "");
}

bool arguments_read(int argc, char *argv[], struct arguments *arguments, struct settings *settings, struct error *error)
{
    static const struct settings_program program = {.flags = ctl_options, .validate_redis_url = redis_address_validate};
    *arguments = (struct arguments){0};
    if (!settings_read_command(argc, argv, &program, settings, &arguments->line, error))
        return false;
    switch (arguments->line.action) {
    case SETTINGS_HELP:
        ask_for_help(arguments);
        return true;
    case SETTINGS_VERSION:
        return true;
    case SETTINGS_CHECK:
        return error_set(error, ERROR_USAGE,
                         "unknown flag --check; `promptctl check` tries the connections, and"
                         " `promptd --check` checks the settings");
    case SETTINGS_PRINT:
        if (arguments->line.operand_count == 0)
            return true;
        break;
    case SETTINGS_RUN:
        break;
    }
    return find_command(arguments, error) && check_command(arguments, error);
}
