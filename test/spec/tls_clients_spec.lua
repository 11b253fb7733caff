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

local function test(body) return tls.test(function() return set end, body) end

local function settings(client)
  return { certificates = { site }, client = client }
end

local function curl(gateway, who, args)
  local own = who and ("--cert %s --key %s"):format(who.cert, who.key) or ""
  return tls.curl(gateway, set.ca, "site.example", own .. " " .. (args or ""))
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
    set:revoke "bob"
    gateway:wait_log("certificates changed", 8000)
    assert.not_equal(0, select(2, curl(gateway, bob)))
    assert.equal(0, select(2, curl(gateway, ann)))
  end), 60000)

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
  end), 60000)

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
