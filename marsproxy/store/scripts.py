"""What runs inside Redis: each script is one step that no other can come between.

Keys, all under one prefix that is one hash tag, so that a cluster keeps them together (``docs/replicas.md``):

    PREFIX:epoch              hash    id, offset_ms: which run of the log is the current one
    PREFIX:seed               string  of the digests of bodies
    PREFIX:EPOCH:log          stream  one entry a batch, field r
    PREFIX:EPOCH:checkpoint   hash    position, state: the state with all entries up to that one applied
    PREFIX:EPOCH:members      set     who has joined; whether somebody still is one is said by its lease
    PREFIX:EPOCH:lease:NAME   string  number of the member's latest batch; gone when the member is given up

A lease is made when its member joins, and never again: what is not there is renewed by nobody. That is
the fencing. Some keys are made up from the prefix inside a script, always with the same hash tag.

Each answers with a list whose first part is one word: ``ok``, or why nothing was done.
"""

APPEND = """
local last = redis.call('SET', KEYS[1], ARGV[1], 'XX', 'GET', 'PX', ARGV[2])
if not last then return {'fenced'} end
if tonumber(last) < tonumber(ARGV[1]) then
  if not redis.call('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[5], '*', 'r', ARGV[4]) then
    return {'lost'}
  end
elseif tonumber(last) > tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], last, 'PX', ARGV[2])
end
return {'ok', redis.call('XRANGE', KEYS[2], '(' .. ARGV[3], '+', 'COUNT', ARGV[6])}
"""
"""Keys: lease, log. Arguments: batch number, lease ms, last id known here, payload, most entries of the log,
most entries to answer with. A batch that is here already is not added again, so it may be sent twice."""

BEAT = """
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then return {'fenced'} end
if redis.call('PEXPIRE', KEYS[2], ARGV[2]) == 0 or redis.call('PEXPIRE', KEYS[3], ARGV[2]) == 0 then
  return {'lost'}
end
redis.call('PEXPIRE', KEYS[5], ARGV[2])
local gone = {}
for i = 5, #ARGV do
  if redis.call('EXISTS', ARGV[3] .. ARGV[i]) == 0 then gone[#gone + 1] = ARGV[i] end
end
redis.call('SET', KEYS[6], ARGV[4], 'NX')
redis.call('PEXPIRE', KEYS[6], ARGV[2])
return {'ok', redis.call('TIME'), redis.call('PEXPIRE', KEYS[4], ARGV[2]), gone}
"""
"""Keys: lease, epoch, log, checkpoint, members, seed. Arguments: lease ms, ms that keys outlive their last
use, what a lease's key begins with, the seed (for a store that has lost it), the other members. Answers with
the time, whether there is a checkpoint, and
which of the others have no lease any more."""

LOOK = """
local epoch = redis.call('HMGET', KEYS[1], 'id', 'offset_ms')
if not epoch[1] then return {'none'} end
local prefix = ARGV[1] .. epoch[1]
local live = 0
for _, member in ipairs(redis.call('SMEMBERS', prefix .. ':members')) do
  local is_own = string.sub(member, 1, #ARGV[2]) == ARGV[2]
  if not is_own and redis.call('EXISTS', prefix .. ':lease:' .. member) == 1 then live = live + 1 end
end
return {'ok', epoch[1], epoch[2], live, redis.call('EXISTS', prefix .. ':log')}
"""
"""Keys: epoch. Arguments: the prefix with its colon, what this process's member ids begin with."""

FOUND = """
local current = redis.call('HGET', KEYS[1], 'id') or ''
if current ~= ARGV[1] then return {'raced'} end
if current ~= '' then
  local prefix = ARGV[2] .. current
  for _, member in ipairs(redis.call('SMEMBERS', prefix .. ':members')) do
    local is_own = string.sub(member, 1, #ARGV[3]) == ARGV[3]
    local lease = prefix .. ':lease:' .. member
    if is_own then
      redis.call('DEL', lease)
    elseif redis.call('EXISTS', lease) == 1 and redis.call('EXISTS', prefix .. ':log') == 1 then
      return {'raced'}
    end
  end
  redis.call('UNLINK', prefix .. ':log', prefix .. ':checkpoint', prefix .. ':members')
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local offset_ms = string.format('%.0f', math.max(0, tonumber(ARGV[7]) - now_ms))
redis.call('HSET', KEYS[1], 'id', ARGV[4], 'offset_ms', offset_ms)
local first = redis.call('XADD', KEYS[2], '*', 'r', ARGV[10])
redis.call('XADD', KEYS[2], '*', 'r', ARGV[11])
redis.call('HSET', KEYS[3], 'position', first, 'state', ARGV[9])
redis.call('SADD', KEYS[4], ARGV[5])
redis.call('SET', KEYS[5], '0', 'PX', ARGV[6])
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[8]) end
return {'ok', first, offset_ms}
"""
"""Keys: epoch, and of the new one log, checkpoint, members, lease. Arguments: the epoch that there was, or
nothing; the prefix with its colon; what this process's member ids begin with; the new epoch; the member;
lease ms; a time in ms that the new log's times must not be before; ms that keys outlive their last use; the
state; an entry without records, which the state is as of; the first entry with records."""

JOIN = """
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'raced'} end
local checkpoint = redis.call('HMGET', KEYS[3], 'position', 'state')
if not checkpoint[1] or #redis.call('XRANGE', KEYS[2], checkpoint[1], checkpoint[1]) == 0 then
  return {'unjoinable'}
end
for _, member in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  if string.sub(member, 1, #ARGV[5]) == ARGV[5] then
    redis.call('DEL', ARGV[6] .. member)
    redis.call('SREM', KEYS[4], member)
  end
end
redis.call('SADD', KEYS[4], ARGV[2])
redis.call('SET', KEYS[5], '0', 'PX', ARGV[3])
return {'ok', redis.call('XADD', KEYS[2], '*', 'r', ARGV[4]), checkpoint[1], checkpoint[2]}
"""
"""Keys: epoch, log, checkpoint, members, lease. Arguments: the epoch; the member; lease ms; the entry that
says that it has joined; what this process's member ids begin with; what a lease's key begins with."""

CHECKPOINT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'fenced'} end
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lost'} end
redis.call('HSET', KEYS[3], 'position', ARGV[1], 'state', ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[4])
return {'ok'}
"""
"""Keys: lease, log, checkpoint. Arguments: position, state, ms that keys outlive their last use, the oldest
id to keep: never one after the position."""

LEAVE = """
if redis.call('DEL', KEYS[1]) == 0 then return {'fenced'} end
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'NOMKSTREAM', '*', 'r', ARGV[2])
return {'ok'}
"""
"""Keys: lease, members, log. Arguments: the member, the entry that says that it has left."""
