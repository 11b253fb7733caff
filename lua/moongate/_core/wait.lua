--- Waiting and clocks.

local native = require "moongate._core.native"

local wait = {}

local abi, coroutines, ffi, vm

-- The abi is there where the script runs for a worker.
local function bind()
  if abi or not native.vm then return abi end
  ffi = require "ffi"
  abi = require "moongate._core.abi"
  coroutines = require "moongate._core.coroutines"
  vm = ffi.cast("void *", native.vm)
  return abi
end

--- What needs a phase is refused outside of one.
function wait.in_phase(what, level)
  if not bind() or abi.C.moon_abi_phase(vm) == 0 then
    error(what .. " can be used in phases, timers and init_worker, not while the script is " ..
      "evaluated", (level or 1) + 1)
  end
end

function wait.now()
  if bind() and abi.C.moon_abi_phase(vm) ~= 0 then return abi.C.moon_abi_now(vm) end
  return native.time()
end

function wait.sleep(seconds)
  wait.in_phase("moongate.sleep", 3)
  if type(seconds) ~= "number" then
    error("moongate.sleep takes seconds, got " .. type(seconds), 3)
  end
  abi.C.moon_abi_sleep(vm, seconds)
  coroutines.wait()
end

--- The ticket of a wait that begins now: wait.wake(ticket) ends it, and wait.wait() is next.
function wait.ticket()
  local ticket = ffi.new "struct moon_abi_ticket"
  abi.C.moon_abi_ticket(vm, ticket)
  return ticket
end

function wait.wait()
  coroutines.wait()
end

function wait.wake(ticket)
  abi.C.moon_abi_wake(ticket)
end

return wait
