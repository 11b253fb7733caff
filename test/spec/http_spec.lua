-- moongate.http.request: requests of a script's own (core/exchange/call.h has the specs of what happens on the wire).
local h = require "test.support.harness"

-- A gateway whose script is this text; "$1" and so on stand for the addresses of backends.
local function script(text, backends, options)
  local all = ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
]] .. text):gsub("%$(%d)", function(i) return backends[tonumber(i)]:address() end)
  options = options or {}
  options.config = all
  return h.gateway(options)
end

local function hanging()
  return h.backend(function(connection)
    connection:read_request()
    connection:wait_end(60000)
  end)
end

-- A backend that holds its answers until it is let go.
local function held()
  local gate, is_open = h.loop.signal(), false
  local backend = h.backend(function(connection)
    while connection:read_request() do
      h.loop.wait(gate, 20000, "the gate", function() return is_open end)
      connection:send(h.http1.response("200 OK", "held"))
    end
  end)
  function backend.let_go() is_open = true gate:fire() end
  return backend
end

-- One request on a task of its own: { response = } once it is done.
local function ask(gateway, path)
  local self = {}
  self.task = h.task(function() self.response = gateway:get(path or "/") end)
  function self.wait(ms)
    h.loop.wait(self.task.ended, ms or 10000, "the answer", function() return self.task.done end)
    return self.response
  end
  return self
end

-- A route whose access function makes one request and answers with what came of it.
local function one(options)
  return [[
moongate.route { path = "/", access = function(exchange)
  local response, err = moongate.http.request { ]] .. options .. [[ }
  if not response then return exchange:respond(502, err) end
  exchange:respond(response.status, response.body)
end }
]]
end

