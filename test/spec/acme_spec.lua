-- Certificates that the gateway obtains by itself, from a real ACME server.
local cjson = require "cjson"
local h = require "test.support.harness"
local pebble = require "test.support.pebble"
local ports = require "test.support.ports"
local tls = require "test.support.tls"
local uv = require "luv"

local set

setup(function() set = pebble.is_there() and tls.certs() or nil end)

teardown(function()
  if set then set:remove() end
end)

local function test(body, ms)
  local own = getfenv(body)
  return h.test(setfenv(function()
    if not set then own.pending "there is no pebble, or no openssl" end
    body()
  end, own), ms or 60000)
end

local storage_count = 0

-- A directory that is not there yet.
local function storage()
  storage_count = storage_count + 1
  return set:path("acme" .. storage_count .. "/deep")
end

local function acme_of(ca, keys)
  local out = { directory = ca.directory, ca = ca.ca, email = "admin@site.test", hosts = { "site.test" }, storage = storage() }
  for key, value in pairs(keys or {}) do out[key] = value end
  return out
end

-- Ports for HTTPS and for HTTP.
local function places() return { https = ports.free(), http = ports.free() } end

local function config(at, acme, more)
  return ([[
local moongate = require "moongate"
moongate.settings { workers = 2 }
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", tls = { acme = %s } }
moongate.listener { port = %d, address = "127.0.0.1" }
moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "backend" }
]]):format(at.https, h.literal(acme), at.http) .. (more or "")
end

local function serve(at, acme, more)
  return h.gateway { config = config(at, acme, more) }
end

local function wait_obtained(gateway, host)
  gateway:wait_log(('acme: certificate of "%s" obtained'):format(host or "site.test"), 30000)
  gateway:wait_log("certificates changed: new connections get what is in", 10000)
end

local function issuer(at, host)
  return tls.s_client({ port = at.https }, "-servername " .. (host or "site.test")):match "issuer=([^\n]*)"
end

local function curl(at, root, host)
  return tls.run("curl -sS --max-time 15 --cacert %s --connect-to ::127.0.0.1:%d https://%s/", root, at.https, host or "site.test")
end

local function mode(path)
  local file = assert(uv.fs_stat(path))
  return ("%o"):format(file.mode % 512)
end

-- The directory of the CA's files.
local function place_of(acme)
  return acme.storage .. "/" .. acme.directory:gsub("^https://", ""):gsub("[^%w.-]", "_")
end

local function document(gateway, host)
  for _, one in ipairs(gateway:ask_json("/certificates").renewals) do
    if one.host == host then return one end
  end
end

