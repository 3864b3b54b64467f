/* SPDX-License-Identifier: MIT */
/* promptctl publish: sends a message as the workflow would. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "message_file.h"
#include "modes.h"
#include "output.h"
#include "promptd/commands.h"
#include "promptd/json.h"

/* What is sent, and what is known of it. */
struct outgoing {
    struct buffer payload;
    char prompt_id[UUID_TEXT_SIZE];
};

static bool check_options(const struct ctl *ctl, struct error *error)
{
    uint8_t uuid[UUID_SIZE];
    const char *interview = ctl->options[CTL_OPTION_INTERVIEW];
    const char *source = ctl->options[CTL_OPTION_SOURCE];
    if (!interview)
        return error_set(error, ERROR_USAGE, "promptctl publish needs --interview=ID");
    if (!uuid_parse(interview, strlen(interview), uuid))
        return error_set(error, ERROR_USAGE, "flag --interview: this is no UUID of the form 8-4-4-4-12");
    const struct text_list *sources = &ctl->settings.sources;
    for (size_t i = 0; source && i < sources->count; i++) {
        if (strcmp(sources->items[i], source) == 0)
            return true;
    }
    return !source || error_set(error, ERROR_USAGE, "flag --source: this is none of the setting sources");
}

static bool read_prompt(const struct ctl *ctl, size_t limit, struct buffer *prompt, struct error *error)
{
    const char *path = ctl->operands[0];
    FILE *file = message_file_open(path, error);
    if (!file)
        return false;
    bool read = message_file_read(file, path, limit, prompt, error);
    if (file != stdin)
        (void)fclose(file); /* it was only read */
    return read;
}

static bool refuse(enum reject_reason reason, struct error *error)
{
    return error_set(error, ERROR_NONE, "not sent, for promptd would reject it: %s: %s", reject_name(reason),
                     reject_meaning(reason));
}

/* Made into JSON and checked as the daemon will check it: what it would reject is not sent. */
static bool write_payload(const struct ctl *ctl, const struct message_rules *rules, struct buffer *prompt,
                          struct outgoing *outgoing, struct error *error)
{
    if (prompt->length > 0 && !utf8_is_valid(prompt->data, prompt->length))
        return refuse(REJECT_INVALID_UTF8, error);
    if (prompt->length > 0 && memchr(prompt->data, '\0', prompt->length))
        return refuse(REJECT_PROMPT_HAS_NUL, error);
    buffer_append_char(prompt, '\0');
    if (prompt->failed)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    json_open(&outgoing->payload, NULL, '{');
    json_text(&outgoing->payload, "interview_id", ctl->options[CTL_OPTION_INTERVIEW]);
    json_text(&outgoing->payload, "enhanced_prompt", prompt->data);
    if (ctl_has(ctl, CTL_OPTION_SOURCE))
        json_text(&outgoing->payload, "source", ctl->options[CTL_OPTION_SOURCE]);
    json_close(&outgoing->payload, '}');
    struct message_content content;
    if (outgoing->payload.failed || !message_parse(rules, outgoing->payload.data, outgoing->payload.length, &content))
        return error_set(error, ERROR_INTERNAL, "out of memory");
    bool good = content.reject == REJECT_NONE ? message_file_prompt_id(&content, outgoing->prompt_id, error)
                                              : refuse(content.reject, error);
    message_content_free(&content);
    return good;
}

/* The answer, of the type that the mode's row has; NULL with *error. */
static redisReply *send_payload(const struct ctl *ctl, const struct outgoing *outgoing, struct error *error)
{
    struct redis_client client;
    redisReply *reply = NULL;
    const struct mode *mode = mode_of(&ctl->settings);
    if (redis_client_open(&client, &ctl->settings, error))
        reply = mode_send(&client, &ctl->settings, outgoing->payload.data, outgoing->payload.length, error);
    if (reply && (reply->type != mode->answer_type || reply->integer < 0)) {
        (void)redis_client_misunderstand(&client, mode->command, error);
        freeReplyObject(reply);
        reply = NULL;
    }
    redis_client_close(&client);
    return reply;
}

static void report(const struct ctl *ctl, const struct outgoing *outgoing, const redisReply *reply)
{
    const struct mode *mode = mode_of(&ctl->settings);
    struct buffer out = {0};
    if (!ctl_has(ctl, CTL_OPTION_JSON)) {
        buffer_printf(&out, "%s: ", mode->sent);
        mode->describe_answer(reply, &out);
        buffer_printf(&out, ", prompt id %s\n", outgoing->prompt_id);
        output_write(&out);
        return;
    }
    json_open(&out, NULL, '{');
    json_text(&out, "mode", mode->name);
    json_text(&out, "channel", ctl->settings.redis_channel);
    json_text(&out, "interview_id", ctl->options[CTL_OPTION_INTERVIEW]);
    json_text(&out, "prompt_id", outgoing->prompt_id);
    json_number(&out, "bytes", outgoing->payload.length);
    if (reply->type == REDIS_REPLY_INTEGER)
        json_number(&out, mode->answer, (uint64_t)reply->integer);
    else
        json_text(&out, mode->answer, reply->str);
    json_close(&out, '}');
    buffer_append_char(&out, '\n');
    output_write(&out);
}

/* Whether it waits in Redis, or somebody has it. */
static bool has_arrived(const struct ctl *ctl, const redisReply *reply)
{
    if (mode_of(&ctl->settings)->key_type || reply->integer > 0)
        return true;
    output_note("promptctl: nobody listens on %s: the message is lost", ctl->settings.redis_channel);
    return false;
}

int ctl_publish(struct ctl *ctl)
{
    struct error error;
    struct buffer prompt = {0};
    struct outgoing outgoing = {.prompt_id = ""};
    const struct message_rules rules = message_rules_of(&ctl->settings);
    redisReply *reply = NULL;
    if (check_options(ctl, &error) && read_prompt(ctl, rules.max_bytes + 1, &prompt, &error) &&
        write_payload(ctl, &rules, &prompt, &outgoing, &error))
        reply = send_payload(ctl, &outgoing, &error);
    int status = CTL_OK;
    if (!reply) {
        status = output_fail(&error);
    } else {
        report(ctl, &outgoing, reply);
        status = has_arrived(ctl, reply) ? CTL_OK : CTL_FOUND;
    }
    freeReplyObject(reply);
    buffer_free(&prompt);
    buffer_free(&outgoing.payload);
    return status;
}
