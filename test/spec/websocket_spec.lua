-- WebSocket tunnels whose bytes are opaque: closed with 1001 at the border of a frame, counted, kept over reloads.
local h = require "test.support.harness"
local tls = require "test.support.tls"
local websocket = require "test.support.websocket"

local CLIENT = { masked = true }
local frame, close = websocket.frame, websocket.close

local function quiet(connection) connection:wait_end() end

-- Answers a Close, and whatever else comes is kept.
local function polite(connection)
  connection.frames = {}
  while true do
    local own = websocket.read(connection, 20000)
    if not own then return end
    connection.frames[#connection.frames + 1] = own
    if own.kind == "close" then
      connection:send(close(own.code, own.reason))
      connection:flush()
      connection:shutdown()
      return
    end
    connection.changed:fire()
  end
end

local function start(talk, settings, route)
  local backend = h.backend(websocket.backend(talk))
  local routes = route and { route }
  local gateway = h.gateway { backend = backend, settings = settings, routes = routes }
  return gateway, backend
end

local function expect_close(stream, code, is_masked)
  local own = websocket.read(stream)
  assert.equal("close", own.kind)
  assert.equal(code, own.code)
  assert.equal(is_masked or false, own.is_masked)
  return own
end

describe("a drain", function()
  it("closes a WebSocket with 1001 to both sides, and waits for their answers", h.test(function()
    local gateway, backend = start(polite, { timeouts = { drain = 0.5 } })
    local client = websocket.connect(gateway)
    client:send(frame("text", "hello", CLIENT))
    gateway:signal()
    expect_close(client, 1001)
    client:send(frame("text", "too late", CLIENT) .. close(1001, "", CLIENT))
    client:wait_end()
    local seen = backend.connections[1].frames
    assert.equal("hello", seen[1].data)
    assert.equal(1001, seen[2].code)
    assert.is_true(seen[2].is_masked)
    assert.equal(2, #seen)
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))

  it("waits for the end of a frame", h.test(function()
    local gateway, backend = start(function(connection)
      connection:send(frame("binary", ("x"):rep(40000)):sub(1, 20000))
      connection.is_half = true
      websocket.read(connection, 20000)
      connection:send(frame("binary", ("x"):rep(40000)):sub(20001) .. frame("text", "dropped"))
      polite(connection)
    end, { timeouts = { drain = 0.9 } })
    local client = websocket.connect(gateway)
    client:wait_total(20000)
    gateway:signal()
    gateway:wait_draining()
    -- the other direction is at a border: its Close is there at once, and asks for the rest
    local own = websocket.read(client)
    assert.equal(("x"):rep(40000), own.data)
    expect_close(client, 1001)
    client:send(close(1001, "", CLIENT))
    client:wait_end()
    assert.equal(1, #backend.connections)
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))

  it("waits no longer than a second for who does not answer", h.test(function()
    local gateway = start(quiet, { timeouts = { drain = 30 } })
    local client = websocket.connect(gateway)
    gateway:signal()
    gateway:wait_draining()
    assert.is_false(client:has_more(100)) -- it goes on until shortly before the limit
    client:send(frame("text", "still here", CLIENT))
    gateway:signal()
    expect_close(client, 1001)
    client:wait_end()
    gateway:wait_exit(3000)
    gateway.is_stopped = true
    gateway:judge_log()
  end))

  it("ends at its limit where no Close is answered", h.test(function()
    local gateway = start(quiet, { timeouts = { drain = 0.3 } })
    local client = websocket.connect(gateway)
    h.takes(100, 1500, function()
      gateway:signal()
      expect_close(client, 1001)
      client:wait_end()
      gateway:wait_exit(3000)
    end)
    assert.equal(0, gateway.code)
  end))

  it("leaves a tunnel alone that has no frames any more", h.test(function()
    local gateway = start(function(connection)
      connection:send "\255\255 no frame"
      connection:wait_end()
    end, { timeouts = { drain = 0.3 } })
    local client = websocket.connect(gateway)
    assert.equal("\255\255 no frame", client:read(11))
    client:send "\255\255"
    gateway:wait_metrics("bytes", function(m) return m.moongate_relay_client_bytes_total == 2 end)
    gateway:signal()
    assert.equal("", (client:read_all()))
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))

  it("does not close twice what has closed itself", h.test(function()
    local gateway, backend = start(polite, { timeouts = { drain = 0.4 } })
    local client = websocket.connect(gateway)
    client:send(close(1000, "bye", CLIENT))
    expect_close(client, 1000)
    gateway:signal()
    assert.equal("", (client:read_all()))
    assert.equal(1, #backend.connections[1].frames)
    client:close()
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))
end)

describe("a WebSocket", function()
  it("is closed with 1001 when it idles for timeouts.idle", h.test(function()
    local gateway, backend = start(polite, nil,
      { path = "/", backends = "backend", timeouts = { idle = 0.2 } })
    local client = websocket.connect(gateway)
    expect_close(client, 1001)
    client:send(close(1001, "", CLIENT))
    client:wait_end()
    assert.equal(1001, backend.connections[1].frames[1].code)
    gateway:expect_quiet()
  end))

  it("is kept by traffic either way", h.test(function()
    local gateway = start(function(connection)
      for _ = 1, 8 do
        connection:send(frame("ping", ""))
        h.pass(60)
      end
      connection:send(frame("text", "done"))
      quiet(connection)
    end, nil, { path = "/", backends = "backend", timeouts = { idle = 0.3 } })
    local client = websocket.connect(gateway)
    for _ = 1, 8 do assert.equal("ping", websocket.read(client).kind) end
    assert.equal("done", websocket.read(client).data)
  end))

  it("is counted, and told apart from other tunnels", h.test(function()
    local gateway = start(polite)
    local client = websocket.connect(gateway)
    gateway:wait_metrics("a WebSocket", function(m)
      return m.moongate_websockets_live == 1 and m.moongate_websockets_total == 1 and m.moongate_tunnels_live == 1
    end)
    local rows = gateway:ask_json "/connections"
    assert.equal("websocket", (rows.connections or rows)[1].state)
    client:close()
    gateway:wait_metrics("none", function(m)
      return m.moongate_websockets_live == 0 and m.moongate_websockets_total == 1 and m.moongate_tunnels_live == 0
    end)
  end))

  it("carries long frames and short ones spliced and copied, byte for byte", h.test(function()
    local pieces = {}
    for i = 1, 60 do
      local len = ({ 0, 1, 125, 126, 9000, 65535, 65536, 300000, 20, 20 })[i % 10 + 1]
      local kind = i % 4 == 2 and "continuation" or "binary" -- every fourth message has two fragments, some a reserved bit
      pieces[i] = frame(kind, h.http1.pattern(len, i), { more = i % 4 == 1, first = i % 4 == 3 and 194 or nil })
    end
    local all = table.concat(pieces)
    local gateway = start(function(connection)
      connection:send(all)
      connection:flush()
      quiet(connection)
    end, { timeouts = { drain = 0.4 } })
    local client = websocket.connect(gateway)
    assert.is_true(all == client:read(#all, 20000))
    gateway:signal()
    expect_close(client, 1001) -- so it has found every border
    client:close()
    gateway:wait_exit(3000)
  end))

  it("survives reloads", h.test(function()
    local gateway = start(polite)
    local client = websocket.connect(gateway)
    for i = 1, 5 do
      gateway:rewrite { backend = h.backend(), settings = { timeouts = { idle = 60 + i } } }
      assert.equal(0, gateway:ask("reload").code)
      client:send(frame("text", "after " .. i, CLIENT))
    end
    client:send(close(1000, "", CLIENT))
    expect_close(client, 1000)
    client:wait_end()
  end))
end)

describe("over TLS", function()
  local PYTHON = "/usr/bin/python3"
  local SERVER = [[
import asyncio, websockets
async def echo(ws):
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
]]
  local PEER = [[
import asyncio, os, ssl, sys, websockets
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    async with websockets.connect("wss://127.0.0.1:" + sys.argv[1] + "/", ssl=context, max_size=None, compression=None) as ws:
        for size in (0, 1, 126, 65536, 500000):
            message = os.urandom(size)
            await ws.send(message)
            assert await ws.recv() == message
        print("ready", flush=True)
        try:
            await ws.recv()
        except websockets.ConnectionClosed as closed:
            print("closed", closed.rcvd.code, flush=True)
asyncio.run(main())
]]

  for name, route in pairs { opaque = "", read = "websocket_frame = function() moongate.sleep(0.001) end" } do
    it("a WebSocket that is " .. name .. " speaks, and hears of a drain", h.test(function()
      local set = tls.certs()
      local probe = h.spawn(PYTHON, { args = { "-c", "import websockets" } })
      if not set or not probe or probe:wait_exit() ~= 0 then
        pending "openssl or python3-websockets is missing"
        return
      end
      local site = set:issue { name = "site", sans = "IP:127.0.0.1" }
      local server = h.spawn(PYTHON, { args = { "-u", "-c", SERVER } })
      local gateway = h.script(([[moongate.upstream { name = "real", endpoints = { "127.0.0.1:%s" } }
        moongate.route { path = "/", backends = "real", %s }]]):format(server:wait_output "port (%d+)", route), {
        listener = { protocol = "https", tls = { certificates = { site } } },
        settings = { timeouts = { drain = 0.8 } },
      })
      local client = h.spawn(PYTHON, { args = { "-u", "-c", PEER, tostring(gateway.port), set.ca } })
      client:wait_output "(ready)"
      gateway:signal()
      assert.equal(0, client:wait_exit(10000), client.output)
      assert.is_not_nil(client.output:find("closed 1001", 1, true), client.output)
      gateway:wait_exit(3000)
      assert.equal(0, gateway.code)
      set:remove()
    end, 40000))
  end
end)
