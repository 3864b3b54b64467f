/* SPDX-License-Identifier: MIT */
/*
 * The log: one event, one line, in one of three formats.
 *
 *     #define LOG_COMPONENT "store"
 *     #include "promptd/log.h"
 *     log_error(LOG_FIELDS(log_text("sqlstate", state), log_number("bytes", n)), "prompt not stored for %s", id);
 *
 * text:    2026-11-23T16:01:02.345Z ERROR store: prompt not stored for 5f0c… sqlstate=23514 bytes=2048
 * journal: the same without the time, behind "<3>" (sd-daemon(3) priorities)
 * json:    one object with time, level, component, message and the fields
 *
 * Whatever is logged, a line stays one line: control characters and invalid UTF-8 in message or values are escaped.
 * Never hand prompt text or passwords to these functions. errno is preserved. No call fails or waits for a reader: what
 * cannot be written yet is kept, up to a bound in which CRITICAL lines come first; lines that pass it are counted, and
 * the count is logged once writing works again. A line is one write(2), or part of one between log_hold and
 * log_release; when out of memory it comes without its fields. Any thread may log; opening, reopening and closing
 * belong to the main thread. A closed pipe raises SIGPIPE as ever: the program ignores it, or dies of its log.
 */
#ifndef PROMPTD_LOG_H
#define PROMPTD_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/error.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR, LOG_LEVEL_CRITICAL };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON, LOG_FORMAT_JOURNAL };

/* Texts are borrowed for the call. A field whose text is NULL is left out of the line; only a NULL key ends a list. */
struct log_field {
    const char *key; /* NULL ends the list */
    const char *text;
    int64_t number;
    bool is_number;
};

#define log_text(k, v) ((struct log_field){.key = (k), .text = (v)})
#define log_number(k, v) ((struct log_field){.key = (k), .number = (int64_t)(v), .is_number = true})
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {.key = 0}})

struct log_options {
    enum log_level level;
    enum log_format format;
    const char *file; /* NULL: standard error; copied */
};

/* Before log_open lines go to standard error as text. false: the file cannot be opened, and nothing has changed. */
bool log_open(const struct log_options *options, struct error *error);

/* Opens the file again, for rotation. false: the old file stays in use. */
bool log_reopen(struct error *error);

/* To be called now and then: what is kept is tried again, and what was lost is said. false while something is kept. */
bool log_retry(void);

/* Lines lost so far. */
uint64_t log_lost_lines(void);

void log_set_level(enum log_level level);
bool log_wants(enum log_level level);

/* True when standard error is a stream of the journal ($JOURNAL_STREAM, systemd.exec(5)). */
bool log_stderr_is_journal(void);

/* From here to log_release, in the same callback, lines of this thread are written together: the outcomes of a batch
 * are one write(2), not hundreds. A WARNING, or what is worse, does not wait; nor do those before it. */
void log_hold(void);
void log_release(void);

/* What is held is written now: before anything else that outlives the process follows from it. */
void log_flush(void);

/* From here to log_leave_stderr, what libraries print on stdio's stderr by themselves becomes lines of the log
 * (WARNING, one a line, 200 bytes at most). Descriptor 2 is not touched. Both belong to the main thread; the second
 * when no other runs. */
void log_capture_stderr(void);
void log_leave_stderr(void);

/* Waits so long at most for what is kept. From here on lines go to standard error as text. */
enum { LOG_LAST_LINES_MS = 200 };
void log_close(void);

void log_write(enum log_level level, const char *component, const struct log_field *fields, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define LOG_AT(level, fields, ...)                                                                                     \
    do {                                                                                                               \
        if (log_wants(level))                                                                                          \
            log_write(level, LOG_COMPONENT, fields, __VA_ARGS__);                                                      \
    } while (0)

#define log_debug(fields, ...) LOG_AT(LOG_LEVEL_DEBUG, fields, __VA_ARGS__)
#define log_info(fields, ...) LOG_AT(LOG_LEVEL_INFO, fields, __VA_ARGS__)
#define log_warning(fields, ...) LOG_AT(LOG_LEVEL_WARNING, fields, __VA_ARGS__)
#define log_error(fields, ...) LOG_AT(LOG_LEVEL_ERROR, fields, __VA_ARGS__)
#define log_critical(fields, ...) LOG_AT(LOG_LEVEL_CRITICAL, fields, __VA_ARGS__)

#endif
