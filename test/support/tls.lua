-- What specs of TLS have in common: clients that are other people's programs.
local h = require "test.support.harness"
local certs = require "test.support.certs"

local tls = {}

-- A test with a set of certificates; pending without openssl.
function tls.test(set, body, ms)
  local own = getfenv(body) -- busted's words live there
  return h.test(setfenv(function()
    if not set() then own.pending "there is no openssl" end
    body()
  end, own), ms)
end

function tls.certs()
  return certs.is_there() and certs.new() or nil
end

-- A gateway with one listener for HTTPS; options as of h.gateway, `listener` with further keys of it.
function tls.serve(settings, options)
  options = options or {}
  local listener = { protocol = "https", tls = settings }
  for key, value in pairs(options.listener or {}) do listener[key] = value end
  options.listener = listener
  if not options.backend and not options.upstreams then options.upstreams = { backend = { "builtin:echo" } } end
  return h.gateway(options)
end

-- Runs a shell command to its end: output, exit code.
function tls.run(format, ...)
  local process = assert(h.spawn("/bin/sh", { args = { "-c", format:format(...) } }))
  process:wait_exit(20000)
  return process.output, process.code
end

-- curl, which trusts the CA, asks the gateway for https://host/path.
function tls.curl(gateway, ca, host, args, path)
  return tls.run("curl -sS --max-time 15 --cacert %s --connect-to ::127.0.0.1:%d %s https://%s%s", ca, gateway.port,
    args or "", host, path or "/")
end

-- What s_client says of a handshake, and whatever comes until the gateway or `input`, a command, ends.
function tls.s_client(gateway, args, input)
  return tls.run("(%s) | timeout 15 openssl s_client -connect 127.0.0.1:%d %s 2>&1", input or "sleep 0.1", gateway.port, args)
end

return tls
