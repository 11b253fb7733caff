-- Memory that does not grow: bodies of a GiB through Lua, and ten thousand exchanges with globals of their own.
local h = require "test.support.harness"

local MIB = 1048576
local LEN = 1024 * MIB
local PIECE = h.http1.pattern(262144)

-- Sends LEN bytes as fast as they are taken.
local function pour(connection, len)
  local sent = 0
  while sent < len do
    local piece = len - sent < #PIECE and PIECE:sub(1, len - sent) or PIECE
    connection:send(piece)
    sent = sent + #piece
    if connection.queued - connection.sent > 8 * #PIECE then
      h.loop.wait(connection.changed, 60000, "the gateway to take the body", function()
        return connection.queued - connection.sent <= 4 * #PIECE or connection.write_failure or connection:has_ended()
      end)
    end
    if connection.write_failure then return end
  end
end

-- The most that the gateway has resident until the predicate holds.
local function peak_kb(gateway, ms, predicate)
  local peak, deadline = gateway:rss_kb(), h.now_ms() + ms
  while not predicate() do
    assert.is_true(h.now_ms() < deadline, "it takes too long")
    h.loop.pass(50)
    peak = math.max(peak, gateway:rss_kb())
  end
  return math.max(peak, gateway:rss_kb())
end

local function check_flat(gateway, before, after)
  assert.is_true(after < before + 48 * 1024, ("%d KiB became %d KiB"):format(before, after))
  gateway:expect_idle()
end

describe("a body of a GiB", function()
  it("goes through response:chunks() in flat memory", h.test(function()
    if h.loop.scale > 1 then return pending "too much for a sanitizer" end
    local gateway = h.script([[
      moongate.route { path = "/", backends = "backend", body_filter = function(exchange)
        local len = 0
        for piece in exchange.response:chunks() do
          len = len + #piece
          exchange.response:write(piece)
        end
        moongate.log.info(("passed %d bytes"):format(len))
      end }]], { backend = h.backend(function(connection)
        connection:read_request()
        connection:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(LEN))
        pour(connection, LEN)
        connection:wait_end(60000)
      end) })
    local client = gateway:connect()
    local before, total = gateway:rss_kb(), 0
    client.on_bytes = function(bytes) total = total + #bytes end
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    local after = peak_kb(gateway, 100000, function() return total >= LEN end)
    gateway:wait_log(("passed %d bytes"):format(LEN))
    client:close()
    check_flat(gateway, before, after)
  end, 120000))

  it("goes through request:chunks() in flat memory", h.test(function()
    if h.loop.scale > 1 then return pending "too much for a sanitizer" end
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local len = 0
        for piece in exchange.request:chunks() do len = len + #piece end
        exchange:respond(200, ("%d"):format(len))
      end }]]
    local client = gateway:connect()
    local before, answer = gateway:rss_kb(), nil
    client:send(("POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(LEN))
    h.task(function() pour(client, LEN) end)
    h.task(function() answer = h.read_response(client, { ms = 100000 }) or "none" end)
    local after = peak_kb(gateway, 100000, function() return answer end)
    assert.equal(tostring(LEN), answer.body)
    client:close()
    check_flat(gateway, before, after)
  end, 120000))
end)

describe("ten thousand exchanges", function()
  it("each have their globals, in flat memory", h.test(function()
    local CLIENTS, ROUNDS = h.loop.scale > 1 and 50 or 500, h.loop.scale > 1 and 4 or 20
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        own, ballast = exchange.request.query, { exchange.id, exchange.id .. "x" }
        exchange.vars.own = own
        moongate.sleep(0.02)
        if own ~= exchange.request.query or exchange.vars.own ~= own or ballast[1] ~= exchange.id then
          error "the global of another"
        end
        exchange:respond(200, own)
      end }]]
    local clients = {}
    for i = 1, CLIENTS do clients[i] = gateway:connect() end
    local before
    for round = 1, ROUNDS do
      for i, client in ipairs(clients) do
        client:send(("GET /?%d.%d HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(round, i))
      end
      for i, client in ipairs(clients) do
        assert.equal(("%d.%d"):format(round, i), h.read_response(client, { ms = 20000 }).body)
      end
      if round == 3 then before = gateway:rss_kb() end
    end
    local after = gateway:rss_kb()
    for _, client in ipairs(clients) do client:close() end
    if h.loop.scale == 1 then
      assert.is_true(after < 1.15 * before + 2048, ("%d KiB became %d KiB"):format(before, after))
    end
    gateway:expect_idle()
  end, 120000))

  it("leave nothing of a crowd behind", h.test(function()
    if h.loop.scale > 1 then return pending "a sanitizer's allocator keeps what is freed" end
    local gateway = h.script [[
      local waiting = 0
      moongate.route { path = "/crowd", access = function(exchange)
        exchange.vars.ballast, ballast = ("v"):rep(200000) .. exchange.id, ("g"):rep(200000) .. exchange.id
        moongate.sleep(0.3)
        exchange:respond(200, "x")
      end }
      moongate.route { path = "/kb", access = function(exchange)
        collectgarbage()
        collectgarbage()
        exchange:respond(200, tostring(collectgarbage "count"))
      end }]]
    local before = tonumber(gateway:get("/kb").body)
    local clients = {}
    for i = 1, 200 do
      clients[i] = gateway:connect()
      clients[i]:send "GET /crowd HTTP/1.1\r\nHost: h.example\r\n\r\n"
    end
    for _, client in ipairs(clients) do assert.equal("x", h.read_response(client, { ms = 20000 }).body) end
    for _, client in ipairs(clients) do client:close() end
    gateway:expect_idle()
    local after = tonumber(gateway:get("/kb").body)
    assert.is_true(after < before + 4000, ("%d KiB became %d KiB of Lua"):format(before, after))
  end))
end)
