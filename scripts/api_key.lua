-- A key for every consumer: requests without a known one are answered here, the others go on with the consumer's name.
--
--   curl -i 127.0.0.1:8080/                              401
--   curl -i 127.0.0.1:8080/ -H 'X-Api-Key: k-alice'      200; the backend sees X-Consumer: alice, and no key
--
-- From Kong: key-auth. From OpenResty: access_by_lua with ngx.exit(401).

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

-- Files, like the environment, are read while the script is evaluated; `moongate reload` takes new keys.
local consumers = { ["k-alice"] = "alice", ["k-bob"] = "bob" }

moongate.route {
  path = "/", backends = "echo",
  access = function(exchange)
    local headers = exchange.request.headers
    -- Two keys are read as "k-alice, k-bob", which is nobody's.
    local consumer = consumers[headers["x-api-key"] or ""]
    if not consumer then
      exchange:respond(401, { error = "an API key is needed" }, { ["www-authenticate"] = "ApiKey" })
    end -- respond ends the phase: what follows runs for known consumers alone
    exchange.consumer = consumer
    headers["x-api-key"] = nil
    headers["x-consumer"] = consumer -- replaces what the client may have sent
  end,
}
