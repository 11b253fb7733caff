--- The VM of a worker, from the evaluation of the script to requests: what a script may do changes here.

local ffi = require "ffi"
local abi = require "moongate._core.abi"
local connection = require "moongate._core.connection"
local exchange = require "moongate._core.exchange"
local inputs = require "moongate._core.inputs"
local message = require "moongate._core.message"
local native = require "moongate._core.native"
local plugins = require "moongate._core.plugins"
local wait = require "moongate._core.wait"

local run = {}

local C = abi.C
local vm = ffi.cast("void *", native.vm)

-- Globals first written in a phase are the exchange's own, so that one that waits finds them as it left them.
local slot, generation = ffi.new "uint32_t[1]", ffi.new "uint32_t[1]"
local own, own_of, others = {}, {}, {}

local function globals()
  if C.moon_abi_current(vm, slot, generation) ~= 0 then return others end
  local index = slot[0]
  if own_of[index] ~= generation[0] then
    own_of[index] = generation[0]
    own[index] = {}
  end
  return own[index]
end

local function isolate()
  setmetatable(_G, {
    __index = function(_, name) return globals()[name] end,
    __newindex = function(_, name, value) globals()[name] = value end,
  })
end

local function refuse_module(name)
  error(("module '%s' was not loaded before traffic: require it at the top of the script, or " ..
    "of the plugin's handler.lua"):format(name), 3)
end

--- After the script and the plugins. Gives the core what it calls.
function run.settle()
  require "moongate"
  wait.load_all()
  inputs.settle(C, vm)
  for i = #package.loaders, 1, -1 do package.loaders[i] = nil end
  package.loaders[1] = refuse_module
  isolate()
  return {
    exchange = exchange.metatable, configure = plugins.configure, vars = exchange.vars,
    globals = own, message = message.metatable,
    connection = connection.metatable,
  }
end

-- A handler of LuaJIT's trace events: they are rare once a script is warm.
local function count_trace(what)
  if what == "stop" then
    C.moon_abi_count_trace(vm, 0)
  elseif what == "abort" then
    C.moon_abi_count_trace(vm, 1)
  end
end

--- On the worker, before its first request.
function run.start()
  jit.attach(count_trace, "trace")
  math.randomseed(native.seed())
end

return run
