-- A response rewritten while it streams: the backend's own address becomes the public one, in a body of any length, with no
-- more of it in memory than a piece.
--
--   curl 127.0.0.1:8080/ -H 'X-Link: http://backend.internal/a'     "https://www.example.com/a" in the answer
--
-- From OpenResty: body_filter_by_lua; but here a piece that ends within the text is no special case of yours to forget.

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

local FROM, TO = "http://backend.internal", "https://www.example.com"

-- Writes what is decided of the text; gives the rest, which might be the begin of FROM.
local function write_decided(response, text)
  local at = 1
  while true do
    local start, stop = text:find(FROM, at, true)
    if not start then break end
    response:write(text:sub(at, start - 1))
    response:write(TO)
    at = stop + 1
  end
  local rest = math.max(at, #text - #FROM + 2)
  response:write(text:sub(at, rest - 1))
  return text:sub(rest)
end

moongate.route {
  path = "/", backends = "echo",
  rewrite = function(exchange)
    exchange.request.headers["accept-encoding"] = nil -- a compressed body hides what is sought
  end,
  body_filter = function(exchange)
    local response, rest = exchange.response, ""
    for piece in response:chunks() do rest = write_decided(response, rest .. piece) end
    response:write(rest)
  end,
}
