-- A wall clock that jumps: deadlines, intervals and what is counted by them stand on the monotonic clock; what is told by the wall
-- clock is told as it then is, and nothing is lost. The gateway runs under libfaketime, which reads its shift from a file.
local cjson = require "cjson"
local h = require "test.support.harness"
local http2 = require "test.support.http2"
local uv = require "luv"

local LIBRARIES = { "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
  "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1" }
local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local DAY, YEAR = 86400, 365 * 86400

local function library()
  for _, path in ipairs(LIBRARIES) do
    if uv.fs_stat(path) then return path end
  end
end

local function jumping(body, ms)
  return h.test(function()
    local pending = getfenv(body).pending
    if not library() then return pending "faketime is not installed" end
    if os.getenv "MOONGATE_BUILD" and os.getenv "MOONGATE_BUILD" ~= "release" then
      return pending "a sanitizer's runtime and libfaketime both want to be first"
    end
    body()
  end, ms)
end

-- Starts a gateway whose wall clock gateway:jump(seconds) moves away from ours; is_monotonic: with it the one of deadlines.
local function start(options)
  local shift, dir = h.write_file("+0", "shift")
  options.shell = ("export LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_NO_CACHE=1 " ..
    "FAKETIME_DONT_FAKE_MONOTONIC=%d;"):format(library(), shift, options.is_monotonic and 0 or 1)
  local gateway = h.gateway(options)
  function gateway.jump(_, seconds)
    local file = assert(io.open(shift .. ".new", "w"))
    file:write(("%+d"):format(seconds))
    file:close()
    assert(os.rename(shift .. ".new", shift))
  end
  function gateway.forget_shift()
    os.remove(shift)
    uv.fs_rmdir(dir)
  end
  return gateway
end

-- Seconds since 1970 of "Mon, 02 Jan 2006 15:04:05 GMT" or "2006-01-02T15:04:05.000Z".
local MONTHS = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }
local function seconds_of(text)
  local year, month, day, hour, min, sec = text:match "^(%d+)%-(%d+)%-(%d+)T(%d+):(%d+):(%d+)"
  if not year then
    day, month, year, hour, min, sec = text:match "(%d+) (%a+) (%d+) (%d+):(%d+):(%d+)"
    month = MONTHS[month]
  end
  local local_time = os.time { year = year, month = month, day = day, hour = hour, min = min, sec = sec, isdst = false }
  local utc = os.date("!*t", local_time)
  utc.isdst = false
  return local_time + os.difftime(local_time, os.time(utc))
end

local function near(expected, found)
  assert.is_true(math.abs(expected - found) <= 5 * h.loop.scale, ("%d s off"):format(found - expected))
end

local function now_ms()
  return uv.hrtime() / 1e6
end

local function takes(min, max, fn)
  local begin = now_ms()
  local result = fn()
  local took = now_ms() - begin
  assert.is_true(took >= min and took <= max * h.loop.scale, ("took %.0f ms"):format(took))
  return result
end

local function silent(connection)
  connection:read_head()
  connection:wait_end(20000)
end

local JUMPS = { DAY, -DAY, 20 * YEAR, -20 * YEAR }

