-- Sockets from a service manager (LISTEN_FDS), and what it is told (NOTIFY_SOCKET).
local h = require "test.support.harness"
local uv = require "luv"

local ACTIVATE = "LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS;"

-- A bound socket, as a service manager holds it (libuv would take its connections, did it listen here); port and descriptor.
local function bound()
  local socket = uv.new_tcp()
  assert(socket:bind("127.0.0.1", 0))
  return socket, socket:getsockname().port, socket:fileno()
end

describe("socket activation", function()
  it("serves on the sockets it is given, with every worker #threads", h.test(function()
    local socket, port, fd = bound()
    local gateway = h.gateway {
      upstreams = { backend = { "builtin:echo" } }, listener = { port = port }, settings = { workers = 2 },
      shell = ACTIVATE, inherit = fd,
    }
    socket:close()
    assert.equal(port, gateway.port)
    for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
  end))

  it("refuses nobody while it restarts", h.test(function()
    local socket, port, fd = bound()
    local options = {
      upstreams = { backend = { "builtin:echo" } }, listener = { port = port }, shell = ACTIVATE, inherit = fd,
    }
    local first = h.gateway(options)
    assert.equal(200, first:get("/").status)
    first:stop()
    local client = h.connect(port) -- nobody serves, yet the kernel takes it
    assert.is_not_nil(client)
    client:send "GET /waited HTTP/1.1\r\nHost: h.example\r\n\r\n"
    h.gateway(options)
    assert.is_not_nil(h.read_response(client).body:find "/waited")
    socket:close()
  end))

  it("without a matching listener binds its own", h.test(function()
    local socket, _, fd = bound()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } }, shell = ACTIVATE, inherit = fd }
    assert.equal(200, gateway:get("/").status)
    socket:close()
  end))
end)
