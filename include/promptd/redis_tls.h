/* SPDX-License-Identifier: MIT */
/*
 * TLS for connections to Redis, of the daemon and of promptctl alike: version 1.2 or later; the server's certificate
 * and the name in it are always checked. hiredis has it from 1.0 on, in a library of its own that not every system has.
 */
#ifndef PROMPTD_REDIS_TLS_H
#define PROMPTD_REDIS_TLS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/error.h"
#include "promptd/settings.h"

/* What new connections begin with: the CAs, and the client's certificate. */
struct redis_tls;

/* One connection's TLS. It belongs to the redisContext, and is gone when that is freed. */
struct ssl_st;

/* Whether this program was built with it; without, nothing below may be called, but with a NULL session. */
bool redis_tls_is_there(void);

/* Reads the files that the settings name. NULL with *error, which names the setting. */
struct redis_tls *redis_tls_new(const struct settings *settings, struct error *error);

/* Reads them again, for the connections to come. When it fails, what was read before stays. */
bool redis_tls_reload(struct redis_tls *tls, const struct settings *settings, struct error *error);

void redis_tls_free(struct redis_tls *tls); /* connections may outlive it */

/*
 * Begins the handshake; `host` is the name or IP address that the certificate must be for. The context may still be
 * connecting, and does it with its first reads and writes. NULL with a phrase, ERROR_CONFIG where something is set up
 * wrong, else ERROR_UNAVAILABLE; then the context may only be freed.
 */
struct ssl_st *redis_tls_begin(struct redis_tls *tls, redisContext *redis, const char *host, struct error *phrase);

/* Why a connection ended, to be called at once; codes as above. `otherwise` is what hiredis says; has_answered: the
 * server has said something through TLS. */
void redis_tls_explain(struct ssl_st *session, const char *otherwise, bool has_answered, struct error *phrase);

/* The same for a connection on which nothing came in time. */
const char *redis_tls_explain_silence(struct ssl_st *session, const char *otherwise);

/* Whether bytes that were received wait in the session: no event of the socket tells of them. */
bool redis_tls_has_unread(struct ssl_st *session);

struct redis_tls_summary {
    const char *protocol; /* "TLSv1.3"; NULL: the handshake is not done, or there is none */
    const char *cipher;
    int64_t ends_s; /* the server's certificate, in Unix time */
};

void redis_tls_describe(struct ssl_st *session, struct redis_tls_summary *summary);

#endif
