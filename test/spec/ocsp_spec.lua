-- OCSP stapling: responses out of files and from the responder that a certificate names. The peers are openssl's.
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set

local function chain(name, ca)
  return set:write(name .. ".chain", set:read(name .. ".crt") .. set:read((ca or "ca") .. ".crt"))
end

setup(function()
  set = tls.certs()
  if not set then return end
  set:authority "stranger"
  set:issue { name = "site", sans = "DNS:site.example" }
  set:issue { name = "other", sans = "DNS:site.example" }
  set:issue { name = "rsa", kind = "rsa", sans = "DNS:site.example" }
  set:issue { name = "must", sans = "DNS:site.example", extensions = "tlsfeature = status_request\n" }
  for _, name in ipairs { "site", "other", "rsa", "must" } do chain(name) end
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body, ms) return tls.test(function() return set end, body, ms) end

local function pair(name, ocsp)
  return { cert = set:path(name .. ".chain"), key = set:path(name .. ".key"), ocsp = ocsp }
end

-- "good", "none", and the whole output.
local function status(gateway, args)
  local output = tls.s_client(gateway, ("-status -CAfile %s -servername site.example %s"):format(set.ca, args or ""))
  if output:find "OCSP response: no response sent" then return "none", output end
  return output:find "OCSP Response Status: successful" and output:match "Cert Status: (%w+)", output
end

local function wait_status(gateway, wanted, ms)
  local deadline = h.now_ms() + (ms or 8000) * h.loop.scale
  local found, output
  repeat
    found, output = status(gateway)
    if found == wanted then return end
    h.pass(100)
  until h.now_ms() > deadline
  error(("never %s, but %s:\n%s"):format(wanted, tostring(found), output))
end

-- A certificate whose responder is at this port.
local function issue(name, port, extensions)
  set:issue { name = name, sans = "DNS:site.example",
    extensions = ("authorityInfoAccess = OCSP;URI:http://127.0.0.1:%d/\n%s"):format(port, extensions or "") }
  return pair(name), chain(name)
end

local function staples(gateway, state) return gateway:metrics()[('moongate_tls_staples{state="%s"}'):format(state)] end

describe("an OCSP response in a file", function()
  it("is stapled for who asks, in both versions and for each kind of key", test(function()
    local gateway = tls.serve { certificates = { pair("site", set:ocsp "site"), pair("rsa", set:ocsp "rsa") } }
    for _, args in ipairs { "-tls1_3", "-tls1_2", "-tls1_2 -cipher aRSA", "-sigalgs RSA-PSS+SHA256" } do
      local found, output = status(gateway, args)
      assert.equal("good", found, output)
    end
    assert.equal(4, gateway:metrics().moongate_tls_stapled_total)
    assert.is_nil(tls.s_client(gateway, "-servername site.example"):find "OCSP")
    assert.equal(4, gateway:metrics().moongate_tls_stapled_total)
    assert.equal(2, staples(gateway, "valid"))
    assert.equal(0, staples(gateway, "missing"))
  end))

  it("is taken into use when it changes #threads", test(function()
    local path = set:ocsp "site"
    local gateway = tls.serve({ certificates = { pair("site", path) } }, { settings = { workers = 2 } })
    assert.equal("good", (status(gateway)))
    local _, before = status(gateway)
    os.execute "sleep 1.1"
    set:ocsp "site"
    gateway:wait_log("certificates changed", 8000)
    local found, after = status(gateway)
    assert.equal("good", found)
    assert.not_equal(before:match "This Update: ([^\n]+)", after:match "This Update: ([^\n]+)")
  end, 60000))

  it("is not served once its time is over", test(function()
    if os.execute "faketime -f -1s true" ~= 0 then return pending "there is no faketime" end
    local path = set:ocsp("site", { faketime = "-55s", minutes = 1 })
    local gateway = tls.serve { certificates = { pair("site", path) } }
    assert.equal("good", (status(gateway)))
    wait_status(gateway, "none", 10000)
    gateway:wait_log("have no valid OCSP response to staple", 5000)
    assert.equal(1, staples(gateway, "missing"))
    gateway:stop()
    local again = tls.serve { certificates = { pair("site", path) } } -- no error: it is just not served
    again:wait_log "warn .*tls.certificates%[1%]: the OCSP response in the file has expired"
    assert.equal("none", (status(again)))
  end, 60000))

  it("that is no good is an error of the configuration", test(function()
    local function refused(name, path, why)
      local file = h.write_file(h.gateway_config { listener = { protocol = "https", tls = { certificates = { pair(name, path) } } },
        upstreams = { backend = { "builtin:echo" } } })
      local result = h.exec { "check", file }
      assert.equal(1, result.code)
      assert.truthy(result.stderr:find("tls.certificates[1].ocsp: ", 1, true), result.stderr)
      assert.truthy(result.stderr:find(why, 1, true), result.stderr)
    end
    refused("site", set:path "missing", "no such file")
    refused("site", set:write("nonsense.ocsp", "nonsense"), "is no OCSP response in DER")
    refused("site", set:ocsp "other", "is not about this certificate")
    refused("site", set:ocsp("site", { signer = "stranger" }), "is not signed by the certificate's issuer")
    set:issue { name = "taken" }
    set:revoke "taken"
    chain "taken"
    refused("taken", set:ocsp "taken", "says that the certificate is revoked")
    set:write("alone.chain", set:read "site.crt")
    set:write("alone.key", set:read "site.key")
    refused("alone", set:ocsp "site", "the issuer's certificate is not in the file behind the certificate")
  end))
end)

