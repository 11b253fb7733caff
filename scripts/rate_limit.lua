-- A rate limit for each client address, counted over all workers: LIMIT=100 requests a WINDOW=60 seconds.
--
--   curl -i 127.0.0.1:8080/         X-RateLimit-Remaining: 99 ... then 429, Retry-After: 60
--
-- From OpenResty: lua-resty-limit-traffic on a lua_shared_dict. From Kong: rate-limiting with policy = local.

local moongate = require "moongate"

local LIMIT = tonumber(os.getenv "LIMIT" or 100)
local WINDOW = tonumber(os.getenv "WINDOW" or 60)

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

-- Kept over reloads. When it is full, those who have been quiet for longest are forgotten.
local counts = moongate.shared("rate-limit", { size = 4 * 1024 * 1024 })

moongate.route {
  path = "/", backends = "echo",
  access = function(exchange)
    local client = exchange.request.client.address
    -- One step, whatever the other workers do: a key that is not there begins at 0 and lives for a window.
    local count, err = counts:incr(client, 1, 0, WINDOW)
    if not count then -- a limit that fails lets in
      return moongate.log.error("rate limit", { why = err })
    end
    exchange.vars.remaining = math.max(0, LIMIT - count)
    if count > LIMIT then
      local seconds = math.ceil(counts:ttl(client) or 1)
      exchange:respond(429, { error = "too many requests" }, { ["retry-after"] = seconds })
    end
  end,
  header_filter = function(exchange) -- runs for the 429 as well
    local headers = exchange.response.headers
    headers["x-ratelimit-limit"] = tostring(LIMIT)
    headers["x-ratelimit-remaining"] = tostring(exchange.vars.remaining or LIMIT)
  end,
}
