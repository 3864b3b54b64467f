/* SPDX-License-Identifier: MIT */
/* Settings that are refused: every kind of mistake, with the very message that people get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/url.h"
#include "settings_start.h"

#define REDIS_URL_ALLOWED                                                                                              \
    "redis://[user:password@]host[:port][/db], rediss:// likewise, unix:///path[?db=N], or "                           \
    "redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/db], rediss+sentinel:// likewise"

static void test_bad_values_of_flags(void **state)
{
    (void)state;
    static const char url[] = " (allowed: " REDIS_URL_ALLOWED ")";
    char with_url[600];
    static const struct {
        const char *flag;
        const char *message;
    } cases[] = {
        {"--db-connections=0", "setting db_connections: value \"0\" from flag --db-connections is out of range "
                               "(allowed: 1 to 64)"},
        {"--db-connections=65", "setting db_connections: value \"65\" from flag --db-connections is out of range "
                                "(allowed: 1 to 64)"},
        {"--db-connections=-1", "setting db_connections: value \"-1\" from flag --db-connections is out of range "
                                "(allowed: 1 to 64)"},
        {"--db-connections=99999999999999999999",
         "setting db_connections: value \"99999999999999999999\" from flag --db-connections is out of range "
         "(allowed: 1 to 64)"},
        {"--db-connections=", "setting db_connections: value \"\" from flag --db-connections is empty "
                              "(allowed: 1 to 64)"},
        {"--db-connections=  ", "setting db_connections: value \"  \" from flag --db-connections is empty "
                                "(allowed: 1 to 64)"},
        {"--db-connections=four", "setting db_connections: value \"four\" from flag --db-connections is not a number "
                                  "(allowed: 1 to 64)"},
        {"--db-connections=4x", "setting db_connections: value \"4x\" from flag --db-connections is not a number "
                                "(allowed: 1 to 64)"},
        {"--db-connections=+4", "setting db_connections: value \"+4\" from flag --db-connections is not a number "
                                "(allowed: 1 to 64)"},
        {"--db-connections=-", "setting db_connections: value \"-\" from flag --db-connections is not a number "
                               "(allowed: 1 to 64)"},
        {"--db-connections=0x4", "setting db_connections: value \"0x4\" from flag --db-connections is not a number "
                                 "(allowed: 1 to 64)"},
        {"--db-connections=4.0", "setting db_connections: value \"4.0\" from flag --db-connections is not a number "
                                 "(allowed: 1 to 64)"},
        {"--statement-timeout-ms=99", "setting statement_timeout_ms: value \"99\" from flag --statement-timeout-ms is "
                                      "out of range (allowed: 100 to 600000 ms)"},
        {"--atomicity=maybe", "setting atomicity: value \"maybe\" from flag --atomicity is not one of the choices "
                              "(allowed: compensate, transaction)"},
        {"--log-level=INFO", "setting log_level: value \"INFO\" from flag --log-level is not one of the choices "
                             "(allowed: debug, info, warning, error, critical)"},
        {"--log-format=xml", "setting log_format: value \"xml\" from flag --log-format is not one of the choices "
                             "(allowed: text, json, journal)"},
        {"--redis-channel=", "setting redis_channel: value \"\" from flag --redis-channel is empty "
                             "(allowed: any text without control characters)"},
        {"--redis-channel=a\x1b[2Jb", "setting redis_channel: value \"a\\x1b[2Jb\" from flag --redis-channel has a "
                                      "control character in it (allowed: any text without control characters)"},
        {"--redis-channel=a\xff", "setting redis_channel: value \"a\\xff\" from flag --redis-channel is not valid "
                                  "UTF-8 (allowed: any text without control characters)"},
        {"--ready-status=*", "setting ready_status: value \"*\" from flag --ready-status is not a status "
                             "(allowed: any status but *)"},
        {"--failed-status=", "setting failed_status: value \"\" from flag --failed-status is empty "
                             "(allowed: any status but *)"},
        {"--sources=", "setting sources: value \"\" from flag --sources is empty "
                       "(allowed: items with commas between them)"},
        {"--sources=a,,b", "setting sources: value \"a,,b\" from flag --sources has an empty item "
                           "(allowed: items with commas between them)"},
        {"--sources=a, ", "setting sources: value \"a, \" from flag --sources has an empty item "
                          "(allowed: items with commas between them)"},
        {"--log-file=a\nb", "setting log_file: value \"a\\nb\" from flag --log-file has a control character in it "
                            "(allowed: the path of a file)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused((struct start){.flags = WORDS(cases[i].flag)}, ERROR_USAGE, cases[i].message);

    (void)snprintf(with_url, sizeof with_url,
                   "setting redis_url: value \"***\" from flag --redis-url does not "
                   "begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://%s",
                   url);
    assert_refused((struct start){.flags = WORDS("--redis-url=localhost")}, ERROR_USAGE, with_url);
}

static void test_secrets_are_not_shown(void **state)
{
    (void)state;
    static const char allowed[] = " (allowed: " REDIS_URL_ALLOWED ")";
    char message[800];
    (void)snprintf(message, sizeof message,
                   "setting redis_url: value \"***\" from environment PROMPTD_REDIS_URL does not begin with redis://, "
                   "rediss://, unix://, redis+sentinel:// or rediss+sentinel://%s",
                   allowed);
    assert_refused((struct start){.environment = WORDS("PROMPTD_REDIS_URL=http://u:hunter2@h")}, ERROR_CONFIG, message);
    (void)snprintf(message, sizeof message, "setting redis_url: value \"***\" from environment REDIS_URL has no host%s",
                   allowed);
    assert_refused((struct start){.environment = WORDS("REDIS_URL=redis://u:hunter2@")}, ERROR_CONFIG, message);
    (void)snprintf(message, sizeof message,
                   "setting redis_url: value \"***\" from file conf line 1 has a port that is not a "
                   "number from 1 to 65535%s",
                   allowed);
    assert_refused((struct start){.file = "redis_url = redis://:hunter2@h:0"}, ERROR_CONFIG, message);
    assert_refused((struct start){.environment = WORDS("PROMPTD_DATABASE_URL=host=h password=hunter2 \x01")},
                   ERROR_CONFIG,
                   "setting database_url: value \"***\" from environment PROMPTD_DATABASE_URL "
                   "has a control character in it (allowed: a libpq URI or conninfo)");
}

/* Where the password ends nobody can tell: then nothing is shown. */
static void test_passwords_that_are_not_encoded(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "postgresql://u:s3cret/PWpw@host/db",
        "postgresql://u:s3cret@PWpw@host/db",
        "postgresql://u:s3cret:PWpw@host",
        "postgresql://u:s3cret?PWpw@host/db",
        "postgresql://u:s3cret#PWpw@host/db",
        "postgresql://u:s3cret PWpw@host",
        "postgresql://u@host/db?%70assword=PWpw",
        "redis://:s3cret/PWpw@host",
        "redis://u:s3cret@PWpw@host:1/0",
        "redis://u:s3cret:PWpw@host",
        "unix://u:s3cret/PWpw@/path",
        "postgresql://u:s3cret?PWpw=foo@h/db",
        "postgresql://u:123/4?PWpw=9@h",
        "postgresql://u:?PWpw",
        "postgresql://u:s3cret?sslmode=disable&application_name=PWpw@h",
        "postgresql://u:s3cret#a=PWpw@h",
    };
    static const char *const good[] = {"postgresql://u:p%40%2F%3A%20@h1:1,h2/db?application_name=a%40b/c&",
                                       "postgresql://u@h/db?user=me@srv",
                                       "postgresql:///db?host=/run/x",
                                       "postgresql://u:p@[::1]:5432/db",
                                       "host=h password='a b@c://d' dbname=x",
                                       "postgresql://h/d@b"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        bool redis = strncmp(urls[i], "postgres", 8) != 0;
        char variable[120];
        char message[800];
        (void)snprintf(variable, sizeof variable, "PROMPTD_%s_URL=%s", redis ? "REDIS" : "DATABASE", urls[i]);
        (void)snprintf(message, sizeof message,
                       "setting %s_url: value \"***\" from environment PROMPTD_%s_URL may have a password with an "
                       "unencoded /, @, :, ?, # or space in it: percent-encode it (%%2F, %%40, %%3A, %%3F, %%23, %%20) "
                       "(allowed: %s)",
                       redis ? "redis" : "database", redis ? "REDIS" : "DATABASE",
                       redis ? REDIS_URL_ALLOWED : "a libpq URI or conninfo");
        assert_refused((struct start){.environment = WORDS(variable)}, ERROR_CONFIG, message);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct error phrase;
        if (!url_check_password(good[i], &phrase))
            fail_msg("%s: %s", good[i], phrase.text);
    }
}