describe("the OCSP responder of a certificate", function()
  it("is asked, and what it says is stapled #threads", test(function()
    local port = h.dead_port()
    local certificate = issue("live", port)
    h.spawn("/usr/bin/openssl", { args = set:responder(port) })
    local gateway = tls.serve({ certificates = { certificate } }, { settings = { workers = 2 } })
    wait_status(gateway, "good")
    assert.equal(1, staples(gateway, "valid"))
    assert.is_true(gateway:metrics()['moongate_ocsp_fetches_total{result="fine"}'] >= 1)
    assert.equal(0, gateway:ask("reload").code) -- what was fetched is kept
    assert.equal("good", (status(gateway)))
    assert.equal(1, gateway:metrics()['moongate_ocsp_fetches_total{result="fine"}'])
  end, 60000))

  it("that does not answer delays nobody, and is asked again", test(function()
    local port = h.dead_port()
    local certificate = issue("late", port)
    local gateway = tls.serve { certificates = { certificate } }
    assert.equal("none", (status(gateway)))
    gateway:wait_log("warn .*late.chain: the OCSP responder http://127.0.0.1:%d+/: connection refused")
    assert.is_true(gateway:metrics()['moongate_ocsp_fetches_total{result="failed"}'] >= 1)
    h.spawn("/usr/bin/openssl", { args = set:responder(port) })
    wait_status(gateway, "good", 15000)
  end, 60000))

  it("that hangs holds up no handshake and no end of the gateway", test(function()
    local hole = h.backend(function(connection) connection:read_request() h.pass(60000) end)
    local certificate = issue("hole", hole.port)
    local gateway = tls.serve { certificates = { certificate } }
    h.takes(0, 2000, function() assert.equal("none", (status(gateway))) end)
    gateway:stop()
  end))

  it("is believed only where its answer is good", test(function()
    local port = h.dead_port()
    local certificate = issue("judged", port)
    set:issue { name = "revoked", sans = "DNS:site.example" }
    set:revoke "revoked"
    local answers = {
      { "200 OK", "nonsense", "what it says is no OCSP response in DER" },
      { "200 OK", set:read "site.ocsp", "what it says is not about this certificate" },
      { "404 Not Found", "", "it answers 404" },
      { "200 OK", "", "what it says is no OCSP response in DER" },
    }
    local asked = 0
    local responder = h.backend(function(connection)
      while true do
        local request = connection:read_request()
        if not request then return end
        asked = asked + 1
        assert(request.method == "POST" and request.headers["content-type"] == "application/ocsp-request")
        local answer = answers[(asked - 1) % #answers + 1]
        connection:send(h.http1.response(answer[1], answer[2]))
      end
    end, { port = port })
    local gateway = tls.serve { certificates = { certificate } }
    for _, answer in ipairs { answers[1], answers[2] } do gateway:wait_log(answer[3], 10000) end
    assert.equal("none", (status(gateway)))
    assert.is_true(responder and asked >= 2)
  end, 60000))

  it("is asked before the time of its answer is over", test(function()
    if os.execute "faketime -f -1s true" ~= 0 then return pending "there is no faketime" end
    local port = h.dead_port()
    local certificate = issue("short", port)
    local old = set:ocsp("short", { faketime = "-50s", minutes = 1 })
    local file = assert(io.open(old))
    local first = file:read "*a"
    file:close()
    local fresh = assert(io.open(set:ocsp "short")):read "*a"
    local asked = 0
    h.backend(function(connection)
      while connection:read_request() do
        asked = asked + 1
        connection:send(h.http1.response("200 OK", asked == 1 and first or fresh))
      end
    end, { port = port })
    local gateway = tls.serve { certificates = { certificate } }
    wait_status(gateway, "good")
    gateway:wait_metrics("a second answer", function(metrics) return metrics['moongate_ocsp_fetches_total{result="fine"}'] == 2 end, 10000)
    assert.equal("good", (status(gateway)))
    h.pass(6000) -- beyond the first
    assert.equal("good", (status(gateway)))
    assert.equal(2, asked)
  end, 60000))

  it("is not asked where `ocsp` is false", test(function()
    local port = h.dead_port()
    local certificate = issue("off", port)
    certificate.ocsp = false
    local asked = 0
    h.backend(function(connection) connection:read_request() asked = asked + 1 end, { port = port })
    local gateway = tls.serve { certificates = { certificate } }
    h.pass(2500)
    assert.equal("none", (status(gateway)))
    assert.equal(0, asked)
  end))
end)

describe("a certificate that wants to be stapled", function()
  local function check(certificate)
    local file = h.write_file(h.gateway_config { listener = { protocol = "https", tls = { certificates = { certificate } } },
      upstreams = { backend = { "builtin:echo" } } })
    local result = h.exec { "check", file }
    assert.equal(0, result.code, result.stderr)
    return result.stderr, h.exec({ "check", "--json", file }).stdout
  end

  it("is warned of where nothing can be had", test(function()
    local text, json = check(pair "must")
    assert.truthy(text:find("warning: %S+gateway.lua:%d+: listener: tls.certificates%[1%]: asks for OCSP stapling %(must%-staple%), " ..
      "and names no responder"), text)
    assert.truthy(json:find '"warnings":%[', json)
    assert.equal("", (check(pair("must", set:ocsp "must"))))
    local certificate = issue("must2", h.dead_port(), "tlsfeature = status_request\n")
    assert.equal("", (check(certificate)))
    certificate.ocsp = false
    assert.truthy(check(certificate):find "says that there is none")
    certificate.ocsp = nil
    set:write("must2.chain", set:read "must2.crt")
    assert.truthy(check(certificate):find "its issuer's certificate is not behind it")
    assert.equal("", (check(pair "site")))
  end))

  it("is warned of in the log, too", test(function()
    local gateway = tls.serve { certificates = { pair "must" } }
    gateway:wait_log "warn .*asks for OCSP stapling"
    gateway:wait_log("1 of the certificates have no valid OCSP response", 5000)
  end))
end)
