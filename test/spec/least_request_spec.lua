-- least_request: who has the fewest exchanges under way, over all workers, gets the next.
local h = require "test.support.harness"

-- Answers "/hold..." only when let go.
local function backend()
  local gate, self = h.loop.signal(), nil
  self = h.backend(h.each(function(request)
    if request.target:find "^/hold" then
      h.loop.wait(gate, 20000, "the answer to be let go", function() return self.is_free end)
    end
    return h.http1.response("200 OK", request.target)
  end))
  function self.let_go()
    self.is_free = true
    gate:fire()
  end
  return self
end

local function start(endpoints, workers)
  for i, endpoint in ipairs(endpoints) do
    endpoints[i] = type(endpoint) == "string" and ("%q"):format(endpoint) or
      ("{ %q, weight = %d }"):format(endpoint[1], endpoint[2])
  end
  return h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = %d }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "b", balance = "least_request", endpoints = { %s } }
moongate.route { path = "/", backends = "b" }
]]):format(workers or 1, table.concat(endpoints, ", ")) }
end

local function ask(gateway, path)
  local client = gateway:connect()
  client:send(("GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(path))
  return client
end

-- Waits until the backends have had that many requests together.
local function wait_sum(backends, count)
  local signal = h.loop.signal()
  for _, b in ipairs(backends) do
    local fire = b.changed.fire
    b.changed.fire = function(self)
      fire(self)
      signal:fire()
    end
  end
  h.loop.wait(signal, 5000, count .. " requests", function()
    local sum = 0
    for _, b in ipairs(backends) do sum = sum + #b.requests end
    return sum == count
  end)
  for _, b in ipairs(backends) do b.changed.fire = nil end
end

local function busy(backends)
  local out = {}
  for i, b in ipairs(backends) do out[i] = #b.requests end
  table.sort(out)
  return out
end

describe("least_request", function()
  for _, workers in ipairs { 1, 4 } do
    it(("prefers the idle endpoint, %d workers #threads"):format(workers), h.test(function()
      local a, b = backend(), backend()
      local gateway = start({ a:address(), b:address() }, workers)
      local held = ask(gateway, "/hold")
      wait_sum({ a, b }, 1)
      local loaded, idle = a, b
      if #b.requests == 1 then loaded, idle = b, a end
      for i = 1, 20 do assert.equal(200, gateway:get("/" .. i).status) end
      assert.equal(1, #loaded.requests)
      assert.equal(20, #idle.requests)
      loaded:let_go()
      assert.equal(200, h.read_response(held).status)
    end))
  end

  it("fills endpoints evenly, over several workers #threads", h.test(function()
    local backends, addresses, clients = {}, {}, {}
    for i = 1, 3 do
      backends[i] = backend()
      addresses[i] = backends[i]:address()
    end
    local gateway = start(addresses, 4)
    for i = 1, 12 do
      clients[i] = ask(gateway, "/hold" .. i)
      wait_sum(backends, i)
    end
    assert.same({ 4, 4, 4 }, busy(backends))
    for _, b in ipairs(backends) do b.let_go() end
    for i = 1, 12 do assert.equal(200, h.read_response(clients[i]).status) end
  end))

  it("follows weights", h.test(function()
    local a, b, clients = backend(), backend(), {}
    local gateway = start { a:address(), { b:address(), 3 } }
    for i = 1, 12 do
      clients[i] = ask(gateway, "/hold" .. i)
      wait_sum({ a, b }, i)
    end
    assert.same({ 3, 9 }, { #a.requests, #b.requests })
    a.let_go()
    b.let_go()
    for i = 1, 12 do assert.equal(200, h.read_response(clients[i]).status) end
  end))

  it("goes elsewhere when the idle one refuses", h.test(function()
    local a = backend()
    local gateway = start { a:address(), "127.0.0.1:" .. h.dead_port() }
    for i = 1, 20 do assert.equal(200, gateway:get("/" .. i).status) end
  end))
end)
