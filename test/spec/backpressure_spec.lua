-- Who does not read is not sent to, who does not send is not waited for at the cost of others: memory is bounded, the faster
-- side is really stopped, and a paused connection costs no CPU.
local h = require "test.support.harness"

local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local PIECE = ("x"):rep(65536)
local MEMORY_MAX_KB = 1024
local UNREAD_MAX = 1048576 -- what is taken for a client whose receive buffer is 64 KiB

-- The most that this machine's kernel gives a socket's buffer: the third number of net.ipv4.tcp_rmem and tcp_wmem.
local function buffer_max(name, default)
  local file = io.open("/proc/sys/net/ipv4/" .. name)
  local text = file and file:read "*l" or ""
  if file then file:close() end
  return tonumber(text:match "(%d+)%s*$") or default
end

-- What may be on the way: a sending and a receiving buffer on either side of the gateway; its pipe and queue in between.
local IN_FLIGHT_MAX = 2 * (buffer_max("tcp_rmem", 6291456) + buffer_max("tcp_wmem", 4194304)) + 2 * 1048576
-- More than that by a half, in whole pieces: what is taken of it without a reader is taken for want of a bound.
local WHOLE = math.ceil(IN_FLIGHT_MAX * 1.5 / #PIECE) * #PIECE

-- Sends WHOLE bytes of body as fast as they are taken; connection.sent counts.
local function send_whole(connection)
  connection:read_request()
  connection:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(WHOLE))
  for _ = 1, WHOLE / #PIECE do
    connection:send(PIECE)
    h.loop.wait(connection.changed, 30000, "room", function()
      return connection.sent == connection.queued or connection:has_ended() or connection.write_failure
    end)
    if connection:has_ended() or connection.write_failure then return end
  end
  connection:wait_end(30000)
end

-- Waits until counting() has stood still for a while; gives it.
local function settled(counting)
  local last, since = counting(), h.now_ms()
  while h.now_ms() - since < 300 do
    h.pass(20)
    local now = counting()
    if now ~= last then last, since = now, h.now_ms() end
  end
  return last
end

