/* SPDX-License-Identifier: MIT */
/* The command line taken apart: the command, its options and operands, and the flags that are settings. */
#ifndef PROMPTCTL_ARGUMENTS_H
#define PROMPTCTL_ARGUMENTS_H

#include <stdbool.h>

#include "ctl.h"

struct arguments {
    const struct ctl_command *command; /* NULL with help, version and print_config, where no command is needed */
    const char *help_words;            /* the first words of a command that --help asks about; "" for the whole */
    bool help;
    bool version;
    bool print_config;
    const char *options[CTL_OPTION_COUNT];
    char **operands; /* of the command; points into `words` */
    int operand_count;
    char **settings; /* argv for settings_load; NULL-terminated */
    int setting_count;
    char **words; /* all operands, the command's name first */
    char help_text[64];
};

/* Options and settings may stand anywhere, also behind operands; behind -- everything is an operand. ERROR_USAGE names
 * what is wrong. The words of argv are borrowed. */
bool arguments_read(int argc, char *argv[], struct arguments *arguments, struct error *error);
void arguments_free(struct arguments *arguments);

#endif
