-- Which backend a request goes to, by its headers. Routes do that by themselves: the one that asks for most headers wins.
--
--   curl -i 127.0.0.1:8080/                                          X-Served-By: stable
--   curl -i 127.0.0.1:8080/ -H 'X-Env: test'                         X-Served-By: test
--   curl -i 127.0.0.1:8080/ -A 'shop-app/3.1 (iPhone)'               X-Served-By: mobile
--
-- From Kong: routes with headers. From OpenResty: set_by_lua and proxy_pass with a variable.

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }

-- Three names for builtin:echo; real ones have addresses.
for _, name in ipairs { "stable", "test", "mobile" } do
  moongate.upstream { name = name, endpoints = { "builtin:echo" } }
end

-- The upstream that was chosen; one function for all routes.
local function served_by(exchange)
  exchange.response.headers["x-served-by"] = exchange.upstream
end

moongate.route { name = "all", path = "/", backends = "stable", header_filter = served_by }
moongate.route {
  name = "test", path = "/", backends = "test", header_filter = served_by,
  headers = { ["x-env"] = "test" },
}
moongate.route {
  name = "mobile", path = "/", backends = "mobile", header_filter = served_by,
  headers = { ["user-agent"] = { regex = "shop-app/3\\..*" } }, -- describes the whole value
}
