-- Attacks by HTTP/2 (reference A40 to A52), with raw frames: what is worthless ends its connection and is counted by its reason,
-- costs no memory to speak of, reaches no backend, and troubles nobody else.
local h = require "test.support.harness"
local http2 = require "test.support.http2"
local websocket = require "test.support.websocket"

local HEADERS, DATA, RST = http2.HEADERS, http2.DATA, http2.RST_STREAM
local CALM = http2.ENHANCE_YOUR_CALM
local WHOLE = http2.END_HEADERS + http2.END_STREAM

local function connect(gateway, options)
  return http2.connect(gateway:connect(options), options)
end

local function ended(gateway, reason)
  return gateway:metrics()[('moongate_h2_ended_total{reason="%s"}'):format(reason)]
end

-- The connection ends, by ENHANCE_YOUR_CALM or the codes given, for this reason, and others are served.
local function expect_ended(gateway, client, reason, codes)
  client:finish(10000)
  if client.goaway then
    local is_fine = false
    for _, code in ipairs(codes or { CALM }) do is_fine = is_fine or client.goaway.code == code end
    assert.is_true(is_fine, "GOAWAY with " .. client.goaway.code)
  end
  gateway:wait_metrics("the reason " .. reason, function(metrics)
    return metrics[('moongate_h2_ended_total{reason="%s"}'):format(reason)] == 1
  end)
  assert.equal(200, gateway:get("/").status)
end

