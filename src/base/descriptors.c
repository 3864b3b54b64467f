/* SPDX-License-Identifier: MIT */
/* Descriptors 0, 1 and 2, which a program may be started without. */
#include "promptd/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* What is opened gets the lowest free number, so they are looked at from below. Standard input and output are opened
 * the wrong way round: to use them fails as before, so that output which nobody gets is no success. */
bool descriptors_reserve_standard(void)
{
    static const int modes[] = {[STDIN_FILENO] = O_WRONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_WRONLY};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", modes[fd]) != fd) /* NOLINT: to be inherited */
            return false;
    return true;
}