static void test_bad_values_below_good_ones(void **state)
{
    (void)state;
    assert_refused((struct start){.file = "db_connections = 0", .flags = WORDS("--db-connections=5")}, ERROR_CONFIG,
                   "setting db_connections: value \"0\" from file conf line 1 is out of range (allowed: 1 to 64)");
    assert_refused(
        (struct start){.environment = WORDS("PROMPTD_DB_CONNECTIONS=0"), .flags = WORDS("--db-connections=5")},
        ERROR_CONFIG,
        "setting db_connections: value \"0\" from environment PROMPTD_DB_CONNECTIONS is out of range "
        "(allowed: 1 to 64)");
}

static void test_settings_that_contradict_one_another(void **state)
{
    (void)state;
    assert_refused((struct start){.file = "prompt_min_chars = 20\nprompt_max_chars = 19"}, ERROR_CONFIG,
                   "setting prompt_min_chars: value \"20\" from file conf line 1 is more than prompt_max_chars, \"19\" "
                   "from file conf line 2 (allowed: at most prompt_max_chars)");
    assert_refused((struct start){.file = "retry_base_ms = 10001"}, ERROR_CONFIG,
                   "setting retry_base_ms: value \"10001\" from file conf line 1 is more than retry_max_ms, \"10000\" "
                   "from the defaults (allowed: at most retry_max_ms)");
    assert_refused((struct start){.flags = WORDS("--retry-max-ms=999")}, ERROR_USAGE,
                   "setting retry_base_ms: value \"1000\" from the defaults is more than retry_max_ms, \"999\" from "
                   "flag --retry-max-ms (allowed: at most retry_max_ms)");
    assert_refused((struct start){.environment = WORDS("PROMPTD_QUEUE_MAX_BYTES=1048575")}, ERROR_CONFIG,
                   "setting queue_max_bytes: value \"1048575\" from environment PROMPTD_QUEUE_MAX_BYTES cannot hold "
                   "one message of message_max_bytes, \"1048576\" from the defaults (allowed: at least "
                   "message_max_bytes)");
    assert_refused((struct start){.file = "failed_status = ready"}, ERROR_CONFIG,
                   "setting failed_status: value \"ready\" from file conf line 1 is the same as ready_status, "
                   "\"ready\" from the defaults (allowed: a status of its own)");
    assert_refused(
        (struct start){.flags = WORDS("--events-channel=interviewly:prompt-ready")}, ERROR_USAGE,
        "setting events_channel: value \"interviewly:prompt-ready\" from flag --events-channel is the same as "
        "redis_channel, \"interviewly:prompt-ready\" from the defaults (allowed: another channel: promptd "
        "would receive its own events)");
    assert_refused((struct start){.file = "awaiting_statuses = a,ready"}, ERROR_CONFIG,
                   "setting awaiting_statuses: value \"a,ready\" from file conf line 1 has in it the ready_status, "
                   "\"ready\" from the defaults (allowed: statuses that are not ready)");
    assert_refused((struct start){.flags = WORDS("--awaiting-statuses=a,*")}, ERROR_USAGE,
                   "setting awaiting_statuses: value \"a,*\" from flag --awaiting-statuses has * beside other "
                   "statuses (allowed: statuses, or * alone)");

    struct settings s;
    assert_loads((struct start){.file = "awaiting_statuses = *\nprompt_min_chars = 9\nprompt_max_chars = 9\n"
                                        "retry_base_ms = 5\nretry_max_ms = 5\n"
                                        "message_max_bytes = 2048\nqueue_max_bytes = 2048"},
                 &s);
    assert_int_equal(s.awaiting_statuses.count, 1);
    assert_string_equal(s.awaiting_statuses.items[0], "*");
    settings_free(&s);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"redis_ulr = x", "file conf line 1 has the unknown setting \"redis_ulr\"; did you mean redis_url?"},
        {"queue-max-bytes = 1", "file conf line 1 has the unknown setting \"queue-max-bytes\"; did you mean "
                                "queue_max_bytes?"},
        {"\n\nREDIS_URL = x", "file conf line 3 has the unknown setting \"REDIS_URL\"; did you mean redis_url?"},
        {"colour = red", "file conf line 1 has the unknown setting \"colour\"; --help lists them all"},
        {"a\x1b[2J = red", "file conf line 1 has the unknown setting \"a\\x1b[2J\"; --help lists them all"},
        {"config = x", "file conf line 1 has the unknown setting \"config\"; --help lists them all"},
        {"PROMPTD_BATCH_MAX = 1",
         "file conf line 1 has the unknown setting \"PROMPTD_BATCH_MAX\"; --help lists them all"},
        {"batch_max = 1\nhunter2", "file conf line 2 is not of the form key = value"},
        {"[promptd]\nbatch_max = 1", "file conf line 1 is the header of a section, and settings have no sections"},
        {"  [", "file conf line 1 is the header of a section, and settings have no sections"},
        {" = hunter2", "file conf line 1 has no key"},
        {": hunter2", "file conf line 1 has no key"},
        {"batch_max = 1\n#\nbatch_max = 1",
         "setting batch_max: file conf line 3 sets it again, after line 1 (allowed: once)"},
        {"batch_max =", "setting batch_max: value \"\" from file conf line 1 is empty (allowed: 1 to 10000 messages)"},
        {"batch_max = 1 ; one", "setting batch_max: value \"1 ; one\" from file conf line 1 is not a number (allowed: "
                                "1 to 10000 messages)"},
        {"batch_max = 1\n\nbatch_mix = 1\nnonsense",
         "file conf line 3 has the unknown setting \"batch_mix\"; did you mean batch_max?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused((struct start){.file = cases[i][0]}, ERROR_CONFIG, cases[i][1]);
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    struct settings s;
    struct error error = {0};
    assert_false(load_words(WORDS("promptd", "--config", "absent"), NONE, &s, NULL, &error));
    assert_string_equal(error.text, "file absent cannot be read: No such file or directory");
    assert_int_equal(error.code, ERROR_CONFIG);
    assert_false(load_words(WORDS("promptd", "--config=."), NONE, &s, NULL, &error));
    assert_string_equal(error.text, "file . cannot be read: Is a directory");
    write_bytes("conf", "batch_max = 1\0\n", 15);
    assert_false(load_words(WORDS("promptd", "--config=conf"), NONE, &s, NULL, &error));
    assert_string_equal(error.text, "file conf line 1 has a NUL byte in it");
}

