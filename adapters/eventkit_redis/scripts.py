"""What must happen in one step on the server.

Sent whole with EVAL each time: nothing is registered, so nothing is missing after a restart or SCRIPT FLUSH. Those that
free memory or keep a lease may run while Redis is out of memory (`allow-oom`); those that store anything may not, and
then change nothing. Every settlement is fenced: it touches only what is pending for the consumer that asks.
"""

from __future__ import annotations

from typing import Final

_MINE: Final = """
local function mine(key, group, consumer, id)
  local found = redis.pcall('XPENDING', key, group, id, id, 1, consumer)
  return not found.err and #found > 0
end
"""

ACK: Final = f"""#!lua flags=allow-oom
{_MINE}
local ids = {{}}
for i = 4, #ARGV do
  if mine(KEYS[1], ARGV[1], ARGV[2], ARGV[i]) then ids[#ids + 1] = ARGV[i] end
end
if #ids == 0 then return 0 end
local done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
if ARGV[3] == '1' then redis.call('XDEL', KEYS[1], unpack(ids)) end
return done
"""
"""KEYS stream. ARGV group, consumer, delete 0|1, ids. Returns how many were acknowledged."""

RENEW: Final = f"""#!lua flags=allow-oom
{_MINE}
local lost, there = {{}}, {{}}
local claim = {{'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}}
for i = 4, #ARGV do
  local id = ARGV[i]
  if mine(KEYS[1], ARGV[1], ARGV[2], id) then
    claim[#claim + 1] = id
  elseif #redis.call('XRANGE', KEYS[1], id, id) > 0 then
    lost[#lost + 1] = id
    there[#there + 1] = id
  elseif ARGV[3] == '1' and redis.call('ZSCORE', KEYS[2], id) then
    lost[#lost + 1] = id
  end
end
if #claim > 5 then
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
return {{lost, there}}
"""
"""KEYS stream, taken. ARGV group, consumer, are finished entries deleted 0|1, ids. Returns those that somebody else has
or finished; XCLAIM by itself would steal them back; and which of them are in the stream. One that was trimmed, or that
Redis has lost, is nobody else's, so it stays with us."""

_HELD: Final = """
local function held(key, taken, group, consumer, id, deletes)
  local found = redis.pcall('XPENDING', key, group, id, id, 1, consumer)
  if found.err and string.find(found.err, 'NOGROUP', 1, true) then return 2 end
  if not found.err and #found > 0 then return 1 end
  if #redis.call('XRANGE', key, id, id) > 0 then return 0 end
  if deletes == '1' and redis.call('ZSCORE', taken, id) then return 0 end
  return 2
end
"""
"""1: ours; 0: another consumer has taken it over, and may have finished it; 2: Redis knows nothing of it any more. Then
the copy is the last there is of the message."""

RELEASE: Final = f"""#!lua flags=allow-oom
{_HELD}
local claim, lost = {{'XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0}}, {{}}
for i = 6, #ARGV do
  local id = ARGV[i]
  local whose = held(KEYS[1], KEYS[2], ARGV[1], ARGV[2], id, ARGV[5])
  if whose == 2 or (whose == 1 and #redis.call('XRANGE', KEYS[1], id, id) == 0) then
    lost[#lost + 1] = id
  elseif whose == 1 then
    claim[#claim + 1] = id
  end
end
local n = #claim - 5
if n > 0 then
  for _, word in ipairs({{'IDLE', ARGV[4], 'JUSTID'}}) do claim[#claim + 1] = word end
  redis.call(unpack(claim))
end
return {{n, lost}}
"""
"""KEYS stream, taken. ARGV group, consumer, the owner of what is free, its idle ms, are finished entries deleted 0|1,
ids. Returns how many were released, and those that Redis has not any more: trimmed, or lost."""

LEAVE: Final = """#!lua flags=allow-oom
local total = 0
while true do
  local page = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 500, ARGV[2])
  if page.err then return total end
  if #page == 0 then break end
  local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0}
  for i = 1, #page do claim[#claim + 1] = page[i][1] end
  for _, word in ipairs({'IDLE', ARGV[4], 'JUSTID'}) do claim[#claim + 1] = word end
  redis.call(unpack(claim))
  for i = 1, #page do
    local still = redis.call('XPENDING', KEYS[1], ARGV[1], page[i][1], page[i][1], 1, ARGV[2])
    if #still > 0 then redis.call('XACK', KEYS[1], ARGV[1], page[i][1]) end
  end
  total = total + #page
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return total
"""
"""KEYS stream. ARGV group, consumer, the owner of what is free, its idle ms. Releases all that is pending for the
consumer (what the stream no longer holds is dropped) and removes it. Removing it first would drop its messages."""

