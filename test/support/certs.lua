-- Certificates for specs, made with the openssl command. A set is a directory with a CA; everything in it is PEM.
--   local certs = require("test.support.certs").new()
--   local site = certs:issue { name = "site", sans = "DNS:site.example" }    -- { cert = path, key = path }
local uv = require "luv"

local Certs = {}
Certs.__index = Certs

local certs = {}

local function run(format, ...)
  local command = format:format(...)
  local status = os.execute(command .. " >/dev/null 2>&1")
  if status ~= 0 and status ~= true then error("failed: " .. command, 3) end
end

function certs.is_there()
  return os.execute "openssl version >/dev/null 2>&1" == 0
end

-- A path in the set's directory.
function Certs:path(name)
  return self.dir .. "/" .. name
end

function Certs:write(name, text)
  local file = assert(io.open(self:path(name .. ".new"), "w"))
  file:write(text)
  file:close()
  assert(os.rename(self:path(name .. ".new"), self:path(name)))
  return self:path(name)
end

function Certs:read(name)
  local file = assert(io.open(self:path(name)))
  local text = file:read "*a"
  file:close()
  return text
end

local KEYS = { ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256", rsa = "-newkey rsa:2048", ed = "-newkey ed25519" }

-- A further CA of the set: its path.
function Certs:authority(name)
  run("cd %s && openssl req -x509 %s -nodes -keyout %s.key -out %s.crt -days 30 -subj '/CN=%s CA' " ..
    "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign", self.dir, KEYS.ec,
    name, name, name)
  return self:path(name .. ".crt")
end

-- options: name (of the files), sans, kind ("ec", "rsa", "ed"), subject, from and to (openssl times), ca (name of another one),
-- extensions (further lines).
function Certs:issue(options)
  local name, ca = options.name, options.ca or "ca"
  run("cd %s && openssl req -new %s -nodes -keyout %s.key -out %s.csr -subj '%s'", self.dir, KEYS[options.kind or "ec"],
    name, name, options.subject or "/CN=" .. name)
  local extensions = "basicConstraints=CA:FALSE\n"
  if options.sans then extensions = extensions .. "subjectAltName=" .. options.sans .. "\n" end
  self:write(name .. ".ext", extensions .. (options.extensions or ""))
  self.serial = self.serial + 1
  run("cd %s && touch %s.index && openssl ca -batch -config %s.cnf -name own -in %s.csr -out %s.crt -extfile %s.ext -notext " ..
    "-startdate %s -enddate %s", self.dir, ca, self:configure(ca), name, name, name,
    options.from or os.date("!%Y%m%d%H%M%SZ", os.time() - 3600), options.to or os.date("!%Y%m%d%H%M%SZ", os.time() + 864000))
  return { cert = self:path(name .. ".crt"), key = self:path(name .. ".key") }
end

-- The configuration of `openssl ca` for one of the CAs.
function Certs:configure(ca)
  self:write(ca .. ".cnf", ([[
[own]
database = %s.index
new_certs_dir = .
serial = %s.serial
private_key = %s.key
certificate = %s.crt
default_md = sha256
policy = any
unique_subject = no
rand_serial = yes
default_crl_days = 30
[any]
commonName = optional
organizationName = optional
]]):format(ca, ca, ca, ca))
  return ca
end

-- Takes back a certificate; the path of the CRL.
function Certs:revoke(name, ca)
  ca = ca or "ca"
  if name then run("cd %s && openssl ca -config %s.cnf -name own -revoke %s.crt", self.dir, self:configure(ca), name) end
  run("cd %s && touch %s.index && openssl ca -config %s.cnf -name own -gencrl -out %s.crl", self.dir, ca, self:configure(ca), ca)
  return self:path(ca .. ".crl")
end

-- What an OCSP responder says of a certificate, in a file: its path. options: faketime and minutes (of validity; 60), ca.
function Certs:ocsp(name, options)
  options = options or {}
  local ca, path = options.ca or "ca", self:path(name .. ".ocsp")
  run("cd %s && touch %s.index && openssl ocsp -issuer %s.crt -cert %s.crt -no_nonce -reqout %s.req", self.dir, ca, ca, name, name)
  run("cd %s && %s openssl ocsp -index %s.index -CA %s.crt -rsigner %s.crt -rkey %s.key -nmin %d -reqin %s.req -respout %s",
    self.dir, options.faketime and ("faketime -f '%s'"):format(options.faketime) or "", ca, ca, options.signer or ca,
    options.signer or ca, options.minutes or 60, name, path)
  return path
end

-- The arguments of an OCSP responder for the CA.
function Certs:responder(port, ca)
  ca = ca or "ca"
  local function at(suffix) return self:path(ca .. suffix) end
  return { "ocsp", "-port", tostring(port), "-index", at ".index", "-CA", at ".crt", "-rsigner", at ".crt", "-rkey", at ".key",
    "-nmin", "60" }
end

function Certs:remove()
  os.execute("rm -rf " .. self.dir)
end

function certs.new()
  local dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/moongate-certs-XXXXXX"))
  local self = setmetatable({ dir = dir, serial = 0 }, Certs)
  self.ca = self:authority "ca"
  return self
end

return certs
