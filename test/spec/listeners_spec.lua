-- Listeners: hostnames, several on one port, routes that name listeners, several addresses, plugins of listeners.
local uv = require "luv"
local h = require "test.support.harness"

if not h.has_binary() then
  describe("listeners", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local HEAD = 'local m = require "moongate"\nm.settings { workers = 1 }\n' ..
  'm.upstream { name = "backend", endpoints = { "builtin:echo" } }\n'

-- A script: %PORT% is a free port.
local function script(text)
  local port = h.dead_port()
  return HEAD .. text:gsub("%%PORT%%", port), port
end

local function says(body, listeners)
  return ('m.route { name = "%s", listeners = %s, plugins = { { "direct-response", body = "%s" } } }\n'):format(
    body, listeners or "nil", body)
end

local function get(gateway, host, path, port)
  return gateway:request(("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n"):format(path or "/", host), { port = port })
end

local SHARED = [[
m.listener { port = %PORT%, address = "127.0.0.1", name = "exact", hostname = "api.example.com" }
m.listener { port = %PORT%, address = "127.0.0.1", name = "wild", hostname = "*.example.com" }
m.listener { port = %PORT%, address = "127.0.0.1", name = "deep", hostname = "*.deep.example.com" }
]]
local REST = 'm.listener { port = %PORT%, address = "127.0.0.1", name = "rest" }\n'
local NAMED = says("exact", '{ "exact" }') .. says("wild", '{ "wild" }') .. says("deep", '{ "deep" }')

local function check(text)
  local path = h.write_file(HEAD .. text)
  local result = h.exec { "check", path }
  return result
end

describe("the hostname of a listener", function()
  it("gives a request to the most specific listener of its port", h.test(function()
    local gateway = h.gateway { config = (script(SHARED .. REST .. NAMED .. says("rest", '{ "rest" }'))) }
    assert.equal(1, #gateway.ports)
    for host, listener in pairs {
      ["api.example.com"] = "exact", ["API.Example.COM"] = "exact", ["api.example.com."] = "exact",
      ["api.example.com:81"] = "exact", ["x.example.com"] = "wild", ["a.x.example.com"] = "wild",
      ["deep.example.com"] = "wild", ["x.deep.example.com"] = "deep", ["a.x.deep.example.com"] = "deep",
      ["example.com"] = "rest", ["example.org"] = "rest", ["127.0.0.1"] = "rest",
    } do
      assert.equal(listener, get(gateway, host).body, host)
    end
    local old = gateway:request("GET / HTTP/1.0\r\n\r\n")
    assert.equal("rest", old.body)
  end))

  it("answers 404 where no listener takes the host", h.test(function()
    local gateway = h.gateway { config = (script(SHARED .. NAMED)) }
    for _, host in ipairs { "example.com", "example.org", "xexample.com" } do
      local response = get(gateway, host)
      assert.equal(404, response.status, host)
      assert.is_not_nil(response.body:find "no listener takes this host", response.body)
    end
    assert.equal(404, gateway:request("GET / HTTP/1.0\r\n\r\n").status)
    assert.equal("exact", get(gateway, "api.example.com").body)
  end))

  it("never falls through to a less specific listener", h.test(function()
    local gateway = h.gateway { config = (script(SHARED .. REST ..
      'm.route { path = "/only", listeners = { "exact" }, plugins = { { "direct-response", body = "only" } } }\n' ..
      says("rest", '{ "rest" }'))) }
    assert.equal("only", get(gateway, "api.example.com", "/only").body)
    local response = get(gateway, "api.example.com", "/other")
    assert.equal(404, response.status)
    assert.is_not_nil(response.body:find "no route matches", response.body)
    assert.equal("rest", get(gateway, "example.org", "/only").body)
  end))

  it("leaves a route without listeners to every listener whose hostname its hosts meet", h.test(function()
    local gateway = h.gateway { config = (script(SHARED .. REST ..
      'm.route { hosts = { "*.example.com" }, plugins = { { "direct-response", body = "hosts" } } }\n' ..
      'm.route { path = "/all", plugins = { { "direct-response", body = "all" } } }\n')) }
    assert.equal("hosts", get(gateway, "api.example.com").body)
    assert.equal("hosts", get(gateway, "x.deep.example.com").body)
    -- the host of a route as it is written goes before the path
    assert.equal("hosts", get(gateway, "api.example.com", "/all").body)
    assert.equal("all", get(gateway, "example.org", "/all").body)
    assert.equal(404, get(gateway, "example.org").status)
  end))

  it("keeps requests of one connection apart", h.test(function()
    local gateway = h.gateway { config = (script(SHARED .. REST .. NAMED .. says("rest", '{ "rest" }'))) }
    local client = gateway:connect()
    for host, listener in pairs { ["api.example.com"] = "exact", ["a.example.com"] = "wild", ["b"] = "rest" } do
      client:send("GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n")
      assert.equal(listener, h.read_response(client).body)
    end
  end))
end)

describe("routes that name listeners", function()
  it("go before nothing and hide nothing on other listeners", h.test(function()
    -- the same match twice: on "wild" the first, elsewhere the second
    local gateway = h.gateway { config = (script(SHARED .. says("named", '{ "wild" }') .. says("all"))) }
    assert.equal("named", get(gateway, "x.example.com").body)
    assert.equal("all", get(gateway, "api.example.com").body)
  end))

  it("work over several ports", h.test(function()
    local gateway = h.gateway { config = HEAD ..
      'm.listener { port = 0, address = "127.0.0.1", name = "one" }\n' ..
      'm.listener { port = 0, address = "127.0.0.1", name = "two" }\n' ..
      says("one", '{ "one" }') .. says("two", '{ "two" }') ..
      'm.route { path = "/both", listeners = { "one", "two" }, plugins = { { "direct-response", body = "both" } } }\n' }
    for i, name in ipairs { "one", "two" } do
      assert.equal(name, get(gateway, "h.example", "/", gateway.ports[i]).body)
      assert.equal("both", get(gateway, "h.example", "/both", gateway.ports[i]).body)
    end
  end))
end)

describe("a listener that is wrong", function()
  local ROUTE = 'm.route { path = "/", backends = "backend" }\n'
  local L = "m.listener "
  local CASES = {
    { "the same port twice", L .. "{ port = 80 }\n" .. L .. "{ port = 80 }\n" .. ROUTE,
      { "gateway.lua:5: listener: port: 0.0.0.0:80 is taken by the listener of line 4", "hostname" } },
    { "the same hostname twice", L .. '{ port = 80, hostname = "a.b" }\n' .. L .. '{ port = 80, hostname = "A.b" }\n' .. ROUTE,
      { 'gateway.lua:5: listener: hostname: the listener of line 4 has "a.b" on 0.0.0.0:80 already' } },
    { "the same wildcard twice", L .. '{ port = 80, hostname = "*.b" }\n' .. L .. '{ port = 80, hostname = "*.b" }\n' .. ROUTE,
      { 'has "*.b" on' } },
    { "an address beside every address",
      L .. '{ port = 80, hostname = "a.b" }\n' .. L .. '{ port = 80, address = "127.0.0.1", hostname = "b.b" }\n' .. ROUTE,
      { "gateway.lua:5: listener: address: 127.0.0.1:80 and 0.0.0.0:80 of line 4 take the same", "same address" } },
    { "every IPv6 address beside every IPv4 one", L .. '{ port = 80, address = { "0.0.0.0", "::" } }\n' .. ROUTE,
      { "gateway.lua:4: listener: address[2]: [::]:80 and 0.0.0.0:80 of line 4" } },
    { "no address", L .. '{ port = 80, address = { "127.0.0.1", "localhost" } }\n' .. ROUTE,
      { 'address[2]: not an address: "localhost"' } },
    { "no addresses", L .. "{ port = 80, address = {} }\n" .. ROUTE, { "address: an empty list" } },
    { "a hostname with a port", L .. '{ port = 80, hostname = "a.b:80" }\n' .. ROUTE,
      { 'hostname: found "a.b:80"', "without a port" } },
    { "a star in the middle", L .. '{ port = 80, hostname = "a.*.b" }\n' .. ROUTE, { "hostname: found", "leftmost label" } },
    { "a star alone", L .. '{ port = 80, hostname = "*" }\n' .. ROUTE, { "hostname: found", "leave it out" } },
    { "a name twice", L .. '{ port = 80, name = "a" }\n' .. L .. '{ port = 81, name = "a" }\n' .. ROUTE,
      { 'gateway.lua:5: listener "a": name: "a" is the name of the listener in line 4' } },
    { "a route of an unknown listener", L .. '{ port = 80, name = "public" }\n' ..
      'm.route { path = "/", listeners = { "publik" }, backends = "backend" }\n',
      { 'listeners[1]: there is no listener "publik"', 'did you mean "public"' } },
    { "a route of no listener", L .. '{ port = 80, name = "public" }\n' ..
      'm.route { path = "/", listeners = {}, backends = "backend" }\n', { "listeners: an empty list takes no request" } },
    { "hosts that no listener takes", L .. '{ port = 80, hostname = "*.example.com" }\n' ..
      'm.route { hosts = { "example.com" }, backends = "backend" }\n',
      { "gateway.lua:5: ", "hosts: no listener takes any of these hosts" } },
    { "hosts that the route's listener does not take",
      L .. '{ port = 80, hostname = "a.example.com", name = "a" }\n' .. L .. "{ port = 80 }\n" ..
      'm.route { hosts = { "b.example.com" }, listeners = { "a" }, backends = "backend" }\n',
      { "hosts: no listener of the route takes any" } },
    { "the same match twice on its listener",
      L .. '{ port = 80, name = "a" }\n' .. L .. '{ port = 81, name = "b" }\n' ..
      'm.route { listeners = { "a" }, backends = "backend" }\n' ..
      'm.route { name = "x", listeners = { "a" }, backends = "backend" }\n',
      { 'gateway.lua:7: route "x": the same match stands in line 6 already' } },
    { "a plugin that is none", L .. '{ port = 80, plugins = { { "corse" } } }\n' .. ROUTE,
      { 'gateway.lua:4: listener: plugins[1]: there is no plugin "corse"', "cors" } },
    { "a plugin of a route that one of its listener excludes",
      L .. '{ port = 80, plugins = { { "url-rewrite", hostname = "a.b" } } }\n' ..
      'm.route { path = "/old", plugins = { { "redirect", path = "/new" } } }\n',
      { 'gateway.lua:5: route "/old": plugins: "redirect" cannot stand together with "url-rewrite", which its listener has (line 4)',
        "or name other `listeners` in the route" } },
  }
  for _, case in ipairs(CASES) do
    it(case[1], h.test(function()
      local result = check(case[2])
      assert.equal(1, result.code, result.stderr)
      for _, text in ipairs(case[3]) do
        assert.is_not_nil(result.stderr:find(text, 1, true), text .. "\nin:\n" .. result.stderr)
      end
    end))
  end

  it("is right where the plugins that exclude each other never meet", h.test(function()
    local result = check(L .. '{ port = 80, plugins = { { "redirect", scheme = "https" } } }\n' ..
      L .. '{ port = 81, name = "b", plugins = { { "url-rewrite", hostname = "a.b" } } }\n' ..
      L .. '{ port = 82, name = "c" }\n' ..
      'm.route { path = "/a", listeners = { "c" }, plugins = { { "redirect", path = "/new" } } }\n' ..
      'm.route { path = "/b", backends = "backend", plugins = { { "url-rewrite", path = "/c" } } }\n')
    assert.equal(0, result.code, result.stderr)
  end))

  it("is right again", h.test(function()
    local result = check(L .. '{ port = 80, hostname = "a.b" }\n' .. L .. '{ port = 80, hostname = "*.b" }\n' ..
      L .. "{ port = 80 }\n" .. L .. '{ port = 81, address = { "127.0.0.1", "::1" } }\n' ..
      L .. '{ port = 81, address = "127.0.0.2" }\n' .. ROUTE ..
      'm.route { hosts = { "*.x.b", "c.d" }, backends = "backend" }\n')
    assert.equal(0, result.code, result.stderr)
  end))
end)

describe("addresses of a listener", function()
  it("are several, IPv6 among them", h.test(function()
    local probe = uv.new_tcp()
    local has_ipv6 = probe:bind("::1", 0) == 0
    probe:close()
    if not has_ipv6 then return pending "no IPv6 here" end
    local text = script 'm.listener { port = %PORT%, address = { "127.0.0.1", "::1" } }\nm.route { backends = "backend" }\n'
    local gateway = h.gateway { config = text }
    assert.is_not_nil(gateway:log():find "listening on 127%.0%.0%.1:%d+ %(http%)")
    assert.is_not_nil(gateway:log():find "listening on %[::1%]:%d+ %(http%)")
    assert.equal(200, gateway:get("/").status)
    local response = gateway:get("/", nil, { host = "::1" })
    assert.equal(200, response.status)
    assert.is_not_nil(response.body:find '"%[?::1%]?"', response.body) -- X-Forwarded-For
  end))
end)

describe("plugins of a listener", function()
  local function with(plugins, routes)
    return HEAD .. 'm.listener { port = 0, address = "127.0.0.1", plugins = ' .. plugins .. " }\n" .. routes
  end

  it("run before those of the route", h.test(function()
    local gateway = h.gateway { config = with(
      '{ { "request-headers", add = { ["x-at"] = "listener" } }, { "response-headers", add = { ["x-out"] = "listener" } } }',
      'm.route { backends = "backend", plugins = { { "request-headers", add = { ["x-at"] = "route" } }, ' ..
      '{ "response-headers", add = { ["x-out"] = "route" } } } }\n') }
    local response = gateway:get "/"
    assert.equal("listener, route", response.headers["x-out"])
    local first, second = response.body:find("listener", 1, true), response.body:find("route", 1, true)
    assert.is_true(first < second, response.body)
  end))

  it("run for requests that no route takes", h.test(function()
    local gateway = h.gateway { config = with('{ { "response-headers", set = { ["x-out"] = "listener" } } }',
      'm.route { path = "/a", backends = "backend" }\n') }
    local response = gateway:get "/b"
    assert.equal(404, response.status)
    assert.equal("listener", response.headers["x-out"])
    assert.equal(200, gateway:get("/a").status)
    gateway:expect_quiet()
  end))

  it("may answer everything", h.test(function()
    local gateway = h.gateway { config = with('{ { "redirect", scheme = "https", status = 301 } }',
      'm.route { path = "/a", backends = "backend" }\n') }
    for _, path in ipairs { "/a", "/b" } do
      local response = gateway:get(path)
      assert.equal(301, response.status)
      assert.equal("https://test.example" .. path, response.headers.location)
    end
  end))

  it("belong to the listener of the host", h.test(function()
    local text = script([[
m.listener { port = %PORT%, address = "127.0.0.1", hostname = "a.example", plugins = { { "response-headers", set = { x = "a" } } } }
m.listener { port = %PORT%, address = "127.0.0.1", plugins = { { "response-headers", set = { x = "rest" } } } }
m.route { backends = "backend" }
]])
    local gateway = h.gateway { config = text }
    assert.equal("a", get(gateway, "a.example").headers.x)
    assert.equal("rest", get(gateway, "b.example").headers.x)
  end))

  it("read bodies, wait and are cancelled like those of routes", h.test(function()
    if not h.has_binary { is_test = true } then return pending "no binary with test filters" end
    local gateway = h.gateway { is_test = true, config = with(
      '{ { "test", name = "front", access = { wait = 0.05 }, response_body = { mode = "upper" } } }',
      'm.route { path = "/a", plugins = { { "test", name = "back", access = { wait = 0.05 }, ' ..
      'response_body = { mode = "hold", len = 1000, append = "x" } }, { "direct-response", body = "abc" } } }\n') }
    assert.equal("ABCx", gateway:get("/a").body)
    gateway:wait_log "front goes on in access.*back waits in access"
    gateway:wait_log "back logs 200 whole"
    -- a request without a route waits in the listener's alone
    local client = gateway:connect()
    client:send "GET /b HTTP/1.1\r\nHost: h.example\r\n\r\n"
    gateway:wait_log "waits in access.*waits in access.*front waits in access"
    client:close()
    gateway:wait_log "front cancelled in access"
    gateway:expect_quiet()
  end))
end)

describe("explain", function()
  it("says which listener has the request, and its plugins", h.test(function()
    local text = script(SHARED .. REST ..
      'm.route { name = "api", hosts = { "*.example.com" }, listeners = { "exact", "wild" }, backends = "backend" }\n')
    local gateway = h.gateway { config = text }
    local answer = gateway:ask("explain", "GET", "http://api.example.com/users")
    assert.equal(0, answer.code, answer.stderr)
    assert.is_not_nil(answer.stdout:find("listener   127.0.0.1:" .. gateway.port .. " (exact, api.example.com)", 1, true),
      answer.stdout)
    answer = gateway:ask("explain", "GET", "http://b.example.com/users", "--json")
    assert.is_not_nil(answer.stdout:find('"name":"wild","address":"127.0.0.1:' .. gateway.port ..
      '","hostname":"*.example.com"', 1, true), answer.stdout)
    answer = gateway:ask("explain", "GET", "http://b.example.org/")
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stdout:find("404: no route matches", 1, true), answer.stdout)
    assert.is_not_nil(answer.stdout:find("(rest)", 1, true), answer.stdout)
    answer = gateway:ask("explain", "GET", "http://b.example.com:1/")
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stdout:find("no listener is on that port", 1, true), answer.stdout)
  end))

  it("says that no listener takes the host", h.test(function()
    local text = script(SHARED .. NAMED)
    local gateway = h.gateway { config = text }
    local answer = gateway:ask("explain", "GET", "http://example.org/")
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stdout:find("no listener takes this host", 1, true), answer.stdout)
  end))
