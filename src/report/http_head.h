/* SPDX-License-Identifier: MIT */
/*
 * Is this the head of an HTTP/1 request (RFC 9112, sections 2 to 5)? Pure.
 *
 * libmicrohttpd answers what is malformed with a page of its own, which a program cannot read; so a head is judged
 * before the library gets it. Only the form is looked at: what is asked for is the library's and the routes' business.
 */
#ifndef PROMPTD_HTTP_HEAD_H
#define PROMPTD_HTTP_HEAD_H

#include <stddef.h>

enum {
    HTTP_HEAD_MAX_BYTES = 8192, /* with the empty line at its end */
    HTTP_HEAD_MAX_FIELDS = 64
};

enum http_head_form {
    HTTP_HEAD_INCOMPLETE, /* nothing wrong with it so far */
    HTTP_HEAD_WELL,
    HTTP_HEAD_BAD
};

struct http_head {
    enum http_head_form form;
    unsigned status; /* HTTP_HEAD_BAD: the answer's, and what is wrong */
    const char *why;
};

struct http_head http_head_judge(const char *bytes, size_t length);

#endif
