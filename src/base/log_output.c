/* SPDX-License-Identifier: MIT */
/* Writes without waiting, whatever standard error is, and keeps what finds no room. */
#include "log_output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "promptd/clock.h"

/* How a write is kept from waiting. Standard error's own flags stay as they are: whoever started us shares them. */
enum output_kind {
    OUTPUT_OPENED, /* by us, with O_NONBLOCK; or a regular file, which never waits for a reader */
    OUTPUT_SOCKET, /* as the journal's: each send says so */
    OUTPUT_POLLED  /* what may not be opened again: as much as has room for certain, if there is any */
};

static struct {
    pthread_mutex_t mutex;
    enum output_kind kind;
    int fd;
    bool begun; /* the last write ended within a line */
    size_t start;
    size_t end;
    uint64_t lost;
    char kept[LOG_KEPT_BYTES];
} output = {.mutex = PTHREAD_MUTEX_INITIALIZER, .kind = OUTPUT_POLLED, .fd = STDERR_FILENO};

static void lock(void)
{
    (void)pthread_mutex_lock(&output.mutex); /* a normal mutex, taken once: it cannot fail */
}

static void unlock(void)
{
    (void)pthread_mutex_unlock(&output.mutex);
}

static bool has_room(int wait_ms)
{
    struct pollfd look = {.fd = output.fd, .events = POLLOUT};
    return poll(&look, 1, wait_ms) > 0;
}

/* How many bytes were taken; 0: none can be now. */
static size_t put(const char *bytes, size_t length)
{
    ssize_t written;
    do {
        if (output.kind == OUTPUT_SOCKET)
            written = send(output.fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        else if (output.kind == OUTPUT_OPENED)
            written = write(output.fd, bytes, length);
        else
            written = has_room(0) ? write(output.fd, bytes, length < PIPE_BUF ? length : PIPE_BUF) : 0;
    } while (written < 0 && errno == EINTR);
    if (written <= 0)
        return 0;
    output.begun = bytes[written - 1] != '\n';
    return (size_t)written;
}

static size_t put_all(const char *bytes, size_t length)
{
    size_t done = 0;
    for (size_t more = 1; more > 0 && done < length; done += more)
        more = put(bytes + done, length - done);
    return done;
}

static void retry(void)
{
    output.start += put_all(output.kept + output.start, output.end - output.start);
    if (output.start == output.end)
        output.start = output.end = 0;
}

static bool keep_line(const char *line, size_t length, size_t bound)
{
    size_t used = output.end - output.start;
    if (used + length > bound)
        return false;
    if (output.end + length > sizeof output.kept) {
        memmove(output.kept, output.kept + output.start, used);
        output.start = 0;
        output.end = used;
    }
    memcpy(output.kept + output.end, line, length);
    output.end += length;
    return true;
}

/* The rest of a line that is half out is kept in any case, or at least its end: the next must not join it. */
static void keep(const char *lines, size_t length, size_t bound)
{
    bool is_rest = output.begun && output.start == output.end;
    while (length > 0) {
        const char *newline = memchr(lines, '\n', length);
        size_t size = newline ? (size_t)(newline - lines) + 1 : length;
        if (!keep_line(lines, size, is_rest ? sizeof output.kept : bound)) {
            output.lost++;
            if (is_rest)
                (void)keep_line("\n", 1, sizeof output.kept);
        }
        is_rest = false;
        lines += size;
        length -= size;
    }
}

static size_t bound_of(enum log_level level)
{
    if (level >= LOG_LEVEL_CRITICAL)
        return LOG_KEPT_BYTES;
    return level >= LOG_LEVEL_WARNING ? LOG_KEPT_BYTES_WARNING : LOG_KEPT_BYTES_INFO;
}

void log_output_write(const char *lines, size_t length, enum log_level level)
{
    lock();
    retry();
    size_t taken = output.start == output.end ? put_all(lines, length) : 0;
    keep(lines + taken, length - taken, bound_of(level));
    unlock();
}

size_t log_output_retry(void)
{
    lock();
    retry();
    size_t kept = output.end - output.start;
    unlock();
    return kept;
}

/* A closed pipe or a full disk says that it has room, and takes nothing: there is no use in waiting for it. */
void log_output_drain(int64_t until_us)
{
    lock();
    retry();
    bool goes_on = true;
    while (output.start < output.end && goes_on) {
        size_t before = output.end - output.start;
        int64_t left_us = until_us - clock_monotonic_us();
        goes_on = left_us > 0 && has_room((int)(left_us / 1000) + 1);
        if (goes_on)
            retry();
        goes_on = goes_on && output.end - output.start < before;
    }
    unlock();
}

uint64_t log_output_lost(void)
{
    lock();
    uint64_t lost = output.lost;
    unlock();
    return lost;
}

/* The rest of a line whose beginning stands elsewhere is of no use. */
static void forget_rest(void)
{
    if (output.begun && output.start < output.end) {
        const char *rest = output.kept + output.start;
        const char *newline = memchr(rest, '\n', output.end - output.start);
        output.start = newline ? output.start + (size_t)(newline - rest) + 1 : output.end;
        output.lost++;
    }
    output.begun = false;
}

static void use(int fd, enum output_kind kind)
{
    lock();
    forget_rest();
    if (output.fd != STDERR_FILENO)
        close(output.fd);
    output.fd = fd;
    output.kind = kind;
    retry();
    unlock();
}

/* A FIFO that nobody reads yet cannot be opened for writing alone, but it has room for the first lines. */
static int open_file(const char *file)
{
    enum { FLAGS = O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK };
    int fd = open(file, O_WRONLY | FLAGS, 0640);
    if (fd < 0 && errno == ENXIO)
        fd = open(file, O_RDWR | FLAGS, 0640);
    return fd;
}

static void use_standard_error(void)
{
    struct stat status = {0};
    int fd = STDERR_FILENO;
    enum output_kind kind = OUTPUT_POLLED;
    if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode)) {
        kind = OUTPUT_SOCKET;
    } else if (S_ISREG(status.st_mode)) {
        kind = OUTPUT_OPENED;
    } else {
        int again = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        fd = again >= 0 ? again : fd;
        kind = again >= 0 ? OUTPUT_OPENED : kind;
    }
    use(fd, kind);
}

bool log_output_open(const char *file, struct error *error)
{
    if (!file) {
        use_standard_error();
        return true;
    }
    int fd = open_file(file);
    if (fd < 0)
        return error_set(error, ERROR_CONFIG, "cannot be opened: %s", strerror(errno));
    use(fd, OUTPUT_OPENED);
    return true;
}

void log_output_close(void)
{
    lock();
    for (size_t i = output.start; i < output.end; i++)
        output.lost += output.kept[i] == '\n';
    output.start = output.end = 0;
    unlock();
    use(STDERR_FILENO, OUTPUT_POLLED);
}
