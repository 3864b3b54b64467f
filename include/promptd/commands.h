/* SPDX-License-Identifier: MIT */
/*
 * What the commands of promptctl share. A command is one file with one function, and one row in commands.c; main.c
 * reads the command line, then the settings, then calls it.
 */
#ifndef PROMPTD_COMMANDS_H
#define PROMPTD_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/error.h"
#include "promptd/settings.h"

/* The exit codes: name, code, meaning. Those from 64 are promptd's own (error.h). */
#define CTL_EXIT_MAP(X)                                                                                                \
    X(OK, 0, "done, or nothing is wrong")                                                                              \
    X(FOUND, 1, "something was found and left, did not pass, or was not done after all")                               \
    X(USAGE, 64, "bad command line; or a change was asked for without a terminal and without --yes")                   \
    X(UNREACHABLE, 69, "Redis, PostgreSQL or the daemon cannot be reached")                                            \
    X(INTERNAL, 70, "internal error, such as output that cannot be written")                                           \
    X(SPOOL, 73, "the spool cannot be used")                                                                           \
    X(CONFIG, 78, "something is set up wrong: a setting, a login, a privilege, a table")

enum ctl_exit {
#define X(name, code, meaning) CTL_##name = (code),
    CTL_EXIT_MAP(X)
#undef X
};

/* Options besides the settings: name, argument (NULL: none), what it does. Which command takes which is in its row. */
#define CTL_OPTION_MAP(X)                                                                                              \
    X(ALL, "all", NULL, "All of them.")                                                                                \
    X(DELETE, "delete", NULL, "Delete what is found.")                                                                 \
    X(FAIL, "fail", NULL, "Mark what is found as failed.")                                                             \
    X(INTERVIEW, "interview", "ID", "The interview that the prompt is for.")                                           \
    X(JSON, "json", NULL, "Print JSON, for programs.")                                                                 \
    X(LINES, "lines", NULL, "Each line is a message; blank ones are passed over.")                                     \
    X(OLDER_THAN, "older-than", "AGE", "Only what is at least so old: 90, 90s, 5m, 1h, 2d. Default: 5m.")              \
    X(QUIET, "quiet", NULL, "Print nothing but errors; the exit code says it.")                                        \
    X(RAW, "raw", NULL, "Print the message alone, byte for byte.")                                                     \
    X(SCAN, "scan", NULL, "Look through all prompts, too.")                                                            \
    X(SOURCE, "source", "SOURCE", "The message's source; without it the field is left out.")                           \
    X(YES, "yes", NULL, "Do not ask. Needed where there is no terminal to ask on.")

enum ctl_option {
#define X(id, name, argument, meaning) CTL_OPTION_##id,
    CTL_OPTION_MAP(X)
#undef X
        CTL_OPTION_COUNT
};

extern const struct settings_flag ctl_options[]; /* by enum ctl_option; ends with a NULL name */

#define CTL_TAKES(id) (1U << CTL_OPTION_##id)

struct ctl {
    const char *options[CTL_OPTION_COUNT]; /* NULL: not given; "" for one without an argument */
    char *const *operands;                 /* behind the command's name */
    int operand_count;
    struct settings settings;
    bool colour; /* standard output is a terminal that shall have colours */
};

struct ctl_command {
    const char *name;     /* one word, or two: "dead list" */
    const char *operands; /* "ID…"; NULL: none */
    int operands_min;
    int operands_max;
    unsigned options;     /* CTL_TAKES, or-ed */
    const char *settings; /* that count, as flags */
    const char *summary;
    const char *details; /* for its own --help; paragraphs end with \n */
    int (*run)(struct ctl *ctl);
};

extern const struct ctl_command ctl_commands[]; /* ends with a NULL name */

int ctl_dead_list(struct ctl *ctl);
int ctl_dead_show(struct ctl *ctl);
int ctl_dead_replay(struct ctl *ctl);
int ctl_dead_drop(struct ctl *ctl);
int ctl_check(struct ctl *ctl);
int ctl_orphans(struct ctl *ctl);
int ctl_publish(struct ctl *ctl);
int ctl_status(struct ctl *ctl);
int ctl_stuck(struct ctl *ctl);
int ctl_validate(struct ctl *ctl);

static inline bool ctl_has(const struct ctl *ctl, enum ctl_option option)
{
    return ctl->options[option] != NULL;
}

/* The text of --help: of the whole, or of every command whose name begins with these words. */
void ctl_print_help(const char *words);

#endif