describe("ACME", function()
  for _, challenge in ipairs { "http-01", "tls-alpn-01" } do
    it("obtains a certificate by " .. challenge .. " #threads", test(function()
      local at = places()
      local ca = pebble.start(h, { set = set, http = at.http, https = at.https, nonce_reject = 30 })
      local acme = acme_of(ca, { challenge = challenge })
      local gateway = serve(at, acme)
      wait_obtained(gateway)
      local output, code = curl(at, ca:root())
      assert.equal(0, code, output)
      local dir = place_of(acme)
      assert.equal("700", mode(dir))
      assert.equal("600", mode(dir .. "/site.test.pem"))
      assert.equal("600", mode(dir .. "/account.key"))
      local one = document(gateway, "site.test")
      assert.equal(1, one.obtained)
      assert.equal(0, one.failures)
      assert.is_true(one.expires > os.time() + 80 * 86400)
      assert.is_true(one.next > os.time() + 55 * 86400 and one.next < os.time() + 61 * 86400)
      assert.equal(one.expires, gateway:metrics()['moongate_acme_expiry_seconds{host="site.test"}'])
      gateway:expect_quiet()
    end))
  end

  it("answers HTTP-01 before any route, and whatever plugins the listener has", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, http = at.http })
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", name = "secure", tls = { acme = %s } }
moongate.listener { port = %d, address = "127.0.0.1", plugins = { { "redirect", scheme = "https" } } }
moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
moongate.route { path = "/", listeners = { "secure" }, backends = "backend" }
]]):format(at.https, h.literal(acme_of(ca, { challenge = "http-01" })), at.http) }
    wait_obtained(gateway)
    assert.equal(302, gateway:get("/.well-known/acme-challenge/token", nil, { port = at.http }).status)
  end))

  it("answers TLS-ALPN-01 where clients must show a certificate", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", tls = { acme = %s, client = { ca = "%s" } } }
moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "backend" }
]]):format(at.https, h.literal(acme_of(ca)), set.ca) }
    wait_obtained(gateway)
    local output = tls.s_client({ port = at.https }, "-servername site.test -alpn acme-tls/1")
    assert.truthy(output:find "alert no application protocol", output)
    gateway:expect_quiet()
  end))

  local ends = {
    ["no route has that name"] = [[
moongate.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "ended", hostname = "*.test", tls = { acme = ACME } }
moongate.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "pass", tls = { mode = "passthrough" } }
moongate.route { listeners = { "ended" }, hosts = { "other.test" }, backends = "backend" }
moongate.route { listeners = { "pass" }, backends = "backend" }
]],
    ["a route has every name"] = [[
moongate.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "ended", tls = { acme = ACME } }
moongate.route { listeners = { "ended" }, backends = "backend" }
]],
  }
  for title, body in pairs(ends) do
    it("answers TLS-ALPN-01 where TLS ends before TCP, and " .. title, test(function()
      local at = places()
      local ca = pebble.start(h, { set = set, https = at.https })
      local backend = h.backend(function(connection) connection:read_all() end)
      local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 2 }
moongate.upstream { name = "backend", endpoints = { "ENDPOINT" } }
]] .. body):gsub("%u%u+", { PORT = at.https, ACME = h.literal(acme_of(ca)), ENDPOINT = backend:address() }) }
      wait_obtained(gateway)
      local metrics = gateway:metrics()
      assert.equal(0, metrics.moongate_upstream_connects_total) -- nothing is said over a proof
      assert.equal(0, metrics['moongate_connections_refused_total{reason="hello_name"}'])
      gateway:expect_quiet()
    end))
  end

  it("tries the other challenge where one fails and neither is asked for", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, http = at.http, https = ports.free() })
    local gateway = serve(at, acme_of(ca))
    wait_obtained(gateway)
    assert.equal(0, document(gateway, "site.test").failures)
  end))

  it("shows a placeholder that nobody trusts until there is a certificate", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https, is_later = true })
    local own = set:issue { name = "own", sans = "DNS:own.test" }
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", tls = { certificates = { %s }, acme = %s } }
moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "backend" }
]]):format(at.https, h.literal(own), h.literal(acme_of(ca))) }
    gateway:expect_log 'acme: no certificate for "site.test": 127.0.0.1:%d+: connection refused; next try in %d+ s %('
    gateway:wait_log "acme: no certificate for"
    assert.equal("CN = Moongate: no certificate yet", issuer(at))
    local output, code = curl(at, set.ca)
    assert.equal(60, code, output)
    output, code = curl(at, set.ca, "own.test")
    assert.equal(0, code, output)
    local one = document(gateway, "site.test")
    assert.is_true(one.failures >= 1)
    assert.truthy(one.error:find "connection refused")
    local function placeholders()
      local out = {}
      for _, certificate in ipairs(gateway:ask_json("/certificates").certificates) do
        out[certificate.hosts[1]] = certificate.placeholder
      end
      return out
    end
    assert.same({ ["own.test"] = false, ["site.test"] = true }, placeholders())
    ca:start() -- the server comes back
    wait_obtained(gateway)
    assert.same({ ["own.test"] = false, ["site.test"] = false }, placeholders())
    output, code = curl(at, ca:root())
    assert.equal(0, code, output)
    assert.equal(cjson.null, document(gateway, "site.test").error)
  end))

  it("serves what it has kept at once after a restart, and asks for nothing", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    local first = serve(at, acme)
    wait_obtained(first)
    first:stop()
    assert.equal(1, ca:order_count())
    local root = ca:root()
    local second = serve(at, acme)
    local output, code = curl(at, root)
    assert.equal(0, code, output)
    second:wait_metrics("the certificate", function(metrics)
      return (metrics['moongate_acme_expiry_seconds{host="site.test"}'] or 0) > os.time()
    end)
    assert.is_true(document(second, "site.test").next > os.time() + 86400)
    assert.equal(1, ca:order_count())
    assert.equal(0, document(second, "site.test").obtained)
  end))

  it("replaces a kept file that is of no use", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    os.execute("mkdir -p " .. place_of(acme))
    local file = assert(io.open(place_of(acme) .. "/site.test.pem", "w"))
    file:write "no PEM\n"
    file:close()
    local gateway = serve(at, acme)
    gateway:wait_log 'site.test.pem is of no use for "site.test" and will be replaced: holds no certificate'
    wait_obtained(gateway)
    local output, code = curl(at, ca:root())
    assert.equal(0, code, output)
  end))

  it("serves one that is over until the next is in", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https, is_later = true })
    local acme = acme_of(ca)
    local own = set:issue { name = "over", sans = "DNS:site.test", from = "20200101000000Z", to = "20200201000000Z" }
    os.execute(("mkdir -p %s && cat %s %s > %s/site.test.pem"):format(place_of(acme), own.key, own.cert, place_of(acme)))
    local gateway = serve(at, acme)
    gateway:expect_log "acme: no certificate for"
    assert.equal("CN = ca CA", issuer(at))
    gateway:wait_log "acme: no certificate for"
    assert.equal("CN = ca CA", issuer(at))
    ca:start()
    wait_obtained(gateway)
    local output, code = curl(at, ca:root())
    assert.equal(0, code, output)
  end))

  it("keeps what cannot be written until it can, and asks for no other", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    os.execute(("mkdir -p %s/site.test.pem"):format(place_of(acme)))
    local gateway = serve(at, acme)
    gateway:expect_log 'no certificate for "site.test": [^ ]+site.test.pem: '
    gateway:wait_log('no certificate for "site.test": [^ ]+site.test.pem: [^;]+; next try in %d s', 20000)
    os.execute(("rmdir %s/site.test.pem"):format(place_of(acme)))
    wait_obtained(gateway)
    assert.equal(1, ca:order_count())
  end))

  it("makes its account anew where the server has forgotten it", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https, validity = 20 })
    local gateway = serve(at, acme_of(ca, { challenge = "tls-alpn-01" }))
    wait_obtained(gateway)
    ca:stop()
    ca:start() -- it keeps nothing
    local deadline = h.now_ms() + 40000 * h.loop.scale
    while document(gateway, "site.test").obtained < 2 and h.now_ms() < deadline do h.pass(200) end
    local one = document(gateway, "site.test")
    assert.equal(2, one.obtained)
    assert.equal(0, one.failures)
    local output, code = curl(at, ca:root())
    assert.equal(0, code, output)
  end, 90000))

  it("asks a server that has a name", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, http = at.http, name = "localhost" })
    local gateway = serve(at, acme_of(ca, { challenge = "http-01" }))
    wait_obtained(gateway)
    assert.equal(0, document(gateway, "site.test").failures)
  end))

  it("renews while the old certificate serves, and no handshake fails", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https, validity = 20, nonce_reject = 20 })
    local gateway = serve(at, acme_of(ca, { challenge = "tls-alpn-01" }))
    wait_obtained(gateway)
    local root, count = ca:root(), 0
    while document(gateway, "site.test").obtained < 3 do
      local output, code = curl(at, root)
      assert.equal(0, code, output)
      count = count + 1
    end
    assert.is_true(count > 20, count)
    assert.equal(0, document(gateway, "site.test").failures)
    local metrics = gateway:metrics()
    for _, reason in ipairs { "certificate", "protocol", "refused" } do
      assert.equal(0, metrics[('moongate_tls_handshake_failures_total{reason="%s"}'):format(reason)])
    end
    assert.is_true(metrics['moongate_acme_obtained_total{host="site.test"}'] >= 3)
  end, 90000))

  it("obtains one certificate a host, and hosts of a new configuration beside the old ones", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https, nonce_reject = 20 })
    local acme = acme_of(ca, { hosts = { "site.test", "shop.test" } })
    local gateway = serve(at, acme)
    wait_obtained(gateway, "site.test")
    wait_obtained(gateway, "shop.test")
    local root = ca:root()
    acme.hosts = { "shop.test", "new.test" }
    gateway:rewrite(config(at, acme))
    assert.equal(0, gateway:ask("reload").code)
    local output, code = curl(at, root, "shop.test") -- before anything is obtained
    assert.equal(0, code, output)
    gateway:wait_log('acme: certificate of "new.test" obtained', 20000)
    local deadline = h.now_ms() + 10000
    while issuer(at, "new.test"):find "no certificate yet" and h.now_ms() < deadline do h.pass(100) end
    output, code = curl(at, root, "new.test")
    assert.equal(0, code, output)
    assert.equal(3, ca:order_count())
    assert.is_nil((document(gateway, "site.test")))
  end))

  it("shares what several listeners name", test(function()
    local at, other = places(), ports.free()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    local gateway = serve(at, acme, ([[
moongate.listener { port = %d, address = "127.0.0.1", protocol = "https", hostname = "site.test", tls = { acme = %s } }
]]):format(other, h.literal(acme)))
    wait_obtained(gateway)
    local root = ca:root()
    local deadline = h.now_ms() + 10000
    while issuer({ https = other }):find "no certificate yet" and h.now_ms() < deadline do h.pass(100) end
    local output, code = curl({ https = other }, root)
    assert.equal(0, code, output)
    assert.equal(1, ca:order_count())
  end))

  it("takes what another gateway has obtained", test(function()
    local at, other = places(), places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    local first = serve(at, acme)
    wait_obtained(first)
    local second = serve(other, acme)
    local output, code = curl(other, ca:root())
    assert.equal(0, code, output)
    second:wait_metrics("the certificate", function(metrics)
      return (metrics['moongate_acme_expiry_seconds{host="site.test"}'] or 0) > os.time()
    end)
    assert.equal(1, ca:order_count())
  end))

  it("trusts no server that its CA does not vouch for", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local gateway = serve(at, acme_of(ca, { ca = set:authority "foreign" }))
    gateway:expect_log 'no certificate for "site.test": 127.0.0.1:%d+: certificate not accepted'
    gateway:wait_log 'no certificate for "site.test": 127.0.0.1:%d+: certificate not accepted'
    assert.equal(0, ca:order_count())
  end))

  it("says what the server has refused, and waits long", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local gateway = serve(at, acme_of(ca, { hosts = { "blocked.test", "site.test" } }))
    gateway:expect_log 'no certificate for "blocked.test"'
    gateway:wait_log 'no certificate for "blocked.test": 127.0.0.1:%d+ answered 400 rejectedIdentifier: [^\n]+; next try in %d%d%d s %(2'
    wait_obtained(gateway, "site.test") -- it is in nobody's way
    assert.truthy(document(gateway, "blocked.test").error:find "rejectedIdentifier")
    assert.equal(1, gateway:metrics()['moongate_acme_failures_total{host="blocked.test"}'])
  end))

  it("says why the server could not reach it", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, http = h.dead_port(), https = h.dead_port() })
    local gateway = serve(at, acme_of(ca))
    gateway:expect_log 'no certificate for "site.test": tls%-alpn%-01: .*; http%-01: .*next try in %d%d%d s'
    gateway:wait_log('no certificate for "site.test": tls%-alpn%-01: .*; http%-01: .*next try in %d%d%d s', 20000)
    local again = gateway:get("/.well-known/acme-challenge/x", nil, { port = at.http }) -- is the routes' again
    assert.truthy(again.body:find("\"path\": \"/.well-known/acme-challenge/x\"", 1, true), again.body)
  end))

  it("is stopped, and reloaded, in the middle of an order", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, http = h.black_hole(), https = h.black_hole() })
    local acme = acme_of(ca, { challenge = "http-01" })
    local gateway = serve(at, acme)
    ca.process:wait_output "Attempting to validate w/ HTTP"
    acme.hosts = { "other.test" }
    gateway:rewrite(config(at, acme))
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("other.test", gateway:ask_json("/certificates").renewals[1].host)
    ca.process:wait_output "Attempting to validate w/ HTTP: http://other%.test"
    gateway:stop()
  end))

  it("has an account that another one vouches for", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https, needs_eab = true })
    local gateway = serve(at, acme_of(ca, { eab = { kid = "kid-1", secret = pebble.EAB_SECRET } }))
    wait_obtained(gateway)
    assert.falsy(gateway:admin("/config").body:find(pebble.EAB_SECRET, 1, true))
    local other = serve(places(), acme_of(ca))
    other:expect_log "externalAccountRequired"
    other:wait_log "externalAccountRequired"
  end))

  it("keeps its account", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    local first = serve(at, acme)
    wait_obtained(first)
    first:stop()
    local function key()
      local file = assert(io.open(place_of(acme) .. "/account.key"))
      local text = file:read "*a"
      file:close()
      return text
    end
    local before = key()
    acme.email, acme.hosts = "other@site.test", { "next.test" }
    local second = serve(at, acme)
    wait_obtained(second, "next.test")
    assert.equal(before, key())
  end))
