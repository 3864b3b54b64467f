/* SPDX-License-Identifier: MIT */
/*
 * What a list's source has Redis do in one step. Once a script has written, a full Redis takes everything from it: most
 * begin with a command that changes nothing.
 */
#include "list_scripts.h"

#include "queue_state.h"

const char list_keep_alive_script[] = "redis.call('HDEL', KEYS[3], '')\n"
                                      "redis.call('SADD', KEYS[1], ARGV[1])\n"
                                      "return redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])";

const char list_take_script[] = "redis.call('HDEL', KEYS[3], '')\n"
                                "local taken = {}\n"
                                "for i = 1, tonumber(ARGV[1]) do\n"
                                "  taken[i] = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')\n"
                                "  if not taken[i] then break end\n"
                                "end\n"
                                "return taken";

/* First, without effect, what would be refused after the letter: there would be another one at each try. What was too
 * large to be read is known by its length alone. */
const char list_dead_letter_script[] = "redis.call('LREM', KEYS[1], 1, ARGV[2])\n" QUEUE_LETTER_SCRIPT
                                       "if ARGV[3] == 'read' then return redis.call('LREM', KEYS[1], -1, ARGV[6]) end\n"
                                       "for i = redis.call('LLEN', KEYS[1]) - 1, 0, -1 do\n"
                                       "  local message = redis.call('LINDEX', KEYS[1], i)\n"
                                       "  if message and #message == tonumber(ARGV[4]) then\n"
                                       "    redis.call('LSET', KEYS[1], i, ARGV[2])\n"
                                       "    return redis.call('LREM', KEYS[1], 1, ARGV[2])\n"
                                       "  end\n"
                                       "end\n"
                                       "return 0";

/* Atomic: whoever looks meanwhile sees each message in one place. Walks once over what the consumer had taken, from the
 * newest on; what stays there goes around it, and is in order again at the end. Returns how many were put back, how
 * many were delivered too often, and how many wait to be put back alone; where the consumer lives, nothing. */
const char list_put_back_script[] =
    "local other, most = ARGV[5] == 'other', tonumber(ARGV[2])\n"
    "if other and redis.call('EXISTS', KEYS[1]) == 1 then return {} end\n"
    "redis.call('HDEL', KEYS[4], '')\n"
    "if not other then redis.call('DEL', KEYS[1]) end\n"
    "local function taken(message)\n" /* times, this one included */
    "  return redis.call('HINCRBY', KEYS[4], redis.sha1hex(message), 0) + 1\n"
    "end\n"
    "local function put_back(from)\n"
    "  local message = redis.call('LMOVE', KEYS[2], KEYS[3], from, 'RIGHT')\n"
    "  if other then redis.call('HINCRBY', KEYS[4], redis.sha1hex(message), 1) end\n"
    "end\n"
    "local moved, dead, alone, refusal = 0, 0, 0, nil\n"
    "for _ = 1, redis.call('LLEN', KEYS[2]) do\n"
    "  local message = redis.call('LINDEX', KEYS[2], 0)\n"
    "  local times = other and taken(message) or 0\n"
    "  if times >= most and tonumber(ARGV[3]) > 0 then\n"
    "    refusal = redis.pcall('XADD', KEYS[5], 'MAXLEN', ARGV[3], '*', 'message', message, 'outcome', 'dropped',\n"
    "                          'reason', '', 'sqlstate', '', 'error', 'delivered 5 times without an outcome',\n"
    "                          'interview_id', '', 'prompt_id', '', 'at', ARGV[4])\n"
    "    refusal = type(refusal) == 'table' and refusal or nil\n"
    "  end\n"
    "  if times >= most and not refusal then\n"
    "    redis.call('HDEL', KEYS[4], redis.sha1hex(message))\n"
    "    redis.call('LPOP', KEYS[2])\n"
    "    dead = dead + 1\n"
    "  elseif times >= most - 1 then\n"
    "    redis.call('LMOVE', KEYS[2], KEYS[2], 'LEFT', 'RIGHT')\n"
    "    alone = alone + (times < most and 1 or 0)\n"
    "  else\n"
    "    put_back('LEFT')\n"
    "    moved = moved + 1\n"
    "  end\n"
    "end\n"
    "local next = redis.call('LINDEX', KEYS[3], -1)\n"
    "if alone > 0 and not refusal and not (next and taken(next) >= most) then\n"
    "  put_back('RIGHT')\n"
    "  moved, alone = moved + 1, alone - 1\n"
    "end\n"
    "if other then redis.call('EXPIRE', KEYS[4], 3600) end\n"
    "if redis.call('LLEN', KEYS[2]) == 0 then redis.call('SREM', KEYS[6], ARGV[1]) end\n"
    "return {moved, dead, alone, refusal}";
