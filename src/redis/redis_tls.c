/* SPDX-License-Identifier: MIT */
/* OpenSSL below hiredis. The session is made here, for hiredis checks no host name and asks for no version. */
#include "promptd/redis_tls.h"

#include <string.h>

#if PROMPTD_HAS_REDIS_TLS

#include <arpa/inet.h>
#include <errno.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct redis_tls {
    SSL_CTX *context;
};

bool redis_tls_is_there(void)
{
    return true;
}

/* --- the files -------------------------------------------------------------------------------------------------- */

static bool refuse_file(const struct settings *settings, const char *name, const char *phrase, struct error *error)
{
    return settings_refuse(settings, name, phrase, "the path of a PEM file", error);
}

/* What OpenSSL has found in a file: its first error is the nearest to the cause. */
static bool refuse_content(const struct settings *settings, const char *name, const char *content, struct error *error)
{
    char phrase[200];
    unsigned long code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code))
        (void)snprintf(phrase, sizeof phrase, "cannot be read: %s", strerror(ERR_GET_REASON(code)));
    else if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH)
        (void)snprintf(phrase, sizeof phrase, "does not belong to the certificate of redis_tls_cert_file");
    else
        (void)snprintf(phrase, sizeof phrase, "has no usable %s in it", content);
    return refuse_file(settings, name, phrase, error);
}

/* OpenSSL would ask on the terminal. */
static int on_passphrase(char *buffer, int size, int writing, void *context)
{
    (void)buffer;
    (void)size;
    (void)writing;
    bool *asked = context;
    *asked = true;
    return -1;
}

static bool load_cas(SSL_CTX *context, const struct settings *settings, struct error *error)
{
    const char *file = settings->redis_tls_ca_file;
    if (file[0] == '\0')
        return SSL_CTX_set_default_verify_paths(context) == 1 || error_set(error, ERROR_INTERNAL, "out of memory");
    return SSL_CTX_load_verify_file(context, file) == 1 ||
           refuse_content(settings, "redis_tls_ca_file", "certificate", error);
}

/* The server asks for a certificate, and there is none. */
static int on_certificate_wanted(SSL *ssl, X509 **certificate, EVP_PKEY **key)
{
    static char noted;
    (void)certificate;
    (void)key;
    (void)SSL_set_app_data(ssl, &noted);
    return 0;
}

static bool load_certificate(SSL_CTX *context, const struct settings *settings, struct error *error)
{
    bool asked = false;
    bool has_certificate = settings->redis_tls_cert_file[0];
    bool has_key = settings->redis_tls_key_file[0];
    if (has_certificate && !has_key)
        return refuse_file(settings, "redis_tls_cert_file", "has no key beside it: redis_tls_key_file is empty", error);
    if (has_key && !has_certificate)
        return refuse_file(settings, "redis_tls_key_file", "has no certificate: redis_tls_cert_file is empty", error);
    if (!has_certificate) {
        SSL_CTX_set_client_cert_cb(context, on_certificate_wanted);
        return true;
    }
    SSL_CTX_set_default_passwd_cb(context, on_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, &asked);
    if (SSL_CTX_use_certificate_chain_file(context, settings->redis_tls_cert_file) != 1)
        return refuse_content(settings, "redis_tls_cert_file", "certificate", error);
    bool loaded = SSL_CTX_use_PrivateKey_file(context, settings->redis_tls_key_file, SSL_FILETYPE_PEM) == 1;
    SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
    if (!loaded && asked)
        return refuse_file(settings, "redis_tls_key_file", "has a key with a passphrase, which nobody can type", error);
    return loaded || refuse_content(settings, "redis_tls_key_file", "private key", error);
}

static SSL_CTX *load(const struct settings *settings, struct error *error)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (!load_cas(context, settings, error) || !load_certificate(context, settings, error)) {
        SSL_CTX_free(context);
        context = NULL;
    }
    ERR_clear_error();
    return context;
}

struct redis_tls *redis_tls_new(const struct settings *settings, struct error *error)
{
    struct redis_tls *tls = calloc(1, sizeof *tls);
    if (!tls) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (redis_tls_reload(tls, settings, error))
        return tls;
    free(tls);
    return NULL;
}

bool redis_tls_reload(struct redis_tls *tls, const struct settings *settings, struct error *error)
{
    SSL_CTX *next = load(settings, error);
    if (!next)
        return false;
    SSL_CTX_free(tls->context); /* sessions have counted it, too */
    tls->context = next;
    return true;
}

void redis_tls_free(struct redis_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    free(tls);
}

/* --- one connection --------------------------------------------------------------------------------------------- */

/*
 * OpenSSL's list of errors is the thread's own, and others leave theirs in it: libpq does. One that is found there
 * after a read is taken for the read's.
 */
static const redisContextFuncs *hiredis_functions;
static redisContextFuncs functions;

static ssize_t read_bytes(redisContext *redis, char *buffer, size_t size)
{
    ERR_clear_error();
    return hiredis_functions->read(redis, buffer, size);
}