-- Sends text `count` times in blocks; stops when the connection has ended. Bytes sent.
local function flood(client, text, count)
  local per = math.max(1, math.floor(32768 / #text))
  local block = text:rep(per)
  for _ = 1, math.ceil(count / per) do
    if client.stream:has_ended() or client.stream.write_failure then break end
    client.stream:send(block)
    h.loop.try_wait(client.stream.changed, 2000, function()
      return client.stream.sent == client.stream.queued or client.stream.write_failure or client.stream:has_ended()
    end)
    if client.stream.sent < client.stream.queued then break end -- it does not read any more
  end
  return client.stream.sent
end

-- fn may add to the gateway's memory ten times what it sends, 64 KiB a connection, 16 KiB a stream (the promise of the issue).
-- fn gives bytes, connections, streams. Allocators of sanitizers keep what was freed, so there it is only run.
local SLACK_KB = 1024
local function expect_small(gateway, fn)
  for _ = 1, 3 do assert.equal(200, gateway:get("/").status) end
  local before = gateway:rss_kb()
  local bytes, connections, streams = fn()
  local grown = gateway:rss_kb() - before
  local bound = 10 * bytes / 1024 + 64 * connections + 16 * streams + SLACK_KB
  if os.getenv "MOONGATE_BUILD" == nil or os.getenv "MOONGATE_BUILD" == "release" then
    assert.is_true(grown <= bound, ("%d KiB for %d bytes, at most %d"):format(grown, bytes, bound))
  end
end

describe("h2 attacks, resets:", function()
  it("requests cancelled at once reach no backend and end the connection", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    local out = {}
    for i = 0, 999 do
      out[#out + 1] = http2.frame(HEADERS, WHOLE, 2 * i + 1, http2.head())
      out[#out + 1] = http2.frame(RST, 0, 2 * i + 1, http2.u32(http2.CANCEL))
    end
    client.stream:send(table.concat(out))
    client:finish()
    assert.equal(CALM, client.goaway.code)
    assert.equal(1, ended(gateway, "resets"))
    assert.is_true(#backend.requests <= 5)
    assert.equal(200, gateway:get("/").status)
    gateway:expect_quiet()
  end))

  it("requests cancelled under way cost one upstream request each, cancelled too, and end the connection", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    for i = 0, 399 do
      if client.stream:has_ended() then break end
      client:request(2 * i + 1)
      if not client:sync() then break end
      client:send(RST, 0, 2 * i + 1, http2.u32(http2.CANCEL))
    end
    client:finish()
    assert.equal(CALM, client.goaway.code)
    assert.is_true(#backend.requests >= 50 and #backend.requests <= 300, #backend.requests .. " requests")
    for _, connection in ipairs(backend.connections) do connection:wait_end() end
    assert.equal(1, ended(gateway, "resets"))
    gateway:expect_quiet()
  end, 20000))

  it("a few cancelled requests are in order", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = connect(gateway)
    for i = 0, 59 do
      client:request(2 * i + 1):send(RST, 0, 2 * i + 1, http2.u32(http2.CANCEL))
    end
    client:request(1001)
    assert.equal(200, client:response(1001).status)
    assert.is_nil(client.goaway)
  end))

  -- Each makes us reset the stream: frames that follow an open request.
  local provocations = {
    { "a window update of 0", function(id) return http2.frame(http2.WINDOW_UPDATE, 0, id, http2.u32(0)) end },
    { "a window that overflows", function(id) return http2.frame(http2.WINDOW_UPDATE, 0, id, http2.u32(2147483647)) end },
    { "a PRIORITY of wrong length", function(id) return http2.frame(http2.PRIORITY, 0, id, "abcd") end },
    { "more body than Content-Length", function(id) return http2.frame(DATA, 0, id, "123456") end },
    { "less body than Content-Length", function(id) return http2.frame(DATA, 1, id, "1") end },
    { "trailers without an end", function(id) return http2.frame(HEADERS, 4, id, http2.block { { "a", "b" } }) end },
    { "a pseudo-field in trailers", function(id) return http2.frame(HEADERS, WHOLE, id, http2.block { { ":path", "/" } }) end },
  }
  for _, case in ipairs(provocations) do
    it("resets that " .. case[1] .. " provokes count as well", h.test(function()
      local backend = h.backend(h.once())
      local gateway = h.gateway { backend = backend, routes = { { path = "/", backends = "backend" }, { path = "/ok", backends = "echo" } },
        upstreams = { backend = { backend:address() }, echo = { "builtin:echo" } } }
      local client = connect(gateway)
      for i = 0, 299 do
        if client.stream:has_ended() then break end
        client:request(2 * i + 1, { [":method"] = "POST" }, { { "content-length", "5" } }, { open = true })
        if i % 2 == 0 and not client:sync() then break end
        client.stream:send(case[2](2 * i + 1))
      end
      client:finish(10000)
      local metrics = gateway:metrics()
      assert.equal(1, metrics['moongate_h2_ended_total{reason="resets"}'] + metrics['moongate_h2_ended_total{reason="protocol"}'])
      for _, connection in ipairs(backend.connections) do connection:wait_end() end
      assert.equal(200, gateway:get("/ok").status)
      gateway:expect_quiet()
    end, 30000))
  end
end)

describe("h2 attacks, those who come back:", function()
  -- How many requests, each cancelled when it is under way, until the connection is ended; at most `most`.
  local function resets(client, most)
    for i = 0, most - 1 do
      client:request(2 * i + 1):send(RST, 0, 2 * i + 1, http2.u32(http2.CANCEL))
      if not client:sync() then return i + 1 end
    end
    return most
  end

  local function flood_until_ended(client)
    local out = {}
    for i = 0, 299 do
      out[#out + 1] = http2.frame(HEADERS, WHOLE, 2 * i + 1, http2.head()) .. http2.frame(RST, 0, 2 * i + 1, http2.u32(http2.CANCEL))
    end
    client.stream:send(table.concat(out))
    client:finish()
    assert.equal(CALM, client.goaway.code)
  end

  it("have a tenth of the allowance for a while, and are served", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    flood_until_ended(connect(gateway))
    local again = connect(gateway)
    again:request(1001)
    assert.equal(200, again:response(1001).status)
    local count = resets(connect(gateway), 100)
    assert.is_true(count >= 9 and count <= 40, "ended after " .. count)
    assert.equal(60, resets(connect(gateway, { source = "127.0.0.2" }), 60)) -- who is somebody else is not meant
    again = connect(gateway)
    h.pass(1500) -- it fills with time, as ever
    assert.equal(60, resets(again, 60))
  end, 20000))

  it("after a plain mistake are not meant", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = connect(gateway)
    client:data(1, "of no stream")
    client:finish()
    assert.equal(1, ended(gateway, "protocol"))
    assert.equal(60, resets(connect(gateway), 60))
  end))
end)

describe("h2 attacks, header blocks:", function()
  it("a block in endless CONTINUATION frames ends the connection", h.test(function()
    local payloads = { [""] = "continuations", [http2.field("x-a", ("b"):rep(4000))] = "continuations",
      [http2.field("x-a", "b"):rep(2000)] = "fields" }
    for payload, reason in pairs(payloads) do
      local backend = h.backend()
      local gateway = h.gateway { backend = backend }
      expect_small(gateway, function()
        local client = connect(gateway)
        client:send(HEADERS, http2.END_STREAM, 1, http2.head())
        local bytes = flood(client, http2.frame(http2.CONTINUATION, 0, 1, payload), 20000)
        expect_ended(gateway, client, reason)
        return bytes, 1, 1
      end)
      for _, request in ipairs(backend.requests) do assert.equal("/", request.target) end
      gateway:stop()
    end
  end, 30000))

  it("a block that does not end has the time of a head", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { request_head = 0.3 } } }
    local client = connect(gateway)
    client:send(HEADERS, http2.END_STREAM, 1, http2.head())
    h.takes(250, 900, function() client:finish() end)
    assert.equal(CALM, client.goaway.code)
    gateway:expect_quiet()
  end))

  it("a preface that does not go on has the time of a head", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { request_head = 0.3, idle = 30 } } }
    local client = http2.connect(gateway:connect(), { bare = true })
    client.stream:send(http2.PREFACE)
    h.takes(250, 900, function() client:finish() end)
    gateway:expect_quiet()
  end))

  it("references of one byte to a long field are a 431, and many of them the end", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    expect_small(gateway, function()
      local bytes, connections = 0, 10
      for _ = 1, connections do
        local client = connect(gateway, { settings = http2.setting(4, 0) })
        client:window(0, 1000000)
        local long = http2.head() .. http2.field("x-long", ("v"):rep(3900), true)
        client:send(HEADERS, WHOLE, 1, long):window(1, 100)
        assert.equal(200, client:response(1).status)
        bytes = bytes + #long
        for i = 1, 100 do
          local block = http2.head() .. http2.indexed(62):rep(20)
          client:send(HEADERS, WHOLE, 2 * i + 1, block):window(2 * i + 1, 100)
          assert.equal(431, client:response(2 * i + 1).status)
          bytes = bytes + #block
        end
        client:send(HEADERS, WHOLE, 301, http2.head() .. http2.indexed(62):rep(16000))
        client:finish()
        assert.equal(CALM, client.goaway.code)
        bytes = bytes + 16000
      end
      return bytes, connections, 100
    end)
    assert.equal(10, ended(gateway, "fields"))
    local with_long = 0
    for _, request in ipairs(backend.requests) do with_long = with_long + (request.headers["x-long"] and 1 or 0) end
    assert.equal(10, with_long)
  end, 30000))

  it("references within the limits are a 431 where a head is little but repetition", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:send(HEADERS, WHOLE, 1, http2.head() .. http2.field("x-long", ("v"):rep(3900), true))
    assert.equal(200, client:response(1).status)
    client:send(HEADERS, WHOLE, 3, http2.head() .. http2.indexed(62))
    assert.equal(200, client:response(3).status)
    assert.equal(3900, #backend.requests[2].headers["x-long"])
    client:send(HEADERS, WHOLE, 5, http2.head() .. http2.indexed(62):rep(7))
    assert.equal(431, client:response(5).status)
    -- what comes as long as it is may be long, in whatever pieces
    local fields = {}
    for i = 1, 20 do fields[i] = { "x-" .. i, ("v"):rep(1000) } end
    local block = http2.head(nil, fields)
    client:send(HEADERS, http2.END_STREAM, 7, block:sub(1, 5)):send(http2.CONTINUATION, 0, 7, block:sub(6, 10))
    client:send(http2.CONTINUATION, 0, 7, block:sub(11, 12000)):send(http2.CONTINUATION, 4, 7, block:sub(12001))
    assert.equal(200, client:response(7).status)
    assert.equal(3, #backend.requests)
    assert.is_nil(client.goaway)
  end))

  it("crumbs of cookies are counted, and those within bounds joined", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    local crumbs = {}
    for i = 1, 200 do crumbs[i] = { "cookie", "c" .. i .. "=v" } end
    crumbs[201] = { "x-between", "1" }
    crumbs[202] = { "cookie", "last=1" }
    client:request(1, nil, crumbs)
    assert.equal(200, client:response(1).status)
    assert.is_truthy(backend.requests[1].headers.cookie:find "^c1=v; c2=v; .*; c200=v; last=1$")
    assert.equal("1", backend.requests[1].headers["x-between"])
    for i = 1, 300 do crumbs[i] = { "cookie", "a" } end
    client:request(3, nil, crumbs)
    assert.equal(431, client:response(3).status)
    -- empty ones by reference: the bomb of 2026
    client:send(HEADERS, WHOLE, 5, http2.head() .. http2.field("cookie", "", true) .. http2.indexed(62):rep(400))
    assert.equal(431, client:response(5).status)
    client:send(HEADERS, WHOLE, 7, http2.head() .. http2.indexed(62):rep(16000))
    client:finish()
    assert.equal(CALM, client.goaway.code)
    assert.equal(1, ended(gateway, "fields"))
    assert.equal(1, #backend.requests)
  end))

  it("too many fields, or too long ones, are a 431, as in HTTP/1.1", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    local many = {}
    for i = 1, 200 do many[i] = { "x-" .. i, "v" } end
    client:request(1, nil, many)
    assert.equal(431, client:response(1).status)
    local block = http2.head(nil, { { "x-long", ("v"):rep(33000) } })
    client:send(HEADERS, http2.END_STREAM, 3, block:sub(1, 16384))
    client:send(http2.CONTINUATION, 0, 3, block:sub(16385, 32768)):send(http2.CONTINUATION, 4, 3, block:sub(32769))
    assert.equal(431, client:response(3).status)
    client:request(5, { [":path"] = "/" .. ("p"):rep(17000) }, nil)
    client:finish()
    assert.equal(0, #backend.requests)
  end))

  it("a table size, or a reference, that cannot be is a connection error", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    for i, block in ipairs { http2.indexed(200), "\128", "\63\225\255\255\255\127" .. http2.head(), "\255\255\255\255\255\255" } do
      local client = connect(gateway)
      client:send(HEADERS, WHOLE, 1, block)
      client:finish()
      assert.is_true(client.goaway.code ~= http2.NO_ERROR)
      assert.equal(i, ended(gateway, "protocol"))
    end
  end))