end)

-- A CA of our own, made of a gateway, that answers as it is told.
local function fake_ca(body)
  local own = set:issue { name = "fake", sans = "IP:127.0.0.1" }
  local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1", protocol = "https", tls = { certificates = { %s } } }
moongate.route { path = "/", access = function(exchange) %s end }
]]):format(h.literal(own), body) }
  return { directory = ("https://127.0.0.1:%d/dir"):format(gateway.port), ca = set.ca }
end

local function due_after(body, error_text)
  local gateway = serve(places(), acme_of(fake_ca(body)))
  gateway:expect_log(error_text)
  gateway:wait_log(error_text)
  return document(gateway, "site.test").next - os.time()
end

describe("ACME, from the last good configuration", function()
  it("finds its files where they are", test(function()
    local at = places()
    local ca = pebble.start(h, { set = set, https = at.https })
    local acme = acme_of(ca)
    acme.storage = nil
    local path, dir = h.write_file(config(at, acme))
    local first = h.gateway { file = path, args = { "--state", dir } }
    first:wait_log "the last good configuration is kept in"
    wait_obtained(first)
    first:stop()
    os.execute(("mkdir %s/state; mv %s/last-good.lua %s/state; echo nonsense > %s"):format(dir, dir, dir, path))
    local second = h.gateway { file = path, args = { "--state", dir .. "/state" } }
    second:expect_log "."
    local output, code = curl(at, ca:root())
    assert.equal(0, code, output)
    second:stop()
    os.execute("rm -r " .. dir)
  end))
end)

