/* SPDX-License-Identifier: MIT */
/* Requests and their answers: one table of routes, and JSON for whatever is refused. */
#include "admin_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define LOG_COMPONENT "admin"
#include "admin_guard.h"
#include "promptd/json.h"
#include "promptd/log.h"
#include "promptd/metrics_text.h"

enum { BODY_MAX_BYTES = 4096, NONCE_BYTES = 16, NONCE_SIZE = 2 * NONCE_BYTES + 1 };

extern const unsigned char page_html[]; /* page/index.html, by cmake/Embed.cmake */
extern const size_t page_html_size;

struct answer {
    unsigned status;
    const char *content_type;
    const char *allow; /* NULL: none */
    char nonce[NONCE_SIZE];
    struct buffer body;
};

struct route {
    const char *path;
    bool is_post;
    void (*answer)(struct admin *admin, struct answer *answer);
};

/* --- the routes --------------------------------------------------------------------------------------------------- */

static void look(struct admin *admin)
{
    admin->options.look(admin->options.context, &admin->health);
}

static void answer_alive(struct admin *admin, struct answer *answer)
{
    (void)admin;
    json_open(&answer->body, NULL, '{');
    json_text(&answer->body, "status", "ok");
    json_close(&answer->body, '}');
}

static void answer_ready(struct admin *admin, struct answer *answer)
{
    const char *reasons[HEALTH_REASONS_MAX];
    look(admin);
    if (health_not_ready(&admin->health, reasons) > 0)
        answer->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    health_append_readiness(&admin->health, &answer->body);
}

static void answer_redis(struct admin *admin, struct answer *answer)
{
    look(admin);
    health_append_redis(&admin->health, &answer->body);
}

static void answer_status(struct admin *admin, struct answer *answer)
{
    look(admin);
    health_append_status(&admin->health, &answer->body);
}

static void answer_metrics(struct admin *admin, struct answer *answer)
{
    look(admin);
    answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_append_prometheus(admin->health.metrics, &answer->body);
}

static void answer_reset(struct admin *admin, struct answer *answer)
{
    bool redis;
    bool database;
    log_info(NULL, "asked to close the circuits");
    admin->options.reset_circuits(admin->options.context, &redis, &database);
    json_open(&answer->body, NULL, '{');
    json_text(&answer->body, "status", "ok");
    json_text(&answer->body, "message", "circuits closed; trying at once");
    json_boolean(&answer->body, "redis_circuit_was_open", redis);
    json_boolean(&answer->body, "database_circuit_was_open", database);
    json_close(&answer->body, '}');
}

