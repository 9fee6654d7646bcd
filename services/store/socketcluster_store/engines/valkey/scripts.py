r"""The steps that are atomic in Valkey: each is a script on one key, so that a Cluster can carry it out and move it.

All that a partition remembers is one hash, named by ``partition_key``. Its own fields begin with a NUL, which no key of
a ``KeyValue`` does::

    \0o    the id of the store that owns the partition; empty: nobody
    \0e    the epoch of its opening
    \0b    the number of the last batch of that opening that wrote something
    \0l    the life of the server that had every batch when that was looked at last; empty: some were lost
    \0s    since which opening, named by its epoch, no batch can have been lost
    ...    the keys and values

The *life* of a server is its process and the history of its data, ``master_replid``. Both are others after a start, and
the latter is after a replica became a primary: what was acknowledged may be lost then, and only then. Whether it is,
only the store knows that had it acknowledged; as long as that one lives, the number of its last batch tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1

OWN_FIELDS = (b"\0o", b"\0e", b"\0b", b"\0l", b"\0s")


@dataclass(frozen=True)
class Script:
    """A Lua script on one key, and what its text is called by the server."""

    text: str
    fills: bool = False
    """Does it need memory? That it is carried out shows that the server takes writes."""
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


def partition_key(app_name: str, number: int) -> bytes:
    """Return the name of a partition's hash; what is in braces decides the slot of a Cluster."""
    return f"socketcluster:{{{app_name}:{number:02}}}".encode()


def stores_key(app_name: str) -> bytes:
    """Return the name of the hash of the live stores, which is the channel of their news as well."""
    return f"socketcluster:{{{app_name}:stores}}".encode()


# What a script begins with that may run when maxmemory is reached: it writes what needs no more than what it replaces.
_WITHOUT_MEMORY = "#!lua flags=allow-oom\n"

# Returns the server's life; empty: it may not be known.
_LIFE = """
local function life()
  local info = redis.pcall('INFO', 'server', 'replication')
  if type(info) ~= 'string' then return '' end
  local process, history = string.match(info, 'run_id:(%w+)'), string.match(info, 'master_replid:(%w+)')
  return process and history and process .. history or ''
end
"""

# Arguments: the store's id, the id of the store that it may be taken from or an empty text. Returns the epoch,
# since which opening nothing can have been lost, and epoch and last batch of the opening before; empty: there was none.
# The epoch is no lower than the server's time in milliseconds, so that it rises even after the data was lost.
OPEN = Script(
    _LIFE
    + """
local owner = redis.call('HGET', KEYS[1], '\\0o')
if owner and owner ~= '' and owner ~= ARGV[1] and owner ~= ARGV[2] then return {'LOCKED', owner} end
local now = redis.call('TIME')
local epoch = math.max(tonumber(redis.call('HGET', KEYS[1], '\\0e') or '0') + 1,
                       tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
epoch = string.format('%.0f', epoch)
local before = redis.call('HMGET', KEYS[1], '\\0l', '\\0s', '\\0e', '\\0b')
local now_life, since = life(), before[2]
if now_life == '' or before[1] ~= now_life then since = epoch end
redis.call('HSET', KEYS[1], '\\0o', ARGV[1], '\\0e', epoch, '\\0b', '0', '\\0l', now_life, '\\0s', since)
return {'OPEN', epoch, since, before[3] or '', before[4] or ''}
"""
)

# Who does not own the partition may change nothing, and is told who does, and the epoch: empty, if all is gone. One
# that is lower than the caller's shows that the server has an older state: what was opened since is lost.
_FENCE = """
local own = redis.call('HMGET', KEYS[1], '\\0o', '\\0e', '\\0b')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then
  if own[2] and tonumber(own[2]) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], '\\0l', '') end
  return {'FENCED', own[1] or '', own[2] or ''}
end
"""