describe("ACME, with a server that will not", function()
  it("waits as long as it is told: seconds, or a date", test(function()
    local problem = [[exchange:respond(429, '{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too\\nmany"}', ]]
    local seconds = due_after(problem .. [[{ ["retry-after"] = "7200" })]], "answered 429 rateLimited: too many; next try in 7200 s")
    assert.is_true(seconds > 7100 and seconds <= 7201, seconds)
    local date = os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 9000)
    seconds = due_after(problem .. ([[{ ["retry-after"] = "%s" })]]):format(date), "answered 429 rateLimited")
    assert.is_true(seconds > 8900 and seconds <= 9001, seconds)
  end))

  -- Its answers: Lua for the order and for the authorization.
  local function sloppy(order, authorization)
    return ([[
      local base = "https://" .. exchange.request.host .. ":" .. exchange.request.port
      local fields = { ["replay-nonce"] = tostring(math.random()), location = base .. "/place" }
      local path = exchange.request.path
      local function answer(status, value) exchange:respond(status, moongate.json.encode(value), fields) end
      if path == "/dir" then
        answer(200, { newNonce = base .. "/nonce", newAccount = base .. "/account", newOrder = base .. "/order" })
      elseif path == "/order" then answer(201, %s)
      elseif path == "/authorization" then answer(200, %s)
      else answer(200, { status = "valid" }) end
    ]]):format(order, authorization or "{}")
  end

  it("is taken at no word that is not what the RFC says", test(function()
    due_after(sloppy '{ status = "pending" }', 'site.test": [^ ]+ gave no order; next try in %d%d%d s')
    due_after(sloppy '{ status = "pending", authorizations = { 1 } }', "the CA names no URL for the next step")
    local order = '{ status = "pending", authorizations = { base .. "/authorization" } }'
    due_after(sloppy(order, '"text"'), "what came is no JSON object")
    due_after(sloppy(order, '{ status = "pending", challenges = "none" }'), "the CA does not offer tls%-alpn%-01; the CA does not offer")
    due_after(sloppy(order, '{ status = "pending", challenges = { 1, "a" } }'), "the CA does not offer tls%-alpn%-01")
    due_after(sloppy(order, '{ status = "pending", challenges = { { type = "tls-alpn-01", url = base, token = "a/b" } } }'),
      "gave a challenge without a token")
    due_after(sloppy(order, '{ status = "invalid", challenges = { { type = "tls-alpn-01", error = { detail = "no\\nway" } } } }'),
      "tls%-alpn%-01: no way; tls%-alpn%-01: no way; next try")
    due_after(sloppy(order, '{ status = "valid" }'), "the CA names no URL for the next step") -- the order is valid, without a certificate
  end))

  it("says that it is none", test(function()
    due_after([[exchange:respond(200, "hello")]], "dir is no ACME directory; next try in")
    due_after([[exchange:respond(200, '{"newNonce":"http://127.0.0.1/"}')]], "not an https URL: http://127.0.0.1/; next try in")
    due_after([[exchange:respond(500, "\27[31mbroken")]], "answered 500; next try in %d s")
  end))