end)

describe("a reload", function()
  it("adds and takes listeners of an open port, whose connections stay #threads", h.test(function()
    local text = script(REST .. says("all"))
    local gateway = h.gateway { config = text }
    local client = gateway:connect()
    local function ask(host)
      client:send("GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n")
      return h.read_response(client).body
    end
    assert.equal("all", ask "api.example.com")
    -- another port before it: the port has another number now
    local more = 'm.listener { port = 0, address = "127.0.0.1", name = "other" }\n' .. SHARED .. REST .. NAMED ..
      says("rest", '{ "rest" }') .. says("other", '{ "other" }')
    gateway:rewrite(HEAD .. more:gsub("%%PORT%%", gateway.port))
    local answer = gateway:ask "reload"
    assert.equal(0, answer.code, answer.stderr)
    assert.equal("exact", ask "api.example.com")
    assert.equal("wild", ask "a.example.com")
    assert.equal("rest", ask "example.org")
    assert.equal("other", get(gateway, "example.org", "/", gateway.ports[2]).body)
    gateway:rewrite(text)
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("all", ask "api.example.com")
  end))

  it("answers on a port that is gone as it was there", h.test(function()
    local text = script('m.listener { port = %PORT%, address = "127.0.0.1", name = "old" }\n' ..
      'm.listener { port = 0, address = "127.0.0.1", name = "new" }\n' .. says("old", '{ "old" }') .. says("new", '{ "new" }'))
    local gateway = h.gateway { config = text }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h."
    h.pass(50)
    gateway:rewrite(HEAD .. 'm.listener { port = 0, address = "127.0.0.1", name = "new" }\n' .. says("new", '{ "new" }'))
    assert.equal(0, gateway:ask("reload").code)
    client:send "example\r\n\r\n"
    local response = h.read_response(client)
    assert.equal("old", response.body)
    assert.equal("close", response.headers.connection)
  end))
end)
