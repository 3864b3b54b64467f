/* SPDX-License-Identifier: MIT */
/* Builds a line in memory and hands it on in one piece; log_output.c sees to where it goes. */
#include "promptd/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log_output.h"
#include "promptd/buffer.h"
#include "promptd/clock.h"
#include "promptd/text.h"

enum { LOG_MESSAGE_STACK = 1024, LOG_HELD_BYTES = 65536 };

static struct {
    atomic_int level;
    atomic_int format;
    atomic_uint_fast64_t said; /* lost lines that the log has reported */
    char *file;                /* NULL: standard error */
} sink = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_TEXT};

/* Lines of this thread that are to be written together. */
static _Thread_local struct {
    bool on;
    struct buffer lines;
} held;

static const struct {
    const char *name;
    int priority; /* sd-daemon(3) */
} levels[] = {
    [LOG_LEVEL_DEBUG] = {"DEBUG", 7}, [LOG_LEVEL_INFO] = {"INFO", 6},         [LOG_LEVEL_WARNING] = {"WARNING", 4},
    [LOG_LEVEL_ERROR] = {"ERROR", 3}, [LOG_LEVEL_CRITICAL] = {"CRITICAL", 2},
};

static void emit(enum log_level level, const char *component, const char *message, const struct log_field *fields);

/* Once the reader has caught up. */
static void report_lost(void)
{
    uint64_t lost = log_output_lost();
    if (lost == sink.said || log_output_retry() > LOG_KEPT_BYTES_OVER)
        return;
    uint64_t lines = lost - atomic_exchange(&sink.said, lost);
    if (lines > 0) /* else another thread was quicker */
        emit(LOG_LEVEL_WARNING, "log", "lines could not be written to the log and are lost",
             LOG_FIELDS(log_number("lines", lines)));
}

bool log_open(const struct log_options *options, struct error *error)
{
    char *file = options->file ? strdup(options->file) : NULL;
    if (options->file && !file)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    if (!log_output_open(file, error)) {
        free(file);
        return false;
    }
    free(sink.file);
    sink.file = file;
    sink.format = (int)options->format;
    sink.level = (int)options->level;
    return true;
}

bool log_reopen(struct error *error)
{
    struct error why = {.code = ERROR_NONE};
    return !sink.file || log_output_open(sink.file, &why) ||
           error_set(error, why.code, "log file %s %s", sink.file, why.text);
}

void log_close(void)
{
    int saved_errno = errno;
    int64_t until_us = clock_monotonic_us() + LOG_LAST_LINES_MS * INT64_C(1000);
    log_release();
    log_output_drain(until_us);
    report_lost();
    log_output_drain(until_us);
    log_output_close();
    free(sink.file);
    sink.file = NULL;
    sink.format = LOG_FORMAT_TEXT;
    buffer_free(&held.lines);
    errno = saved_errno;
}

uint64_t log_lost_lines(void)
{
    return log_output_lost();
}

bool log_retry(void)
{
    int saved_errno = errno;
    report_lost();
    size_t kept = log_output_retry();
    errno = saved_errno;
    return kept == 0;
}

void log_set_level(enum log_level level)
{
    sink.level = (int)level;
}

bool log_wants(enum log_level level)
{
    return (int)level >= sink.level;
}

bool log_stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char own[48];
    if (!stream || fstat(STDERR_FILENO, &status) != 0)
        return false;
    (void)snprintf(own, sizeof own, "%" PRIu64 ":%" PRIu64, (uint64_t)status.st_dev, (uint64_t)status.st_ino);
    return strcmp(stream, own) == 0;
}

static void append_fields(struct buffer *line, const struct log_field *fields, bool is_json)
{
    for (; fields && fields->key; fields++) {
        if (!fields->is_number && !fields->text)
            continue;
        buffer_append_text(line, is_json ? ",\"" : " ");
        buffer_append_text(line, fields->key); /* ours: it needs no escapes */
        buffer_append_text(line, is_json ? "\":" : "=");
        if (fields->is_number)
            buffer_append_number(line, fields->number);
        else if (is_json)
            text_append_json(line, fields->text);
        else
            text_append_logfmt(line, fields->text);
    }
}

