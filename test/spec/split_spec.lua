-- Weighted backends: each gets its share, over several workers, in short runs too.
local h = require "test.support.harness"

local function names(count)
  local out = {}
  for i = 1, count do out[i] = h.backend() end
  return unpack(out)
end

-- Sends count requests over that many connections; gives how many each backend got.
local function spread(gateway, connection_count, count, backends)
  local clients = {}
  for i = 1, connection_count do clients[i] = gateway:connect() end
  for i = 1, count do
    local client = clients[(i - 1) % connection_count + 1]
    client:send("GET /" .. i .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
    assert.equal(200, h.read_response(client).status)
  end
  local out = {}
  for i, backend in ipairs(backends) do out[i] = #backend.requests end
  return out
end

-- Pearson's statistic; the 99.9 % quantiles of chi-square for 1, 2, 3 degrees of freedom.
local QUANTILE = { 10.83, 13.82, 16.27 }

local function chi_square(found, weights)
  local total, sum, out = 0, 0, 0
  for i, n in ipairs(found) do total, sum = total + n, sum + weights[i] end
  for i, n in ipairs(found) do
    local due = total * weights[i] / sum
    out = out + (n - due) ^ 2 / due
  end
  return out
end

describe("split", function()
  for _, workers in ipairs { 1, 4 } do
    it(("95 to 5 over %d workers holds the chi-square test #threads"):format(workers), h.test(function()
      local a, b = names(2)
      local gateway = h.gateway {
        settings = { workers = workers }, upstreams = { users = a, ["users-next"] = b },
        routes = { { path = "/", backends = { users = 95, ["users-next"] = 5 } } },
      }
      local found = spread(gateway, 16, 2000, { a, b })
      assert.equal(2000, found[1] + found[2])
      assert.is_true(chi_square(found, { 95, 5 }) < QUANTILE[1], table.concat(found, " : "))
    end, 60000))
  end

  it("is right in a short run", h.test(function()
    local a, b, c = names(3)
    local gateway = h.gateway {
      upstreams = { a = a, b = b, c = c },
      routes = { { path = "/", backends = { a = 1, b = 2, c = 5 } } },
    }
    local found = spread(gateway, 1, 40, { a, b, c })
    for i, due in ipairs { 5, 10, 25 } do
      assert.is_true(math.abs(found[i] - due) <= 2, table.concat(found, " : "))
    end
  end))

  it("routes do not disturb each other", h.test(function()
    local a, b = names(2)
    local gateway = h.gateway {
      upstreams = { a = a, b = b },
      routes = {
        { path = "/", backends = { a = 1, b = 1 } },
        { path = "/x", backends = { a = 1, b = 3 } },
      },
    }
    local client = gateway:connect()
    for i = 1, 80 do
      client:send(("GET /%s%d HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(i % 2 == 0 and "x/" or "", i))
      h.read_response(client)
    end
    local of_x = 0
    for _, request in ipairs(b.requests) do of_x = of_x + (request.target:find "^/x/" and 1 or 0) end
    assert.is_true(math.abs(of_x - 30) <= 2, of_x .. " of 40")
  end))

  it("gives weight 0 nothing", h.test(function()
    local a, b = names(2)
    local gateway = h.gateway {
      upstreams = { a = a, b = b }, routes = { { path = "/", backends = { a = 0, b = 3 } } },
    }
    assert.same({ 0, 20 }, spread(gateway, 1, 20, { a, b }))
  end))

  it("without any weight is a 500", h.test(function()
    local gateway = h.gateway {
      upstreams = { a = h.backend() }, routes = { { path = "/", backends = { a = 0 } } },
    }
    local response = gateway:get "/"
    assert.equal(500, response.status)
    assert.is_not_nil(response.body:find "weight")
  end))

  it("a share without endpoint is a 503, the others serve", h.test(function()
    local a = h.backend()
    local gateway = h.gateway {
      upstreams = { a = a, none = {} }, routes = { { path = "/", backends = { a = 1, none = 1 } } },
    }
    local counts = { [200] = 0, [503] = 0 }
    for _ = 1, 20 do
      local status = gateway:get("/").status
      counts[status] = counts[status] + 1
    end
    assert.is_true(math.abs(counts[200] - 10) <= 2, counts[200] .. " of 20")
  end))

  it("built-ins may have a share", h.test(function()
    local gateway = h.gateway {
      upstreams = { a = h.backend(), echo = { "builtin:echo" } },
      routes = { { path = "/", backends = { a = 1, echo = 1 } } },
    }
    local json = 0
    for _ = 1, 20 do json = json + (gateway:get("/").body:find "^{" and 1 or 0) end
    assert.is_true(math.abs(json - 10) <= 2, json .. " of 20")
  end))

  local function problem(backends)
    local path = h.write_file(h.config { upstreams = { users = { "127.0.0.1:1" } },
      routes = { { path = "/", backends = backends } } })
    local result = h.exec { "check", path }
    assert.equal(1, result.code)
    return result.stdout .. result.stderr
  end

  it("an unknown upstream is an error with its place", h.test(function()
    assert.is_not_nil(problem({ users = 1, usrs = 1 }):find('backends.usrs: there is no upstream "usrs"; ' ..
      'did you mean "users"?', 1, true))
  end))

  it("weights are whole numbers", h.test(function()
    for _, weight in ipairs { -1, 1.5, 1000001, "many" } do
      assert.is_not_nil(problem({ users = weight }):find("backends.users: found", 1, true))
    end
    assert.is_not_nil(problem({}):find("backends: no backends", 1, true))
  end))
end)
