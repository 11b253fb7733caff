-- A network namespace of a test's own, in which it may send connections elsewhere than they were meant for. It needs rights that
-- not every machine gives.
--   local net, why = netns.new()      -- nil: it is not permitted here, and why
--   net:nft "add table ip t"          -- a line of nft(8)
--   net:curl("192.0.2.1:80", "/")     -- as the user nobody, so that rules can tell it from the gateway
local uv = require "luv"

local Netns = {}
Netns.__index = Netns

local netns = {}

local ADDRESSES = { "192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128" }

-- The output of a shell command, and whether it went well.
local function run(format, ...)
  local pipe = assert(io.popen(format:format(...) .. " 2>&1; echo \" $?\""))
  local output, code = pipe:read("*a"):match "^(.-)%s?(%d+)%s*$"
  pipe:close()
  return output, code == "0"
end

local function build(self)
  local steps = {
    ("ip netns add %s"):format(self.name), ("ip -n %s link set lo up"):format(self.name),
    ("ip netns exec %s nft list ruleset"):format(self.name),
  }
  for _, address in ipairs(ADDRESSES) do
    steps[#steps + 1] = ("ip -n %s address add %s dev lo nodad"):format(self.name, address)
  end
  for _, step in ipairs(steps) do
    local output, ok = run("%s", step)
    if not ok then return nil, step .. ": " .. output end
  end
  return self
end

-- With the addresses 192.0.2.1, 192.0.2.2 and 2001:db8::1, which lead to itself.
function netns.new()
  local self = setmetatable({ name = ("moongate-spec-%d-%d"):format(uv.os_getpid(), uv.hrtime() % 1e9) }, Netns)
  self.prefix = { "ip", "netns", "exec", self.name }
  local made, why = build(self)
  if not made then self:close() end
  return made, why
end

-- Runs a shell command in it.
function Netns:run(format, ...)
  return run("ip netns exec %s %s", self.name, format:format(...))
end

function Netns:nft(line)
  local output, ok = self:run("nft '%s'", line)
  if not ok then error(line .. ": " .. output, 2) end
end

function Netns:ip(line)
  local output, ok = run("ip -n %s %s", self.name, line)
  if not ok then error(line .. ": " .. output, 2) end
end

-- The body; curl's word where there is none.
function Netns:curl(to, path, args)
  return (self:run("setpriv --reuid=65534 --clear-groups curl -sS --max-time 5 %s http://%s%s", args or "", to, path))
end

-- The number of a series of a gateway that runs in it.
function Netns:metric(gateway, series)
  local text = self:run("curl -s http://127.0.0.1:%d/metrics", gateway.admin_port)
  for line in text:gmatch "[^\n]+" do
    local name, value = line:match "^(%S+)%s+(%S+)$"
    if name == series then return tonumber(value) end
  end
end

function Netns:close()
  run("ip netns del %s", self.name)
end

return netns