end)

describe("the configuration of ACME", function()
  local function check(acme, more)
    local path = h.write_file(config({ https = 8443, http = 8080 }, acme, more))
    local result = h.exec { "check", path }
    return result.stderr .. result.stdout, result.code
  end

  local function refused(acme, ...)
    local output, code = check(acme)
    assert.equal(1, code, output)
    for _, text in ipairs { ... } do assert.truthy(output:find(text, 1, true), output) end
  end

  it("is checked without asking anybody or writing anything", test(function()
    local place = storage()
    local output, code = check { hosts = { "site.test" }, storage = place, directory = "https://127.0.0.1:1/dir", ca = set.ca }
    assert.equal(0, code, output)
    assert.falsy(uv.fs_stat(place))
  end))

  it("is refused with its place", test(function()
    refused({ hosts = { "*.site.test" } }, ":3: listener", "tls.acme.hosts[1]", '"*.site.test"', "DNS-01")
    refused({ hosts = { "site.test", "10.0.0.1" } }, "tls.acme.hosts[2]", "IP address")
    refused({ hosts = { "site.test", "SITE.test" } }, "tls.acme.hosts[2]", "is there already")
    refused({ hosts = { "a b" } }, "tls.acme.hosts[1]")
    refused({ hosts = {} }, "tls.acme.hosts", "an empty list")
    refused({}, "tls.acme.hosts", "missing: whose certificates")
    refused({ hosts = { "site.test" }, email = "nobody" }, "tls.acme.email", 'not an address: "nobody"')
    refused({ hosts = { "site.test" }, directory = "http://ca.test/" }, "tls.acme.directory", "not an https URL")
    refused({ hosts = { "site.test" }, challenge = "dns-01" }, "tls.acme.challenge", '"http-01" or "tls-alpn-01"')
    refused({ hosts = { "site.test" }, ca = set:path "nowhere.pem" }, "tls.acme.ca", "nowhere.pem", "no such file")
    refused({ hosts = { "site.test" }, eab = { kid = "a" } }, "tls.acme.eab.secret", "missing")
    refused({ hosts = { "site.test" }, host = "site.test" }, "tls.acme.host", "did you mean", "hosts")
  end))

  it("takes the listener's own hostname", test(function()
    local output, code = check({ hosts = { "site.test" } }, [[
moongate.listener { port = 8444, protocol = "https", hostname = "shop.test", tls = { acme = { email = "a@shop.test" } } }
]])
    assert.equal(0, code, output)
    output, code = check({ hosts = { "site.test" } }, [[
moongate.listener { port = 8444, protocol = "https", hostname = "*.shop.test", tls = { acme = {} } }
]])
    assert.equal(1, code, output)
    assert.truthy(output:find("tls.acme.hosts", 1, true), output)
  end))
end)
