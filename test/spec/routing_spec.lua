-- Which route takes a request: test/spec/data/routes.lua, each set against one gateway with a backend for every route.
local h = require "test.support.harness"
local sets = require "test.spec.data.routes"

-- "METHOD HOST TARGET", then header fields, as bytes.
local function bytes_of(text)
  local method, host, target, fields = text:match "^(%S+) (%S+) (%S+)\n?(.*)$"
  local lines = {}
  if host ~= "-" then lines[1] = "Host: " .. host end
  for field in fields:gmatch "[^\n]+" do lines[#lines + 1] = field end
  lines[#lines + 1] = "Connection: close"
  return ("%s %s HTTP/1.%d\r\n%s\r\n\r\n"):format(method, target, host == "-" and 0 or 1, table.concat(lines, "\r\n")), method
end

local function start(set)
  local upstreams, routes = {}, {}
  for i, given in ipairs(set.routes) do
    local route = {}
    for key, value in pairs(given) do route[key] = value end
    route.backends = "b" .. i
    routes[i] = route
    upstreams[route.backends] = h.backend(h.always(h.http1.response("200 OK", "", "X-Route: " .. i .. "\r\n")))
  end
  return h.gateway { upstreams = upstreams, routes = routes }
end

describe("routing", function()
  for _, set in ipairs(sets) do
    it(set.name, h.test(function()
      local gateway = start(set)
      for _, case in ipairs(set.requests) do
        local bytes, method = bytes_of(case[1])
        local response = gateway:request(bytes, { method = method })
        local route = response.status == 200 and tonumber(response.headers["x-route"])
        assert.equal(case[2], route or response.status, case[1])
      end
    end))
  end

  it("says why it answers 500", h.test(function()
    local gateway = h.gateway {
      backend = h.backend(), routes = { { path = { regex = "/(a+)+b" }, backends = "backend" } },
    }
    local response = gateway:get("/" .. ("a"):rep(60) .. "!b!")
    assert.equal(500, response.status)
    assert.is_not_nil(response.body:find("regex", 1, true), response.body)
  end))
end)
