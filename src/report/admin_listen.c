/* SPDX-License-Identifier: MIT */
/* Binding. A Unix socket that nobody listens on any more is replaced; one that is alive is not. */
#include "admin_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTEN_UNIX_MODE = 0660 };

static bool fail(struct error *error, const char *where, const char *why)
{
    return error_set(error, ERROR_UNAVAILABLE, "admin_listen: %s cannot be bound: %s", where, why);
}

/* --- TCP ---------------------------------------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr_storage *address)
{
    struct sockaddr_in v4 = {.sin_family = AF_UNSPEC};
    struct sockaddr_in6 v6 = {.sin6_family = AF_UNSPEC};
    memcpy(&v4, address, sizeof v4);
    memcpy(&v6, address, sizeof v6);
    if (v4.sin_family == AF_INET)
        return ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    const struct in6_addr *host = &v6.sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(host) || (IN6_IS_ADDR_V4MAPPED(host) && host->s6_addr[12] == IN_LOOPBACKNET);
}

static int bind_address(const struct addrinfo *at)
{
    const int on = 1;
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* without it a restart has to wait, no more */
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    int why = errno;
    (void)close(fd);
    errno = why;
    return -1;
}

/* Where it really is: port 0 has become another one. */
static bool describe(struct admin_listener *listener)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1]; /* an address, with its scope */
    char port[NI_MAXSERV];
    if (getsockname(listener->fd, (struct sockaddr *)&address, &length) != 0 ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return false;
    listener->is_loopback = is_loopback(&address);
    bool bracketed = address.ss_family == AF_INET6;
    (void)snprintf(listener->url, sizeof listener->url, "http://%s%s%s:%s/", bracketed ? "[" : "", host,
                   bracketed ? "]" : "", port);
    return true;
}

static bool open_tcp(const char *listen_at, struct admin_listener *listener, struct error *error)
{
    struct endpoint endpoint;
    if (!endpoint_parse(listen_at, &endpoint, error))
        return false;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    int status = getaddrinfo(endpoint.host, endpoint.port, &hints, &found);
    if (status != 0)
        return fail(error, listen_at, gai_strerror(status));
    for (const struct addrinfo *at = found; at && listener->fd < 0; at = at->ai_next)
        listener->fd = bind_address(at);
    int why = errno;
    freeaddrinfo(found);
    if (listener->fd < 0)
        return fail(error, listen_at, strerror(why));
    memcpy(listener->host, endpoint.host, sizeof listener->host);
    if (describe(listener))
        return true;
    return fail(error, listen_at, "the system does not say where");
}

/* --- Unix --------------------------------------------------------------------------------------------------------- */

/* Nobody listens: connecting is refused. A socket that is alive accepts, or has a full backlog. */
static bool is_stale(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool refused = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return refused;
}

static bool make_room(const struct sockaddr_un *address, struct error *error)
{
    struct stat file;
    const char *path = address->sun_path;
    if (lstat(path, &file) != 0)
        return errno == ENOENT || fail(error, path, strerror(errno));
    if (!S_ISSOCK(file.st_mode))
        return fail(error, path, "there is a file of that name that is no socket");
    if (!is_stale(address))
        return fail(error, path, "another process listens there");
    return unlink(path) == 0 || fail(error, path, strerror(errno));
}

static bool bind_unix(struct admin_listener *listener, const struct sockaddr_un *address)
{
    struct stat file;
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        return false;
    /* Before the bind, so that the file is never there with more rights; after it, in spite of the umask. */
    if (fchmod(listener->fd, LISTEN_UNIX_MODE) != 0 ||
        bind(listener->fd, (const struct sockaddr *)address, sizeof *address) != 0)
        return false;
    if (chmod(address->sun_path, LISTEN_UNIX_MODE) != 0 || stat(address->sun_path, &file) != 0)
        return false;
    listener->device = file.st_dev;
    listener->inode = file.st_ino;
    return listen(listener->fd, SOMAXCONN) == 0;
}

static bool open_unix(const char *path, struct admin_listener *listener, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        return fail(error, path, "the path is too long");
    memcpy(address.sun_path, path, length);
    listener->unix_path = strdup(path);
    if (!listener->unix_path)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    listener->is_loopback = true;
    (void)snprintf(listener->url, sizeof listener->url, "unix:%s", path);
    return make_room(&address, error) && (bind_unix(listener, &address) || fail(error, path, strerror(errno)));
}

/* ------------------------------------------------------------------------------------------------------------------ */

bool admin_listen_open(const char *listen_at, struct admin_listener *listener, struct error *error)
{
    *listener = (struct admin_listener){.fd = -1};
    const char *path = endpoint_unix_path(listen_at);
    bool ok = path ? open_unix(path, listener, error) : open_tcp(listen_at, listener, error);
    if (!ok)
        admin_listen_close(listener);
    return ok;
}

void admin_listen_close(struct admin_listener *listener)
{
    struct stat file;
    if (listener->fd >= 0)
        (void)close(listener->fd);
    listener->fd = -1;
    bool is_ours = listener->unix_path && listener->inode != 0 && lstat(listener->unix_path, &file) == 0 &&
                   file.st_dev == listener->device && file.st_ino == listener->inode;
    if (is_ours)
        (void)unlink(listener->unix_path); /* a file left behind is found stale by the next one */
    free(listener->unix_path);
    listener->unix_path = NULL;
}
