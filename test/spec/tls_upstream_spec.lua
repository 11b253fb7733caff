-- TLS to upstreams and of calls: whom the gateway believes, what it says of itself, and what becomes of those it does not.
local h = require "test.support.harness"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

local set, good, other, workload, elsewhere, me

setup(function()
  set = tls.certs()
  if not set then return end
  good = set:issue { name = "good", sans = "DNS:localhost,DNS:users.example,IP:127.0.0.1" }
  other = set:issue { name = "other", sans = "DNS:other.example" }
  workload = set:issue { name = "workload", sans = "URI:spiffe://example/users,DNS:users.internal" }
  set:authority "elsewhere"
  elsewhere = set:issue { name = "stranger", ca = "elsewhere", sans = "DNS:localhost,IP:127.0.0.1" }
  me = set:issue { name = "me", sans = "URI:spiffe://example/gateway" }
  set:issue { name = "old", sans = "DNS:localhost,IP:127.0.0.1", from = "20200101000000Z", to = "20200201000000Z" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

-- openssl's server with that certificate, which answers every request with what it knows of the connection.
local function server(pair, args)
  local port = ports.free()
  local process = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_server -accept 127.0.0.1:%d -cert %s -key %s -www %s")
    :format(port, pair.cert, pair.key, args or "") } })
  process:wait_output "ACCEPT"
  return port
end

local function config(port, settings, keys)
  local upstream = { name = "backend", endpoints = { ("%s:%d"):format(keys and keys.host or "127.0.0.1", port) }, tls = settings }
  return ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream %s
moongate.route { path = "/", backends = "backend" }
]]):format(h.literal(upstream))
end

local function serve(port, settings, keys)
  return h.gateway { config = config(port, settings, keys) }
end

local function refuses(gateway, why)
  local response = gateway:get "/"
  assert.equal(502, response.status)
  assert.truthy(response.body:find("the upstream's certificate is not accepted", 1, true), response.body)
  gateway:wait_log("warn TLS with 127.0.0.1:%d+ failed: " .. why)
end

