/* SPDX-License-Identifier: MIT */
/*
 * Who may ask: what can be told from a request's headers about the page that made a browser send it. Pure.
 *
 * A page of another site can make the browser of somebody on this machine send requests here. It must not be able to
 * do anything by that (cross-site requests), nor to read the answers by having its own name point here (DNS rebinding).
 * Programs such as curl and Prometheus send none of these headers but Host, and notice nothing.
 */
#ifndef PROMPTD_ADMIN_GUARD_H
#define PROMPTD_ADMIN_GUARD_H

#include <stdbool.h>

/* Headers of a request; NULL where absent. */
struct admin_origin {
    const char *host;
    const char *origin;
    const char *fetch_site; /* Sec-Fetch-Site */
};

/* Is Host an address, localhost, or `own_name`? Only such a name cannot be another site's. */
bool admin_guard_knows_host(const struct admin_origin *from, const char *own_name);

/* Did a browser send it? */
bool admin_guard_is_browser(const struct admin_origin *from);

/* Did a browser send it for another site's page? */
bool admin_guard_is_cross_site(const struct admin_origin *from);

#endif
