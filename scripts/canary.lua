-- A canary: some percent of the traffic for the new version, all of it for whoever asks. CANARY=20 is another share; edit it in
-- place of the environment and `moongate reload` changes the share of a gateway that runs.
--
--   curl -i 127.0.0.1:8080/                          X-Version: stable, five times in a hundred canary
--   curl -i 127.0.0.1:8080/ -H 'X-Canary: always'    X-Version: canary

local moongate = require "moongate"

local percent = tonumber(os.getenv "CANARY" or 5)

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "stable", endpoints = { "builtin:echo" } }
moongate.upstream { name = "canary", endpoints = { "builtin:echo" } }

local function version(exchange)
  exchange.response.headers["x-version"] = exchange.upstream
end

moongate.route {
  name = "shares", path = "/", header_filter = version,
  backends = { stable = 100 - percent, canary = percent },
}
moongate.route {
  name = "testers", path = "/", header_filter = version,
  headers = { ["x-canary"] = "always" }, backends = "canary",
}
