-- moongate top: what it says of real traffic, on anything but a terminal.
local h = require "test.support.harness"
local cjson = require "cjson.safe"
local uv = require "luv"

local function row(list, name)
  for _, item in ipairs(list) do
    if item.name == name then return item end
  end
end

-- Requests one after another until finish().
local function traffic(gateway)
  local running = {}
  running.task = h.task(function()
    local client = gateway:connect()
    while not running.is_over do
      for _, path in ipairs { "/", "/", "/", "/broken" } do
        client:send(("GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(path))
        assert(h.read_response(client))
      end
      h.pass(5)
    end
    client:close()
  end)
  return running
end

local function finish(running)
  running.is_over = true
  h.loop.wait(running.task.ended, 5000, "the traffic to end", function() return running.task.done end)
end

local function config()
  return {
    upstreams = { backend = { "builtin:echo" }, gone = { "127.0.0.1:" .. h.dead_port() } },
    routes = { { path = "/", backends = "backend", name = "all" }, { path = "/broken", backends = "gone", name = "broken" } },
  }
end

describe("top", function()
  it("counts requests and errors of real traffic, one JSON object a refresh", h.test(function()
    local gateway = h.gateway(config())
    local running = traffic(gateway)
    local began = uv.hrtime()
    local answer = gateway:ask("top", "--json", "--count", "2", "--interval", "0.3")
    local took_s = (uv.hrtime() - began) / 1e9
    finish(running)
    assert.equal(0, answer.code, answer.stderr)
    assert.is_true(took_s >= 0.6)
    local views = {}
    for line in answer.stdout:gmatch "[^\n]+" do views[#views + 1] = assert(cjson.decode(line)) end
    assert.equal(2, #views)
    for _, view in ipairs(views) do
      assert.equal(1, view.generation)
      assert.equal(1, view.workers)
      assert.is_true(view.connections >= 1)
      local all, broken = row(view.routes, "all"), row(view.routes, "broken")
      assert.is_true(all.requests_per_second > 0)
      assert.equal(0, all.errors_per_second)
      assert.is_true(all.p50_ms > 0 and all.p50_ms <= all.p99_ms)
      assert.is_true(broken.requests_per_second > 0)
      assert.equal(broken.requests_per_second, broken.errors_per_second)
      assert.equal(100, broken.error_percent)
      assert.is_true(all.requests_per_second > broken.requests_per_second)
      assert.near(all.requests_per_second + broken.requests_per_second, view.requests_per_second, 0.01)
      assert.is_true(view.error_percent > 10 and view.error_percent < 40)
      assert.is_not_nil(row(view.upstreams, "backend"))
    end
  end))

  it("appends tables where standard output is no terminal", h.test(function()
    local gateway = h.gateway(config())
    local running = traffic(gateway)
    local answer = gateway:ask("top", "--count", "2", "--interval", "0.2")
    finish(running)
    assert.equal(0, answer.code, answer.stderr)
    assert.is_nil(answer.stdout:find "\27")
    local _, count = answer.stdout:gsub("generation 1, 1 worker, %d+ connections?, [%d.]+ requests/s", "")
    assert.equal(2, count, answer.stdout)
    assert.is_not_nil(answer.stdout:find "\nall +[%d.]+ +0%.0 +0%.0%% +[%d.]+ +[%d.]+\n", answer.stdout)
    assert.is_not_nil(answer.stdout:find "\nbroken +[%d.]+ +[%d.]+ +100%.0%%", answer.stdout)
  end))

  it("has nothing to tell of a gateway without traffic", h.test(function()
    local gateway = h.gateway(config())
    local answer = gateway:ask("top", "--count", "1", "--interval", "0.1")
    assert.equal(0, answer.code, answer.stderr)
    assert.is_not_nil(answer.stdout:find "0%.0 requests/s, 0%.0 errors/s %(0%.0%%%)")
    assert.is_not_nil(answer.stdout:find "none yet")
  end))

  it("without a gateway says so", h.test(function()
    local answer = h.exec { "top", "--admin", "/nonexistent/moongate.sock" }
    assert.equal(1, answer.code)
    assert.equal("", answer.stdout)
    assert.is_not_nil(answer.stderr:find "no gateway answers at /nonexistent/moongate.sock")
  end))

  it("ends when the gateway does", h.test(function()
    local gateway = h.gateway(config())
    h.task(function()
      h.pass(300)
      gateway:signal "sigterm"
    end)
    local answer = gateway:ask("top", "--interval", "0.1")
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find "no gateway answers at")
  end))

  it("refuses an interval that is none", h.test(function()
    for _, text in ipairs { "0", "-1", "x", "nan" } do
      local answer = h.exec { "top", "--interval", text }
      assert.equal(2, answer.code, text)
      assert.is_not_nil(answer.stderr:find "expected seconds, 0.1 to 3600")
    end
  end))
end)