describe("an upstream with TLS", function()
  it("is believed when a CA vouches for it", test(function()
    local gateway = serve(server(good), { ca = set.ca })
    local response = gateway:get "/"
    assert.equal(200, response.status)
    assert.truthy(response.body:find "TLSv1.3", response.body)
  end))

  it("is asked for by name", test(function()
    local gateway = serve(server(good, ("-servername users.example -cert2 %s -key2 %s -servername_fatal"):format(good.cert, good.key)),
      { ca = set.ca, sni = "users.example" })
    assert.equal(200, gateway:get("/").status)
    gateway = serve(server(good), { ca = set.ca }, { host = "localhost" })
    assert.equal(200, gateway:get("/").status)
  end))

  it("is not believed otherwise: nothing is sent to it", test(function()
    refuses(serve(server(elsewhere), { ca = set.ca }), "unable to get local issuer certificate")
    refuses(serve(server(good), {}), "unable to get local issuer certificate") -- the system does not know this CA
    refuses(serve(server(other), { ca = set.ca }), "IP address mismatch")
    refuses(serve(server(good), { ca = set.ca, sni = "nobody.example" }), "[Hh]ostname mismatch")
    local old = { cert = set:path "old.crt", key = set:path "old.key" }
    refuses(serve(server(old), { ca = set.ca }), "certificate has expired")
  end))

  it("is believed whatever it shows only when told so", test(function()
    assert.equal(200, serve(server(elsewhere), { verify = false }):get("/").status)
  end))

  it("may be pinned to names, those of SPIFFE as well", test(function()
    local port = server(workload)
    assert.equal(200, serve(port, { ca = set.ca, sans = { "spiffe://example/users" } }):get("/").status)
    assert.equal(200, serve(port, { ca = set.ca, sans = { "nobody", "users.internal" } }):get("/").status)
    for _, san in ipairs { "spiffe://example/user", "spiffe://example/users/x", "SPIFFE://example/users", "workload" } do
      refuses(serve(port, { ca = set.ca, sans = { san } }), "the certificate has none of the names that are pinned")
    end
  end))

  it("is shown a certificate of ours", test(function()
    local port = server(good, "-Verify 2 -verify_return_error -CAfile " .. set.ca)
    local response = serve(port, { ca = set.ca, cert = me.cert, key = me.key }):get "/"
    assert.equal(200, response.status)
    assert.truthy(response.body:find "CN ?= ?me", response.body)
    local without = serve(port, { ca = set.ca })
    assert.equal(502, without:get("/").status)
    without:wait_log "warn TLS with .* failed: .*certificate required"
  end))

  it("resumes sessions, and keeps connections", test(function()
    local port = server(good)
    local gateway = serve(port, { ca = set.ca })
    assert.truthy(gateway:get("/").body:find "%-%-%-\nNew, TLSv1.3")
    assert.truthy(gateway:get("/").body:find "%-%-%-\nReused, TLSv1.3") -- s_server closes after each answer

    local closing = tls.serve({ certificates = { good } }, { settings = { keepalive_requests = 1 } })
    local again = serve(closing.port, { ca = set.ca })
    for _ = 1, 6 do assert.equal(200, again:get("/").status) end
    assert.equal(5, closing:metrics().moongate_tls_resumed_total)

    local behind = tls.serve({ certificates = { good } })
    local front = serve(behind.port, { ca = set.ca })
    for _ = 1, 5 do assert.equal(200, front:get("/").status) end
    assert.equal(1, front:metrics().moongate_upstream_connects_total)
    assert.truthy(front:get("/").body:find '"scheme": "https"')
  end))

  it("that speaks before the handshake, or no TLS at all, is a 502", test(function()
    local backend = h.backend(function(connection) -- CVE-2026-1642
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
      connection:wait_end()
    end)
    local gateway = serve(backend.port, { ca = set.ca })
    local response = gateway:get "/"
    assert.equal(502, response.status)
    assert.falsy(response.body:find "forged")
    assert.truthy(response.body:find "TLS with the upstream failed", response.body)
    local dead = serve(h.dead_port(), { ca = set.ca })
    assert.truthy(dead:get("/").body:find "refused the connection")
    local text = config(h.black_hole(), { ca = set.ca })
    local mute = h.gateway { config = (text:gsub("workers = 1", "workers = 1, timeouts = { connect = 0.2 }")) }
    assert.equal(504, mute:get("/").status)
  end))

  it("that speaks an older version than it may is a 502", test(function() -- A73
    local function fails(args, settings)
      local gateway = serve(server(good, args), settings)
      local response = gateway:get("/", "X-Secret: yes\r\n")
      assert.equal(502, response.status)
      assert.truthy(response.body:find("TLS with the upstream failed", 1, true), response.body)
    end
    fails("-tls1_1 -cipher DEFAULT@SECLEVEL=0", { ca = set.ca })
    fails("-tls1_2", { ca = set.ca, min_version = "1.3" })
    assert.equal(200, serve(server(good, "-tls1_2"), { ca = set.ca }):get("/").status)
  end))

  it("is described wrongly: the check says so", test(function()
    local function refused(settings, text)
      local result = h.exec { "check", (h.write_file(config(1, settings))) }
      assert.equal(1, result.code)
      assert.truthy(result.stderr:find(text, 1, true), result.stderr)
    end
    refused({ ca = set:path "nothing" }, "tls.ca: cannot read")
    refused({ cert = me.cert }, "tls.key: missing")
    refused({ cert = me.cert, key = good.key }, "does not belong to the certificate")
    refused({ verify = false, ca = set.ca }, "nobody looks at")
  end))

  it("has connections of its own for each identity", test(function()
    local behind = tls.serve({ certificates = { good }, client = { verify = "optional", ca = set.ca, header = true } })
    local text = ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "me", endpoints = { "127.0.0.1:%d" }, tls = { ca = %q, cert = %q, key = %q } }
moongate.upstream { name = "nobody", endpoints = { "127.0.0.1:%d" }, tls = { ca = %q } }
moongate.upstream { name = "same", endpoints = { "127.0.0.1:%d" }, tls = { ca = %q } }
moongate.route { path = "/me", backends = "me" }
moongate.route { path = "/nobody", backends = "nobody" }
moongate.route { path = "/same", backends = "same" }
]]):format(behind.port, set.ca, me.cert, me.key, behind.port, set.ca, behind.port, set.ca)
    local gateway = h.gateway { config = text }
    for _ = 1, 3 do
      assert.truthy(gateway:get("/me").body:find "spiffe://example/gateway")
      assert.falsy(gateway:get("/nobody").body:find "spiffe://example/gateway")
      assert.equal(200, gateway:get("/same").status)
    end
    assert.equal(2, gateway:metrics().moongate_upstream_connects_total)
  end))
end)

describe("a call to https", function()
  local function ask(url, trusted)
    local gateway = h.script(([[
moongate.route { path = "/", access = function(exchange)
  local answer, err = moongate.http.request { url = %q }
  exchange:respond(200, answer and answer.status .. " " .. answer.body or err)
end }]]):format(url), { shell = ("SSL_CERT_FILE=%s; export SSL_CERT_FILE;"):format(trusted or set.ca) })
    return gateway:get("/").body, gateway
  end

  it("trusts whom the system trusts", test(function()
    local port = server(good)
    assert.truthy((ask(("https://127.0.0.1:%d/"):format(port))):find "^200 ")
    assert.truthy((ask(("https://localhost:%d/"):format(port))):find "^200 ")
    assert.truthy((ask(("https://127.0.0.1:%d/"):format(port), set:path "elsewhere.crt")):find "certificate not accepted")
    assert.truthy((ask(("https://localhost:%d/"):format(server(other)))):find "certificate not accepted")
  end))
end)