describe("moongate.http.request", function()
  it("asks two backends at once and makes one answer", h.test(function()
    local a, b = held(), held()
    local gateway = script([[
moongate.route { path = "/", access = function(exchange)
  local function get(url) return moongate.http.request { url = url } end
  local one, two = moongate.wait_all(
    moongate.spawn(get, "http://$1/one"), moongate.spawn(get, "http://$2/two"))
  exchange:respond(200, one.body .. "+" .. two.body)
end }]], { a, b })
    local request = ask(gateway)
    a:wait_requests(1)
    b:wait_requests(1) -- neither has answered
    a.let_go()
    b.let_go()
    assert.equal("held+held", request.wait().body)
    gateway:expect_quiet()
  end))

  it("sends method, headers and body, and reads them", h.test(function()
    local backend = h.backend(h.always("HTTP/1.1 201 Made\r\nX-A: 1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n" ..
      "All: it\r\nContent-Length: 5\r\n\r\nhello"))
    local gateway = script([[
moongate.route { path = "/", access = function(exchange)
  local r = moongate.http.request { url = "http://$1/p?q=1", method = "PUT", body = "abc",
    headers = { ["x-one"] = { "1", 2 }, host = "other.test", ["X-Num"] = 3 } }
  local names = {}
  for name, value in r.headers:each() do names[#names + 1] = name .. "=" .. value end
  exchange:respond(200, { r.status, r.body, r.headers["x-a"], r.headers["Set-Cookie"], #r.headers:all "SET-COOKIE",
    r.headers:get "all", tostring(r.headers.none), #r.headers:all "none", table.concat(names, ";") })
end }]], { backend })
    assert.equal('[201,"hello","1","a=1, b=2",2,"it","nil",0,' ..
      '"X-A=1;Set-Cookie=a=1;set-cookie=b=2;All=it;Content-Length=5"]', gateway:get("/").body)
    local request = backend.requests[1]
    assert.equal("PUT /p?q=1 HTTP/1.1", request.head:match "^[^\r]+")
    assert.equal("abc", request.body)
    assert.equal("other.test", request.headers.host)
    assert.equal("1, 2", request.headers["x-one"])
    assert.equal("3", request.headers["x-num"])
  end))

  it("sends a table as JSON, with POST", h.test(function()
    local backend = h.backend()
    local gateway = script(one 'url = "http://$1/", body = { a = { 1, 2 } }', { backend })
    assert.equal(200, gateway:get("/").status)
    local request = backend.requests[1]
    assert.equal("POST", request.method)
    assert.equal('{"a":[1,2]}', request.body)
    assert.equal("application/json", request.headers["content-type"])
  end))

  it("keeps its connection", h.test(function()
    local backend = h.backend()
    local gateway = script(one 'url = "http://$1/"', { backend })
    for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
    assert.equal(20, #backend.requests)
    assert.equal(1, #backend.connections)
  end))

  it("goes to an upstream by its name", h.test(function()
    local a, b = h.backend(), h.backend()
    local gateway = script('moongate.upstream { name = "users", endpoints = { "$1", "$2" } }\n' ..
      one 'upstream = "users", url = "/x"', { a, b })
    for _ = 1, 4 do assert.equal("you asked for /x\n", gateway:get("/").body) end
    assert.equal(2, #a.requests)
    assert.equal(2, #b.requests)
    assert.equal("users", a.requests[1].headers.host)
  end))

  it("says which host failed, and why", h.test(function()
    local slow, long, broken = hanging(), h.backend(h.always(h.http1.response("200 OK", ("x"):rep(100)))),
      h.backend(h.once "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    broken.script = function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    end
    local dead = h.dead_port()
    local cases = {
      { 'url = "http://$1/", timeout = 0.1', slow:address() .. ": timeout" },
      { 'url = "http://$2/", max_body = 99', long:address() .. ": the body is longer than max_body" },
      { 'url = "http://$3/"', broken:address() .. ": the connection was closed before the response was whole" },
      { ('url = "http://127.0.0.1:%d/"'):format(dead), ("127.0.0.1:%d: connection refused"):format(dead) },
      { 'upstream = "empty", url = "/"', 'upstream "empty": the upstream has no endpoint' },
      { 'upstream = "none", url = "/"', 'upstream "none": no such upstream' },
    }
    for _, case in ipairs(cases) do
      local gateway = script('moongate.upstream { name = "empty", endpoints = {} }\n' .. one(case[1]),
        { slow, long, broken })
      local response = gateway:get "/"
      assert.equal(502, response.status)
      assert.equal(case[2], response.body)
      gateway:expect_quiet()
    end
    for _, max in ipairs { "100", "1e300, timeout = 1e300, connect_timeout = 1e-300", "math.huge, timeout = math.huge" } do
      local gateway = script(one('url = "http://$1/", max_body = ' .. max), { long })
      assert.is_true(#gateway:get("/").body == 100 or max:find "1e%-300" ~= nil)
    end
  end))

  it("raises the caller's mistakes at the caller's line", h.test(function()
    for given, text in pairs {
      ['"http://a/"'] = "takes a table, got string",
      ["{}"] = "url is missing",
      ['{ url = 1 }'] = "url takes a string, got number",
      ['{ url = "a" }'] = 'unusable URL: "a"',
      ['{ url = "http://a/", metod = "PUT" }'] = "unknown key metod; did you mean method?",
      ['{ url = "http://a/", method = "CONNECT" }'] = "unusable method",
      ['{ url = "http://a/", timeout = 0 }'] = "timeout is more than 0, got 0",
      ['{ url = "http://a/", headers = { "x" } }'] = "headers takes names and values, got a list",
      ['{ url = "http://a/", headers = { ["x-a"] = true } }'] = 'headers["x-a"] takes a string',
      ['{ url = "http://a/", headers = { ["x-a"] = "1\\n" } }'] = "unusable header field",
      ['{ url = "http://a/", headers = { ["content-length"] = "1" } }'] = "unusable header field",
      ['{ url = "http://a/", body = 1 }'] = "body takes a string or a table, got number",
      ['{ url = "http://a/", body = { print } }'] = "json.encode",
    } do
      local gateway = script([[
moongate.route { path = "/", access = function(exchange)
  local ok, err = pcall(function()
    local response = moongate.http.request(]] .. given .. [[)
    return response
  end)
  exchange:respond(200, err)
end }]], {})
      local body = gateway:get("/").body
      assert.is_truthy(body:find("gateway%.lua:6: moongate%.http%.request: "), body)
      assert.is_truthy(body:find(text, 1, true), body)
    end
  end, 60000))

  it("is for functions, not for the script itself", h.test(function()
    local path = h.write_file 'require "moongate".http.request { url = "http://127.0.0.1:1/" }\n'
    local result = h.exec { "check", path }
    assert.equal(1, result.code)
    assert.is_truthy(result.stderr:find("can be used in phases, timers and init_worker", 1, true), result.stderr)
  end))

  it("works in every phase", h.test(function()
    local backend, auth = h.backend(), h.backend()
    local gateway = script([[
local function call(exchange)
  local r = assert(moongate.http.request { url = "http://$2/" .. (exchange and "x" or "init") })
  return r.status
end
moongate.init_worker(function() call() end)
moongate.timer.after(0, function()
  assert(moongate.http.request { url = "http://$2/timer" })
end)
moongate.upstream { name = "backend", endpoints = { "$1" } }
moongate.route { path = "/", backends = "backend",
  rewrite = function(e) e.request.headers["x-rewrite"] = call(e) end,
  access = function(e) e.request.headers["x-access"] = call(e) end,
  header_filter = function(e) e.response.headers["x-header-filter"] = call(e) end,
  body_filter = function(e)
    for piece in e.response:chunks() do e.response:write(call(e) .. " " .. piece) end
    e.response:write("end " .. call(e))
  end,
  log = function(e) call(e) moongate.log.info("logged " .. e.response.status) end }
]], { backend, auth })
    local response = gateway:get "/a"
    assert.equal("200 you asked for /a\nend 200", response.body)
    assert.equal("200", response.headers["x-header-filter"])
    assert.equal("200", backend.requests[1].headers["x-rewrite"])
    assert.equal("200", backend.requests[1].headers["x-access"])
    gateway:wait_log "logged 200"
    auth:wait_requests(8)
    local seen = {}
    for _, request in ipairs(auth.requests) do seen[request.target] = (seen[request.target] or 0) + 1 end
    assert.same({ ["/x"] = 6, ["/init"] = 1, ["/timer"] = 1 }, seen)
    gateway:expect_quiet()
  end))

  it("works on control, by URL #threads", h.test(function()
    local backend = h.backend()
    local gateway = script([[
moongate.upstream { name = "a", endpoints = { "$1" } }
moongate.timer.after(0, function()
  local r = assert(moongate.http.request { url = "http://$1/control" })
  local ok, err = pcall(moongate.http.request, { upstream = "a", url = "/" })
  moongate.log.info("control: " .. r.status .. " " .. tostring(err))
end, { on = "control" })
moongate.route { path = "/", backends = "a" }
]], { backend })
    gateway:wait_log "control: 200 .*upstream can be used in workers"
    assert.equal(1, #backend.requests)
  end))

  it("that waits on control does not hold up the end #threads", h.test(function()
    local backend = hanging()
    local gateway = script([[
moongate.timer.after(0, function()
  moongate.http.request { url = "http://$1/control" }
end, { on = "control" })
moongate.timer.after(0, function() moongate.http.request { url = "http://$1/worker" } end)
moongate.route { path = "/", access = function(e) e:respond(200) end }
]], { backend })
    backend:wait_requests(2)
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(5000)))
  end))

  it("finds names on control, and leaves while it waits for one #threads", h.test(function()
    local backend, server = h.backend(), h.name_server(function() end)
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1, resolver = { servers = { "127.0.0.1:%d" }, timeout = 30 } }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.timer.after(0, function()
  local r = assert(moongate.http.request { url = "http://localhost:%d/" })
  moongate.log.info("control: " .. r.status)
  moongate.http.request { url = "http://users.test.:1/" }
end, { on = "control" })
moongate.route { path = "/", access = function(e) e:respond(200) end }
]]):format(server.port, backend.port) }
    gateway:wait_log "control: 200"
    h.loop.wait(server.changed, 3000, "a question", function() return #server.queries >= 1 end)
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(5000)))
  end))

  it("waits inside of coroutines of the script, however they are resumed", h.test(function()
    local backend = h.backend()
    local gateway = script([[
local create, resume, wrap = coroutine.create, coroutine.resume, coroutine.wrap -- as modules do
local function get(path) return (assert(moongate.http.request { url = "http://$1" .. path }).body) end
moongate.route { path = "/", access = function(exchange)
  local inner = create(function(path)
    local first = get(path)
    coroutine.yield(first)
    return get "/two"
  end)
  local _, one = resume(inner, "/one")
  local _, two = resume(inner)
  exchange:respond(200, one .. two .. wrap(function() return get "/three" end)())
end }]], { backend })
    for _ = 1, 3 do
      assert.equal("you asked for /one\nyou asked for /two\nyou asked for /three\n", gateway:get("/").body)
    end
    gateway:expect_quiet()
  end))
end)

describe("a request of a script", function()
  it("ends with its client", h.test(function()
    local backend = hanging()
    local gateway = script([[
moongate.route { path = "/", access = function(exchange)
  moongate.spawn(function() moongate.http.request { url = "http://$1/task" } end)
  moongate.http.request { url = "http://$1/own" }
end }]], { backend })
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    backend:wait_requests(2)
    assert.equal(2, gateway:metrics().moongate_calls_live)
    client:close()
    for _, connection in ipairs(backend.connections) do connection:wait_end() end
    gateway:expect_quiet()
    assert.equal(0, gateway:metrics().moongate_calls_live)
  end))

  it("of a response phase ends with its client", h.test(function()
    for _, phase in ipairs { "header_filter", "body_filter" } do
      local backend, slow = h.backend(), hanging()
      local gateway = script([[
moongate.upstream { name = "backend", endpoints = { "$1" } }
moongate.route { path = "/", backends = "backend", ]] .. phase .. [[ = function()
  moongate.http.request { url = "http://$2/" }
end, log = function() moongate.log.info "logged" end }]], { backend, slow })
      local client = gateway:connect()
      client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      slow:wait_requests(1)
      client:close()
      slow.connections[1]:wait_end()
      gateway:wait_log "logged"
      gateway:expect_quiet()
      assert.equal(0, gateway:metrics().moongate_calls_live)
    end
  end))

  it("of log goes on without its client", h.test(function()
    local backend = held()
    local gateway = script([[
moongate.route { path = "/", access = function(exchange) exchange:respond(200) end, log = function()
  moongate.log.info("told: " .. assert(moongate.http.request { url = "http://$1/" }).body)
end }]], { backend })
    assert.equal(200, gateway:get("/").status) -- and closes
    backend:wait_requests(1)
    backend.let_go()
    gateway:wait_log "told: held"
    gateway:expect_quiet()
  end))

  it("outlives a reload", h.test(function()
    local backend = held()
    local text = one 'url = "http://$1/"'
    local gateway = script(text, { backend })
    local request = ask(gateway)
    backend:wait_requests(1)
    gateway:rewrite(h.config { routes = { { path = "/", plugins = { { "direct-response", body = "new" } } } } })
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("new", gateway:get("/").body)
    backend.let_go()
    assert.equal("held", request.wait().body)
    gateway:expect_quiet()
  end))

  it("of a timer ends with its generation", h.test(function()
    local backend = hanging()
    local gateway = script([[
moongate.timer.after(0, function() moongate.http.request { url = "http://$1/timer" } end)
moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }]], { backend })
    backend:wait_requests(1)
    gateway:rewrite(h.config { routes = { { path = "/", plugins = { { "direct-response", body = "new" } } } } })
    assert.equal(0, gateway:ask("reload").code)
    backend.connections[1]:wait_end()
    gateway:expect_quiet()
  end))

  it("ends within a drain", h.test(function()
    local backend = held()
    local gateway = script(one 'url = "http://$1/"', { backend })
    local request = ask(gateway)
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_log " info draining"
    backend.let_go()
    assert.equal("held", request.wait().body)
    assert.equal(0, (gateway:wait_exit()))
  end))

  it("ends with a drain that is over", h.test(function()
    local backend = hanging()
    local gateway = script([[
moongate.route { path = "/", access = function(exchange)
  moongate.http.request { url = "http://$1/" }
  exchange:respond(200)
end }]], { backend })
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_log " info draining"
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(5000)))
  end))

  it("is refused beyond 1024 at a time", h.test(function()
    local backend = hanging()
    local gateway = script([[
moongate.route { path = "/", access = function(exchange)
  local tasks = {}
  for i = 1, 1030 do
    tasks[i] = moongate.spawn(function()
      local response, err = moongate.http.request { url = "http://$1/", timeout = 2 }
      return err or response.status
    end)
  end
  local counts = {}
  for _, task in ipairs(tasks) do
    local err = moongate.wait_all(task):gsub("^[^ ]+ ", "")
    counts[err] = (counts[err] or 0) + 1
  end
  exchange:respond(200, counts)
end }]], { backend })
    local body = gateway:request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", { ms = 20000 }).body
    assert.is_truthy(body:find('"too many under way":6', 1, true), body)
    assert.is_truthy(body:find('"timeout":1024', 1, true), body)
    gateway:expect_quiet()
  end, 30000))
