-- HTTPS whose certificate comes by itself, from a CA that speaks ACME. As it is, from Pebble, the test server of Let's Encrypt, in
-- its shipped configuration; for the real thing leave DIRECTORY and CA out of it, and let the ports be 443 and 80.
--
--   DIRECTORY=https://127.0.0.1:14000/dir CA=minica.pem moongate run scripts/acme.lua
--   curl -i http://127.0.0.1:8080/any/path                                     308 to https
--   curl -i --insecure https://127.0.0.1:8443/                                 200, once there is a certificate or not
--   curl -s --unix-socket /run/moongate.sock http://localhost/certificates     the host, when it expires, what went wrong
--
-- Challenges are answered on both ports before any route or redirect.

local moongate = require "moongate"

local host = os.getenv "HOST" or "www.example.com"

moongate.listener {
  name = "plain", port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1",
  plugins = { { "redirect", scheme = "https", status = 308 } },
}
moongate.listener {
  name = "secure", port = tonumber(os.getenv "TLS_PORT" or 8443), address = "127.0.0.1",
  protocol = "https",
  tls = {
    acme = {
      hosts = { host }, email = "admin@" .. host,
      directory = os.getenv "DIRECTORY" or "https://127.0.0.1:14000/dir", ca = os.getenv "CA",
      storage = os.getenv "STORAGE" or "/tmp/moongate-acme",
    },
  },
}
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
moongate.route { path = "/", listeners = { "secure" }, backends = "echo" }
