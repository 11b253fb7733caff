-- What testssl.sh finds at a listener as it is shipped: nothing above LOW in protocols, ciphers and vulnerabilities. It knows the
-- attacks of twenty years and tries them all (A75).
local cjson = require "cjson"
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set

setup(function() set = tls.certs() end)
teardown(function() if set then set:remove() end end)

local SECTIONS = "--protocols --standard --server-defaults --vulnerable"
local MINUTES = 4

-- The findings, a list of { id =, severity =, finding = }.
local function run(gateway)
  local out = set:path "findings.json"
  os.remove(out)
  local process = h.spawn("/bin/sh", { args = { "-c", ("cd %s && timeout %d testssl %s --quiet --warnings off --color 0 " ..
    "--nodns none --ip 127.0.0.1 --connect-timeout 5 --openssl-timeout 5 --add-ca %s --jsonfile %s site.example:%d 2>&1"):format(
    set.dir, MINUTES * 60, SECTIONS, set.ca, out, gateway.port) } })
  process:wait_exit((MINUTES * 60 + 20) * 1000)
  assert.not_equal(124, process.code, "it did not come to its end:\n" .. process.output:sub(-2000))
  local file = assert(io.open(out), process.output:sub(-2000))
  local text = file:read "*a"
  file:close()
  return cjson.decode(text), process.output
end

-- Its client leaves at the end of its input, which is at once: where the tickets of TLS 1.3 come a moment later it has none to
-- come back with, and calls that a problem with connecting. The specs of sessions show that they are resumed.
local function had_no_ticket(finding) return finding.id == "sessionresumption_ticket" and finding.severity == "WARN" end

local BAD = { MEDIUM = true, HIGH = true, CRITICAL = true, WARN = true, FATAL = true }

describe("testssl.sh", function()
  it("finds nothing above LOW", tls.test(function() return set end, function()
    if os.execute "command -v testssl >/dev/null 2>&1" ~= 0 then return pending "there is no testssl" end
    local extensions = "crlDistributionPoints = URI:http://127.0.0.1:1/ca.crl\nextendedKeyUsage = serverAuth\n" ..
      "keyUsage = digitalSignature\n"
    local certificates = {}
    for _, kind in ipairs { "ec", "rsa" } do
      local pair = set:issue { name = kind, kind = kind, sans = "DNS:site.example", subject = "/CN=site.example",
        extensions = extensions, to = os.date("!%Y%m%d%H%M%SZ", os.time() + 86400 * 80) }
      set:write(kind .. ".chain", set:read(kind .. ".crt") .. set:read "ca.crt")
      certificates[#certificates + 1] = { cert = set:path(kind .. ".chain"), key = pair.key }
    end
    local gateway = tls.serve { certificates = certificates }
    local findings, output = run(gateway)
    local seen, bad = {}, {}
    for _, finding in ipairs(findings) do
      seen[finding.id] = finding
      if BAD[finding.severity] and not had_no_ticket(finding) then
        bad[#bad + 1] = ("%s %s: %s"):format(finding.severity, finding.id, finding.finding)
      end
    end
    assert.same({}, bad, output)
    -- It has looked.
    assert.equal("offered with final", seen.TLS1_3.finding)
    assert.equal("offered", seen.TLS1_2.finding)
    for _, id in ipairs { "SSLv2", "SSLv3", "TLS1", "TLS1_1" } do assert.equal("not offered", seen[id].finding, id) end
    for _, id in ipairs { "heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS",
      "POODLE_SSL", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4" } do
      assert.equal("OK", seen[id] and seen[id].severity, id)
    end
  end, 400000))
end)
