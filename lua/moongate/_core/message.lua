--- The message that websocket_frame gets. What it returns decides: nil passes the message on, a string takes its place, false drops it.

local ffi = require "ffi"
local abi = require "moongate._core.abi"
local coroutines = require "moongate._core.coroutines"
local native = require "moongate._core.native"
local phases = require "moongate._core.phases"
local raise = require "moongate._core.raise"

local C = abi.C
local vm = ffi.cast("void *", native.vm)

local WEBSOCKET_FRAME = 8
local REASON_MAX = 123

---@class moongate.Message
---@field from "client"|"upstream" who sends it
---@field kind "text"|"binary"
---@field data string
local message = {}

local function is_code(code)
  if type(code) ~= "number" or code % 1 ~= 0 then return false end
  return code >= 1000 and code <= 1003 or code >= 1007 and code <= 1014 or
    code >= 3000 and code <= 4999
end

--- Closes the tunnel with this code to both sides; the message is dropped, and nothing after this runs. In websocket_frame.
---@param code? integer default 1000; what a Close may have: 1000 to 1003, 1007 to 1014, 3000 to 4999
---@param reason? string UTF-8, at most 123 bytes
function message:close(code, reason)
  if code == nil then code = 1000 end
  if not is_code(code) then
    raise("message:close takes a code from 1000 to 1003, 1007 to 1014 or 3000 to 4999, got " ..
      tostring(code))
  end
  if reason ~= nil and (type(reason) ~= "string" or #reason > REASON_MAX) then
    raise(("message:close takes a string of at most %d bytes as the reason"):format(REASON_MAX))
  end
  if C.moon_abi_phase(vm) ~= WEBSOCKET_FRAME then
    raise(phases.refusal(C, vm, "message:close", "websocket_frame"))
  end
  coroutines.close(code, reason or "")
end

return { metatable = { __index = message } }
