-- Built-in plugins, as data; test/spec/plugins_spec.lua plays each row through the real binary.
--
-- A case: { name, plugins, ... }
--   path      of the route; "/" unless given. matches: instead backends = false: the route has none
--   request   { method, target, fields (lines), body, raw (all of it, instead) }; GET / unless given
--   backend   fields (lines) that the backend's answer carries
--   status    200 unless given
--   head      lines of the head that the backend must get after the request line and X-Forwarded-*, exactly and in order
--   line      its request line
--   fields    header values that the client must see; false: must not see
--   body      of the response
--   reaches   false: the backend must see nothing
local cases = {}

local function add(name, case)
  case.name = name
  cases[#cases + 1] = case
end

-- ---- request-headers

local function request_headers(name, plugin, fields, head, more)
  plugin[1] = "request-headers"
  local case = { plugins = { plugin }, request = { fields = fields }, head = head }
  for key, value in pairs(more or {}) do case[key] = value end
  add("request-headers: " .. name, case)
end

request_headers("set adds what is absent", { set = { ["x-via"] = "moongate" } }, "", { "x-via: moongate" })
request_headers("set replaces all, in any case", { set = { ["X-A"] = "new" } }, "x-a: 1\r\nx-b: 2\r\nX-A: 3\r\n",
  { "X-A: new", "x-b: 2" })
request_headers("set with a list sets several", { set = { ["x-a"] = { "1", "2" } } }, "X-A: 0\r\n", { "x-a: 1", "x-a: 2" })
request_headers("add keeps what is there", { add = { ["x-a"] = "2" } }, "X-A: 1\r\n", { "X-A: 1", "x-a: 2" })
request_headers("add with a list", { add = { ["x-a"] = { "2", "3" } } }, "", { "x-a: 2", "x-a: 3" })
request_headers("remove takes all, in any case", { remove = { "x-A", "X-B" } }, "X-a: 1\r\nx-b: 2\r\nX-C: 3\r\nX-A: 4\r\n",
  { "X-C: 3" })
request_headers("all three", { set = { ["x-s"] = "s" }, add = { ["x-a"] = "a" }, remove = { "x-r" } },
  "X-R: 1\r\nX-S: 1\r\nX-A: 1\r\n", { "x-s: s", "X-A: 1", "x-a: a" })
request_headers("an empty value", { set = { ["x-a"] = "" } }, "", { "x-a: " })
request_headers("blanks around a value go", { set = { ["x-a"] = " \tb c\t " } }, "", { "x-a: b c" })
request_headers("cannot be taken back by the client's Connection", { set = { ["x-user"] = "gateway" } },
  "X-User: client\r\nConnection: X-User, close\r\n", { "x-user: gateway" })
request_headers("may edit what the gateway itself adds", { set = { ["x-forwarded-proto"] = "https" }, remove = { "x-forwarded-host" } },
  "", {}, { forwarded = { "X-Forwarded-For: 127.0.0.1", "x-forwarded-proto: https" } })
request_headers("before the body, which stays whole", { set = { ["x-a"] = "b" } }, nil, { "x-a: b", "Content-Length: 4" },
  { request = { method = "POST", fields = "Content-Length: 4\r\n", body = "body" } })
add("request-headers: twice, in list order", {
  plugins = { { "request-headers", set = { ["x-a"] = "1" } }, { "request-headers", remove = { "x-a" }, set = { ["x-b"] = "2" } } },
  head = { "x-b: 2" },
})

-- ---- response-headers

local function response_headers(name, plugin, backend, fields, more)
  plugin[1] = "response-headers"
  local case = { plugins = { plugin }, backend = backend, fields = fields }
  for key, value in pairs(more or {}) do case[key] = value end
  add("response-headers: " .. name, case)
end

response_headers("set, add, remove", { set = { ["x-s"] = "s" }, add = { ["x-a"] = "2" }, remove = { "Server" } },
  "server: b\r\nX-S: 1\r\nx-s: 2\r\nX-A: 1\r\n", { server = false, ["x-s"] = "s", ["x-a"] = "1, 2" })
response_headers("several cookies", { add = { ["set-cookie"] = { "a=1", "b=2" } } }, "Set-Cookie: c=3\r\n",
  { ["set-cookie"] = "c=3, a=1, b=2" })
response_headers("cannot be taken back by the backend's Connection", { set = { ["x-a"] = "gateway" } },
  "Connection: x-a\r\n", { ["x-a"] = "gateway", connection = false })
response_headers("replaces Date", { set = { date = "Thu, 01 Jan 1970 00:00:00 GMT" } }, "Date: x\r\n",
  { date = "Thu, 01 Jan 1970 00:00:00 GMT" })
response_headers("on the gateway's own errors", { set = { ["x-a"] = "b" } }, nil, { ["x-a"] = "b" },
  { backends = "dead", status = 502, reaches = false })
add("response-headers: on answers of other plugins", {
  plugins = { { "response-headers", set = { ["x-a"] = "b" }, remove = { "x-c" } },
    { "direct-response", status = 418, headers = { ["x-c"] = "c", ["x-d"] = "d" } } },
  backends = false, status = 418, reaches = false, fields = { ["x-a"] = "b", ["x-c"] = false, ["x-d"] = "d" },
})

-- ---- url-rewrite: the table of HTTPPathModifier (reference: Gateway API, HTTPURLRewriteFilter)

local function prefix_row(request, matched, replacement, result)
  add(("url-rewrite: %s, %s -> %q"):format(request, matched, replacement), {
    path = matched, plugins = { { "url-rewrite", path = { prefix = replacement } } },
    request = { target = request }, line = "GET " .. result .. " HTTP/1.1",
  })
  local path, query = result:match "^([^?]*)(.*)$"
  add(("redirect: %s, %s -> %q"):format(request, matched, replacement), {
    path = matched, plugins = { { "redirect", hostname = "to.example", path = { prefix = replacement }, port = 80 } },
    request = { target = request }, backends = false, reaches = false, status = 302,
    fields = { location = "http://to.example" .. path .. query, ["content-length"] = "0" },
  })
end

prefix_row("/foo/bar", "/foo", "/xyz", "/xyz/bar")
prefix_row("/foo/bar", "/foo", "/xyz/", "/xyz/bar")
prefix_row("/foo/bar", "/foo/", "/xyz", "/xyz/bar")
prefix_row("/foo/bar", "/foo/", "/xyz/", "/xyz/bar")
prefix_row("/foo", "/foo", "/xyz", "/xyz")
prefix_row("/foo/", "/foo", "/xyz", "/xyz/")
prefix_row("/foo/bar", "/foo", "", "/bar")
prefix_row("/foo/", "/foo", "", "/")
prefix_row("/foo", "/foo", "", "/")
prefix_row("/foo/", "/foo", "/", "/")
prefix_row("/foo", "/foo", "/", "/")
prefix_row("/foo/bar?a=1&b=/foo", "/foo", "/xyz", "/xyz/bar?a=1&b=/foo")
prefix_row("/foo?", "/foo", "/xyz", "/xyz?")
prefix_row("/a", "/", "/v1", "/v1/a")
prefix_row("/", "/", "/v1", "/v1/")
prefix_row("/foo//bar", "/foo", "", "//bar")
prefix_row("/foo/b%20r/%C3%A9", "/foo", "/x", "/x/b%20r/%C3%A9")
prefix_row("/f%6fo/./a/../bar", "/foo", "/xyz", "/xyz/bar")
prefix_row("/foo/%0d%0aSet-Cookie:a=b", "/foo", "/xyz", "/xyz/%0D%0ASet-Cookie:a=b")
prefix_row("/foo/a?q=%0d%0aX:y", "/foo", "/xyz", "/xyz/a?q=%0d%0aX:y")

local function rewrite(name, plugin, target, line, more)
  plugin[1] = "url-rewrite"
  local case = { plugins = { plugin }, request = { target = target }, line = line }
  for key, value in pairs(more or {}) do case[key] = value end
  add("url-rewrite: " .. name, case)
end

rewrite("the whole path", { path = "/new" }, "/old/deep?q=1", "GET /new?q=1 HTTP/1.1")
rewrite("host only", { hostname = "users.internal" }, "/a?b", "GET /a?b HTTP/1.1",
  { host = "users.internal", forwarded_host = "test.example" })
rewrite("host with a port, and path", { hostname = "users.internal:81", path = "/x" }, "/a", "GET /x HTTP/1.1",
  { host = "users.internal:81", forwarded_host = "test.example" })
rewrite("the host of an absolute target", { hostname = "b.example", path = { prefix = "/z" } }, nil, "GET /z/p?q HTTP/1.1",
  { request = { raw = "GET http://a.example:81/p?q HTTP/1.1\r\nHost: a.example:81\r\n\r\n" },
    host = "b.example", forwarded_host = "a.example:81" })
rewrite("a host for a client that named none", { hostname = "b.example" }, nil, "GET / HTTP/1.1",
  { request = { raw = "GET / HTTP/1.0\r\n\r\n" }, host = "b.example" })
add("url-rewrite: the prefix of one match", {
  matches = { { path = "/a", methods = { "GET" } } }, plugins = { { "url-rewrite", path = { prefix = "/z" } } },
  request = { target = "/a/x" }, line = "GET /z/x HTTP/1.1",
})
add("url-rewrite: the one prefix of several matches", {
  matches = { { path = "/a", methods = { "POST" } }, { path = "/a/", methods = { "GET" } } },
  plugins = { { "url-rewrite", path = { prefix = "/z" } } }, request = { target = "/a/x" }, line = "GET /z/x HTTP/1.1",
})
add("url-rewrite: two of them, one after the other", {
  path = "/a", plugins = { { "url-rewrite", path = { prefix = "/b" } }, { "url-rewrite", path = { prefix = "/c/d" } } },
  request = { target = "/a/x" }, line = "GET /c/d/x HTTP/1.1",
})

-- ---- redirect: ports (Gateway API, HTTPRequestRedirectFilter.port). PORT stands for the listener's.

local function redirect(name, plugin, target, location, more)
  plugin[1] = "redirect"
  local case = { plugins = { plugin }, request = { target = target }, backends = false, reaches = false,
    status = 302, fields = { location = location, ["content-length"] = "0", ["content-type"] = false } }
  for key, value in pairs(more or {}) do case[key] = value end
  add("redirect: " .. name, case)
end

redirect("the listener's port is kept", { hostname = "to.example" }, "/a?b=c", "http://to.example:PORT/a?b=c")
redirect("the scheme's port is not written", { scheme = "https" }, "/a", "https://test.example/a")
redirect("the same for http", { scheme = "http", hostname = "to.example" }, "/a", "http://to.example/a")
redirect("an explicit port", { port = 8443 }, "/a", "http://test.example:8443/a")
redirect("an explicit port with a scheme", { scheme = "https", port = 8443 }, "/a", "https://test.example:8443/a")
redirect("443 of https is not written", { scheme = "https", port = 443 }, "/a", "https://test.example/a")
redirect("80 of http is not written", { hostname = "to.example", port = 80 }, "/a", "http://to.example/a")
redirect("443 of http is", { scheme = "http", port = 443 }, "/a", "http://test.example:443/a")
redirect("80 of https is", { scheme = "https", port = 80 }, "/a", "https://test.example:80/a")
redirect("the port in Host is not the listener's", { path = "/n" }, nil, "http://test.example:PORT/n",
  { request = { raw = "GET /a HTTP/1.1\r\nHost: test.example:81\r\n\r\n" } })
redirect("IPv6 hosts keep their brackets", { scheme = "https" }, nil, "https://[::1]/a",
  { request = { raw = "GET /a HTTP/1.1\r\nHost: [::1]:81\r\n\r\n" } })
redirect("without Host, the address that was reached", { path = "/n" }, nil, "http://127.0.0.1:PORT/n",
  { request = { raw = "GET /a HTTP/1.0\r\n\r\n" } })
redirect("the whole path, query kept", { scheme = "https", path = "/new" }, "/old/x?q=1", "https://test.example/new?q=1")
redirect("a canonical path", { scheme = "https" }, "/a/../%62?%20%22", "https://test.example/b?%20%22")
redirect("two slashes do not become a host", { scheme = "https" }, "//evil.example/x", "https://test.example//evil.example/x")
redirect("OPTIONS * as well", { scheme = "https" }, nil, "https://test.example/",
  { request = { raw = "OPTIONS * HTTP/1.1\r\nHost: test.example\r\n\r\n" } })
redirect("HEAD", { scheme = "https" }, nil, "https://test.example/a", { request = { method = "HEAD", target = "/a" } })
for _, status in ipairs { 301, 302, 303, 307, 308 } do
  redirect("status " .. status, { scheme = "https", status = status }, "/", "https://test.example/", { status = status })
end
redirect("with backends, which get nothing", { scheme = "https" }, "/", "https://test.example/", { backends = "backend" })

-- ---- direct-response

local function direct(name, plugin, more)
  plugin[1] = "direct-response"
  local case = { plugins = { plugin }, backends = false, reaches = false }
  for key, value in pairs(more or {}) do case[key] = value end
  add("direct-response: " .. name, case)
end

direct("nothing but a status", {}, { status = 200, body = "", fields = { ["content-length"] = "0", ["content-type"] = false } })
direct("status and text", { status = 503, body = "closed\n" },
  { status = 503, body = "closed\n", fields = { ["content-type"] = "text/plain; charset=utf-8" } })
direct("content type", { body = "<p>", content_type = "text/html" }, { body = "<p>", fields = { ["content-type"] = "text/html" } })
direct("headers", { status = 401, headers = { ["WWW-Authenticate"] = "Basic", ["x-a"] = { "1", "2" } } },
  { status = 401, fields = { ["www-authenticate"] = "Basic", ["x-a"] = "1, 2" } })
direct("204", { status = 204 }, { status = 204, fields = { ["content-length"] = false } })
direct("HEAD", { body = "12345" }, { request = { method = "HEAD" }, body = "", fields = { ["content-length"] = "5" } })
direct("a long body", { body = ("x"):rep(200000) }, { body = ("x"):rep(200000) })
add("direct-response: rewrite plugins before it, later ones of access not", {
  plugins = { { "direct-response", status = 200, body = "first" }, { "redirect", scheme = "https" } },
  backends = false, reaches = false, body = "first", fields = { location = false },
})

-- ---- cors (Gateway API, HTTPCORSFilter)

local NONE = { ["access-control-allow-origin"] = false, ["access-control-allow-credentials"] = false,
  ["access-control-expose-headers"] = false, ["access-control-allow-methods"] = false,
  ["access-control-allow-headers"] = false, ["access-control-max-age"] = false, vary = "Origin" }

local function with(fields)
  local out = {}
  for key, value in pairs(NONE) do out[key] = value end
  for key, value in pairs(fields) do
    if key == "origin" then key = "allow-origin" end
    out[key == "vary" and key or "access-control-" .. key] = value
  end
  return out
end

local function actual(name, plugin, origin, fields, more)
  plugin[1] = "cors"
  local case = { plugins = { plugin }, fields = with(fields),
    request = { fields = origin and "Origin: " .. origin .. "\r\n" or "" } }
  for key, value in pairs(more or {}) do case[key] = value end
  add("cors: " .. name, case)
end

local function preflight(name, plugin, fields, answer, more)
  plugin[1] = "cors"
  local case = { plugins = { plugin }, fields = with(answer), status = 204, reaches = false,
    request = { method = "OPTIONS", target = "/x", fields = fields } }
  for key, value in pairs(more or {}) do case[key] = value end
  add("cors preflight: " .. name, case)
end

local WWW = "https://www.example.com"
actual("no Origin", { origins = { WWW } }, nil, {})
actual("an allowed origin", { origins = { "https://a.example", WWW } }, WWW, { origin = WWW })
actual("another origin", { origins = { WWW } }, "https://www.example.org", {})
actual("another scheme", { origins = { WWW } }, "http://www.example.com", {})
actual("another port", { origins = { WWW } }, WWW .. ":8443", {})
actual("the default port of https", { origins = { WWW .. ":443" } }, WWW, { origin = WWW })
actual("the default port of http", { origins = { "http://a.example" } }, "http://a.example:80", { origin = "http://a.example:80" })
actual("a port", { origins = { "http://localhost:3000" } }, "http://localhost:3000", { origin = "http://localhost:3000" })
actual("a host in capitals", { origins = { "https://WWW.example.com" } }, WWW, { origin = WWW })
actual("an app's scheme", { origins = { "capacitor://localhost" } }, "capacitor://localhost", { origin = "capacitor://localhost" })
actual("a wildcard host", { origins = { "https://*.bar.com" } }, "https://a.bar.com", { origin = "https://a.bar.com" })
actual("a wildcard host, deeper", { origins = { "https://*.bar.com" } }, "https://a.b.bar.com", { origin = "https://a.b.bar.com" })
actual("a wildcard host, not the domain itself", { origins = { "https://*.bar.com" } }, "https://bar.com", {})
actual("a wildcard host, not a longer name", { origins = { "https://*.bar.com" } }, "https://evilbar.com", {})
actual("a wildcard host, not a longer end", { origins = { "https://*.bar.com" } }, "https://a.bar.com.evil.org", {})
actual("a wildcard host, its port", { origins = { "https://*.bar.com:8443" } }, "https://a.bar.com", {})
actual("any host of a scheme", { origins = { "https://*" } }, "https://x.org", { origin = "https://x.org" })
actual("any host of a scheme, not of another", { origins = { "https://*" } }, "http://x.org", {})
actual("no origin at all", { origins = { "https://*" } }, "https://x.org/path", {})
actual("null", { origins = { WWW } }, "null", {})
actual("null, where all may", { origins = { "*" } }, "null", { origin = "*" })
actual("all", { origins = { "*" } }, WWW, { origin = "*" })
actual("all, with credentials: never the star", { origins = { "*" }, credentials = true }, WWW,
  { origin = WWW, ["allow-credentials"] = "true" })
actual("credentials", { origins = { WWW }, credentials = true }, WWW, { origin = WWW, ["allow-credentials"] = "true" })
actual("credentials, another origin", { origins = { WWW }, credentials = true }, "https://x.org", {})
actual("credentials false says nothing", { origins = { WWW }, credentials = false }, WWW, { origin = WWW })
actual("exposed headers", { origins = { WWW }, expose_headers = { "X-A", "X-B" } }, WWW,
  { origin = WWW, ["expose-headers"] = "X-A, X-B" })
actual("all headers exposed", { origins = { WWW }, expose_headers = { "*" } }, WWW, { origin = WWW, ["expose-headers"] = "*" })
actual("methods and headers are for preflights", { origins = { WWW }, methods = { "PUT" }, headers = { "X-A" } }, WWW, { origin = WWW })
local UPSTREAM = "Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n" ..
  "Access-Control-Expose-Headers: X-Z\r\nAccess-Control-Allow-Methods: TRACE\r\n"
actual("the upstream's words are replaced", { origins = { WWW } }, WWW, { origin = WWW }, { backend = UPSTREAM })
actual("the upstream's words go for others", { origins = { WWW } }, "https://x.org", {}, { backend = UPSTREAM })
actual("the upstream's words go without Origin", { origins = { WWW } }, nil, {}, { backend = UPSTREAM })
actual("Vary is kept", { origins = { WWW } }, WWW, { origin = WWW, vary = "Accept, Origin" }, { backend = "Vary: Accept\r\n" })
actual("Vary has it already", { origins = { WWW } }, WWW, { origin = WWW, vary = "accept, origin" },
  { backend = "Vary: accept, origin\r\n" })
actual("on the gateway's own errors", { origins = { WWW } }, WWW, { origin = WWW },
  { backends = "dead", status = 502, reaches = false })
actual("OPTIONS without a requested method is forwarded", { origins = { WWW } }, WWW, { origin = WWW },
  { request = { method = "OPTIONS", fields = "Origin: " .. WWW .. "\r\n" }, line = "OPTIONS / HTTP/1.1" })
actual("OPTIONS without Origin is forwarded", { origins = { WWW } }, nil, {},
  { request = { method = "OPTIONS", fields = "Access-Control-Request-Method: PUT\r\n" }, line = "OPTIONS / HTTP/1.1" })
add("cors: the origin as it came, though another plugin takes it away", {
  plugins = { { "cors", origins = { WWW } }, { "request-headers", remove = { "origin" } } },
  request = { fields = "Origin: " .. WWW .. "\r\n" }, fields = with { origin = WWW }, head = {},
})
add("cors: on redirects", {
  plugins = { { "redirect", scheme = "https" }, { "cors", origins = { WWW } } }, backends = false, reaches = false,
  request = { fields = "Origin: " .. WWW .. "\r\n" }, status = 302, fields = with { origin = WWW },
})

local ASK = "Origin: " .. WWW .. "\r\nAccess-Control-Request-Method: PUT\r\n"
preflight("the least", { origins = { WWW } }, ASK, { origin = WWW, ["max-age"] = "5" })
preflight("all of it", { origins = { WWW }, methods = { "GET", "PUT" }, headers = { "X-A", "content-type" },
  expose_headers = { "X-B" }, credentials = true, max_age = 600 }, ASK .. "Access-Control-Request-Headers: x-a\r\n",
  { origin = WWW, ["allow-methods"] = "GET, PUT", ["allow-headers"] = "X-A, content-type", ["expose-headers"] = "X-B",
    ["allow-credentials"] = "true", ["max-age"] = "600" })
preflight("a method that is not allowed gets the list", { origins = { WWW }, methods = { "GET" } }, ASK,
  { origin = WWW, ["allow-methods"] = "GET", ["max-age"] = "5" })
preflight("another origin", { origins = { WWW }, methods = { "PUT" } },
  "Origin: https://x.org\r\nAccess-Control-Request-Method: PUT\r\n", {})
preflight("all of everything", { origins = { "*" }, methods = { "*" }, headers = { "*" } },
  ASK .. "Access-Control-Request-Headers: x-a\r\n",
  { origin = "*", ["allow-methods"] = "*", ["allow-headers"] = "*", ["max-age"] = "5" })
preflight("all of everything, with credentials", { origins = { "*" }, methods = { "*" }, headers = { "*" }, credentials = true },
  ASK .. "Access-Control-Request-Headers: x-a,x-b\r\n",
  { origin = WWW, ["allow-methods"] = "PUT", ["allow-headers"] = "x-a,x-b", ["allow-credentials"] = "true", ["max-age"] = "5" })
preflight("with credentials, no headers asked for", { origins = { WWW }, headers = { "*" }, credentials = true }, ASK,
  { origin = WWW, ["allow-credentials"] = "true", ["max-age"] = "5" })
preflight("before plugins of the access phase", { origins = { WWW } }, ASK, { origin = WWW, ["max-age"] = "5" },
  { plugins = { { "direct-response", status = 401 }, { "cors", origins = { WWW } } }, backends = false })
preflight("response-headers apply to it", { origins = { WWW } }, ASK, { origin = WWW, ["max-age"] = "9" },
  { plugins = { { "cors", origins = { WWW } }, { "response-headers", set = { ["access-control-max-age"] = "9" } } } })

return cases