for _, path in ipairs { { "spliced", true }, { "copied", false } } do
  local settings = { splice = path[2], timeouts = { body = 60, response = 60 } }

  describe("back-pressure, " .. path[1] .. ":", function()
    it("a client that does not read stops the backend, in bounded memory", h.test(function()
      local backend = h.backend(send_whole)
      local gateway = h.gateway { backend = backend, settings = settings }
      local before = gateway:rss_kb()
      local client = gateway:connect { is_paused = true, receive_buffer = 65536 }
      client:send(GET)
      local connection = backend:wait_connections(1)
      local sent = settled(function() return connection.sent end)
      assert.is_true(sent < IN_FLIGHT_MAX, sent .. " bytes were taken")
      if path[2] then -- the kernel's queue for the client, its own buffer, and a pipe; it would queue megabytes if it were let
        local taken = gateway:metrics().moongate_spliced_bytes_total
        assert.is_true(taken < UNREAD_MAX, taken .. " bytes were taken off the backend's connection")
      end
      local grown = gateway:rss_kb() - before
      assert.is_true(grown < MEMORY_MAX_KB * h.loop.scale, grown .. " KiB more memory")
      -- And goes on where it stopped.
      local seen = 0
      client.on_bytes = function(bytes) seen = seen + #bytes end
      client:resume()
      h.loop.wait(client.changed, 20000, "the rest", function() return seen >= WHOLE end)
      client:close()
      gateway:expect_quiet()
    end, 60000))

    it("a backend that does not read stops the client, in bounded memory", h.test(function()
      local backend = h.backend(function(connection)
        h.loop.wait(connection.changed, 30000, "the end", function() return connection.is_done end)
      end, { is_paused = true })
      local gateway = h.gateway { backend = backend, settings = settings }
      local before = gateway:rss_kb()
      local client = gateway:connect()
      client:send(("POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(WHOLE))
      for _ = 1, WHOLE / #PIECE do client:send(PIECE) end
      backend:wait_connections(1)
      local sent = settled(function() return client.sent end)
      assert.is_true(sent < IN_FLIGHT_MAX, sent .. " bytes were taken")
      local grown = gateway:rss_kb() - before
      assert.is_true(grown < MEMORY_MAX_KB * h.loop.scale, grown .. " KiB more memory")
      local connection = backend.connections[1]
      local seen = 0
      connection.on_bytes = function(bytes) seen = seen + #bytes end
      connection:resume()
      h.loop.wait(connection.changed, 20000, "the rest", function() return seen >= WHOLE end)
      connection.is_done = true
      connection.changed:fire()
      client:close()
      gateway:expect_quiet()
    end, 60000))

    it("many clients that do not read share nothing but their bounds", h.test(function()
      local backend = h.backend(send_whole)
      local gateway = h.gateway { backend = backend, settings = settings }
      local before = gateway:rss_kb()
      for _ = 1, 50 do gateway:connect({ is_paused = true, receive_buffer = 16384 }):send(GET) end
      backend:wait_connections(50)
      settled(function()
        local sum = 0
        for _, connection in ipairs(backend.connections) do sum = sum + connection.sent end
        return sum
      end)
      local grown = gateway:rss_kb() - before
      assert.is_true(grown < 50 * 192 * h.loop.scale, grown .. " KiB more memory for 50 clients")
    end, 60000))
  end)
end

-- Real seconds: the window of the body rate is 10 s at the most, and two must pass before a stalled peer is given up (30 s).
it("a spliced upload is not slow because its backend is", h.test(function()
  local backend = h.backend(function(connection)
    h.pass(21000)
    connection:resume()
    connection:read_request(20000)
    connection:send(h.http1.response("200 OK", "at last"))
    connection:wait_end(20000)
  end, { is_paused = true })
  local gateway = h.gateway { backend = backend }
  local client = gateway:connect()
  client:send(("POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(#PIECE * 512))
  client:send(PIECE:rep(512))
  local response = h.read_response(client, { ms = 40000 })
  assert.equal(200, response.status, response.body)
end, 60000))

-- CPU of one second of doing nothing.
local function ticks_of_a_second(gateway)
  h.pass(200)
  local before = gateway:cpu_ticks()
  h.pass(1000)
  return gateway:cpu_ticks() - before
end

describe("what waits costs no CPU:", function()
  it("a client that does not read", h.test(function()
    local backend = h.backend(send_whole)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect { is_paused = true, receive_buffer = 65536 }
    client:send(GET)
    local connection = backend:wait_connections(1)
    settled(function() return connection.sent end)
    assert.is_true(ticks_of_a_second(gateway) < 2)
  end))

  it("a client that ended its side and whose response does not come", h.test(function()
    local backend = h.backend(h.once "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET)
    client:read_until "hello"
    client:shutdown()
    assert.is_true(ticks_of_a_second(gateway) < 2)
  end))

  it("a backend that half closed a tunnel", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
      connection:flush()
      connection:shutdown()
      connection:wait_end(20000)
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    assert.equal(101, h.read_response(client).status)
    assert.is_true(ticks_of_a_second(gateway) < 2)
  end))

  it("pipelined requests behind a slow one", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend, settings = { timeouts = { drain = 0.2 } } }
    local client = gateway:connect()
    client:send(GET:rep(10000))
    backend:wait_requests(1)
    assert.is_true(ticks_of_a_second(gateway) < 2)
  end))

  it("idle connections on both sides", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    for _ = 1, 100 do
      local client = gateway:connect()
      client:send(GET)
      assert.equal(200, h.read_response(client).status)
    end
    assert.is_true(ticks_of_a_second(gateway) < 2)
  end))
end)
