/* SPDX-License-Identifier: MIT */
/* The one place where a setting is described. A new one is a row here and a member of struct settings. */
#include "promptd/settings_table.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/endpoint.h"
#include "promptd/url.h"

static const char *const mode_choices[] = {"pubsub", "list", "stream", NULL};
static const char *const atomicity_choices[] = {"compensate", "transaction", NULL};
static const char *const level_choices[] = {"debug", "info", "warning", "error", "critical", NULL};
static const char *const format_choices[] = {"text", "json", "journal", NULL};

static bool validate_status(const char *text, struct error *phrase)
{
    return strcmp(text, "*") != 0 || error_set(phrase, ERROR_CONFIG, "is not a status");
}

static bool validate_statsd(const char *text, struct error *phrase)
{
    struct endpoint endpoint;
    if (text[0] == '\0' || strcmp(text, "off") == 0)
        return true;
    if (!endpoint_parse(text, &endpoint, phrase))
        return false;
    return strtol(endpoint.port, NULL, 10) > 0 || error_set(phrase, ERROR_CONFIG, "has the port 0");
}

#define MEMBER(member) .name = #member, .offset = offsetof(struct settings, member)
#define TEXT(member, value) MEMBER(member), .type = SETTING_TEXT, .initial = (value)
#define LIST(member, value) MEMBER(member), .type = SETTING_LIST, .initial = (value)
#define CHOICE(member, value, names) MEMBER(member), .type = SETTING_CHOICE, .initial = (value), .choices = (names)
#define NUMBER(member, value, low, high)                                                                               \
    MEMBER(member), .type = SETTING_NUMBER, .initial = (value), .minimum = (low), .maximum = (high)