end)

describe("h2 attacks, frames that carry nothing:", function()
  local floods = {
    { "SETTINGS", http2.frame(http2.SETTINGS, 0, 0) },
    { "SETTINGS with values", http2.frame(http2.SETTINGS, 0, 0, http2.setting(1, 0) .. http2.setting(1, 4096)) },
    { "PING", http2.frame(http2.PING, 0, 0, "12345678") },
    { "PING answers", http2.frame(http2.PING, 1, 0, "12345678") },
    { "PRIORITY", http2.frame(http2.PRIORITY, 0, 1001, "\0\0\0\0\1") },
    { "WINDOW_UPDATE", http2.frame(http2.WINDOW_UPDATE, 0, 0, http2.u32(1)) },
    { "frames of unknown kinds", http2.frame(77, 0, 0) },
    { "empty DATA", http2.frame(DATA, 0, 1), true },
    { "DATA of padding alone", http2.frame(DATA, http2.PADDED, 1, "\3\0\0\0"), true },
    { "resets of a stream that is over", http2.frame(RST, 0, 1, http2.u32(8)), true, "resets" },
  }
  for _, case in ipairs(floods) do
    it(case[1] .. " by the hundred thousand end the connection", h.test(function()
      local backend = h.backend(h.each(function(request)
        return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " .. request.method .. "\r\n\r\n"
      end))
      local gateway = h.gateway { backend = backend }
      expect_small(gateway, function()
        local client = connect(gateway, { is_paused = true })
        if case[3] then client:request(1, { [":method"] = "POST" }, nil, { open = true }) end
        local bytes = flood(client, case[2], 100000)
        client.stream:resume()
        expect_ended(gateway, client, case[4] or "control", { CALM, http2.STREAM_CLOSED })
        return bytes, 1, 1
      end)
      gateway:expect_quiet()
    end, 30000))
  end

  it("more than 32 SETTINGS in a frame end the connection", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = connect(gateway)
    client:send(http2.SETTINGS, 0, 0, http2.setting(6, 100):rep(33))
    client:finish()
    assert.is_true(client.goaway.code ~= http2.NO_ERROR)
    assert.equal(200, gateway:get("/").status)
  end))

  it("who moves data may ping and open windows as often as it takes", h.test(function()
    local size = 4194304
    local backend = h.backend(h.always("HTTP/1.1 200 OK\r\nContent-Length: " .. size .. "\r\n\r\n" .. ("x"):rep(size)))
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1)
    local frames = 0
    client:until_(function()
      local known = client.streams[1]
      if known and known.body_len > (client.seen or 0) then
        local len = known.body_len - (client.seen or 0)
        client.seen = known.body_len
        client:window(0, len):window(1, len):send(http2.PING, 0, 0, "pingping")
        frames = frames + 1
      end
      return known and known.ended
    end, 20000)
    assert.equal(size, client.streams[1].body_len)
    assert.is_true(frames > 200)
    assert.is_nil(client.goaway)
  end, 30000))
