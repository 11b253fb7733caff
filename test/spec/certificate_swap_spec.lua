-- Certificates that are given to a gateway while it runs, by order or by a script: without a reload or a dropped connection.
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set, site

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example" }
  set:issue { name = "next", sans = "DNS:site.example,DNS:next.example" }
  set:issue { name = "third", sans = "DNS:site.example" }
  set:issue { name = "old", from = "20200101000000Z", to = "20200201000000Z" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body, ms) return tls.test(function() return set end, body, ms) end

local function pair() return { certificates = { { name = "main", cert = set:path "live.crt", key = set:path "live.key" } } } end

local function fresh()
  set:write("live.crt", set:read "site.crt")
  set:write("live.key", set:read "site.key")
end

local function subject(gateway, host)
  return tls.s_client(gateway, "-servername " .. (host or "site.example")):match "subject=CN = (%w+)"
end

local function pem(name) return set:read(name .. ".crt") .. set:read(name .. ".key") end

local function give(gateway, query, body, fields)
  return gateway:request(("POST /certificates%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s"):format(
    query, fields or "", #body, body), { port = gateway.admin_port })
end

describe("a certificate that is given by order", function()
  it("serves new connections of all workers at once; those that stand stay #threads", test(function()
    fresh()
    local gateway = tls.serve(pair(), { settings = { workers = 2 } })
    assert.equal("site", subject(gateway))
    local kept = h.spawn("/bin/sh", { args = { "-c", ("(sleep 2; printf 'GET / HTTP/1.1\\r\\nHost: site.example\\r\\n" ..
      "Connection: close\\r\\n\\r\\n'; sleep 1) | openssl s_client -quiet -ign_eof -servername site.example " ..
      "-connect 127.0.0.1:%d 2>/dev/null"):format(gateway.port) } })
    gateway:wait_metrics("the connection", function(metrics) return metrics.moongate_tls_handshakes_total == 2 end)
    local response = give(gateway, "?name=main", pem "next")
    assert.equal(200, response.status, response.body)
    assert.equal('{"fine":true}\n', response.body)
    for _ = 1, 4 do
      assert.equal("next", subject(gateway))
      assert.equal("next", subject(gateway, "next.example"))
    end
    gateway:wait_log "new connections get what was given as \"main\""
    kept:wait_exit(15000)
    assert.truthy(kept.output:find "^HTTP/1.1 200 ", kept.output)
    assert.equal(1, gateway:ask_json("/status").generation)
    local list = gateway:ask_json("/certificates").certificates
    assert.equal(1, #list)
    assert.equal("main", list[1].name)
    assert.same({ "site.example", "next.example" }, list[1].hosts)
    assert.is_true(list[1].given)
    assert.is_true(list[1].expires > os.time())
  end, 60000))

  it("outlives reloads, and gives way to files that change", test(function()
    fresh()
    local gateway = tls.serve(pair())
    assert.equal(200, give(gateway, "?name=main", pem "next").status)
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("next", subject(gateway))
    gateway:rewrite { listener = { protocol = "https", tls = pair(), name = "other" }, upstreams = { backend = { "builtin:echo" } } }
    assert.equal(0, gateway:ask("reload").code) -- compiled anew
    assert.equal("next", subject(gateway))
    h.pass(2500) -- a look at the files
    assert.equal("next", subject(gateway))
    assert.equal(200, give(gateway, "?name=main", pem "site").status)
    assert.equal("site", subject(gateway))
    set:write("live.crt", set:read "third.crt")
    set:write("live.key", set:read "third.key")
    gateway:wait_log("what is in %S+live.crt", 8000)
    assert.equal("third", subject(gateway))
    assert.is_false(gateway:ask_json("/certificates").certificates[1].given)
  end, 60000))

  it("does not serve later where it was refused for another's fault", test(function()
    fresh()
    set:write("half.crt", set:read "site.crt")
    set:write("half.key", set:read "site.key")
    local gateway = tls.serve { certificates = { pair().certificates[1], { cert = set:path "half.crt", key = set:path "half.key" } } }
    assert.equal(200, give(gateway, "?name=main", pem "third").status)
    set:write("half.crt", set:read "next.crt") -- its key is still to come
    local response = give(gateway, "?name=main", pem "next")
    assert.equal(422, response.status, response.body)
    assert.equal("third", subject(gateway, "site.example"))
    set:write("half.key", set:read "next.key")
    gateway:wait_log("certificates changed: new connections get what is in", 8000)
    assert.equal("third", subject(gateway, "site.example")) -- as it was given before
  end, 60000))

  it("is known by its file where it has no name", test(function()
    fresh()
    local gateway = tls.serve { certificates = { site, { cert = set:path "live.crt", key = set:path "live.key" } } }
    assert.equal(200, give(gateway, "?name=" .. site.cert:gsub("/", "%%2F"), pem "next").status)
    assert.equal("next", subject(gateway, "unknown.example"))
  end))

  it("is refused when it is no good, and nothing changes", test(function()
    fresh()
    local gateway = tls.serve(pair())
    for _, case in ipairs {
      { "?name=main", "nonsense", 422, "what was given for main: the certificate holds no certificate in PEM" },
      { "?name=main", set:read "next.crt", 422, "the key holds no private key in PEM" },
      { "?name=main", set:read "next.crt" .. set:read "site.key", 422, "the key does not belong to the certificate" },
      { "?name=main", pem "old", 422, "has expired" },
      { "?name=nobody", pem "next", 422, "there is no certificate of the name" },
      { "?name=", pem "next", 400, "write %?name=NAME" },
      { "", pem "next", 400, "write %?name=NAME" },
      { "?name=%zz", pem "next", 400, "write %?name=NAME" },
      { "?name=main", "", 400, "write %?name=NAME" },
      { "?name=main", ("x"):rep(300000), 413, "256 KiB" },
    } do
      local response = give(gateway, case[1], case[2])
      assert.equal(case[3], response.status, response.body)
      assert.truthy(response.body:find(case[4]), response.body)
    end
    assert.equal(403, give(gateway, "?name=main", pem "next", "Origin: http://evil.example\r\n").status)
    assert.equal("site", subject(gateway))
    assert.is_false(gateway:ask_json("/certificates").certificates[1].given)
    local put = gateway:request("PUT /certificates HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", { port = gateway.admin_port })
    assert.equal(405, put.status)
  end))

  it("is refused where there is no TLS", test(function()
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } } }
    assert.equal(422, give(gateway, "?name=main", pem "next").status)
    assert.equal(0, #gateway:ask_json("/certificates").certificates)
  end))
end)

describe("a certificate that a script gives", function()
  local function serve(body, workers)
    fresh()
    return h.gateway { config = ([[
      local moongate = require "moongate"
      moongate.settings { workers = %d }
      moongate.listener { port = 0, address = "127.0.0.1", protocol = "https",
        tls = { certificates = { { name = "main", cert = %q, key = %q } } } }
      %s]]):format(workers or 1, set:path "live.crt", set:path "live.key", body) }
  end

  it("serves all workers when set returns #threads", test(function()
    local gateway = serve([[
      moongate.route { path = "/", access = function(exchange)
        local text = exchange.request:body()
        local ok, err = moongate.certificates.set(exchange.request.args.name, { cert = text, key = text })
        exchange:respond(200, tostring(ok) .. " " .. tostring(err)) end }]], 3)
    local function order(name, what)
      return (tls.run("curl -sk --max-time 15 --resolve site.example:%d:127.0.0.1 --data-binary @- " ..
        "'https://site.example:%d/?name=%s' <<'.'\n%s\n.",
        gateway.port, gateway.port, name, what))
    end
    assert.equal("true nil", order("main", pem "next"))
    for _ = 1, 6 do assert.equal("next", subject(gateway)) end
    assert.truthy(order("main", "nonsense"):find("nil what was given for main: the certificate holds no certificate", 1, true))
    assert.truthy(order("nobody", pem "next"):find('nil there is no certificate of the name "nobody"', 1, true))
    assert.equal("next", subject(gateway))
    gateway:wait_metrics("no coroutine", function(metrics) return metrics.moongate_coroutines_live == 0 end)
  end))

  it("can come from a timer of control", test(function()
    local gateway = serve(([[
      moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }
      local file = assert(io.open(%q)) local text = file:read "*a" file:close()
      moongate.timer.after(0.1, function()
        assert(moongate.certificates.set("main", { cert = text, key = text })) moongate.log.info "given"
      end, { on = "control" })]]):format(set:write("both.pem", pem "next")))
    gateway:wait_log " given"
    assert.equal("next", subject(gateway))
  end))

  it("may be left alone: whoever asked goes away, or the gateway ends", test(function()
    local gateway = serve([[
      local function all(seconds)
        for _ = 1, 50 do moongate.spawn(moongate.certificates.set, "main", { cert = "x", key = "y" }) end
        moongate.log.info "begins"
        moongate.certificates.set("main", { cert = "x", key = "y" })
      end
      moongate.route { path = "/", access = function(exchange) all() exchange:respond(200) end }]], 1)
    local client = h.spawn("/bin/sh", { args = { "-c", ("printf 'GET / HTTP/1.0\\r\\nHost: site.example\\r\\n\\r\\n' | " ..
      "exec openssl s_client -quiet -servername site.example -connect 127.0.0.1:%d"):format(gateway.port) } })
    gateway:wait_log "begins"
    client:signal "sigkill"
    client:wait_exit()
  end))

  it("is an error of the caller where it makes no sense", test(function()
    local gateway = serve [[
      moongate.route { path = "/", access = function(exchange)
        local _, why = pcall(moongate.certificates.set, "main", { cert = 7 })
        exchange:respond(200, why) end }]]
    assert.truthy(tls.curl(gateway, set.ca, "site.example"):find "takes a name and { cert = pem, key = pem }")
    local path = h.write_file 'require("moongate").certificates.set("main", { cert = "x", key = "y" })'
    assert.truthy(h.exec({ "check", path }).stderr:find "can be used in phases")
  end))
end)