static void test_value_files(void **state)
{
    (void)state;
    struct settings s;
    static const char *const variable = "PROMPTD_DATABASE_URL_FILE=value";
    write_file("value", "postgresql://u:p@h/db\r\n \n");
    assert_loads((struct start){.environment = WORDS(variable)}, &s);
    assert_string_equal(s.database_url, "postgresql://u:p@h/db");
    settings_free(&s);

    assert_refused((struct start){.environment = WORDS(variable, "PROMPTD_DATABASE_URL=")}, ERROR_CONFIG,
                   "setting database_url: environment PROMPTD_DATABASE_URL and environment PROMPTD_DATABASE_URL_FILE "
                   "are both set (allowed: one of them)");
    assert_refused((struct start){.environment = WORDS("PROMPTD_REDIS_URL_FILE=absent")}, ERROR_CONFIG,
                   "setting redis_url: file \"absent\" from environment PROMPTD_REDIS_URL_FILE cannot be read: No "
                   "such file or directory");
    assert_refused((struct start){.environment = WORDS("PROMPTD_REDIS_URL_FILE=absent", "CREDENTIALS_DIRECTORY=/run")},
                   ERROR_CONFIG,
                   "setting redis_url: file \"absent\" from environment PROMPTD_REDIS_URL_FILE cannot be read: No "
                   "such file or directory");
    assert_refused((struct start){.environment = WORDS("PROMPTD_REDIS_URL_FILE=.")}, ERROR_CONFIG,
                   "setting redis_url: file \".\" from environment PROMPTD_REDIS_URL_FILE cannot be read: Is a "
                   "directory");
    write_bytes("value", "a\0b", 3);
    assert_refused((struct start){.environment = WORDS(variable)}, ERROR_CONFIG,
                   "setting database_url: file \"value\" from environment PROMPTD_DATABASE_URL_FILE has a NUL byte in "
                   "it");
    char text[9000];
    (void)snprintf(text, sizeof text, "%08001d", 0);
    write_file("value", text);
    assert_refused((struct start){.environment = WORDS(variable)}, ERROR_CONFIG,
                   "setting database_url: file \"value\" from environment PROMPTD_DATABASE_URL_FILE is longer than "
                   "8000 bytes");
    write_file("value", "\n");
    assert_refused((struct start){.environment = WORDS("PROMPTD_REDIS_URL_FILE=value")}, ERROR_CONFIG,
                   "setting redis_url: value \"\" from environment PROMPTD_REDIS_URL_FILE (file value) is empty "
                   "(allowed: " REDIS_URL_ALLOWED ")");
}

