--- Certificates of the gateway, exchanged while it runs.
---
---   local ok, err = moongate.certificates.set("shop", { cert = chain, key = key })
---   if not ok then moongate.log.error("the new certificate is refused", { err = err }) end
---
--- What is given serves all workers' new connections from then on, without a reload, and connections that stand stay. It is kept in
--- memory alone: reloads keep it, a change of the files in its place, or a start, brings back what the files hold.

local native = require "moongate._core.native"
local wait = require "moongate._core.wait"

local certificates = {}

--- Puts a certificate in the place of those of that name: the `name` in `tls.certificates` of listeners, or their `cert`. Waits
--- until it serves. In phases, tasks, timers and init_worker.
---@param name string
---@param texts moongate.CertificateTexts
---@return true? ok, string? err there is no certificate of that name, or what is wrong with this one
function certificates.set(name, texts)
  wait.in_phase("moongate.certificates.set", 2)
  if type(name) ~= "string" or type(texts) ~= "table" or type(texts.cert) ~= "string" or
    type(texts.key) ~= "string" then
    error("moongate.certificates.set takes a name and { cert = pem, key = pem }", 2)
  end
  local order = native.certificate_set(name, texts.cert, texts.key)
  wait.wait()
  return native.certificate_take(order)
end

return certificates
