-- Certificates of clients: who is let in, and what the gateway tells of them.
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set, site, ann, bob, mallory, elsewhere_ca

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example" }
  ann = set:issue { name = "ann", subject = "/O=Example, Inc./CN=ann", sans = "DNS:ann.example,URI:spiffe://example/ann,IP:10.0.0.1" }
  bob = set:issue { name = "bob", sans = "DNS:bob.example" }
  elsewhere_ca = set:authority "elsewhere"
  mallory = set:issue { name = "mallory", ca = "elsewhere" }
  set:issue { name = "old", from = "20200101000000Z", to = "20200201000000Z" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body, ms) return tls.test(function() return set end, body, ms) end

local function settings(client)
  return { certificates = { site }, client = client }
end

local function curl(gateway, who, args)
  local own = who and ("--cert %s --key %s"):format(who.cert, who.key) or ""
  return tls.curl(gateway, set.ca, "site.example", own .. " " .. (args or ""))
end

-- A connection that has had an answer, and is not ended by the client for 12 s.
local function stand(gateway, who, request)
  local process = h.spawn("/bin/sh", { args = { "-c", ("(printf '%s'; exec sleep 12) | exec openssl s_client -quiet " ..
    "-servername site.example -cert %s -key %s -connect 127.0.0.1:%d 2>&1"):format(
    request or "GET / HTTP/1.1\\r\\nHost: site.example\\r\\n\\r\\n", who.cert, who.key, gateway.port) } })
  process:wait_output "HTTP/1.1 %d%d%d "
end

local function connections(gateway) return gateway:metrics().moongate_connections_live end

local function wait_connections(gateway, count)
  gateway:wait_metrics(count .. " connections", function(metrics) return metrics.moongate_connections_live == count end)
end

local function failed(gateway)
  return gateway:metrics()['moongate_tls_handshake_failures_total{reason="certificate"}']
end

