/* SPDX-License-Identifier: MIT */
/* promptctl publish: sends a message as the workflow would. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "message_file.h"
#include "output.h"
#include "promptd/commands.h"
#include "promptd/json.h"
#include "redis.h"

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

static bool send_payload(const struct ctl *ctl, const struct outgoing *outgoing, long long *receivers,
                         struct error *error)
{
    struct redis_client client;
    redisReply *reply = NULL;
    if (redis_client_connect(&client, &ctl->settings, error) && redis_client_login(&client, error) &&
        redis_client_check_role(&client, error)) {
        const char *const words[] = {"PUBLISH", ctl->settings.redis_channel, outgoing->payload.data};
        const size_t lengths[] = {strlen(words[0]), strlen(words[1]), outgoing->payload.length};
        reply = redis_client_call(&client, 3, words, lengths, error);
    }
    bool sent = reply && reply->type == REDIS_REPLY_INTEGER;
    *receivers = sent ? reply->integer : 0;
    if (reply && !sent)
        (void)error_set(error, ERROR_UNAVAILABLE, "%s is no Redis: its answer to PUBLISH is no number", client.server);
    freeReplyObject(reply);
    redis_client_close(&client);
    return sent;
}

static void report(const struct ctl *ctl, const struct outgoing *outgoing, long long receivers)
{
    if (!ctl_has(ctl, CTL_OPTION_JSON)) {
        (void)printf("published: %lld receiver%s, prompt id %s\n", receivers, receivers == 1 ? "" : "s",
                     outgoing->prompt_id);
        return;
    }
    struct buffer object = {0};
    json_open(&object, NULL, '{');
    json_text(&object, "channel", ctl->settings.redis_channel);
    json_text(&object, "interview_id", ctl->options[CTL_OPTION_INTERVIEW]);
    json_text(&object, "prompt_id", outgoing->prompt_id);
    json_number(&object, "bytes", outgoing->payload.length);
    json_number(&object, "receivers", (uint64_t)receivers);
    json_close(&object, '}');
    buffer_append_char(&object, '\n');
    output_write(&object);
}

int ctl_publish(struct ctl *ctl)
{
    struct error error;
    struct buffer prompt = {0};
    struct outgoing outgoing = {.prompt_id = ""};
    const struct message_rules rules = message_file_rules(&ctl->settings);
    long long receivers = 0;
    bool sent = check_options(ctl, &error) && read_prompt(ctl, rules.max_bytes + 1, &prompt, &error) &&
                write_payload(ctl, &rules, &prompt, &outgoing, &error) &&
                send_payload(ctl, &outgoing, &receivers, &error);
    int status = CTL_OK;
    if (!sent) {
        status = output_fail(&error);
    } else {
        report(ctl, &outgoing, receivers);
        if (receivers == 0) {
            output_note("promptctl: nobody listens on %s: the message is lost", ctl->settings.redis_channel);
            status = CTL_FOUND;
        }
    }
    buffer_free(&prompt);
    buffer_free(&outgoing.payload);
    return status;
}