_ENTRIES: Final = """
local function counted(key, group, entries)
  local found = {}
  for i = 1, #entries do
    local entry = entries[i]
    if entry and entry[2] then
      local pending = redis.call('XPENDING', key, group, entry[1], entry[1], 1)
      found[#found + 1] = {entry[1], entry[2], pending[1] and pending[1][4] or 0}
    end
  end
  return found
end
"""

TAKE_OVER: Final = f"""#!lua flags=allow-oom
{_ENTRIES}
local r = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local entries = counted(KEYS[1], ARGV[1], r[2])
if ARGV[6] ~= '0' and #entries > 0 then
  local now = redis.call('TIME')
  local ms = now[1] * 1000 + math.floor(now[2] / 1000)
  for i = 1, #entries do redis.call('ZADD', KEYS[2], ms + ARGV[6], entries[i][1]) end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ms)
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return {{r[1], entries, r[3] or {{}}}}
"""
"""KEYS stream, taken. ARGV group, consumer, least idle ms, cursor, count, ms for which it is kept in `taken` what was
taken over (0: it is not). Returns the next cursor, [id, fields, deliveries] of what is now ours, and the ids that were
pending but are no longer in the stream."""

TAKE_FREE: Final = f"""#!lua flags=allow-oom
{_ENTRIES}
local page = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[3])
if #page == 0 then return {{{{}}, {{}}}} end
local ids = {{}}
for i = 1, #page do ids[i] = page[i][1] end
local claim = {{'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}}
for i = 1, #ids do claim[#claim + 1] = ids[i] end
return {{ids, counted(KEYS[1], ARGV[1], redis.call(unpack(claim)))}}
"""
"""KEYS stream. ARGV group, consumer, the owner of what is free, most at once. Returns the ids of the first that were
free, and [id, fields, deliveries] of those that the stream still holds, which are now ours."""

OWN: Final = """#!lua flags=allow-oom
local ids = {}
local page = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], ARGV[2])
for i = 1, #page do ids[i] = page[i][1] end
return ids
"""
"""KEYS stream. ARGV group, consumer, count. Returns the ids that are pending for this consumer."""

CLAIM: Final = f"""#!lua flags=allow-oom
{_ENTRIES}
{_MINE}
local claim = {{'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}}
for i = 3, #ARGV do
  if mine(KEYS[1], ARGV[1], ARGV[2], ARGV[i]) then claim[#claim + 1] = ARGV[i] end
end
if #claim == 5 then return {{}} end
return counted(KEYS[1], ARGV[1], redis.call(unpack(claim)))
"""
"""KEYS stream. ARGV group, consumer, ids. Returns [id, fields, deliveries] of those that are ours, delivered again."""

PARK: Final = """#!lua
if redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""
"""KEYS due, waiting, retry stream. ARGV member, due ms, envelope. -1: there is no such retry address."""

MOVE: Final = f"""#!lua
{_HELD}
local whose = held(KEYS[1], KEYS[3], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if whose == 0 then return 0 end
if ARGV[5] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
redis.call('XADD', KEYS[2], '*', '__data__', ARGV[6])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] == '1' then redis.call('XDEL', KEYS[1], ARGV[3]) end
return whose
"""
"""KEYS stream, target stream, taken. ARGV group, consumer, id, delete 0|1, must the target exist 0|1, envelope.
1: moved; 2: moved, and Redis had lost the original; 0: not ours, nothing was done; -1: there is no such target."""

MOVE_LATER: Final = f"""#!lua
{_HELD}
local whose = held(KEYS[1], KEYS[5], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if whose == 0 then return 0 end
if ARGV[5] == '1' and redis.call('EXISTS', KEYS[4]) == 0 then return -1 end
redis.call('HSET', KEYS[3], ARGV[6], ARGV[8])
redis.call('ZADD', KEYS[2], ARGV[7], ARGV[6])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] == '1' then redis.call('XDEL', KEYS[1], ARGV[3]) end
return whose
"""
"""KEYS stream, due, waiting, retry stream, taken. ARGV group, consumer, id, delete 0|1, must the retry stream exist
0|1, member, due ms, envelope. As MOVE."""

RIPEN: Final = """#!lua
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ripe = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ms, 'LIMIT', 0, ARGV[1])
for i = 1, #ripe do
  local data = redis.call('HGET', KEYS[2], ripe[i])
  if data then redis.call('XADD', KEYS[3], '*', '__data__', data) end