static ssize_t write_bytes(redisContext *redis)
{
    ERR_clear_error();
    return hiredis_functions->write(redis);
}

static void wrap_functions(redisContext *redis)
{
    hiredis_functions = redis->funcs; /* the same for every context with TLS */
    functions = *redis->funcs;
    functions.read = read_bytes;
    functions.write = write_bytes;
    redis->funcs = &functions;
}

static bool is_ip_address(const char *host)
{
    struct in6_addr ignored;
    return inet_pton(AF_INET, host, &ignored) == 1 || inet_pton(AF_INET6, host, &ignored) == 1;
}

/* Certificates know neither the zone of fe80::1%eth0 nor the last dot of redis.example.com. */
static bool expect_host(SSL *ssl, const char *host)
{
    char name[256];
    (void)snprintf(name, sizeof name, "%s", host);
    name[strcspn(name, "%")] = '\0';
    X509_VERIFY_PARAM *expected = SSL_get0_param(ssl);
    if (is_ip_address(name))
        return X509_VERIFY_PARAM_set1_ip_asc(expected, name) == 1;
    size_t length = strlen(name);
    if (length > 0 && name[length - 1] == '.')
        name[length - 1] = '\0';
    X509_VERIFY_PARAM_set_hostflags(expected, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(expected, name, 0) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct ssl_st *redis_tls_begin(struct redis_tls *tls, redisContext *redis, const char *host, struct error *phrase)
{
    SSL *ssl = SSL_new(tls->context);
    if (!ssl || !expect_host(ssl, host)) {
        error_set(phrase, ERROR_UNAVAILABLE, "out of memory");
    } else if (redisInitiateSSL(redis, ssl) == REDIS_OK) {
        wrap_functions(redis);
        return ssl;
    } else {
        static const char preface[] = "SSL_connect failed: ";
        bool prefaced = strncmp(redis->errstr, preface, sizeof preface - 1) == 0;
        redis_tls_explain(ssl, redis->errstr + (prefaced ? sizeof preface - 1 : 0), false, phrase);
    }
    SSL_free(ssl);
    return NULL;
}

bool redis_tls_has_unread(struct ssl_st *session)
{
    return session && SSL_pending(session) > 0;
}

void redis_tls_describe(struct ssl_st *session, struct redis_tls_summary *summary)
{
    struct tm end = {0};
    *summary = (struct redis_tls_summary){0};
    if (!session || SSL_in_init(session))
        return;
    const X509 *certificate = SSL_get0_peer_certificate(session);
    *summary = (struct redis_tls_summary){.protocol = SSL_get_version(session), .cipher = SSL_get_cipher_name(session)};
    if (certificate && ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) == 1)
        summary->ends_s = timegm(&end);
}

/* --- why it ended ----------------------------------------------------------------------------------------------- */

#define NO_TLS "this port does not speak TLS: redis://"

static void explain_name(SSL *ssl, struct error *phrase)
{
    X509_VERIFY_PARAM *expected = SSL_get0_param(ssl);
    char *address = X509_VERIFY_PARAM_get1_ip_asc(expected);
    const char *name = address ? address : X509_VERIFY_PARAM_get0_host(expected, 0);
    error_set(phrase, ERROR_CONFIG, "the server's certificate is for another name, not for %s", name ? name : "this");
    OPENSSL_free(address);
}

static void explain_certificate(SSL *ssl, long result, struct error *phrase)
{
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        error_set(phrase, ERROR_CONFIG, "the server's certificate has expired");
        return;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        error_set(phrase, ERROR_CONFIG, "the server's certificate is not valid yet; is the clock right?");
        return;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        explain_name(ssl, phrase);
        return;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        error_set(
            phrase, ERROR_CONFIG,
            "the server's certificate is from a CA that is unknown here (%s): redis_tls_ca_file names a file of CAs",
            X509_verify_cert_error_string(result));
        return;
    default:
        error_set(phrase, ERROR_CONFIG, "the server's certificate is refused: %s",
                  X509_verify_cert_error_string(result));
    }
}

/* What the server says of us, in a TLS alert. */
#define WANTS_CERTIFICATE "the server wants a client certificate: redis_tls_cert_file and redis_tls_key_file"

static void explain_alert(int alert, struct error *phrase)
{
    const char *words = SSL_alert_desc_string_long(alert);
    switch (alert) {
    case SSL_AD_CERTIFICATE_REQUIRED:
        error_set(phrase, ERROR_CONFIG, WANTS_CERTIFICATE);
        return;
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
        error_set(phrase, ERROR_CONFIG, "the server does not accept the client certificate (redis_tls_cert_file): %s",
                  words);
        return;
    case SSL_AD_PROTOCOL_VERSION:
        error_set(phrase, ERROR_CONFIG, "the server does not speak TLS 1.2 or later");
        return;
    case SSL_AD_INTERNAL_ERROR:
    case SSL_AD_USER_CANCELLED:
        error_set(phrase, ERROR_UNAVAILABLE, "the server ended TLS: %s", words);
        return;
    default:
        error_set(phrase, ERROR_CONFIG, "the server ended TLS: %s (may it want a client certificate?)", words);
    }
}

