-- WebSocket over streams of HTTP/2 (RFC 8441): the backend sees an upgrade of HTTP/1.1, the client a stream that carries frames.
local h = require "test.support.harness"
local http2 = require "test.support.http2"
local tls = require "test.support.tls"
local websocket = require "test.support.websocket"

local CLIENT = { masked = true }
local frame, close, read = websocket.frame, websocket.close, websocket.read
local open, ask = websocket.open, websocket.ask

local function quiet(connection) connection:wait_end(20000) end

-- Echoes messages and Closes; keeps what it has read.
local function echo(connection)
  connection.frames = {}
  while true do
    local own = read(connection, 20000)
    if not own then return end
    connection.frames[#connection.frames + 1] = own
    connection.changed:fire()
    connection:send(frame(own.kind, own.data))
    if own.kind == "close" then
      connection:flush()
      return connection:shutdown()
    end
  end
end

local function start(talk, settings, route)
  local backend = h.backend(talk and websocket.backend(talk))
  local gateway = h.gateway { backend = backend, settings = settings, routes = route and { route } }
  return gateway, backend, http2.connect(gateway:connect())
end

local function expect_close(tunnel, code)
  local own = read(tunnel)
  assert.equal("close", own and own.kind)
  assert.equal(code, own.code)
  assert.is_false(own.is_masked)
end

describe("a WebSocket over HTTP/2", function()
  it("is an upgrade to the backend, and 200 to the client", h.test(function()
    local gateway, backend, client = start(echo)
    local tunnel, response = open(client, 1, { pseudo = { [":path"] = "/a/../chat?room=1" }, fields = {
      { "origin", "http://h.example" }, { "sec-websocket-protocol", "one" },
      { "sec-websocket-key", "not ours" }, { "sec-websocket-key", "nor this" },
    } })
    assert.equal(1, client.settings[8]) -- SETTINGS_ENABLE_CONNECT_PROTOCOL
    for _, name in ipairs { "sec-websocket-accept", "upgrade", "connection", "content-length", "transfer-encoding" } do
      assert.is_nil(response.headers[name], name)
    end
    local request = backend.connections[1].request
    assert.equal("GET", request.method)
    assert.equal("/chat?room=1", request.target)
    assert.equal("websocket", request.headers.upgrade)
    assert.equal("upgrade", request.headers.connection)
    assert.equal("13", request.headers["sec-websocket-version"])
    assert.equal("one", request.headers["sec-websocket-protocol"])
    assert.equal("http://h.example", request.headers.origin)
    assert.equal(24, #request.headers["sec-websocket-key"])
    assert.is_nil(request.headers["content-length"] or request.headers["transfer-encoding"] or request.headers[":protocol"])
    tunnel:send(frame("text", "hello", CLIENT))
    assert.equal("hello", read(tunnel).data)
    gateway:wait_metrics("a WebSocket", function(m)
      return m.moongate_websockets_live == 1 and m.moongate_tunnels_live == 1 and m.moongate_exchanges_live == 0
    end)
    assert.equal("websocket", (gateway:ask_json("/connections").connections or {})[1].state)
    tunnel:send(close(1000, "bye", CLIENT))
    expect_close(tunnel, 1000)
    tunnel:shutdown()
    assert.equal("eof", tunnel:wait_end())
    client:request(3, { [":path"] = "/next" }) -- the connection goes on
    client:sync()
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("carries what came ahead of the answer, and streams beside it", h.test(function()
    local backend = h.backend(function(connection)
      connection.request = connection:read_head()
      if connection.request.target ~= "/chat" then
        connection:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        return
      end
      assert(not connection:has_more(100), "frames came ahead of the switch")
      connection:send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " ..
        websocket.accept(connection.request.headers["sec-websocket-key"]) .. "\r\n\r\n" .. frame("text", "welcome"))
      echo(connection)
    end)
    local gateway = h.gateway { backend = backend }
    local client = http2.connect(gateway:connect())
    ask(client, 1)
    client:data(1, frame("text", "early", CLIENT))
    local tunnel = client:tunnel(1)
    assert.equal("welcome", read(tunnel).data)
    assert.equal("early", read(tunnel).data)
    assert.equal(200, tunnel:known().status)
    for id = 3, 9, 2 do
      client:request(id, { [":path"] = "/" .. id })
      assert.equal("ok", client:response(id).body)
      tunnel:send(frame("text", "m" .. id, CLIENT))
      assert.equal("m" .. id, read(tunnel).data)
    end
    tunnel:send(close(1000, "", CLIENT))
    expect_close(tunnel, 1000)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("carries many tunnels on one connection", h.test(function()
    local gateway, _, client = start(echo)
    local tunnels = {}
    for i = 1, 40 do tunnels[i] = open(client, 2 * i - 1) end
    for round = 1, 3 do
      for i, tunnel in ipairs(tunnels) do tunnel:send(frame("binary", h.http1.pattern(round * 900, i), CLIENT)) end
      for i, tunnel in ipairs(tunnels) do assert.equal(h.http1.pattern(round * 900, i), read(tunnel).data) end
    end
    gateway:wait_metrics("all of them", function(m) return m.moongate_websockets_live == 40 end)
    client.stream:close()
    gateway:expect_quiet()
  end, 20000))

  it("keeps long messages whole, both ways", h.test(function()
    local gateway, _, client = start(echo)
    local tunnel = open(client, 1)
    for i, len in ipairs { 0, 125, 126, 60000, 65536, 1000000 } do
      local bytes = h.http1.pattern(len, i)
      local sent = frame("binary", bytes, CLIENT)
      local at, known = 1, client.granted
      while at <= #sent do
        local room = math.min(65535 + (known[1] or 0), 262144 + (known[0] or 0)) - (tunnel.sent or 0)
        local piece = sent:sub(at, at + math.min(room, 16384) - 1)
        if #piece > 0 then
          client:data(1, piece)
          tunnel.sent, at = (tunnel.sent or 0) + #piece, at + #piece
        else
          assert(client:next())
          tunnel:pull()
        end
      end
      local own = read(tunnel, 20000)
      assert.is_true(own.data == bytes, "of " .. len)
    end
    client.stream:close()
    gateway:expect_quiet()
  end, 60000))

  it("sends no more than windows allow, and reads no more of the backend", h.test(function()
    local sent = 0
    local gateway, _, client = start(function(connection)
      for _ = 1, 200 do
        local piece = frame("binary", ("x"):rep(65536))
        connection:send(piece)
        connection:flush(20000)
        sent = sent + #piece
      end
      quiet(connection)
    end)
    client:window(0, 16777216)
    local tunnel = open(client, 1, { is_stingy = true })
    tunnel:read(65535)
    assert.is_true(client:sync())
    h.pass(200)
    assert.is_true(client:sync())
    assert.equal(65535, tunnel:known().body_len)
    assert.is_true(sent < 200 * 65536, "the backend was read to its end")
    local before = sent
    client:request(3, { [":path"] = "/other" })
    assert.is_true(client:sync()) -- the connection is not held up
    client:window(1, 16777216 - 65535)
    tunnel:read(200 * 65546 - 65535, 20000)
    assert.is_true(sent > before)
    client.stream:close()
    gateway:expect_quiet()
  end, 60000))

  it("opens its window only as the backend takes the frames", h.test(function()
    local gateway, backend, client = start(function(connection)
      connection:pause()
      connection.is_stuck = true
      h.loop.wait(connection.changed, 20000, "the word", function() return connection.go end)
      connection:resume()
      quiet(connection)
    end)
    local tunnel = open(client, 1)
    local sent = 0
    local function push()
      local room = 65535 + (client.granted[1] or 0) - sent
      while room > 0 do
        local len = math.min(16384, room)
        client:data(1, ("x"):rep(len))
        sent, room = sent + len, room - len
        client:sync()
      end
    end
    repeat
      local before = sent
      push()
      h.pass(100)
      client:sync()
    until sent == before
    assert.is_true(sent > 65535 and sent < 16777216)
    local stuck = sent
    backend.connections[1].go = true
    backend.connections[1].changed:fire()
    client:until_(function() return (client.granted[1] or 0) + 65535 > stuck end)
    push()
    assert.is_true(sent > stuck)
    assert.is_nil(tunnel:known().reset)
    client.stream:close()
    gateway:expect_quiet()
  end, 30000))

  it("passes on the end of either side alone, as FIN and END_STREAM are", h.test(function()
    local backend, gateway
    backend = h.backend(websocket.backend(function(connection)
      assert(connection:read(15, 20000) == "from the client")
      connection:wait_end(20000)
      connection:send "from the backend"
      connection:flush()
    end))
    gateway = h.gateway { backend = backend }
    local client = http2.connect(gateway:connect())
    local tunnel = open(client, 1)
    tunnel:send "from the client"
    tunnel:shutdown()
    assert.equal("from the backend", tunnel:read(16))
    assert.equal("eof", tunnel:wait_end())
    assert.is_nil(tunnel:known().reset)
    gateway:stop()

    backend = h.backend(websocket.backend(function(connection)
      connection:send "from the backend"
      connection:flush()
      connection:shutdown()
      connection.heard = connection:read(15, 20000)
      connection.changed:fire()
    end))
    gateway = h.gateway { backend = backend }
    client = http2.connect(gateway:connect())
    tunnel = open(client, 1)
    assert.equal("from the backend", tunnel:read(16))
    assert.equal("eof", tunnel:wait_end())
    tunnel:send "from the client"
    client:sync()
    assert.is_nil(tunnel:known().reset)
    tunnel:shutdown()
    local connection = backend.connections[1]
    h.loop.wait(connection.changed, 5000, "the rest", function() return connection.heard end)
    assert.equal("from the client", connection.heard)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("is reset where the client's window lets not even its end through", h.test(function()
    local backend = h.backend(websocket.backend(function(connection) connection:wait_end(20000) end))
    local gateway = h.gateway { backend = backend, settings = { timeouts = { body = 0.4 } } }
    local client = http2.connect(gateway:connect(), { settings = http2.setting(4, 0) })
    local tunnel = open(client, 1, { is_stingy = true })
    tunnel:shutdown()
    gateway:wait_metrics("the end of the tunnel", function(m) return m.moongate_tunnels_live == 0 end)
    assert.is_true(client:until_(function() return tunnel:known().ended or tunnel:known().reset end, 3000))
    assert.equal(http2.CANCEL, tunnel:known().reset)
    assert.equal(1, gateway:metrics().moongate_h2_streams_stalled_total)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("passes on a reset of either side, as CANCEL", h.test(function()
    local gateway, backend, client = start(function(connection)
      local own = read(connection, 20000)
      if own and own.data == "die" then return connection:reset() end
      connection.ended = connection:wait_end(20000)
    end)
    local tunnel = open(client, 1)
    tunnel:send(frame("text", "die", CLIENT))
    local how, code = tunnel:wait_end()
    assert.equal("reset", how)
    assert.equal(http2.CANCEL, code)
    tunnel = open(client, 3)
    tunnel:send(frame("text", "live", CLIENT))
    client:send(http2.RST_STREAM, 0, 3, http2.u32(http2.CANCEL))
    h.loop.wait(backend.connections[2].changed, 5000, "the end", function() return backend.connections[2]:has_ended() end)
    tunnel = open(client, 5)
    tunnel:send(frame("text", "live", CLIENT))
    client:sync()
    client.stream:reset() -- the connection, and all that is on it
    h.loop.wait(backend.connections[3].changed, 5000, "the end", function() return backend.connections[3]:has_ended() end)
    gateway:expect_quiet()
  end))

  it("ends with 1001 when it idles", h.test(function()
    local gateway, backend, client = start(echo, { timeouts = { body = 0.2 } },
      { path = "/", backends = "backend", timeouts = { idle = 0.4 } })
    local tunnel = open(client, 1)
    h.takes(350, 2000, function() expect_close(tunnel, 1001) end)
    tunnel:send(close(1001, "", CLIENT))
    tunnel:wait_end()
    assert.equal(1001, backend.connections[1].frames[1].code)
    assert.is_true(client:sync())
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("ends with 1001 at the border of a frame when the gateway drains", h.test(function()
    local gateway, _, client = start(function(connection)
      local whole = frame("binary", ("x"):rep(40000))
      connection:send(whole:sub(1, 20000))
      connection:flush()
      local own = read(connection, 20000) -- 1001: the other direction is at a border
      assert(own.kind == "close" and own.code == 1001 and own.is_masked)
      connection:send(whole:sub(20001) .. frame("text", "dropped") .. close(1001))
      quiet(connection)
    end, { timeouts = { drain = 1 } })
    local tunnel = open(client, 1)
    assert.is_true(client:until_(function() return tunnel:known().body_len >= 20000 end))
    gateway:signal "sigterm"
    assert.equal(("x"):rep(40000), read(tunnel).data)
    expect_close(tunnel, 1001)
    tunnel:send(close(1001, "", CLIENT))
    assert.equal("eof", tunnel:wait_end())
    assert.equal("eof", client:finish())
    assert.equal(http2.NO_ERROR, client.goaway.code)
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))

  it("survives reloads", h.test(function()
    local gateway, _, client = start(echo)
    local tunnel = open(client, 1)
    for i = 1, 3 do
      gateway:rewrite { backend = h.backend(), settings = { timeouts = { idle = 60 + i } } }
      assert.equal(0, gateway:ask("reload").code)
      tunnel:send(frame("text", "after " .. i, CLIENT))
      assert.equal("after " .. i, read(tunnel).data)
    end
  end))

  it("is one of the access log", h.test(function()
    local path = os.tmpname()
    local backend = h.backend(websocket.backend(echo))
    local gateway = h.gateway { backend = backend,
      settings = { access_log = { file = path, format = "$protocol $method $path $status" } } }
    local client = http2.connect(gateway:connect())
    local tunnel = open(client, 1)
    tunnel:send(close(1000, "", CLIENT))
    expect_close(tunnel, 1000)
    client.stream:close()
    gateway:expect_quiet()
    gateway:stop()
    local file = assert(io.open(path))
    assert.equal("HTTP/2 GET /chat 101\n", file:read "*a")
    file:close()
    os.remove(path)
  end))
end)

describe("a WebSocket over HTTP/2 is not opened", function()
  local function refusal(response, pseudo)
    local backend = h.backend(h.each(function() return response end))
    local gateway = h.gateway { backend = backend }
    local client = http2.connect(gateway:connect())
    ask(client, 1, pseudo)
    client:data(1, frame("text", "in hope", CLIENT))
    client:until_(function() return client.streams[1] and (client.streams[1].ended or client.streams[1].reset) end)
    client:sync()
    local known = client.streams[1]
    known.body = table.concat(known.pieces)
    client.stream:close()
    gateway:expect_quiet()
    return known, backend
  end

  it("where the backend answers otherwise, which the client is told", h.test(function()
    local known, backend = refusal "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: no\r\n\r\nno"
    assert.equal(403, known.status)
    assert.equal("no", known.body)
    assert.equal("no", known.headers["x-why"])
    assert.equal(http2.NO_ERROR, known.reset) -- what it still sends is not wanted
    assert.equal(1, #backend.requests)
  end))

  it("where the backend answers 200: to the client that would be a tunnel", h.test(function()
    local known = refusal "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert.equal(502, known.status)
    assert.is_truthy(known.body:find "2xx")
  end))

  it("where the backend's proof is another's, or missing", h.test(function()
    for _, line in ipairs { "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "Sec-WebSocket-Accept: \r\n", "" } do
      local known = refusal("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" .. line .. "\r\n")
      assert.equal(502, known.status)
      assert.is_truthy(known.body:find "Sec%-WebSocket%-Accept")
    end
  end))

  it("where the backend switches to something else", h.test(function()
    assert.equal(502, refusal("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n").status)
  end))

  it("where a script or a builtin answers 2xx", h.test(function()
    local gateway = h.script [[
      moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
      moongate.route { path = "/echo", backends = "echo" }
      moongate.route { path = "/said", backends = "backend", access = function(exchange) return exchange:respond(200, "hi") end }
      moongate.route { path = "/made", backends = "backend", header_filter = function(exchange) exchange.response.status = 200 end }
      moongate.route { path = "/told", backends = "backend", access = function(exchange) return exchange:respond(401, "hi") end }
    ]]
    local client = http2.connect(gateway:connect())
    for i, path in ipairs { "/echo", "/said", "/made" } do
      ask(client, 2 * i - 1, { [":path"] = path })
      assert.equal(502, client:response(2 * i - 1).status, path)
    end
    ask(client, 7, { [":path"] = "/told" })
    assert.equal(401, client:response(7).status)
  end))

  it("where the client's request is none", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = http2.connect(gateway:connect())
    local id = -1
    local function outcome(pseudo, fields)
      id = id + 2
      ask(client, id, pseudo, fields)
      local known = client:response(id)
      return known.status or "reset " .. known.reset
    end
    assert.equal(501, outcome { [":protocol"] = "connect-udp" })
    assert.equal(501, outcome { [":protocol"] = "h2c" })
    assert.equal(501, outcome { [":protocol"] = false, [":scheme"] = false, [":path"] = false }) -- plain CONNECT
    assert.equal("reset 1", outcome { [":method"] = "GET" })
    assert.equal("reset 1", outcome { [":path"] = false })
    assert.equal("reset 1", outcome { [":scheme"] = false })
    assert.equal("reset 1", outcome { [":authority"] = false })
    assert.equal("reset 1", outcome { [":protocol"] = "" })
    assert.equal("reset 1", outcome({}, { { "upgrade", "websocket" } }))
    assert.equal("reset 1", outcome({}, { { "connection", "upgrade" } }))
    assert.equal(400, outcome({}, { { "content-length", "3" } }))
    assert.equal(400, outcome { [":path"] = "/%zz" })
    id = id + 2
    local pseudo = { [":method"] = "CONNECT", [":protocol"] = "websocket" }
    client:send(http2.HEADERS, 4, id, http2.head(pseudo, { { ":protocol", "websocket" } }))
    assert.equal(http2.PROTOCOL_ERROR, client:response(id).reset)
    assert.equal(0, #backend.requests)
    assert.is_true(client:sync())
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("and its request withdrawn, when the client resets it", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:wait_end(20000)
    end)
    local gateway = h.gateway { backend = backend }
    local client = http2.connect(gateway:connect())
    ask(client, 1)
    h.loop.wait(backend.changed, 5000, "the request", function() return #backend.requests == 1 end)
    client:send(http2.RST_STREAM, 0, 1, http2.u32(http2.CANCEL))
    backend.connections[1]:wait_end()
    client.stream:close()
    gateway:expect_quiet()
  end))
end)

describe("websocket_frame over HTTP/2", function()
  local function scripted(body, talk)
    local gateway = h.script(([[moongate.route { name = "ws", path = "/", backends = "backend",
      websocket_frame = function(exchange, message) %s end }]]):format(body),
      { backend = h.backend(websocket.backend(talk or echo)), settings = { timeouts = { drain = 1 } } })
    return gateway, http2.connect(gateway:connect())
  end

  it("sees and changes messages of both sides", h.test(function()
    local gateway, client = scripted [[moongate.sleep(0.001) return message.from .. ": " .. message.data]]
    local tunnel = open(client, 1, { fields = { { "sec-websocket-extensions", "permessage-deflate" } } })
    assert.is_nil(gateway.backend.connections[1].request.headers["sec-websocket-extensions"])
    tunnel:send(frame("text", "one ", { masked = true, more = true }) .. frame("continuation", "message", CLIENT))
    local own = read(tunnel)
    assert.equal("upstream: client: one message", own.data)
    assert.equal("client: one message", gateway.backend.connections[1].frames[1].data)
    local text = ("y"):rep(50000)
    tunnel:send(frame("text", text, CLIENT))
    assert.equal("upstream: client: " .. text, read(tunnel).data)
    tunnel:send(close(1000, "", CLIENT))
    expect_close(tunnel, 1000)
    tunnel:shutdown()
    tunnel:wait_end()
    client.stream:close()
    gateway:expect_idle()
  end))

  it("may close it, and a drain does", h.test(function()
    local gateway, client = scripted [[if message.data == "bad" then return message:close(1008, "no") end]]
    local tunnel = open(client, 1)
    tunnel:send(frame("text", "bad", CLIENT))
    expect_close(tunnel, 1008)
    tunnel:send(close(1008, "", CLIENT))
    tunnel:wait_end()
    tunnel = open(client, 3)
    tunnel:send(frame("text", "good", CLIENT))
    assert.equal("good", read(tunnel).data)
    gateway:signal "sigterm"
    expect_close(tunnel, 1001)
    tunnel:send(close(1001, "", CLIENT))
    tunnel:wait_end()
    assert.equal("eof", client:finish())
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))
end)

describe("python's h2 opens WebSockets", function()
  local PYTHON = "/usr/bin/python3"
  -- One connection, a tunnel; frames by python3-websockets' own code, on both ends.
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
  local PEER = [[
import os, socket, ssl, sys
import h2.config, h2.connection, h2.events, h2.settings
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
scheme = "http"
if len(sys.argv) > 2:
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
    assert sock.selected_alpn_protocol() == "h2"
    scheme = "https"
sock.settimeout(15)
conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
conn.initiate_connection()
reader, seen, state = StreamReader(), {}, {"settings": False, "ended": False}
def step():
    sock.sendall(conn.data_to_send())
    data = sock.recv(65536)
    assert data, "the connection ended"
    for event in conn.receive_data(data):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            state["settings"] = conn.remote_settings.enable_connect_protocol == 1
        elif isinstance(event, h2.events.ResponseReceived):
            seen.update(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            reader.feed_data(event.data)
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            state["ended"] = True
    sock.sendall(conn.data_to_send())
while not state["settings"]:
    step()
conn.send_headers(1, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", scheme), (":path", "/"),
    (":authority", "127.0.0.1"), ("sec-websocket-version", "13")])
while not seen:
    step()
assert seen[":status"] == "200", seen
def send(frame):
    data = frame.serialize(mask=True)
    while data:
        room = min(conn.local_flow_control_window(1), conn.max_outbound_frame_size)
        if room == 0:
            step()
            continue
        conn.send_data(1, data[:room])
        data = data[room:]
        sock.sendall(conn.data_to_send())
def receive():
    parser = Frame.parse(reader.read_exact, mask=False)
    while True:
        try:
            next(parser)
        except StopIteration as done:
            return done.value
        step()
for size in (0, 1, 126, 65536, 300000):
    message = os.urandom(size)
    send(Frame(Opcode.BINARY, message))
    got = receive()
    assert got.data == message, (size, len(got.data))
print("ready", flush=True)
got = receive()
print("closed", int.from_bytes(got.data[:2], "big"), flush=True)
send(Frame(Opcode.CLOSE, got.data[:2]))
while not state["ended"]:
    step()
]]

  local function play(listener, ca, route)
    local probe = h.spawn(PYTHON, { args = { "-c", "import h2, websockets" } })
    if not probe or probe:wait_exit() ~= 0 then
      pending "python3-h2 or python3-websockets is missing"
      return
    end
    local server = h.spawn(PYTHON, { args = { "-u", "-c", SERVER } })
    local gateway = h.script(([[moongate.upstream { name = "real", endpoints = { "127.0.0.1:%s" } }
      moongate.route { path = "/", backends = "real", timeouts = { idle = 1 }, %s }]]):format(
      server:wait_output "port (%d+)", route), { listener = listener })
    local client = h.spawn(PYTHON, { args = { "-u", "-c", PEER, tostring(gateway.port), ca } })
    assert.equal(0, client:wait_exit(20000), client.output) -- of a GOAWAY this h2 makes an error, so it idles to its end
    assert.is_not_nil(client.output:find("ready%s+closed 1001"), client.output)
    gateway:expect_quiet()
  end

  for name, route in pairs { opaque = "", read = "websocket_frame = function() moongate.sleep(0.001) end" } do
    it("in clear, " .. name, h.test(function() play(nil, nil, route) end, 40000))

    it("over TLS, " .. name, h.test(function()
      local set = tls.certs()
      if not set then
        pending "openssl is missing"
        return
      end
      local site = set:issue { name = "site", sans = "IP:127.0.0.1" }
      play({ protocol = "https", tls = { certificates = { site } } }, set.ca, route)
      set:remove()
    end, 40000))
  end
end)