# Arguments: store id, epoch, the number of the batch, how many of the rest are keys and values, those, keys to remove.
# A batch without either has the number of the last one. All is looked at before anything is written: a script that
# fails in the middle is not undone. Who is ahead of the server had batches acknowledged that are lost; a call that
# comes late is behind it.
_APPLY = (
    _FENCE
    + """
local last, number = tonumber(own[3]), tonumber(ARGV[3])
local acknowledged = #ARGV == 4 and number or number - 1
if last < acknowledged then redis.call('HSET', KEYS[1], '\\0l', '') end
if #ARGV == 4 then
  return last == number and {'DONE'} or {'LOST', own[3]}
end
if last == number then
  redis.call('HSET', KEYS[1], '\\0b', ARGV[3])
  return {'DONE'}
end
if last ~= number - 1 then return {'LOST', own[3]} end
local puts = tonumber(ARGV[4])
for first = 5, 4 + puts, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, 4 + puts)))
end
for first = 5 + puts, #ARGV, 1000 do
  redis.call('HDEL', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('HSET', KEYS[1], '\\0b', ARGV[3])
return {'DONE'}
"""
)
APPLY = Script(_APPLY, fills=True)
LOOK = Script(_APPLY)  # of a batch that changes nothing

# Arguments: those of APPLY without keys and values. Something is written nevertheless, so that replicas confirm it.
READ = Script(
    _WITHOUT_MEMORY
    + _FENCE
    + """
local last, number = tonumber(own[3]), tonumber(ARGV[3])
if last < number then redis.call('HSET', KEYS[1], '\\0l', '') end
if last ~= number then return {'LOST', own[3]} end
redis.call('HSET', KEYS[1], '\\0b', ARGV[3])
return {'DONE'}
"""
)

# Arguments: store id, epoch, cursor, count. Returns cursor, keys and values, and how many fields the hash has.
LOAD = Script(
    """
local own = redis.call('HMGET', KEYS[1], '\\0o', '\\0e')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return {'FENCED', own[1] or ''} end
local found = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
return {found[1], found[2], redis.call('HLEN', KEYS[1])}
"""
)

# Arguments: store id, epoch, the number of the last batch, whether (1) the partition is to be free then. If the server
# has all batches, nothing was lost up to its present life.
CONFIRM = Script(
    _WITHOUT_MEMORY
    + _LIFE
    + """
local own = redis.call('HMGET', KEYS[1], '\\0o', '\\0e', '\\0b')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return 0 end
local last, number = tonumber(own[3]), tonumber(ARGV[3])
if last <= number then redis.call('HSET', KEYS[1], '\\0l', last == number and life() or '') end
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], '\\0o', '') end
return 0
"""
)

# A sign of life. The hash has, for each store, the server's time of its last sign, and in its own fields:
#   \\0last   when any store gave one; \\0since   from when silence counts: later than any pause of the server.
# Where the server's clock goes back, as it is set or another server takes over, silence counts from then on.
# Arguments: store id, milliseconds after which a pause of all is the server's, those after which a silent store is
# forgotten. Returns how long this store was silent (-1: it is new), and of each other store its id, for how long it is
# silent, and how many connections listen to its own channel: none when its process is no more.
BEAT = Script(
    _WITHOUT_MEMORY
    + """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local found = redis.call('HGETALL', KEYS[1])
local beats = {}
for i = 1, #found, 2 do beats[found[i]] = tonumber(found[i + 1]) end
local since = beats['\\0since'] or now
local pause = now - (beats['\\0last'] or 0)
if pause < 0 or pause > tonumber(ARGV[2]) then since = now end
local stamp = string.format('%.0f', now)
redis.call('HSET', KEYS[1], ARGV[1], stamp, '\\0last', stamp, '\\0since', string.format('%.0f', since))
local reply = {beats[ARGV[1]] and math.max(0, now - beats[ARGV[1]]) or -1}
for id, beat in pairs(beats) do
  if string.byte(id) ~= 0 and id ~= ARGV[1] then
    if beat > now then
      beat = now
      redis.call('HSET', KEYS[1], id, stamp)
    end
    if now - math.max(beat, since) > tonumber(ARGV[3]) then
      redis.call('HDEL', KEYS[1], id, '\\0s' .. id)
    else
      local listeners = redis.call('PUBSUB', 'SHARDNUMSUB', KEYS[1] .. id)
      local age, state = math.max(0, now - math.max(beat, since)), beats['\\0s' .. id] or 0
      table.insert(reply, {id, age, tonumber(listeners[2]), state})
    end
  end
end
return reply
"""
)

# Argument: store id.
LEAVE = Script(_WITHOUT_MEMORY + "return redis.call('HDEL', KEYS[1], ARGV[1], '\\0s' .. ARGV[1])")

# Arguments: store id, what it says of itself: 1, workers are linked to it, plus 2, it stands aside.
SAY = Script(_WITHOUT_MEMORY + "return redis.call('HSET', KEYS[1], '\\0s' .. ARGV[1], ARGV[2])")
