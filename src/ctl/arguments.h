/* SPDX-License-Identifier: MIT */
/* The command line: the command, its options and operands, and settings. */
#ifndef PROMPTCTL_ARGUMENTS_H
#define PROMPTCTL_ARGUMENTS_H

#include <stdbool.h>

#include "promptd/commands.h"

struct arguments {
    struct settings_command line;      /* its operands are the command's */
    const struct ctl_command *command; /* NULL with --help, --version and --print-config, where none is needed */
    char help_words[64];               /* the first words of a command that --help asks about; "" for the whole */
};

/* Options and settings may stand anywhere, also behind operands; behind -- everything is an operand. ERROR_USAGE names
 * what is wrong. *settings has what the flags say, for settings_load; the caller frees it. argv is borrowed, and its
 * words are moved. */
bool arguments_read(int argc, char *argv[], struct arguments *arguments, struct settings *settings,
                    struct error *error);

#endif
