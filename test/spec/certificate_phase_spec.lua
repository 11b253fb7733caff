-- The phase `certificate`: a function of a listener, or of a plugin that it lists, chooses the certificate of a handshake, and may
-- wait while it does. Peers are openssl and curl.
local h = require "test.support.harness"
local hello = require "test.support.hello"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

local set, site, other

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example" }
  other = set:issue { name = "other", sans = "DNS:other.example,DNS:site.example" }
  set:issue { name = "rsa", kind = "rsa", sans = "DNS:site.example" }
  set:issue { name = "old", from = "20200101000000Z", to = "20200201000000Z" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

-- A gateway whose listener "edge" has this function; `before`: the script before it; options of h.gateway beside.
local function config(body, options)
  options = options or {}
  return ([[
    local moongate = require "moongate"
    local function read(path) local file = assert(io.open(path)) local text = file:read "*a" file:close() return text end
    local function pem(name) return { cert = read(%q .. name .. ".crt"), key = read(%q .. name .. ".key") } end
    moongate.settings { workers = %d, timeouts = { handshake = %g } }
    %s
    moongate.listener { name = "edge", port = 0, address = "127.0.0.1", protocol = "https",
      tls = { %s certificates = { { cert = %q, key = %q }, { name = "second", cert = %q, key = %q } } },
      %s }
    moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
    moongate.route { path = "/", backends = "backend" }]]):format(set.dir .. "/", set.dir .. "/", options.workers or 1,
    options.handshake or 10, options.before or "", options.tls or "", site.cert, site.key, other.cert, other.key,
    options.listener or ("certificate = function(connection) %s end"):format(body))
end

local function serve(body, options)
  return h.gateway { config = config(body, options) }
end

local function s_client(gateway, args, input)
  return tls.s_client(gateway, ("-CAfile %s %s"):format(set.ca, args or "-servername site.example"), input)
end

local function subject(gateway, args)
  local output = s_client(gateway, args)
  return output:match "subject=CN = (%w+)", output
end

local function failed(gateway, reason, count)
  gateway:wait_metrics("a failed handshake: " .. reason, function(metrics)
    return metrics[('moongate_tls_handshake_failures_total{reason="%s"}'):format(reason)] == (count or 1)
  end)
end

local function quiet(gateway)
  gateway:wait_metrics("no coroutine", function(metrics)
    return metrics.moongate_coroutines_live == 0 and metrics.moongate_connections_live == 0
  end)
  gateway:expect_quiet()
end

describe("the phase certificate", function()
  it("gives a certificate in PEM, the name of one, or none", test(function()
    local gateway = serve([[
      if connection.sni == "site.example" then return own end
      if connection.sni == "named.example" then return "second" end
      if connection.sni == "path.example" then return "]] .. site.cert .. [[" end
      return nil]], { before = 'local own = pem "rsa"' })
    for _ = 1, 3 do -- parsed once, then from the cache
      assert.equal("rsa", subject(gateway))
    end
    assert.equal("rsa", subject(gateway, "-servername site.example -tls1_2"))
    assert.equal("other", subject(gateway, "-servername named.example"))
    assert.equal("site", subject(gateway, "-servername path.example"))
    assert.equal("site", subject(gateway, "-servername unknown.example"))
    assert.equal("site", subject(gateway, "-noservername"))
    local output, code = tls.curl(gateway, set.ca, "site.example", "-i")
    assert.equal(0, code, output)
    assert.truthy(output:find "200", output)
    quiet(gateway)
  end))

  it("offers no other kind of key beside what was given", test(function()
    local gateway = serve("return own", { before = 'local own = pem "rsa"' })
    local _, output = subject(gateway, "-servername site.example -sigalgs ECDSA+SHA256")
    assert.truthy(output:find "handshake failure", output)
    failed(gateway, "protocol")
  end))

  it("sees the client's name, protocols and address", test(function()
    local gateway = serve [[
      moongate.log.info(("seen %s %s %s %s %s"):format(tostring(connection.sni), table.concat(connection.alpn, ","),
        connection.client.address, type(connection.client.port), connection.listener))]]
    assert.equal("site", subject(gateway, "-servername SITE.Example -alpn h2,http/1.1"))
    gateway:wait_log "seen site.example h2,http/1.1 127.0.0.1 number edge"
    assert.equal("site", subject(gateway, "-noservername"))
    gateway:wait_log "seen nil  127.0.0.1 number edge"
  end))

  it("waits, and asks others, while the worker does other things", test(function()
    local backend = h.backend(function(connection)
      while connection:read_request() do connection:send(h.http1.response("200 OK", set:read "rsa.crt" .. set:read "rsa.key")) end
    end)
    local gateway = serve(([[
      moongate.sleep(0.3)
      local response = assert(moongate.http.request { url = "http://%s/" .. connection.sni })
      return { cert = response.body, key = response.body }]]):format(backend:address()))
    local processes = {}
    for i = 1, 4 do
      processes[i] = h.spawn("/bin/sh", { args = { "-c", ("sleep 1 | timeout 15 openssl s_client -servername site.example " ..
        "-CAfile %s -connect 127.0.0.1:%d 2>&1"):format(set.ca, gateway.port) } })
    end
    for i = 1, 4 do
      processes[i]:wait_exit(20000)
      assert.truthy(processes[i].output:find "subject=CN = rsa", processes[i].output)
      assert.truthy(processes[i].output:find "Verify return code: 0", processes[i].output)
    end
    assert.equal("/site.example", backend.requests[1].target)
    quiet(gateway)
  end))

  it("runs once for a client that is asked for another key share", test(function()
    local gateway = serve([[ moongate.sleep(0.05) moongate.log.info "asked" return "second" ]])
    assert.equal("other", subject(gateway, "-servername site.example -groups P-521:P-384"))
    local _, count = gateway:log():gsub("asked", "")
    assert.equal(1, count)
  end))

  it("is not fooled by a client that asks for another host the second time", test(function() -- RFC 8446 4.1.2
    local hellos = {}
    local mirror = h.backend(function(connection)
      local head = connection:read(5)
      hellos[#hellos + 1] = head .. connection:read(head:byte(4) * 256 + head:byte(5))
      connection:close()
    end)
    for _, args in ipairs { "-groups P-521:P-384 -servername site.example", "-groups P-384 -servername site.example",
      "-groups P-384 -servername evil.example" } do
      tls.run("openssl s_client -tls1_3 -connect %s %s </dev/null", mirror:address(), args)
    end
    local gateway = serve [[ return connection.sni == "site.example" and "second" or false ]]
    for second, wanted in pairs { [2] = 22, [3] = 21 } do -- a ServerHello, an alert
      local client = gateway:connect()
      client:send(hellos[1])
      local head = client:read(5)
      assert.equal(22, head:byte()) -- the HelloRetryRequest
      client:read(head:byte(4) * 256 + head:byte(5))
      assert.equal("\20\3\3\0\1\1", client:read(6))
      client:send(hellos[second])
      local record = client:read(7)
      assert.equal(wanted, record:byte())
      if second == 3 then assert.equal("\2\47", record:sub(6)) end -- illegal_parameter
      client:close()
    end
  end))

  it("runs for resumed sessions, too", test(function()
    local gateway = serve [[ moongate.log.info "asked" return "second" ]]
    local session = set:path "session.pem"
    assert.equal("other", subject(gateway, "-servername site.example -sess_out " .. session))
    local output = s_client(gateway, "-servername site.example -sess_in " .. session)
    assert.truthy(output:find "Reused, TLSv1.3", output)
    local _, count = gateway:log():gsub("asked", "")
    assert.equal(2, count)
  end))

  it("that fails closes the handshake, and says where", test(function()
    local gateway = serve [[ local nothing
      return nothing.field ]]
    gateway:expect_log "script: certificate failed"
    local _, output = subject(gateway)
    assert.truthy(output:find "alert internal error", output)
    failed(gateway, "script")
    gateway:wait_log "script: certificate failed: %S+gateway.lua:%d+: attempt to index local 'nothing' %(a nil value%)"
    gateway:wait_log "stack traceback"
    local errors = gateway:ask_json "/errors"
    assert.truthy(errors[#errors].message:find "certificate failed", errors[#errors].message)
    assert.equal(1, gateway:metrics().moongate_script_errors_total)
    quiet(gateway)
  end))

  it("that fails after it has waited does as well", test(function()
    local gateway = serve [[ moongate.sleep(0.05) error "no vault" ]]
    gateway:expect_log "no vault"
    local _, output = subject(gateway)
    assert.truthy(output:find "alert internal error", output)
    failed(gateway, "script")
    quiet(gateway)
  end))

  for _, case in ipairs {
    { 'return "nobody"', "nobody, there is no certificate of that name" },
    { 'return { cert = "x", key = "y" }', "holds no certificate in PEM" },
    { 'return { cert = pems.site.cert, key = "y" }', "key: holds no private key in PEM" },
    { 'return { cert = pems.site.cert, key = pems.rsa.key }', "key: does not belong to the certificate" },
    { 'return pems.old', "has expired" },
    { 'return 7', "number, is no certificate" },
    { 'return { cert = pems.site.cert }', "table, is no certificate" },
    { 'return setmetatable({ cert = pems.site.cert }, { __index = function(_, key) error(key) end })', "table, is no certificate" },
    { 'return true', "boolean, is no certificate" },
  } do
    it("refuses what is no certificate: " .. case[1], test(function()
      local gateway = serve(case[1], { before = 'local pems = { site = pem "site", rsa = pem "rsa", old = pem "old" }' })
      gateway:expect_log "script: certificate failed"
      local _, output = subject(gateway)
      assert.truthy(output:find "alert internal error", output)
      failed(gateway, "script")
      gateway:wait_log "gateway.lua:%d+: what the function here returned"
      assert.truthy(gateway:log():find(case[2], 1, true), gateway:log())
      quiet(gateway)
    end))
  end

  it("declines a name", test(function()
    local gateway = serve [[ return connection.sni == "site.example" and "second" or false ]]
    local _, output = subject(gateway, "-servername evil.example")
    assert.truthy(output:find "alert number 112", output)
    failed(gateway, "declined")
    assert.equal("other", subject(gateway))
  end))

  it("has the time of a handshake", test(function()
    local gateway = serve([[ moongate.sleep(60) ]], { handshake = 0.3 })
    local client = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_client -connect 127.0.0.1:%d"):format(gateway.port) } })
    h.takes(200, 3000, function() client:wait_exit() end)
    failed(gateway, "timeout")
    quiet(gateway)
  end))

  it("ends when its client goes away", test(function()
    local gateway = serve([[ moongate.log.info "begins" moongate.sleep(60) ]])
    local client = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_client -connect 127.0.0.1:%d"):format(gateway.port) } })
    gateway:wait_log "begins"
    assert.equal(1, gateway:metrics().moongate_coroutines_live)
    client:signal "sigkill"
    failed(gateway, "closed")
    quiet(gateway)
  end))

  it("ends when its client had gone away before it began", test(function()
    local gateway = serve(nil, { listener = [[ proxy_protocol = { trusted = { "127.0.0.1" } },
      certificate = function() moongate.sleep(60) end ]] })
    local client = gateway:connect()
    gateway:frozen(function()
      client:send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n" .. hello.new { sni = "site.example" })
      client:shutdown()
    end)
    h.takes(0, 2000, function() client:wait_end() end)
    failed(gateway, "closed")
    quiet(gateway)
  end))

  it("ends with the drain", test(function()
    local gateway = serve([[ moongate.log.info "begins" moongate.sleep(60) ]], { handshake = 60 })
    local client = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_client -connect 127.0.0.1:%d"):format(gateway.port) } })
    gateway:wait_log "begins"
    gateway:signal()
    gateway:wait_draining()
    gateway:signal() -- twice stops
    gateway:wait_exit()
    client:wait_exit()
  end))

  it("belongs to the code: a reload that changes it makes new ones, and what waits goes on with the old", test(function()
    local gateway = serve([[ moongate.log.info "begins" moongate.sleep(1.2) return "second" ]])
    local waiting = h.spawn("/bin/sh", { args = { "-c", ("sleep 3 | openssl s_client -servername site.example -CAfile %s " ..
      "-connect 127.0.0.1:%d 2>&1"):format(set.ca, gateway.port) } })
    gateway:wait_log "begins"
    gateway:rewrite(config("return own", { before = 'local own = pem "rsa"' }))
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("rsa", subject(gateway))
    assert.equal(2, gateway:metrics().moongate_lua_states)
    waiting:wait_exit(10000)
    assert.truthy(waiting.output:find "subject=CN = other", waiting.output)
    gateway:wait_metrics("one state", function(metrics) return metrics.moongate_lua_states == 1 end)
    gateway:rewrite(config("error 'new'", { before = 'local own = pem "rsa"' }))
    gateway:expect_log "new"
    assert.equal(0, gateway:ask("reload").code)
    assert.is_nil((subject(gateway)))
  end))

  it("can be that of a plugin with a table, before the listener's own #threads", test(function()
    local path, dir = h.write_file(config(nil, { workers = 2, listener = [[
      plugins = { { "vault", name = "second", when = "plugin.example" } },
      certificate = function(connection) return false end]] }))
    os.execute(("mkdir -p %s/plugins/vault"):format(dir))
    local function write(name, text)
      local file = assert(io.open(dir .. "/plugins/vault/" .. name, "w"))
      file:write(text)
      file:close()
    end
    write("handler.lua", [[return { version = "1", api = 1, certificate = function(connection, conf)
      if connection.sni == conf.when then return conf.name end end }]])
    write("schema.lua", [[return { name = { type = "string" }, when = { type = "string" } }]])
    local gateway = h.gateway { file = path }
    for _ = 1, 4 do assert.equal("other", subject(gateway, "-servername plugin.example")) end
    assert.truthy(select(2, subject(gateway, "-servername else.example")):find "alert number 112")
    gateway:stop()
    local file = assert(io.open(path, "a"))
    file:write '\nmoongate.route { path = "/x", backends = "backend", plugins = { { "vault", name = "x", when = "y" } } }\n'
    file:close()
    local result = h.exec { "check", path }
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find('plugins[1]: the plugin "vault" runs in handshakes alone', 1, true), result.stderr)
    os.execute("rm -r " .. dir)
  end))

  it("is asked of the listener that the name has chosen, and sees who a PROXY header says", test(function()
    local port = require("test.support.ports").free()
    local function listener(name, keys)
      return ([[moongate.listener { name = %q, hostname = "%s.example", port = %d, address = "127.0.0.1", protocol = "https",
        proxy_protocol = { trusted = { "127.0.0.1" } }, tls = { certificates = { { name = "main", cert = %q, key = %q } } }, %s }
        ]]):format(name, name, port, site.cert, site.key, keys)
    end
    local gateway = h.gateway { config = 'local moongate = require "moongate"\nmoongate.settings { workers = 1 }\n' ..
      listener("one", "") .. listener("two", [[certificate = function(connection)
        moongate.log.info("asked by " .. connection.client.address .. " of " .. connection.listener) return "main" end]]) ..
      'moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }' }
    local function ask(host) -- from 192.0.2.7, with a ClientHello of openssl's
      local bytes
      local mirror = h.backend(function(connection)
        local head = connection:read(5)
        bytes = head .. connection:read(head:byte(4) * 256 + head:byte(5))
        connection:close()
      end)
      tls.run("openssl s_client -connect %s -servername %s </dev/null", mirror:address(), host)
      local client = gateway:connect()
      client:send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n" .. bytes)
      assert.equal("\22\3\3", client:read(3))
      client:close()
    end
    ask "one.example"
    ask "two.example"
    gateway:wait_log "asked by 192.0.2.7 of two"
    assert.falsy(gateway:log():find "of one")
  end))

  it("is asked of the listener that the name has, among those that end TLS on a port", test(function()
    local port = ports.free()
    local gateway = h.gateway { config = (([[
local m = require "moongate"
m.settings { workers = 1 }
m.upstream { name = "echo", endpoints = { "builtin:echo" } }
m.upstream { name = "raw", endpoints = { "ENDPOINT" } }
local function listener(keys)
  keys.port, keys.address, keys.detect = PORT, "127.0.0.1", true
  m.listener(keys)
end
local function own(certificate)
  return function(connection)
    m.log.info(("asked of %s for %s"):format(connection.listener, connection.sni))
    return certificate
  end
end
local files = { { cert = "SITE.crt", key = "SITE.key" }, { name = "second", cert = "OTHER.crt", key = "OTHER.key" } }
listener { protocol = "http" }
listener { protocol = "tls", name = "pass", hostname = "pass.example", tls = { mode = "passthrough" } }
listener { protocol = "tls", name = "ended", hostname = "db.example", tls = { certificates = files }, certificate = own "second" }
listener { protocol = "tcp", name = "rest" }
listener { protocol = "https", name = "plain", hostname = "plain.example", tls = { certificates = files } }
listener { protocol = "https", name = "web", hostname = "site.example", tls = { certificates = files }, certificate = own "second" }
m.route { listeners = { "pass" }, backends = "raw" }
m.route { listeners = { "ended" }, backends = "raw" }
m.route { listeners = { "rest" }, backends = "raw" }
m.route { path = "/", backends = "echo" }
]]):gsub("PORT", tostring(port)):gsub("ENDPOINT", h.backend(function(connection) connection:read_all() end):address())
      :gsub("SITE", set.dir .. "/site"):gsub("OTHER", set.dir .. "/other")) }
    assert.equal("other", subject(gateway, "-servername db.example"))
    gateway:wait_log "asked of ended for db.example"
    assert.equal("other", subject(gateway, "-servername site.example"))
    gateway:wait_log "asked of web for site.example"
    assert.equal("site", subject(gateway, "-servername plain.example"))
    quiet(gateway)
  end))

  it("is refused where it cannot run", test(function()
    local function refused(text, ...)
      local path, dir = h.write_file(text)
      local result = h.exec { "check", path }
      os.execute("rm -r " .. dir)
      assert.equal(1, result.code, result.stdout)
      for _, wanted in ipairs { ... } do assert.truthy(result.stderr:find(wanted, 1, true), result.stderr) end
    end
    local text = config "return nil"
    refused(text:gsub('name = "edge", ', ""), "certificate", 'add name = "edge"')
    refused([[
      local moongate = require "moongate"
      moongate.listener { name = "edge", port = 0, certificate = function() end }
      moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }]],
      'listener "edge": certificate', 'add protocol = "https"')
    local opaque = [[
      local moongate = require "moongate"
      moongate.listener { name = "edge", port = 0, protocol = "tls", tls = { mode = "passthrough" }, %s = function() end }
      moongate.upstream { name = "b", endpoints = { "127.0.0.1:1" } }
      moongate.route { listeners = { "edge" }, backends = "b" }]]
    refused(opaque:format "certificate", 'listener "edge": certificate: has no meaning with mode "passthrough"')
    refused(opaque:format "access", 'listener "edge": access: has no meaning with "tls"')
    refused(text:gsub('name = "second"', ("name = %q"):format(site.cert)), "certificates[2].name", "another certificate has this name")
    refused(text:gsub("certificate = function%(connection%) return nil end", 'certificate = "second"'), "certificate", "a function")
  end))
end)
