-- Plugins: what the gateway does with a request besides forwarding it. Every backend here is builtin:echo,
-- which answers with what it was sent.
--
--   curl -i 127.0.0.1:8080/api/users?page=2      headers edited, "/api" taken off, open to pages of other origins
--   curl -i 127.0.0.1:8080/api/users -X OPTIONS -H 'Origin: https://app.example.com' \
--           -H 'Access-Control-Request-Method: PUT'                            the preflight of such a page
--   curl -i 127.0.0.1:8080/old/page?x=1          moved to /new/page?x=1
--   curl -i 127.0.0.1:8080/robots.txt            answered here

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

moongate.route { path = "/", backends = "echo" }

moongate.route {
  path = "/api", backends = "echo",
  plugins = { -- in this order
    { "cors", origins = { "https://*.example.com" }, methods = { "GET", "PUT" },
      headers = { "content-type" }, max_age = 600 },
    { "url-rewrite", path = { prefix = "/" } },      -- /api/users becomes /users
    { "request-headers", set = { ["x-via"] = "moongate" }, remove = { "x-debug" } },
    { "response-headers", set = { ["x-frame-options"] = "DENY" } },
  },
}

-- These plugins answer every request, so the routes need no backends.
moongate.route {
  path = "/old",
  plugins = { { "redirect", path = { prefix = "/new" }, status = 301 } },
}
moongate.route {
  path = "/robots.txt",
  plugins = { { "direct-response", body = "User-agent: *\nDisallow: /\n" } },
}
