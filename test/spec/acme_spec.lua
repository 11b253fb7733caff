-- Certificates that the gateway obtains by itself, from a real ACME server.
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
  for _, one in ipairs(gateway:ask_json("/certificates").certificates) do
    if one.host == host then return one end
  end
end

describe("ACME", function()
  for _, challenge in ipairs { "http-01", "tls-alpn-01" } do
    it("obtains a certificate by " .. challenge, test(function()
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
end)
