-- Certificates out of a store: the first client that asks for a host has the worker fetch its certificate over HTTP, in the middle of
-- the handshake, and the next ones find it kept. What the store does not have is served with the files. Needs a certificate:
--
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout site.key -out site.crt -subj /CN=default -days 30
--   CERT=$PWD/site.crt KEY=$PWD/site.key STORE=http://127.0.0.1:9000/ moongate run scripts/certificates.lua
--   curl -k https://127.0.0.1:8443/ --connect-to shop.example::127.0.0.1:8443      GET http://127.0.0.1:9000/shop.example first
--
-- The store answers 200 with the chain and the key, in PEM and in one text, or 404.

local moongate = require "moongate"

local store = os.getenv "STORE" or "http://127.0.0.1:9000/"
local KEPT_SECONDS, MAX_COUNT = 60, 10000

local kept, count = {}, 0 -- of this worker, by name: { pem =, until_ = }

local function keep(name, pem)
  if count == MAX_COUNT then kept, count = {}, 0 end -- names are the clients' to invent
  if not kept[name] then count = count + 1 end
  kept[name] = { pem = pem, until_ = moongate.now() + KEPT_SECONDS }
  return pem
end

local function find(name)
  local own = kept[name]
  if own and own.until_ > moongate.now() then return own.pem end
  local response, err = moongate.http.request { url = store .. name, timeout = 3 }
  if response and response.status == 200 then
    return keep(name, { cert = response.body, key = response.body })
  end
  if response and response.status == 404 then return keep(name, false) end
  local status = response and response.status
  moongate.log.warn("no answer of the store", { name = name, err = err, status = status })
  return own and own.pem -- an old one is better than none
end

local port, cert, key = tonumber(os.getenv "PORT" or 8443), os.getenv "CERT", os.getenv "KEY"

if cert and key then
  moongate.listener {
    name = "edge", port = port, address = "127.0.0.1", protocol = "https",
    tls = { certificates = { { cert = cert, key = key } } },
    certificate = function(connection)
      local name = connection.sni
      if not name or not name:find "^[%w.-]+$" then return nil end
      return find(name) or nil
    end,
  }
else
  moongate.log.warn "there is no certificate (CERT, KEY): plain HTTP"
  moongate.listener { port = port, address = "127.0.0.1" }
end
moongate.upstream { name = "backend", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "backend" }