end)

-- The figure of the scripts issue.
describe("one worker", function()
  local COUNT, ROUNDS = 1000, 6

  local function round(gateway, path)
    local clients = {}
    for i = 1, COUNT do
      local client = gateway:connect()
      client:send(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(path))
      clients[i] = client
    end
    local good = 0
    for i = 1, COUNT do
      local response = h.read_response(clients[i], { ms = 30000 })
      if response and response.status == 200 then good = good + 1 end
      clients[i]:close()
    end
    assert.equal(COUNT, good)
    gateway:expect_quiet(10000)
    return gateway:rss_kb()
  end

  it("holds 1,000 exchanges that sleep and ask, and gives everything back", h.test(function()
    local backend = h.backend()
    local gateway = script([[
local live, most = 0, 0
moongate.route { path = { exact = "/state" }, access = function(exchange)
  collectgarbage()
  collectgarbage()
  exchange:respond(200, { live = live, most = most, kb = collectgarbage "count" })
end }
moongate.route { path = "/", access = function(exchange)
  live = live + 1
  most = math.max(most, live)
  moongate.sleep(1)
  local response = assert(moongate.http.request { url = "http://$1/" })
  live = live - 1
  exchange:respond(response.status, response.body)
end }]], { backend })
    local cjson = require "cjson"
    local function state() return cjson.decode(gateway:get("/state").body) end
    local before_kb, before = gateway:rss_kb(), state()
    local rss, kb = {}, {}
    for i = 1, ROUNDS do
      rss[i] = round(gateway, "/")
      local now = state()
      kb[i] = now.kb
      assert.equal(0, now.live)
      assert.is_true(now.most >= 900, now.most)
      local metrics = gateway:metrics()
      assert.equal(0, metrics.moongate_coroutines_live)
      assert.equal(0, metrics.moongate_calls_live)
    end
    assert.equal(COUNT * ROUNDS, #backend.requests)
    if os.getenv "MOONGATE_FIGURES" then
      print(("\nRSS %d KiB, then %s; Lua %.0f KiB, then %s"):format(before_kb, table.concat(rss, " "), before.kb,
        table.concat(kb, " ")))
    end
    -- What the first rounds took is kept for reuse, and no more is taken.
    assert.is_true(kb[ROUNDS] < kb[2] * 1.1 + 200, table.concat(kb, " "))
    if os.getenv "MOONGATE_BUILD" ~= "asan" then
      assert.is_true(rss[ROUNDS] < rss[2] * 1.1 + 2048, table.concat(rss, " "))
    end
  end, 120000))
end)