static const struct setting rows[] = {
    {TEXT(redis_url, "redis://127.0.0.1:6379"), .secret = true, .shared_variable = "REDIS_URL",
     .allowed =
         "redis://[user:password@]host[:port][/db], rediss:// likewise, unix:///path[?db=N], or "
         "redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/db], rediss+sentinel:// likewise",
     .description =
         "The Redis server that messages come from. User and password are percent-decoded, so that / @ : ? "
         "# and spaces in them must be encoded; an IPv6 address stands in brackets. In "
         "unix://user:password@/path a socket has them too. rediss:// is redis:// by TLS, 1.2 or later: the "
         "server's certificate and the name or IP address in it are always checked. redis+sentinel:// names "
         "Sentinels (port 26379 where none is said) and the service that they watch over: promptd asks them "
         "where its master is, and follows a failover. User and password are those of the servers; a Sentinel "
         "is given them only if it asks for a login. rediss+sentinel:// is TLS to both."},
    {TEXT(redis_tls_ca_file, ""), .may_be_empty = true, .live = true, .allowed = "the path of a PEM file",
     .description = "The certificates of the CAs that a server of rediss:// may have its certificate from. Empty means "
                    "those of the system. This file and the next two are read again at a reload, for the next "
                    "connection."},
    {TEXT(redis_tls_cert_file, ""), .may_be_empty = true, .live = true, .allowed = "the path of a PEM file",
     .description = "The client's certificate, for a server of rediss:// that wants one, followed by those between it "
                    "and its CA."},
    {TEXT(redis_tls_key_file, ""), .may_be_empty = true, .live = true, .allowed = "the path of a PEM file",
     .description = "The private key of the client's certificate, without a passphrase. It may be the same file."},
    {TEXT(redis_channel, "interviewly:prompt-ready"),
     .description =
         "The channel that promptd subscribes to, one and not a pattern; or the key of the list or stream that "
         "messages are taken from."},
    {CHOICE(redis_mode, "pubsub", mode_choices),
     .description =
         "How messages come. pubsub subscribes to redis_channel: what is published while nobody listens is gone. "
         "list takes from a list of that name, stream reads the stream as the consumer group promptd: there "
         "messages wait, any number of promptd share them, and each leaves Redis once its outcome is final. "
         "Both need Redis 6.2, and use no spool."},
    {NUMBER(redis_dead_max, "10000", 0, 10000000), .unit = "messages", .live = true,
     .description = "Dead letters that are kept in Redis with redis_mode list or stream; the oldest go first."},
    {TEXT(events_channel, ""), .may_be_empty = true, .allowed = "a channel other than redis_channel",
     .description = "The channel of redis_url's server that each outcome is published on, as JSON. Empty means none."},
    {TEXT(database_url, ""), .secret = true, .validate = url_check_password, .may_be_empty = true,
     .shared_variable = "DATABASE_URL", .allowed = "a libpq URI or conninfo",
     .description =
         "The PostgreSQL database, as any URI or conninfo that libpq takes. In a URI's password / @ : ? # and "
         "spaces must be percent-encoded. Empty leaves everything to libpq's own defaults and variables "
         "(PGHOST, PGDATABASE, PGPASSFILE and the others)."},
    {NUMBER(db_connections, "4", 1, 64),
     .description =
         "Connections to PostgreSQL. Each takes whatever is waiting, and never two messages of one interview "
         "at a time."},
    {CHOICE(atomicity, "compensate", atomicity_choices),
     .description = "How the two writes of a message belong together: compensate undoes the first when the second "
                    "fails, transaction does both in one database transaction."},
    {TEXT(ready_status, "ready"), .validate = validate_status, .allowed = "any status but *",
     .description = "The status of an interview whose prompt is stored."},
    {TEXT(failed_status, "failed"), .validate = validate_status, .allowed = "any status but *",
     .description = "The status of an interview whose prompt could not be stored."},
    {LIST(awaiting_statuses, "pending,not_started,enhancing,vector_search,web_scraping,processing,failed"),
     .allowed = "statuses with commas between them, without the ready_status, or * alone",
     .description = "Only an interview in one of these statuses is ever changed. A single * means any status."},
    {LIST(sources, "rag,existing_data,new_data,fallback"),
     .description = "What the field source of a message may say. A message without that field counts as rag, and is "
                    "rejected as invalid_source if rag is not in this list."},
    {NUMBER(prompt_min_chars, "10", 0, 10000000), .unit = "characters", .live = true,
     .description = "The shortest prompt that is accepted, in Unicode code points."},
    {NUMBER(prompt_max_chars, "50000", 1, 10000000), .unit = "characters", .live = true,
     .description = "The longest prompt that is accepted, in Unicode code points."},
    {NUMBER(message_max_bytes, "1048576", 64, 268435456), .unit = "bytes", .live = true,
     .description = "The largest message that is accepted, as it arrives. It must leave room for prompt_max_chars, "
                    "up to 12 bytes a character where JSON escapes them."},
    {NUMBER(batch_max, "256", 1, 10000), .unit = "messages", .live = true,
     .description = "The most messages in one statement. 1 turns batching off."},
    {NUMBER(queue_max_messages, "10000", 1, 10000000), .unit = "messages", .live = true,
     .description = "The most messages that wait in memory. What comes beyond that is dropped, the newest first, with "
                    "an ERROR line each."},
    {NUMBER(queue_max_bytes, "67108864", 64, 1099511627776), .unit = "bytes", .live = true,
     .description = "The most memory that waiting messages may take. It must hold one message of message_max_bytes."},
    {TEXT(spool_dir, ""), .may_be_empty = true, .allowed = "the path of a folder",
     .description =
         "The folder of the spool: messages are on disk before they are worked on, and survive a crash. Empty "
         "means no spool: what waits in memory is lost with the process."},
    {NUMBER(spool_max_bytes, "1073741824", 64, 1099511627776), .unit = "bytes", .live = true,
     .description =
         "The most that waiting messages in the spool may hold. What comes beyond that is dropped, the newest "
         "first."},
    {NUMBER(spool_dead_max_bytes, "268435456", 64, 1099511627776), .unit = "bytes", .live = true,
     .description =
         "The most that dead letters in the spool may hold, each with 256 bytes besides its message. Beyond "
         "that the oldest rejected ones are dropped, with one WARNING an hour. Where none is left a new dead "
         "letter is not kept, with an ERROR line each; what is there stays."},
    {NUMBER(retry_attempts, "3", 1, 100), .unit = "attempts", .live = true,
     .description = "Tries in all for a message that meets transient errors of its own (deadlock, serialization "
                    "failure, timeout of a lock or statement). Outages use up none."},
    {NUMBER(retry_base_ms, "1000", 1, 600000), .unit = "ms", .live = true,
     .description = "The wait before the second try. It doubles with each further one."},
    {NUMBER(retry_max_ms, "10000", 1, 3600000), .unit = "ms", .live = true,
     .description = "The longest wait between two tries."},
    {NUMBER(lock_patience_s, "30", 1, 86400), .unit = "s", .live = true,
     .description = "How long a row that somebody else has locked is waited for, by coming back to it, before the "
                    "step fails. Other messages do not wait."},
    {NUMBER(recover_after_s, "60", 1, 86400), .unit = "s", .live = true,
     .description = "A prompt that was inserted so long ago and is still unsettled, by whatever promptd, is taken up "
                    "by the recovery: it is settled if its interview still waits, else rolled back."},
    {NUMBER(settle_timeout_s, "60", 1, 86400), .unit = "s", .live = true, .replaced_by = "recover_after_s",
     .description = "Has no effect any more: recover_after_s has taken its place."},
    {NUMBER(statement_timeout_ms, "10000", 100, 600000), .unit = "ms", .live = true,
     .description = "How long a statement may take before it is given up."},
    {NUMBER(backoff_max_s, "30", 1, 3600), .unit = "s", .live = true,
     .description = "The longest wait between two attempts to reach Redis or PostgreSQL. Waits begin at 1 s and "
                    "double, with some jitter."},
    {NUMBER(breaker_failures, "10", 1, 1000), .unit = "failures", .live = true,
     .description = "So many failures in a row, to reach Redis or PostgreSQL, open that link's circuit."},
    {NUMBER(breaker_reset_s, "60", 1, 86400), .unit = "s", .live = true,
     .description = "How long an open circuit waits before it lets one attempt through. SIGUSR2, or a request to "
                    "/admin/redis/reset-circuit-breaker, closes it by hand."},
    {NUMBER(heartbeat_interval_s, "5", 0, 3600), .unit = "s", .live = true,
     .description = "How often the subscription, and the idle database, must give a sign of life. 0 turns it off."},
    {NUMBER(heartbeat_timeout_s, "3", 1, 3600), .unit = "s", .live = true,
     .description =
         "A subscription that gives no sign of life for so long after it was asked is dead, and dialled anew."},
    {NUMBER(reconcile_interval_s, "60", 0, 86400), .unit = "s", .live = true,
     .description = "How often the recovery looks for prompts left unsettled, orphans among them, and tries interviews "
                    "again that could not be marked failed. 0 turns it off, at the start and at reconnections, too."},
    {TEXT(admin_listen, "127.0.0.1:9797"), .validate = endpoint_validate_listen,
     .allowed = "host:port, unix:/path or off",
     .description =
         "Where health, status page and metrics are served by HTTP. There is no login: whoever reaches it may "
         "read them, and close the circuits. Port 0 means any free one, which the log names."},
    {TEXT(statsd, "off"), .validate = validate_statsd, .may_be_empty = true, .allowed = "host:port or off",
     .description = "The StatsD server that counters and durations are sent to by UDP, once a second."},
    {CHOICE(log_level, "info", level_choices), .live = true, .description = "The least severe lines that are logged."},
    {CHOICE(log_format, "text", format_choices),
     .description = "The form of log lines. Where standard error is the systemd journal and nothing else is set, "
                    "journal is the default."},
    {TEXT(log_file, ""), .may_be_empty = true, .allowed = "the path of a file",
     .description = "The file that the log is appended to; a reload opens it again. Empty means standard error."},
    {NUMBER(shutdown_timeout_s, "10", 1, 600), .unit = "s", .live = true,
     .description = "How long promptd may take to settle what is in flight when it is asked to stop."},
};

