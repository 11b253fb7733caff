-- Several workers behind one port.
local h = require "test.support.harness"

describe("workers", function()
  it("all answer, and leave nothing behind", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend, settings = { workers = 4 } }
    assert.is_not_nil(gateway:log():find("ready (4 workers)", 1, true))
    local clients = {}
    for i = 1, 64 do
      clients[i] = gateway:connect()
      clients[i]:send("GET /" .. i .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
    end
    for i = 1, 64 do assert.equal("you asked for /" .. i .. "\n", h.read_response(clients[i]).body) end
    for i = 1, 64 do clients[i]:close() end
    gateway:expect_quiet()
  end))

  it("are as many as --workers says", h.test(function()
    local gateway = h.gateway { backend = h.backend(), args = { "--workers", "3" } }
    assert.is_not_nil(gateway:log():find("ready (3 workers)", 1, true))
    assert.equal(200, gateway:get("/").status)
  end))

  it("drain together", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { workers = 4 } }
    for _ = 1, 32 do
      local client = gateway:connect()
      client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
      assert.equal(200, h.read_response(client).status)
    end
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(3000)))
  end))
end)
