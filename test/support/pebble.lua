-- Pebble, the ACME server of Let's Encrypt for tests, and the name server that comes with it, in which every name is 127.0.0.1.
--
--   local ca = pebble.start(h, { set = certs, http = port, https = port })
--   ... tls = { acme = { directory = ca.directory, ca = ca.ca, ... } } ...
local uv = require "luv"
local ports = require "test.support.ports"

local Pebble = {}
Pebble.__index = Pebble

local pebble = {}

function pebble.is_there()
  return uv.fs_access("/usr/bin/pebble", "X") and uv.fs_access("/usr/bin/pebble-challtestsrv", "X") and true or false
end

local function wait_port(h, process, port)
  for _ = 1, 1000 do
    local probe = h.stream.try_connect(port)
    if probe then return probe:close() end
    if process.code then error("it ended: " .. process.output) end
    h.pass(10)
  end
  error("it does not listen: " .. process.output)
end

local function environment(options)
  local out = { "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_WFE_NONCEREJECT=" .. (options.nonce_reject or 5) }
  for _, name in ipairs { "PATH", "HOME" } do out[#out + 1] = name .. "=" .. (os.getenv(name) or "") end
  return out
end

local CONFIG = [[
{ "pebble": { "listenAddress": "127.0.0.1:%d", "managementListenAddress": "127.0.0.1:%d", "certificate": "%s",
  "privateKey": "%s", "httpPort": %d, "tlsPort": %d, "ocspResponderURL": "", "certificateValidityPeriod": %d,
  "externalAccountBindingRequired": %s, "externalAccountMACKeys": { "kid-1": "%s" },
  "domainBlocklist": [ "blocked.test" ] } }
]]

pebble.EAB_SECRET = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

function Pebble:start()
  local h = self.h
  local dns_port = ports.free()
  self.dns = h.spawn("/usr/bin/pebble-challtestsrv", { args = { "-defaultIPv6", "", "-dns01", "127.0.0.1:" .. dns_port,
    "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:" .. ports.free() } })
  self.process = h.spawn("/usr/bin/pebble", { args = { "-config", self.config, "-dnsserver", "127.0.0.1:" .. dns_port },
    env = environment(self.options) })
  wait_port(h, self.process, self.port)
  wait_port(h, self.process, self.management)
end

-- options: set (of certificates), http and https (ports that it validates at), validity (seconds), nonce_reject (per cent), needs_eab, name
-- (in its URLs, default 127.0.0.1).
function pebble.start(h, options)
  local self = setmetatable({ h = h, options = options, port = options.port or ports.free(), management = ports.free() }, Pebble)
  local own = options.set:issue { name = "pebble", sans = "IP:127.0.0.1,DNS:localhost" }
  self.ca = options.set.ca
  self.directory = ("https://%s:%d/dir"):format(options.name or "127.0.0.1", self.port)
  self.config = options.set:write("pebble.json", CONFIG:format(self.port, self.management, own.cert, own.key,
    options.http or 1, options.https or 1, options.validity or 86400 * 90, tostring(options.needs_eab or false), pebble.EAB_SECRET))
  if not options.is_later then self:start() end
  return self
end

function Pebble:stop()
  for _, process in ipairs { self.process, self.dns } do
    process:signal "sigkill"
    process:wait_exit()
  end
end

-- The path of the root that its certificates stand on; another one after each start.
function Pebble:root()
  local path = self.options.set:path "root.pem"
  local curl = self.h.spawn("/bin/sh", { args = { "-c", ("curl -sS --max-time 10 --cacert %s https://127.0.0.1:%d/roots/0 -o %s"):format(
    self.ca, self.management, path) } })
  if curl:wait_exit() ~= 0 then error("no root: " .. curl.output) end
  return path
end

-- How many certificates it has been asked for.
function Pebble:order_count()
  local _, count = self.process.output:gsub("Issued certificate serial", "")
  return count
end

return pebble
