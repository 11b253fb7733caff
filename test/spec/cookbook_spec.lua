-- Every script of scripts/ passes `check`, starts, and does what its first comment says. A script without an entry fails.
local certs = require "test.support.certs"
local cjson = require "cjson"
local grpc = require "test.support.grpc"
local h = require "test.support.harness"
local hello = require "test.support.hello"
local pebble = require "test.support.pebble"
local ports = require "test.support.ports"
local tls = require "test.support.tls"
local websocket = require "test.support.websocket"
local uv = require "luv"

local names, is_there = {}, {}
local listing = uv.fs_scandir "scripts"
while listing do
  local name, kind = uv.fs_scandir_next(listing)
  if not name then break end
  if kind == "file" and name:find "%.lua$" then
    names[#names + 1] = name
    is_there[name] = true
  end
end
table.sort(names)

local function environment(more)
  local all = {}
  for name, value in pairs(uv.os_environ()) do
    if not more[name] then all[#all + 1] = name .. "=" .. value end
  end
  for name, value in pairs(more) do all[#all + 1] = name .. "=" .. value end
  return all
end

-- The gateway of a script, on a port that nobody else has: some of them send requests to themselves.
local function start(name, more, options)
  more = more or {}
  more.PORT = h.dead_port()
  options = options or {}
  options.file, options.env = options.file or "scripts/" .. name, environment(more)
  return h.gateway(options)
end

-- What builtin:echo says of a request: its headers by name in lower case, or nil when another answered.
local function echoed(response)
  assert.equal(200, response.status, response.raw)
  local headers = {}
  for _, field in ipairs(cjson.decode(response.body).headers) do headers[field[1]:lower()] = field[2] end
  return headers
end

local does = {}

does["hello.lua"] = function()
  local gateway = start "hello.lua"
  assert.equal("GET", cjson.decode(gateway:get("/").body).method)
  assert.equal("x=1", cjson.decode(gateway:get("/any/path?x=1").body).query)
end

does["plugins.lua"] = function()
  local gateway = start "plugins.lua"
  assert.equal("moongate", echoed(gateway:get "/api/users?page=2")["x-via"])
  local moved = gateway:get "/old/page?x=1"
  assert.equal(301, moved.status)
  assert.is_truthy(moved.headers.location:find("/new/page?x=1", 1, true))
  assert.equal("User-agent: *\nDisallow: /\n", gateway:get("/robots.txt").body)
end

does["api_key.lua"] = function()
  local gateway = start "api_key.lua"
  for _, fields in ipairs { "", "X-Api-Key: k-eve\r\n", "X-Api-Key: k-alice\r\nX-Api-Key: k-bob\r\n" } do
    local response = gateway:get("/", fields)
    assert.equal(401, response.status)
    assert.equal("ApiKey", response.headers["www-authenticate"])
  end
  local headers = echoed(gateway:get("/", "X-Api-Key: k-alice\r\nX-Consumer: root\r\n"))
  assert.equal("alice", headers["x-consumer"])
  assert.is_nil(headers["x-api-key"])
end

does["header_routing.lua"] = function()
  local gateway = start "header_routing.lua"
  for fields, name in pairs {
    [""] = "stable", ["X-Env: test\r\n"] = "test", ["X-Env: prod\r\n"] = "stable",
    ["User-Agent: shop-app/3.1 (iPhone)\r\n"] = "mobile", ["User-Agent: shop-app/2.9\r\n"] = "stable",
  } do
    assert.equal(name, gateway:get("/", fields).headers["x-served-by"])
  end
end

does["http2_backend.lua"] = function()
  local gateway = start "http2_backend.lua"
  local function vias(response)
    local list = {}
    for _, field in ipairs(cjson.decode(response.body).headers) do
      if field[1]:lower() == "via" then list[#list + 1] = field[2] end
    end
    return table.concat(list, ", ")
  end
  assert.equal("1.1 moongate, 2.0 moongate", vias(gateway:get "/"))
  local response = gateway:request "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\na body"
  assert.equal("1.1 moongate, 2.0 moongate", vias(response))
end

does["ab_test.lua"] = function()
  local gateway = start "ab_test.lua"
  local counts = { a = 0, b = 0 }
  for _ = 1, 20 do
    local response = gateway:get "/"
    local variant = response.headers["x-variant"]
    counts[variant] = counts[variant] + 1
    assert.equal("variant=" .. variant, response.headers["set-cookie"]:match "^[^;]+")
    for _, cookie in ipairs { "variant=%s", "theme=dark; variant=%s; x=y" } do
      local again = gateway:get("/", "Cookie: " .. cookie:format(variant) .. "\r\n")
      assert.equal(variant, again.headers["x-variant"])
      assert.is_nil(again.headers["set-cookie"])
    end
  end
  assert.is_true(counts.a > 0 and counts.b > 0)
end

does["canary.lua"] = function()
  local gateway = start("canary.lua", { CANARY = "20" }, { args = { "--workers", "1" } })
  local counts = { stable = 0, canary = 0 }
  for _ = 1, 100 do
    local version = gateway:get("/").headers["x-version"]
    counts[version] = counts[version] + 1
  end
  assert.is_true(math.abs(counts.canary - 20) <= 3, counts.canary) -- shares hold in short runs
  for _ = 1, 5 do
    assert.equal("canary", gateway:get("/", "X-Canary: always\r\n").headers["x-version"])
  end
end

does["aggregate.lua"] = function()
  local gateway = start "aggregate.lua"
  local page = gateway:get "/home/7"
  assert.same({ user = { id = "7", name = "Ada" }, orders = { { id = 1, what = "tea" }, { id = 2, what = "milk" } } },
    cjson.decode(page.body))
  assert.equal(cjson.null, cjson.decode(gateway:get("/home/13").body).orders)
  gateway:wait_log "no orders"
  assert.equal(404, gateway:get("/home/x").status)
end

does["rewrite_response.lua"] = function()
  local gateway = start "rewrite_response.lua"
  local link = echoed(gateway:get("/", "X-Link: http://backend.internal/a http://backend.interna\r\n"))["x-link"]
  assert.equal("https://www.example.com/a http://backend.interna", link)
  -- The same script before a backend whose pieces end anywhere.
  local text = ("x http://backend.internal/ http://backend."):rep(200) .. "internal"
  local backend = h.backend(function(connection)
    connection:read_request()
    connection:send("HTTP/1.1 200 OK\r\nContent-Length: " .. #text .. "\r\n\r\n")
    for i = 1, #text, 777 do
      connection:send(text:sub(i, i + 776))
      h.pass(1)
    end
  end)
  local file = assert(io.open "scripts/rewrite_response.lua")
  local script = file:read("*a"):gsub("builtin:echo", backend:address())
  file:close()
  local path = h.write_file(script)
  local response = start("", {}, { file = path }):get "/"
  os.remove(path)
  assert.equal((text:gsub("http://backend%.internal", "https://www.example.com")), response.body)
end

does["chat_filter.lua"] = function()
  local backend = h.backend(websocket.backend(function(connection)
    while true do
      local frame = websocket.read(connection, 20000)
      if not frame or frame.kind == "close" then return end
      connection:send(websocket.frame(frame.kind, frame.data))
    end
  end))
  local gateway = start("chat_filter.lua", { BACKEND = backend:address() }, { args = { "--workers", "1" } })
  local client = websocket.connect(gateway)
  for i = 1, 21 do
    client:send(websocket.frame("text", "my card is 1234 5678 9012 3456", { masked = true }))
    local frame = websocket.read(client)
    if i <= 20 then assert.equal("my card is **** **** **** 3456", frame.data) else assert.equal(1008, frame.code) end
  end
  client:send(websocket.close(1008, "", { masked = true }))
  client:wait_end()
  gateway:wait_log "left"
end

does["grpc.lua"] = function()
  local gateway = start("grpc.lua", { BACKEND = "127.0.0.1:" .. h.dead_port() }, { args = { "--workers", "1" } })
  local function status(path, fields)
    local response = grpc.call(gateway, path, fields)
    assert.equal(200, response.status)
    return response.headers["grpc-status"], response.headers["grpc-message"]
  end
  assert.same({ "7", "not for you" }, { status "/shop.Admin/Reset" })
  assert.same({ "12", "no route matches" }, { status "/shop.Users/Get" })
  gateway:wait_log "is down"
  assert.equal("14", (status "/shop.Orders/Get"))
  assert.equal("14", (status("/shop.Admin/Reset", { { "authorization", "Bearer let-me-in" } })))
  local preflight = gateway:request("OPTIONS /shop.Orders/Get HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n" ..
    "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-grpc-web\r\n\r\n")
  assert.equal("*", preflight.headers["access-control-allow-origin"])
end

does["certificates.lua"] = function()
  if not certs.is_there() then return end
  local set = certs.new()
  local default = set:issue { name = "default", sans = "DNS:default.example" }
  set:issue { name = "shop", sans = "DNS:shop.example" }
  local asked = {}
  local store = h.backend(function(connection)
    while true do
      local request = connection:read_request()
      if not request then return end
      asked[#asked + 1] = request.target
      local is_known = request.target == "/shop.example"
      connection:send(h.http1.response(is_known and "200 OK" or "404 Not Found",
        is_known and set:read "shop.crt" .. set:read "shop.key" or ""))
    end
  end)
  local gateway = start("certificates.lua", { CERT = default.cert, KEY = default.key, STORE = "http://" .. store:address() .. "/" },
    { args = { "--workers", "1" } })
  for _ = 1, 2 do
    local output, code = tls.curl(gateway, set.ca, "shop.example")
    assert.equal(0, code, output)
    output, code = tls.curl(gateway, set.ca, "default.example")
    assert.equal(0, code, output)
  end
  assert.same({ "/shop.example", "/default.example" }, asked)
  set:remove()
end

does["one_port.lua"] = function()
  local function answers(name)
    return h.backend(function(connection)
      h.loop.wait(connection.changed, 10000, "bytes", function() return connection.pending > 0 or connection:has_ended() end)
      connection:send(name)
      connection:read_all()
      connection:flush()
    end)
  end
  local database, queue = answers "database", answers "queue"
  local gateway = start("one_port.lua", { DATABASE = database:address(), QUEUE = queue:address() })
  echoed(gateway:get "/")
  local function ask(bytes)
    local client = gateway:connect()
    client:send(bytes)
    client:shutdown()
    local text = client:read_all()
    client:close()
    return text
  end
  assert.equal("database", ask(hello.new { sni = "one.db.example" }))
  assert.equal("database", ask(hello.new { sni = "x.test.db.example" }))
  assert.equal("\21\3\1\0\2\2\112", ask(hello.new { sni = "two.db.example" })) -- unrecognized name
  assert.equal("queue", ask "PING\r\n")
  assert.equal("", ask "SHUTDOWN\r\n")
  gateway:wait_log "refused"
end

does["behind_balancer.lua"] = function()
  local gateway = start "behind_balancer.lua"
  -- A header of version 2; `said`: what its TLS value begins with, and a common name.
  local function get(path, said, cn)
    local function tlv(kind, value) return string.char(kind, 0, #value) .. value end
    local rest = "\192\0\2\7\198\51\100\2\220\4\1\187" .. (said and tlv(0x20, said .. (cn and tlv(0x22, cn) or "")) or "")
    return gateway:request("\r\n\r\n\0\r\nQUIT\n\33\17\0" .. string.char(#rest) .. rest ..
      ("GET %s HTTP/1.1\r\nHost: a.example\r\nX-Consumer: root\r\n\r\n"):format(path))
  end
  assert.equal(426, get("/").status)
  local seen = echoed(get("/", "\1\0\0\0\1"))
  assert.equal("https", seen["x-forwarded-proto"])
  assert.equal("192.0.2.7", seen["x-forwarded-for"])
  assert.is_nil(seen["x-consumer"])
  assert.equal(403, get("/admin", "\1\0\0\0\1").status)
  assert.equal(403, get("/admin", "\3\0\0\0\1", "mallory").status) -- shown, not accepted
  assert.equal("alice", echoed(get("/admin", "\3\0\0\0\0", "alice"))["x-consumer"])
end

does["rate_limit.lua"] = function()
  local gateway = start("rate_limit.lua", { LIMIT = "5", WINDOW = "600" }, { args = { "--workers", "2" } })
  for i = 1, 7 do
    local response = gateway:get "/"
    assert.equal(i <= 5 and 200 or 429, response.status)
    assert.equal("5", response.headers["x-ratelimit-limit"])
    assert.equal(tostring(math.max(0, 5 - i)), response.headers["x-ratelimit-remaining"])
    if i > 5 then
      local seconds = tonumber(response.headers["retry-after"])
      assert.is_true(seconds > 500 and seconds <= 600, seconds)
    end
  end
  assert.equal(0, gateway:ask("reload").code)
  assert.equal(429, gateway:get("/").status)
end

does["auth_service.lua"] = function()
  local gateway = start "auth_service.lua"
  assert.equal(401, gateway:get("/").status)
  assert.equal("ada", echoed(gateway:get("/", "Authorization: Bearer ada-token\r\nX-User: root\r\n"))["x-user"])
  assert.equal(403, gateway:get("/admin", "Authorization: Bearer ada-token\r\n").status)
  assert.equal("root", echoed(gateway:get("/admin", "Authorization: Bearer root-token\r\n"))["x-user"])
end

does["maintenance.lua"] = function()
  local path = h.write_file "back at noon\n"
  assert(os.rename(path, path .. ".off"))
  local gateway = start("maintenance.lua", { MAINTENANCE = path })
  assert.equal(200, gateway:get("/").status)
  assert(os.rename(path .. ".off", path))
  assert.equal(0, gateway:ask("reload").code)
  local response = gateway:get "/"
  assert.equal(503, response.status)
  assert.equal("back at noon\n", response.body)
  assert.equal("120", response.headers["retry-after"])
  assert.equal(200, gateway:get("/", "X-Pass: let-me-in\r\n").status)
  assert.equal(200, gateway:get("/health").status)
  os.remove(path)
  assert.equal(0, gateway:ask("reload").code)
  assert.equal(200, gateway:get("/").status)
end

does["acme.lua"] = function()
  local set, http, https = certs.new(), ports.free(), ports.free()
  local ca = pebble.is_there() and pebble.start(h, { set = set, https = https, http = http })
  local gateway = start("acme.lua", { TLS_PORT = tostring(https), HOST = "shop.test", STORAGE = set:path "acme",
    DIRECTORY = ca and ca.directory or "https://127.0.0.1:1/", CA = set.ca })
  gateway:expect_log(ca and "^$" or "error acme: no certificate")
  assert.equal(308, gateway:get("/any/path").status)
  local function ask(args)
    local curl = h.spawn("/bin/sh", { args = { "-c", ("curl -sS %s --connect-to ::127.0.0.1:%d https://shop.test/"):format(args, https) } })
    return curl:wait_exit()
  end
  assert.equal(0, ask "--insecure")
  if ca then
    gateway:wait_log("certificates changed", 30000)
    assert.equal(0, ask("--cacert " .. ca:root()))
  end
  assert.equal("shop.test", gateway:ask_json("/certificates").renewals[1].host)
  set:remove()
end

describe("the cookbook", function()
  it("is there", function()
    assert.is_true(#names > 0)
    for name in pairs(does) do assert.is_true(is_there[name], name .. " is gone") end
  end)

  it("is listed in its README", function()
    local file = assert(io.open "scripts/README.md")
    local text = file:read "*a"
    file:close()
    for _, name in ipairs(names) do
      assert.is_truthy(text:find("](" .. name .. ")", 1, true), name .. " is not in scripts/README.md")
    end
  end)

  for _, name in ipairs(names) do
    it(name .. " passes check", h.test(function()
      local result = h.exec { "check", "scripts/" .. name }
      assert.equal(0, result.code, result.stdout .. result.stderr)
    end))

    it(name .. " does what it says", h.test(function()
      assert.is_function(does[name], "a test of its own for " .. name)
      does[name]()
    end))
  end
end)
