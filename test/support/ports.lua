-- Ports of the loopback that nobody has and nobody is given: below those that the kernel takes for clients. Of these, connections
-- that are over still hold some for a minute, and any may be taken between the choice and its use.
local uv = require "luv"

local ports = {}

local FIRST, COUNT = 10000, 20000
local next_offset = math.floor(uv.os_getpid() * 7919 + uv.hrtime() / 1e3) % COUNT -- other runs begin elsewhere

local function is_free(port)
  local udp, tcp = uv.new_udp(), uv.new_tcp()
  local ok = udp:bind("127.0.0.1", port) and tcp:bind("127.0.0.1", port) and tcp:listen(1, function() end)
  udp:close()
  tcp:close()
  return ok and true or false
end

-- A port free for UDP and TCP, another one each time.
function ports.free()
  for _ = 1, 1000 do
    next_offset = (next_offset + 1) % COUNT
    if is_free(FIRST + next_offset) then return FIRST + next_offset end
  end
  error "no port is free"
end

return ports
