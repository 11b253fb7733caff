-- Which of several routes takes a request: test/spec/routing_spec.lua gives each set to a gateway of its own.
--
-- A set: { name, routes = { ... as in moongate.route, without backends }, requests = { { request, wanted }, ... } }
--   request  "METHOD HOST TARGET", then one header field a line; HOST "-": HTTP/1.0 without Host
--   wanted   index of the route that takes it, or a status
return {
  {
    name = "a prefix matches whole segments, the longest wins",
    routes = { { path = "/" }, { path = "/users" }, { path = "/users/admin/" }, { path = "/users/admin/x" } },
    requests = {
      { "GET h.example /", 1 }, { "GET h.example /usersx", 1 }, { "GET h.example /Users", 1 },
      { "GET h.example /users", 2 }, { "GET h.example /users/", 2 }, { "GET h.example /users?x=/admin", 2 },
      { "GET h.example /users//admin", 2 }, { "GET h.example /users/administrator", 2 },
      { "GET h.example /users/admin", 3 }, { "GET h.example /users/admin/", 3 }, { "GET h.example /users/admin/y", 3 },
      { "GET h.example /users/admin/x/y", 4 },
    },
  },
  {
    name = "paths are matched in normal form",
    routes = { { path = "/" }, { path = "/admin" }, { path = { exact = "/a/b" } } },
    requests = {
      { "GET h.example /x/../admin", 2 }, { "GET h.example /%61dmin", 2 }, { "GET h.example /./admin/", 2 },
      { "GET h.example /admin/../y", 1 }, { "GET h.example /a/./b", 3 }, { "GET h.example /a/%62", 3 },
      { "GET h.example /a//b", 1 }, { "GET h.example /a%2fb", 400 }, { "GET h.example /%2561dmin", 1 },
      { "GET h.example http://h.example/admin", 2 },
    },
  },
  {
    name = "an exact path beats a regex, a regex beats a prefix",
    routes = {
      { path = "/a/b/c" }, { path = { regex = "/a/.*" } }, { path = { exact = "/a/b" } }, { path = { regex = "/v[0-9]+" } },
      { path = { exact = "/a/" }, methods = { "PUT" } },
    },
    requests = {
      { "GET h.example /a/b", 3 }, { "GET h.example /a/b/", 2 }, { "GET h.example /a/b/c", 2 }, { "GET h.example /a", 404 },
      { "GET h.example /v12", 4 }, { "GET h.example /v12/", 404 }, { "GET h.example /xv1", 404 },
      { "PUT h.example /a/", 5 }, { "GET h.example /a/", 2 },
    },
  },
  {
    name = "hosts: exact, then the longest wildcard, then none",
    routes = {
      { name = "any" },
      { name = "org", hosts = { "*.example.org" } },
      { name = "deep", hosts = { "*.b.example.org" } },
      { name = "exact", hosts = { "a.b.example.org", "EXAMPLE.net" } },
    },
    requests = {
      { "GET a.b.example.org /", 4 }, { "GET A.B.EXAMPLE.ORG:8080 /", 4 }, { "GET a.b.example.org. /", 4 },
      { "GET a.b.example.org.:80 /", 4 }, { "GET x.a.b.example.org /", 3 }, { "GET y.b.example.org /", 3 },
      { "GET b.example.org /", 2 }, { "GET y.x.example.org /", 2 }, { "GET example.org /", 1 },
      { "GET badexample.org /", 1 }, { "GET example.net /", 4 }, { "GET www.example.net /", 1 }, { "GET - /", 1 },
      { "GET [::1]:80 /", 1 },
    },
  },
  {
    name = "the host comes before everything, and a host without a match falls on",
    routes = {
      { hosts = { "a.example" }, path = "/" },
      { hosts = { "*.example" }, path = { exact = "/x" }, methods = { "GET" }, headers = { ["x-a"] = "1" } },
      { hosts = { "b.example" }, path = "/only" },
      { path = "/y/z" },
    },
    requests = {
      { "GET a.example /x\nX-A: 1", 1 }, { "GET b.example /x\nX-A: 1", 2 }, { "GET b.example /only/7", 3 },
      { "GET b.example /y/z", 4 }, { "GET b.example /y", 404 }, { "GET - /y/z", 4 }, { "GET - /x\nX-A: 1", 404 },
    },
  },
  {
    name = "without a host only routes without hosts",
    routes = { { hosts = { "a.example" } }, { path = "/x" } },
    requests = { { "GET - /", 404 }, { "GET - /x", 2 }, { "GET other.example /", 404 }, { "GET a.example /x", 1 } },
  },
  {
    name = "methods",
    routes = {
      { path = "/" }, { path = "/", methods = { "GET", "HEAD" } }, { path = "/", methods = { "GET", "DELETE" } },
      { path = "/", methods = { "PROPFIND" } },
    },
    requests = {
      { "GET h.example /", 2 }, { "HEAD h.example /", 2 }, { "DELETE h.example /", 3 }, { "PUT h.example /", 1 },
      { "PROPFIND h.example /", 4 }, { "PURGE h.example /", 1 },
    },
  },
  {
    name = "a method beats headers, headers beat query parameters, more beat fewer, the first wins a tie",
    routes = {
      { path = "/", query = { a = "1", b = "2", c = "3" } },
      { path = "/", headers = { ["x-a"] = "1" } },
      { path = "/", headers = { ["x-a"] = "1", ["x-b"] = "2" } },
      { path = "/", methods = { "POST" } },
      { path = "/", headers = { ["x-a"] = "1" }, query = { a = "1" } },
      { path = "/", headers = { ["x-c"] = { regex = ".*" } } },
      { path = "/", headers = { ["x-d"] = "4" } },
      { path = "/", query = { a = "1" } },
    },
    requests = {
      { "POST h.example /?a=1&b=2&c=3\nX-A: 1\nX-B: 2", 4 }, { "GET h.example /?a=1&b=2&c=3\nX-A: 1\nX-B: 2", 3 },
      { "GET h.example /?a=1&b=2&c=3\nX-A: 1", 5 }, { "GET h.example /\nX-A: 1", 2 },
      { "GET h.example /?a=1&b=2&c=3", 1 }, { "GET h.example /?a=1&b=2", 8 },
      { "GET h.example /\nX-C: x\nX-D: 4", 6 }, { "GET h.example /\nX-D: 4", 7 }, { "GET h.example /", 404 },
    },
  },
  {
    name = "a path decides before methods and headers do",
    routes = {
      { path = "/a", methods = { "GET" }, headers = { ["x-a"] = "1" }, query = { q = "1" } }, { path = "/a/b" },
      { path = { exact = "/a/b" }, headers = { ["x-b"] = "1" } },
    },
    requests = {
      { "GET h.example /a/b?q=1\nX-A: 1", 2 }, { "GET h.example /a/c?q=1\nX-A: 1", 1 },
      { "GET h.example /a/b?q=1\nX-A: 1\nX-B: 1", 3 }, { "GET h.example /a/c", 404 },
    },
  },
  {
    name = "a header is matched with all its values",
    routes = {
      { path = "/a", headers = { ["X-List"] = "a, b" } },
      { path = "/b", headers = { cookie = "a=1; b=2" } },
      { path = "/c", headers = { ["x-list"] = { regex = "a, (b|c)" } } },
      { path = "/d", headers = { ["x-list"] = { exact = "a" } } },
      { path = "/e", headers = { ["x-none"] = "" } },
    },
    requests = {
      { "GET h.example /a\nx-list: a\nX-LIST: b", 1 }, { "GET h.example /a\nx-list: a, b", 1 },
      { "GET h.example /a\nx-list: b\nx-list: a", 404 }, { "GET h.example /a\nx-list: A, B", 404 },
      { "GET h.example /b\nCookie: a=1\nCookie: b=2", 2 }, { "GET h.example /b\nCookie: a=1, b=2", 404 },
      { "GET h.example /c\nX-List: a\nX-List: c", 3 }, { "GET h.example /c\nX-List: a, bc", 404 },
      { "GET h.example /d\nX-List: a", 4 }, { "GET h.example /d\nX-List: a\nX-List: a", 404 },
      { "GET h.example /e\nX-None:", 5 }, { "GET h.example /e", 404 },
    },
  },
  {
    name = "a query parameter is matched by its first value, decoded",
    routes = {
      { path = "/a", query = { v = "1" } }, { path = "/b", query = { ["a b"] = "x&y" } },
      { path = "/c", query = { n = { regex = "[0-9]+" } } }, { path = "/d", query = { flag = "" } },
    },
    requests = {
      { "GET h.example /a?v=1", 1 }, { "GET h.example /a?v=1&v=2", 1 }, { "GET h.example /a?v=2&v=1", 404 },
      { "GET h.example /a?V=1", 404 }, { "GET h.example /a?x&v=1", 1 }, { "GET h.example /a?%76=%31", 1 },
      { "GET h.example /a", 404 }, { "GET h.example /b?a+b=x%26y", 2 }, { "GET h.example /b?a%20b=x%26y", 2 },
      { "GET h.example /c?n=42", 3 }, { "GET h.example /c?n=42x", 404 }, { "GET h.example /c?n=", 404 },
      { "GET h.example /d?flag", 4 }, { "GET h.example /d?flag=", 4 }, { "GET h.example /d?flag=1", 404 },
    },
  },
  {
    name = "a route with several matches takes what any of them takes",
    routes = {
      { path = "/" },
      { hosts = { "h.example" }, matches = { { path = "/a" }, { path = { exact = "/b" }, methods = { "POST" } }, { query = { z = "1" } } } },
    },
    requests = {
      { "GET h.example /a/1", 2 }, { "POST h.example /b", 2 }, { "GET h.example /b", 1 }, { "GET h.example /b?z=1", 2 },
      { "GET other.example /a", 1 },
    },
  },
  {
    name = "OPTIONS * goes to what takes every path",
    routes = { { hosts = { "a.example" }, path = "/" }, { hosts = { "b.example" }, path = "/x" } },
    requests = { { "OPTIONS a.example *", 1 }, { "OPTIONS b.example *", 404 } },
  },
  {
    name = "an expression that gives up answers 500, whatever else would match",
    routes = { { path = "/" }, { path = { regex = "/r/(a+)+b" } }, { path = "/h", headers = { ["x-a"] = { regex = "(a+)+b" } } } },
    requests = {
      { "GET h.example /r/" .. ("a"):rep(60) .. "!b!", 500 }, { "GET h.example /r/aab", 2 },
      { "GET h.example /h\nX-A: " .. ("a"):rep(60) .. "!b!", 500 }, { "GET h.example /h\nX-A: ab", 3 },
      { "GET h.example /h\nX-A: c", 1 },
    },
  },
}
