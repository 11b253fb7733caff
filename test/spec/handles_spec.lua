-- Handles of an exchange (exchange, request, response, headers) beyond its end, or in the hands of another: nil for what is
-- read, an error for what is assigned, and never the data of another exchange.
local cjson = require "cjson"
local h = require "test.support.harness"

local function json(response)
  return assert(cjson.decode(response.body), response.raw)
end

-- Keeps the handles of /keep; /use tells what can be done with them.
local KEPT = [[
  local kept
  local function try(fn)
    local ok, value, err = pcall(fn)
    return { ok = ok, value = value == nil and "nil" or tostring(value), err = err and tostring(err) or nil }
  end
  local function uses(k)
    return {
      method = try(function() return k.exchange.request.method end),
      kept_path = try(function() return k.request.path end),
      host = try(function() return k.request.host end),
      query = try(function() return k.request.query end),
      port = try(function() return k.request.port end),
      args = try(function() return k.request.args end),
      client = try(function() return k.request.client end),
      id = try(function() return k.exchange.id end),
      route = try(function() return k.exchange.route end),
      upstream = try(function() return k.exchange.upstream end),
      vars = try(function() return k.exchange.vars end),
      consumer = try(function() return k.exchange.consumer end),
      status = try(function() return k.response.status end),
      header = try(function() return k.headers["x-secret"] end),
      get = try(function() return k.headers:get "x-secret" end),
      all = try(function() return k.headers:all "x-secret" end),
      each = try(function() return (k.headers:each()()) end),
      body = try(function() return k.request:body() end),
      respond = try(function() return k.exchange:respond(299, "not yours") end),
      response_header = try(function() return k.response.headers["x"] end),
    }
  end
  local function edits(k)
    return {
      path = try(function() k.request.path = "/stolen" end),
      method = try(function() k.request.method = "PUT" end),
      query = try(function() k.request.query = "a" end),
      args = try(function() k.request.args = { a = "b" } end),
      header = try(function() k.headers["x-stolen"] = "1" end),
      remove = try(function() k.headers["x-secret"] = nil end),
      add = try(function() k.headers:add("x-stolen", "1") end),
      status = try(function() k.response.status = 299 end),
      response_header = try(function() k.response.headers["x-stolen"] = "1" end),
      consumer = try(function() k.exchange.consumer = "thief" end),
      set_body = try(function() k.request:set_body "stolen" end),
      chunks = try(function() return k.request:chunks()() end),
    }
  end
  local function keep(exchange)
    kept = { exchange = exchange, request = exchange.request, response = exchange.response,
      headers = exchange.request.headers }
  end
]]

describe("a handle that was kept", function()
  it("is dead for the next request, in the same slot", h.test(function()
    local gateway = h.script(KEPT .. [[
      moongate.route { path = "/keep", backends = "backend", access = keep }
      moongate.route { path = "/use", access = function(exchange)
        exchange:respond(200, { uses = uses(kept), edits = edits(kept), own = exchange.request.headers["x-secret"],
          path = exchange.request.path, is_own = kept.exchange ~= exchange })
      end }]])
    gateway:get("/keep", "X-Secret: first\r\n")
    local answer = json(gateway:get("/use", "X-Secret: second\r\n"))
    for name, use in pairs(answer.uses) do
      assert.is_true(use.ok, name .. ": " .. tostring(use.value))
      assert.equal("nil", use.value, name)
    end
    for _, name in ipairs { "get", "all", "body", "respond" } do
      assert.equal("exchange ended", answer.uses[name].err, name)
    end
    for name, edit in pairs(answer.edits) do
      assert.is_false(edit.ok, name)
      assert.is_not_nil(edit.value:find "exchange ended", name .. ": " .. edit.value)
    end
    assert.equal("second", answer.own)
    assert.equal("/use", answer.path)
    gateway:expect_idle()
  end))

  it("is dead for a timer", h.test(function()
    local gateway = h.script(KEPT .. [[
      moongate.route { path = "/keep", backends = "backend", access = keep }
      moongate.timer.every(0.02, function()
        if not kept or kept.exchange.id then return end
        local text = {}
        for name, use in pairs(uses(kept)) do
          if not use.ok or use.value ~= "nil" then text[#text + 1] = name .. "=" .. use.value end
        end
        for name, edit in pairs(edits(kept)) do
          if edit.ok then text[#text + 1] = name end
        end
        moongate.log.info("wrong: [" .. table.concat(text, " ") .. "]")
      end)]])
    gateway:get("/keep", "X-Secret: first\r\n")
    gateway:wait_log "wrong: "
    assert.is_not_nil(gateway:log():find("wrong: []", 1, true), gateway:log())
  end))

  it("can be read while its exchange lives, and not be changed, by a timer and by another exchange", h.test(function()
    local gateway = h.script(KEPT .. [[
      local function report(all)
        local text = {}
        for name, edit in pairs(all) do
          if edit.ok then text[#text + 1] = name end
        end
        return table.concat(text, " ")
      end
      moongate.route { path = "/keep", backends = "backend", access = function(exchange)
        exchange.vars.own = "mine"
        keep(exchange)
        moongate.sleep(0.5)
        exchange.request.headers["x-path"] = exchange.request.path
      end }
      moongate.route { path = "/use", access = function(exchange)
        local all = edits(kept)
        all.consumer = nil -- a variable, no more
        exchange:respond(200, { changed = report(all), path = kept.request.path, err = all.path.value,
          respond = try(function() return kept.exchange:respond(299, "not yours") end),
          body = try(function() return kept.request:body() end) })
      end }
      moongate.timer.every(0.02, function()
        if not kept or not kept.exchange.id then return end
        local all = edits(kept)
        all.consumer = nil
        moongate.log.info("timer changed: [" .. report(all) .. "]")
      end)]])
    local client = gateway:connect()
    client:send "GET /keep HTTP/1.1\r\nHost: h.example\r\nX-Secret: first\r\n\r\n"
    gateway:wait_log "timer changed: "
    local answer = json(gateway:get "/use")
    assert.equal("", answer.changed)
    assert.equal("/keep", answer.path)
    assert.is_not_nil(answer.err:find "another exchange", answer.err)
    assert.is_false(answer.respond.ok)
    assert.is_false(answer.body.ok)
    assert.equal("you asked for /keep\n", h.read_response(client).body)
    assert.is_not_nil(gateway:log():find("timer changed: []", 1, true))
    local request = gateway.backend.requests[1]
    assert.equal("/keep", request.headers["x-path"])
    assert.is_nil(request.headers["x-stolen"])
    assert.equal("GET", request.method)
    client:close()
    gateway:expect_idle()
  end))

  it("and its vars are never those of the next use of the slot", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local before = exchange.vars.mine
        exchange.vars.mine = exchange.request.path
        global = global or "none"
        local seen = global
        global = exchange.request.path
        exchange:respond(200, tostring(before) .. " " .. seen)
      end }]]
    for i = 1, 5 do assert.equal("nil none", gateway:get("/" .. i).body) end
  end))