end)

describe("h2 attacks, clients that do not take their responses:", function()
  local size = 10485760
  local function big_backend()
    return h.backend(h.each(function(request)
      if request.target ~= "/big" then return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" end
      return "HTTP/1.1 200 OK\r\nContent-Length: " .. size .. "\r\n\r\n" .. ("x"):rep(size)
    end))
  end

  it("a hundred responses without a window cost a buffer each at the most", h.test(function()
    local gateway = h.gateway { backend = big_backend() }
    expect_small(gateway, function()
      local client = connect(gateway, { settings = http2.setting(4, 0) })
      for i = 0, 99 do client:request(2 * i + 1, { [":path"] = "/big" }) end
      client:until_(function()
        for i = 0, 99 do if not (client.streams[2 * i + 1] or {}).status then return false end end
        return true
      end, 20000)
      client:sync()
      return 100 * 60, 1, 100
    end)
    assert.equal(200, gateway:get("/").status)
  end, 60000))

  it("a hundred responses whose windows end where it hurts cost no more", h.test(function()
    local gateway = h.gateway { backend = big_backend() }
    for _, window in ipairs { 1, 8100, 8192, 20000 } do
      expect_small(gateway, function()
        local client = connect(gateway, { settings = http2.setting(4, window) })
        client:window(0, 100 * window)
        for i = 0, 99 do client:request(2 * i + 1, { [":path"] = "/big" }) end
        client:until_(function()
          for i = 0, 99 do if (client.streams[2 * i + 1] or { body_len = 0 }).body_len < window then return false end end
          return true
        end, 20000)
        client:sync()
        return 100 * 60, 1, 100
      end)
    end
  end, 60000))

  it("a hundred WebSockets without a window cost no more, either", h.test(function()
    local blast = websocket.backend(function(connection)
      connection:send(websocket.frame("binary", ("x"):rep(1000000)))
      connection:wait_end(20000)
    end)
    local gateway = h.gateway { backend = h.backend(blast),
      routes = { { path = "/chat", backends = "backend" }, { path = "/", backends = "echo" } },
      upstreams = { echo = { "builtin:echo" } } }
    local function open(count)
      local client = connect(gateway, { settings = http2.setting(4, 0) })
      for i = 0, count - 1 do websocket.open(client, 2 * i + 1, { is_stingy = true }) end
      assert.is_true(client:sync())
      return client
    end
    open(100).stream:close() -- what is used for the first time costs once
    gateway:wait_metrics("no tunnel", function(m) return m.moongate_tunnels_live == 0 end)
    expect_small(gateway, function()
      for _ = 1, 3 do open(100) end
      return 300 * 150, 3, 300
    end)
  end, 60000))

  it("a window that drips does not keep a stream alive, nor does a PING", h.test(function()
    local gateway = h.gateway { backend = big_backend(), settings = { timeouts = { body = 0.5 } } }
    local client = connect(gateway, { settings = http2.setting(4, 0) })
    for i = 0, 9 do client:request(2 * i + 1, { [":path"] = "/big" }) end
    h.takes(400, 2500, function()
      local is_over = false
      while not is_over do
        for i = 0, 9 do
          if not (client.streams[2 * i + 1] or {}).reset then client:window(2 * i + 1, 1) end
        end
        client:sync()
        h.pass(20)
        is_over = true
        for i = 0, 9 do is_over = is_over and (client.streams[2 * i + 1] or {}).reset ~= nil end
      end
    end)
    assert.equal(http2.CANCEL, client.streams[1].reset)
    assert.equal(10, gateway:metrics().moongate_h2_streams_stalled_total)
    client:request(101)
    assert.equal(200, client:response(101).status)
    client.stream:close()
    gateway:expect_quiet()
  end, 20000))

  it("a slow client that takes enough is served", h.test(function()
    local gateway = h.gateway { backend = big_backend(), settings = { timeouts = { body = 0.5 } } }
    local client = connect(gateway, { settings = http2.setting(4, 0) })
    client:request(1, { [":path"] = "/big" })
    for _ = 1, 30 do
      client:window(1, 500)
      client:sync()
      h.pass(50)
    end
    assert.is_nil(client.streams[1].reset)
    assert.is_true(client.streams[1].body_len >= 14000)
  end, 20000))

  it("a connection whose socket is not read is cut off", h.test(function()
    local gateway = h.gateway { backend = big_backend(), settings = { timeouts = { body = 0.5 } } }
    local client = connect(gateway, { is_paused = true, receive_buffer = 4096, settings = http2.setting(4, 2147483647) })
    client:window(0, 2147000000)
    for i = 0, 9 do client:request(2 * i + 1, { [":path"] = "/big" }) end
    gateway:wait_metrics("the connection", function(metrics) return metrics.moongate_connections_live == 1 end)
    h.takes(300, 4000, function()
      gateway:wait_metrics("no connection", function(metrics) return metrics.moongate_connections_live == 0 end)
    end)
    gateway:expect_quiet()
  end, 20000))

  it("a request body that stalls is a 408, and the other streams go on", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { body = 0.3 } } }
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, nil, { open = true }):data(1, "x")
    local response = h.takes(250, 1200, function() return client:response(1) end)
    assert.equal(408, response.status)
    client:request(3)
    assert.equal(200, client:response(3).status)
  end))
