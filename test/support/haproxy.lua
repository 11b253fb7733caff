-- HAProxy as a peer in tests: a program of its own that writes and reads PROXY headers. Ports are taken beforehand.
local uv = require "luv"

local haproxy = {}

local PATHS = { "/usr/sbin/haproxy", "/usr/bin/haproxy" }

local function find()
  for _, path in ipairs(PATHS) do
    if uv.fs_access(path, "X") then return path end
  end
end

-- Starts it with these lines of frontends and backends; nil where there is none. It serves once a connect to `port` works.
function haproxy.start(h, port, lines)
  local path = find()
  if not path then return nil end
  local text = "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n" ..
    lines
  local file = h.write_file(text, "haproxy.cfg")
  local self = h.spawn(path, { args = { "-q", "-db", "-f", file } })
  for _ = 1, 500 do
    local probe = h.stream.try_connect(port)
    if probe then
      probe:close()
      return self
    end
    if self.code then error("haproxy: " .. self.output) end
    h.pass(10)
  end
  error("haproxy does not listen: " .. self.output)
end

return haproxy