describe("a wall clock that jumps", function()
  it("moves no deadline", jumping(function()
    for _, seconds in ipairs(JUMPS) do
      local gateway = start { backend = h.backend(silent), settings = { timeouts = { response = 0.6, request_head = 0.6,
        idle = 0.6, drain = 1 } } }
      local waiting, dripping, idle = gateway:connect(), gateway:connect(), gateway:connect()
      takes(500, 2000, function()
        waiting:send(GET)
        dripping:send "GET / HT"
        h.pass(150)
        gateway:jump(seconds)
        assert.equal(504, h.read_response(waiting).status)
        assert.equal(408, h.read_response(dripping).status)
        idle:wait_end()
      end)
      for _, client in ipairs { waiting, dripping, idle } do client:close() end
      gateway:stop()
      gateway.forget_shift()
    end
  end, 60000))

  it("ends nothing that is under way or kept", jumping(function()
    local slow = h.backend(function(connection)
      while connection:read_request() do
        h.loop.pass(200)
        connection:send(h.http1.response("200 OK", "whole"))
      end
    end)
    local gateway = start { backend = slow }
    local client = gateway:connect()
    for _, seconds in ipairs(JUMPS) do
      client:send(GET)
      h.pass(50)
      gateway:jump(seconds)
      assert.equal("whole", h.read_response(client).body)
    end
    client:close()
    gateway:expect_quiet()
    assert.equal(1, #slow.connections)
    gateway.forget_shift()
  end, 30000))

  it("shows in logs and dates at once, and loses no line", jumping(function()
    local path, dir = h.write_file("", "access.log")
    local gateway = start { settings = { workers = 1, access_log = { file = path } },
      routes = { { path = "/", plugins = { { "direct-response", body = "here" } } } } }
    local client, shift = gateway:connect(), 0
    for i = 0, #JUMPS do
      shift = JUMPS[i] or 0
      gateway:jump(shift)
      local date = (function()
        client:send(GET)
        return h.read_response(client).headers.date
      end)()
      near(os.time() + shift, seconds_of(date))
      local text
      local deadline = now_ms() + 1000 * h.loop.scale
      repeat
        h.pass(20)
        local file = assert(io.open(path))
        text = file:read "*a"
        file:close()
      until select(2, text:gsub("\n", "")) == i + 1 or now_ms() > deadline
      local line = cjson.decode(text:match "([^\n]*)\n$" or error("no line: " .. text))
      near(os.time() + shift, seconds_of(line.time))
      assert.is_true(line.duration >= 0 and line.duration < 1, line.duration)
    end
    client:close()
    gateway:rewrite(h.gateway_config { settings = { workers = 1, access_log = { file = path } }, routes = { { path = "/",
      plugins = { { "direct-response", body = "there" } } } } })
    assert.equal(0, gateway:ask("reload").code)
    local last = gateway:log():match "([^\n ]+) info configuration 2 serves"
    near(os.time() + shift, seconds_of(last))
    local uptime = gateway:ask_json("/status").uptime_ms
    assert.is_true(uptime > 0 and uptime < 60000, uptime)
    gateway:stop()
    os.remove(path)
    uv.fs_rmdir(dir)
    gateway.forget_shift()
  end, 30000))
end)

describe("a connection of HTTP/2 to an upstream that is older than an hour", function()
  local LONG = 80000

  -- A stream that lives, an hour, and another request.
  local function age(limits, check)
    local held
    local backend
    backend = h.backend(http2.script(function(server)
      while true do
        local request = server:take_request(60000)
        if not request then return end
        if request.request[":path"] == "/held" then
          held = { server, request }
          backend.changed:fire()
        else
          server:respond(request.id, 200, nil, { open = true }):data(request.id, "ok", true)
        end
      end
    end))
    local gateway = start { backend = backend, is_monotonic = true, upstream = { protocol = "http2", limits = limits },
      settings = { workers = 1, timeouts = { response = LONG, body = LONG, idle = LONG, upstream_idle = LONG } } }
    local client = gateway:connect()
    client:send "GET /held HTTP/1.1\r\nHost: h\r\n\r\n"
    h.loop.wait(backend.changed, 5000, "the request", function() return held end)
    gateway:jump(4000)
    h.pass(100)
    check(gateway, backend)
    held[1]:respond(held[2].id, 200, nil, { open = true }):data(held[2].id, "at last", true)
    assert.equal("at last", h.read_response(client).body)
    client:close()
    backend.connections[1]:wait_end() -- now it is of no more use
    gateway:stop()
    gateway.forget_shift()
  end

  local function get(gateway) return gateway:request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status end

  it("takes no more requests", jumping(function()
    age(nil, function(gateway, backend)
      assert.equal(200, get(gateway))
      assert.equal(2, #backend.connections)
    end)
  end, 30000))

  it("serves on where a limit counts it", jumping(function()
    age({ connections = 1, pending_timeout = 0.3 }, function(gateway, backend)
      for _ = 1, 3 do assert.equal(200, get(gateway)) end
      assert.equal(1, #backend.connections)
    end)
  end, 30000))
end)
