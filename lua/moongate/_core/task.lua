--- Tasks: functions that run beside the one that started them, on the same worker, for as long as its exchange lives.

local native = require "moongate._core.native"
local wait = require "moongate._core.wait"

local task = {}

---@class moongate.Task
---@field is_done boolean
---@field values any[]? what it returned, with n; nil when it failed
---@field error any? why it failed; logged where nobody waits for the task by then
local Task = {}
Task.__index = Task

local function finish(self, ok, ...)
  self.is_done = true
  if ok then
    self.values = { n = select("#", ...), ... }
  else
    self.error = (...)
    if not self.is_awaited then
      native.log(2, "script: a task failed, and nobody waits for it: " .. tostring(self.error))
    end
  end
  local waiting = self.waiting
  self.waiting = nil
  for i = 1, #waiting do wait.wake(waiting[i]) end
end

local function run(self, fn, ...)
  finish(self, xpcall(fn, debug.traceback, ...))
end

--- Starts fn(...) as a task. It runs when the one that starts it waits for the first time; it ends with its exchange.
---@param fn function
---@return moongate.Task
function task.spawn(fn, ...)
  wait.in_phase("moongate.spawn", 2)
  if type(fn) ~= "function" then error("moongate.spawn takes a function, got " .. type(fn), 2) end
  local self = setmetatable({ is_done = false, waiting = {} }, Task)
  native.spawn(run, self, fn, ...)
  return self
end

local function check(what, ...)
  wait.in_phase(what, 3)
  for i = 1, select("#", ...) do
    local one = select(i, ...)
    if getmetatable(one) ~= Task then
      local is_list = type(one) == "table" and getmetatable(one[1]) == Task
      error(("%s takes tasks of moongate.spawn, argument %d is %s"):format(
        what, i, is_list and "a list of them: unpack it" or type(one)), 3)
    end
    one.is_awaited = true
  end
end

local function wait_for(tasks)
  local ticket = wait.ticket()
  for i = 1, #tasks do
    local waiting = tasks[i].waiting
    if waiting then waiting[#waiting + 1] = ticket end
  end
  wait.wait()
end

local function first_values(tasks, i)
  if i > #tasks then return end
  if tasks[i].error ~= nil then error(tasks[i].error, 0) end
  return tasks[i].values[1], first_values(tasks, i + 1)
end

--- Waits until all have ended. The first value of each, in order; a task that failed fails here.
---@param ... moongate.Task
---@return any ...
function task.wait_all(...)
  check("moongate.wait_all", ...)
  local tasks = { ... }
  for i = 1, #tasks do
    while not tasks[i].is_done do wait_for { tasks[i] } end
  end
  return first_values(tasks, 1)
end

local function first_done(tasks)
  for i = 1, #tasks do
    if tasks[i].is_done then return tasks[i] end
  end
end

--- Waits until one has ended, and gives it: its `values`, or its `error`.
---@param ... moongate.Task
---@return moongate.Task
function task.wait_any(...)
  check("moongate.wait_any", ...)
  local tasks = { ... }
  if #tasks == 0 then error("moongate.wait_any takes at least one task", 2) end
  while not first_done(tasks) do wait_for(tasks) end
  return first_done(tasks)
end

return task
