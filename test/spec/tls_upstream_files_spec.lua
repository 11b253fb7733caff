-- The files of upstreams with TLS: new ones are taken into use without a reload, and what is no good is told and not taken.
local h = require "test.support.harness"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("the files of an upstream", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local set, good, me, you

setup(function()
  set = tls.certs()
  if not set then return end
  good = set:issue { name = "good", sans = "DNS:localhost,IP:127.0.0.1" }
  me = set:issue { name = "me", sans = "URI:spiffe://example/me" }
  you = set:issue { name = "you", sans = "URI:spiffe://example/you" }
  set:authority "elsewhere"
  set:issue { name = "old", from = "20200101000000Z", to = "20200201000000Z" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

-- A gateway behind, which tells whom it has met in what it sends on; echoed.
local function behind(pair)
  return tls.serve({ certificates = { pair or good }, client = { verify = "optional", ca = set.ca, header = true } })
end

local function serve(port, settings, workers, protocol)
  local upstream = { name = "backend", endpoints = { ("127.0.0.1:%d"):format(port) }, tls = settings, protocol = protocol }
  return h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = %d }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream %s
moongate.route { path = "/", backends = "backend" }
]]):format(workers or 1, h.literal(upstream)) }
end

local function copy(from, to) return set:write(to, set:read(from)) end

-- Whom the backend has met; the status where it was no 200.
local function met(gateway)
  local response = gateway:get "/"
  return response.status == 200 and response.body:match "spiffe://example/(%w+)" or response.status
end