static void explain_end(SSL *ssl, struct error *phrase)
{
    if (SSL_in_init(ssl))
        error_set(phrase, ERROR_UNAVAILABLE, "closed during the TLS handshake; perhaps " NO_TLS);
    else
        error_set(phrase, ERROR_UNAVAILABLE, "Server closed the connection");
}

static void explain_error(SSL *ssl, unsigned long code, struct error *phrase)
{
    const char *words = ERR_reason_error_string(code);
    int reason = ERR_GET_REASON(code);
    if (ERR_GET_LIB(code) != ERR_LIB_SSL)
        error_set(phrase, ERROR_UNAVAILABLE, "TLS: %s", words ? words : "an error without a name");
    else if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        explain_end(ssl, phrase);
    else if (reason == SSL_R_WRONG_VERSION_NUMBER && SSL_in_init(ssl))
        error_set(phrase, ERROR_CONFIG, NO_TLS);
    else if (reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_VERSION_TOO_LOW)
        explain_alert(SSL_AD_PROTOCOL_VERSION, phrase);
    else if (reason > SSL_AD_REASON_OFFSET)
        explain_alert(reason - SSL_AD_REASON_OFFSET, phrase);
    else
        error_set(phrase, ERROR_UNAVAILABLE, "TLS: %s", words ? words : "an error without a name");
}

const char *redis_tls_explain_silence(struct ssl_st *session, const char *otherwise)
{
    return session && SSL_in_init(session) ? "no answer to the TLS handshake; perhaps " NO_TLS : otherwise;
}

/* A write that failed because the server has closed: why it did may still lie unread. */
static unsigned long read_last_words(SSL *ssl)
{
    char byte;
    ERR_clear_error();
    (void)SSL_read(ssl, &byte, 1); /* the socket is at its end, so that this does not wait */
    return ERR_peek_last_error();
}

/* In TLS 1.3 the server refuses when the client has sent already. Where its reset overtakes its alert, the kernel
 * throws the alert away. */
static bool may_have_refused(SSL *ssl, bool has_answered)
{
    return !has_answered && !SSL_in_init(ssl) && SSL_get_app_data(ssl);
}

void redis_tls_explain(struct ssl_st *session, const char *otherwise, bool has_answered, struct error *phrase)
{
    long result = SSL_get_verify_result(session);
    unsigned long code = ERR_peek_last_error();
    if (ERR_SYSTEM_ERROR(code) && (ERR_GET_REASON(code) == EPIPE || ERR_GET_REASON(code) == ECONNRESET))
        code = read_last_words(session);
    if (ERR_SYSTEM_ERROR(code))
        code = 0; /* hiredis says it, too */
    if (result != X509_V_OK)
        explain_certificate(session, result, phrase);
    else if (code != 0)
        explain_error(session, code, phrase);
    else if (may_have_refused(session, has_answered))
        error_set(phrase, ERROR_CONFIG, "perhaps " WANTS_CERTIFICATE " (%s, before any answer)", otherwise);
    else
        error_set(phrase, ERROR_UNAVAILABLE, "%s", otherwise);
    ERR_clear_error();
}

#else

bool redis_tls_is_there(void)
{
    return false;
}

struct redis_tls *redis_tls_new(const struct settings *settings, struct error *error)
{
    (void)settings;
    error_set(error, ERROR_INTERNAL, "there is no TLS in this program");
    return NULL;
}

bool redis_tls_reload(struct redis_tls *tls, const struct settings *settings, struct error *error)
{
    (void)tls;
    (void)settings;
    return error_set(error, ERROR_INTERNAL, "there is no TLS in this program");
}

void redis_tls_free(struct redis_tls *tls)
{
    (void)tls;
}

struct ssl_st *redis_tls_begin(struct redis_tls *tls, redisContext *redis, const char *host, struct error *phrase)
{
    (void)tls;
    (void)redis;
    (void)host;
    error_set(phrase, ERROR_INTERNAL, "there is no TLS in this program");
    return NULL;
}

void redis_tls_explain(struct ssl_st *session, const char *otherwise, bool has_answered, struct error *phrase)
{
    (void)session;
    (void)has_answered;
    error_set(phrase, ERROR_UNAVAILABLE, "%s", otherwise);
}

const char *redis_tls_explain_silence(struct ssl_st *session, const char *otherwise)
{
    (void)session;
    return otherwise;
}

bool redis_tls_has_unread(struct ssl_st *session)
{
    (void)session;
    return false;
}

void redis_tls_describe(struct ssl_st *session, struct redis_tls_summary *summary)
{
    (void)session;
    *summary = (struct redis_tls_summary){0};
}

#endif
