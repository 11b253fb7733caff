-- Another service decides who may pass: it gets the credentials and where they want to go, and answers 200 with the user, or
-- 401, or 403.
--
--   curl -i 127.0.0.1:8080/                                            401
--   curl -i 127.0.0.1:8080/ -H 'Authorization: Bearer ada-token'       200; the backend sees X-User: ada
--   curl -i 127.0.0.1:8080/admin -H 'Authorization: Bearer ada-token'  403
--
-- From nginx: auth_request. From Kong: forward-auth plugins.

local moongate = require "moongate"

local port = tonumber(os.getenv "PORT" or 8080)
moongate.listener { port = port, address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

-- The service, as a route of this gateway; a real one has its own address, retries and limits in its upstream.
moongate.upstream { name = "auth", endpoints = { "127.0.0.1:" .. port } }
local users = { ["Bearer ada-token"] = "ada", ["Bearer root-token"] = "root" }
moongate.route {
  path = "/auth/check",
  access = function(exchange)
    local headers = exchange.request.headers
    local user = users[headers.authorization or ""]
    if not user then exchange:respond(401) end
    local is_admin = (headers["x-original-path"] or ""):find "^/admin"
    exchange:respond(is_admin and user ~= "root" and 403 or 200, "", { ["x-user"] = user })
  end,
}

local function authenticate(exchange)
  local request = exchange.request
  local answer, err = moongate.http.request {
    upstream = "auth", url = "/auth/check", timeout = 1,
    headers = {
      authorization = request.headers.authorization, -- nil: is not sent
      ["x-original-method"] = request.method, ["x-original-path"] = request.path,
    },
  }
  if not answer then -- nobody passes while nobody knows
    moongate.log.error("authentication failed", { why = err })
    exchange:respond(503, { error = "try again later" }, { ["retry-after"] = "1" })
  elseif answer.status == 401 or answer.status == 403 then
    exchange:respond(answer.status, answer.body)
  elseif answer.status ~= 200 then
    exchange:respond(502, { error = "the authentication service is out of order" })
  end
  request.headers["x-user"] = answer.headers["x-user"]
end

moongate.route { path = "/", backends = "echo", access = authenticate }
