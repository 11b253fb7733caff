-- Functions of a listener: they run for every request that it has, before those of the route, and for requests without one.
local h = require "test.support.harness"

local function config(mark, listener)
  return ([[
    local moongate = require "moongate"
    moongate.settings { workers = 1 }
    moongate.listener { name = "edge", port = 0, address = "127.0.0.1", %s }
    moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
    moongate.route { name = "one", path = "/one", backends = "backend",
      access = function(exchange) exchange.vars.way = (exchange.vars.way or "") .. " route" end,
      header_filter = function(exchange) exchange.response.headers["x-way"] = exchange.vars.way .. " %s" end }]]):format(
    listener, mark)
end

local LISTENER = [[
  rewrite = function(exchange) moongate.sleep(0.01) exchange.vars.way = "listener" end,
  access = function(exchange)
    if exchange.request.path == "/stop" then exchange:respond(403, "stopped\n") end
    exchange.vars.way = exchange.vars.way .. " access"
  end,
  header_filter = function(exchange) exchange.response.headers["x-edge"] = "yes" end,
  body_filter = function(exchange)
    for piece in exchange.response:chunks() do exchange.response:write((piece:gsub("stopped", "STOPPED"))) end
  end,
  log = function(exchange) moongate.log.info("logged " .. exchange.request.path) end,]]

describe("a function of a listener", function()
  it("runs in its phase, for all of the listener's requests", h.test(function()
    local gateway = h.gateway { config = config("a", LISTENER) }
    local response = gateway:get "/one"
    assert.equal(200, response.status)
    assert.equal("listener access route a", response.headers["x-way"])
    assert.equal("yes", response.headers["x-edge"])
    response = gateway:get "/stop" -- no route has it
    assert.equal(403, response.status)
    assert.equal("STOPPED\n", response.body)
    response = gateway:get "/nobody"
    assert.equal(404, response.status)
    assert.equal("yes", response.headers["x-edge"])
    gateway:wait_log "logged /one"
    gateway:wait_log "logged /nobody"
    gateway:expect_quiet()
  end))

  it("belongs to the code", h.test(function()
    local gateway = h.gateway { config = config("a", LISTENER) }
    assert.equal("yes", gateway:get("/one").headers["x-edge"])
    gateway:rewrite(config("a", (LISTENER:gsub('"yes"', '"new"'))))
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("new", gateway:get("/one").headers["x-edge"])
    gateway:rewrite(config("b", ""))
    assert.equal(0, gateway:ask("reload").code)
    assert.is_nil(gateway:get("/one").headers["x-edge"])
  end))

  it("is refused without a name, and where there are no requests", h.test(function()
    local function refused(listener, ...)
      local path = h.write_file(([[local moongate = require "moongate"
        moongate.listener { port = 0, %s }
        moongate.upstream { name = "backend", endpoints = { "127.0.0.1:1" } }
        moongate.route { name = "r", listeners = { "edge" }, backends = "backend" }]]):format(listener))
      local result = h.exec { "check", path }
      assert.equal(1, result.code)
      for _, text in ipairs { ... } do assert.truthy(result.stderr:find(text, 1, true), result.stderr) end
    end
    refused("access = function() end", "access: a listener with a function has no name", 'add name = "edge"')
    refused('name = "edge", protocol = "tcp", log = function() end', 'log: has no meaning with "tcp"')
    refused('name = "edge", access = "x"', "access", "a function")
    refused('name = "edge", balancer = function() end', "balancer", "unknown key")
  end))
end)