static void test_bad_flags(void **state)
{
    (void)state;
    static const struct {
        const char *flags[3];
        const char *message;
    } cases[] = {
        {{"--redis-ulr=redis://:hunter2@h"}, "unknown flag --redis-ulr; did you mean --redis-url?"},
        {{"--redis_url=redis://:hunter2@h"}, "unknown flag --redis_url; did you mean --redis-url?"},
        {{"--print-conf"}, "unknown flag --print-conf; did you mean --print-config?"},
        {{"--print-conf=x"}, "unknown flag --print-conf; did you mean --print-config?"},
        {{"--redis-u", "redis://:hunter2@h"}, "unknown flag --redis-u; did you mean --redis-url?"},
        {{"--redis-u"}, "unknown flag --redis-u; did you mean --redis-url?"},
        {{"--redis"}, "unknown flag --redis; --help lists them all"},
        {{"--=x"}, "unknown flag --; --help lists them all"},
        {{"--nonsense"}, "unknown flag --nonsense; --help lists them all"},
        {{"-h"}, "unknown flag -h; --help lists them all"},
        {{"-xhelp"}, "unknown flag -xhelp; did you mean --help?"},
        {{"--db-connections=0", "--db-connections=5"},
         "setting db_connections: value \"0\" from flag --db-connections is "
         "out of range (allowed: 1 to 64)"},
        {{"-redis-url=x"}, "unknown flag -redis-url; did you mean --redis-url?"},
        {{"--redis-url"}, "flag --redis-url needs a value"},
        {{"--config"}, "flag --config needs a value"},
        {{"--config="}, "flag --config needs the name of a file"},
        {{"--check=yes"}, "flag --check takes no value"},
        {{"--check", "redis://:hunter2@h"}, "argument 4 is not a flag, and no other arguments are taken"},
        {{"--", "--check"}, "argument 4 is not a flag, and no other arguments are taken"},
        {{"-"}, "argument 3 is not a flag, and no other arguments are taken"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused((struct start){.flags = cases[i].flags}, ERROR_USAGE, cases[i].message);
    char word[300];
    (void)snprintf(word, sizeof word, "--%0200d", 0);
    struct settings s;
    assert_false(load((struct start){.flags = WORDS(word)}, &s, NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SETTINGS_TEST(test_bad_values_of_flags),
        SETTINGS_TEST(test_secrets_are_not_shown),
        SETTINGS_TEST(test_passwords_that_are_not_encoded),
        SETTINGS_TEST(test_bad_values_below_good_ones),
        SETTINGS_TEST(test_settings_that_contradict_one_another),
        SETTINGS_TEST(test_bad_files),
        SETTINGS_TEST(test_files_that_cannot_be_read),
        SETTINGS_TEST(test_value_files),
        SETTINGS_TEST(test_bad_flags),
    };
    return cmocka_run_group_tests_name("settings_errors", tests, enter_folder, leave_folder);
}
