-- Connections that the kernel has sent to the gateway in place of where they were meant for, in a network namespace of the test's own.
local h = require "test.support.harness"

if not h.has_binary() then
  describe("a transparent listener", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local TELL = [[
local moongate = require "moongate"
moongate.settings { workers = 1, timeouts = { drain = 1 } }
]]

-- A test with a namespace; pending where the machine does not permit one.
local function test(body)
  local own = getfenv(body)
  return h.test(setfenv(function()
    local net, why = h.netns()
    if not net then return own.pending("no network namespace with nftables: " .. why) end
    body(net)
  end, own))
end

-- Servers at the namespace's addresses, which say where they are and who asks.
local function backends(net, port)
  return h.gateway { under = net.prefix, config = TELL .. ([[
moongate.listener { port = %d, address = { "192.0.2.1", "192.0.2.2", "2001:db8::1" } }
moongate.route { path = "/", access = function(exchange)
  local to = exchange.request.destination
  if exchange.request.path == "/slow" then moongate.sleep(0.03) end
  exchange:respond(200, ("%%s:%%d"):format(to.address, to.port))
end }
]]):format(port) }
end

local function front(net, kind, options)
  options = options or {}
  return h.gateway { under = net.prefix, config = TELL .. ([[
moongate.listener { port = %d, address = "%s", transparent = "%s"%s }
moongate.upstream { name = "away", endpoints = { "original:dst" }%s }
moongate.route { path = "/told", access = function(exchange)
  local to = exchange.request.destination
  exchange:respond(200, ("%%s:%%d %%s"):format(to.address, to.port, tostring(exchange.request.proxy)))
end }
moongate.route { path = "/moved", plugins = { { "redirect", path = "/new" } } }
%s
]]):format(options.port or 15001, options.address or "0.0.0.0", kind, options.listener or "", options.upstream or "",
    options.route or 'moongate.route { path = "/", backends = "away" }') }
end

local function redirect(net, family, port, to, rest)
  net:nft(("add table %s t"):format(family))
  net:nft(("add chain %s t out { type nat hook output priority -100; }"):format(family))
  net:nft(("add rule %s t out %s tcp dport %s redirect to :%d"):format(family, rest or "meta skuid 65534", port, to))
end

describe("a listener that connections are redirected to", function()
  it("knows where they were meant for, and an upstream goes there", test(function(net)
    backends(net, 81)
    local gateway = front(net, "redirect")
    redirect(net, "ip", 81, 15001)
    for _ = 1, 2 do
      assert.equal("192.0.2.1:81", net:curl("192.0.2.1:81", "/x"))
      assert.equal("192.0.2.2:81", net:curl("192.0.2.2:81", "/x"))
    end
    assert.equal("192.0.2.2:81 nil", net:curl("192.0.2.2:81", "/told"))
    assert.truthy(net:curl("192.0.2.2:81", "/moved", "-i"):find("ocation: http://192.0.2.2:81/new", 1, true))
    -- links to each are kept and used again
    assert.equal(2, net:metric(gateway, "moongate_upstream_connects_total"))
  end))

  for protocol, settings in pairs { ["HTTP/1.1"] = "", ["HTTP/2"] = ', protocol = "http2"' } do
    it("never takes one destination's link for another's, at the limit of the upstream either: " .. protocol, test(function(net)
      backends(net, 81)
      front(net, "redirect", { upstream = settings .. ", limits = { connections = 1, pending_timeout = 5 }" })
      redirect(net, "ip", 81, 15001)
      local one = "for i in 1 2 3 4 5 6; do setpriv --reuid=65534 --clear-groups " ..
        "curl -sS --max-time 5 http://192.0.2.%d:81/slow; echo; done"
      local output = net:run("sh -c '(%s) & (%s) & (%s) & wait'", one:format(1), one:format(2), one:format(1))
      local _, first = output:gsub("192%.0%.2%.1:81", "")
      local _, second = output:gsub("192%.0%.2%.2:81", "")
      assert.same({ 12, 6 }, { first, second }, output)
      assert.equal("192.0.2.1:81", net:curl("192.0.2.1:81", "/x"))
    end))
  end

  it("may be of IPv6, and of both at once", test(function(net)
    backends(net, 81)
    front(net, "redirect", { address = "::" })
    redirect(net, "ip6", 81, 15001)
    redirect(net, "ip", 81, 15001)
    assert.equal("2001:db8::1:81", net:curl("[2001:db8::1]:81", "/x"))
    assert.equal("2001:db8::1:81 nil", net:curl("[2001:db8::1]:81", "/told"))
    assert.equal("192.0.2.1:81", net:curl("192.0.2.1:81", "/x"))
    assert.equal("192.0.2.1:81 nil", net:curl("192.0.2.1:81", "/told"))
  end))

  it("has no destination for those that came straight to it", test(function(net)
    local gateway = front(net, "redirect", { upstream = ", limits = { connections = 1 }" })
    assert.truthy(net:curl("192.0.2.1:15001", "/x"):find "no original destination")
    assert.equal("503", net:curl("192.0.2.1:15001", "/x", "-o /dev/null -w '%{http_code}'"))
    redirect(net, "ip", 81, 15001)
    assert.truthy(net:curl("192.0.2.1:15001", "/x"):find "no original destination") -- though its connections are tracked now
    assert.equal("192.0.2.1:15001 nil", net:curl("192.0.2.1:15001", "/told"))
    assert.equal(0, net:metric(gateway, "moongate_upstream_connections_live"))
  end))

  it("refuses what is sent back to it: the rules do not spare the gateway", test(function(net)
    backends(net, 81)
    local gateway = front(net, "redirect")
    redirect(net, "ip", 81, 15001, "")
    assert.equal("502", net:curl("192.0.2.1:81", "/x", "-o /dev/null -w '%{http_code}'"))
    assert.equal("192.0.2.1:81 nil", net:curl("192.0.2.1:81", "/told"))
    local looped = net:metric(gateway, 'moongate_connections_refused_total{reason="loop"}')
    assert.is_true(looped >= 1 and looped <= 3, tostring(looped)) -- each attempt once, not one another
  end))

  it("says in preread where connections were meant for", test(function(net)
    backends(net, 81)
    local gateway = h.gateway { under = net.prefix, config = TELL .. [[
moongate.listener { port = 15001, protocol = "tcp", name = "all", transparent = "redirect" }
moongate.upstream { name = "away", endpoints = { "original:dst" } }
moongate.upstream { name = "own", endpoints = { "192.0.2.1:81" } }
moongate.route { listeners = { "all" }, backends = "away", preread = function(connection)
  local to = connection.destination
  if to.port == 83 then return false end
  if to.address == "192.0.2.2" and to.port == 82 then return "own" end
end }
]] }
    redirect(net, "ip", "{ 81, 82, 83 }", 15001)
    assert.equal("192.0.2.2:81", net:curl("192.0.2.2:81", "/x"))
    assert.equal("192.0.2.1:81", net:curl("192.0.2.2:82", "/x"))
    assert.truthy(net:curl("192.0.2.2:83", "/x"):find "Empty reply")
    assert.equal(1, net:metric(gateway, 'moongate_connections_refused_total{reason="preread"}'))
  end))

  it("may carry TCP, and tells the backend in a PROXY header where the client meant to go", test(function(net)
    backends(net, 81)
    local gateway = h.gateway { under = net.prefix, config = TELL .. [[
moongate.listener { port = 15001, protocol = "tcp", name = "all", transparent = "redirect" }
moongate.upstream { name = "away", endpoints = { "original:dst" } }
moongate.route { listeners = { "all" }, backends = "away" }
]] }
    redirect(net, "ip", 81, 15001)
    assert.equal("192.0.2.2:81", net:curl("192.0.2.2:81", "/x"))
    assert.equal(1, net:metric(gateway, "moongate_upstream_connects_total"))
    gateway:stop()
    h.gateway { under = net.prefix, config = TELL .. [[
moongate.listener { port = 15001, transparent = "redirect", name = "front" }
moongate.upstream { name = "b", endpoints = { "127.0.0.1:84" }, proxy_protocol = "v2" }
moongate.route { path = "/", listeners = { "front" }, backends = "b" }
moongate.listener { port = 84, proxy_protocol = { trusted = { "127.0.0.1" } } , name = "told" }
moongate.route { name = "tell", path = "/", listeners = { "told" }, access = function(exchange)
  local to = exchange.request.destination
  exchange:respond(200, ("%s:%d"):format(to.address, to.port))
end }
]] }
    assert.equal("192.0.2.2:81", net:curl("192.0.2.2:81", "/x"))
  end))
end)

-- Servers at port 81 of every address that greet at once, at 82 of those that wait.
local SERVERS = [[
import socket, threading
def serve(port, greets):
    s = socket.create_server(("0.0.0.0", port))
    while True:
        c, _ = s.accept()
        if greets: c.sendall(b"220 mail\r\n")
        threading.Thread(target=lambda c: (c.recv(100) and c.sendall(b"heard\r\n"), c.close()), args=(c,)).start()
threading.Thread(target=serve, args=(82, False)).start()
print("READY", flush=True)
serve(81, True)
]]

-- Connects to each of its arguments; says what it is greeted with and whether it had to wait.
local CLIENT = [[
import socket, sys, time
for place in sys.argv[2:]:
    address, port = place.split(":")
    c = socket.create_connection((address, int(port)))
    start = time.monotonic()
    if port == "82":
        time.sleep(0.3 * float(sys.argv[1]))
        c.sendall(b"HELO\r\n")
    first = c.recv(100).decode().strip()
    wait = time.monotonic() - start
    print(place, first, "long" if wait >= 0.09 else "short", flush=True)
    c.close()
]]

describe("a listener that detects and that connections are redirected to", function()
  it("remembers by destination who spoke first", test(function(net)
    local gateway = h.gateway { under = net.prefix, config = TELL .. [[
moongate.listener { port = 15001, transparent = "redirect", detect = true, name = "web" }
moongate.listener { port = 15001, transparent = "redirect", detect = true, name = "rest", protocol = "tcp" }
moongate.upstream { name = "away", endpoints = { "original:dst" } }
moongate.route { listeners = { "web" }, path = "/", backends = "away" }
moongate.route { listeners = { "rest" }, backends = "away" }
]] }
    redirect(net, "ip", "{ 81, 82 }", 15001)
    local function python(text) return (h.write_file(text)) end
    local servers = h.spawn("/bin/sh", { args = { "-c", ("exec ip netns exec %s /usr/bin/python3 %s"):format(net.name, python(SERVERS)) } })
    servers:wait_output "READY"
    local client = python(CLIENT)
    os.execute(("chmod 644 %s; chmod 755 $(dirname %s)"):format(client, client))
    local output = net:run("setpriv --reuid=65534 --clear-groups /usr/bin/python3 %s %d %s", client, h.loop.scale, table.concat({
      "192.0.2.1:81", "192.0.2.1:81", "192.0.2.2:81", "192.0.2.1:82", "192.0.2.1:81", "192.0.2.2:81" }, " "))
    assert.equal(table.concat({ "192.0.2.1:81 220 mail long", "192.0.2.1:81 220 mail short", "192.0.2.2:81 220 mail long",
      "192.0.2.1:82 heard long", "192.0.2.1:81 220 mail short", "192.0.2.2:81 220 mail short" }, "\n"), (output:gsub("%s+$", "")))
    assert.equal(6, net:metric(gateway, 'moongate_connections_detected_total{protocol="silent"}'))
    servers:signal "sigkill"
    servers:wait_exit()
  end))
end)

describe("a listener of TPROXY", function()
  local function divert(net, port, to)
    net:ip "rule add fwmark 1 lookup 100"
    net:ip "route add local 0.0.0.0/0 dev lo table 100"
    net:ip "route add 198.51.100.0/24 dev lo"
    net:nft "add table ip m"
    net:nft "add chain ip m out { type route hook output priority -150; }"
    net:nft(("add rule ip m out meta skuid 65534 tcp dport %d meta mark set 1"):format(port))
    net:nft "add chain ip m pre { type filter hook prerouting priority -150; }"
    net:nft(("add rule ip m pre meta mark 1 tcp dport %d tproxy to :%d accept"):format(port, to))
  end

  it("knows where connections were meant for, too", test(function(net)
    backends(net, 81)
    local gateway = front(net, "tproxy", { port = 15002 })
    divert(net, 81, 15002)
    assert.equal("192.0.2.1:81", net:curl("192.0.2.1:81", "/x"))
    assert.equal("192.0.2.2:81", net:curl("192.0.2.2:81", "/x"))
    assert.equal("192.0.2.2:81 nil", net:curl("192.0.2.2:81", "/told"))
    assert.equal("198.51.100.7:81 nil", net:curl("198.51.100.7:81", "/told")) -- nobody's address
    assert.truthy(net:curl("192.0.2.1:15002", "/x"):find "no original destination")
    assert.equal(0, net:metric(gateway, 'moongate_connections_refused_total{reason="loop"}'))
  end))

  it("may become one by a reload, and is refused without the right to it", test(function(net)
    backends(net, 81)
    local gateway = front(net, "redirect", { port = 15002 })
    divert(net, 81, 15002)
    local text = assert(io.open(gateway.path)):read "*a"
    gateway:rewrite((text:gsub('transparent = "redirect"', 'transparent = "tproxy"')))
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("192.0.2.1:81", net:curl("192.0.2.1:81", "/x"))
    gateway:stop()
    local path = h.write_file((text:gsub('transparent = "redirect"', 'transparent = "tproxy"')))
    local drop = "-net_admin,-net_raw"
    local output = net:run("timeout 5 setpriv --bounding-set=%s --inh-caps=%s %s run %s --control %s.sock", drop, drop,
      os.getenv "MOONGATE_BIN", path, path)
    assert.truthy(output:find('transparent: "tproxy" is not permitted: .*it needs CAP_NET_ADMIN or CAP_NET_RAW'), output)
  end))
end)

describe("the check of transparent listeners and original destinations", function()
  it("names what is wrong", h.test(function()
    for text, wanted in pairs {
      ['m.listener { port = 1, transparent = "nat" }'] = 'transparent: found "nat"',
      ['m.listener { port = 1, transparent = "redirect", proxy_protocol = { trusted = { "::1" } } }'] =
        'transparent: has no meaning with "proxy_protocol"',
      ['m.listener { port = 1, protocol = "udp", name = "u", transparent = "redirect" }'] = 'transparent: has no meaning with "udp"',
      ['m.listener { port = 1, hostname = "a.b", transparent = "redirect" }\nm.listener { port = 1 }'] =
        "transparent: .-has another on this port",
      ['m.listener { port = 1 }\nm.upstream { name = "o", endpoints = { "original:dst", "127.0.0.1:1" } }'] =
        'endpoints%[1%]: not an address: "original:dst".-stand alone',
      ['m.listener { port = 1 }\nm.upstream { name = "o", endpoints = { "original:dst" }, health = { path = "/" } }'] =
        'lua:4: upstream "o": health: cannot be beside "original:dst".-remove it',
    } do
      local path = h.write_file('local m = require "moongate"\nm.route { path = "/", plugins = { { "direct-response" } } }\n' .. text)
      local result = h.exec { "check", path }
      assert.equal(1, result.code, text)
      assert.truthy(result.stderr:find(wanted), result.stderr)
    end
  end))

  it("explains them", h.test(function()
    local path = h.write_file [[
local m = require "moongate"
m.listener { port = 8080, transparent = "redirect" }
m.upstream { name = "o", endpoints = { "original:dst" } }
m.route { path = "/", backends = "o" }
]]
    local result = h.exec { "explain", "GET", "http://a.example:8080/", "--config", path }
    assert.equal(0, result.code, result.stderr)
    assert.truthy(result.stdout:find "endpoints%s+original:dst", result.stdout)
  end))
end)
