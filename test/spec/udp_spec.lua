-- UDP routes: datagrams of a listener with protocol = "udp", in sessions by source address.
local cjson = require "cjson.safe"
local uv = require "luv"
local h = require "test.support.harness"

if not h.has_binary() then
  describe("UDP routes", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local open = {}

-- A socket of a test: .got lists what came, { bytes, port }; on_datagram(self, bytes, port) where given.
local function socket(on_datagram, port)
  local self = { handle = uv.new_udp(), got = {}, changed = h.loop.signal() }
  assert(self.handle:bind("127.0.0.1", port or 0))
  uv.recv_buffer_size(self.handle, 4194304)
  self.port = self.handle:getsockname().port
  self.handle:recv_start(function(_, bytes, from)
    if not bytes or not from then return end
    self.got[#self.got + 1] = { bytes, from.port }
    if on_datagram then on_datagram(self, bytes, from.port) end
    self.changed:fire()
  end)
  function self.send(_, bytes, to) self.handle:try_send(bytes, "127.0.0.1", to) end
  function self.wait(_, count, ms)
    h.loop.wait(self.changed, ms or 5000, function() return ("%d datagrams, got %d"):format(count, #self.got) end,
      function() return #self.got >= count end)
    return self.got[count][1]
  end
  function self.close(_) if not self.handle:is_closing() then self.handle:close() end end
  open[#open + 1] = self
  return self
end

local function echo(prefix)
  return socket(function(self, bytes, port) self:send((prefix or "") .. bytes, port) end)
end

local function config(options)
  local out = { 'local m = require "moongate"', ("m.settings { workers = %d, %s }"):format(options.workers or 1, options.settings or "") }
  out[#out + 1] = ('m.listener { port = %d, address = "%s", protocol = "udp", name = "dns", %s }')
    :format(options.port or 0, options.address or "127.0.0.1", options.listener or "")
  for name, ports in pairs(options.upstreams) do
    local list = {}
    for i, port in ipairs(ports) do list[i] = ('"127.0.0.1:%d"'):format(port) end
    out[#out + 1] = ('m.upstream { name = "%s", endpoints = { %s }, %s }'):format(name, table.concat(list, ", "), options.extra or "")
  end
  out[#out + 1] = ('m.route { listeners = { "dns" }, backends = %s, %s }'):format(options.backends or '"b"', options.route or "")
  return table.concat(out, "\n") .. "\n"
end

local function start(options)
  return h.gateway { config = config(options) }
end

-- A test whose sockets are closed at its end.
local function test(body)
  return h.test(function()
    local ok, err = pcall(body)
    for _, one in ipairs(open) do one:close() end
    open = {}
    if not ok then error(err, 0) end
  end)
end

local function sessions(gateway, count)
  return gateway:wait_metrics(count .. " sessions", function(m) return m.moongate_udp_sessions_live == count end)
end

describe("a UDP route", function()
  it("has a session for each source, from one socket to one endpoint", test(function()
    local server = echo "re: "
    local gateway = start { upstreams = { b = { server.port } } }
    local one, two = socket(), socket()
    for i = 1, 10 do
      one:send("a" .. i, gateway.port)
      two:send("b" .. i, gateway.port)
      assert.equal("re: a" .. i, one:wait(i))
      assert.equal("re: b" .. i, two:wait(i))
    end
    assert.equal(gateway.port, one.got[1][2]) -- answers come from the port that was asked
    local sources = {}
    for _, got in ipairs(server.got) do sources[got[2]] = (sources[got[2]] or 0) + 1 end
    local count = 0
    for _, n in pairs(sources) do
      count = count + 1
      assert.equal(10, n)
    end
    assert.equal(2, count)
    local metrics = sessions(gateway, 2)
    assert.equal(20, metrics.moongate_udp_datagrams_in_total)
    assert.equal(20, metrics.moongate_udp_datagrams_out_total)
  end))

  it("keeps datagrams whole: empty ones, long ones, and many at once", test(function()
    local server = echo()
    local gateway = start { upstreams = { b = { server.port } } }
    local client = socket()
    for i, len in ipairs { 0, 1, 1400, 9000, 65507 } do
      client:send(("x"):rep(len), gateway.port)
      assert.equal(len, #client:wait(i))
    end
    client.got = {}
    for round = 1, 10 do
      for i = 1, 100 do client:send(("%d:%d"):format(round, i), gateway.port) end
      client:wait(round * 100)
    end
    for i, got in ipairs(client.got) do
      assert.equal(("%d:%d"):format(math.floor((i - 1) / 100) + 1, (i - 1) % 100 + 1), got[1])
    end
  end))

  it("splits sessions over backends by weight", test(function()
    local a, b = echo "a", echo "b"
    local gateway = start { upstreams = { a = { a.port }, b = { b.port } }, backends = "{ a = 3, b = 1 }" }
    local count = { a = 0, b = 0 }
    for _ = 1, 40 do
      local client = socket()
      client:send("x", gateway.port)
      local who = client:wait(1):sub(1, 1)
      client:send("y", gateway.port)
      assert.equal(who, client:wait(2):sub(1, 1)) -- the session stays where it is
      count[who] = count[who] + 1
    end
    assert.is_true(math.abs(count.a - 30) <= 2, count.a .. " of 40")
  end))

  it("ends sessions that are silent, and logs them", test(function()
    local server = echo "re: "
    local gateway = start { upstreams = { b = { server.port } }, route = 'timeouts = { idle = 0.3 }',
      settings = 'access_log = { file = "stdout" }' }
    local client = socket()
    for i = 1, 4 do
      client:send("12", gateway.port)
      client:wait(i)
      h.pass(150)
    end
    assert.equal(1, gateway:metrics().moongate_udp_sessions_total)
    local row = gateway:ask_json("/connections").connections[1]
    assert.equal("udp", row.state)
    assert.equal("127.0.0.1:" .. client.port, row.client)
    assert.equal("127.0.0.1:" .. server.port, row.endpoint)
    assert.equal("dns", row.listener)
    sessions(gateway, 0)
    client:send("x", gateway.port)
    client:wait(5)
    assert.equal(2, gateway:metrics().moongate_udp_sessions_total)
    sessions(gateway, 0)
    gateway:stop()
    local line = cjson.decode(gateway.stdout:match "[^\n]+")
    assert.equal("UDP", line.protocol)
    assert.equal("dns", line.route)
    assert.equal(8, line.request_bytes)
    assert.equal(24, line.response_bytes)
    assert.equal(2, gateway.stdout:gsub("\n", "%0") and select(2, gateway.stdout:gsub("\n", "")))
  end))

  it("bounds its sessions: what is over the limit is dropped and counted", test(function()
    local server = echo()
    local gateway = start { upstreams = { b = { server.port } }, listener = "limits = { connections = 3 }" }
    local clients = {}
    for i = 1, 5 do
      clients[i] = socket()
      clients[i]:send("x", gateway.port)
      if i <= 3 then clients[i]:wait(1) end
    end
    local metrics = gateway:wait_metrics("two dropped", function(m) return m.moongate_udp_dropped_total == 2 end)
    assert.equal(2, metrics['moongate_connections_refused_total{reason="listener_limit"}'])
    assert.equal(3, metrics.moongate_udp_sessions_live)
    clients[1]:send("y", gateway.port) -- those that are there go on
    clients[1]:wait(2)
    assert.equal(0, #clients[4].got)
  end))

  it("chooses another endpoint once one is not there", test(function()
    local server = echo()
    local dead = socket()
    local port = dead.port
    dead:close()
    h.pass(20)
    local gateway = start { upstreams = { b = { port, server.port } } }
    local client = socket()
    for _ = 1, 100 do
      client:send("x", gateway.port)
      h.pass(20)
      if #client.got >= 3 then break end
    end
    assert.is_true(#client.got >= 3)
    assert.is_true(gateway:metrics().moongate_upstream_connect_failures_total <= 2)
  end))

  it("answers from the address that was asked, where it listens on all", test(function()
    local server = echo()
    local gateway = start { upstreams = { b = { server.port } }, address = "0.0.0.0" }
    local client = socket()
    local from
    client.handle:recv_stop()
    client.handle:recv_start(function(_, bytes, address)
      if not bytes or not address then return end
      from = address.ip
      client.changed:fire()
    end)
    client.handle:try_send("x", "127.0.0.77", gateway.port)
    h.loop.wait(client.changed, 5000, "an answer", function() return from ~= nil end)
    assert.equal("127.0.0.77", from)
  end))

  it("has its sessions through a reload, and drains without long waits #threads", test(function()
    local a, b = echo "a", echo "b"
    local keeper = socket()
    local port = keeper.port
    keeper:close()
    h.pass(20)
    local gateway = start { upstreams = { b = { a.port } }, port = port, workers = 2 }
    local client, other = socket(), socket()
    client:send("1", port)
    assert.equal("a1", client:wait(1))
    gateway:rewrite(config { upstreams = { b = { b.port } }, port = port, workers = 2 })
    assert.equal(0, gateway:ask("reload").code)
    client:send("2", port)
    assert.equal("a2", client:wait(2))
    other:send("1", port)
    assert.equal("b1", other:wait(1))
    gateway:signal "sigterm"
    h.takes(0, 2500, function() gateway:wait_exit() end)
  end))

  it("shares a port number with TCP", test(function()
    local server = echo()
    local port = h.dead_port()
    local backend = h.backend(function(connection) connection:send "tcp" connection:flush() end)
    local gateway = h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { port = %d, address = "127.0.0.1", protocol = "udp", name = "u" }
m.listener { port = %d, address = "127.0.0.1", protocol = "tcp", name = "t" }
m.upstream { name = "u", endpoints = { "127.0.0.1:%d" } }
m.upstream { name = "t", endpoints = { "%s" } }
m.route { listeners = { "u" }, backends = "u" }
m.route { listeners = { "t" }, backends = "t" }
]]):format(port, port, server.port, backend:address()) }
    local client = socket()
    client:send("udp", port)
    assert.equal("udp", client:wait(1))
    assert.equal("tcp", gateway:connect({ port = port }):read_all())
  end))
end)
