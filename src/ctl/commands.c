/* SPDX-License-Identifier: MIT */
/* The tables of promptctl's commands and options. A new one is a row here, a function in commands.h and a file. */
#include "promptd/commands.h"

const struct settings_flag ctl_options[] = {
#define X(id, name, argument, meaning) {name, argument, SETTINGS_RUN, meaning},
    CTL_OPTION_MAP(X)
#undef X
        {0},
};

#define REDIS_SETTINGS                                                                                                 \
    "--redis-url --redis-tls-ca-file --redis-tls-cert-file --redis-tls-key-file --redis-channel --redis-mode"
#define DEAD_SETTINGS REDIS_SETTINGS " --spool-dir"
#define DATABASE_SETTINGS "--database-url --statement-timeout-ms"
#define MESSAGE_SETTINGS "--sources --prompt-min-chars --prompt-max-chars --message-max-bytes"

const struct ctl_command ctl_commands[] = {
    {.name = "check",
     .options = CTL_TAKES(JSON),
     .settings = REDIS_SETTINGS " " DATABASE_SETTINGS " --events-channel --atomicity --ready-status --failed-status "
                                "--awaiting-statuses --sources --prompt-max-chars",
     .summary = "try all that promptd needs, and change nothing",
     .details =
         "A dry run over real connections, step by step. Redis: reach it, agree on TLS where the URL says rediss:// "
         "(protocol, cipher, the end of the server's certificate), log in, see who listens on the channel already, "
         "subscribe; with --redis-mode=list or stream see its version, maxmemory-policy, the key, who takes from it, "
         "and "
         "have each command that promptd sends judged, in a transaction that is discarded. PostgreSQL: reach it, log "
         "in, see whether it takes writes; tables, columns, types, "
         "keys, privileges and policies; whether interviews have the awaiting statuses; then store a prompt, take it "
         "away and set the statuses, in a transaction that is rolled back.\n"
         "Each step is ok, or wrong and why; a ! is worth a look and no fault; a ? could not be tried, and a - was not "
         "for want of what failed before it. The write borrows an interview that is awaiting, whose row is locked for "
         "that moment; triggers on the tables run. Where there is none, the statements are only planned.\n",
     .run = ctl_check},
    {.name = "dead list",
     .options = CTL_TAKES(JSON),
     .settings = DEAD_SETTINGS,
     .summary = "list dead letters",
     .details = "A dead letter is a message that ended not stored, rolled back, orphaned, rejected or dropped after it "
                "was kept: in the spool of --spool-dir, or with --redis-mode=list or stream in Redis. One line each, "
                "oldest first: id, when it died, outcome, bytes, interview, reason or SQLSTATE, error. On a terminal "
                "a heading stands above. Messages themselves are never listed.\n"
                "Like all dead commands it may run beside the daemon or without it; for the spool as the daemon's user "
                "or as root.\n",
     .run = ctl_dead_list},
    {.name = "dead show",
     .operands = "ID",
     .operands_min = 1,
     .operands_max = 1,
     .options = CTL_TAKES(JSON) | CTL_TAKES(RAW),
     .settings = DEAD_SETTINGS,
     .summary = "show a dead letter, message and all",
     .details = "All that is known of it, then an empty line and the message as it arrived, prompt and all, with "
                "control characters escaped. With --raw the message alone, byte for byte, for a file. With --json the "
                "message is \"payload\", or \"payload_base64\" where it is no text. One that was larger than "
                "--message-max-bytes was not read, and is not there.\n",
     .run = ctl_dead_show},
    {.name = "dead replay",
     .operands = "ID...",
     .operands_max = INT32_MAX,
     .options = CTL_TAKES(ALL) | CTL_TAKES(YES) | CTL_TAKES(JSON),
     .settings = DEAD_SETTINGS,
     .summary = "have promptd try dead letters again",
     .details =
         "They are dead letters no more, and wait at the end of the queue like any other message, in the spool or in "
         "Redis: a running promptd takes them up within a second or two, another at its start. Fix first what they "
         "died of. Their interviews "
         "are failed by now, which is among the shipped --awaiting-statuses, so they become ready.\n"
         "If one of the IDs is no dead letter, or one without a message, nothing is changed. With --all those "
         "without a message stay, and the exit code is 1.\n",
     .run = ctl_dead_replay},
    {.name = "dead drop",
     .operands = "ID...",
     .operands_max = INT32_MAX,
     .options = CTL_TAKES(ALL) | CTL_TAKES(YES) | CTL_TAKES(JSON),
     .settings = DEAD_SETTINGS,
     .summary = "delete dead letters for good",
     .details = "Their messages are gone, and those of the spool overwritten on disk. Interviews keep their status.\n"
                "If one of the IDs is no dead letter, nothing is changed.\n",
     .run = ctl_dead_drop},
    {.name = "orphans",
     .options = CTL_TAKES(DELETE) | CTL_TAKES(OLDER_THAN) | CTL_TAKES(SCAN) | CTL_TAKES(YES) | CTL_TAKES(JSON),
     .settings = DATABASE_SETTINGS " --awaiting-statuses --ready-status --failed-status",
     .summary = "find, and delete, prompts whose interview was not made ready with them",
     .details =
         "Prompts that promptd has inserted without making their interview ready so far, as promptd_unsettled has "
         "them, oldest first: prompt, interview, its status, source, when it was stored, age. A running promptd "
         "settles or deletes them by itself, --recover-after-s after they were inserted; what stays is what the "
         "database refuses to delete. Exit code 1 when some are left.\n"
         "With --delete they are deleted, each by one statement, whatever the interview's status: the row in "
         "promptd_unsettled says that it was never made ready with this prompt. What somebody else has locked "
         "is left alone, and said so. An interview that waits for the prompt is marked failed then.\n"
         "With --scan all prompts are looked through as well, for what other programs or promptd 0.1 have left "
         "behind: prompts that are not in promptd_unsettled and whose interview does not exist, or is in the "
         "--failed-status or one of the --awaiting-statuses (with * in the --failed-status only). A prompt "
         "whose interview has any other status is never listed. --delete looks at the newest status once more, "
         "under a lock. Look at the list before you do: an interview that was ready, and that the application "
         "has put back among the waiting or failed ones since, looks the same. It reads whole tables; with "
         "millions of rows raise --statement-timeout-ms.\n"
         "Needs sql/01_schema.sql to 03_views.sql.\n",
     .run = ctl_orphans},
    {.name = "publish",
     .operands = "FILE",
     .operands_min = 1,
     .operands_max = 1,
     .options = CTL_TAKES(INTERVIEW) | CTL_TAKES(SOURCE) | CTL_TAKES(JSON),
     .settings = REDIS_SETTINGS " " MESSAGE_SETTINGS,
     .summary = "send a prompt as the workflow would",
     .details =
         "The text of FILE, to the last byte, is the prompt; - is standard input. The message is checked first: "
         "what promptd would reject is not sent. It is sent the way --redis-mode says: published, and it is said how "
         "many received it; that nobody did is exit code 1, for Redis keeps nothing of it. Or pushed to the "
         "left end of the list, or added to the stream in the field message, where it waits for promptd.\n",
     .run = ctl_publish},
    {.name = "status",
     .options = CTL_TAKES(QUIET) | CTL_TAKES(JSON),
     .settings = "--admin-listen",
     .summary = "ask the running daemon how it is",
     .details =
         "Readiness and what it lacks, links, queue, spool, counters, open orphans and the last failures. With "
         "--json the answer of GET /status as it is. Exit code 0: ready; 1: it answers, and is not ready; 69: it "
         "cannot be reached. With --quiet a health check.\n",
     .run = ctl_status},
    {.name = "stuck",
     .options = CTL_TAKES(FAIL) | CTL_TAKES(OLDER_THAN) | CTL_TAKES(YES) | CTL_TAKES(JSON),
     .settings = DATABASE_SETTINGS " --awaiting-statuses --ready-status --failed-status",
     .summary = "find, and mark as failed, interviews that wait too long for a prompt",
     .details = "Interviews in one of the --awaiting-statuses, failed apart, oldest first: interview, status, when it "
                "was made, age. Exit code 1 when some are left.\n"
                "With --fail they are marked with the --failed-status; one that is no longer awaiting at that moment "
                "is left alone. A late prompt still makes a failed interview ready, as shipped.\n"
                "Needs the view of sql/03_views.sql.\n",
     .run = ctl_stuck},
    {.name = "validate",
     .operands = "FILE...",
     .operands_max = INT32_MAX,
     .options = CTL_TAKES(LINES) | CTL_TAKES(JSON),
     .settings = MESSAGE_SETTINGS,
     .summary = "say whether messages would be accepted",
     .details =
         "Each FILE is one message as it would arrive, or with --lines one a line; without a FILE, or with -, "
         "standard input. Says accepted, or rejected and the reason. Nothing is connected to. The exit code is 0 "
         "only if all are accepted.\n",
     .run = ctl_validate},
    {.name = NULL},
};
