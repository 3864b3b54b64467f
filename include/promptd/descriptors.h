/* SPDX-License-Identifier: MIT */
/* Descriptors 0, 1 and 2 belong to standard input, output and error, also where the program is started without them:
 * else a socket or a file would get one of the numbers, and with it what is meant for standard error. */
#ifndef PROMPTD_DESCRIPTORS_H
#define PROMPTD_DESCRIPTORS_H

#include <stdbool.h>

/* First thing in main. Those that are closed become /dev/null. false: that cannot be opened. */
bool descriptors_reserve_standard(void);

#endif
