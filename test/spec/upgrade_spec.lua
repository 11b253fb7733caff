-- Upgrade: a tunnel only after 101, requests until then.
local h = require "test.support.harness"

local UPGRADE = "GET /chat HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
local SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

-- Accepts every upgrade and echoes bytes afterwards.
local function tunnel_echo(connection)
  local request = connection:read_head()
  if not request then return end
  connection:send(SWITCH)
  while not connection:has_ended() do
    h.loop.wait(connection.changed, 20000, "bytes in the tunnel", function()
      return connection.pending > 0 or connection:has_ended()
    end)
    if connection.pending > 0 then connection:send(connection:take(connection.pending)) end
  end
  connection:flush()
end

local function open_tunnel(gateway)
  local client = gateway:connect()
  client:send(UPGRADE)
  local response, how = h.read_response(client)
  assert.is_not_nil(response, tostring(how))
  assert.equal(101, response.status)
  return client, response
end

describe("an upgrade", function()
  it("reaches the backend with its fields, and the 101 the client", h.test(function()
    local backend = h.backend(tunnel_echo)
    local gateway = h.gateway { backend = backend }
    local _, response = open_tunnel(gateway)
    local request = backend.requests[1]
    assert.equal("websocket", request.headers.upgrade)
    assert.equal("upgrade", request.headers.connection:lower())
    assert.equal("13", request.headers["sec-websocket-version"])
    assert.equal("websocket", response.headers.upgrade)
    assert.equal("upgrade", response.headers.connection:lower())
    assert.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", response.headers["sec-websocket-accept"])
  end))

  it("is a tunnel in both directions, byte for byte", h.test(function()
    local gateway = h.gateway { backend = h.backend(tunnel_echo) }
    local client = open_tunnel(gateway)
    local sent = {}
    for i = 1, 20 do
      sent[i] = h.http1.pattern(i * 1000, i) .. "\r\n\r\nGET / HTTP/1.1\r\n\0\255"
      client:send(sent[i])
    end
    local all = table.concat(sent)
    assert.is_true(all == client:read(#all))
    client:close()
    gateway:expect_quiet()
  end))

  it("carries megabytes both ways at once", h.test(function()
    local gateway = h.gateway { backend = h.backend(tunnel_echo) }
    local client = open_tunnel(gateway)
    local bytes = h.http1.pattern(4194304, 5)
    client:send(bytes)
    assert.is_true(bytes == client:read(#bytes, 20000))
  end))

  it("passes what comes right behind the 101", h.test(function()
    local backend = h.backend(h.once(SWITCH .. "welcome"))
    local client = open_tunnel(h.gateway { backend = backend })
    assert.equal("welcome", client:read(7))
  end))

  it("holds back what the client sends before the 101", h.test(function()
    local seen
    local backend = h.backend(function(connection)
      connection:read_head()
      seen = connection:has_more(150)
      connection:send(SWITCH)
      connection:send(connection:read(5))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(UPGRADE .. "hello")
    assert.equal(101, h.read_response(client).status)
    assert.equal("hello", client:read(5))
    assert.is_false(seen)
  end))

  it("ends for both when the client closes", h.test(function()
    local backend = h.backend(tunnel_echo)
    local gateway = h.gateway { backend = backend }
    open_tunnel(gateway):close()
    backend.connections[1]:wait_end()
    gateway:expect_quiet()
  end))

  it("ends for both when the backend closes", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send(SWITCH .. "bye")
      connection:flush()
    end)
    local gateway = h.gateway { backend = backend }
    local client = open_tunnel(gateway)
    assert.equal("bye", (client:read_all()))
    client:close()
    gateway:expect_quiet()
  end))

  it("passes a half close on, the other direction goes on", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send(SWITCH)
      local all = connection:read_all()
      connection:send(all:reverse())
      connection:flush()
    end)
    local client = open_tunnel(h.gateway { backend = backend })
    client:send "abc"
    client:shutdown()
    assert.equal("cba", (client:read_all()))
  end))

  it("breaks off when the backend resets", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send(SWITCH .. "x")
      connection:read(1)
      connection:reset()
    end)
    local client = open_tunnel(h.gateway { backend = backend })
    client:read(1)
    client:send "y"
    client:wait_end()
  end))

  it("is never pooled", h.test(function()
    local backend = h.backend(function(connection)
      if #connection.backend.connections == 1 then return tunnel_echo(connection) end
      h.answer_all(connection)
    end)
    local gateway = h.gateway { backend = backend }
    open_tunnel(gateway):close()
    backend.connections[1]:wait_end()
    assert.equal("you asked for /\n", gateway:get("/").body)
    assert.equal(2, #backend.connections)
  end))
end)