end)

describe("h2 attacks, requests that are malformed:", function()
  local cases = {}
  local function case(name, pseudo, fields, options) cases[#cases + 1] = { name, pseudo, fields, options } end

  for _, byte in ipairs { "\r", "\n", "\0", "\r\nx: y", "\127", "\1" } do
    case(("a value with %q"):format(byte), nil, { { "x-a", "b" .. byte .. "c" } })
    case(("a name with %q"):format(byte), nil, { { "x" .. byte .. "a", "b" } })
    case((":path with %q"):format(byte), { [":path"] = "/a" .. byte .. "b" })
    case((":authority with %q"):format(byte), { [":authority"] = "h" .. byte .. "x" })
    case((":method with %q"):format(byte), { [":method"] = "GET" .. byte })
  end
  for _, name in ipairs { "X-Upper", "", "x a", "x:a", ":", "x_y", "x(y", "x\128" } do
    case(("the name %q"):format(name), nil, { { name, "b" } })
  end
  case("a value that begins with a space", nil, { { "x-a", " b" } })
  case("a value that ends with a tab", nil, { { "x-a", "b\t" } })
  case("transfer-encoding", nil, { { "transfer-encoding", "chunked" } })
  case("connection", nil, { { "connection", "close" } })
  case("keep-alive", nil, { { "keep-alive", "5" } })
  case("proxy-connection", nil, { { "proxy-connection", "close" } })
  case("upgrade", nil, { { "upgrade", "h2c" } })
  case("te other than trailers", nil, { { "te", "gzip" } })
  case("te with more than trailers", nil, { { "te", "trailers, gzip" } })
  case("no :method", { [":method"] = false })
  case("no :path", { [":path"] = false })
  case("no :scheme", { [":scheme"] = false })
  case("an empty :path", { [":path"] = "" })
  case("an empty :method", { [":method"] = "" })
  case("neither :authority nor host", { [":authority"] = false })
  case("an unknown pseudo-field", nil, { { ":unknown", "x" } })
  case("a part of a pseudo-field's name", nil, { { ":a", "evil" } })
  case("a response's pseudo-field", nil, { { ":status", "200" } })
  case("a second :path", nil, { { ":path", "/x" } })
  case("a second :authority", nil, { { ":authority", "h.example" } })
  case("a pseudo-field behind a field", nil, { { "x", "y" }, { ":scheme", "http" } })
  case(":protocol twice", { [":method"] = "CONNECT", [":protocol"] = "websocket" }, { { ":protocol", "websocket" } })
  case(":protocol without CONNECT", { [":protocol"] = "websocket" })
  case(":protocol without :path", { [":method"] = "CONNECT", [":protocol"] = "websocket", [":path"] = false })
  case(":protocol without :scheme", { [":method"] = "CONNECT", [":protocol"] = "websocket", [":scheme"] = false })
  case("a :protocol that is none of ours", { [":method"] = "CONNECT", [":protocol"] = "connect-ip" })
  case("CONNECT", { [":method"] = "CONNECT", [":path"] = false, [":scheme"] = false })
  case("an unknown method", { [":method"] = "BREW" })
  case("a method with a space", { [":method"] = "GET /x HTTP/1.1" })
  case("an absolute :path", { [":path"] = "http://h.example/" })
  case("a :path without a slash", { [":path"] = "a" })
  case("* without OPTIONS", { [":path"] = "*" })
  case("a fragment", { [":path"] = "/a#b" })
  case("a space in :path", { [":path"] = "/a b" })
  case("%00 in :path", { [":path"] = "/a%00" })
  case("%2f in :path", { [":path"] = "/a%2f..%2fb" })
  case("a backslash in :path", { [":path"] = "/a\\b" })
  case("a foreign scheme", { [":scheme"] = "ftp" })
  for _, authority in ipairs { "u@h.example", "h.example,x", "h.example/x", "h.example#", "h.example:0", "h.example:", "[::1", "h..x" } do
    case("the authority " .. authority, { [":authority"] = authority })
  end
  case("host against :authority", nil, { { "host", "other.example" } })
  case("host twice", nil, { { "host", "h.example" }, { "host", "h.example" } })
  case("content-length without a body", nil, { { "content-length", "5" } })
  case("a malformed content-length", { [":method"] = "POST" }, { { "content-length", "+5" } }, { open = true })
  case("content-length twice", { [":method"] = "POST" }, { { "content-length", "5" }, { "content-length", "5" } }, { open = true })
  case("content-length as a list", { [":method"] = "POST" }, { { "content-length", "5,5" } }, { open = true })
  case("authorization twice", nil, { { "authorization", "a" }, { "authorization", "b" } })
  case("an unknown expectation", nil, { { "expect", "200-ok" } })
  case("TRACE", { [":method"] = "TRACE" })

  it("never reach the backend, and their connection goes on", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    for _, each in ipairs(cases) do
      local client = connect(gateway)
      client:request(1, each[2], each[3], each[4])
      local response = client:response(1)
      local is_refused = response.reset == http2.PROTOCOL_ERROR or (response.status and response.status >= 400) or client.goaway
      assert.is_truthy(is_refused, each[1] .. " was answered " .. tostring(response.status))
      assert.equal(0, #backend.requests, each[1] .. " reached the backend")
      client.stream:close()
    end
    local client = connect(gateway)
    client:request(1, nil, { { "X-Upper", "x" } })
    assert.equal(http2.PROTOCOL_ERROR, client:response(1).reset)
    client:request(3)
    assert.equal(200, client:response(3).status)
  end, 60000))

  it("leave their backend's connection unused when the body is not what it was to be", h.test(function()
    local backend = h.backend(h.each(function() return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" end))
    local gateway = h.gateway { backend = backend }
    for _, body in ipairs { "1", "123456" } do
      local client = connect(gateway)
      client:request(1, { [":method"] = "POST" }, { { "content-length", "5" } }, { open = true })
      client:sync()
      client:data(1, body, true)
      local response = client:response(1)
      assert.equal(http2.PROTOCOL_ERROR, response.reset)
      client.stream:close()
    end
    gateway:expect_quiet()
    for _, connection in ipairs(backend.connections) do connection:wait_end() end
    for _, request in ipairs(backend.requests) do assert.is_falsy(request.complete) end
  end))

  it("a head and its trailers in one segment are not taken for each other", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local heads = { { ":method", "POST" }, { ":scheme", "http" }, { ":authority", "h.example" }, { ":path", "/t" } }
    for _, trailers in ipairs { "", http2.field("x-sum", "1"), http2.field("x-a", "1"):rep(90) } do
      local client = connect(gateway)
      client.stream:send(http2.frame(HEADERS, 4, 1, http2.block(heads)) .. http2.frame(HEADERS, WHOLE, 1, trailers))
      assert.equal("you asked for /t\n", client:response(1).body)
    end
    local client = connect(gateway)
    client.stream:send(http2.frame(HEADERS, 4, 1, http2.block(heads)) .. http2.frame(HEADERS, WHOLE, 1, http2.field("x-l", "v"):rep(150)))
    local response = client:response(1)
    assert.is_true(response.reset == http2.PROTOCOL_ERROR or response.status == 431)
    for _, request in ipairs(backend.requests) do assert.equal("/t", request.target) end
  end))

  it("host beside :authority is one Host for the backend", h.test(function()
    local backend = h.backend()
    local client = connect(h.gateway { backend = backend })
    client:request(1, nil, { { "host", "H.example:80" } })
    assert.equal(200, client:response(1).status)
    client:request(3, { [":authority"] = false }, { { "host", "h.example" } })
    assert.equal(200, client:response(3).status)
    for _, request in ipairs(backend.requests) do
      assert.equal("h.example", request.headers.host)
      assert.equal(1, select(2, request.head:lower():gsub("\nhost:", "")))
    end
  end))
end)

describe("h2 attacks, any order of frames:", function()
  it("bytes behind a reset in the same segment harm nobody", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    for _ = 1, 20 do
      local client = connect(gateway)
      client:request(1, { [":method"] = "POST" }, nil, { open = true })
      client:sync()
      client.stream:send(http2.frame(DATA, 0, 1, "abc") .. http2.frame(RST, 0, 1, http2.u32(8)) .. http2.frame(DATA, 0, 1, "def") ..
        http2.frame(HEADERS, WHOLE, 3, http2.head()))
      client:finish()
      assert.equal(http2.STREAM_CLOSED, client.goaway.code)
    end
    assert.equal(200, gateway:get("/").status)
    gateway:expect_quiet()
  end, 30000))

  it("a thousand connections of random frames leave nothing behind", h.test(function()
    local big = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" .. ("x"):rep(200000)
    local backend = h.backend(h.each(function(request)
      return request.target == "/big" and big or "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    end))
    local gateway = h.gateway { backend = backend }
    local seed = tonumber(os.getenv "MOONGATE_TEST_SEED" or "1")
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2147483648
      return math.floor(seed / 65536) % n
    end
    local function frame()
      local id = random(6) * 2 + 1
      local kind = random(10)
      if kind < 3 then
        local method = random(2) == 0 and "GET" or "POST"
        return http2.frame(HEADERS, random(2) == 0 and 5 or 4, id,
          http2.head({ [":method"] = method, [":path"] = random(2) == 0 and "/big" or "/a" }))
      elseif kind < 6 then return http2.frame(DATA, random(2), id, ("d"):rep(random(3000)))
      elseif kind == 6 then return http2.frame(RST, 0, id, http2.u32(8))
      elseif kind == 7 then return http2.frame(http2.WINDOW_UPDATE, 0, random(3) == 0 and 0 or id, http2.u32(random(70000)))
      elseif kind == 8 then return http2.frame(http2.SETTINGS, 0, 0, http2.setting(4, random(70000)))
      end
      return http2.frame(http2.PING, 0, 0, "12345678")
    end
    for i = 1, 1000 do
      local client = connect(gateway)
      local out = {}
      for n = 1, 1 + random(30) do out[n] = frame() end
      client.stream:send(table.concat(out))
      if random(2) == 0 then h.loop.try_wait(client.stream.changed, 5, function() return client.stream:has_ended() end) end
      if random(3) == 0 then client.stream:reset() else client.stream:close() end
      if i % 100 == 0 then assert.equal(200, gateway:get("/").status) end
    end
    gateway:expect_quiet(20000)
  end, 120000))
end)