describe("the files of an upstream", function()
  it("that change serve within two seconds, and what idles under the old ones serves no more #threads", test(function()
    local live = { cert = copy("me.crt", "live.crt"), key = copy("me.key", "live.key"), ca = copy("ca.crt", "live.ca") }
    local gateway = serve(behind().port, live, 2)
    for _ = 1, 8 do assert.equal("me", met(gateway)) end
    local before = gateway:metrics().moongate_upstream_connects_total
    assert.is_true(before <= 2)
    copy("you.crt", "live.crt")
    copy("you.key", "live.key")
    h.takes(0, 2500, function() gateway:wait_log("certificates changed: .*live.crt", 8000) end)
    for _ = 1, 8 do assert.equal("you", met(gateway)) end
    assert.is_true(gateway:metrics().moongate_upstream_connects_total > before)
    -- the CAs as well: sessions of before are not resumed
    gateway:expect_log "certificate"
    copy("elsewhere.crt", "live.ca")
    gateway:wait_log("certificates changed.*certificates changed", 8000)
    for _ = 1, 4 do assert.equal(502, met(gateway)) end
    copy("ca.crt", "live.ca")
    gateway:wait_log("certificates changed.*certificates changed.*certificates changed", 8000)
    for _ = 1, 4 do assert.equal("you", met(gateway)) end
  end), 60000)

  it("that change end what HTTP/2 shares: no new streams, and those that are open go on", test(function()
    local live = { cert = copy("me.crt", "shared.crt"), key = copy("me.key", "shared.key"), ca = set.ca }
    local gateway = serve(behind().port, live, 1, "http2")
    for _ = 1, 4 do assert.equal("me", met(gateway)) end
    local open = gateway:connect()
    open:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf"
    gateway:wait_metrics("an open stream", function(metrics) return metrics.moongate_upstream_streams_live == 1 end)
    assert.equal(1, gateway:metrics().moongate_upstream_connects_total)
    copy("you.crt", "shared.crt")
    copy("you.key", "shared.key")
    gateway:wait_log("certificates changed: .*shared.crt", 8000)
    for _ = 1, 4 do assert.equal("you", met(gateway)) end
    assert.equal(2, gateway:metrics().moongate_upstream_connects_total)
    assert.equal(2, gateway:metrics().moongate_upstream_connections_live)
    open:send "more"
    local response = h.http1.read_response(open)
    assert.equal(200, response.status)
    assert.truthy(response.body:find "spiffe://example/me")
    gateway:wait_metrics("the old one's end", function(metrics) return metrics.moongate_upstream_connections_live == 1 end)
    -- one that idles, too
    copy("me.crt", "shared.crt")
    copy("me.key", "shared.key")
    gateway:wait_log("certificates changed.*certificates changed", 8000)
    assert.equal("me", met(gateway))
    assert.equal(3, gateway:metrics().moongate_upstream_connects_total)
    assert.equal(1, gateway:metrics().moongate_upstream_connections_live)
  end), 60000)

  it("that are no good are told by name, and the old ones serve", test(function()
    local live = { cert = copy("me.crt", "bad.crt"), key = copy("me.key", "bad.key"), ca = copy("ca.crt", "bad.ca") }
    local gateway = serve(behind().port, live)
    assert.equal("me", met(gateway))
    gateway:expect_log "new certificates are refused"
    set:write("bad.ca", "nonsense\n")
    gateway:wait_log("error new certificates are refused, the old ones serve: %S*bad.ca holds no certificate in PEM", 10000)
    assert.equal("me", met(gateway))
    copy("ca.crt", "bad.ca")
    gateway:wait_log("certificates changed", 8000)
    copy("you.crt", "bad.crt") -- and its key never
    gateway:wait_log("bad.key does not belong to the certificate", 10000)
    assert.equal("me", met(gateway))
    copy("old.crt", "bad.crt")
    copy("old.key", "bad.key")
    gateway:wait_log("bad.crt has expired", 10000)
    assert.equal("me", met(gateway))
    os.remove(set:path "bad.key")
    gateway:wait_log("cannot read %S*bad.key", 10000)
    assert.equal("me", met(gateway))
    copy("you.crt", "bad.crt")
    copy("you.key", "bad.key")
    gateway:wait_log("certificates changed.*certificates changed", 8000)
    assert.equal("you", met(gateway))
  end), 60000)

  it("may be CRLs: who is taken back is refused from then on", test(function()
    local backend = set:issue { name = "backend", sans = "DNS:localhost,IP:127.0.0.1" }
    set:revoke()
    copy("ca.crl", "live.crl")
    local gateway = serve(behind(backend).port, { ca = set.ca, crl = set:path "live.crl", cert = me.cert, key = me.key })
    assert.equal("me", met(gateway))
    set:revoke "backend"
    copy("ca.crl", "live.crl")
    gateway:wait_log("certificates changed", 8000)
    assert.equal(502, met(gateway))
    gateway:wait_log "warn TLS with 127.0.0.1:%d+ failed: certificate revoked"
  end), 60000)

  it("are one's own: equal ones at another path are looked at apart", test(function()
    local port = behind().port
    copy("me.crt", "a.crt")
    copy("me.key", "a.key")
    copy("me.crt", "b.crt")
    copy("me.key", "b.key")
    local text = [[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
]]
    for _, name in ipairs { "a", "b" } do
      text = text .. ("moongate.upstream %s\nmoongate.route { path = %q, backends = %q }\n"):format(h.literal { name = name,
        endpoints = { "127.0.0.1:" .. port }, tls = { ca = set.ca, cert = set:path(name .. ".crt"), key = set:path(name .. ".key") } },
        "/" .. name, name)
    end
    local gateway = h.gateway { config = text }
    copy("you.crt", "b.crt")
    copy("you.key", "b.key")
    gateway:wait_log("certificates changed: .*b.crt", 8000)
    assert.truthy(gateway:get("/a").body:find "spiffe://example/me")
    assert.truthy(gateway:get("/b").body:find "spiffe://example/you")
  end), 60000)

  it("that are described wrongly are told by the check", test(function()
    local function refused(settings, text)
      local upstream = { name = "b", endpoints = { "127.0.0.1:" .. ports.free() }, tls = settings }
      local result = h.exec { "check", (h.write_file(('local m = require "moongate"\nm.listener { port = 0 }\nm.upstream %s\n' ..
        'm.route { path = "/", backends = "b" }\n'):format(h.literal(upstream)))) }
      assert.equal(1, result.code)
      assert.truthy(result.stderr:find(text, 1, true), result.stderr)
    end
    refused({ crl = set.ca }, "tls.crl: it needs `ca`")
    refused({ ca = set.ca, crl = you.cert }, "tls.crl: " .. you.cert .. " holds no CRL in PEM")
    refused({ cert = set:path "old.crt", key = set:path "old.key" }, "old.crt has expired")
  end))
end)
