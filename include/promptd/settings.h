/* SPDX-License-Identifier: MIT */
/*
 * Settings: one table (settings_table.h) gives every setting its name, type, default, limits and description. Flags,
 * environment, file, --help, --print-config and the settings page all come from it.
 *
 * A flag counts over the environment (PROMPTD_X or PROMPTD_X_FILE), that over the file, that over REDIS_URL and
 * DATABASE_URL, which other programs share, and those over the default. Every value given in promptd's own name is
 * checked, also one that another overrides. White space around a value does not count.
 */
#ifndef PROMPTD_SETTINGS_H
#define PROMPTD_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "promptd/error.h"
#include "promptd/log.h"

enum redis_mode { REDIS_MODE_PUBSUB, REDIS_MODE_LIST, REDIS_MODE_STREAM };
enum atomicity { ATOMICITY_COMPENSATE, ATOMICITY_TRANSACTION };

/* A comma-separated list; items are trimmed, and never empty. */
struct text_list {
    char **items;
    size_t count;
};

/* Where a value came from; what stands later counts over what stands earlier. */
enum setting_origin { SETTING_DEFAULT, SETTING_SHARED, SETTING_FILE, SETTING_ENVIRONMENT, SETTING_FLAG };

enum { SETTINGS_MAX = 64 }; /* rows that the table may have */

/* One member a setting, of the same name. Texts and lists are owned by the struct. */
struct settings {
    char *redis_url;
    char *redis_tls_ca_file;   /* "": the system's CAs */
    char *redis_tls_cert_file; /* "": no client certificate */
    char *redis_tls_key_file;
    char *redis_channel;
    enum redis_mode redis_mode;
    int64_t redis_dead_max; /* dead letters */
    char *events_channel;   /* "": none */
    char *database_url;     /* "" leaves everything to libpq's own defaults */
    int64_t db_connections;
    enum atomicity atomicity;
    char *ready_status;
    char *failed_status;
    struct text_list awaiting_statuses; /* the one item "*": any status */
    struct text_list sources;
    int64_t prompt_min_chars;
    int64_t prompt_max_chars;
    int64_t message_max_bytes;
    int64_t batch_max; /* messages */
    int64_t queue_max_messages;
    int64_t queue_max_bytes;
    char *spool_dir; /* "": none */
    int64_t spool_max_bytes;
    int64_t spool_dead_max_bytes;
    int64_t retry_attempts;
    int64_t retry_base_ms;
    int64_t retry_max_ms;
    int64_t lock_patience_s;
    int64_t recover_after_s;
    int64_t settle_timeout_s; /* without effect */
    int64_t statement_timeout_ms;
    int64_t backoff_max_s;
    int64_t breaker_failures;
    int64_t breaker_reset_s;
    int64_t heartbeat_interval_s; /* 0: off */
    int64_t heartbeat_timeout_s;
    int64_t reconcile_interval_s; /* 0: no recovery */
    char *admin_listen;           /* host:port, unix:/path or off */
    char *statsd;                 /* host:port; "": off */
    enum log_level log_level;
    enum log_format log_format;
    char *log_file; /* "": standard error */
    int64_t shutdown_timeout_s;

    enum setting_origin origins[SETTINGS_MAX]; /* by row of the table */
    char *places[SETTINGS_MAX];                /* "environment PROMPTD_REDIS_URL"; NULL for a default; owned */
};

enum settings_action { SETTINGS_RUN, SETTINGS_HELP, SETTINGS_VERSION, SETTINGS_PRINT, SETTINGS_CHECK };

/* A flag that is no setting. */
struct settings_flag {
    const char *name;
    const char *argument; /* NULL: takes none */
    enum settings_action action;
    const char *description;
};

/* What is to be said of a text that is a setting's value: false with a phrase ("has no port"), ERROR_CONFIG. */
typedef bool settings_validate(const char *text, struct error *phrase);

/* What the program that has the settings adds to them. */
struct settings_program {
    const struct settings_flag *flags;     /* of its own, at most SETTINGS_MAX / 2; ends with a NULL name */
    settings_validate *validate_redis_url; /* settings know no Redis */
};

/* What the command line says besides settings. Words are borrowed from argv. */
struct settings_command {
    enum settings_action action;
    const char *file; /* of --config; NULL: the default one */
    const struct settings_program *program;
    const char *more[SETTINGS_MAX]; /* by row of the program's own flags: the value, "" without one; NULL: not given */
    char **operands;
    int operand_count;
};

/*
 * Reads everything and checks everything, in two steps: the command line, then environment and file below it. On
 * success *settings is filled and the caller frees it; on failure it is empty and *error names the setting, where it
 * came from and what is allowed: ERROR_USAGE for flags, ERROR_CONFIG for file and environment.
 *
 * Where the program has flags of its own, operands may stand anywhere, and argv's words are moved to gather them; else
 * there are none of either, argv stays as it is, and a reload reads it again. Behind --help and --version nothing is
 * checked any more. `program` is borrowed until settings_load returns.
 */
bool settings_read_command(int argc, char *argv[], const struct settings_program *program, struct settings *settings,
                           struct settings_command *command, struct error *error);
bool settings_load(struct settings *settings, const struct settings_command *command, char *const environment[],
                   struct error *error);

/* Warns of each PROMPTD_ variable that is no setting, and of settings that have no effect any more. For when the log is
 * open, so that it takes their form. */
void settings_warn(const struct settings *settings, char *const environment[]);

/* For a fault that only another module can see, such as libpq in database_url: fills *error with the setting, where it
 * came from and what is allowed, and returns false. */
bool settings_refuse(const struct settings *settings, const char *name, const char *phrase, const char *allowed,
                     struct error *error);

void settings_free(struct settings *settings);

/* key = value lines with a comment that names each value's origin, ready to be used as a file; passwords as ***. */
void settings_print(const struct settings *settings, FILE *out);

/* The options part of --help. */
void settings_print_help(FILE *out);

/* A reload: the settings that may change while running get their next values. What they had goes to `next`. */
void settings_take_live(struct settings *now, struct settings *next);

/* Names of the settings that differ and cannot change while running, comma-separated, into `names` (cut if too long).
 * Returns how many. */
size_t settings_fixed_differences(const struct settings *now, const struct settings *next, char *names, size_t size);

#endif
