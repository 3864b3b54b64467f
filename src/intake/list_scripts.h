/* SPDX-License-Identifier: MIT */
/*
 * The scripts of a list's source, for EVAL.
 *
 *     keep_alive   KEYS: consumers, alive, deliveries; ARGV: consumer, ms until it counts as gone
 *     take         KEYS: list, processing, deliveries; ARGV: how many at most. Returns the messages
 *     dead_letter  KEYS: processing, dead; ARGV: redis_dead_max, consumer, "read" or "skipped", bytes, fields of the
 *                  letter, with the message first where it was read
 *     put_back     KEYS: alive, processing, list, deliveries, dead, consumers; ARGV: consumer, most deliveries,
 *                  redis_dead_max, time, "own" or "other". Returns how many were put back, how many were delivered too
 *                  often, how many wait to be put back alone, and what refused a dead letter, if anything did; where
 *                  another consumer lives, nothing
 */
#ifndef PROMPTD_LIST_SCRIPTS_H
#define PROMPTD_LIST_SCRIPTS_H

extern const char list_keep_alive_script[];
extern const char list_take_script[];
extern const char list_dead_letter_script[];
extern const char list_put_back_script[];

#endif
