-- The admin surfaces: who may read, who may order.
local h = require "test.support.harness"

local function request(method, path, fields)
  return ("%s %s HTTP/1.1\r\nConnection: close\r\n%s\r\n"):format(method, path, fields or "Host: localhost\r\n")
end

describe("admin", function()
  local gateway
  setup(function()
    h.open(function()
      gateway = h.gateway { upstreams = { backend = { "builtin:echo" } } }
    end)
  end)
  teardown(function() h.close() end)

  local function status(bytes)
    return gateway:request(bytes, { port = gateway.admin_port }).status
  end

  it("gives its documents as JSON", h.test(function()
    for _, path in ipairs { "/status", "/config", "/routes", "/upstreams", "/connections", "/errors" } do
      assert.is_table(gateway:ask_json(path), path)
    end
    assert.equal(1, gateway:ask_json("/status").generation)
    assert.equal("backend", gateway:ask_json("/upstreams").objects[1].value.name)
  end))

  it("takes control only with a local Host and without Origin", h.test(function()
    assert.equal(200, status(request("GET", "/status")))
    assert.equal(200, status(request("GET", "/status", "Host: 127.0.0.1:9\r\n")))
    assert.equal(200, status(request("GET", "/status", "Host: [::1]\r\n")))
    for _, fields in ipairs { "Host: evil.example\r\n", "Host: localhost.evil.example\r\n",
      "Host: localhost\r\nOrigin: http://localhost\r\n", "Host: localhost\r\noRIGIN: null\r\n" } do
      assert.equal(403, status(request("GET", "/status", fields)), fields)
      assert.equal(403, status(request("POST", "/drain", fields)), fields)
    end
    assert.equal(200, status(request("GET", "/metrics", "Host: evil.example\r\n")))
    assert.equal(200, status(request("GET", "/healthz", "Host: evil.example\r\n")))
  end))

  it("tells orders from documents", h.test(function()
    assert.equal(405, status(request("GET", "/reload")))
    assert.equal(405, status(request("POST", "/config")))
    assert.equal(404, status(request("GET", "/nothing")))
    assert.equal(400, status(request("POST", "/log-level?level=loud")))
    assert.equal(200, status(request("POST", "/log-level?level=debug")))
    assert.equal("debug", gateway:ask_json("/status").log_level)
    assert.equal(200, status(request("POST", "/log-level?level=info")))
  end))

  it("its socket is the owner's alone", h.test(function()
    assert.equal(384, require("luv").fs_stat(gateway.control).mode % 512) -- 0600
  end))

  it("a second gateway serves without the socket of the first", h.test(function()
    local second = h.gateway { upstreams = { backend = { "builtin:echo" } }, control = gateway.control }
    second:wait_log "no control socket: another gateway has"
    assert.equal(200, second:get("/").status)
    second:stop()
    assert.equal(1, gateway:ask_json("/status").generation)
  end))

  it("a socket that nobody serves any more is replaced", h.test(function()
    local first = h.gateway { upstreams = { backend = { "builtin:echo" } } }
    first:signal "sigkill"
    first:wait_exit()
    first.is_stopped = true
    local second = h.gateway { upstreams = { backend = { "builtin:echo" } }, control = first.control }
    second:wait_log "control on"
    assert.equal(0, second:ask("drain").code)
    assert.equal(0, (second:wait_exit()))
    second.is_stopped = true
  end))

  it("a client that leaves while it waits for a reload is forgotten", h.test(function()
    for _ = 1, 20 do
      local client = gateway:connect { port = gateway.admin_port }
      client:send(request("POST", "/reload"))
      client:reset()
    end
    assert.equal(0, gateway:ask("reload").code)
  end))
end)

describe("explain", function()
  it("says which route and upstream a request meets", h.test(function()
    local gateway = h.gateway {
      upstreams = { backend = { "builtin:echo" }, users = { "127.0.0.1:1" } },
      routes = { { path = "/users", backends = "users", name = "users" } },
    }
    local answer = gateway:ask("explain", "GET", "http://h.example/users/7?x=1")
    assert.equal(0, answer.code, answer.stderr)
    assert.is_not_nil(answer.stdout:find "route +users %(.*gateway.lua:%d+%)")
    assert.is_not_nil(answer.stdout:find "127.0.0.1:1")
    local miss = gateway:ask("explain", "GET", "http://h.example/other")
    assert.equal(1, miss.code)
    assert.is_not_nil(miss.stdout:find "404: no route matches")
    local bad = gateway:ask("explain", "GET", "http://h.example/%00")
    assert.equal(1, bad.code)
    assert.is_not_nil(bad.stdout:find "400: ")
    assert.equal(2, gateway:ask("explain", "GET").code)
    local from_file = gateway:ask("explain", "GET", "http://h.example/users", "--config", gateway.path, "--json")
    assert.is_not_nil(from_file.stdout:find '"name":"users"')
  end))

  it("without a gateway says so", h.test(function()
    local answer = h.exec { "explain", "GET", "http://h.example/", "--admin", "/nonexistent/moongate.sock" }
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find "no gateway answers at /nonexistent/moongate.sock")
  end))
end)
