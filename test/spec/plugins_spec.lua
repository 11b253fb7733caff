-- Built-in plugins: every row of test/spec/data/plugins.lua through one gateway with a port and a route for each, and what
-- `check` says of plugins that are wrong.
local h = require "test.support.harness"
local cases = require "test.spec.data.plugins"

local answer = h.each(function(request)
  return h.http1.response("200 OK", "backend", request.connection.backend.answer_fields)
end)

local function bytes_of(request)
  if request.raw then return request.raw end
  return ("%s %s HTTP/1.1\r\nHost: test.example\r\n%s\r\n%s"):format(request.method or "GET", request.target or "/",
    request.fields or "", request.body or "")
end

local function gateway_for(case, backend)
  local route = { path = not case.matches and (case.path or "/") or nil, matches = case.matches, plugins = case.plugins }
  if case.backends ~= false then route.backends = case.backends or "backend" end
  return h.gateway { backend = backend, upstreams = { dead = "127.0.0.1:" .. h.dead_port() }, routes = { route } }
end

-- The lines behind Host and what the gateway adds of its own.
local function check_head(case, head)
  local lines, forwarded = {}, {}
  for line in head:gmatch "([^\r\n]+)\r\n" do
    if line:lower():find "^x%-forwarded" then
      forwarded[#forwarded + 1] = line
    else
      lines[#lines + 1] = line
    end
  end
  if case.line then assert.equal(case.line, lines[1]) end
  if case.forwarded then assert.same(case.forwarded, forwarded) end
  assert.equal("Host: " .. (case.host or "test.example"), lines[2])
  if case.forwarded_host then
    assert.equal("X-Forwarded-Host: " .. case.forwarded_host, forwarded[3], head)
  end
  if case.head then assert.same(case.head, { unpack(lines, 3) }) end
end

local function check_response(case, response, port)
  assert.equal(case.status or 200, response.status, response.raw)
  assert.is_true(response.complete)
  for name, value in pairs(case.fields or {}) do
    if value then
      assert.equal((value:gsub("PORT", tostring(port))), response.headers[name], name .. " in\n" .. response.raw)
    else
      assert.is_nil(response.headers[name], response.raw)
    end
  end
  if case.body then assert.equal(case.body, response.body) end
end

describe("plugin", function()
  for _, case in ipairs(cases) do
    it(case.name, h.test(function()
      local backend = h.backend(answer)
      backend.answer_fields = case.backend
      local gateway = gateway_for(case, backend)
      local request = case.request or {}
      local response = gateway:request(bytes_of(request), { method = request.method })
      check_response(case, response, gateway.port)
      assert.equal(case.reaches == false and 0 or 1, #backend.requests)
      if backend.requests[1] then check_head(case, backend.requests[1].head) end
      gateway:expect_quiet()
    end))
  end

  it("headers edited once, though the request is sent twice", h.test(function()
    local backend = h.backend(function(connection, index)
      connection:read_request()
      connection:send(h.http1.response("200 OK", "one"))
      if index == 1 then
        connection:read_request()
        return
      end
      connection:read_request()
    end)
    local gateway = h.gateway { backend = backend, routes = { { path = "/a", backends = "backend", plugins = {
      { "request-headers", add = { ["x-a"] = "b" } }, { "url-rewrite", path = { prefix = "/z/a" } } } } } }
    local client = gateway:connect()
    for i = 1, 2 do
      client:send "GET /a/x HTTP/1.1\r\nHost: test.example\r\n\r\n"
      assert.equal(200, h.read_response(client).status)
      if i == 1 then gateway:wait_metrics("an idle link", function(m) return m.moongate_upstream_idle == 1 end) end
    end
    backend:wait_requests(3)
    for i = 1, 3 do
      assert.equal("b", backend.requests[i].headers["x-a"])
      assert.equal("/z/a/x", backend.requests[i].target)
    end
  end))
end)

-- ---- configuration

local HEAD = 'local moongate = require "moongate"\nmoongate.listener { port = 0 }\n' ..
  'moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }\n'

local function check(route)
  local path = h.write_file(HEAD .. "moongate.route { " .. route .. " }\n")
  local result = h.exec { "check", path }
  result.all = result.stdout .. result.stderr
  return result
end

-- plugin, texts that the message must have
local BAD = {
  { '{ "request-header" }', { 'plugins[1]: there is no plugin "request-header"', 'did you mean "request-headers"?' } },
  { '{ "lua-magic-thing" }', { 'plugins[1]: there is no plugin "lua-magic-thing"', "request-headers", "cors",
    "plugins/NAME/handler.lua beside the script" } },
  { "{ set = {} }", { "plugins[1]: found a table that names no plugin", '{ "plugin", key = value }' } },
  { '{ "cors", "redirect" }', { "plugins[1]: found a table that names no plugin" } },
  { "7", { "plugins[1]: found a number that names no plugin" } },
  { '{ "request-headers", sett = {} }', { "plugins[1].sett: unknown key", 'did you mean "set"?' } },
  { '{ "request-headers", set = { ["x-a"] = 5 } }', { "plugins[1].set.x-a: found 5", "a text, or a list of texts" } },
  { '{ "request-headers", set = { ["x-a"] = { "b", 5 } } }', { "plugins[1].set.x-a[2]: found 5" } },
  { '{ "request-headers", set = { ["x-a"] = {} } }', { 'plugins[1].set.x-a: "x-a" has no value' } },
  { '{ "request-headers", set = { "x-a" } }', { "plugins[1].set[1]: a value without a key" } },
  { '{ "request-headers", remove = "x-a" }', { 'plugins[1].remove: found "x-a"', "a list of header names" } },
  { '{ "request-headers", set = { ["x y"] = "a" } }', { 'plugins[1].set.x y: "x y" is no header name' } },
  { '{ "request-headers", add = { [":path"] = "a" } }', { 'plugins[1].add.:path: ":path" is no header name' } },
  { '{ "request-headers", set = { ["x-a"] = "a\\r\\nb: c" } }', { "plugins[1].set.x-a:", "control characters", "CR, LF or NUL" } },
  { '{ "request-headers", set = { ["x-a"] = "a\\0b" } }', { "plugins[1].set.x-a:", "control characters" } },
  { '{ "request-headers", set = { host = "a" } }', { "plugins[1].set.host:", "url-rewrite", "hostname" } },
  { '{ "request-headers", set = { ["Content-Length"] = "1" } }', { "plugins[1].set.Content-Length:", "frames every message itself" } },
  { '{ "request-headers", remove = { "x", "transfer-encoding" } }', { "plugins[1].remove[2]:", "frames every message itself" } },
  { '{ "request-headers", add = { connection = "x-a" } }', { "plugins[1].add.connection:", "belongs to one connection" } },
  { '{ "response-headers", set = { upgrade = "x" } }', { "plugins[1].set.upgrade:", "belongs to one connection" } },
  { '{ "response-headers", add = { ["content-type"] = "x" } }', { "plugins[1].add.content-type:", "one value only", "use set" } },
  { '{ "request-headers", set = { ["x-a"] = "1" }, remove = { "X-A" } }', { "plugins[1].remove[1]:", '"X-A" is named twice' } },
  { '{ "request-headers", set = { ["x-a"] = "1", ["X-A"] = "2" } }', { "is named twice" } },
  { '{ "url-rewrite" }', { "plugins[1]: url-rewrite changes nothing", "hostname or a path" } },
  { '{ "url-rewrite", hostname = "a b" }', { 'plugins[1].hostname: found "a b", which is not a host' } },
  { '{ "url-rewrite", hostname = "" }', { "plugins[1].hostname:", "not a host" } },
  { '{ "url-rewrite", path = "new" }', { 'plugins[1].path: found "new", which is not a path' } },
  { '{ "url-rewrite", path = "/a?b" }', { 'plugins[1].path: found "/a?b", which is not a path' } },
  { '{ "url-rewrite", path = "/a/../b" }', { 'plugins[1].path: found "/a/../b"; in canonical form it is "/b"' } },
  { '{ "url-rewrite", path = { prefix = "/a\\r\\nb" } }', { "plugins[1].path.prefix:" } },
  { '{ "url-rewrite", path = { prefix = "x" } }', { 'plugins[1].path.prefix: found "x", which is not a path' } },
  { '{ "url-rewrite", path = {} }', { "plugins[1].path.prefix: missing" } },
  { '{ "url-rewrite", path = 5 }', { "plugins[1].path: found 5", '"/new"', "prefix" } },
  { '{ "redirect" }', { "plugins[1]: the redirect leads every request to itself" } },
  { '{ "redirect", status = 301 }', { "leads every request to itself" } },
  { '{ "redirect", scheme = "htps" }', { 'plugins[1].scheme: found "htps"', '"http" or "https"' } },
  { '{ "redirect", path = "/a", status = 200 }', { "plugins[1].status: found 200", "301, 302, 303, 307 or 308" } },
  { '{ "redirect", path = "/a", status = 305 }', { "plugins[1].status: found 305", "301, 302, 303, 307 or 308" } },
  { '{ "redirect", port = 0 }', { "plugins[1].port: found 0" } },
  { '{ "redirect", hostname = "a:80" }', { 'plugins[1].hostname: found "a:80"', "port has a key of its own" } },
  { '{ "redirect", scheme = "https" }, { "url-rewrite", path = "/a" }', { 'plugins[2]: cannot stand together with "redirect"' } },
  { '{ "url-rewrite", path = "/a" }, { "redirect", scheme = "https" }', { 'plugins[2]: cannot stand together with "url-rewrite"' } },
  { '{ "direct-response", status = 100 }', { "plugins[1].status: found 100" } },
  { '{ "direct-response", status = 204, body = "x" }', { "plugins[1].body: an answer with status 204 has no body" } },
  { '{ "direct-response", content_type = "a\\nb" }', { "plugins[1].content_type:", "control characters" } },
  { '{ "direct-response", headers = { ["content-length"] = "1" } }', { "plugins[1].headers.content-length:" } },
  { '"cors"', { "plugins[1].origins: missing" } },
  { '{ "cors", origins = {} }', { "plugins[1].origins: found 0 items" } },
  { '{ "cors", origins = { "*", "https://a.example" } }', { "plugins[1].origins[1]:", "stands alone" } },
  { '{ "cors", origins = { "www.example.com" } }', { 'plugins[1].origins[1]: found "www.example.com"', "scheme and host" } },
  { '{ "cors", origins = { "https://a.example/" } }', { "plugins[1].origins[1]:" } },
  { '{ "cors", origins = { "https://a*.example" } }', { "plugins[1].origins[1]:" } },
  { '{ "cors", origins = { "https://*x.example" } }', { "plugins[1].origins[1]:" } },
  { '{ "cors", origins = { "*" }, methods = { "get" } }', { 'plugins[1].methods[1]: found "get"', "capitals" } },
  { '{ "cors", origins = { "*" }, headers = { "x y" } }', { 'plugins[1].headers[1]: found "x y"' } },
  { '{ "cors", origins = { "*" }, credentials = true, expose_headers = { "*" } }', { "plugins[1].expose_headers:", "credentials" } },
  { '{ "cors", origins = { "*" }, max_age = 0 }', { "plugins[1].max_age: found 0" } },
}

describe("a wrong plugin", function()
  for _, case in ipairs(BAD) do
    it(case[1], h.test(function()
      local result = check(('name = "users", backends = "echo", plugins = { %s }'):format(case[1]))
      assert.equal(1, result.code, result.all)
      assert.is_not_nil(result.all:find('gateway%.lua:4: route "users": '), result.all)
      for _, text in ipairs(case[2]) do
        assert.is_not_nil(result.all:find(text, 1, true), ("no %s in:\n%s"):format(text, result.all))
      end
    end))
  end

  it("is told among others, all at once", h.test(function()
    local result = check 'backends = "echo", plugins = { { "cors" }, { "corse" }, { "redirect", port = 0 } }'
    for i = 1, 3 do assert.is_not_nil(result.all:find("plugins[" .. i .. "]", 1, true), result.all) end
  end))
end)

describe("a route without backends", function()
  it("is an error that says what would do", h.test(function()
    local result = check 'path = "/x", plugins = { { "request-headers", set = { ["x-a"] = "b" } } }'
    assert.equal(1, result.code)
    assert.is_not_nil(result.all:find('route "/x": backends: missing', 1, true), result.all)
    assert.is_not_nil(result.all:find("direct-response", 1, true), result.all)
  end))

  for _, plugin in ipairs { '{ "redirect", scheme = "https" }', '"direct-response"' } do
    it("is fine with " .. plugin, h.test(function()
      local result = check('path = "/x", plugins = { ' .. plugin .. " }")
      assert.equal(0, result.code, result.all)
    end))
  end
end)

describe("a prefix to replace", function()
  for _, match in ipairs { 'path = { exact = "/a" }', 'path = { regex = "/a.*" }', 'matches = { { path = { exact = "/a" } } }',
    'matches = { { path = "/a" }, { path = "/b" } }', 'matches = { { path = "/a" }, { methods = { "GET" } } }' } do
    it("is not there with " .. match, h.test(function()
      for _, plugin in ipairs { "url-rewrite", "redirect" } do
        local result = check(('name = "x", backends = "echo", %s, plugins = { { "%s", path = { prefix = "/z" } } }'):format(match, plugin))
        assert.equal(1, result.code, result.all)
        assert.is_not_nil(result.all:find("plugins[1].path.prefix: the route matches no path prefix", 1, true), result.all)
      end
    end))
  end
end)
