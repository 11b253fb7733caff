-- What /metrics says: requests by route, upstream and class; latencies; bounded series; and that asking costs the traffic nothing.
local h = require "test.support.harness"

local GET = "GET %s HTTP/1.1\r\nHost: h.example\r\n%s\r\n"

local function key(name, route, upstream, class)
  return ('%s{route="%s",upstream="%s",class="%s"}'):format(name, route, upstream, class)
end

local function requests(metrics, route, upstream, class)
  return metrics[key("moongate_requests_total", route, upstream, class)] or 0
end

-- Waits until that many requests are counted in all.
local function wait_requests(gateway, count)
  return gateway:wait_metrics(count .. " requests", function(metrics)
    local sum = 0
    for name, value in pairs(metrics) do
      if name:find "^moongate_requests_total{" then sum = sum + value end
    end
    return sum == count
  end)
end

describe("metrics", function()
  it("count requests by route, upstream and class", h.test(function()
    local backend = h.backend(h.always(h.http1.response("204 No Content")))
    local gateway = h.gateway {
      upstreams = { backend = backend, dead = "127.0.0.1:" .. h.dead_port(), echo = "builtin:echo" },
      routes = {
        { path = "/a", name = "a", backends = "backend" }, { path = "/dead", backends = "dead" },
        { path = "/echo", name = 'quo"te', backends = "echo" },
      },
    }
    for _ = 1, 3 do assert.equal(204, gateway:get("/a").status) end
    for _ = 1, 2 do assert.equal(502, gateway:get("/dead").status) end
    assert.equal(200, gateway:get("/echo").status)
    assert.equal(404, gateway:get("/nothing").status)
    assert.equal(400, gateway:request("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status)
    local metrics = wait_requests(gateway, 8)
    assert.equal(3, requests(metrics, "a", "backend", "2xx"))
    assert.equal(2, requests(metrics, "/dead", "dead", "5xx"))
    assert.equal(1, requests(metrics, 'quo\\"te', "echo", "2xx"))
    assert.equal(2, requests(metrics, "", "", "4xx"))
    assert.equal(3, metrics['moongate_request_duration_seconds_count{route="a"}'])
    assert.equal(3, metrics['moongate_upstream_duration_seconds_count{upstream="backend"}'])
    assert.is_nil(metrics['moongate_upstream_duration_seconds_count{upstream="dead"}'])
    assert.is_true(metrics.process_resident_memory_bytes > 1000000)
    assert.is_true(metrics['moongate_loop_turn_seconds_count{worker="0"}'] > 0)
    assert.equal(1, metrics.moongate_snapshots_live)
  end))

  it("count a client that went away as 4xx, once", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET:format("/", ""))
    backend:wait_requests(1)
    client:close()
    local metrics = wait_requests(gateway, 1)
    assert.equal(1, requests(metrics, "/", "backend", "4xx"))
    -- Half a head is no request.
    client = gateway:connect()
    client:send "GET / HT"
    client:flush()
    client:close()
    gateway:expect_quiet()
    wait_requests(gateway, 1)
  end))

  it("put latencies where they belong", h.test(function()
    local backend = h.backend(h.each(function()
      h.pass(150)
      return h.http1.response("200 OK", "late")
    end))
    local gateway = h.gateway { backend = backend }
    for _ = 1, 2 do assert.equal(200, gateway:get("/").status) end
    local metrics = wait_requests(gateway, 2)
    for _, name in ipairs { 'moongate_request_duration_seconds%s{route="/"%s}',
      'moongate_upstream_duration_seconds%s{upstream="backend"%s}' } do
      assert.equal(0, metrics[name:format("_bucket", ',le="0.1"')])
      assert.equal(2, metrics[name:format("_bucket", ',le="+Inf"')])
      assert.equal(2, metrics[name:format("_count", "")])
      local sum = metrics[name:format("_sum", "")]
      assert.is_true(sum >= 0.28 and sum < 2 * h.loop.scale, "sum " .. sum)
    end
  end))

  it("are a text that Prometheus reads", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    gateway:get "/"
    wait_requests(gateway, 1)
    local answer = gateway:admin "/metrics"
    assert.equal("text/plain; version=0.0.4", answer.headers["content-type"])
    assert.equal("\n", answer.body:sub(-1))
    local types, last = {}, {}
    for line in answer.body:gmatch "([^\n]*)\n" do
      local name, kind = line:match "^# TYPE ([%w_]+) (%a+)$"
      if name then
        assert.is_nil(types[name], line)
        types[name] = kind
      elseif not line:find "^# HELP [%w_]+ %S" then
        local series, labels, value = line:match "^([%w_]+)(%b{}) (%S+)$"
        if not series then series, value = line:match "^([%w_]+) (%S+)$" end
        assert.is_not_nil(series, line)
        assert.is_number(tonumber(value), line)
        local base = series:gsub("_bucket$", ""):gsub("_sum$", ""):gsub("_count$", "")
        assert.is_not_nil(types[series] or types[base], line)
        if series:find "_bucket$" then
          local of = base .. labels:gsub(',?le="[^"]*"', "")
          assert.is_true(tonumber(value) >= (last[of] or 0), line)
          last[of] = tonumber(value)
        end
      end
    end
    assert.equal("histogram", types.moongate_request_duration_seconds)
    assert.equal("counter", types.moongate_requests_total)
  end))

  it("are bounded: what is over the bound is \"other\"", h.test(function()
    local routes = {}
    for i = 1, 5 do routes[i] = { path = "/" .. i, name = "r" .. i, backends = "backend" } end
    local gateway = h.gateway { backend = h.backend(), routes = routes, settings = { metrics = { series = 2 } } }
    for i = 1, 5 do gateway:get("/" .. i) end
    local metrics = wait_requests(gateway, 5)
    assert.equal(1, requests(metrics, "r1", "backend", "2xx"))
    assert.equal(1, requests(metrics, "r2", "backend", "2xx"))
    assert.equal(3, requests(metrics, "other", "backend", "2xx"))
    assert.equal(3, metrics['moongate_request_duration_seconds_count{route="other"}'])
  end))

  it("keep counting over a reload, by name", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    gateway:get "/"
    wait_requests(gateway, 1)
    gateway:rewrite { backend = h.backend(), routes = { { path = "/new", backends = "backend" },
      { path = "/", backends = "backend" } } }
    gateway:signal "sighup"
    gateway:wait_log "configuration 2 serves"
    gateway:get "/"
    gateway:get "/new"
    local metrics = wait_requests(gateway, 3)
    assert.equal(2, requests(metrics, "/", "backend", "2xx"))
    assert.equal(1, requests(metrics, "/new", "backend", "2xx"))
    assert.equal(1, metrics['moongate_reloads_total{result="fine"}'])
  end))

  it("may be of many megabytes, which go out in slices", h.test(function()
    local routes = {}
    for i = 1, 1500 do routes[i] = { path = "/" .. i, backends = "echo" } end
    local gateway = h.gateway { upstreams = { echo = "builtin:echo" }, routes = routes }
    local client = gateway:connect()
    for first = 1, 1500, 50 do
      local batch = {}
      for i = 1, 50 do batch[i] = GET:format("/" .. first + i - 1, "") end
      client:send(table.concat(batch))
      for _ = 1, 50 do assert.equal(200, h.read_response(client).status) end
    end
    client:close()
    wait_requests(gateway, 1500)
    local scrapers = {}
    for i = 1, 3 do
      scrapers[i] = gateway:connect { port = gateway.admin_port }
      scrapers[i]:send "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    end
    assert.equal(200, gateway:admin("/healthz").status)
    scrapers[1]:close()
    for i = 2, 3 do
      local response = h.read_response(scrapers[i])
      assert.equal("chunked", response.headers["transfer-encoding"])
      assert.is_true(response.complete)
      assert.is_true(response.chunk_count > 20, response.chunk_count .. " chunks")
      assert.is_true(#response.body > 1500000, #response.body .. " bytes")
      local _, count = response.body:gsub('moongate_request_duration_seconds_count{route="/%d+"} 1\n', "")
      assert.equal(1500, count)
      assert.is_not_nil(response.body:find("\nmoongate_reloads_total{result=\"failed\"} 0\n$"))
    end
    gateway:expect_quiet()
  end, 30000))

  it("are asked for by HEAD, and by HTTP/1.0", h.test(function()
    local gateway = h.gateway { upstreams = { echo = "builtin:echo" }, routes = { { path = "/", backends = "echo" } } }
    local client = gateway:connect { port = gateway.admin_port }
    client:send "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    local response = h.read_response(client, { method = "HEAD" })
    assert.equal(200, response.status)
    assert.is_nil(response.headers["content-length"])
    client:send "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert.equal("ok\n", h.read_response(client).body)
    client:close()
    response = gateway:request("GET /metrics HTTP/1.0\r\n\r\n", { port = gateway.admin_port })
    assert.is_nil(response.headers["transfer-encoding"])
    assert.is_not_nil(response.body:find("\nmoongate_reloads_total{result=\"failed\"} 0\n$"), response.body:sub(-200))
  end))

  it("tell endpoints apart, by what came of each attempt", h.test(function()
    local fine = h.backend(h.always(h.http1.response("204 No Content")))
    local bad = h.backend(h.always(h.http1.response("503 Service Unavailable", "no")))
    local mute = h.backend(function(connection) connection:read_request() end)
    local dead = "127.0.0.1:" .. h.dead_port()
    local gateway = h.gateway {
      upstreams = { fine = fine, bad = bad, mute = mute, dead = dead },
      routes = { { path = "/fine", backends = "fine" }, { path = "/bad", backends = "bad" }, { path = "/mute", backends = "mute" },
        { path = "/dead", backends = "dead" } },
    }
    for _ = 1, 3 do gateway:get "/fine" end
    gateway:get "/bad"
    gateway:get "/mute"
    for _ = 1, 2 do gateway:get "/dead" end
    local metrics = wait_requests(gateway, 7)
    local function attempts(address, class)
      return metrics[('moongate_endpoint_requests_total{endpoint="%s",class="%s"}'):format(address, class)]
    end
    assert.equal(3, attempts(fine:address(), "2xx"))
    assert.is_nil(attempts(fine:address(), "none"))
    assert.equal(1, attempts(bad:address(), "5xx"))
    assert.equal(1, attempts(mute:address(), "none"))
    assert.equal(2, metrics[('moongate_endpoint_connect_failures_total{endpoint="%s"}'):format(dead)])
    assert.equal(1, metrics[('moongate_endpoint_connections{endpoint="%s"}'):format(fine:address())])
    assert.equal(0, metrics[('moongate_endpoint_connections{endpoint="%s"}'):format(mute:address())])
  end))

  local function shown(gateway)
    local out, count = {}, 0
    for name, value in pairs(gateway:metrics()) do
      local endpoint = name:match '^moongate_endpoint_requests_total{endpoint="([^"]+)"'
      if endpoint then
        out[endpoint] = (out[endpoint] or 0) + value
        count = count + 1
      end
    end
    return out, count
  end

  it("show so many endpoints as they are told to, or none", h.test(function()
    local backends = {}
    for i = 1, 5 do backends[i] = h.backend(h.always(h.http1.response("204 No Content"))) end
    local function config(count)
      return { upstreams = { b = backends }, routes = { { path = "/", backends = "b" } },
        settings = { metrics = { endpoints = count } } }
    end
    local gateway = h.gateway(config(2))
    for _ = 1, 10 do gateway:get "/" end
    wait_requests(gateway, 10)
    local endpoints, count = shown(gateway)
    assert.equal(3, count)
    assert.equal(6, endpoints.other)
    local none = h.gateway(config(0))
    none:get "/"
    wait_requests(none, 1)
    assert.equal(0, select(2, shown(none)))
  end))

  it("are read while workers count, and disturb none #threads", h.test(function()
    local gateway = h.gateway { upstreams = { echo = "builtin:echo" }, settings = { workers = 4 },
      routes = { { path = "/", backends = "echo" } } }
    local clients = {}
    for i = 1, 16 do clients[i] = gateway:connect() end
    for _ = 1, 10 do
      for i = 1, 16 do clients[i]:send(GET:format("/", ""):rep(10)) end
      gateway:metrics()
      for i = 1, 16 do
        for _ = 1, 10 do assert.equal(200, h.read_response(clients[i]).status) end
      end
    end
    local metrics = wait_requests(gateway, 1600)
    assert.equal(1600, metrics['moongate_request_duration_seconds_count{route="/"}'])
  end, 60000))
end)
