-- The request's body before it is forwarded (core/filter/filter.h): read by a hook that waits, replaced, sent again. The C
-- filter of test/support/test_filter.h reads and checks that no reader is called out of turn; a replaced body must arrive.
local h = require "test.support.harness"

local function test(body, ms)
  return function()
    if not h.has_binary { is_test = true } then
      getfenv(body).pending "there is no moongate-test beside MOONGATE_BIN"
    end
    h.run(body, ms)
  end
end

-- A gateway whose only route has these plugins, { hook = ... } each, and what options.route says.
local function start(plugins, options)
  options = options or {}
  local route = { path = "/", plugins = {} }
  if options.backend ~= false then
    options.backend = options.backend or h.backend()
    route.backends = options.upstream or "backend"
  else
    options.backend = nil
  end
  for i, plugin in ipairs(plugins[1] and plugins or { plugins }) do
    local entry = { plugin.type or "test-heads", name = "f" .. i }
    for key, value in pairs(plugin) do
      if key ~= "type" then entry[key] = value end
    end
    route.plugins[i] = entry
  end
  for key, value in pairs(options.route or {}) do route[key] = value end
  options.is_test = true
  options.routes = { route }
  return h.gateway(options), options.backend
end

-- Stops it and checks what the filters counted: waits, and how many of them were cancelled.
local function finish(gateway, waits, cancelled, is_stopped)
  if not is_stopped then
    gateway:expect_quiet()
    gateway:stop()
  end
  local all, on, off, live, errors = gateway:log():match
    "in all: (%d+) waits, (%d+) went on, (%d+) cancelled, (%d+) live, (%d+) errors"
  if not all and waits == 0 then return end
  assert.is_not_nil(all, gateway:log())
  assert.same({ waits, waits - cancelled, cancelled, 0, 0 },
    { tonumber(all), tonumber(on), tonumber(off), tonumber(live), tonumber(errors) }, gateway:log())
end

describe("a filter that fails", function()
  for _, hook in ipairs { "rewrite", "access", "header_filter" } do
    it("in " .. hook .. " tells the exchange's id", test(function()
      local gateway = start({ { [hook] = { verdict = "fail" } } }, { settings = { request_id = true } })
      local response = gateway:get("/", "X-Request-Id: mine\r\n")
      local id = response.headers["x-request-id"]
      assert.equal(500, response.status)
      assert.equal(32, #id)
      assert.equal(("500 Internal Server Error: a filter failed (request id %s)\n"):format(id), response.body)
      local json = gateway:get("/", "Accept: application/json\r\n")
      assert.equal(('{"status":500,"error":"Internal Server Error","reason":"a filter failed","request_id":"%s"}\n'):format(
        json.headers["x-request-id"]), json.body)
      assert.are_not.equal(id, json.headers["x-request-id"])
      finish(gateway, 0, 0)
    end))
  end

  it("is the only one whose answer does", test(function()
    local gateway = start({ { access = {} } }, { backend = "127.0.0.1:" .. h.dead_port() })
    local response = gateway:get "/"
    assert.equal(502, response.status)
    assert.is_nil(response.headers["x-request-id"])
    finish(gateway, 0, 0)
  end))
end)

describe("a filter that may answer", function()
  it("needs no backends", test(function()
    local gateway = start({ type = "test-may", access = { verdict = "answer", body = "here" } }, { backend = false })
    local response = gateway:get "/"
    assert.equal(403, response.status)
    assert.equal("here", response.body)
    finish(gateway, 0, 0)
  end))

  it("and does not: 500 without backends, else the upstream's answer", test(function()
    local gateway = start({ type = "test-may" }, { backend = false })
    local response = gateway:get "/"
    assert.equal(500, response.status)
    assert.is_not_nil(response.body:find("the route has no backends and no plugin answered", 1, true))
    finish(gateway, 0, 0)
    gateway = start({ type = "test-may" })
    assert.equal(200, gateway:get("/").status)
    finish(gateway, 0, 0)
  end))
end)