/* Fresh for each answer: scripts and styles without it are not run. */
static bool make_nonce(char nonce[NONCE_SIZE])
{
    unsigned char bytes[NONCE_BYTES];
    if (getrandom(bytes, sizeof bytes, GRND_NONBLOCK) != (ssize_t)sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(nonce + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

static void answer_page(struct admin *admin, struct answer *answer)
{
    static const char mark[] = "{{nonce}}";
    const char *at = (const char *)page_html;
    const char *end = at + page_html_size;
    const char *found;
    (void)admin;
    answer->content_type = "text/html; charset=utf-8";
    if (!make_nonce(answer->nonce))
        answer->body.failed = true;
    while ((found = memmem(at, (size_t)(end - at), mark, sizeof mark - 1))) {
        buffer_append(&answer->body, at, (size_t)(found - at));
        buffer_append_text(&answer->body, answer->nonce);
        at = found + sizeof mark - 1;
    }
    buffer_append(&answer->body, at, (size_t)(end - at));
}

static const struct route routes[] = {
    {"/", false, answer_page},
    {"/healthz", false, answer_alive},
    {"/health", false, answer_alive},
    {"/readyz", false, answer_ready},
    {"/health/redis", false, answer_redis},
    {"/status", false, answer_status},
    {"/metrics", false, answer_metrics},
    {"/admin/redis/reset-circuit-breaker", true, answer_reset},
    {NULL, false, NULL},
};

/* --- refusing ----------------------------------------------------------------------------------------------------- */

static void refuse(struct answer *answer, unsigned status, const char *why)
{
    answer->status = status;
    answer->content_type = "application/json";
    json_open(&answer->body, NULL, '{');
    json_number(&answer->body, "status", status);
    json_text(&answer->body, "error", why);
    json_close(&answer->body, '}');
}

/* What cannot be told from a whole request on need not be received. */
static bool has_large_body(struct MHD_Connection *connection)
{
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) ||
           (length && (strlen(length) > 9 || strtol(length, NULL, 10) > BODY_MAX_BYTES));
}

/* A Unix socket is out of reach for browsers. Where others than this machine may come, people may have any name for it;
 * only what a browser asks to have done is looked at there. */
static bool is_foreign(const struct admin *admin, const struct admin_origin *from, bool is_post)
{
    if (admin->listener.unix_path)
        return false;
    if (is_post && admin_guard_is_cross_site(from))
        return true;
    bool matters = admin->listener.is_loopback || (is_post && admin_guard_is_browser(from));
    return matters && !admin_guard_knows_host(from, admin->listener.host);
}

static const struct route *find_route(const char *path)
{
    const struct route *route = routes;
    while (route->path && strcmp(route->path, path) != 0)
        route++;
    return route->path ? route : NULL;
}

static bool method_fits(const struct route *route, const char *method)
{
    if (route->is_post)
        return strcmp(method, "POST") == 0;
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

static void decide(struct admin *admin, const struct admin_origin *from, const char *url, const char *method,
                   const char *version, struct answer *answer)
{
    const struct route *route = find_route(url);
    bool is_post = strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0;
    if (!from->host && strcmp(version, "HTTP/1.0") != 0) {
        refuse(answer, MHD_HTTP_BAD_REQUEST, "the Host header is missing");
    } else if (is_foreign(admin, from, is_post)) {
        refuse(answer, MHD_HTTP_FORBIDDEN,
               "this comes from another site, or by a name that promptd does not know: use an address or localhost");
    } else if (!route) {
        refuse(answer, MHD_HTTP_NOT_FOUND, "there is nothing of that name");
    } else if (!method_fits(route, method)) {
        answer->allow = route->is_post ? "POST" : "GET, HEAD";
        refuse(answer, MHD_HTTP_METHOD_NOT_ALLOWED, route->is_post ? "only POST" : "only GET and HEAD");
    } else {
        route->answer(admin, answer);
    }
}

/* --- answering ---------------------------------------------------------------------------------------------------- */

static bool add_headers(struct MHD_Response *response, const struct answer *answer)
{
    char policy[256];
    bool ok = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->content_type) &&
              MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") &&
              MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") &&
              MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
    if (answer->allow)
        ok = ok && MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, answer->allow);
    if (!answer->nonce[0])
        return ok;
    (void)snprintf(policy, sizeof policy,
                   "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; img-src data:; "
                   "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                   answer->nonce, answer->nonce);
    return ok && MHD_add_response_header(response, "Content-Security-Policy", policy) &&
           MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
}

/* MHD_NO closes the connection: all that is left when out of memory. */
static enum MHD_Result send_answer(struct MHD_Connection *connection, struct answer *answer)
{
    if (answer->body.failed || !answer->body.data) {
        buffer_free(&answer->body);
        return MHD_NO;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(answer->body.length, answer->body.data,
                                                                    MHD_RESPMEM_MUST_FREE);
    if (!response) {
        buffer_free(&answer->body);
        return MHD_NO;
    }
    enum MHD_Result result = MHD_NO;
    if (add_headers(response, answer))
        result = MHD_queue_response(connection, answer->status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result admin_on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                 const char *version, const char *body, size_t *body_size, void **request)
{
    static char begun;
    struct admin *admin = context;
    struct answer answer = {.status = MHD_HTTP_OK, .content_type = "application/json"};
    (void)body;
    if (!*request) {
        *request = &begun;
        if (!has_large_body(connection))
            return MHD_YES; /* comes again with the body, if there is one, and once more at its end */
        refuse(&answer, MHD_HTTP_CONTENT_TOO_LARGE, "no request needs a body");
        return send_answer(connection, &answer);
    }
    if (*body_size > 0) {
        *body_size = 0;
        return MHD_YES;
    }
    const struct admin_origin from = {
        .host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST),
        .origin = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN),
        .fetch_site = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Sec-Fetch-Site"),
    };
    decide(admin, &from, url, method, version, &answer);
    return send_answer(connection, &answer);
}
