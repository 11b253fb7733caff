-- /connections and `moongate connections`: what client connections do, asked of the workers.
local cjson = require "cjson.safe"
local h = require "test.support.harness"

if not h.has_binary() then
  describe("connections", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local GET = "GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"

-- The list, once wanted(list) holds.
local function wait_list(gateway, wanted, query)
  local answer
  for _ = 1, 500 do
    answer = gateway:ask_json("/connections" .. (query or ""))
    if wanted(answer.connections) then return answer.connections, answer end
    h.pass(10)
  end
  error("never: " .. cjson.encode(answer))
end

local function states(list)
  local count = {}
  for _, row in ipairs(list) do count[row.state] = (count[row.state] or 0) + 1 end
  return count
end

local function find(list, state)
  for _, row in ipairs(list) do
    if row.state == state then return row end
  end
end

describe("/connections", function()
  it("tells idle connections, heads, exchanges and tunnels apart #threads", h.test(function()
    local slow = h.backend(function(connection)
      local request = connection:read_request()
      if request.target == "/tunnel" then
        connection:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
        connection:wait_end(10000)
      else
        connection:wait_end(10000)
      end
    end)
    local gateway = h.gateway {
      upstreams = { backend = slow, echo = { "builtin:echo" } }, settings = { workers = 2 },
      routes = { { path = "/", backends = "backend", name = "slow" }, { path = "/echo", backends = "echo", name = "echo" } },
      listener = { name = "public" },
    }
    local idle, head, exchange, tunnel = gateway:connect(), gateway:connect(), gateway:connect(), gateway:connect()
    for _ = 1, 3 do
      idle:send(GET:format "/echo")
      h.read_response(idle)
    end
    head:send "GET / HTTP/1.1\r\nHo"
    exchange:send(GET:format "/exchange")
    tunnel:send "GET /tunnel HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
    assert.equal(101, h.read_response(tunnel).status)
    slow:wait_requests(2)
    local list, answer = wait_list(gateway, function(list)
      local count = states(list)
      return #list == 4 and count.idle == 1 and count.head == 1 and count.exchange == 1 and count.tunnel == 1
    end)
    assert.equal(100, answer.limit)
    assert.equal(0, #answer.missing)
    assert.equal(2, #answer.workers)
    local ids = {}
    for _, row in ipairs(list) do
      assert.is_nil(ids[row.id])
      ids[row.id] = true
      assert.equal(row.worker, tonumber(row.id:match "^(%d+)%-%d+$"))
      assert.is_not_nil(row.client:match "^127%.0%.0%.1:%d+$")
      assert.is_true(row.age_ms >= 0 and row.age_ms < 60000)
    end
    local row = find(list, "idle")
    assert.equal(3, row.requests)
    assert.equal("public", row.listener)
    assert.equal(cjson.null, row.route)
    row = find(list, "head")
    assert.equal(cjson.null, row.route)
    row = find(list, "exchange")
    assert.equal("slow", row.route)
    assert.equal("backend", row.upstream)
    assert.equal(slow:address(), row.endpoint)
    assert.equal("public", row.listener)
    row = find(list, "tunnel")
    assert.equal("slow", row.route)
    assert.equal("backend", row.upstream)
    assert.equal(slow:address(), row.endpoint)
    assert.equal("public", row.listener)
    assert.equal(1, row.requests)
    for _, client in ipairs { idle, head, exchange, tunnel } do client:close() end
    wait_list(gateway, function(rest) return #rest == 0 end)
  end))

  it("is bounded, and shares the bound out among the workers", h.test(function()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } }, settings = { workers = 2 } }
    local clients = {}
    for i = 1, 40 do
      clients[i] = gateway:connect()
      clients[i]:send(GET:format "/")
      h.read_response(clients[i])
    end
    assert.equal(40, #gateway:ask_json("/connections").connections)
    local list = gateway:ask_json("/connections?limit=5").connections
    assert.equal(5, #list)
    local by_worker = { [0] = 0, 0 }
    for _, row in ipairs(list) do by_worker[row.worker] = by_worker[row.worker] + 1 end
    assert.equal(3, by_worker[0])
    assert.equal(2, by_worker[1])
    assert.equal(1, #gateway:ask_json("/connections?limit=1").connections)
    for _, query in ipairs { "limit=0", "limit=1001", "limit=", "limit=x", "limit=-1", "other=1" } do
      assert.equal(400, gateway:admin("/connections?" .. query).status, query)
    end
  end))

  it("leaves the listener out where the port of an idle connection has several", h.test(function()
    local port = h.dead_port()
    local gateway = h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { port = %d, address = "127.0.0.1", name = "a", hostname = "a.example" }
m.listener { port = %d, address = "127.0.0.1", name = "b" }
m.route { plugins = { { "direct-response", body = "x" } } }
]]):format(port, port) }
    local client = gateway:connect()
    client:send(GET:format "/")
    h.read_response(client)
    assert.equal(cjson.null, gateway:ask_json("/connections").connections[1].listener)
  end))

  it("forgets who leaves before the answer", h.test(function()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } }, settings = { workers = 2 } }
    for _ = 1, 50 do
      local client = gateway:connect { port = gateway.admin_port }
      client:send "GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n"
      client:reset()
    end
    assert.equal(0, #gateway:ask_json("/connections").connections)
  end))

  it("is asked while connections come and go #threads", h.test(function()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } }, settings = { workers = 2 } }
    local task = h.task(function()
      for _ = 1, 300 do gateway:get "/" end
    end)
    local asked = 0
    while not task.done do
      gateway:ask_json "/connections"
      asked = asked + 1
    end
    assert.is_true(asked > 1)
  end))
end)

describe("moongate connections", function()
  it("prints a table, or JSON", h.test(function()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } }, listener = { name = "public" } }
    local client, other = gateway:connect(), gateway:connect()
    for _, it in ipairs { client, other } do
      it:send(GET:format "/")
      h.read_response(it)
    end
    local result = gateway:ask "connections"
    assert.equal(0, result.code, result.stderr)
    assert.is_not_nil(result.stdout:find "^id +state +age +requests +client +listener +route +upstream +endpoint\n", result.stdout)
    assert.is_not_nil(result.stdout:find("\n0%-%d+ +idle +%d+%.%ds +1 +127%.0%.0%.1:%d+ +public +%- +%- +%-\n"), result.stdout)
    result = gateway:ask("connections", "--limit", "1")
    assert.is_not_nil(result.stdout:find("1 of 2; --limit shows more", 1, true), result.stdout)
    result = gateway:ask("connections", "--json")
    assert.equal(2, #cjson.decode(result.stdout).connections)
    local none = h.exec { "connections", "--admin", "/nonexistent/moongate.sock" }
    assert.equal(1, none.code)
  end))
end)