static void build_line(struct buffer *line, enum log_level level, const char *component, const char *time,
                       const char *message, const struct log_field *fields)
{
    if (sink.format == LOG_FORMAT_JSON) {
        buffer_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"message\":", time,
                      levels[level].name, component);
        text_append_json(line, message);
        append_fields(line, fields, true);
        buffer_append_text(line, "}\n");
        return;
    }
    if (sink.format == LOG_FORMAT_JOURNAL) {
        buffer_printf(line, "<%d>", levels[level].priority);
    } else {
        buffer_append_text(line, time);
        buffer_append_char(line, ' ');
    }
    buffer_append_text(line, levels[level].name);
    buffer_append_char(line, ' ');
    buffer_append_text(line, component);
    buffer_append_text(line, ": ");
    text_append_escaped(line, message);
    append_fields(line, fields, false);
    buffer_append_char(line, '\n');
}

/* Without memory there is no escaping: whatever could break the line, in any of the formats, becomes a question mark.
 */
static size_t build_poor_line(char *line, size_t size, enum log_level level, const char *component, const char *time,
                              const char *message)
{
    char plain[LOG_MESSAGE_STACK];
    size_t length = 0;
    for (; length < sizeof plain - 1 && message[length]; length++) {
        char c = message[length];
        bool is_plain = c >= ' ' && c <= '~' && c != '"' && c != '\\';
        plain[length] = '?';
        if (is_plain)
            plain[length] = c;
    }
    plain[length] = '\0';
    int made;
    if (sink.format == LOG_FORMAT_JSON)
        made = snprintf(line, size, "{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"message\":\"%s\"}\n",
                        time, levels[level].name, component, plain);
    else if (sink.format == LOG_FORMAT_JOURNAL)
        made = snprintf(line, size, "<%d>%s %s: %s\n", levels[level].priority, levels[level].name, component, plain);
    else
        made = snprintf(line, size, "%s %s %s: %s\n", time, levels[level].name, component, plain);
    return made < 0 ? 0 : (size_t)made < size ? (size_t)made : size - 1;
}

static void emit(enum log_level level, const char *component, const char *message, const struct log_field *fields)
{
    char time[CLOCK_TEXT_SIZE];
    clock_format_wall(clock_wall_ms(), time);
    struct buffer line = {0};
    build_line(&line, level, component, time, message, fields);
    if (line.failed) {
        char poor[LOG_MESSAGE_STACK + 256];
        log_output_write(poor, build_poor_line(poor, sizeof poor, level, component, time, message), level);
    } else {
        log_output_write(line.data, line.length, level);
    }
    buffer_free(&line);
}

static void write_held(void)
{
    if (held.lines.length == 0)
        return;
    report_lost();
    log_output_write(held.lines.data, held.lines.length, LOG_LEVEL_INFO);
    buffer_reset(&held.lines, LOG_HELD_BYTES);
}

/* false: the line must go alone, for it does not wait, or there is no memory. */
static bool hold_line(enum log_level level, const char *component, const char *message, const struct log_field *fields)
{
    size_t start = held.lines.length;
    if (level < LOG_LEVEL_WARNING) {
        char time[CLOCK_TEXT_SIZE];
        clock_format_wall(clock_wall_ms(), time);
        build_line(&held.lines, level, component, time, message, fields);
    }
    bool is_held = level < LOG_LEVEL_WARNING && !held.lines.failed;
    if (held.lines.failed) {
        held.lines.length = start;
        held.lines.failed = false;
    }
    if (!is_held || held.lines.length >= LOG_HELD_BYTES / 2)
        write_held();
    return is_held;
}

void log_hold(void)
{
    held.on = true;
}

void log_flush(void)
{
    int saved_errno = errno;
    write_held();
    errno = saved_errno;
}

void log_release(void)
{
    held.on = false;
    log_flush();
}

void log_write(enum log_level level, const char *component, const struct log_field *fields, const char *format, ...)
{
    int saved_errno = errno;
    char stack[LOG_MESSAGE_STACK];
    char *message = stack;
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(stack, sizeof stack, format, args);
    va_end(args);
    if (length < 0) {
        (void)snprintf(stack, sizeof stack, "a message that cannot be formatted");
    } else if ((size_t)length >= sizeof stack) {
        char *longer = malloc((size_t)length + 1);
        errno = saved_errno; /* for %m */
        if (longer && vsnprintf(longer, (size_t)length + 1, format, again) >= 0)
            message = longer;
        else
            free(longer);
    }
    va_end(again);

    if (!held.on || !hold_line(level, component, message, fields)) {
        report_lost();
        emit(level, component, message, fields);
    }
    if (message != stack)
        free(message);
    errno = saved_errno;
}
