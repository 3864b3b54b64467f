/* SPDX-License-Identifier: MIT */
/*
 * Where the log's lines go: a file, or standard error. Nothing here waits for whoever reads them, but for
 * log_output_drain. What finds no room (a full pipe, a stopped terminal, a full disk) is kept in memory, in order and
 * up to a bound, and goes out before anything newer. What passes the bound is lost; the levels may use different shares
 * of it, so that CRITICAL lines are the last to be lost. Any thread may write.
 */
#ifndef PROMPTD_LOG_OUTPUT_H
#define PROMPTD_LOG_OUTPUT_H

#include <stddef.h>

#include "promptd/log.h"

enum {
    LOG_KEPT_BYTES = 1048576,
    LOG_KEPT_BYTES_WARNING = LOG_KEPT_BYTES / 4 * 3, /* up to here for WARNING and ERROR lines */
    LOG_KEPT_BYTES_INFO = LOG_KEPT_BYTES / 2,        /* up to here for the others */
    LOG_KEPT_BYTES_OVER = LOG_KEPT_BYTES / 4         /* the reader has caught up, or nearly so */
};

/* file: NULL for standard error. false: it cannot be opened, and nothing has changed. */
bool log_output_open(const char *file, struct error *error);

/* From here on standard error. What is kept is lost. */
void log_output_close(void);

/* Whole lines of one level. */
void log_output_write(const char *lines, size_t length, enum log_level level);

/* Writes what is kept, as far as there is room now; how many bytes are left. */
size_t log_output_retry(void);

/* The same, waiting for room until then (monotonic). */
void log_output_drain(int64_t until_us);

/* Lines lost so far. */
uint64_t log_output_lost(void);

#endif
