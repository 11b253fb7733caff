-- Certificate files: what is wrong with them is told before anybody meets it, and new ones are taken without a reload.
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set, site

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example" }
  set:issue { name = "next", sans = "DNS:site.example" }
  set:issue { name = "old", from = "20200101000000Z", to = "20200201000000Z" }
  set:issue { name = "future", from = "20600101000000Z", to = "20610101000000Z" }
  os.execute(("openssl ec -in %s -aes128 -passout pass:secret -out %s 2>/dev/null"):format(site.key, set:path "encrypted.key"))
  set:write("text", "no PEM\n")
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

local function config(settings, keys)
  local listener = { protocol = "https", tls = settings }
  for key, value in pairs(keys or {}) do listener[key] = value end
  return h.gateway_config { listener = listener, upstreams = { backend = { "builtin:echo" } } }
end

local function check(settings, keys)
  local path = h.write_file(config(settings, keys))
  local result = h.exec { "check", path }
  return result.stderr .. result.stdout, result.code
end

local function refused(settings, ...)
  local output, code = check(settings)
  assert.equal(1, code, output)
  for _, text in ipairs { ... } do assert.truthy(output:find(text, 1, true), output) end
end

local function pair(cert, key)
  return { certificates = { { cert = set:path(cert), key = set:path(key or "site.key") } } }
end

local function subject(gateway)
  return tls.s_client(gateway, "-servername site.example"):match "subject=CN = (%w+)"
end

