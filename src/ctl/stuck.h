/* SPDX-License-Identifier: MIT */
/* The query of promptctl stuck, whose plan promptctl check looks at. */
#ifndef PROMPTCTL_STUCK_H
#define PROMPTCTL_STUCK_H

#include "findings.h"

bool stuck_build(struct database *database, const struct settings *settings, struct findings_query *query,
                 struct error *error);

#endif
