-- Alternative names of certificates (A72): compared by type and in whole, both where the gateway judges an upstream and where it tells
-- of a client. One certificate each of what has fooled somebody.
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set, site

-- A name of any bytes: tag 1 is an email, 2 a DNS name, 6 a URI, 7 an IP address.
local function raw(tag, bytes)
  local hex = bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  return ("ASN1:SEQUENCE:sans\n[sans]\nraw = IMPLICIT:%d,FORMAT:HEX,OCT:%s\n"):format(tag, hex)
end

-- sans, then who accepts it: "host" (a.example is asked for), "ip" (127.0.0.1), "dns" and "uri" (pinned); what scripts see of it as a
-- client's where that is not what stands here.
local CASES = {
  { "DNS:a.example", "host dns" },
  { "DNS:A.EXAMPLE", "host dns" },
  { "DNS:b.example,DNS:a.example", "host dns" },
  { "DNS:a.example,DNS:b.example", "host dns" },
  { "DNS:b.example", "" },
  { "DNS:*.example", "" }, -- of everybody below a top-level domain
  { "DNS:*.a.example", "" },
  { "DNS:*", "" },
  { "DNS:**.example", "" },
  { "DNS:a.*", "" },
  { "DNS:*a.example", "" },
  { "DNS:a*.example", "" },
  { "DNS:*.*", "" },
  { "DNS:.example", "" },
  { "DNS:.a.example", "" },
  { "DNS:a.example.", "" },
  { "DNS:xa.example", "" },
  { "DNS:a.example.b", "" },
  { raw(2, "a.example\0.b.example"), "", "DNS:a.example\\00.b.example" },
  { raw(2, "b.example\0a.example"), "", "DNS:b.example\\00a.example" },
  { raw(2, "a.example\0"), "", "DNS:a.example\\00" },
  { raw(2, "\0a.example"), "", "DNS:\\00a.example" },
  { raw(2, "a.example "), "", "DNS:a.example\\20" },
  { raw(2, "a.example\n"), "", "DNS:a.example\\0A" },
  { raw(2, "b,DNS:a.example"), "", "DNS:b\\2CDNS:a.example" },
  { raw(2, 'b"'), "", 'DNS:b\\22' },
  { raw(2, "b\\00"), "", "DNS:b\\5C00" },
  { raw(2, "\195\164.example"), "", "DNS:\\C3\\A4.example" },
  { raw(1, "a.example"), "", "email:a.example" },
  { raw(6, "a.example"), "", "URI:a.example" },
  { "email:x@a.example", "" },
  { "URI:https://a.example", "" },
  { "URI:spiffe://example/users", "uri" },
  { "DNS:b.example,URI:spiffe://example/users", "uri" },
  { "URI:spiffe://example/users/", "" },
  { "URI:spiffe://example/user", "" },
  { "URI:spiffe://example/users/admin", "" },
  { "URI:SPIFFE://example/users", "" },
  { "URI:spiffe://example//users", "" },
  { "URI:spiffe://example/x/../users", "" },
  { "URI:spiffe://example/users?x", "" },
  { raw(6, "spiffe://example/users\0/x"), "", "URI:spiffe://example/users\\00/x" },
  { raw(6, "spiffe://example/x\0spiffe://example/users"), "", "URI:spiffe://example/x\\00spiffe://example/users" },
  { raw(2, "spiffe://example/users"), "", "DNS:spiffe://example/users" },
  { raw(1, "spiffe://example/users"), "", "email:spiffe://example/users" },
  { "IP:127.0.0.1", "ip" },
  { "IP:127.0.0.2", "" },
  { "IP:::ffff:127.0.0.1", "", "IP:0:0:0:0:0:ffff:7f00:1" },
  { "DNS:127.0.0.1", "" },
  { "URI:127.0.0.1", "" },
  { raw(7, "\127\0\0\1\0"), "", "IP:" },
  { raw(7, "\127\0\0"), "", "IP:" },
  { "dirName:dir\n[dir]\nCN=a.example", "", "" },
  { "otherName:1.2.3.4;UTF8:a.example", "", "" },
  { "RID:1.2.3.4", "", "" },
  { nil, "", "" }, -- the common name counts for nothing (RFC 9525)
}

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example" }
  for i = 1, #CASES do
    local case = CASES[i]
    set:issue { name = "case" .. i, subject = "/CN=a.example", extensions = case[1] and "subjectAltName = " .. case[1] .. "\n" or "" }
  end
