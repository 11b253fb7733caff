-- The turn of the tests: coroutine tasks on top of lua-luv, so that specs read from top to bottom.
--
--   loop.run(body) -> body runs as a task; tasks wait on signals; uv callbacks fire signals and never run test code themselves
--
-- Invariant: every wait has a deadline. A callback only fires a signal; the waiting task goes on between two turns of libuv.
local ffi = require "ffi"
local uv = require "luv"

local loop = {}

-- A peer that went away is an error of the write, never the end of the tests.
local SIGPIPE, IGNORE = 13, 1
ffi.cdef "void (*signal(int number, void (*handler)(int)))(int);"
ffi.C.signal(SIGPIPE, ffi.cast("void (*)(int)", IGNORE))

-- Instrumented binaries are slower: all deadlines are multiplied by this.
loop.scale = tonumber(os.getenv "MOONGATE_TEST_SCALE" or "1")

local ready = {}       -- tasks to be resumed, in order
local failures = {}    -- errors of tasks nobody waits for
local current          -- the running task

local function resume(task, ...)
  local before = current
  current = task
  local ok, err = coroutine.resume(task.thread, ...)
  current = before
  if coroutine.status(task.thread) ~= "dead" then return end
  task.done = true
  if not ok then
    task.err = type(err) == "string" and debug.traceback(task.thread, err) or err
    if not task.is_main then failures[#failures + 1] = task.err end
  end
  task.ended:fire()
end

local Signal = {}
Signal.__index = Signal

-- Something that may have changed; those who wait look for themselves whether it is what they want.
function loop.signal()
  return setmetatable({ waiters = {} }, Signal)
end

function Signal:fire()
  local waiters = self.waiters
  if #waiters == 0 then return end
  self.waiters = {}
  for _, waiter in ipairs(waiters) do
    if not waiter.woken then
      waiter.woken = true
      ready[#ready + 1] = waiter
    end
  end
end

-- Runs fn as a task of its own; an error in it fails the run.
function loop.task(fn, ...)
  local task = { thread = coroutine.create(fn), ended = loop.signal() }
  resume(task, ...)
  return task
end

-- uv.run "once" calls the timers that are due first and polls afterwards, as long as the next timer allows (libuv before 1.45):
-- what a timer has woken would wait for whatever comes then. The stop makes that poll return at once, and ends with it.
local function timer_start(ms, on_time)
  local timer = uv.new_timer()
  uv.update_time() -- the loop's time is that of its last turn, and the test may have worked for long since then
  timer:start(math.max(0, math.ceil(ms)), 0, function()
    on_time()
    uv.stop()
  end)
  return timer
end

-- Waits until predicate() is true, looking again whenever the signal fires. True, or false when the deadline passed.
function loop.try_wait(signal, ms, predicate)
  local is_met = predicate()
  if is_met then return true end
  local is_late = false
  local waiter
  local timer = timer_start(ms * loop.scale, function()
    is_late = true
    if waiter and not waiter.woken then
      waiter.woken = true
      ready[#ready + 1] = waiter
    end
  end)
  while not is_late and not is_met do
    waiter = { task = current, woken = false }
    signal.waiters[#signal.waiters + 1] = waiter
    coroutine.yield()
    is_met = predicate()
  end
  timer:close()
  return is_met and true or false
end

-- As try_wait, but a missed deadline is an error that names what was awaited (a string, or a function giving one).
function loop.wait(signal, ms, what, predicate)
  if loop.try_wait(signal, ms, predicate) then return end
  if type(what) == "function" then what = what() end
  error(("nothing after %d ms: %s"):format(ms, what), 2)
end

-- One turn of the loop, so that what was sent goes out by itself.
function loop.turn()
  local waiter = { task = current, woken = true }
  local timer = timer_start(0, function() ready[#ready + 1] = waiter end)
  coroutine.yield()
  timer:close()
end

-- Lets time pass. Only for what is about time itself (a trickling peer, a measuring interval), never to wait for an event.
function loop.pass(ms)
  loop.try_wait(loop.signal(), ms / loop.scale, function() return false end)
end

local function run_ready()
  while #ready > 0 do
    local batch = ready
    ready = {}
    for _, waiter in ipairs(batch) do
      if not waiter.task.done then resume(waiter.task) end
    end
  end
end

-- Runs body as the main task and the loop until it ends. Errors of it, or of any task, are raised here.
function loop.run(body, ms)
  local task = { thread = coroutine.create(body), ended = loop.signal(), is_main = true }
  local is_late = false
  ready, failures = {}, {}
  local timer = timer_start((ms or 20000) * loop.scale, function() is_late = true end)
  resume(task)
  while not task.done and not is_late and #failures == 0 do
    run_ready()
    if task.done then break end
    uv.run(#ready > 0 and "nowait" or "once")
  end
  timer:close()
  uv.run "nowait"
  if task.err then error(task.err, 0) end
  if failures[1] then error(failures[1], 0) end
  if is_late and not task.done then
    error(debug.traceback(task.thread, ("the test did not end within %d ms"):format(ms or 20000)), 0)
  end
end

-- Closes every handle that is still open. luv crashes when the interpreter ends with open handles.
function loop.sweep()
  uv.walk(function(handle)
    if not handle:is_closing() then handle:close() end
  end)
  for _ = 1, 10 do uv.run "nowait" end
end

return loop
