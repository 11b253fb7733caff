-- A maintenance switch: while there is a file "maintenance.txt" beside the script (MAINTENANCE names another), everybody gets
-- its text with a 503, but those who bring the pass, and the health check.
--
--   echo 'back at noon' > maintenance.txt && moongate reload
--   curl -i 127.0.0.1:8080/                             503, Retry-After: 120
--   curl -i 127.0.0.1:8080/ -H 'X-Pass: let-me-in'      200
--   rm maintenance.txt && moongate reload
--
-- The file is read while the script is evaluated: no request waits for the disk, and all workers switch with the reload.

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

local directory = debug.getinfo(1, "S").source:match "^@(.*/)" or ""
local file = io.open(os.getenv "MAINTENANCE" or directory .. "maintenance.txt")
local message = file and file:read "*a"

local function closed(exchange)
  if exchange.request.headers["x-pass"] == "let-me-in" then return end
  exchange:respond(503, message, { ["retry-after"] = "120", ["cache-control"] = "no-store" })
end

moongate.route { path = "/", backends = "echo", access = message and closed or nil }
moongate.route {
  path = { exact = "/health" },
  plugins = { { "direct-response", body = "fine\n" } },
}
