--- Coroutines of a script's own compose with waiting: what waits yields to the core, and every coroutine in between hands that
--- on to the one that resumed it, so that the loop wakes the innermost through all of them.

local native = require "moongate._core.native"

local SIGNAL = native.vm -- the VM's pointer: no script can make one
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local coroutines = {}

local function hand_on(inner, ok, first, ...)
  if ok and first == SIGNAL and SIGNAL then
    return hand_on(inner, resume(inner, yield(first, ...)))
  end
  return ok, first, ...
end

local function results_or_error(ok, first, ...)
  if not ok then error(first, 0) end
  return first, ...
end

--- coroutine.resume and coroutine.wrap that compose with waiting.
function coroutines.install()
  coroutine.resume = function(inner, ...)
    return hand_on(inner, resume(inner, ...))
  end
  coroutine.wrap = function(fn)
    local inner = create(fn)
    return function(...)
      return results_or_error(hand_on(inner, resume(inner, ...)))
    end
  end
end

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
  return (yield(SIGNAL, "p"))
end

--- body_filter: a piece for whom comes next; waits for room.
function coroutines.push(text)
  yield(SIGNAL, "s", text)
end

return coroutines