describe("certificate files", function()
  it("are checked, and what is wrong is said", test(function()
    local output, code = check(pair "site.crt")
    assert.equal(0, code, output)
    refused(pair "missing.crt", "tls.certificates[1].cert", "missing.crt", "no such file")
    refused(pair("site.crt", "missing.key"), "tls.certificates[1].key", "missing.key")
    refused(pair "text", "tls.certificates[1].cert", "text holds no certificate in PEM")
    refused(pair("site.crt", "text"), "tls.certificates[1].key", "text holds no private key in PEM")
    refused(pair("site.crt", "next.key"), "tls.certificates[1].key", "next.key does not belong to the certificate")
    refused(pair("site.crt", "encrypted.key"), "tls.certificates[1].key", "encrypted.key is encrypted")
    refused(pair("old.crt", "old.key"), "tls.certificates[1].cert", "old.crt has expired: Feb  1 00:00:00 2020 GMT")
    refused(pair("future.crt", "future.key"), "future.crt is not valid before")
    local second = pair "site.crt"
    second.certificates[2] = { cert = set:path "missing.crt", key = site.key }
    refused(second, "tls.certificates[2].cert")
  end))

  it("are read to the end: what is damaged behind the first is no less wrong", test(function()
    local ca, crl = set:read "ca.crt", set:read(set:revoke():match "[^/]+$")
    local function damage(text) return (text:gsub("\n....", "\n####", 3)) end
    local function cut(text) return text:sub(1, math.floor(#text / 2)) end
    local function trust(file, revoked)
      return { certificates = { site }, client = { ca = set:path(file), crl = revoked and set:path(revoked) } }
    end
    for _, harm in ipairs { damage, cut } do
      set:write("chain", set:read "site.crt" .. harm(ca))
      refused(pair "chain", "tls.certificates[1].cert", "chain holds a certificate that is damaged")
      set:write("half", harm(set:read "site.crt"))
      refused(pair "half", "tls.certificates[1].cert", "half holds a certificate that is damaged")
      set:write("cas", ca .. harm(ca))
      refused(trust "cas", "tls.client.ca", "cas holds a certificate that is damaged")
      set:write("crls", crl .. harm(crl))
      refused(trust("ca.crt", "crls"), "tls.client.crl", "crls holds a CRL that is damaged")
    end
    set:write("chain", "a note in front\n" .. set:read "site.crt" .. "and one between\n" .. ca .. "\nand behind\n")
    set:write("crls", crl .. "\n" .. crl)
    local settings = pair "chain"
    settings.client = { ca = set:path "chain", crl = set:path "crls" }
    local output, code = check(settings)
    assert.equal(0, code, output)
  end))

  it("are named from where the script is", test(function()
    local path, dir = h.write_file(config { certificates = { { cert = "a.crt", key = "a.key" } } })
    assert.equal(1, h.exec({ "check", path }).code)
    os.execute(("cp %s %s/a.crt; cp %s %s/a.key"):format(site.cert, dir, site.key, dir))
    assert.equal(0, h.exec({ "check", path }).code)
    os.execute("rm -r " .. dir)
  end))

  it("are found by the last good configuration, too", test(function()
    local path, dir = h.write_file(config { certificates = { { cert = "a.crt", key = "a.key" } } })
    os.execute(("cp %s %s/a.crt; cp %s %s/a.key; mkdir %s/state"):format(site.cert, dir, site.key, dir, dir))
    local first = h.gateway { file = path, args = { "--state", dir .. "/state" } }
    first:wait_log "the last good configuration is kept in"
    first:stop()
    os.execute(("echo nonsense > %s"):format(path))
    local gateway = h.gateway { file = path, args = { "--state", dir .. "/state" } }
    gateway:expect_log "."
    assert.equal("site", subject(gateway))
    gateway:stop()
    os.execute("rm -r " .. dir)
  end))

  it("need a listener for HTTPS, and the other way round", test(function()
    local path = h.write_file(h.gateway_config { listener = { tls = pair "site.crt" },
      upstreams = { backend = { "builtin:echo" } } })
    assert.truthy(h.exec({ "check", path }).stderr:find('add protocol = "https"', 1, true))
    path = h.write_file(h.gateway_config { listener = { protocol = "https" }, upstreams = { backend = { "builtin:echo" } } })
    assert.truthy(h.exec({ "check", path }).stderr:find("needs a certificate", 1, true))
    refused({ certificates = { site }, ciphers = "NONSENSE" }, "tls.ciphers")
    refused({ certificates = { site }, min_version = "1.3", max_version = "1.2" }, "is above max_version")
    refused({ certificates = { site }, min_version = "1.1" }, "tls.min_version")
    refused({ certificates = {} }, "an empty list")
    refused({ certificates = { site }, client = { verify = "required" } }, "tls.client.ca")
    refused({ certificates = { site }, client = { ca = set:path "text" } }, "text holds no certificate")
    refused({ certificates = { site }, client = { ca = set.ca, crl = set:path "text" } }, "text holds no CRL")
  end))

  it("are what `explain` wants for https", test(function()
    local path = h.write_file(config { certificates = { site } })
    local answer = h.exec { "explain", "GET", "https://site.example/", "--config", path }
    assert.truthy(answer.stdout:find("%(https%)"), answer.stdout .. answer.stderr)
    answer = h.exec { "explain", "GET", "http://site.example/", "--config", path }
    assert.truthy((answer.stdout .. answer.stderr):find "no listener there has that scheme")
  end))

  it("that are no good do not pass a reload: the old ones serve", test(function()
    set:write("live.crt", set:read "site.crt")
    set:write("live.key", set:read "site.key")
    local gateway = tls.serve(pair("live.crt", "live.key"))
    gateway:expect_log "is refused"
    gateway:expect_log "live.crt"
    set:write("live.crt", set:read "old.crt")
    set:write("live.key", set:read "old.key")
    local result = gateway:ask "reload"
    assert.equal(1, result.code)
    assert.truthy((result.stderr .. result.stdout):find "live.crt has expired", result.stderr)
    assert.equal("site", subject(gateway))
  end))

  it("are taken into use when they change, without a reload #threads", test(function()
    set:write("live.crt", set:read "site.crt")
    set:write("live.key", set:read "site.key")
    local gateway = tls.serve(pair("live.crt", "live.key"), { settings = { workers = 2 } })
    assert.equal("site", subject(gateway))
    local kept = h.spawn("/bin/sh", { args = { "-c", ("(sleep 6; printf 'GET / HTTP/1.1\\r\\nHost: site.example\\r\\n" ..
      "Connection: close\\r\\n\\r\\n'; sleep 1) | openssl s_client -quiet -ign_eof -servername site.example " ..
      "-connect 127.0.0.1:%d 2>/dev/null"):format(gateway.port) } })
    set:write("live.crt", set:read "next.crt")
    set:write("live.key", set:read "next.key")
    gateway:wait_log("certificates changed", 8000)
    for _ = 1, 4 do assert.equal("next", subject(gateway)) end
    kept:wait_exit(15000)
    assert.truthy(kept.output:find "^HTTP/1.1 200 ") -- of the connection from before
  end), 60000)

  it("that change to something that is no good are told, and not taken", test(function()
    set:write("live.crt", set:read "site.crt")
    local gateway = tls.serve(pair "live.crt", { listener = { address = { "127.0.0.1", "127.0.0.2" } } })
    gateway:expect_log "new certificates are refused"
    set:write("live.crt", "nonsense\n")
    gateway:wait_log("live.crt holds no certificate in PEM", 10000)
    assert.equal("site", subject(gateway))
    set:write("live.crt", set:read "site.crt")
    gateway:wait_log("certificates changed", 8000)
    assert.equal("site", subject(gateway))
    local _, count = gateway:log():gsub("are refused, the old ones serve", "")
    assert.equal(1, count, gateway:log()) -- once, not for each address
  end), 60000)
end)