describe("a client's certificate", function()
  it("is needed where it is required", test(function()
    local gateway = tls.serve(settings { ca = set.ca })
    for _, version in ipairs { "1.2", "1.3" } do
      local args = ("--tlsv%s --tls-max %s"):format(version, version)
      assert.equal(0, select(2, curl(gateway, ann, args)))
      assert.not_equal(0, select(2, curl(gateway, nil, args)))
      assert.not_equal(0, select(2, curl(gateway, mallory, args)))
    end
    assert.equal(4, failed(gateway))
    local old = { cert = set:path "old.crt", key = set:path "old.key" }
    assert.not_equal(0, select(2, curl(gateway, old)))
    gateway:expect_quiet()
  end))

  it("may be left out where it is optional, but not be a bad one", test(function()
    local gateway = tls.serve(settings { verify = "optional", ca = set.ca })
    assert.equal(0, select(2, curl(gateway)))
    assert.equal(0, select(2, curl(gateway, ann)))
    assert.not_equal(0, select(2, curl(gateway, mallory)))
  end))

  it("is not asked for where nobody wants it", test(function()
    local gateway = tls.serve(settings { verify = "none" })
    assert.truthy(tls.s_client(gateway, "-servername site.example"):find "No client certificate CA names sent")
  end))

  it("that was revoked is refused, also once the CRL has changed #threads", test(function()
    local crl = set:revoke()
    local gateway = tls.serve(settings { ca = set.ca, crl = crl })
    assert.equal(0, select(2, curl(gateway, bob)))
    stand(gateway, bob) -- it does not outlive his certificate
    assert.equal(1, connections(gateway))
    set:revoke "bob"
    gateway:wait_log("certificates changed", 8000)
    wait_connections(gateway, 0)
    assert.not_equal(0, select(2, curl(gateway, bob)))
    local output, code = curl(gateway, ann, "-i --http1.1")
    assert.equal(0, code, output)
    assert.truthy(output:find "^HTTP/1.1 200 ", output) -- the listener knows whom it lets in now
  end, 60000))

  it("does not outlive a change of the CAs by a ticket", test(function()
    set:write("trusted.crt", set:read "ca.crt")
    local gateway = tls.serve(settings { ca = set:path "trusted.crt" })
    local args = ("-servername site.example -cert %s -key %s"):format(ann.cert, ann.key)
    local ask = [[printf 'GET / HTTP/1.1\r\nHost: site.example\r\n\r\n'; sleep 0.3]]
    tls.s_client(gateway, args .. " -sess_out " .. set:path "session", ask)
    assert.truthy(tls.s_client(gateway, args .. " -sess_in " .. set:path "session"):find "Reused, TLS")
    set:write("trusted.crt", set:read "elsewhere.crt")
    gateway:wait_log("certificates changed", 8000)
    local output = tls.s_client(gateway, "-servername site.example -sess_in " .. set:path "session", ask)
    assert.falsy(output:find "Reused, TLS")
    assert.falsy(output:find "HTTP/1.1 200")
    assert.is_string(elsewhere_ca)
  end, 60000))

  it("that a reload does not let in any more has no connection any more; others stay", test(function()
    local function config(client, port)
      return { listener = { protocol = "https", tls = settings(client), port = port }, upstreams = { backend = { "builtin:echo" } } }
    end
    local port = require("test.support.ports").free()
    local gateway = h.gateway(config({ verify = "optional", ca = set.ca }, port))
    stand(gateway, ann)
    gateway:rewrite(config({ verify = "optional", ca = set.ca, header = true }, port))
    assert.equal(0, gateway:ask("reload").code)
    h.pass(300)
    assert.equal(1, connections(gateway))
    gateway:rewrite(config({ verify = "required", ca = elsewhere_ca }, port))
    assert.equal(0, gateway:ask("reload").code)
    wait_connections(gateway, 0)
    gateway:expect_quiet()
    local output, code = curl(gateway, mallory, "-i --http1.1")
    assert.equal(0, code, output)
    assert.truthy(output:find "^HTTP/1.1 200 ", output)
  end))

  it("that a reload does not let in any more has none on a port of several protocols either", test(function()
    local port = require("test.support.ports").free()
    local function config(client)
      return ([[
local m = require "moongate"
m.upstream { name = "b", endpoints = { "builtin:echo" } }
m.upstream { name = "raw", endpoints = { "127.0.0.1:1" } }
m.listener { port = %d, address = "127.0.0.1", detect = true }
m.listener { port = %d, address = "127.0.0.1", detect = true, protocol = "tls", name = "pass", hostname = "a.example",
  tls = { mode = "passthrough" } }
m.listener { port = %d, address = "127.0.0.1", detect = true, protocol = "https", tls = %s }
m.route { path = "/", backends = "b" }
m.route { listeners = { "pass" }, backends = "raw" }
]]):format(port, port, port, h.literal { certificates = { { cert = site.cert, key = site.key } }, client = client })
    end
    local gateway = h.gateway { config = config { verify = "optional", ca = set.ca } }
    stand(gateway, ann)
    gateway:rewrite(config { verify = "required", ca = elsewhere_ca })
    assert.equal(0, gateway:ask("reload").code)
    wait_connections(gateway, 0)
  end))

  it("that a reload does not let in any more keeps its tunnel", test(function()
    local over = h.loop.signal()
    local is_over = false
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
      h.loop.wait(over, 20000, "the end", function() return is_over end)
    end)
    local port = require("test.support.ports").free()
    local function config(client)
      return { listener = { protocol = "https", tls = settings(client), port = port }, backend = backend }
    end
    local gateway = h.gateway(config { verify = "optional", ca = set.ca })
    stand(gateway, ann, "GET / HTTP/1.1\\r\\nHost: site.example\\r\\nConnection: upgrade\\r\\nUpgrade: x\\r\\n\\r\\n")
    gateway:rewrite(config { ca = elsewhere_ca })
    assert.equal(0, gateway:ask("reload").code)
    h.pass(300)
    assert.equal(1, gateway:metrics().moongate_tunnels_live)
    is_over = true
    over:fire()
    gateway:wait_metrics("no tunnel", function(metrics) return metrics.moongate_tunnels_live == 0 end)
  end))

  it("is told to the upstream when asked, and nothing that a client says of it", test(function()
    local backend = h.backend()
    local gateway = tls.serve(settings { verify = "optional", ca = set.ca, header = true }, { backend = backend })
    local forged = "-H 'X-Forwarded-Client-Cert: Subject=admin'"
    curl(gateway, ann, forged)
    local said = backend.requests[1].headers["x-forwarded-client-cert"]
    assert.truthy(said:find '^Hash=%x+;Subject="O=Example\\, Inc.,CN=ann"', said)
    assert.truthy(said:find(';URI="spiffe://example/ann";DNS="ann.example"', 1, true), said)
    curl(gateway, nil, forged)
    assert.is_nil(backend.requests[2].headers["x-forwarded-client-cert"])
    local plain = h.gateway { backend = backend }
    plain:get("/", "X-Forwarded-Client-Cert: Subject=admin\r\n")
    assert.is_nil(backend.requests[3].headers["x-forwarded-client-cert"])
  end))

  it("is seen by scripts", test(function()
    local gateway = h.script([[
moongate.route { path = "/", access = function(exchange)
  local tls = exchange.request.tls
  if not tls.client then return exchange:respond(200, "nobody on " .. tls.version .. " for " .. tls.sni) end
  exchange:respond(200, table.concat({ tls.client.subject, #tls.client.fingerprint, table.concat(tls.client.sans, "+") }, " "))
end }]], { listener = { protocol = "https", tls = settings { verify = "optional", ca = set.ca } } })
    assert.equal("nobody on TLSv1.3 for site.example", (curl(gateway)))
    assert.equal("O=Example\\, Inc.,CN=ann 64 DNS:ann.example+URI:spiffe://example/ann+IP:10.0.0.1", (curl(gateway, ann)))
    local plain = h.script [[
moongate.route { path = "/", access = function(exchange) exchange:respond(200, tostring(exchange.request.tls)) end }]]
    assert.equal("nil", plain:get("/").body)
  end))
end)
