-- Weighted round robin over the endpoints of an upstream, exactly.
local h = require "test.support.harness"

-- Sends count requests, one after the other; gives how many each backend got.
local function counts(backends, gateway, count)
  local client = gateway:connect()
  for i = 1, count do
    client:send("GET /" .. i .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
    assert.equal(200, h.read_response(client).status)
  end
  local out = {}
  for i, backend in ipairs(backends) do out[i] = #backend.requests end
  return out
end

local function start(weights)
  local backends, endpoints = {}, {}
  for i, weight in ipairs(weights) do
    backends[i] = h.backend()
    endpoints[i] = weight == 1 and backends[i]:address() or { backends[i]:address(), weight = weight }
  end
  return backends, h.gateway { upstreams = { backend = endpoints } }
end

describe("balancing", function()
  it("gives each of equal endpoints its turn", h.test(function()
    local backends, gateway = start { 1, 1, 1 }
    assert.same({ 20, 20, 20 }, counts(backends, gateway, 60))
  end))

  it("follows the weights exactly", h.test(function()
    local backends, gateway = start { 1, 2, 5 }
    assert.same({ 10, 20, 50 }, counts(backends, gateway, 80))
  end))

  it("does not give a heavy endpoint all its turns in a row", h.test(function()
    local backends, gateway = start { 1, 4 }
    local client = gateway:connect()
    local longest, run, last = 0, 0, nil
    for i = 1, 50 do
      local before = #backends[2].requests
      client:send("GET /" .. i .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
      h.read_response(client)
      local now = #backends[2].requests > before and 2 or 1
      run = now == last and run + 1 or 1
      last = now
      if now == 2 then longest = math.max(longest, run) end
    end
    assert.is_true(longest <= 4, longest .. " in a row")
  end))

  it("gives an endpoint of weight 0 nothing", h.test(function()
    local backends, gateway = start { 1, 0 }
    assert.same({ 20, 0 }, counts(backends, gateway, 20))
  end))

  it("without an endpoint is a 503", h.test(function()
    local gateway = h.gateway { upstreams = { backend = {} } }
    assert.equal(503, gateway:get("/").status)
  end))

  it("chooses the longest matching path", h.test(function()
    local a, b = h.backend(), h.backend()
    local gateway = h.gateway {
      upstreams = { a = a, b = b },
      routes = { { path = "/", backends = "a" }, { path = "/deep/path", backends = "b" }, { path = "/deep", backends = "a" } },
    }
    gateway:get "/deep/path/x"
    gateway:get "/deep/pathx"
    gateway:get "/deep"
    gateway:get "/other"
    assert.equal(1, #b.requests)
    assert.equal("/deep/path/x", b.requests[1].target)
    assert.equal(3, #a.requests)
  end))
end)