end
if #ripe > 0 then
  redis.call('HDEL', KEYS[2], unpack(ripe))
  redis.call('ZREM', KEYS[1], unpack(ripe))
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #next == 0 then return {#ripe, -1} end
return {#ripe, math.max(0, math.ceil(next[2] - ms))}
"""
"""KEYS due, waiting, retry stream. ARGV most at once. Moves what is due; returns how many, and the ms until the next
(-1: none waits)."""

SWEEP: Final = """#!lua flags=allow-oom
local gone = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
  if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    gone = gone + 1
  end
end
return gone
"""
"""KEYS stream. ARGV group, idle ms. Removes consumers that left nothing behind and were not heard of for so long."""

_FIELDS: Final = """
local function fields(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
"""

CREATE: Final = f"""#!lua
{_FIELDS}
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'eventkit', '$', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'eventkit')
end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
if ARGV[1] == '' then return 0 end
local read = ARGV[2] == '0' and '0' or stream['entries-added']
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'ENTRIESREAD', read)
if made.err then
  if string.find(made.err, 'BUSYGROUP', 1, true) then return 0 end
  return made
end
return 1
"""
"""KEYS stream. ARGV group or nothing, `$` or `0`. 1: the group is new. ENTRIESREAD lets Redis count its lag."""

NOTED: Final = """#!lua
if redis.call('EXISTS', KEYS[2]) == 1 then return redis.call('HKEYS', KEYS[1]) end
redis.call('DEL', KEYS[1])
return {}
"""
"""KEYS begun, dead. The streams that the group has begun to read. What is noted of one that was removed, whose dead
letters go last, is forgotten."""

CHECK: Final = f"""#!lua
{_FIELDS}
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[1] == '' then return 2 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if fields(group)['name'] == ARGV[1] then return 2 end
end
return 1
"""
"""KEYS stream. ARGV group or nothing. 0: no stream; 1: no such group on it; 2: both."""

GROUPS: Final = f"""#!lua
{_FIELDS}
local found = {{}}
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return found end
for i, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do found[i] = fields(group)['name'] end
return found
"""
"""KEYS stream. The names of its groups."""

HERE: Final = """#!lua flags=allow-oom
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], ms + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS readers. ARGV consumer, ms until it is forgotten. It reads."""

READERS: Final = """#!lua
local now = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], '(' .. now[1] * 1000 + math.floor(now[2] / 1000), '+inf')
"""
"""KEYS readers. How many were heard of lately."""

_UNREAD: Final = """
local function unread(key, last, most, bytes)
  local count, read, step, after = 0, 0, 10, '(' .. last
  repeat
    local page = redis.call('XRANGE', key, after, '+', 'COUNT', step)
    count = count + #page
    if #page < step then return count end
    for _, entry in ipairs(page) do
      for _, text in ipairs(entry[2]) do read = read + #text end
    end
    after = '(' .. page[#page][1]
    step = math.min(1000, math.floor(bytes * count / read) - count)
  until count > most or step < 1
end
"""
"""How many are after the last that was read; nil: more, or of more bytes, which Redis would stand still to copy."""

MEASURE: Final = f"""#!lua
{_FIELDS}
{_UNREAD}
local now = redis.call('TIME')
if redis.call('EXISTS', KEYS[1]) == 0 then return {{}} end
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(flat)
  if group['name'] == ARGV[1] then
    local ready, free = group['lag'], 0
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
      local owner = fields(consumer)
      if owner['name'] == ARGV[3] then free = owner['pending'] end
    end
    local last = group['last-delivered-id']
    if ARGV[2] == '1' then
      ready = redis.call('XLEN', KEYS[1]) - group['pending'] + free
    else
      local length = redis.call('XLEN', KEYS[1])
      local few = unread(KEYS[1], last, 1000, 2000000)
      if few then
        ready = few
      elseif not ready then
        ready = unread(KEYS[1], last, 10000, math.huge) or -1
      elseif ready > length then
        ready = length
      end
    end
    local oldest = -1
    local first = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)
    if first[1] then
      oldest = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(first[1][1], '^%d+'))
    end
    if ready >= 0 and ARGV[2] ~= '1' then ready = ready + free end
    local held = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
    if held then held = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(held, '^%d+')) end
    return {{ready, group['pending'] - free, oldest, held or -1}}
  end
