/* SPDX-License-Identifier: MIT */
/* libcurl, for one small answer from this machine. */
#include "http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "promptd/endpoint.h"

enum {
    HTTP_CONNECT_TIMEOUT_MS = 3000,
    HTTP_TIMEOUT_MS = 5000,
    HTTP_BODY_MAX = 8 * 1024 * 1024, /* the largest answer has some 100 kB */
    HTTP_URL_SIZE = 512
};

/* Where to connect to. */
struct target {
    char url[HTTP_URL_SIZE];
    const char *unix_path; /* NULL: TCP */
};

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    struct buffer *body = context;
    if (body->length + size * count > HTTP_BODY_MAX)
        return 0;
    buffer_append(body, bytes, size * count);
    return body->failed ? 0 : size * count;
}

static bool find_target(const char *listen, const char *path, struct target *target, struct error *error)
{
    struct endpoint endpoint;
    *target = (struct target){.unix_path = endpoint_unix_path(listen)};
    if (target->unix_path) {
        (void)snprintf(target->url, sizeof target->url, "http://localhost%s", path);
        return true;
    }
    if (strcmp(listen, "off") == 0)
        return error_set(error, ERROR_CONFIG, "setting admin_listen is off: the daemon cannot be asked");
    if (!endpoint_parse(listen, &endpoint, NULL))
        return error_set(error, ERROR_CONFIG, "setting admin_listen: this is no address"); /* it was checked */
    if (strcmp(endpoint.port, "0") == 0)
        return error_set(error, ERROR_CONFIG,
                         "setting admin_listen has port 0, so the daemon has chosen one: its log"
                         " names it (admin listening)");
    const char *host = endpoint.host;
    if (strcmp(host, "0.0.0.0") == 0)
        host = "127.0.0.1";
    else if (strcmp(host, "::") == 0)
        host = "::1";
    (void)snprintf(target->url, sizeof target->url, strchr(host, ':') ? "http://[%s]:%s%s" : "http://%s:%s%s", host,
                   endpoint.port, path);
    return true;
}

static CURLcode set_options(CURL *curl, const struct target *target, struct buffer *body, char *reason)
{
    CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, target->url);
    if (code == CURLE_OK && target->unix_path)
        code = curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, target->unix_path);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* http_proxy is not meant for this */
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_TIMEOUT_MS);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)HTTP_TIMEOUT_MS);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    return code;
}

static bool perform(CURL *curl, const char *listen, const struct target *target, struct buffer *body,
                    struct error *error)
{
    char reason[CURL_ERROR_SIZE] = "";
    long status = 0;
    CURLcode code = set_options(curl, target, body, reason);
    if (code == CURLE_OK)
        code = curl_easy_perform(curl);
    if (code == CURLE_OK)
        code = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK)
        return error_set(error, ERROR_UNAVAILABLE, "promptd at %.200s cannot be reached: %.200s", listen,
                         reason[0] ? reason : curl_easy_strerror(code));
    return status == 200 || error_set(error, ERROR_UNAVAILABLE,
                                      "what answers at %.200s is no promptd (HTTP status %ld)", listen, status);
}

bool http_get(const char *listen, const char *path, struct buffer *body, struct error *error)
{
    struct target target;
    if (!find_target(listen, path, &target, error))
        return false;
    CURL *curl = curl_easy_init();
    if (!curl)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    bool good = perform(curl, listen, &target, body, error);
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    buffer_append_char(body, '\0');
    return good && (!body->failed || error_set(error, ERROR_INTERNAL, "out of memory"));
}
