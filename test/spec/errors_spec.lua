-- Answers that the gateway makes itself: small, plain or JSON by Accept, and they name the cause.
local h = require "test.support.harness"

local ROUTES = {
  { path = "/refused", backends = "refused" },
  { path = "/backend", backends = "backend" },
}

local function start()
  local backend = h.backend(h.always "HTTP/1.1 2000 NO\r\n\r\n")
  return h.gateway {
    routes = ROUTES, upstreams = { refused = { "127.0.0.1:" .. h.dead_port() }, backend = backend },
    settings = { limits = { header_bytes = 4096, target_bytes = 1000, header_count = 20 } },
  }
end

local CASES = {
  { "an unknown route", "GET /nowhere HTTP/1.1\r\nHost: h.example\r\n@", 404, "Not Found" },
  { "a refused connect", "GET /refused HTTP/1.1\r\nHost: h.example\r\n@", 502, "Bad Gateway" },
  { "a broken response", "GET /backend HTTP/1.1\r\nHost: h.example\r\n@", 502, "Bad Gateway" },
  { "a missing Host", "GET / HTTP/1.1\r\n@", 400, "Bad Request" },
  { "a long target", "GET /" .. ("x"):rep(1000) .. " HTTP/1.1\r\nHost: h.example\r\n@", 414, "URI Too Long" },
  { "too many fields", "GET / HTTP/1.1\r\nHost: h.example\r\n" .. ("X: y\r\n"):rep(20) .. "@", 431,
    "Request Header Fields Too Large" },
  { "an expectation", "GET / HTTP/1.1\r\nHost: h.example\r\nExpect: x\r\n@", 417, "Expectation Failed" },
  { "an unknown method", "FOO / HTTP/1.1\r\nHost: h.example\r\n@", 501, "Not Implemented" },
  { "an unknown version", "GET / HTTP/1.7\r\nHost: h.example\r\n@", 505, "HTTP Version Not Supported" },
}

local function with(raw, fields)
  return (raw:gsub("@", function() return fields .. "\r\n" end))
end

describe("own answers:", function()
  for _, case in ipairs(CASES) do
    local name, raw, status, reason = unpack(case)

    it(name .. ", plain", h.test(function()
      local response = start():request(with(raw, ""))
      assert.equal(status, response.status)
      assert.equal(reason, response.reason)
      assert.is_not_nil((response.headers["content-type"] or ""):find "^text/plain")
      assert.is_not_nil(response.body:find(("^%d %s: [^\n]+\n$"):format(status, reason)), response.body)
      assert.equal("length", response.framing)
    end))
  end

  for _, i in ipairs { 1, 2, 3 } do
    local name, raw, status, reason = unpack(CASES[i])
    it(name .. ", JSON", h.test(function()
      local response = start():request(with(raw, "Accept: application/json\r\n"))
      assert.equal(status, response.status)
      assert.equal("application/json", response.headers["content-type"]:match "^[^;]+")
      assert.is_not_nil(response.body:find(('"status": ?%d'):format(status)), response.body)
      assert.is_not_nil(response.body:find(('"error": ?"%s"'):format(reason)), response.body)
      assert.is_not_nil(response.body:find '"reason": ?"[^"]+"', response.body)
    end))

    it(name .. ", HEAD has no body", h.test(function()
      local gateway = start()
      local client = gateway:connect()
      client:send(with(raw:gsub("^GET", "HEAD"), ""))
      assert.equal(status, h.read_response(client, { method = "HEAD" }).status)
      assert.is_false(client:has_more(50))
    end))
  end

  it("a refused connect names the cause", h.test(function()
    assert.is_not_nil(start():get("/refused").body:lower():find("refused", 1, true))
  end))

  it("show nothing of what the client sent", h.test(function()
    local body = start():get("/nowhere<script>alert(1)</script>").body
    assert.is_nil(body:find("script", 1, true))
  end))

  it("leave a connection usable where the framing is sound", h.test(function()
    local client = start():connect()
    for _ = 1, 5 do
      client:send "GET /nowhere HTTP/1.1\r\nHost: h.example\r\n\r\n"
      assert.equal(404, h.read_response(client).status)
    end
  end))

  it("to a request with a body leave nothing of it behind", h.test(function()
    local client = start():connect()
    client:send "POST /nowhere HTTP/1.1\r\nHost: h.example\r\nContent-Length: 40\r\n\r\n"
    local response = h.read_response(client)
    assert.equal(404, response.status)
    client:send("GET /backend HTTP/1.1\r\nHost: h.example\r\n\r\n")
    local after = client:read_all(3000)
    assert.is_nil(after:find("502", 1, true), "the body was taken for a request")
  end))

  it("an unused path prefix matches whole segments only", h.test(function()
    local gateway = start()
    assert.equal(404, gateway:get("/refusedx").status)
    assert.equal(502, gateway:get("/refused/x").status)
    assert.equal(404, gateway:get("/").status)
  end))
end)
