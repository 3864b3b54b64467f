/* SPDX-License-Identifier: MIT */
/*
 * The scripts of a stream's source, for EVAL. KEYS[1] is the stream.
 *
 *     create_group      ARGV: group
 *     fetch             ARGV: group, consumer, least idle time in ms (0: our own), ids
 *     forget            ARGV: (none), group, "delete" or "leave", ids
 *     dead_letter       KEYS[2]: the dead; ARGV: redis_dead_max, group, "delete" or "leave", id, fields of the letter
 *     remove_consumers  ARGV: group, consumer, idle time in ms from which one is gone, "self" or "others"
 */
#ifndef PROMPTD_STREAM_SCRIPTS_H
#define PROMPTD_STREAM_SCRIPTS_H

extern const char stream_create_group_script[];
extern const char stream_fetch_script[];
extern const char stream_forget_script[];
extern const char stream_dead_letter_script[];
extern const char stream_remove_consumers_script[];

#endif