end
return {{}}
"""
"""KEYS stream. ARGV group, are finished entries deleted 0|1, the owner of what is free. Those to deliver (-1: more than
10,000 and uncounted), those at consumers, and the ages in ms of the oldest unread one and of the oldest one that was
read and is not finished (-1: none). Empty: there is no such group."""

RECKON: Final = f"""#!lua
{_FIELDS}
{_UNREAD}
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local added = fields(redis.call('XINFO', 'STREAM', KEYS[1]))['entries-added']
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(flat)
  if added and group['name'] == ARGV[1] then
    local last = group['last-delivered-id']
    local waiting = unread(KEYS[1], last, 10000, 10000000)
    if waiting and group['lag'] ~= waiting then
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], last, 'ENTRIESREAD', added - waiting)
      return 1
    end
  end
end
return 0
"""
"""KEYS stream. ARGV group. Redis' `lag` counts what was read, and does not write that down: after a restart, or on the
replica that has taken over, it takes all for unread that was read before. Counts anew, up to 10,000 that are unread, of
1 KB."""

TRIM: Final = f"""#!lua flags=allow-oom
{_FIELDS}
local key = KEYS[1]
local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
if not oldest then return {{0}} end
local now = redis.call('TIME')
local since = string.format('%.0f', now[1] * 1000 - ARGV[2])
local long = tonumber(ARGV[1]) > 0 and redis.call('XLEN', key) > tonumber(ARGV[1])
local old = tonumber(ARGV[2]) > 0 and tonumber(string.match(oldest[1], '^%d+')) < tonumber(since)
if not long and not old then return {{0}} end
local function before(one, other)
  local a, b = string.match(one, '^(%d+)-(%d+)$')
  local c, d = string.match(other, '^(%d+)-(%d+)$')
  if a == c then return tonumber(b) < tonumber(d) end
  return tonumber(a) < tonumber(c)
end
local groups = {{}}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local group = fields(flat)
  local unread = redis.call('XRANGE', key, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  local needs = unread and unread[1]
  if group['pending'] > 0 then
    local pending = redis.call('XPENDING', key, group['name'], oldest[1], '+', 1)[1]
    if pending and (not needs or before(pending[1], needs)) then needs = pending[1] end
  end
  if needs then groups[group['name']] = needs end
end
local trimmed = 0
if long then trimmed = redis.call('XTRIM', key, 'MAXLEN', '~', ARGV[1]) end
if old then trimmed = trimmed + redis.call('XTRIM', key, 'MINID', '~', since) end
local report = {{trimmed}}
if trimmed == 0 then return report end
local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
for name, needs in pairs(groups) do
  if not first or before(needs, first[1]) then
    redis.call('HSETNX', KEYS[2], name .. ':from', needs)
    redis.call('HSET', KEYS[2], name .. ':to', first and first[1] or 'the end')
    report[#report + 1] = name
    report[#report + 1] = needs
    report[#report + 1] = first and first[1] or 'the end'
  end
end
return report
"""
"""KEYS stream, gaps. ARGV most entries (0: any), most ms of age (0: any). Trims whole nodes of about a hundred. Returns
how many entries went, and for each group that still needed some: its name, the first one it lost, the first one left.
The gaps are kept for the group's own consumers to report."""

GAPS: Final = """#!lua flags=allow-oom
local found = redis.call('HMGET', KEYS[1], ARGV[1] .. ':from', ARGV[1] .. ':to')
if not found[1] then return {} end
redis.call('HDEL', KEYS[1], ARGV[1] .. ':from', ARGV[1] .. ':to')
return found
"""
"""KEYS gaps. ARGV group. The gap that was trimmed under it and not reported yet: from where, to where."""
