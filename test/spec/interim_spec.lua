-- Interim responses of the backend: forwarded to HTTP/1.1 clients as they come, at most 16.
local h = require "test.support.harness"

local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local EARLY = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

describe("interim responses", function()
  it("are forwarded with their fields before the final one is there", h.test(function()
    local go, has_seen = h.loop.signal(), false
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send(EARLY)
      h.loop.wait(go, 5000, "the client to see the hint", function() return has_seen end)
      connection:send(h.http1.response("200 OK", "x"))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET)
    local interim = h.read_response(client, { is_interim_wanted = true })
    assert.equal(103, interim.status)
    assert.equal("</style.css>; rel=preload", interim.headers.link)
    has_seen = true
    go:fire()
    assert.equal("x", h.read_response(client).body)
  end))

  it("of several kinds keep their order", h.test(function()
    local backend = h.backend(h.always("HTTP/1.1 102 Processing\r\n\r\n" .. EARLY .. "HTTP/1.1 199 Odd\r\nX: y\r\n\r\n" ..
      h.http1.response("200 OK", "x")))
    local gateway = h.gateway { backend = backend }
    local response = gateway:get "/"
    local seen = {}
    for i, interim in ipairs(response.interim) do seen[i] = interim.status end
    assert.same({ 102, 103, 199 }, seen)
    assert.equal("x", response.body)
  end))

  it("lose their hop-by-hop fields", h.test(function()
    local backend = h.backend(h.always("HTTP/1.1 103 Early Hints\r\nConnection: X-Mine\r\nX-Mine: 1\r\nLink: </x>\r\n\r\n" ..
      h.http1.response("200 OK", "x")))
    local gateway = h.gateway { backend = backend }
    local interim = gateway:get("/").interim[1]
    assert.is_nil(interim.headers.connection)
    assert.is_nil(interim.headers["x-mine"])
    assert.equal("</x>", interim.headers.link)
  end))

  it("up to 16 pass, on a connection that goes on", h.test(function()
    local backend = h.backend(h.always(EARLY:rep(16) .. h.http1.response("200 OK", "x")))
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    for _ = 1, 3 do
      client:send(GET)
      local response = h.read_response(client)
      assert.equal(16, #response.interim)
      assert.equal("x", response.body)
    end
    assert.equal(1, #backend.connections)
  end))

  it("17 are a 502, and the backend's connection is closed", h.test(function()
    local backend = h.backend(h.always(EARLY:rep(17) .. h.http1.response("200 OK", "x")))
    local gateway = h.gateway { backend = backend }
    assert.equal(502, gateway:get("/").status)
    backend.connections[1]:wait_end()
  end))

  it("do not make a response: silence after them is a 504", h.test(function()
    local backend = h.backend(h.once(EARLY))
    local gateway = h.gateway { backend = backend, settings = { timeouts = { response = 0.3 } } }
    assert.equal(504, gateway:get("/").status)
  end))

  it("a 100 that nobody asked for does no harm", h.test(function()
    local backend = h.backend(h.always("HTTP/1.1 100 Continue\r\n\r\n" .. h.http1.response("200 OK", "x")))
    local gateway = h.gateway { backend = backend }
    assert.equal("x", gateway:get("/").body)
  end))
end)
