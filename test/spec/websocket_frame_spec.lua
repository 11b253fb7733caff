-- websocket_frame: messages of a WebSocket as a function sees and changes them.
local h = require "test.support.harness"
local websocket = require "test.support.websocket"

local CLIENT = { masked = true }
local frame, close, read = websocket.frame, websocket.close, websocket.read

-- Echoes messages and Closes; keeps what it has read.
local function echo(connection)
  connection.frames = {}
  while true do
    local own = read(connection, 20000)
    if not own then return end
    connection.frames[#connection.frames + 1] = own
    connection.changed:fire()
    if own.kind == "close" then
      connection:send(websocket.frame("close", own.data))
      connection:flush()
      return
    end
    connection:send(frame(own.kind == "ping" and "pong" or own.kind, own.data))
  end
end

-- A gateway with one route whose websocket_frame has this body.
local function start(body, options)
  options = options or {}
  options.backend = options.backend or h.backend(websocket.backend(options.talk or echo))
  return h.script(([[moongate.route { name = "ws", path = "/", backends = "backend", %s
    websocket_frame = function(exchange, message) %s end }]]):format(options.keys or "", body), options)
end

local function say(client, text) client:send(frame("text", text, CLIENT)) end

local function ask(client, text)
  say(client, text)
  return read(client)
end

local function expect_close(stream, code, reason)
  local own = read(stream)
  assert.equal("close", own and own.kind)
  assert.equal(code, own.code)
  if reason then assert.equal(reason, own.reason) end
  return own
end

local function frames_of(gateway) return gateway.backend.connections[1].frames end

-- Closes as a client does, and waits for the end.
local function finish(client, gateway)
  client:send(close(1000, "", CLIENT))
  expect_close(client, 1000)
  client:wait_end()
  client:close()
  gateway:expect_idle()
end

describe("websocket_frame", function()
  it("sees every message of both sides, and passes on what it returns nil for", h.test(function()
    local gateway = start [[moongate.log.info(message.from .. " " .. message.kind .. " " .. #message.data)]]
    local client = websocket.connect(gateway)
    for _, len in ipairs { 0, 1, 125, 126, 65535, 65536, 1048576 } do
      local text, bytes = ("x"):rep(len), h.http1.pattern(len, len)
      local own = ask(client, text)
      assert.is_true(own.kind == "text" and own.data == text and not own.is_masked and own.is_final)
      client:send(frame("binary", bytes, CLIENT))
      own = read(client, 20000)
      assert.is_true(own.kind == "binary" and own.data == bytes)
      gateway:wait_log("client text " .. len)
      gateway:wait_log("upstream binary " .. len)
    end
    for _, own in ipairs(frames_of(gateway)) do assert.is_true(own.is_masked) end
    gateway:wait_metrics("messages", function(m) return m.moongate_websocket_messages_total == 28 end)
    finish(client, gateway)
  end))

  it("replaces what it returns a string for, drops what it returns false for", h.test(function()
    local gateway = start [[
      if message.data == "secret" then return false end
      if message.from == "client" then return "<" .. message.data .. ">" end
      if message.kind == "text" then return message.data:upper() end]]
    local client = websocket.connect(gateway)
    say(client, "secret")
    assert.equal("<ABC>", ask(client, "abc").data)
    client:send(frame("binary", "xyz", CLIENT))
    assert.equal("<xyz>", read(client).data)
    assert.equal("<abc>", frames_of(gateway)[1].data)
    say(client, "")
    assert.equal("<>", read(client).data)
    finish(client, gateway)
  end))

  it("joins fragments; control frames pass between them, unseen", h.test(function()
    local gateway = start [[assert(message.data ~= "beat") return message.data .. "!"]]
    local client = websocket.connect(gateway)
    client:send(frame("text", "one", { masked = true, more = true }) .. frame("ping", "beat", CLIENT))
    local own = read(client)
    assert.equal("pong", own.kind)
    assert.equal("beat", own.data)
    client:send(frame("continuation", "", { masked = true, more = true }) .. frame("continuation", "two", CLIENT))
    assert.equal("onetwo!!", read(client).data)
    assert.is_true(frames_of(gateway)[2].is_final)
    finish(client, gateway)
  end))

  it("takes bytes in any pieces, those right behind the heads, too", h.test(function()
    local gateway = start([[return message.data .. "."]], { talk = function(connection)
      connection:send(frame("text", "wel"):sub(1, 1))
      h.pass(20)
      connection:send(frame("text", "wel"):sub(2) .. frame("text", "come"))
      echo(connection)
    end })
    local client = gateway:connect()
    client:send(websocket.UPGRADE .. "\r\n" .. frame("text", "early", CLIENT))
    assert.equal(101, h.read_response(client).status)
    local seen = {}
    for i = 1, 3 do seen[i] = read(client).data end
    table.sort(seen)
    assert.same({ "come.", "early..", "wel." }, seen)
    local bytes = frame("text", "drip", CLIENT)
    for i = 1, #bytes do
      client:send(bytes:sub(i, i))
      h.pass(2)
    end
    assert.equal("drip..", read(client).data)
    finish(client, gateway)
  end))

  it("may wait; the sender is not read meanwhile, the other direction goes on", h.test(function()
    local gateway = start([[
      if message.data == "slow" then moongate.sleep(0.2) end]], { talk = function(connection)
      assert(connection.request)
      for _ = 1, 3 do connection:send(frame("text", "tick")) end
      echo(connection)
    end })
    local client = websocket.connect(gateway)
    say(client, "slow")
    say(client, "next")
    for _ = 1, 3 do assert.equal("tick", read(client).data) end
    assert.equal("slow", read(client).data)
    assert.equal("next", read(client).data)
    finish(client, gateway)
  end))

  it("keeps the memory of a fast sender bounded while it waits", h.test(function()
    local gateway = start([[moongate.sleep(0.3)]])
    local client = websocket.connect(gateway)
    local piece = frame("binary", ("x"):rep(65536), CLIENT)
    for _ = 1, 200 do client:send(piece) end
    h.pass(200)
    local metrics = gateway:metrics()
    assert.is_true(metrics.moongate_buffer_bytes < 600000, tostring(metrics.moongate_buffer_bytes))
    assert.is_true(metrics.moongate_relay_client_bytes_total < 400000)
    client:close()
    gateway:expect_idle()
  end))

  it("keeps it bounded for a client that does not read", h.test(function()
    local gateway = start("", { talk = function(connection)
      for _ = 1, 300 do connection:send(frame("binary", ("y"):rep(100000))) end
      connection:wait_end()
    end })
    local client = websocket.connect(gateway)
    client:pause()
    h.pass(300)
    assert.is_true(gateway:metrics().moongate_buffer_bytes < 1000000)
    client:resume()
    for _ = 1, 300 do assert.equal(100000, #read(client, 20000).data) end
    client:close()
    gateway:expect_idle()
  end))

  it("reads the exchange: request, response, id, vars", h.test(function()
    local gateway = start([[
      local vars = exchange.vars
      vars.count = (vars.count or 0) + 1
      return table.concat({ exchange.request.path, exchange.request.headers["x-own"], exchange.response.status,
        exchange.route, #exchange.id, vars.count, vars.from_access, exchange.response.headers["x-backend"] or "none" }, " ")]],
      { keys = 'access = function(exchange) exchange.vars.from_access = "yes" end, ' ..
        'log = function(exchange) moongate.log.info("logged after " .. exchange.vars.count) end,' })
    local client = websocket.connect(gateway, "X-Own: mine\r\n")
    assert.equal("/chat mine 101 ws 32 2 yes none", ask(client, "a").data)
    assert.equal("/chat mine 101 ws 32 4 yes none", ask(client, "b").data)
    finish(client, gateway)
    gateway:wait_log "logged after 4"
  end))

  it("may read for days: nothing of that stays in the exchange's memory", h.test(function()
    local gateway = start [[
      if message.from == "upstream" then return end
      local headers, text = exchange.request.headers
      for _ = 1, 10000 do text = headers["x-own"] end
      return text .. "|" .. headers.cookie .. "|" .. headers["x-empty"]
    ]]
    local long = ("x"):rep(100)
    local client = websocket.connect(gateway, ("X-Own: %s\r\nX-Own: b\r\nX-Own: c\r\nCookie: a=1\r\nCookie: b=2\r\n" ..
      "X-Empty: \r\nX-Empty: \r\n"):format(long))
    for _ = 1, 3 do assert.equal(long .. ", b, c|a=1; b=2|, ", ask(client, "x").data) end
    finish(client, gateway)
  end))

  it("cannot edit or answer any more, and says so", h.test(function()
    local gateway = start [[
      local _, edit = pcall(function() exchange.request.headers["x"] = "1" end)
      local _, answer = pcall(exchange.respond, exchange, 200)
      local _, body = pcall(exchange.request.body, exchange.request)
      local _, chunks = pcall(exchange.response.chunks, exchange.response)
      return edit .. "|" .. answer .. "|" .. body .. "|" .. chunks]]
    local client = websocket.connect(gateway)
    local text = ask(client, "a").data
    local _, count = text:gsub("this is websocket_frame", "")
    assert.equal(4, count, text)
    finish(client, gateway)
  end))

  it("runs in plugins with their tables, in list order both ways, before the route's own", h.test(function()
    local path = h.write_file [[return { api = 1, version = "1.0.0",
      websocket_frame = function(exchange, message, conf) return message.data .. conf.mark end }]]
    local dir = path:match "^(.*)/"
    os.execute(("mkdir -p %s/plugins/mark && mv %s %s/plugins/mark/handler.lua"):format(dir, path, dir))
    local file = assert(io.open(dir .. "/plugins/mark/schema.lua", "w"))
    file:write 'return { mark = { type = "string" } }'
    file:close()
    local backend = h.backend(websocket.backend(echo))
    local gateway = h.gateway { backend = backend, config = ([[
      local moongate = require "moongate"
      package.path = "%s/?.lua;" .. package.path
      moongate.settings { workers = 1 }
      moongate.listener { port = 0, address = "127.0.0.1" }
      moongate.upstream { name = "backend", endpoints = { "127.0.0.1:%d" } }
      moongate.route { path = "/", backends = "backend", plugins = { { "mark", mark = "1" }, { "mark", mark = "2" } },
        websocket_frame = function(exchange, message) return message.data .. "3" end }]]):format(dir, backend.port) }
    local client = websocket.connect(gateway)
    assert.equal("x123123", ask(client, "x").data)
    client:close()
  end))
end)

describe("message:close", function()
  it("closes both sides with the code and the reason, and ends the function", h.test(function()
    local gateway = start [[
      if message.data == "bad" then
        message:close(4001, "no such words")
        moongate.log.error "not reached"
      end]]
    local client = websocket.connect(gateway)
    assert.equal("fine", ask(client, "fine").data)
    say(client, "bad")
    say(client, "later")
    expect_close(client, 4001, "no such words")
    client:send(close(4001, "", CLIENT))
    client:wait_end()
    client:close()
    gateway:expect_idle()
    local frames = frames_of(gateway)
    assert.equal(4001, frames[2].code)
    assert.equal("no such words", frames[2].reason)
    assert.equal(2, #frames)
  end))

  it("refuses what a Close cannot have, and who is no websocket_frame", h.test(function()
    local gateway = start [[
      kept = kept or message
      local function try(...) return tostring(select(2, pcall(message.close, message, ...))) end
      local task = moongate.spawn(function() return select(2, pcall(message.close, message, 1000)) end)
      moongate.wait_all(task)
      return table.concat({ try(1005), try(999), try(5000), try("x"), try(1000, ("x"):rep(124)), tostring(task.values[1]) }, "\n")]]
    local client = websocket.connect(gateway)
    local lines = {}
    say(client, "x")
    for line in (read(client).data .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
    for i = 1, 4 do assert.is_not_nil(lines[i]:find("takes a code", 1, true), lines[i]) end
    assert.is_not_nil(lines[5]:find("at most 123 bytes", 1, true), lines[5])
    assert.is_not_nil(lines[6]:find("not by a task", 1, true), lines[6])
    client:close()
    gateway:expect_idle()
  end))
end)

describe("an error", function()
  it("closes with 1011 and is logged with its traceback", h.test(function()
    local gateway = start [[
      local function inner() error("cannot judge " .. message.data) end
      inner()]]
    gateway:expect_log "cannot judge this"
    local client = websocket.connect(gateway)
    say(client, "this")
    expect_close(client, 1011)
    client:send(close(1011, "", CLIENT))
    client:wait_end()
    client:close()
    gateway:wait_log "websocket_frame of request %x+ failed: [^\n]*gateway.lua:%d+: cannot judge this[^\n]*inner"
    assert.equal(1011, frames_of(gateway)[1].code)
    gateway:wait_metrics("an error", function(m) return m.moongate_script_errors_total == 1 end)
    gateway:expect_idle()
  end))

  it("is what a wrong value is, and a text that is not UTF-8 any more", h.test(function()
    for _, case in ipairs { { "return 12", "websocket_frame returns nil" }, { "return true", "websocket_frame returns nil" },
      { [[return "\255"]], "not UTF%-8" } } do
      local gateway = start(case[1])
      gateway:expect_log(case[2])
      local client = websocket.connect(gateway)
      say(client, "x")
      expect_close(client, 1011)
      client:close()
      gateway:expect_idle()
      gateway:wait_log(case[2])
    end
  end))
end)

describe("a peer that breaks the protocol", function()
  local cases = {
    { "sends an unmasked frame", frame("text", "x"), 1002 },
    { "sets a reserved bit", frame("text", "x", { masked = true, first = 193 }), 1002 },
    { "sends a reserved opcode", frame("text", "x", { masked = true, first = 131 }), 1002 },
    { "continues what was not begun", frame("continuation", "x", CLIENT), 1002 },
    { "begins another message between fragments",
      frame("text", "x", { masked = true, more = true }) .. frame("text", "y", CLIENT), 1002 },
    { "fragments a ping", frame("ping", "x", { masked = true, more = true }), 1002 },
    { "sends a long ping", frame("ping", ("x"):rep(126), CLIENT), 1002 },
    { "sends 2^63 bytes", "\130\255\128\0\0\0\0\0\0\0mask", 1002 },
    { "sends a Close of one byte", frame("close", "x", CLIENT), 1002 },
    { "sends a Close with 1005", close(1005, "", CLIENT), 1002 },
    { "sends a text that is not UTF-8", frame("text", "ab\255", CLIENT), 1007 },
    { "sends more than max_message", frame("binary", ("x"):rep(1001), CLIENT), 1009 },
    { "sends more than max_message in fragments", frame("binary", ("x"):rep(900), { masked = true, more = true }) ..
      frame("continuation", ("x"):rep(101), CLIENT), 1009 },
    { "announces more than max_message", "\130\255\0\0\1\0\0\0\0\0mask", 1009 },
  }
  for _, case in ipairs(cases) do
    it(case[1] .. ": " .. case[3] .. ", the other side is told that it is over", h.test(function()
      local gateway = start([[moongate.log.info "seen"]], { keys = "websocket = { max_message = 1000 }," })
      local client = websocket.connect(gateway)
      client:send(case[2])
      expect_close(client, case[3])
      client:send(close(case[3], "", CLIENT))
      client:close()
      gateway:expect_idle()
      local frames = frames_of(gateway)
      assert.equal(1, #frames)
      assert.equal(1001, frames[1].code)
      assert.is_nil(gateway:log():find " seen")
    end))
  end

  it("may be the upstream", h.test(function()
    local gateway = start("", { talk = function(connection)
      connection:send(frame("text", "x", CLIENT))
      connection.frames = { read(connection) }
      connection:wait_end()
    end })
    local client = websocket.connect(gateway)
    expect_close(client, 1001)
    client:close()
    gateway:expect_idle()
    assert.equal(1002, frames_of(gateway)[1].code)
  end))
end)

describe("a tunnel with websocket_frame", function()
  it("agrees on no extension", h.test(function()
    local gateway = start ""
    local client = websocket.connect(gateway, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
    assert.is_nil(gateway.backend.connections[1].request.headers["sec-websocket-extensions"])
    client:close()
    gateway:expect_idle()
  end))

  it("is refused where the backend agrees on one, or speaks something else", h.test(function()
    for _, head in ipairs { websocket.SWITCH .. "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n" } do
      local gateway = start("", { backend = h.backend(h.once(head)) })
      local response = gateway:request(websocket.UPGRADE .. "\r\n")
      assert.equal(502, response.status)
      assert.is_not_nil(response.body:find("websocket_frame cannot read", 1, true))
      gateway:expect_idle()
    end
  end))

  it("leaves plain requests of its route alone", h.test(function()
    local gateway = start("", { backend = h.backend() })
    assert.equal("you asked for /x\n", gateway:get("/x").body)
  end))

  it("is closed with 1001 by a drain and by timeouts.idle, a function that waits or not", h.test(function()
    for _, body in ipairs { "", "moongate.sleep(60)" } do
      local gateway = start(body, { keys = "timeouts = { idle = 0.2 }," })
      local client = websocket.connect(gateway)
      say(client, "x")
      if body == "" then read(client) end
      expect_close(client, 1001)
      client:send(close(1001, "", CLIENT))
      client:wait_end()
      client:close()
      gateway:expect_idle()

      gateway = start(body, { settings = { timeouts = { drain = 0.5 } } })
      client = websocket.connect(gateway)
      say(client, "x")
      if body == "" then read(client) end
      gateway:wait_metrics("a message", function(m) return m.moongate_websocket_messages_total >= 1 end)
      gateway:signal()
      expect_close(client, 1001)
      client:wait_end()
      gateway:wait_exit(3000)
      assert.equal(0, gateway.code)
    end
  end))

  it("is known in /connections and in the metrics", h.test(function()
    local gateway = start ""
    local client = websocket.connect(gateway)
    gateway:wait_metrics("a WebSocket", function(m)
      return m.moongate_websockets_live == 1 and m.moongate_tunnels_live == 1 and m.moongate_exchanges_live == 1
    end)
    local rows = gateway:ask_json "/connections"
    local row = (rows.connections or rows)[1]
    assert.equal("websocket", row.state)
    assert.equal("ws", row.route)
    client:close()
    gateway:expect_idle()
  end))

  it("ends when either side goes away, a function that waits or not", h.test(function()
    for _, body in ipairs { "", "moongate.sleep(0.1)" } do
      for _, how in ipairs { "close", "reset" } do
        local gateway = start(body)
        local client = websocket.connect(gateway)
        say(client, "x")
        client[how](client)
        gateway.backend.connections[1]:wait_end()
        gateway:expect_idle()
        gateway = start(body, { talk = function(connection)
          read(connection)
          connection[how](connection)
        end })
        client = websocket.connect(gateway)
        say(client, "x")
        client:wait_end()
        client:close()
        gateway:expect_idle()
      end
    end
  end))

  it("passes a Close on as it is, from either side", h.test(function()
    local gateway = start("", { talk = function(connection)
      connection:send(frame("text", "last words") .. close(4999, "ciao") .. frame("text", "too late"))
      connection.frames = { read(connection) }
      connection:flush()
    end })
    local client = websocket.connect(gateway)
    assert.equal("last words", read(client).data)
    expect_close(client, 4999, "ciao")
    client:send(close(4999, "", CLIENT))
    client:wait_end()
    client:close()
    gateway:expect_idle()
    assert.equal(4999, frames_of(gateway)[1].code)
  end))

  it("keeps its function over a reload of other code, for as long as that generation lives", h.test(function()
    local gateway = start [[return message.data .. " old"]]
    local client = websocket.connect(gateway)
    assert.equal("a old old", ask(client, "a").data)
    gateway:reload_script [[moongate.route { name = "ws", path = "/", backends = "backend",
      websocket_frame = function(exchange, message) return message.data .. " new" end }]]
    assert.equal("b old old", ask(client, "b").data)
    local second = websocket.connect(gateway)
    assert.equal("c new new", ask(second, "c").data)
    for i = 1, 5 do -- more generations than live at once
      gateway:reload_script(("-- %d\n"):format(i) .. [[moongate.route { name = "ws", path = "/", backends = "backend",
        access = function() end }]])
    end
    gateway:expect_log "this generation of the script has ended"
    say(client, "d")
    expect_close(client, 1012)
    client:close()
    second:close()
    gateway:expect_idle()
  end))

  it("costs nothing and is spliced without the phase", h.test(function()
    local gateway = h.script([[moongate.route { path = "/", backends = "backend", access = function() end }]],
      { backend = h.backend(websocket.backend(echo)) })
    local client = websocket.connect(gateway)
    client:send(frame("binary", ("x"):rep(3000000), CLIENT))
    assert.equal(3000000, #read(client, 20000).data)
    local metrics = gateway:metrics()
    assert.equal(0, metrics.moongate_websocket_messages_total)
    assert.equal(0, metrics.moongate_exchanges_live)
    assert.is_true(metrics.moongate_spliced_bytes_total > 1000000)
    client:close()
  end))
end)

describe("real peers", function()
  local PYTHON = "/usr/bin/python3"
  local SERVER = [[
import asyncio, websockets
async def echo(ws):
    print("extensions", [e.name for e in ws.extensions], flush=True)
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
]]
  local CLIENT_SCRIPT = [[
import asyncio, os, sys, websockets
async def main():
    async with websockets.connect("ws://127.0.0.1:" + sys.argv[1] + "/chat", max_size=None) as ws:
        for size in (0, 1, 125, 126, 65535, 65536, 1000000):
            for message in (os.urandom(size), "\u00e4" * (size // 2)):
                await ws.send(message)
                answer = await ws.recv()
                assert answer == message, (size, len(answer))
        async def pieces():
            for i in range(20):
                yield "piece %d " % i
        await ws.send(pieces())
        assert await ws.recv() == "".join(["piece %d " % i for i in range(20)])
        pong = await ws.ping()
        await pong
        await ws.send("go away")
        try:
            await ws.recv()
        except websockets.ConnectionClosed as closed:
            print("closed", closed.rcvd.code, closed.rcvd.reason, flush=True)
asyncio.run(main())
]]

  it("talk through a function, uncompressed", h.test(function()
    local probe = h.spawn(PYTHON, { args = { "-c", "import websockets" } })
    if not probe or probe:wait_exit() ~= 0 then
      pending "python3-websockets is missing"
      return
    end
    local server = h.spawn(PYTHON, { args = { "-u", "-c", SERVER } })
    local port = server:wait_output "port (%d+)"
    local gateway = h.script([[moongate.upstream { name = "real", endpoints = { "127.0.0.1:]] .. port .. [[" } }
      moongate.route { path = "/", backends = "real", websocket_frame = function(exchange, message)
        if message.data == "go away" then message:close(4000, "as you wish") end
        moongate.sleep(0.001)
      end }]])
    local client = h.spawn(PYTHON, { args = { "-u", "-c", CLIENT_SCRIPT, tostring(gateway.port) } })
    assert.equal(0, client:wait_exit(20000), client.output)
    assert.is_not_nil(client.output:find("closed 4000 as you wish", 1, true), client.output)
    server:wait_output "extensions (%[%])"
    gateway:expect_idle()
  end, 40000))
end)

describe("a configuration", function()
  it("says what is wrong with max_message", h.test(function()
    local path = h.write_file([[local moongate = require "moongate"
      moongate.listener { port = 0 }
      moongate.upstream { name = "b", endpoints = { "127.0.0.1:1" } }
      moongate.route { path = "/", backends = "b", websocket = { max_message = 0 } }]])
    local answer = h.exec { "check", path }
    assert.equal(1, answer.code)
    assert.is_not_nil((answer.stderr .. answer.stdout):find("max_message", 1, true))
  end))
end)
