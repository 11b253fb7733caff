--- The connection that preread gets. What the function returns decides: nil leaves it to the route's backends, the name of an
--- upstream sends it there, false closes it.

local ffi = require "ffi"
local abi = require "moongate._core.abi"
local coroutines = require "moongate._core.coroutines"
local native = require "moongate._core.native"
local phases = require "moongate._core.phases"
local raise = require "moongate._core.raise"

local C = abi.C
local vm = ffi.cast("void *", native.vm)

local BYTES_MAX = 16384
local text = ffi.new "struct moon_abi_text"

---@class moongate.ConnectionClient
---@field address? string its IP address; nil where it came by a unix socket
---@field port? integer
---@field certificate? moongate.ClientCertificate of TLS that ends here; nil: it has shown none

---@class moongate.Connection
---@field number integer the worker's number for it, as `moongate connections` shows it
---@field client moongate.ConnectionClient
---@field destination? { address: string, port: integer } where the client meant to go: by the PROXY header, or before the
---  kernel sent it here (`transparent`), else where it has come. nil: a unix socket
---@field listener string
---@field route string
---@field tls boolean it came in over TLS, ended here or passed through
---@field sni? string the name that a TLS client asked for, in lower case
---@field alpn string[] the protocols that it offered, the preferred first; of TLS that is passed through
local connection = {}

local function refused(code)
  if code == abi.PHASE then
    raise(phases.refusal(C, vm, "connection:peek", "preread, not in its tasks"))
  elseif code == abi.FOREIGN then
    raise "connection:peek: this is another connection's"
  end
  raise "connection:peek: out of memory"
end

--- The first bytes of the connection, which stay where they are. Waits until `count` are there, its client ends, or the time is
--- over: it may give fewer, "" where nothing has come. In preread.
---@param count? integer 1 to 16384; default 1
---@param timeout? number seconds; default 1, 0: what is there now
---@return string bytes at most `count`; of TLS that ends here at most a record, 16384
function connection:peek(count, timeout)
  count, timeout = count or 1, timeout or 1
  if type(count) ~= "number" or count < 1 or count > BYTES_MAX or count % 1 ~= 0 then
    raise(("connection:peek takes a count from 1 to %d, got %s"):format(BYTES_MAX, tostring(count)))
  end
  if type(timeout) ~= "number" then raise "connection:peek takes seconds as the timeout" end
  local code = C.moon_abi_peek(vm, self.number, count, text)
  if code == abi.OK and text.len < count and timeout > 0 then
    code = C.moon_abi_peek_wait(vm, self.number, count, timeout)
    if code == abi.OK then
      coroutines.wait()
      code = C.moon_abi_peek(vm, self.number, count, text)
    end
  end
  if code ~= abi.OK and code ~= abi.NONE then refused(code) end
  return ffi.string(text.ptr, text.len)
end

return { metatable = { __index = connection } }
