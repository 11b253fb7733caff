-- What the gateway tells backends about the client: X-Forwarded-*, Forwarded, Via, X-Request-Id, and what clients cannot fake.
local h = require "test.support.harness"

-- The head that the backend gets.
local function forwarded(settings, fields, raw)
  local backend = h.backend()
  local gateway = h.gateway { backend = backend, settings = settings }
  local response = raw and gateway:request(raw) or gateway:get("/", fields)
  assert.equal(200, response.status, response.body)
  return backend.requests[1], response
end

describe("X-Forwarded-*", function()
  it("tell address, scheme and host", h.test(function()
    local headers = forwarded().headers
    assert.equal("127.0.0.1", headers["x-forwarded-for"])
    assert.equal("http", headers["x-forwarded-proto"])
    assert.equal("test.example", headers["x-forwarded-host"])
    assert.equal("test.example", headers.host)
  end))

  it("replace what the client claims", h.test(function()
    local request = forwarded(nil, "X-Forwarded-For: 6.6.6.6\r\nX-FORWARDED-FOR: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n" ..
      "X-Forwarded-Host: evil.example\r\n")
    assert.equal("127.0.0.1", request.headers["x-forwarded-for"])
    assert.equal("http", request.headers["x-forwarded-proto"])
    assert.equal("test.example", request.headers["x-forwarded-host"])
  end))

  it("of a trusted hop are believed, and the hop's address is added", h.test(function()
    local headers = forwarded({ trusted_hops = 1 }, "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n" ..
      "X-Forwarded-Host: outer.example\r\n").headers
    assert.equal("9.9.9.9, 127.0.0.1", headers["x-forwarded-for"])
    assert.equal("https", headers["x-forwarded-proto"])
    assert.equal("outer.example", headers["x-forwarded-host"])
  end))

  it("without any from a trusted hop are our own", h.test(function()
    local headers = forwarded { trusted_hops = 1 }.headers
    assert.equal("127.0.0.1", headers["x-forwarded-for"])
    assert.equal("http", headers["x-forwarded-proto"])
    assert.equal("test.example", headers["x-forwarded-host"])
  end))

  it("cannot be taken away by Connection", h.test(function()
    local headers = forwarded(nil, "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-IP\r\n" ..
      "X-Real-IP: 1.2.3.4\r\n").headers
    assert.equal("127.0.0.1", headers["x-forwarded-for"])
    assert.equal("http", headers["x-forwarded-proto"])
    assert.equal("test.example", headers["x-forwarded-host"])
  end))

  it("name the authority of the absolute form", h.test(function()
    local request = forwarded(nil, nil, "GET http://a.example:81/x HTTP/1.1\r\nHost: a.example:81\r\n\r\n")
    assert.equal("/x", request.target)
    assert.equal("a.example:81", request.headers.host)
    assert.equal("a.example:81", request.headers["x-forwarded-host"])
  end))
end)

describe("Connection", function()
  for _, name in ipairs { "Host", "Authorization", "Cookie", "Content-Type", "Accept", "User-Agent", "Cache-Control" } do
    it("cannot take away " .. name, h.test(function()
      local value = name == "Host" and "h.example" or "kept"
      local fields = name == "Host" and "" or name .. ": kept\r\n"
      local request = forwarded(nil, nil, "GET / HTTP/1.1\r\nHost: h.example\r\nConnection: " .. name .. "\r\n" .. fields .. "\r\n")
      assert.equal(value, request.headers[name:lower()])
    end))
  end

  it("takes away what belongs to this hop", h.test(function()
    local headers = forwarded(nil, "Connection: close, X-Mine, x-other\r\nX-Mine: 1\r\nX-Other: 2\r\nX-Third: 3\r\n").headers
    assert.is_nil(headers["x-mine"])
    assert.is_nil(headers["x-other"])
    assert.is_nil(headers.connection)
    assert.equal("3", headers["x-third"])
  end))

  it("TE: trailers may go on, other codings not", h.test(function()
    local headers = forwarded(nil, "Connection: TE\r\nTE: gzip, deflate\r\n").headers
    assert.is_nil(headers.te)
  end))
end)

describe("Via, Forwarded and X-Request-Id", function()
  it("are off by default", h.test(function()
    local request, response = forwarded()
    for _, name in ipairs { "via", "forwarded", "x-request-id" } do
      assert.is_nil(request.headers[name])
      assert.is_nil(response.headers[name])
    end
  end))

  it("Via names the protocol received, behind what was there", h.test(function()
    local request = forwarded({ via = true }, "Via: 1.0 first\r\n")
    assert.is_not_nil(request.headers.via:find "^1%.0 first, 1%.1 %S+")
  end))

  it("Forwarded says for, proto and host", h.test(function()
    local value = forwarded({ forwarded = true }).headers.forwarded
    assert.is_not_nil(value:find("for=127.0.0.1", 1, true))
    assert.is_not_nil(value:find("proto=http", 1, true))
    assert.is_not_nil(value:find("host=\"?test.example\"?"))
  end))

  it("Forwarded of a client is replaced", h.test(function()
    local value = forwarded({ forwarded = true }, "Forwarded: for=6.6.6.6\r\n").headers.forwarded
    assert.is_nil(value:find("6.6.6.6", 1, true))
  end))

  it("X-Request-Id is sent, and never the same twice", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend, settings = { request_id = true } }
    local seen = {}
    for i = 1, 200 do
      assert.equal(200, gateway:get("/" .. i).status)
      local id = backend.requests[i].headers["x-request-id"]
      assert.is_not_nil(id)
      assert.is_nil(seen[id])
      assert.is_not_nil(id:find "^[%w%-]+$")
      seen[id] = true
    end
  end))

  it("an X-Request-Id of a client is not believed", h.test(function()
    local request = forwarded({ request_id = true }, "X-Request-Id: mine\r\n")
    assert.is_nil(request.headers["x-request-id"]:find("mine", 1, true))
  end))
end)
