--- Timers: functions that run by themselves, on every worker, or once on the control thread.

local native = require "moongate._core.native"

local timer = {}

local function start(what, seconds, fn, options, repeats)
  if type(seconds) ~= "number" or seconds < 0 then
    error(what .. " takes seconds first", 3)
  end
  if type(fn) ~= "function" then error(what .. " takes a function second", 3) end
  local on = options and options.on or "workers"
  if on ~= "workers" and on ~= "control" then
    error(('%s: on = "%s"; it is "workers" (each of them) or "control"'):format(what,
      tostring(on)), 3)
  end
  native.timer(fn, seconds, repeats, on == "control")
end

---@class moongate.TimerOptions
---@field on? "workers"|"control" in every worker (the default), or once, on the control thread

--- Runs fn once, after so many seconds; of a script's top level: after its start.
---@param seconds number
---@param fn fun()
---@param options? moongate.TimerOptions
function timer.after(seconds, fn, options)
  start("moongate.timer.after", seconds, fn, options, false)
end

--- Runs fn again and again: so many seconds after it has come to its end, also when it failed.
---@param seconds number
---@param fn fun()
---@param options? moongate.TimerOptions
function timer.every(seconds, fn, options)
  start("moongate.timer.every", seconds, fn, options, true)
end

return timer
