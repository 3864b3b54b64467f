/* SPDX-License-Identifier: MIT */
/* The life of the process: start order, signals, reload, drain, end. */
#ifndef PROMPTD_DAEMON_H
#define PROMPTD_DAEMON_H

#include "promptd/settings.h"

/* The command line, to read the settings again. Borrowed. */
struct daemon_arguments {
    int argc;
    char **argv;
    const struct settings_program *program;
};

/* Runs until asked to stop. Takes the settings over. Returns the exit status; may end the process itself, with _exit,
 * on a second signal or when a thread does not finish in time. */
int daemon_run(struct settings *settings, const struct daemon_arguments *arguments);

#endif
