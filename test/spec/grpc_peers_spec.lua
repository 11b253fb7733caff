-- gRPC with a real client and a real server on both sides of the gateway: grpcio.
local grpc = require "test.support.grpc"
local h = require "test.support.harness"

local PYTHON, PEER = "/usr/bin/python3", "test/support/grpc_peer.py"

local function test(body, ms)
  return h.test(function()
    local probe = h.spawn(PYTHON, { args = { "-c", "import grpc" } })
    if not probe or probe:wait_exit() ~= 0 then
      getfenv(body).pending "python3-grpcio is missing"
      return
    end
    body()
  end, ms or 40000)
end

local function server()
  local self = h.spawn(PYTHON, { args = { "-u", PEER, "serve" } })
  self.address = "127.0.0.1:" .. self:wait_output "port (%d+)"
  return self
end

local function serve(address, script, more)
  return h.script(([[
    moongate.upstream { name = "echo", endpoints = { %q }, protocol = "http2"%s }
    %s
  ]]):format(address, more or "", script or 'moongate.route { grpc = { service = "test.Echo" }, backends = "echo" }'))
end

local function call(gateway, name)
  local client = h.spawn(PYTHON, { args = { "-u", PEER, "call", tostring(gateway.port), name } })
  local code = client:wait_exit(30000)
  assert.equal(0, code, client.output)
  assert.truthy(client.output:find("all right", 1, true), client.output)
end

describe("gRPC between real peers:", function()
  for name, what in pairs {
    unary = "messages of many lengths", metadata = "metadata and trailers", client_stream = "streams of the client",
    server_stream = "streams of the server", both = "both ways, one message at a time", many = "sixty streams at once",
    big = "messages of 8 MiB", fail = "statuses of the server, trailers-only and late", deadline = "deadlines",
  } do
    it(what, test(function()
      local peer = server()
      local gateway = serve(peer.address)
      call(gateway, name)
      gateway:expect_quiet()
    end))
  end

  it("a cancelled call is cancelled at the server", test(function()
    local peer = server()
    local gateway = serve(peer.address)
    call(gateway, "cancel")
    peer:wait_output "ended Drip"
    peer:wait_output "ended Hang"
    gateway:expect_quiet()
  end))

  it("the route's time is a deadline, also in the middle of a stream", test(function()
    local peer = server()
    local gateway = serve(peer.address,
      'moongate.route { grpc = { service = "test.Echo" }, backends = "echo", timeouts = { request = 0.6 } }')
    call(gateway, "route_deadline")
    peer:wait_output "ended Hang"
    peer:wait_output "ended Drip"
    gateway:expect_quiet()
  end))

  it("gRPC-Web of HTTP/1.1 to a real server", test(function()
    local peer = server()
    local gateway = serve(peer.address,
      'moongate.route { grpc = { service = "test.Echo" }, backends = "echo", plugins = { { "grpc-web" } } }')
    local function ask(name, message)
      local body = grpc.frame(message)
      local response = gateway:request(("POST /test.Echo/%s HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\n" ..
        "X-Grpc-Web: 1\r\nContent-Length: %d\r\n\r\n%s"):format(name, #body, body))
      assert.equal(200, response.status)
      assert.equal("application/grpc-web+proto", response.headers["content-type"])
      return grpc.frames(response.body)
    end
    local frames = ask("Unary", "hello")
    assert.equal("hello", frames[1].bytes)
    assert.equal(128, frames[2].flag)
    assert.truthy(frames[2].bytes:find("grpc-status: 0\r\n", 1, true), frames[2].bytes)
    assert.truthy(frames[2].bytes:find("x-end: yes\r\n", 1, true))
    frames = ask("ServerStream", "40")
    assert.equal(41, #frames)
    assert.equal("39", frames[40].bytes)
    frames = ask("Fail", "")
    assert.equal(1, #frames)
    assert.truthy(frames[1].bytes:find("grpc-status: 9\r\n", 1, true), frames[1].bytes)
    assert.truthy(frames[1].bytes:find("grpc-message: not now: 100%25 %C3%A4\r\n", 1, true), frames[1].bytes)
    gateway:expect_quiet()
  end))

  it("errors of the gateway's own are statuses", test(function()
    local gateway = serve("127.0.0.1:" .. h.dead_port(), [[
      moongate.route { grpc = { service = "dead.Service" }, backends = "echo" }
      moongate.route { grpc = { service = "denied.Service" }, backends = "echo",
        access = function(exchange) exchange:respond(403, "not you, ä") end }
    ]])
    call(gateway, "errors")
  end))

  it("the server's health is asked for and heeded", test(function()
    local peer = server()
    local gateway = serve(peer.address, nil, ", health = { grpc = true, interval = 0.1, unhealthy = 1 }")
    call(gateway, "unary")
    call(gateway, "health")
    gateway:wait_log("is down: NOT_SERVING", 5000)
    call(gateway, "unavailable")
    gateway = serve(peer.address, nil, ', health = { grpc = "Unknown", interval = 0.1 }')
    gateway:wait_log("is down: grpc%-status 5", 5000)
  end))
end)