end)

teardown(function()
  if set then set:remove() end
end)

local function title(i) return ("case %d: %s"):format(i, CASES[i][1] or "none") end

describe("the alternative names of a certificate", function()
  it("of an upstream are compared by type and as a whole", tls.test(function() return set end, function()
    -- It serves the certificate that it is told to by the last request in clear, and no session that would spare a look at it.
    local parts = {}
    for i = 1, #CASES do
      parts[i] = ("{ cert = read %q, key = read %q }"):format(set:path("case" .. i .. ".crt"), set:path("case" .. i .. ".key"))
    end
    local behind = h.gateway { config = ([[
      local moongate = require "moongate"
      local function read(path) local file = assert(io.open(path)) local text = file:read "*a" file:close() return text end
      local cases, now = { %s }, nil
      moongate.settings { workers = 1, keepalive_requests = 1 }
      moongate.listener { name = "secure", port = 0, address = "127.0.0.1", protocol = "https",
        tls = { certificates = { { cert = %q, key = %q } }, tickets = false }, certificate = function() return cases[now] end }
      moongate.listener { name = "plain", port = 0, address = "127.0.0.1" }
      moongate.route { name = "tell", path = "/", listeners = { "secure" }, access = function(exchange) exchange:respond(200, tostring(now)) end }
      moongate.route { name = "set", path = "/", listeners = { "plain" }, access = function(exchange)
        now = tonumber(exchange.request.args.n) exchange:respond(200) end }]]):format(table.concat(parts, ", "), site.cert, site.key) }
    local function upstream(name, keys)
      return ('moongate.upstream { name = %q, endpoints = { "127.0.0.1:%d" }, tls = { ca = %q, %s } }\n' ..
        'moongate.route { path = "/%s", backends = %q }\n'):format(name, behind.ports[1], set.ca, keys, name, name)
    end
    local front = h.gateway { config = [[
      local moongate = require "moongate"
      moongate.settings { workers = 1 }
      moongate.listener { port = 0, address = "127.0.0.1" }
      ]] .. upstream("host", 'sni = "a.example"') .. upstream("ip", "") .. upstream("dns", 'sans = { "a.example" }') ..
      upstream("uri", 'sans = { "spiffe://example/users" }') }
    local wrong = {}
    for i = 1, #CASES do
      assert.equal(200, behind:get("/?n=" .. i, nil, { port = behind.ports[2] }).status)
      for _, who in ipairs { "host", "ip", "dns", "uri" } do
        local response = front:get("/" .. who)
        local is_accepted = response.status == 200
        if is_accepted then assert.equal(tostring(i), response.body) else assert.equal(502, response.status) end
        local is_wanted = (" " .. CASES[i][2] .. " "):find(" " .. who .. " ", 1, true) ~= nil
        if is_accepted ~= is_wanted then
          wrong[#wrong + 1] = ("%s is %s by %s"):format(title(i), is_accepted and "accepted" or "refused", who)
        end
      end
    end
    assert.same({}, wrong)
  end, 60000))

  it("of a client are told to scripts so that none passes for two, or for another", tls.test(function() return set end, function()
    local gateway = h.script([[moongate.route { path = "/", access = function(exchange)
      exchange:respond(200, #exchange.request.tls.client.sans .. " " .. table.concat(exchange.request.tls.client.sans, " "))
    end }]], { listener = { protocol = "https", tls = { certificates = { site }, client = { ca = set.ca } } } })
    local wrong = {}
    for i = 1, #CASES do
      local seen = CASES[i][3] or CASES[i][1]:gsub(",", " ")
      local _, commas = (CASES[i][3] and "" or CASES[i][1]):gsub(",", "")
      local wanted = ("%d %s"):format(seen == "" and 0 or commas + 1, seen)
      local output = tls.curl(gateway, set.ca, "site.example", ("--cert %s --key %s"):format(set:path("case" .. i .. ".crt"),
        set:path("case" .. i .. ".key")))
      if output ~= wanted then wrong[#wrong + 1] = ("%s: %q, not %q"):format(title(i), output, wanted) end
    end
    assert.same({}, wrong)
  end, 60000))
end)