end)

describe("a task", function()
  it("of an exchange sees it, and ends with it", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        moongate.spawn(function()
          moongate.log.info("task of " .. exchange.request.path)
          moongate.sleep(60)
          moongate.log.info "never"
        end)
        moongate.sleep(0.02)
        exchange:respond(200, "ok")
      end }]]
    assert.equal("ok", gateway:get("/a").body)
    gateway:wait_log "task of /a"
    gateway:expect_idle()
  end))

  it("may edit while the phase that spawned it is under way, not later, and never answer", h.test(function()
    local slow = h.backend(function(connection)
      while connection:read_request() do
        h.loop.pass(200)
        connection:send(h.http1.response("200 OK", "late"))
      end
    end)
    local gateway = h.script([[
      moongate.route { path = "/", backends = "backend", access = function(exchange)
        local early = moongate.spawn(function()
          exchange.request.headers["x-early"] = "1"
          return pcall(exchange.respond, exchange, 200, "from a task")
        end)
        moongate.spawn(function()
          moongate.sleep(0.05)
          local ok, err = pcall(function() exchange.request.headers["x-late"] = "1" end)
          moongate.log.info("late: " .. tostring(ok) .. " " .. tostring(err))
          ok, err = pcall(function() exchange.request.path = "/late" end)
          moongate.log.info("path: " .. tostring(ok) .. " " .. tostring(err))
        end)
        moongate.log.info("respond: " .. tostring(moongate.wait_all(early)))
      end }]], { backend = slow })
    assert.equal("late", gateway:get("/x").body)
    gateway:wait_log "path: false [^\n]*has ended"
    gateway:wait_log "late: false [^\n]*has ended"
    gateway:wait_log "respond: false"
    assert.equal("1", slow.requests[1].headers["x-early"])
    assert.is_nil(slow.requests[1].headers["x-late"])
    gateway:expect_idle()
  end))

  it("that fails is logged when nobody waits for it, and raised where somebody does", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/alone", access = function(exchange)
        moongate.spawn(function() error "alone" end)
        moongate.sleep(0.02)
        exchange:respond(200, "ok")
      end }
      moongate.route { path = "/awaited", access = function(exchange)
        local task = moongate.spawn(function() moongate.sleep(0.01) error "awaited" end)
        local ok, err = pcall(moongate.wait_all, task)
        exchange:respond(200, tostring(ok) .. tostring(err))
      end }]]
    assert.equal(200, gateway:get("/alone").status)
    gateway:wait_log "warn script: a task failed, and nobody waits for it: [^\n]*alone"
    assert.is_not_nil(gateway:get("/awaited").body:find "^false.*awaited")
  end))

  it("wait_any gives the first, and the others end with the exchange", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local tasks = {}
        for i = 1, 5 do tasks[i] = moongate.spawn(function() moongate.sleep(i == 3 and 0.01 or 60) return i end) end
        exchange:respond(200, tostring(moongate.wait_any(unpack(tasks)).values[1]))
      end }]]
    assert.equal("3", gateway:get("/").body)
    gateway:expect_idle()
  end))
end)
