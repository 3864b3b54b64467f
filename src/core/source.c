/* SPDX-License-Identifier: MIT */
/* Calls to whatever kind of source there is. */
#include "promptd/source.h"

void source_demand(struct source *source, size_t messages, size_t bytes)
{
    if (source->ops->demand)
        source->ops->demand(source, messages, bytes);
}

void source_acknowledge(struct source *source, struct receipt *receipt, const struct disposition *disposition)
{
    source->ops->acknowledge(source, receipt, disposition);
}

void source_release(struct source *source, struct receipt *receipt)
{
    source->ops->release(source, receipt);
}

void source_set_tuning(struct source *source, const struct source_tuning *tuning)
{
    source->ops->set_tuning(source, tuning);
}

void source_get_status(const struct source *source, struct source_status *status)
{
    *status = (struct source_status){0};
    source->ops->get_status(source, status);
}

bool source_reset_circuit(struct source *source)
{
    return source->ops->reset_circuit(source);
}

void source_stop(struct source *source)
{
    source->ops->stop(source);
}

void source_close(struct source *source, void (*on_closed)(void *context), void *context)
{
    source->ops->close(source, on_closed, context);
}
