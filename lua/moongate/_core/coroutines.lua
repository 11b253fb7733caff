--- Coroutines of a script's own compose with waiting: what waits yields to the core, and every coroutine in between hands that
--- on to the one that resumed it, so that the loop wakes the innermost through all of them.

local native = require "moongate._core.native"
local raise = require "moongate._core.raise"

local SIGNAL = native.vm -- the VM's pointer: no script can make one
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local coroutines = {}

-- Coroutines inside each other take the C stack, which LuaJIT does not watch.
local LEVELS_MAX = 160
local level = 0 -- of the one that runs

local hand_on

local function enter(inner, own, ...)
  if own >= LEVELS_MAX then return false, "too many coroutines inside each other" end
  level = own + 1
  return hand_on(inner, own, resume(inner, ...))
end

function hand_on(inner, own, ok, first, ...)
  level = own
  if ok and first == SIGNAL and SIGNAL then
    return enter(inner, own, yield(first, ...))
  end
  return ok, first, ...
end

local function results_or_error(ok, first, ...)
  if not ok then error(first, 0) end
  return first, ...
end

-- luacheck: push ignore 122

--- coroutine.resume and coroutine.wrap that compose with waiting; before the script, which may keep them.
function coroutines.install()
  coroutine.resume = function(inner, ...)
    return enter(inner, level, ...)
  end
  coroutine.wrap = function(fn)
    local inner = create(fn)
    return function(...)
      return results_or_error(enter(inner, level, ...))
    end
  end
end

-- luacheck: pop

--- Yields to the core until it is woken: the caller has armed what wakes it.
function coroutines.wait()
  local failure = yield(SIGNAL, "w")
  if failure then error(failure, 0) end
end

--- The phase has been answered: nothing after this runs.
function coroutines.finish()
  yield(SIGNAL, "a")
end

--- body_filter: the next piece of the response's body, nil at its end.
function coroutines.pull()
  local piece, failure = yield(SIGNAL, "p")
  if failure then raise(failure) end
  return piece
end

--- body_filter: a piece for whom comes next; waits for room.
function coroutines.push(text)
  local _, failure = yield(SIGNAL, "s", text)
  if failure then raise(failure) end
end

--- websocket_frame: ends the tunnel; nothing after this runs.
function coroutines.close(code, reason)
  local _, failure = yield(SIGNAL, "c", code, reason)
  if failure then raise(failure) end
end

return coroutines
