-- Connections to upstreams of HTTP/2 that say nothing, and requests that wait in them for a stream: asked by PING, given up, lent again.
local h = require "test.support.harness"
local http2 = require "test.support.http2"

local function connect(gateway)
  return http2.connect(gateway:connect())
end

local function get(gateway, path)
  return gateway:request("GET " .. (path or "/") .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
end

local function ok(server, request, body)
  server:respond(request.id, 200, nil, { open = true }):data(request.id, body or "ok", true)
end

local function gateway_for(backend, timeouts)
  return h.gateway { backend = backend, upstream = { protocol = "http2" }, settings = { workers = 1, timeouts = timeouts } }
end

-- Answers `count` requests of the first connection, then reads no more of it; of later ones, all.
local function dead_after(count, stays)
  return http2.script(function(server, index)
    local served = 0
    while index > 1 or served < count do
      local request = server:take_request(60000)
      if not request then return end
      served = served + 1
      ok(server, request, "by " .. index)
    end
    h.loop.wait(stays, 60000, "the end of the test", function() return stays.is_over end)
    server.stream:close()
  end)
end

local function stay()
  return h.loop.signal()
end

describe("a silent connection to an upstream of http/2", function()
  it("that answers no PING is given up, and what is safe sent again", h.test(function()
    local stays = stay()
    local gateway = gateway_for(h.backend(dead_after(1, stays)), { upstream_ping = 0.3 })
    assert.equal("by 1", get(gateway).body)
    local response = h.takes(500, 2000, function() return get(gateway) end)
    assert.equal(200, response.status)
    assert.equal("by 2", response.body)
    local metrics = gateway:metrics()
    assert.equal(1, metrics.moongate_upstream_h2_ended_total)
    assert.equal(1, metrics.moongate_upstream_replays_total)
    stays.is_over = true
    stays:fire()
    gateway:expect_quiet()
  end, 20000))

  it("that answers no PING costs what is not safe a 504", h.test(function()
    local stays = stay()
    local gateway = gateway_for(h.backend(dead_after(1, stays)), { upstream_ping = 0.3 })
    assert.equal("by 1", get(gateway).body)
    local response = h.takes(500, 2000, function()
      return gateway:request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
    end)
    assert.equal(504, response.status)
    assert.is_truthy(response.body:find("connection is dead", 1, true))
    assert.equal("by 2", get(gateway).body)
    stays.is_over = true
    stays:fire()
  end, 20000))

  it("that answers is left alone, and is asked once", h.test(function()
    local pings = 0
    local backend = h.backend(http2.script(function(server)
      local request = server:take_request(60000)
      h.task(function()
        h.pass(1500)
        ok(server, request, "late")
      end)
      while true do
        local frame = server:next(60000)
        if not frame then return end
        if frame.kind == http2.PING and frame.flags == 0 then pings = pings + 1 end
      end
    end))
    local gateway = gateway_for(backend, { upstream_ping = 0.2 })
    assert.equal("late", get(gateway).body)
    assert.equal(1, pings)
    assert.equal(1, #backend.connections)
    gateway:expect_quiet()
  end, 20000))

  it("without streams is not asked", h.test(function()
    local pings, is_done = 0, false
    local backend = h.backend(http2.script(function(server)
      ok(server, server:take_request(60000))
      while true do
        local frame = server:next(60000)
        if not frame then is_done = true return end
        if frame.kind == http2.PING then pings = pings + 1 end
      end
    end))
    local gateway = gateway_for(backend, { upstream_ping = 0.1, upstream_idle = 0.8 })
    assert.equal(200, get(gateway).status)
    assert.equal("eof", backend.connections[1]:wait_end())
    assert.is_true(is_done)
    assert.equal(0, pings)
  end, 20000))
end)

describe("requests that wait in a connection of http/2", function()
  -- The first connection reads no more once an upload has begun, so that what follows stays in the gateway; then `change`, and
  -- when the test says so, reading again.
  local function stuck(change)
    local state = h.loop.signal()
    state.seen = {}
    state.backend = h.backend(http2.script(function(server, index)
      if index == 1 then
        ok(server, server:take_request(60000))
        server.grants = false
        server:window(0, 2000000000)
        local upload = server:take_head(60000)
        server.stream:pause()
        server:window(upload.id, 2000000000)
        h.loop.wait(state, 60000, "requests that wait", function() return state.waits end)
        change(server, upload)
        h.loop.wait(state, 60000, "the others", function() return state.goes_on end)
        server.stream:resume()
      end
      while true do
        local request = server:take_head(60000)
        if not request then return end
        if not server.last or request.id <= server.last then
          local path = request.request[":path"]
          state.seen[path] = (state.seen[path] or 0) + 1
          ok(server, request, path .. " by " .. index)
        end
      end
    end))
    return state
  end

  -- Heads of 15 KB: more than the gateway keeps for a connection, so the last ones wait.
  local COUNT, LONG = 10, { { "x-long", ("v"):rep(15000) } }

  -- Those that wait are answered at once; all are in the end, each having come once.
  local function lend_again(change)
    local state = stuck(change)
    local gateway = gateway_for(state.backend)
    assert.equal(200, get(gateway).status)
    local upload = gateway:connect()
    upload:send("POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
    upload:send(("x"):rep(33554432))
    h.loop.try_wait(upload.changed, 1000, function() return false end)
    assert.is_true(upload.sent < upload.queued)
    local client = connect(gateway)
    for i = 1, COUNT do client:request(2 * i - 1, { [":method"] = "POST", [":path"] = "/" .. i }, LONG) end
    assert.is_true(client:sync())
    assert.equal(COUNT + 1, gateway:metrics().moongate_upstream_streams_live)
    assert.equal(1, #state.backend.connections)
    state.waits = true
    state:fire()
    for i = COUNT - 1, COUNT do assert.is_nil(client:response(2 * i - 1).body:find "by 1$") end
    state.goes_on = true
    state:fire()
    for i = 1, COUNT do
      local response = client:response(2 * i - 1, 20000)
      assert.equal("/" .. i, response.body:match "^(.*) by %d+$", response.body)
      assert.equal(1, state.seen["/" .. i])
    end
    upload:close()
    client.stream:close()
    gateway:expect_quiet()
  end

  it("are lent again when it allows fewer streams", h.test(function()
    lend_again(function(server) server:send(http2.SETTINGS, 0, 0, http2.setting(3, 1)) end)
  end, 40000))

  it("are lent again when it goes away", h.test(function()
    lend_again(function(server, upload)
      server:go_away(upload.id)
      server.last = upload.id
    end)
  end, 40000))

  it("are lent again when it goes away and takes no more streams than it has", h.test(function()
    lend_again(function(server, upload)
      server:send(http2.SETTINGS, 0, 0, http2.setting(3, 1)):go_away(upload.id)
      server.last = upload.id
    end)
  end, 40000))
end)
