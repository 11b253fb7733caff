-- Ways around what a listener asks of its clients: another host than the handshake's (A70), sessions of others (A71), early data (A74).
local h = require "test.support.harness"
local tls = require "test.support.tls"

local set, ann, mallory, port, gateway
local HOSTS = { "open.example", "admin.example", "staff.example" }

-- open asks nobody, staff whoever likes, admin everybody for a certificate.
local function config()
  local lines = { 'local moongate = require "moongate"\nmoongate.settings { workers = 1 }\n' }
  local client = { ["admin.example"] = "required", ["staff.example"] = "optional" }
  for _, host in ipairs(HOSTS) do
    local name = host:match "^%w+"
    lines[#lines + 1] = "moongate.listener " .. h.literal { name = name, port = port, address = "127.0.0.1", protocol = "https",
      hostname = host, tls = { certificates = { { cert = set:path(name .. ".crt"), key = set:path(name .. ".key") } },
        client = client[host] and { verify = client[host], ca = set.ca } or nil } } .. "\n"
    lines[#lines + 1] = ('moongate.route { name = %q, path = "/", listeners = { %q }, access = function(exchange) ' ..
      'exchange:respond(200, %q) end }\n'):format(name, name, "this is " .. name)
  end
  return table.concat(lines)
end

setup(function()
  set = tls.certs()
  if not set then return end
  for _, host in ipairs(HOSTS) do set:issue { name = host:match "^%w+", sans = "DNS:" .. host } end
  ann = set:issue { name = "ann", sans = "DNS:ann.example" }
  set:authority "elsewhere"
  mallory = set:issue { name = "mallory", ca = "elsewhere" }
  if not h.has_binary() then return end
  h.open(function()
    port = require("test.support.ports").free()
    gateway = h.gateway { config = config() }
  end)
end)

teardown(function()
  h.close()
  if set then set:remove() end
end)

local function test(body, ms) return tls.test(function() return set end, body, ms) end

-- "none" is a client without SNI, which gets the first listener.
local function expected(sni, host, who)
  if sni == "admin.example" and who ~= "ann" then return "no handshake" end
  if sni == "staff.example" and who == "mallory" then return "no handshake" end
  if sni == "none" then sni = HOSTS[1] end
  return sni == host and "200" or "421"
end

local function s_client(args, input) return tls.s_client(gateway, args, input) end

local function requests()
  local count = 0
  for name, value in pairs(gateway:metrics()) do
    if name:find "^moongate_requests_total" then count = count + value end
  end
  return count
end

local function own(who) return ("-cert %s -key %s"):format(who.cert, who.key) end

describe("a connection", function()
  for _, version in ipairs { "--http1.1", "--http2" } do
    it("carries requests to the host of its handshake alone, with any certificate " .. version, test(function()
      local wrong = {}
      local certificates = { nobody = "", ann = "--cert %s --key %s", mallory = "--cert %s --key %s" }
      local pairs_of = { ann = ann, mallory = mallory, nobody = ann }
      for _, sni in ipairs { "open.example", "admin.example", "staff.example", "none" } do
        for _, host in ipairs(HOSTS) do
          for who, args in pairs(certificates) do
            local output, code = tls.run("curl -sS -k --max-time 10 --connect-to ::127.0.0.1:%d %s %s -w ' %%{http_code}' " ..
              "-H 'Host: %s' https://%s/", port, version, args:format(pairs_of[who].cert, pairs_of[who].key), host,
              sni == "none" and "127.0.0.1" or sni)
            local found = code ~= 0 and "no handshake" or output:match "%d%d%d$"
            local wanted = expected(sni, host, who)
            local is_right = found == wanted and (found ~= "200" or output:find("this is " .. host:match "^%w+", 1, true))
            if not is_right then
              wrong[#wrong + 1] = ("SNI %s, host %s, %s: %s, not %s (%s)"):format(sni, host, who, found, wanted, output)
            end
          end
        end
      end
      assert.same({}, wrong)
    end, 60000))
  end

  it("does not resume a session of another host, nor so get around a certificate", test(function()
    local function ask(host) return ([[printf 'GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n']]):format(host) end
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      for _, from in ipairs(HOSTS) do
        for _, to in ipairs(HOSTS) do
          local session = set:path "session.pem"
          os.remove(session)
          local first = s_client(("-ign_eof -servername %s %s %s -sess_out %s"):format(from, version, own(ann), session), ask(from))
          assert.truthy(first:find "200 OK", first)
          local again = s_client(("-ign_eof -servername %s %s -sess_in %s"):format(to, version, session), ask(to))
          local is_reused = again:find "Reused, TLS" ~= nil
          assert.equal(from == to, is_reused, ("%s %s %s: %s"):format(version, from, to, again))
          if from ~= to and to == "admin.example" then assert.falsy(again:find "200 OK", again) end
        end
      end
    end
  end, 60000))

  it("takes no early data", test(function()
    local session = set:path "early.pem"
    local request = set:write("early.txt", "POST /early HTTP/1.1\r\nHost: open.example\r\nContent-Length: 0\r\n\r\n")
    local first = s_client(("-servername open.example -tls1_3 -sess_out %s"):format(session), "sleep 0.3")
    assert.truthy(first:find "Max Early Data: 0", first)
    local before = requests()
    for _ = 1, 2 do
      local output = s_client(("-servername open.example -tls1_3 -sess_in %s -early_data %s"):format(session, request), "sleep 0.3")
      assert.truthy(output:find "Reused, TLSv1.3", output)
      assert.falsy(output:find "Early data was accepted", output)
    end
    assert.equal(before, requests())
    assert.truthy(tls.run("curl -sk --resolve open.example:%d:127.0.0.1 https://open.example:%d/", port, port):find "this is open")
    assert.equal(before + 1, requests()) -- it is what counts
  end))
end)