enum { ROWS = sizeof rows / sizeof rows[0] };
static_assert((int)ROWS <= (int)SETTINGS_MAX, "SETTINGS_MAX must grow with the table");

const struct settings_flag settings_flags[] = {
    {"config", "FILE", SETTINGS_RUN,
     "Read settings from FILE, which must exist, instead of /etc/promptd/promptd.conf, which may be absent."},
    {"help", NULL, SETTINGS_HELP, "Print this text."},
    {"version", NULL, SETTINGS_VERSION, "Print the version."},
    {"print-config", NULL, SETTINGS_PRINT, "Print all settings in force and where each came from, passwords as ***."},
    {"check", NULL, SETTINGS_CHECK, "Check the settings, say what is wrong, and end."},
    {NULL, NULL, SETTINGS_RUN, NULL},
};

const struct setting *settings_table_row(size_t index)
{
    return index < ROWS ? &rows[index] : NULL;
}

size_t settings_table_index(const struct setting *row)
{
    return (size_t)(row - rows);
}

const struct setting *settings_table_find(const char *name)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

void setting_variable_name(const struct setting *row, char name[SETTING_NAME_SIZE + 16])
{
    (void)snprintf(name, SETTING_NAME_SIZE + 16, "PROMPTD_%s", row->name);
    for (char *c = name; *c; c++)
        *c = (char)toupper((unsigned char)*c);
}

void setting_flag_name(const char *name, char flag[SETTING_NAME_SIZE])
{
    (void)snprintf(flag, SETTING_NAME_SIZE, "%s", name);
    for (char *c = flag; *c; c++) {
        if (*c == '_')
            *c = '-';
    }
}

/* A dash, an underscore and the other case are no difference: all three spellings of a name are in use. */
static char plain(char c)
{
    return (char)(c == '-' ? '_' : tolower((unsigned char)c));
}

/* Levenshtein's distance, for names shorter than SETTING_NAME_SIZE. */
static size_t distance(const char *one, const char *other)
{
    size_t row[SETTING_NAME_SIZE];
    size_t width = strlen(other);
    for (size_t j = 0; j <= width; j++)
        row[j] = j;
    for (size_t i = 1; one[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= width; j++) {
            size_t replaced = diagonal + (plain(one[i - 1]) != plain(other[j - 1]));
            diagonal = row[j];
            size_t shifted = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = replaced < shifted ? replaced : shifted;
        }
    }
    return row[width];
}

const char *settings_table_nearest(const char *name, bool flags_too)
{
    size_t length = strlen(name);
    if (length >= SETTING_NAME_SIZE)
        return NULL;
    const char *nearest = NULL;
    size_t least = length / 3 < 3 ? length / 3 + 1 : 4; /* from here on two names are no longer alike */
    for (size_t i = 0; i < ROWS; i++) {
        size_t far = distance(name, rows[i].name);
        if (far < least) {
            least = far;
            nearest = rows[i].name;
        }
    }
    for (const struct settings_flag *flag = settings_flags; flags_too && flag->name; flag++) {
        size_t far = distance(name, flag->name);
        if (far < least) {
            least = far;
            nearest = flag->name;
        }
    }
    return nearest;
}
