/* SPDX-License-Identifier: MIT */
/* What promptctl says to people, and what it asks them. Results go to standard output, all else to standard error. */
#ifndef PROMPTCTL_OUTPUT_H
#define PROMPTCTL_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"
#include "promptd/commands.h"

/* "promptctl: …" on standard error; returns the exit code that belongs to the error. With ERROR_NONE that is CTL_FOUND:
 * neither the command line nor the configuration nor promptctl is to blame. */
int output_fail(const struct error *error);

/* A line on standard error that is no error. */
void output_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes and empties the buffer. What cannot be written shows at output_end. */
void output_write(struct buffer *buffer);

/* `status`, or CTL_INTERNAL with a line when the output was not written in full. */
int output_end(int status);

/* Colours where the terminal shall have them, else empty: output_colour(ctl, OUTPUT_RED). */
#define OUTPUT_RED "\033[31m"
#define OUTPUT_GREEN "\033[32m"
#define OUTPUT_YELLOW "\033[33m"
#define OUTPUT_BOLD "\033[1m"
#define OUTPUT_PLAIN "\033[0m"
const char *output_colour(const struct ctl *ctl, const char *colour);

/* Whether a change can be asked for at all: with --yes, or on a terminal. false fills *error (ERROR_USAGE). To be
 * looked at before anything else, so that a script fails each time and not only when there is something to change. */
bool output_may_change(const struct ctl *ctl, struct error *error);

/* Asks "question [y/N]" unless --yes was given. false: no, and it is said that nothing was changed. */
bool output_confirm(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
