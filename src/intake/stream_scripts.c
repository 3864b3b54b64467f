/* SPDX-License-Identifier: MIT */
/*
 * What a stream's source has Redis do in one step. Once a script has written, a full Redis takes everything from it:
 * some begin with a command that changes nothing.
 */
#include "stream_scripts.h"

#include "queue_state.h"

const char stream_create_group_script[] = "redis.pcall('XACK', KEYS[1], ARGV[1], '0-0')\n"
                                          "return redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')";

/* Entries that are pending, for us, or for others who have left them alone for so long: then it is one delivery more,
 * while to look at our own is none. Of an entry comes its message alone, so that the reply has room for it whatever
 * else is in it: {id, {"message", payload}, deliveries}; just the id where the entry was deleted. (For that Redis 6.2
 * gives XCLAIM a nil, and later versions leave it out.) */
const char stream_fetch_script[] =
    "local found, idle = {}, tonumber(ARGV[3])\n"
    "for i = 4, #ARGV do\n"
    "  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]\n"
    "  if pending and (pending[2] == ARGV[2] or (idle > 0 and pending[3] >= idle)) then\n"
    "    local times = pending[4] + (idle > 0 and 1 or 0)\n"
    "    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'RETRYCOUNT', times)[1]\n"
    "    local message = {}\n"
    "    for at = 1, entry and #entry[2] or 0, 2 do\n"
    "      if entry[2][at] == 'message' then message = {'message', entry[2][at + 1]} break end\n"
    "    end\n"
    "    found[#found + 1] = entry and {ARGV[i], message, times} or {ARGV[i]}\n"
    "  end\n"
    "end\n"
    "return found";

const char stream_forget_script[] = "if ARGV[3] == 'delete' then redis.call('XDEL', KEYS[1], unpack(ARGV, 4)) end\n"
                                    "return redis.call('XACK', KEYS[1], ARGV[2], unpack(ARGV, 4))";

/* First, without effect, what would be refused after the letter: there would be another one at each try. */
const char stream_dead_letter_script[] = "if ARGV[3] == 'delete' then redis.call('XDEL', KEYS[1], '0-0') end\n"
                                         "redis.call('XACK', KEYS[1], ARGV[2], '0-0')\n" QUEUE_LETTER_SCRIPT
                                         "if ARGV[3] == 'delete' then redis.call('XDEL', KEYS[1], ARGV[4]) end\n"
                                         "return redis.call('XACK', KEYS[1], ARGV[2], ARGV[4])";

/* Consumers that hold nothing are removed, atomically, for what is pending for a consumer goes with it: ourselves, or
 * those of whom nothing was heard for long. */
const char stream_remove_consumers_script[] =
    "for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do\n"
    "  local field = {}\n"
    "  for i = 1, #consumer, 2 do field[consumer[i]] = consumer[i + 1] end\n"
    "  local gone = field.idle >= tonumber(ARGV[3])\n"
    "  if ARGV[4] == 'self' then gone = field.name == ARGV[2] end\n"
    "  if field.pending == 0 and gone then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], field.name) end\n"
    "end\n"
    "return 0";