describe("a refused upgrade", function()
  for _, status in ipairs { "200 OK", "426 Upgrade Required", "403 Forbidden" } do
    it(status .. " is a plain response, what follows is the next request", h.test(function()
      local backend = h.backend(function(connection)
        connection:read_request()
        connection:send(h.http1.response(status, "no"))
        connection.is_first = false
        h.answer_all(connection)
      end)
      local gateway = h.gateway { backend = backend }
      local client = gateway:connect()
      client:send(UPGRADE .. "GET /next HTTP/1.1\r\nHost: h.example\r\n\r\n")
      local response = h.read_response(client)
      assert.equal(tonumber(status:sub(1, 3)), response.status)
      assert.equal("no", response.body)
      if response.headers.connection ~= "close" then
        assert.equal("you asked for /next\n", h.read_response(client).body)
      else
        assert.equal("", (client:read_all()))
      end
    end))
  end

  it("hides no request in its body", h.test(function()
    local smuggled = "GET /smuggled HTTP/1.1\r\nHost: h.example\r\n\r\n"
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(("POST /chat HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
      "Content-Length: %d\r\n\r\n%s"):format(#smuggled, smuggled))
    local response = h.read_response(client)
    -- Refused, or forwarded with its body as its body.
    if response.status == 200 then
      assert.equal(smuggled, backend.requests[1].body)
      assert.equal(1, #backend.requests)
    else
      assert.equal(400, response.status)
      assert.equal(0, #backend.requests)
    end
  end))
end)

describe("upgrades that are not passed on:", function()
  local function seen_by_backend(fields)
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    assert.equal(200, gateway:get("/", fields).status)
    return backend.requests[1].headers
  end

  it("h2c", h.test(function()
    local headers = seen_by_backend("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")
    assert.is_nil(headers.upgrade)
    assert.is_nil(headers["http2-settings"])
    assert.is_nil(headers.connection)
  end))

  it("h2c among others", h.test(function()
    local headers = seen_by_backend("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n")
    assert.is_nil((headers.upgrade or ""):find "h2c")
  end))

  it("Upgrade that Connection does not name", h.test(function()
    assert.is_nil(seen_by_backend("Upgrade: websocket\r\n").upgrade)
  end))

  it("HTTP/1.0", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local response = gateway:request("GET / HTTP/1.0\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert.equal(200, response.status)
    assert.is_nil(backend.requests[1].headers.upgrade)
  end))
end)

describe("a real WebSocket peer", function()
  local PYTHON = "/usr/bin/python3"
  local SERVER = [[
import asyncio, websockets
async def echo(ws):
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
]]
  local CLIENT = [[
import asyncio, os, sys, websockets
async def main():
    async with websockets.connect("ws://127.0.0.1:" + sys.argv[1] + "/chat", max_size=None) as ws:
        for size in (0, 1, 125, 126, 65535, 65536, 1000000):
            for message in (os.urandom(size), "x" * size):
                await ws.send(message)
                assert await ws.recv() == message
        pong = await ws.ping()
        await pong
    print("all right", ws.close_code, flush=True)
asyncio.run(main())
]]

  it("talks through the gateway", h.test(function()
    local probe = h.spawn(PYTHON, { args = { "-c", "import websockets" } })
    if not probe or probe:wait_exit() ~= 0 then
      pending "python3-websockets is missing"
      return
    end
    local server = h.spawn(PYTHON, { args = { "-u", "-c", SERVER } })
    local port = server:wait_output "port (%d+)"
    local gateway = h.gateway { upstreams = { backend = { "127.0.0.1:" .. port } } }
    local client = h.spawn(PYTHON, { args = { "-u", "-c", CLIENT, tostring(gateway.port) } })
    assert.equal(0, client:wait_exit(15000), client.output)
    assert.is_not_nil(client.output:find("all right 1000", 1, true), client.output)
    gateway:expect_quiet()
  end, 40000))
end)
