-- Out of descriptors: no crash, no spin, what is open goes on, and all is well again afterwards.
local h = require "test.support.harness"

local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local CLIENT_COUNT = 200

describe("with 64 descriptors", function()
  it("200 clients are survived", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend, shell = "ulimit -n 64;" }
    gateway:expect_log "descriptor"
    local first = gateway:connect()
    first:send(GET)
    assert.equal(200, h.read_response(first).status)

    local clients = {}
    for i = 1, CLIENT_COUNT do
      clients[i] = h.connect(gateway.port)
      if clients[i] then clients[i]:send "GET / HT" end
    end

    -- No spin while nothing can be accepted.
    h.pass(200)
    local before = gateway:cpu_ticks()
    h.pass(1000)
    local ticks = gateway:cpu_ticks() - before
    assert.is_true(ticks <= 20, ticks .. " ticks in a second")

    -- What was open goes on, its backend too; so does the admin listener.
    for _ = 1, 5 do
      first:send(GET)
      local response, how = h.read_response(first)
      assert.is_not_nil(response, tostring(how))
      assert.equal(200, response.status, response.body)
    end

    -- And when the others have gone, all is well.
    for _, client in pairs(clients) do client:close() end
    for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
    first:close()
    gateway:expect_quiet()
    assert.is_true(gateway:metrics().moongate_accept_paused_total >= 1)
  end, 40000))

  it("a reserve is kept for backends", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend, shell = "ulimit -n 64;" }
    gateway:expect_log "descriptor"
    local clients = {}
    for i = 1, CLIENT_COUNT do clients[i] = h.connect(gateway.port) end
    h.pass(200)
    -- Those that were accepted are served.
    local served, failed = 0, 0
    for i = 1, 10 do
      clients[i]:send(GET)
      local response = h.read_response(clients[i])
      if response and response.status == 200 then served = served + 1 else failed = failed + 1 end
    end
    assert.equal(10, served, failed .. " failed")
  end, 40000))
end)
