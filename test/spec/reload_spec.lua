-- Reloading: whole or not at all, and no request notices.
local h = require "test.support.harness"
local uv = require "luv"

local function config(marker, extra)
  return {
    settings = { timeouts = { drain = 2 } },
    upstreams = { backend = h.backend(h.always(h.http1.response("200 OK", marker))) },
    routes = { { path = "/", backends = "backend" }, extra },
  }
end

describe("reload", function()
  it("takes a changed configuration, on kept connections too", h.test(function()
    local gateway = h.gateway(config "one")
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    assert.equal("one", h.read_response(client).body)
    local port = gateway.port
    gateway:rewrite(config "two")
    local answer = gateway:ask "reload"
    assert.equal(0, answer.code, answer.stderr)
    assert.is_not_nil(answer.stdout:find "configuration 2 serves")
    assert.equal(port, gateway.port)
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    assert.equal("two", h.read_response(client).body)
    assert.equal("two", gateway:get("/").body)
  end))

  it("on SIGHUP", h.test(function()
    local gateway = h.gateway(config "one")
    gateway:rewrite(config "two")
    gateway:signal "sighup"
    gateway:wait_log "configuration 2 serves"
    assert.equal("two", gateway:get("/").body)
  end))

  it("compiles no route where only endpoints changed #threads", h.test(function()
    local one, two = h.backend(h.always(h.http1.response("200 OK", "one"))), h.backend(h.always(h.http1.response("200 OK", "two")))
    local spare = h.backend(h.always(h.http1.response("200 OK", "spare")))
    local function with(backend, routes, settings)
      return {
        settings = settings,
        upstreams = { backend = backend, spare = spare },
        routes = routes or {
          { name = "all", path = "/", backends = "backend", plugins = { { "response-headers", set = { ["x-kept"] = "yes" } } } },
          { name = "split", path = "/split", backends = { backend = 0, spare = 1 } },
        },
      }
    end
    local gateway = h.gateway(with(one))
    local client = gateway:connect()
    local generation = 1
    local function kept(options)
      gateway:rewrite(options)
      local answer = gateway:ask "reload"
      assert.equal(0, answer.code, answer.stderr)
      generation = generation + 1
      local pattern = ("configuration %d serves [^\n]*kept: ([%%a ]+)"):format(generation)
      gateway:wait_log(pattern)
      return gateway:log():match(pattern)
    end
    local function ask(path)
      client:send(("GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(path))
      return h.read_response(client)
    end
    assert.equal("one", ask("/").body)
    assert.equal("routes actions", kept(with(two)))
    assert.equal("two", ask("/").body)
    assert.equal("yes", ask("/").headers["x-kept"])
    assert.equal("spare", ask("/split").body)
    assert.equal("upstreams routes actions", kept(with(two)))
    assert.equal("upstreams routes actions", kept(with(two, nil, { timeouts = { drain = 3 } })))
    assert.equal("routes actions", kept(with(one)))
    assert.equal("one", ask("/").body)
    assert.equal("upstreams", kept(with(one, { { path = "/", backends = "spare" } })))
    assert.equal("spare", ask("/").body)
    assert.equal("routes", kept({ upstreams = { spare = spare }, routes = { { path = "/", backends = "spare" } } }))
    assert.equal("spare", ask("/").body)
    assert.equal("routes", kept({ settings = { metrics = { series = 10 } }, upstreams = { spare = spare },
      routes = { { path = "/", backends = "spare" } } }))
    assert.equal("spare", ask("/").body)
    client:close()
  end))

  it("refuses a bad configuration and says why; the old one serves", h.test(function()
    local gateway = h.gateway(config "one")
    gateway:expect_log "."
    for i, bad in ipairs { "moongate.listener {", "nothing()", "" } do
      gateway:rewrite('local moongate = require "moongate"\n' .. bad .. "\n")
      local answer = gateway:ask "reload"
      assert.equal(1, answer.code)
      assert.is_not_nil(answer.stderr:find "configuration 1 still serves", answer.stderr)
      if i < 3 then assert.is_not_nil(answer.stderr:find "gateway.lua:%d+: ", answer.stderr) end
      assert.equal("one", gateway:get("/").body)
    end
    gateway:rewrite(config "two")
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("two", gateway:get("/").body)
  end))

  it("opens a new listener and closes one that is gone, after its exchanges", h.test(function()
    local slow = h.backend(function(connection)
      connection:read_request()
      h.loop.pass(300)
      connection:send(h.http1.response("200 OK", "late"))
    end)
    local base = { upstreams = { backend = slow } }
    local gateway = h.gateway(base)
    local old = gateway.port
    local client, idle = gateway:connect(), gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    slow:wait_requests(1)
    local text = h.gateway_config(base):gsub("port%\"%] = 0", 'port"] = ' .. h.dead_port())
    gateway:rewrite(text)
    local answer = gateway:ask "reload"
    assert.equal(0, answer.code, answer.stderr)
    assert.equal("eof", idle:wait_end())
    local response = h.read_response(client)
    assert.equal("late", response.body)
    assert.equal("close", response.headers.connection)
    local _, err = h.connect(old)
    assert.equal("ECONNREFUSED", err)
    assert.equal(2, #gateway.ports)
    assert.equal(200, gateway:get("/", nil, { port = gateway.ports[2] }).status)
  end))

  it("a port that cannot be had refuses the whole", h.test(function()
    local gateway = h.gateway(config "one")
    gateway:expect_log "."
    local taken = h.backend(h.always(h.http1.response("200 OK", "")))
    local text = h.gateway_config(config "two") ..
      ('moongate.listener { port = %s, address = "127.0.0.1" }\n'):format(taken:address():match ":(%d+)")
    gateway:rewrite(text)
    local answer = gateway:ask "reload"
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find "another process has this port", answer.stderr)
    assert.equal("one", gateway:get("/").body)
  end))

  it("a port whose address changes to one that overlaps is refused, and it is said who has it", h.test(function()
    local port = h.dead_port()
    local text = h.gateway_config(config "one"):gsub("port%\"%] = 0", 'port"] = ' .. port)
    local wide, count = text:gsub("127%.0%.0%.1", "0.0.0.0", 1)
    assert.equal(1, count)
    local gateway = h.gateway { config = wide }
    gateway:expect_log "."
    gateway:rewrite(text)
    local answer = gateway:ask "reload"
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find("this gateway itself has the port, at 0.0.0.0:" .. port, 1, true), answer.stderr)
    assert.is_nil(answer.stderr:find("another process", 1, true))
    assert.equal("one", gateway:get("/").body)
  end))

  it("a port that another process has at an address of its own is not said to be ours", h.test(function()
    local taken = h.backend(h.always(h.http1.response("200 OK", "")))
    local port = taken:address():match ":(%d+)"
    local own = ('moongate.listener { port = %s, address = "127.0.0.2" }\n'):format(port)
    local gateway = h.gateway { config = h.gateway_config(config "one") .. own }
    gateway:expect_log "."
    gateway:rewrite(h.gateway_config(config "two") .. own:gsub('"127.0.0.2"', '{ "127.0.0.2", "127.0.0.1" }'))
    local answer = gateway:ask "reload"
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find("another process has this port", 1, true), answer.stderr)
    assert.equal("one", gateway:get("/").body)
  end))

  it("an exchange under way ends on the configuration it began with #threads", h.test(function()
    local slow = h.backend(function(connection)
      connection:read_request()
      h.loop.pass(300)
      connection:send(h.http1.response("200 OK", "from the first"))
    end)
    local gateway = h.gateway { backend = slow }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    slow:wait_requests(1)
    for _ = 1, 5 do
      gateway:rewrite(config "later")
      assert.equal(0, gateway:ask("reload").code)
    end
    assert.equal("later", gateway:get("/").body)
    assert.equal("from the first", h.read_response(client).body)
    client:close()
    gateway:expect_quiet()
    local deadline = uv.hrtime() + 5e9
    repeat
      local status = gateway:ask_json "/status"
      h.loop.pass(50)
    until status.retired_generations == 0 or uv.hrtime() > deadline
    assert.equal(0, gateway:ask_json("/status").retired_generations)
  end))

  it("changes how many connections there may be", h.test(function()
    local function with(connections)
      local options = config "one"
      options.settings.limits = { connections = connections }
      options.settings.workers = 1
      return options
    end
    local gateway = h.gateway(with(2))
    local clients = {}
    local function ask(i)
      clients[i] = gateway:connect()
      clients[i]:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    end
    for i = 1, 2 do
      ask(i)
      assert.equal(200, h.read_response(clients[i]).status)
    end
    ask(3) -- the kernel takes it
    gateway:wait_log "accepting pauses"
    gateway:rewrite(with(3))
    assert.equal(0, gateway:ask("reload").code)
    assert.equal(200, h.read_response(clients[3]).status)
    gateway:rewrite(with(1)) -- those that are there stay
    assert.equal(0, gateway:ask("reload").code)
    clients[1]:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    assert.equal(200, h.read_response(clients[1]).status)
    for i = 1, 3 do clients[i]:close() end
    assert.equal("one", gateway:get("/").body)
    gateway:expect_quiet()
  end))

  it("keeps no memory of what it replaced", h.test(function()
    if h.loop.scale > 1 then return pending "a sanitizer's allocator keeps what is freed" end
    local text = h.gateway_config(config "x") ..
      'for i = 1, 5000 do moongate.route { path = "/extra/" .. i, backends = "backend" } end\n'
    local gateway = h.gateway { config = text }
    local before = gateway:rss_kb()
    for _ = 1, 6 do assert.equal(0, gateway:ask("reload").code) end
    local deadline = uv.hrtime() + 5e9
    repeat h.loop.pass(50) until gateway:rss_kb() < 1.3 * before or uv.hrtime() > deadline
    local after = gateway:rss_kb()
    assert.is_true(after < 1.3 * before, ("%d KiB became %d KiB"):format(before, after))
  end))

  it("many in a row with requests in flight lose nothing #threads", h.test(function()
    local gateway = h.gateway(config "x")
    local client = gateway:connect()
    for i = 1, 30 do
      gateway:rewrite(config("x" .. i % 2, i % 2 == 0 and { path = "/more", backends = "backend" } or nil))
      gateway:signal "sighup"
      for _ = 1, 10 do
        client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
        assert.equal(200, h.read_response(client).status)
        assert.equal(200, gateway:get("/").status)
      end
    end
    client:close()
    gateway:expect_quiet()
  end))

  it("on a SIGHUP that comes while the script is still evaluated, once it serves; SIGUSR1 ends nothing either", h.test(function()
    local busy = "local sum = 0 for i = 1, 5e7 do sum = sum + i % 7 end\n" -- for what takes its time; clocks stand still
    local gateway = h.gateway { config = busy .. h.gateway_config(config "x"),
      shell = "(sleep 0.1; kill -HUP $$; kill -USR1 $$) &" }
    gateway:wait_log "configuration %d+ serves"
    assert.equal("x", gateway:get("/").body)
  end))

  -- The moment is short between which workers close their ports and control hears that they have switched: it is tried often.
  it("and a drain at once end in order, whatever comes first #threads", h.test(function()
    for i = 1, 24 do
      local gateway = h.gateway(config "x")
      gateway:signal "sighup"
      h.loop.pass(i % 8 * h.loop.scale)
      gateway:signal "sigterm"
      assert.equal(0, (gateway:wait_exit()))
    end
  end))

  it("takes another log level, and lets one that was ordered be", h.test(function()
    local function with(level)
      local options = config "one"
      options.settings.log_level = level
      return options
    end
    local gateway = h.gateway(with "info")
    local function level() return gateway:ask_json("/status").log_level end
    gateway:rewrite(with "debug")
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("debug", level())
    gateway:rewrite(with "warn")
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("warn", level())
    assert.equal(200, gateway:request("POST /log-level?level=info HTTP/1.1\r\nHost: localhost\r\n\r\n",
      { port = gateway.admin_port }).status)
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("info", level())
  end))
end)
