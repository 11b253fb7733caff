-- TLS of listeners: versions, certificates by name, what goes wrong before there is a request.
local h = require "test.support.harness"
local tls = require "test.support.tls"
local uv = require "luv"

local set, site, rsa, other

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example,DNS:*.wild.example,IP:127.0.0.1" }
  rsa = set:issue { name = "rsa", kind = "rsa", sans = "DNS:site.example" }
  other = set:issue { name = "other", sans = "DNS:other.example" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

local function serve(settings, options)
  return tls.serve(settings or { certificates = { site } }, options)
end

local function curl(gateway, host, args, path)
  return tls.curl(gateway, set.ca, host or "site.example", args, path)
end

local function s_client(gateway, args, input)
  return tls.s_client(gateway, ("-CAfile %s %s"):format(set.ca, args or "-servername site.example"), input)
end

local function failures(gateway)
  local out = {}
  for name, value in pairs(gateway:metrics()) do
    local reason = name:match '^moongate_tls_handshake_failures_total{reason="(%w+)"}$'
    if reason and value > 0 then out[reason] = value end
  end
  return out
end

local function wait_failure(gateway, reason)
  gateway:wait_metrics("a failed handshake: " .. reason, function(metrics)
    return metrics[('moongate_tls_handshake_failures_total{reason="%s"}'):format(reason)] == 1
  end)
  assert.same({ [reason] = 1 }, failures(gateway))
end

describe("TLS", function()
  it("serves HTTPS, and says so to the upstream", test(function()
    local backend = h.backend()
    local gateway = serve(nil, { backend = backend })
    local output, code = curl(gateway, nil, "-i --http1.1")
    assert.equal(0, code, output)
    assert.truthy(output:find "^HTTP/1.1 200 ")
    assert.equal("https", backend.requests[1].headers["x-forwarded-proto"])
    gateway:expect_quiet()
  end))

  it("begins behind a PROXY header, where one is due", test(function()
    local backend = h.backend()
    local gateway = serve(nil, { backend = backend, listener = { proxy_protocol = { trusted = { "127.0.0.1" } } } })
    local output, code = curl(gateway, nil, "--haproxy-protocol --haproxy-clientip 192.0.2.7")
    if output:find "clientip" then -- of curl 8.2
      output, code = curl(gateway, nil, "--haproxy-protocol --interface 127.0.0.1")
    end
    assert.equal(0, code, output)
    assert.truthy(backend.requests[1].headers["x-forwarded-for"]:find "^127%.0%.0%.1$" or
      backend.requests[1].headers["x-forwarded-for"]:find "^192%.0%.2%.7$")
    assert.equal("https", backend.requests[1].headers["x-forwarded-proto"])
    assert.not_equal(0, select(2, curl(gateway)))
    assert.equal(1, gateway:metrics()['moongate_connections_refused_total{reason="proxy_malformed"}'])
    gateway:expect_quiet()
  end))

  it("takes a ClientHello that comes in one piece with the PROXY header", test(function()
    local hello
    local mirror = h.backend(function(connection)
      local head = connection:read(5)
      hello = head .. connection:read(head:byte(4) * 256 + head:byte(5))
      connection:close()
    end)
    tls.run("openssl s_client -connect %s -servername site.example </dev/null", mirror:address())
    local gateway = serve(nil, { listener = { proxy_protocol = { trusted = { "127.0.0.1" } } } })
    local client = gateway:connect()
    client:send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n" .. hello)
    assert.equal("\22\3\3", client:read(3)) -- a ServerHello
  end))

  it("speaks 1.3 and 1.2, and nothing older", test(function()
    local gateway = serve()
    for _, version in ipairs { "1.2", "1.3" } do
      local output, code = curl(gateway, nil, ("--tlsv%s --tls-max %s"):format(version, version))
      assert.equal(0, code, output)
    end
    local output = s_client(gateway, "-tls1_1 -cipher DEFAULT@SECLEVEL=0")
    assert.truthy(output:find "alert protocol version")
    wait_failure(gateway, "protocol")
  end))

  it("offers what its settings say", test(function()
    local gateway = serve { certificates = { rsa }, max_version = "1.2", ciphers = "ECDHE-RSA-AES256-GCM-SHA384" }
    local output = s_client(gateway, "-servername site.example")
    assert.truthy(output:find("TLSv1.2, Cipher is ECDHE-RSA-AES256-GCM-SHA384", 1, true), output)
    output = s_client(gateway, "-tls1_3")
    assert.truthy(output:find "alert protocol version")
    local newest = serve { certificates = { site }, min_version = "1.3" }
    assert.truthy(s_client(newest, "-tls1_2"):find "alert protocol version")
  end))

  it("has forward secrecy, AEAD and no renegotiation as shipped", test(function()
    local gateway = serve { certificates = { rsa } }
    for _, cipher in ipairs { "AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256" } do
      assert.truthy(s_client(gateway, "-tls1_2 -cipher " .. cipher):find "handshake failure", cipher)
    end
    local output = s_client(gateway, "-tls1_2", "sleep 0.1; echo R; sleep 0.3")
    assert.truthy(output:find "no renegotiation", output)
  end))

  it("chooses the certificate by name: exact, wildcard, the first of all", test(function()
    local gateway = serve { certificates = { site, other } }
    local function subject(args) return s_client(gateway, args):match "subject=CN = (%w+)" end
    assert.equal("site", subject "-servername site.example")
    assert.equal("other", subject "-servername other.example")
    assert.equal("other", subject "-servername OTHER.example")
    assert.equal("site", subject "-servername a.wild.example")
    assert.equal("site", subject "-noservername")
    assert.equal("site", subject "-servername nobody.example")
    assert.equal("site", subject "-servername a.other.example")
  end))

  it("has an RSA and an ECDSA certificate for one name", test(function()
    local gateway = serve { certificates = { site, rsa } }
    local function subject(args) return s_client(gateway, "-servername site.example " .. args):match "subject=CN = (%w+)" end
    assert.equal("site", subject "-tls1_3")
    assert.equal("rsa", subject "-tls1_3 -sigalgs rsa_pss_rsae_sha256")
    assert.equal("rsa", subject "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256")
    assert.equal("site", subject "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256")
  end))

  it("speaks HTTP/2 where that was agreed on", test(function()
    local backend = h.backend(h.each(function(request)
      return h.http1.response(200, request.body or "")
    end))
    local gateway = serve(nil, { backend = backend })
    local output, code = curl(gateway, nil, "-i --http2 -d 'a body'")
    assert.equal(0, code, output)
    assert.truthy(output:find "^HTTP/2 200 ")
    assert.truthy(output:find "a body")
    assert.equal("https", backend.requests[1].headers["x-forwarded-proto"])
    gateway:expect_quiet()
  end))

  it("holds a client to what it agreed on", test(function()
    local backend = h.backend()
    local gateway = serve(nil, { backend = backend })
    local output = s_client(gateway, "-servername site.example -alpn h2",
      [[printf 'GET / HTTP/1.1\r\nHost: site.example\r\n\r\n'; sleep 1]])
    assert.falsy(output:find "HTTP/1.1 200")
    output = s_client(gateway, "-servername site.example -alpn http/1.1",
      [[printf 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'; sleep 1]])
    assert.truthy(output:find "HTTP/1.1 505")
    assert.equal(0, #backend.requests)
    assert.equal(1, gateway:metrics()['moongate_h2_ended_total{reason="protocol"}'])
    gateway:expect_quiet()
  end))

  it("passes h2spec, strictly", test(function()
    local path = os.getenv "H2SPEC"
    if not path then pending "H2SPEC names no h2spec (go install github.com/summerwind/h2spec/cmd/h2spec@latest)" end
    local gateway = serve(nil, { routes = { { path = "/", backends = "echo" } }, upstreams = { echo = { "builtin:echo" } } })
    local tool = h.spawn(path, { args = { "-t", "-k", "-S", "-o", "1", "-h", "127.0.0.1", "-p", tostring(gateway.port) } })
    tool:wait_exit(60000)
    assert.truthy(tool.output:find "146 tests, 146 passed, 0 skipped, 0 failed", tool.output:sub(-2000))
  end))

  it("agrees on h2 or http/1.1, and refuses a client that wants something else alone", test(function()
    local gateway = serve()
    assert.truthy(s_client(gateway, "-alpn http/1.1,h2"):find "ALPN protocol: h2")
    assert.truthy(s_client(gateway, "-alpn http/1.1"):find "ALPN protocol: http/1.1")
    assert.truthy(s_client(gateway, "-alpn spdy/3"):find "no application protocol")
  end))

  it("carries megabytes either way, byte for byte", test(function()
    local body = h.http1.pattern(3000000, 7)
    local backend = h.backend(h.each(function(request)
      if request.method == "POST" then
        return h.http1.response(200, tostring(request.body == body))
      end
      return h.http1.response(200, body)
    end))
    local gateway = serve(nil, { backend = backend })
    local path = set:write("upload", body)
    for _, version in ipairs { "1.2", "1.3" } do
      local args = ("--tlsv%s --tls-max %s "):format(version, version)
      assert.equal("true", (curl(gateway, nil, args .. "-H Expect: --data-binary @" .. path)))
      assert.equal(0, select(2, curl(gateway, nil, args .. "-o " .. set:path "download")))
      assert.is_true(set:read "download" == body)
      assert.equal(0, select(2, curl(gateway, nil, args .. "--limit-rate 4M -o " .. set:path "download")))
      assert.is_true(set:read "download" == body)
    end
    gateway:expect_quiet()
  end))

  it("carries an upgraded connection", test(function()
    local backend = h.backend(function(connection)
      if not connection:read_head() then return end
      connection:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst "
      connection:send((connection:read(4) or "") .. " last")
    end)
    local gateway = serve(nil, { backend = backend })
    local output = s_client(gateway, "-servername site.example -quiet",
      [[printf 'GET / HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'; sleep 0.3; printf ping; sleep 0.3]])
    assert.truthy(output:find("first ping last", 1, true), output)
    gateway:expect_quiet()
  end))

  it("changes keys when a client asks", test(function()
    local gateway = serve()
    local output = s_client(gateway, "-servername site.example",
      [[sleep 0.2; echo K; sleep 0.2; echo K; sleep 0.2
printf 'GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n'; sleep 0.3]])
    assert.truthy(output:find "KEYUPDATE")
    assert.truthy(output:find "HTTP/1.1 200 ", output)
  end))

  it("ends with close_notify", test(function()
    local gateway = serve()
    local output = s_client(gateway, "-servername site.example -ign_eof -msg",
      [[printf 'GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n'; sleep 0.5]])
    assert.truthy(output:find "<<< TLS 1.3, Alert %[length 0002%], warning close_notify", output)
  end))

  it("resumes sessions by ticket, in any worker #threads", test(function()
    local gateway = serve(nil, { settings = { workers = 2 } })
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      local args = "-servername site.example " .. version
      s_client(gateway, args .. " -sess_out " .. set:path "session",
        [[printf 'GET / HTTP/1.1\r\nHost: site.example\r\n\r\n'; sleep 0.3]])
      for _ = 1, 6 do
        assert.truthy(s_client(gateway, args .. " -sess_in " .. set:path "session"):find "Reused, TLS", version)
      end
    end
    assert.equal(12, gateway:metrics().moongate_tls_resumed_total)
  end))

  it("gives no tickets when told so", test(function()
    local gateway = serve { certificates = { site }, tickets = false }
    local output = s_client(gateway, "-servername site.example -tls1_2")
    assert.falsy(output:find "TLS session ticket:", output)
    output = s_client(gateway, "-servername site.example -tls1_3 -ign_eof",
      [[printf 'GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n'; sleep 0.3]])
    assert.falsy(output:find "Post%-Handshake New Session Ticket", output)
  end))

  it("writes secrets to a key log only when told so", test(function()
    local gateway = serve(nil, { settings = { tls = { key_log = set:path "keys" } } })
    gateway:wait_log "secrets of TLS connections are written to"
    curl(gateway)
    assert.truthy(set:read("keys"):find "CLIENT_TRAFFIC_SECRET_0 %x+ %x+\n")
    assert.equal(tonumber("600", 8), uv.fs_stat(set:path "keys").mode % 512) -- for nobody else
    gateway:rewrite { listener = { protocol = "https", tls = { certificates = { site } } },
      upstreams = { backend = { "builtin:echo" } }, settings = { tls = { key_log = set:path "others" } } }
    assert.equal(0, gateway:ask("reload").code)
    gateway:wait_log "the setting tls.key_log takes effect at the next start"
  end))
end)

describe("a TLS port", function()
  it("tells plain HTTP to use https", test(function()
    local gateway = serve()
    local response = gateway:get "/"
    assert.equal(400, response.status)
    assert.truthy(response.body:find "use https")
    wait_failure(gateway, "plaintext")
    gateway:expect_quiet()
  end))

  it("does not mind nonsense", test(function()
    local gateway = serve()
    local client = gateway:connect()
    client:send "\22\3\1\2\0\1\0\1\252nonsense" -- a ClientHello of 508 bytes, cut short
    client:shutdown()
    client:wait_end()
    wait_failure(gateway, "closed")
    client = gateway:connect()
    client:send("\22\3\1\0\4\1\0\0\0") -- an empty one
    client:wait_end()
    gateway:wait_metrics("two failures", function(metrics)
      return metrics['moongate_tls_handshake_failures_total{reason="protocol"}'] == 1
    end)
    gateway:expect_quiet()
  end))

  it("gives a handshake its time and no more", test(function()
    local gateway = serve(nil, { settings = { timeouts = { handshake = 0.3 } } })
    local silent, drip = gateway:connect(), gateway:connect()
    h.takes(250, 2000, function()
      drip:send "\22\3"
      silent:wait_end()
      drip:wait_end()
    end)
    gateway:wait_metrics("two timeouts", function(metrics)
      return metrics['moongate_tls_handshake_failures_total{reason="timeout"}'] == 2
    end)
    gateway:expect_quiet()
  end))

  it("counts a client that does not trust it", test(function()
    local gateway = serve()
    local _, code = tls.run("curl -sS --connect-to ::127.0.0.1:%d https://site.example/", gateway.port)
    assert.equal(60, code)
    wait_failure(gateway, "refused")
  end))

  it("drains: what is under way ends, nobody waits", test(function()
    local backend = h.backend(h.each(function()
      h.pass(300)
      return h.http1.response(200, "late")
    end))
    local gateway = serve(nil, { backend = backend })
    local output
    local task = h.task(function() output = curl(gateway, nil, "-i --http1.1") end)
    backend:wait_requests(1)
    gateway:signal "sigterm"
    assert.equal(0, gateway:wait_exit())
    h.loop.wait(task.ended, 5000, "curl", function() return output ~= nil end)
    assert.truthy(output:find "late", output)
    assert.truthy(output:lower():find "connection: close")
  end))
end)

describe("a port without TLS", function()
  it("closes on a ClientHello, and counts it", test(function()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } } }
    local output = s_client(gateway)
    assert.truthy(output:find "unexpected eof" or output:find "errno=0", output)
    assert.equal(1, gateway:metrics().moongate_tls_on_plain_total)
    gateway:expect_quiet()
  end))
end)

describe("listeners of one TLS port", function()
  local function two(extra)
    return ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", hostname = "site.example",
  tls = { certificates = { { cert = %q, key = %q } } } }
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", hostname = "other.example",
  tls = { certificates = { { cert = %q, key = %q } }%s } }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "echo" }
]]):format(0, site.cert, site.key, 0, other.cert, other.key, extra or "")
  end

  local function start(extra)
    local port = require("test.support.ports").free()
    local gateway = h.gateway { config = (two(extra):gsub("port = 0", "port = " .. port)) }
    return gateway
  end

  it("have their own certificates and terms", test(function()
    local gateway = start ', min_version = "1.3"'
    assert.equal(0, select(2, curl(gateway, "site.example")))
    assert.equal(0, select(2, curl(gateway, "other.example")))
    assert.truthy(s_client(gateway, "-servername other.example -tls1_2"):find "alert protocol version")
    assert.truthy(s_client(gateway, "-servername site.example -tls1_2"):find "subject=CN = site")
  end))

  it("do not resume each other's sessions", test(function()
    local gateway = start(([[, client = { verify = "optional", ca = %q }]]):format(set.ca))
    local ask = [[printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'; sleep 0.3]]
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      s_client(gateway, ("-servername site.example %s -sess_out %s"):format(version, set:path "session"), ask)
      local again = ("%s -sess_in %s"):format(version, set:path "session")
      assert.truthy(s_client(gateway, "-servername site.example " .. again):find "Reused, TLS")
      assert.falsy(s_client(gateway, "-servername other.example " .. again):find "Reused, TLS")
    end
  end))

  it("answer 421 where the host is another's than the handshake's", test(function()
    local gateway = start()
    local output = curl(gateway, "site.example", "--http1.1 -i -H 'Host: other.example'")
    assert.truthy(output:find "^HTTP/1.1 421 ", output)
    assert.truthy(output:lower():find "connection: close")
    assert.truthy(curl(gateway, "site.example", "--http1.1 -i -H 'Host: SITE.example:443'"):find "^HTTP/1.1 200 ")
    assert.truthy(curl(gateway, "127.0.0.1", "--http1.1 -k -i -H 'Host: other.example'"):find "^HTTP/1.1 200 ") -- no SNI
    assert.truthy(curl(gateway, "site.example", "--http1.1 -i -H 'Host: nobody.example'"):find "^HTTP/1.1 404 ")
  end))
end)
